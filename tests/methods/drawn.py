"""Kernels at random, and what methods make of one."""

import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def compressed(kernel, *methods):
    return nnc.compress({"kernel": kernel}, nnc.chain(*methods))["kernel"]
