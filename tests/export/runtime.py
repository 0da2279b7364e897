"""Runs exported networks in onnxruntime."""

import collections

import jax
import numpy as np
import onnx
import onnxruntime

import nncompress_jax as nnc


def exported(folder, apply, variables, *inputs, **options):
    """A function of (inputs), to outputs, and the report."""
    path = folder / "network.onnx"
    report = nnc.export_onnx(path, apply, variables, inputs, **options)
    assert report.size_bytes == path.stat().st_size
    session = onnxruntime.InferenceSession(path)

    def run(*inputs):
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
        return session.run(None, dict(zip([each.name for each in session.get_inputs()], arrays, strict=True)))

    return run, report


def same(folder, apply, variables, *inputs, tolerance=1e-5, examples=5, **options):
    """Outputs as those of apply, for the batch that was given and for another number of examples."""
    run, report = exported(folder, apply, variables, *inputs, **options)
    larger = [np.concatenate([np.asarray(x)] * examples)[: 2 * examples - 1] for x in inputs]
    for given in (inputs, larger) if options.get("any_batch", True) else (inputs,):
        expected = jax.tree.leaves(jax.jit(nnc.inject(apply))(variables, *given))
        for found, wanted in zip(run(*given), expected, strict=True):
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            scale = max(np.abs(np.asarray(wanted, np.float64)).max(initial=0), 1e-3)
            np.testing.assert_allclose(found, wanted, atol=tolerance * scale, rtol=0)
    return report


def kernels(folder):
    """How often each operation is there once onnxruntime has optimized the network."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(folder / "network.onnx", options)
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)
