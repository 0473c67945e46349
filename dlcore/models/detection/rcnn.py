"""R-CNN (Girshick et al. 2014): linear machines on a network's features of each candidate.

The network learns to classify candidates that are warped to one size (`RCNN.losses`, the paper's
fine-tuning). Then a support vector machine and a regression of boxes for each class are fitted to
its features (`fit_machines`); until then `RCNN.detect` uses the network's own probabilities.

Shapes: B pictures, S their side, C channels, K classes, R candidates, N objects, W the side of a
warped candidate, F features that the machines judge, P features that the boxes are corrected by.
Boxes are (..., 4) in form "corners" (see `dlcore.boxes`). `detector` has the parts that detectors
share; `fast_rcnn` has the rules for ignored objects and for drawing candidates.
"""

import dataclasses
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import boxes as geometry
from dlcore.models.detection import coding
from dlcore.models.detection.body import Body
from dlcore.models.detection.detector import Decoding, objects_of
from dlcore.models.detection.fast_rcnn import Sampling, candidate_targets, share, whole_pictures
from dlcore.models.detection.suppression import Detections
from dlcore.nn import Dense
from dlcore.nn.regions import roi_align
from dlcore.types import Activations, Batch, at_least_float32

# The share of a warped candidate that is context on each of its sides: 16 of 227 pixels.
CONTEXT = 16 / 227
# The collection of what `fit_machines` finds.
MACHINES = "machines"


class Warped(NamedTuple):
    """The network's outputs for R warped candidates.

    Attributes:
        logits: (B, R, K + 1), the background last.
        features: (B, R, F), the last hidden layer, the paper's fc7.
        places: (B, R, P), the map of the body, the paper's pool5.
    """

    logits: jax.Array
    features: jax.Array
    places: jax.Array


