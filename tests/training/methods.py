"""Ways to make weights small that go on training."""

import nncompress_jax as nnc


def inner(path):
    """Not the first convolution: it has one input channel."""
    return path.endswith("kernel") and not path.startswith(("params/Conv_0", "first"))


METHODS = {
    "prune": nnc.prune(sparsity=0.8),
    "cluster": nnc.cluster(bits=4),
    "8 bits, trained through": nnc.fake_quantize(),
    "2 bits, learned scales, tracked ranges": nnc.fake_quantize(
        bits=2, learned_scales=True, ranges=nnc.calibration.abs_max, tracked=True
    ),
    "low rank": nnc.factorize(rank=2, where=inner),
    "binary": nnc.binarize(train=True),
    "binary within bounds": nnc.binarize(train=True, scaled=False),
    "cut channels": nnc.prune_channels(macs=0.5),
    "2:4": nnc.prune(pattern=(2, 4), where=inner),
    "Deep Compression": nnc.recipe("prune:0.5+cluster:4"),
    "none": lambda variables, context: variables,
}
OWN_GRADIENTS = {
    "shared by a hash": nnc.hash_weights(share=0.25),
    "three values": nnc.ternarize(train=True),
    "to 2 bits": nnc.fake_quantize(target_rate=2.0),
}
"""Whose gradients are tested beside their types (`tests/methods`)."""
