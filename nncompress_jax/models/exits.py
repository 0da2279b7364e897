"""Networks with early exits, and the same without them."""

import jax
import jax.numpy as jnp

from nncompress_jax.models.network import Network, fitting, shapes
from nncompress_jax.models.own import OwnNetwork
from nncompress_jax.types import Variables


def without_exits(name: str) -> str:
    """The name of the same network without early exits.

    Args:
      name: any network's.

    Example:
      >>> without_exits("vgg16_exits")
      'vgg16'
    """
    return name.removesuffix("_exits")


def with_exits(network: Network | OwnNetwork, variables: Variables) -> Variables:
    """Variables with what the network's early exits lack: dense layers of zeros, which training begins with.

    Args:
      network: any; the widths are those of the variables.
      variables: that were trained without the exits, or with them.

    Example:
      >>> from nncompress_jax import models
      >>> trained = shapes(models.create("resnet20"), (32, 32, 3))
      >>> with_exits(models.create("resnet20", exits=(2,)), trained)["params"]["Exit_0"]["kernel"].shape
      (256, 10)
    """
    own = [f"Exit_{number}" for number in range(len(getattr(network, "exits", ())))]
    if not isinstance(network, Network) or not own or own[0] in variables["params"]:
        return variables
    trunk = fitting(network.copy(exits=()), variables)
    size = trunk.image_size(variables)
    channels = variables["params"]["Conv_0"]["kernel"].shape[2]
    expected = shapes(trunk.copy(exits=network.exits), (size, size, channels))["params"]
    begin = {name: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), expected[name]) for name in own}
    return {**variables, "params": {**variables["params"], **begin}}
