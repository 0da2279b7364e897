"""Optimal Brain Quantization in plain NumPy, float64: entries one after the other, the inverse updated after each."""

import numpy as np

DAMPING = 0.01


def obq(weights, squares, choose, order=None):
    """What becomes of weights [n, outputs], row after row, by (values [outputs], row) -> values [outputs]."""
    weights, chosen = np.array(weights, np.float64), np.zeros(weights.shape)
    inverse = np.linalg.inv(squares)
    for j in range(len(weights)) if order is None else order:
        chosen[j] = choose(weights[j], j)
        weights -= np.outer(inverse[:, j], (weights[j] - chosen[j]) / inverse[j, j])
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return chosen


def damped(squares):
    return squares + DAMPING * np.trace(squares) / len(squares) * np.eye(len(squares))


def rounded_layer(weights, inputs, reference, step):
    """[n, outputs] -> whole steps whose outputs on `inputs` are nearest to those of the weights on `reference`."""
    weights, inputs, reference = (np.asarray(x, np.float64) for x in (weights, inputs, reference))
    squares = inputs.T @ inputs
    damping = damped(squares) - squares
    target = np.linalg.solve(squares + damping, inputs.T @ reference @ weights + damping @ weights)
    order = np.argsort(-np.diag(squares), kind="stable")
    return obq(target, squares + damping, lambda row, _: np.clip(np.round(row / step), -127, 127) * step, order)
