"""Every public function as a row: called on a tree, its result checked by numpy or by the plain network."""

from tests.every_tree.rows import channels, files, outputs, programs, weights
from tests.every_tree.rows.checks import ROWS

__all__ = ["ROWS", "channels", "files", "outputs", "programs", "weights"]
