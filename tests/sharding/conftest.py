"""Four CPU devices: two hosts of two in the tests of several processes, and two, three or four where one has them all.

A process has one number of devices, which is set before jax starts: `pytest tests/sharding`, and nothing beside it.
"""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

from tests.training.conftest import configured, finished  # noqa: F401
