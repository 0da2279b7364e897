"""Trains a network; the same command again goes on where it stopped.

python experiments/train.py --model=vgg16ds
python experiments/train.py --model=vgg16ds --init=runs/W --compress=prune:0.9 --epochs=3 --learning_rate=0.01
"""

from pathlib import Path

import nncompress_jax as nnc
from nncompress_jax import command
from nncompress_jax.importers import torch
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config
from nncompress_jax.training.loop import train
from nncompress_jax.tree import stored_bytes
from nncompress_jax.types import Variables


def main(config: Config) -> None:
    """Trains, and says where the result is."""
    variables = initial(config)
    run = train(config, variables)
    accuracy, seconds = run.evaluation.accuracy, run.progress.training_seconds
    print(f"{run.workdir}: test accuracy {accuracy:.4f} on {config.dataset}, trained for {seconds:.0f} s")
    if config.compress:
        settled = nnc.settle(checkpoint.restore(run.workdir))
        print(f"{stored_bytes(settled):,} bytes as stored, {stored_bytes(nnc.decompress(settled)):,} as floats")


def initial(config: Config) -> Variables | None:
    """The weights that a run begins with, compressed as it says; None: at random."""
    if config.init is None:
        if config.compress:
            raise nnc.InputError(f"--compress={config.compress} needs --init, the weights that are compressed")
        return None
    if Path(config.init).suffix == ".pth":
        variables = torch.load(config.init, model=config.model)
    else:
        variables = checkpoint.restore(config.init)
    return nnc.compress(variables, nnc.recipe(config.compress)) if config.compress else variables


if __name__ == "__main__":
    command.run(main, Config)
