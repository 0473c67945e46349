"""How images are labelled: with one class each, or with any number of labels.

What is trained, measured, predicted and reported of the two differs, all else of the job does not.
Shapes: B examples of a batch, N all of them, K classes.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.launch.answers import class_answers, label_answers
from dlcore.losses import binary_cross_entropy
from dlcore.metrics import average_precision, classification, label_scores
from dlcore.metrics.uncertainty import Uncertain, uncertainty
from dlcore.nn.views import mean_sigmoid, mean_softmax
from dlcore.report import Section
from dlcore.report.classes import (
    calibration_section,
    class_section,
    confusion_section,
    label_section,
    worst_mistakes,
)
from dlcore.report.plots.figure import shorten
from dlcore.types import Mean, Measures, Metrics, Rows


@dataclasses.dataclass(frozen=True)
class Labelling(abc.ABC):
    """The kind of the labels.

    Attributes:
        class_names: K names.
        smoothing: the share of the target that is spread over all classes, or over yes and no.
        weights: (K,) of the classes in the loss; None where all weigh 1.
    """

    class_names: Sequence[str]
    smoothing: float = 0.0
    weights: np.ndarray | None = None

    @property
    @abc.abstractmethod
    def metric(self) -> tuple[str, Literal["min", "max"]]:
        """The main metric of an evaluation, and whether more or less of it is better."""

    @property
    @abc.abstractmethod
    def chance(self) -> float | None:
        """The loss of guessing evenly in nats; None where it depends on the labels."""

    @abc.abstractmethod
    def loss(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Mean:
        """Returns the loss to train by, of the batch's labels and its weight (B,)."""

    @abc.abstractmethod
    def measures(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Measures:
        """Returns what an evaluation measures, "loss" too; weights of classes count not."""

    def training_measures(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Metrics:
        """Returns those means that a training step reports beside its loss, all scalars."""
        return {
            name: mean
            for name, mean in self.measures(logits, labels, weight).items()
            if name != "loss" and isinstance(mean, Mean) and not mean.total.ndim
        }

    @abc.abstractmethod
    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Returns the probabilities of the classes, (B, K)."""

    @abc.abstractmethod
    def mean(self, logits: jax.Array) -> jax.Array:
        """Returns the logits (B, K) of the mean probabilities over views, (views, B, K)."""

    def uncertainty(self, samples: np.ndarray) -> Uncertain:
        """Returns the mean of S samples (S, N, K) of the probabilities, and its uncertainty."""
        return uncertainty(samples)

    @abc.abstractmethod
    def answers(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        """Returns one row of predictions for each of N examples."""

    def summarise(self, measured: dict[str, Any]) -> dict[str, float]:
        """Returns the metrics to report of what an evaluation measured."""
        return measured

    @abc.abstractmethod
    def sections(self, labels: np.ndarray, probabilities: np.ndarray) -> list[Section]:
        """Returns the sections of the report on the classes."""

    @abc.abstractmethod
    def mistakes(self, labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, str]]:
        """Returns the index and a caption of each mistaken example, the worst first."""


@dataclasses.dataclass(frozen=True)
class OneClass(Labelling):
    """Each image is of one class: softmax and cross-entropy.

    Attributes:
        top: the number of classes in a prediction.
    """

    top: int = 5

    metric = ("accuracy", "max")

    @property
    def chance(self) -> float:
        return float(np.log(len(self.class_names)))

    def loss(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Mean:
        """As `Labelling.loss`; labels are (B,) classes, or (B, K) probabilities of them.

        The weights of classes are those of examples, averaged over the probabilities.
        """
        if self.weights is not None:
            of_class = jnp.asarray(self.weights, jnp.float32)
            weight = weight * (of_class[labels] if labels.ndim == 1 else labels @ of_class)
        return classification(logits, labels, weight, label_smoothing=self.smoothing)["loss"]

    def measures(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Measures:
        return classification(logits, labels, weight)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        return jax.nn.softmax(logits)

    def mean(self, logits: jax.Array) -> jax.Array:
        return mean_softmax(logits)

    def answers(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        return class_answers(probabilities, self.class_names, self.top)

    def sections(self, labels: np.ndarray, probabilities: np.ndarray) -> list[Section]:
        predictions = probabilities.argmax(axis=1)
        return [
            confusion_section(labels, predictions, self.class_names),
            class_section(labels, predictions, self.class_names),
            calibration_section(labels, probabilities),
        ]

    def mistakes(self, labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, str]]:
        found = []
        for index in worst_mistakes(labels, probabilities).tolist():
            taken = int(probabilities[index].argmax())
            names = [shorten(self.class_names[k]) for k in (int(labels[index]), taken)]
            sure = f"{probabilities[index, taken]:.0%}"
            found.append((index, f"is {names[0]}\ntaken for {names[1]} ({sure})"))
        return found


@dataclasses.dataclass(frozen=True)
class SeveralLabels(Labelling):
    """Each image has any number of labels: a sigmoid and binary cross-entropy for each class.

    The loss of an example is the mean over the classes; its weights are those of the positives.

    Attributes:
        threshold: the probability above which a label is predicted.
    """

    threshold: float = 0.5

    metric = ("mean_average_precision", "max")

    @property
    def chance(self) -> float | None:
        return float(np.log(2)) if self.weights is None else None

    def loss(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Mean:
        # Mixed examples have shares of labels, which stay as they are but for the smoothing.
        targets = (1 - self.smoothing) * labels + self.smoothing / 2
        weights = None if self.weights is None else jnp.asarray(self.weights, jnp.float32)
        return Mean.of(binary_cross_entropy(logits, targets, weights).mean(-1), weight)

    def measures(self, logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Measures:
        return {
            "loss": Mean.of(binary_cross_entropy(logits, labels).mean(-1), weight),
            **label_scores(logits, labels, weight, threshold=self.threshold),
            "ranking": Rows((logits.astype(jnp.float32), labels), weight),
        }

    def probabilities(self, logits: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(logits)

    def mean(self, logits: jax.Array) -> jax.Array:
        return mean_sigmoid(logits)

    def uncertainty(self, samples: np.ndarray) -> Uncertain:
        """As `Labelling.uncertainty`, summed over the labels, as if they were independent."""
        found = uncertainty(np.stack([1 - samples, samples], -1))
        return Uncertain(
            found.probabilities[..., 1], found.entropy.sum(1), found.mutual_information.sum(1)
        )

    def answers(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        return label_answers(probabilities, self.class_names, self.threshold)

    def summarise(self, measured: dict[str, Any]) -> dict[str, float]:
        means = {**measured}
        precisions = average_precision(*means.pop("ranking"))
        known = precisions[~np.isnan(precisions)]
        mean = float(known.mean()) if len(known) else float("nan")
        return {**means, "mean_average_precision": mean}

    def sections(self, labels: np.ndarray, probabilities: np.ndarray) -> list[Section]:
        # Each pair of an image and a class is a prediction of no or yes.
        decisions = np.stack([1 - probabilities, probabilities], -1).reshape(-1, 2)
        return [
            label_section(labels, probabilities, self.class_names, threshold=self.threshold),
            calibration_section(labels.astype(int).ravel(), decisions),
        ]

    def mistakes(self, labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, str]]:
        there, found = labels > 0.5, probabilities > self.threshold
        right = np.where(there, probabilities, 1 - probabilities)
        losses = -np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean(1)
        wrong = np.flatnonzero((there != found).any(1))
        order = wrong[np.argsort(-losses[wrong], kind="stable")].tolist()
        return [
            (i, f"has {self._names(there[i])}\ntaken for {self._names(found[i])}") for i in order
        ]

    def _names(self, chosen: np.ndarray) -> str:
        names = [name for name, one in zip(self.class_names, chosen, strict=True) if one]
        return shorten(", ".join(names) or "none", 24)
