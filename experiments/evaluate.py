"""Tests a network: accuracy and confusion by class, as floats, on 8-bit integers, or as the original simulated them.

The same as `nncompress evaluate`.
"""

from nncompress_jax.commands import cli
from nncompress_jax.commands.evaluate import Options, main

if __name__ == "__main__":
    cli.run(main, Options)
