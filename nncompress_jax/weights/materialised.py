"""A dense array that was made of a weight, in a program, with the reason."""

from jax.extend import core
from jax.interpreters import ad, batching, mlir

materialised_p = core.Primitive("materialised")
"""A weight's dense array as it is; in a program its parameter, `reason`, says why there had to be one."""

materialised_p.def_impl(lambda x, *, reason: x)
materialised_p.def_abstract_eval(lambda x, *, reason: x)
mlir.register_lowering(materialised_p, lambda context, x, *, reason: [x])
ad.deflinear2(materialised_p, lambda cotangent, x, *, reason: [cotangent])
batching.defvectorized(materialised_p)
