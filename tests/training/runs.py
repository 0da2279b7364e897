"""What tests of whole runs compare."""

import json

import jax
import numpy as np

from nncompress_jax.training import checkpoint


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(ours), checkpoint.restore(theirs))
