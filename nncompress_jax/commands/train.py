"""Trains a network; the same command again goes on where it stopped.

python experiments/train.py --model=vgg16ds
python experiments/train.py --model=vgg16ds --init=runs/W --compress=prune:0.9 --epochs=3 --learning_rate=0.01
"""

import nncompress_jax as nnc
from nncompress_jax.initial import initial_variables
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config as Options
from nncompress_jax.training.loop import train
from nncompress_jax.tree import stored_bytes


def main(config: Options) -> None:
    """Trains, and says where the result is."""
    run = train(config, initial_variables(config))
    accuracy, seconds = run.evaluation.accuracy, run.progress.training_seconds
    print(f"{run.workdir}: test accuracy {accuracy:.4f} on {config.dataset}, trained for {seconds:.0f} s")
    if config.compress:
        settled = nnc.settle(checkpoint.restore(run.workdir))
        print(f"{stored_bytes(settled):,} bytes as stored, {stored_bytes(nnc.decompress(settled)):,} as floats")
