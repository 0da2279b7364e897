"""`nncompress train`, which knows the narrow networks, too: a process of its own that tests may kill.

Where SECONDS_A_STEP is set each step takes so much longer, as those of large networks do; where SECONDS_AT_THE_END is
an error takes so much longer until the process ends, as on a busy machine.
"""

import os
import time

from nncompress_jax.commands import cli, train
from nncompress_jax.training import processes
from nncompress_jax.training.interruption import Interruption
from tests import networks

if __name__ == "__main__":
    networks.register()
    pause, is_asked = float(os.environ.get("SECONDS_A_STEP", 0)), Interruption.is_asked
    Interruption.is_asked = lambda self: time.sleep(pause) or is_asked(self)
    at_the_end, leave = float(os.environ.get("SECONDS_AT_THE_END", 0)), processes.leave
    processes.leave = lambda code: time.sleep(at_the_end) or leave(code)
    cli.run(train.main, train.Options)
