"""The law of compressed weights where weights are on every device and each has a share of the inputs."""

import jax
import pytest

from tests.weights.test_law import DERIVED, check_programs_inside_and_gradients


@pytest.mark.parametrize("compression", DERIVED)
def test_programs_inside_and_gradients(compression):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, by_example = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))

    def placed(floats, inputs):
        return jax.device_put(floats, whole), jax.device_put(inputs, by_example)

    check_programs_inside_and_gradients(compression, placed)