def warp(images: jax.Array, boxes: jax.Array, side: int) -> jax.Array:
    """Warps boxes with context to squares, by bilinear samples (the paper's appendix A).

    Args:
        images: (B, S, S, C), of mean 0, the value outside of a picture.
        boxes: the boxes (B, R, 4).
        side: W.

    Returns:
        (B, R, W, W, C).
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]) / (2 * (1 - 2 * CONTEXT))
    around = jnp.concatenate([middle - half, middle + half], -1)
    return roi_align(images, around, stride=1, size=(side, side))


class RCNN(nn.Module):
    """R-CNN with a body that reads warped candidates.

    Attributes:
        body: a network that outputs one map of a warped candidate.
        num_classes: K.
        side: W; 227 in the paper.
        hidden: F; 4,096 in the paper.
        sampling: the sampling of candidates in a step: a quarter have an IoU of at least 0.5 with
            an object, the rest a lower one.
        decoding: the options of the decoding.
    """

    body: Body
    num_classes: int
    side: int = 32
    hidden: int = 128
    sampling: Sampling = Sampling(background=(0.0, 0.5))
    decoding: Decoding = Decoding()

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, boxes: jax.Array | None = None
    ) -> tuple[Warped, Activations]:
        """Maps images (B, S, S, C) to the outputs for boxes, and the activations by name.

        Args:
            images: the pictures.
            train: whether this is training.
            boxes: (B, R, 4); None means the whole picture.
        """
        if boxes is None:
            boxes = whole_pictures(images)
        count = boxes.shape[:2]
        crops = warp(images, boxes.astype(images.dtype), self.side)
        (x,), activations = self.body(crops.reshape(-1, *crops.shape[2:]), train)
        a = dict(activations)
        places = x.reshape(x.shape[0], -1)
        a["hidden"] = x = nn.relu(Dense(self.hidden, name="hidden")(places))
        small = nn.initializers.normal(0.01)
        a["class"] = logits = Dense(self.num_classes + 1, kernel_init=small, name="classes")(x)
        self._machines(x.shape[-1], places.shape[-1])
        parts = (value.reshape(*count, -1) for value in (logits, x, places))
        return Warped(*parts), a

    def _machines(self, features: int, places: int) -> "Machines":
        """Returns the machines in the variables, which are 0 until they are fitted."""
        shapes = Machines.shapes(self.num_classes, features, places)
        return Machines(
            *(
                self.variable(MACHINES, name, jnp.zeros, shape).value
                for name, shape in shapes._asdict().items()
            )
        )

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the loss of each picture, (B,): "class", the mean log loss of its candidates."""
        targets = candidate_targets(key, batch, self.num_classes, self.sampling)
        logits = self(images, train, targets.boxes)[0].logits
        logits = logits.astype(at_least_float32(logits.dtype))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets.labels)
        return {"class": share(losses, targets.mask, targets.mask)}

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns the detections in images (B, S, S, C) among the candidates of a batch.

        The score of a class is the sigmoid of its machine's margin for the candidate; the box is
        corrected after that.
        """
        boxes = batch["candidates"]
        said, _ = self(images, boxes=boxes)
        machines = Machines(**self.variables[MACHINES])
        said = Warped(*(x.astype(at_least_float32(x.dtype)) for x in said))
        fitted = machines.fitted > 0
        margins = said.features @ machines.weights + machines.biases[None, None]
        scores = jnp.where(
            fitted, jax.nn.sigmoid(margins), jax.nn.softmax(said.logits)[..., : self.num_classes]
        )
        codes = said.places @ machines.place_weights + machines.place_biases[None, None]
        codes = codes.reshape(*codes.shape[:2], self.num_classes, 4)
        placed = coding.decode(codes, boxes[:, :, None])
        scores = jnp.where(batch["candidates_mask"][..., None], scores, -jnp.inf)
        return self.decoding(placed, scores, images.shape[1])


class Machines(NamedTuple):
    """The weights that `fit_machines` fits to the features; zeros correct no box.

    Attributes:
        weights: (F, K), the weights of the support vector machines.
        biases: (K,), their biases.
        place_weights: (P, 4 K), the weights of the regression of t_y, t_x, t_h, t_w.
        place_biases: (4 K,), their biases.
        fitted: (), 1 once the machines are fitted.
    """

    weights: jax.Array
    biases: jax.Array
    place_weights: jax.Array
    place_biases: jax.Array
    fitted: jax.Array

    @classmethod
    def shapes(cls, classes: int, features: int, places: int) -> "Machines":
        """Returns the machines with the shape of each array, as a tuple, in its place."""
        sizes = (features, classes), (classes,), (places, 4 * classes), (4 * classes,), ()
        return cls(*sizes)  # type: ignore[arg-type]


class Candidates(NamedTuple):
    """The n candidates and the m true boxes of a picture, from which `fit_machines` learns.

    Attributes:
        boxes: (n, 4).
        features: (n, F).
        places: (n, P).
        objects: (m, 4), the objects that are to be found.
        labels: (m,), their labels.
        object_features: (m, F), the features of the true boxes themselves.
        ignored: bool (n,), candidates with half of their area or more in a difficult object or a
            crowd.
    """

    boxes: np.ndarray
    features: np.ndarray
    places: np.ndarray
    objects: np.ndarray
    labels: np.ndarray
    object_features: np.ndarray
    ignored: np.ndarray


def candidates_of_rows(batch: Batch, said: Warped, true: Warped) -> Iterable[Candidates]:
    """Yields the candidates of each picture of a batch.

    Args:
        batch: a batch of B pictures; those of weight 0 are left out.
        said: the outputs for its candidates.
        true: the outputs for its objects.
    """
    objects = objects_of(batch)
    real, ignored = np.asarray(objects.real), np.asarray(objects.ignored)
    boxes, labels = np.asarray(objects.boxes), np.asarray(objects.labels)
    for row in np.flatnonzero(batch["weight"]):
        there = np.asarray(batch["candidates_mask"])[row]
        own = np.asarray(batch["candidates"])[row][there]
        inside = geometry.pairwise(geometry.intersection, own, boxes[row][ignored[row]])
        yield Candidates(
            own,
            np.asarray(said.features[row])[there],
            np.asarray(said.places[row])[there],
            boxes[row][real[row]],
            labels[row][real[row]],
            np.asarray(true.features[row])[real[row]],
            (inside >= 0.5 * geometry.area(own)[:, None]).any(1),
        )


@dataclasses.dataclass(frozen=True)
class Fitting:
    """The options by which the machines are fitted.

    Attributes:
        background: a candidate is a negative of a class if its IoU with each of the class's objects
            is below this.
        near: the IoU with an object above which a candidate learns to correct its box.
        cost: C of the support vector machines.
        ridge: lambda of the regression.
        norm: the mean norm that features are scaled to, so that `cost` has a fixed meaning.
        hard: the margin above which a negative is hard; those below `easy` are dropped.
        easy: see `hard`.
        renewal: the number of hard negatives of a class after which its machine is fitted again.
    """

    background: float = 0.3
    near: float = 0.6
    cost: float = 1e-3
    ridge: float = 1000.0
    norm: float = 20.0
    hard: float = -1.0
    easy: float = -1.2
    renewal: int = 2000


def fit_machines(
    pictures: Iterable[Candidates], num_classes: int, fitting: Fitting = Fitting()
) -> Machines:
    """Fits the machines in one pass over pictures, in which hard negatives are mined.

    The positives of a class are its true boxes; its negatives are the candidates that overlap none
    of them by 0.3. Its machine is fitted first to the examples of the first pictures, then again
    whenever enough hard negatives were found, with margins above -1; negatives with margins below
    -1.2 are dropped then. A class without an object has the margin -1 everywhere.

    The regression is ridge regression from the features of the map to t_y, t_x, t_h, t_w of the
    object with the highest IoU, which must be above 0.6 (appendix C).

    Args:
        pictures: the pictures with their candidates.
        num_classes: K.
        fitting: the options.

    Returns:
        The machines, float32.
    """
    from sklearn.linear_model import Ridge

    classes = [_OneClass(fitting) for _ in range(num_classes)]
    near: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_classes)]
    features = places = 0
    for picture in pictures:
        features, places = picture.features.shape[1], picture.places.shape[1]
        overlap = geometry.pairwise(geometry.iou, picture.boxes, picture.objects)
        for label, one in enumerate(classes):
            own = picture.labels == label
            one.positives.extend(picture.object_features[own])
            away = ~picture.ignored & (overlap[:, own] < fitting.background).all(1)
            one.mine(picture.features[away])
        if len(picture.objects):
            best = overlap.argmax(1)
            for at in np.flatnonzero(overlap.max(1) > fitting.near):
                code = _code(picture.objects[best[at]], picture.boxes[at])
                near[picture.labels[best[at]]].append((picture.places[at], code))
    shapes = Machines.shapes(num_classes, features, places)
    machines = Machines(*(np.zeros(shape, np.float32) for shape in shapes))  # type: ignore[arg-type]
    place_weights = machines.place_weights.reshape(-1, num_classes, 4)
    place_biases = machines.place_biases.reshape(num_classes, 4)
    for label, one in enumerate(classes):
        machines.weights[:, label], machines.biases[label] = one.fit()
        if near[label]:
            inputs, codes = (np.stack(parts) for parts in zip(*near[label], strict=True))
            ridge = Ridge(alpha=fitting.ridge).fit(inputs, codes)
            place_weights[:, label], place_biases[label] = ridge.coef_.T, ridge.intercept_
    return machines._replace(fitted=np.ones((), np.float32))  # type: ignore[arg-type]


class _OneClass:
    """The machine of one class and the examples that it is fitted to."""

    def __init__(self, fitting: Fitting):
        self._fitting = fitting
        self.positives: list[np.ndarray] = []
        self._negatives: list[np.ndarray] = []
        self._new = 0
        self._machine: tuple[np.ndarray, float] | None = None

    def mine(self, candidates: np.ndarray) -> None:
        """Keeps the hard negatives among (n, F), or all of them until there is a machine."""
        if self._machine is not None:
            weights, bias = self._machine
            candidates = candidates[candidates @ weights + bias > self._fitting.hard]
        if len(candidates):
            self._negatives.append(candidates)
            self._new += len(candidates)
        if self._new >= self._fitting.renewal and self.positives:
            self.fit()

    def fit(self) -> tuple[np.ndarray, float]:
        """Fits the machine, drops easy negatives, and returns weights (F,) and bias."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        if not self.positives or not self._negatives:
            # Nothing to tell apart: as sure as a negative at its margin.
            return np.zeros(1, np.float32), -1.0
        negatives = np.concatenate(self._negatives)
        examples = np.concatenate([np.stack(self.positives), negatives])
        labels = np.arange(len(examples)) < len(self.positives)
        norms = np.linalg.norm(examples, axis=1).mean()
        scale = self._fitting.norm / norms if norms > 0 else 1.0
        # A bias of ten counts little in the penalty; a positive counts as two.
        machine = LinearSVC(
            C=self._fitting.cost, class_weight={True: 2.0}, intercept_scaling=10.0, dual=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine.fit(scale * examples, labels)
        weights = (scale * machine.coef_[0]).astype(np.float32)
        bias = float(machine.intercept_[0])
        self._machine = weights, bias
        self._negatives = [negatives[negatives @ weights + bias >= self._fitting.easy]]
        self._new = 0
        return self._machine


def _code(box: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Returns t_y, t_x, t_h, t_w of a box relative to a candidate, in NumPy."""
    sides, old = (np.maximum(one[2:] - one[:2], coding.SMALLEST) for one in (box, candidate))
    middle = (box[:2] + box[2:] - candidate[:2] - candidate[2:]) / 2
    return np.concatenate([middle / old, np.log(sides / old)])
