"""The installed command."""

import pytest

from nncompress_jax.commands import nncompress as installed


@pytest.fixture
def nncompress(called):
    """Runs it, as `called`."""
    return lambda line: called(installed.main, "nncompress", *line.split())
