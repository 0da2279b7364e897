"""Trains a network; the same command again goes on where it stopped.

python experiments/train.py --model=vgg16ds
python experiments/train.py --model=vgg16ds --init=runs/W --recipe=prune:0.9 --epochs=3 --learning_rate=0.01
python experiments/train.py --model=vgg16ds --init=runs/W --recipe=fake_quantize:4 --teacher=self --epochs=3
python experiments/train.py --model=vgg16ds --init=runs/W --recipe=prune:0.8/dense --epochs=3

Exit codes: 0 finished; 2 what was given is wrong; 74 the workdir cannot be written; 75 ended before its end, by SIGTERM
or because another process was lost: the same command goes on.
"""

import dataclasses
from typing import Any

import tyro

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.commands.teacher import objective_of
from nncompress_jax.commands.turns import turns_of
from nncompress_jax.training import checkpoint, processes
from nncompress_jax.training.config import Config
from nncompress_jax.training.loop import train
from nncompress_jax.training.processes import Cluster
from nncompress_jax.tree import stored_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Printed):
    """What is trained, and where."""

    config: tyro.conf.OmitArgPrefixes[Config]
    cluster: tyro.conf.OmitArgPrefixes[Cluster]


def main(options: Options) -> dict[str, Any] | None:
    """Trains, and says where the result is."""
    config = options.config
    processes.start(options.cluster)
    with processes.lost_ones_end_the_run():
        run = train(config, initial_variables(config), objective_of(config), turns_of(config))
    if not processes.is_first():
        return None
    accuracy, seconds = run.evaluation.accuracy, run.progress.training_seconds
    print(f"{run.workdir}: test accuracy {accuracy:.4f} on {config.dataset}, trained for {seconds:.0f} s")
    found = {"workdir": str(run.workdir), "accuracy": accuracy, "dataset": config.dataset, "training_seconds": seconds}
    if config.recipe:
        converted = nnc.convert(checkpoint.restore(run.workdir))
        sizes = {"bytes": stored_bytes(converted), "float_bytes": stored_bytes(nnc.decompress(converted))}
        print(f"{sizes['bytes']:,} bytes as stored, {sizes['float_bytes']:,} as floats")
        found |= sizes
    return found
