"""Trains a network; the same command again goes on where it stopped.

python experiments/train.py --model=vgg16ds
"""

from nncompress_jax import command
from nncompress_jax.training.config import Config
from nncompress_jax.training.loop import train


def main(config: Config) -> None:
    """Trains, and says where the result is."""
    run = train(config)
    accuracy, seconds = run.evaluation.accuracy, run.progress.training_seconds
    print(f"{run.workdir}: test accuracy {accuracy:.4f} on {config.dataset}, trained for {seconds:.0f} s")


if __name__ == "__main__":
    command.run(main, Config)
