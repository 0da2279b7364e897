"""Compares networks as floats, on true 8-bit integers, and with the original project's simulation, in its table.

The same as `nncompress compare`.
"""

from nncompress_jax.commands import cli
from nncompress_jax.commands.compare import Options, main

if __name__ == "__main__":
    cli.run(main, Options)
