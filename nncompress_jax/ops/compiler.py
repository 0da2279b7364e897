"""What the compiler must be told for these networks."""

import jax


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` on the default backend.

    Where a convolution's kernel has more pixels than its image (3x3 on 2x2, the last block of VGG16),
    XLA's algebraic simplifier swaps the two; its fast CPU libraries refuse the swapped form, and
    naive loops run. Without that pass the convolution stays as it was written. Accelerators keep the pass.

    Returns:
      Empty on every backend but the CPU.

    Example:
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> double(3.0).item()
      6.0
    """
    return {"xla_disable_hlo_passes": "algsimp"} if jax.default_backend() == "cpu" else {}
