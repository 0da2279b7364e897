"""Trains a network; the same command again goes on where it stopped.

The same as `nncompress train`.
"""

from nncompress_jax.commands import cli
from nncompress_jax.commands.train import Options, main

if __name__ == "__main__":
    cli.run(main, Options)
