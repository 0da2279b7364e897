"""What the compiler must be told for these networks."""

import functools

import jax

CPU_OPTIONS = {
    "xla_disable_hlo_passes": "algsimp",
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    ),
}


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=...)` on the default backend.

    Where a convolution's kernel has more pixels than its image (3x3 on 2x2, the last block of VGG16),
    XLA's algebraic simplifier swaps the two; its fast CPU libraries refuse the swapped form, and
    naive loops run. Without that pass the convolution stays as it was written. But then reductions that the
    library YNNPACK is given (in jax 0.10.2, a max pooling behind a product of two broadcast scales) can come back
    with wrong numbers: it keeps the products, which come back right. Accelerators keep everything.

    Returns:
      Empty on every backend but the CPU, and there where the compiler does not know the options: slower, and right.

    Example:
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> double(3.0).item()
      6.0
    """
    return dict(CPU_OPTIONS) if jax.default_backend() == "cpu" and _are_known() else {}


@functools.cache
def _are_known() -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
