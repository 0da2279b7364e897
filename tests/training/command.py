"""`nncompress train`, which knows the narrow networks, too: a process of its own that tests may kill."""

from nncompress_jax.commands import cli, train
from tests import networks

if __name__ == "__main__":
    networks.register()
    cli.run(train.main, train.Options)
