"""`nncompress train`, which knows the narrow networks, too: a process of its own that tests may kill."""

from nncompress_jax.commands import door, train
from tests import networks

if __name__ == "__main__":
    networks.register()
    door.run(train.main, train.Options)
