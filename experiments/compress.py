"""Compresses a trained network into one file, tests what it has become, and says how small it is.

The same as `nncompress compress`.
"""

from nncompress_jax.commands import cli
from nncompress_jax.commands.compress import Options, main

if __name__ == "__main__":
    cli.run(main, Options)
