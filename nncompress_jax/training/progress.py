"""How far a run has come."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sums:
    """Over the steps of an epoch, or of its part that is done.

    Attributes:
      loss: of all images, in nats.
      correct: images whose largest logit is their class's.
      images: taken.
      seconds: of the steps.
      measures: of all images, by name: what the objective measures beside.
    """

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    measures: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def mean_loss(self) -> float:
        """Mean cross entropy, in nats."""
        return self.loss / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """Fraction from 0 to 1."""
        return self.correct / max(self.images, 1)

    @property
    def mean_measures(self) -> dict[str, float]:
        """Means over the images, by name."""
        return {name: value / max(self.images, 1) for name, value in self.measures.items()}

    @property
    def images_per_second(self) -> float:
        """0 before the first step."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint says of its run beside the state.

    Attributes:
      steps: taken so far; they say where in its epoch the run stands.
      total_steps: of the whole run.
      training_seconds: of the steps alone, without compilation, tests and saving, over all resumptions.
      num_classes: of the network.
      image_shape: [H, W, I] of its inputs.
      epoch: what the steps measured of the epoch that is not tested yet.
      train_images: that an epoch goes through; 0 where an older version did not say.
    """

    steps: int
    total_steps: int
    training_seconds: float
    num_classes: int
    image_shape: tuple[int, ...]
    epoch: Sums = dataclasses.field(default_factory=Sums)
    train_images: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether the run has taken all its steps, and was tested."""
        return self.steps >= self.total_steps and self.is_tested

    @property
    def is_tested(self) -> bool:
        """Whether no step was taken since the last test."""
        return not self.epoch.images

    def at(self, steps: int, epoch: Sums) -> "Progress":
        """The progress after that many steps of the run."""
        return dataclasses.replace(self, steps=steps, epoch=epoch)

    def tested(self) -> "Progress":
        """The progress with its epoch behind it."""
        return dataclasses.replace(self, training_seconds=self.training_seconds + self.epoch.seconds, epoch=Sums())
