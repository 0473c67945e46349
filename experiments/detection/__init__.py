"""Detection: what is where in a picture, and the landmarks of an object.

By default YOLO v2 on scenes of handwritten digits on photographs (4,000 to train on, 500 held out),
which need no network. `--data_path` takes annotated pictures in the layout of Pascal VOC, COCO or
YOLO, `--dataset` any prepared TFDS data set with boxes; `--model` picks the system, `--body` the
network in it. `--predict=FOLDER --workdir=DIR` draws what is found on copies of pictures and writes
it as COCO JSON.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import boxes as geometry
from dlcore import launch
from dlcore.data import Split, channel_moments, evenly_spaced
from dlcore.data.detection import DetectionData, fit_letterbox, load_detection, read_squares
from dlcore.launch.fields import LARGEST, choice, integer, number, path, text, texts
from dlcore.launch.weights import adopt_inside
from dlcore.metrics.detection import (
    Judgement,
    coco_scores,
    landmark_scores,
    voc_scores,
)
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.detection import anchors
from dlcore.models.detection.body import BODY
from dlcore.models.detection.detector import largest, objects_of, of_place
from dlcore.models.detection.landmarks import Landmarks, truth
from dlcore.models.detection.suppression import Detections
from dlcore.nn.augment import STEPS, Augment, augmentation
from dlcore.report import Section
from dlcore.train.phases import Phase
from dlcore.types import (
    Aux,
    Batch,
    Mean,
    Measures,
    Params,
    PyTree,
    Rows,
    TrainState,
    Variables,
)

from . import alternating, drawing, report
from .regions import (
    REGION_SYSTEMS,
    WITH_CANDIDATES,
    RegionGroup,
    candidates_of,
    with_candidates,
    with_machines,
)
from .scales import at_scales
from .systems import SYSTEMS, WITH_ANCHORS, DecodingGroup, Setting, SystemGroup, network_of

MODELS = {**SYSTEMS, **REGION_SYSTEMS}
SAMPLE = 10_000  # pictures that are enough to measure on
MOST_REPORTED = 500  # pictures that a report looks at
_TOGETHER = 32  # pictures that are looked at together, at most
# What an evaluation keeps of the objects of a picture.
_TRUTH = ("boxes", "boxes_mask", "labels", "difficult", "crowd", "image_id", "size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    SystemGroup,
    RegionGroup,
    DecodingGroup,
    dataset="digit_scenes",
    steps=2700,
    batch_size=16,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
    eval_every=900,
    predict_to="detections",
):
    """The configuration of a detector."""

    model: str = choice("yolo_v2", MODELS, "system to train")
    body: str = choice("darknet_small", IMAGE_MODELS, "network in it, without its head")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the body, such as width=0.5; a wrong name lists all"
    )
    stride: int = integer(8, 1, 1024, "pixels of a cell of the body's map that is read")
    image_size: int | None = integer(
        None, 1, 1 << 15, "side of the squares in pixels; default the body's or the data's own"
    )
    augment: str = text(
        "none",
        "random changes of training pictures, with numbers where wanted, as object_crop,hue; "
        f"steps: {', '.join(STEPS)}",
    )
    examples: int | None = integer(
        None, 1, LARGEST, "training pictures to take, drawn at random; default all"
    )
    init_from: str | None = path(
        None, "start from the body of this run or file (.safetensors, .pth), or from a detector"
    )
    init_prefix: str | None = text(
        None, "with --init_from=FILE, prefix of the names to take, such as model_ema"
    )
    shown_score: float = number(0.5, 0, 1, "smallest score of a detection that is drawn", free=True)

    @property
    def alternates(self) -> bool:
        """Tells whether the networks of Faster R-CNN are trained by turns."""
        return self.model == "faster_rcnn" and self.training == "alternating"

    def identity(self) -> dict[str, Any]:
        # The number of steps says where the turns end.
        own = {"steps": self.steps} if self.alternates else {}
        return super().identity() | own

    def for_check(self) -> "Config":
        return dataclasses.replace(super().for_check(), augment="none", scales=0.0)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a detector remembers.

    Attributes:
        class_names: the name of each label.
        category_ids: the number of each class where it comes from.
        image_shape: (S, S, C) of the squares.
        landmark_names: the name of each landmark.
        mean: of each channel, in units of 0..255.
        deviation: of each channel.
        shapes: [k, 2], height and width of the anchors, in pixels.
        bits: of the values in image files that have more than 8.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_shape: tuple[int, int, int]
    landmark_names: tuple[str, ...]
    mean: np.ndarray = dataclasses.field(compare=False)
    deviation: np.ndarray = dataclasses.field(compare=False)
    shapes: np.ndarray = dataclasses.field(compare=False)
    bits: int = 16


class Found(NamedTuple):
    """What was found in a picture, in its own pixels.

    Attributes:
        size: height and width of the picture.
        boxes: [n, 4], the best first; none of a model of landmarks.
        scores: [n], of boxes, or of landmarks.
        labels: [n].
        points: [P, 2], the landmarks, y and x.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    points: np.ndarray


class Detection(launch.Task[Config, Info]):
    """A detector."""

    reads = "images"
    train: Split | None = None  # known where it is trained

    @property
    def metric(self) -> tuple[str, Literal["min", "max"]]:  # type: ignore[override]
        return ("nme", "min") if self.config.model == "landmarks" else ("mAP50", "max")

    def data(self) -> launch.Data[Info]:
        config = self.config
        data = load_detection(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            image_size=config.image_size or image_spec(config.body).image_size,
        )
        for note in data.notes:
            launch.say(note)
        train = data.train
        if config.examples is not None:
            order = np.random.default_rng(config.seed).permutation(len(train))
            train = train.subset(np.sort(order[: config.examples]))
        launch.say(
            f"{config.model} on {data.name}: {len(train):,} pictures to train on, "
            f"{len(data.test):,} to test, {len(data.class_names)} classes, shape {data.image_shape}"
        )
        self.augment = make_augment(data, config.augment)
        test = data.test
        if config.model in WITH_CANDIDATES:
            train = with_candidates(train, "train", config, self.workdir)
            test = with_candidates(test, "test", config, self.workdir)
        self.train, self.test = train, test
        self.sizes = object_sizes(train)
        shapes = np.zeros((0, 2), np.float32)
        if config.model in WITH_ANCHORS:
            fitted = anchors.fit(self.sizes, config.anchors, seed=config.seed)
            shapes = fitted.shapes
            launch.say(
                f"{len(shapes)} anchors, mean IoU {fitted.mean_iou:.3f} with the objects: "
                + " ".join(f"{height:.0f}x{width:.0f}" for height, width in shapes)
            )
        mean, deviation = channel_moments(evenly_spaced(train, SAMPLE))
        self.info = info = Info(
            data.class_names,
            data.category_ids,
            data.image_shape,
            data.landmark_names,
            mean,
            deviation,
            shapes,
            data.bits,
        )
        jax.eval_shape(self.init, jax.random.key(0))  # Says now what does not go together.
        if self.config.alternates:
            self.phases()  # Says so too.
        found = self.split_data(train, test, info)
        if config.scales:
            batches = at_scales(
                found.train, data.image_shape[0], config.stride, config.scales, config.seed
            )
            found = dataclasses.replace(found, train=batches)
        return found

    @functools.cached_property
    def detector(self) -> Any:
        """The system of --model, a Linen module with `losses` and `detect`."""
        info = self.info
        setting = Setting(
            len(info.class_names), len(info.landmark_names), info.image_shape, info.shapes
        )
        return MODELS[self.config.model](self.config, setting)

    def scaled(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Returns images of 0..255 as the network takes them, in the parameters' type."""
        mean, deviation = (
            value.astype(np.float32)[None, None, None]
            for value in (self.info.mean, self.info.deviation)
        )
        x = (images.astype(jnp.float32) - mean) / jnp.maximum(deviation, 1.0)
        return x.astype(jnp.result_type(*jax.tree.leaves(variables["params"])))

    def forward(self, variables: Variables, images: jax.Array) -> Any:
        """Maps images of 0..255 to the network's outputs and activations."""
        return self.detector.apply(variables, self.scaled(variables, images))

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.detector.init(key, jnp.zeros((1, *self.info.image_shape)))
        return alternating.with_own_body(variables) if self.config.alternates else variables

    def phases(self) -> Sequence[Phase]:
        if not self.config.alternates:
            return ()
        return alternating.four_steps(self.detector, self.scaled, _means, self.config)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        augment_key, dropout_key, key = jax.random.split(rng, 3)
        batch = self.augment(augment_key, dict(batch))
        variables = {"params": params, **model_state}
        parts, new_state = self.detector.apply(
            variables,
            self.scaled(variables, batch["image"]),
            batch,
            key,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
            method="losses",
        )
        loss, metrics = _means(parts, batch["weight"])
        return loss, Aux(dict(new_state), metrics)

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        images = self.scaled(variables, batch["image"])
        parts = self.detector.apply(
            variables, images, batch, jax.random.key(0), train=False, method="losses"
        )
        loss, means = _means(parts, batch["weight"])
        found = self.detector.apply(variables, images, batch, method="detect")
        if isinstance(found, Landmarks):
            return {"loss": loss, **means, **self._landmark_scores(found, batch)}
        kept = {name: batch[name] for name in _TRUTH}
        rows = Rows({"truth": kept, "found": found}, batch["weight"])
        return {"loss": loss, **means, "rows": rows}

    def _landmark_scores(self, found: Landmarks, batch: Batch) -> dict[str, Mean]:
        points, visible = truth(batch)
        objects = objects_of(batch)
        box = of_place(objects.boxes, largest(objects)[0])
        real = visible & (batch["weight"] > 0)[:, None]
        return landmark_scores(found.points, points, real, jnp.sqrt(geometry.area(box)))

    def adopt(self, state: TrainState) -> TrainState:
        config = self.config
        if config.init_from is not None:
            state = adopt_inside(
                state,
                config.init_from,
                config.init_prefix,
                network_of(config),
                self.info.image_shape,
                module=BODY,
                name=config.body,
            )
        if self.config.alternates:
            both = alternating.with_own_body({"params": state.params, **state.model_state})
            state = state.replace(params=both.pop("params"), model_state=both)
        return state

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        rows = measures.pop("rows", None)
        if rows is None:
            return measures
        self.judgement = judgement = self.judged(rows)
        scores = scores_of(judgement)
        if self.config.model == "localizer" and (right := right_share(judgement)) is not None:
            scores["right"] = right
        return measures | scores

    def judged(self, rows: Mapping[str, Any]) -> Judgement:
        """Returns the judgement of the rows of an evaluation."""
        judgement = Judgement(self.info.class_names)
        side = self.info.image_shape[0]
        image = np.empty((len(rows["truth"]["image_id"]), side, side, 0), np.uint8)
        judgement.add({**rows["truth"], "image": image}, Detections(*rows["found"]))
        return judgement

    def reported(self, variables: Variables) -> Variables:
        if self.config.model != "rcnn":
            return variables
        return with_machines(
            variables, self.detector, self.scaled, self.train, self.config, self.workdir
        )

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        if self.config.model != "rcnn":
            return outcome
        # Evaluations of the training go by the network's own probabilities.
        judgement = Judgement(self.info.class_names)
        variables = self.computing(outcome.variables)
        for batch in self.passes(self.test)():
            judgement.add(batch, self.detect(variables, batch))
        network = {f"network_{name}": outcome.metrics[name] for name in ("mAP50", "AP")}
        return outcome.extended(scores_of(judgement) | network)

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.forward, "image")

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        test = evenly_spaced(self.test, MOST_REPORTED)
        batch = test.gather(np.arange(len(test)))
        found = self.found(self.computing(outcome.variables), batch["image"])
        if isinstance(found, Landmarks):
            points, visible = map(np.asarray, truth(batch))
            box = np.asarray(of_place(jnp.asarray(batch["boxes"]), largest(objects_of(batch))[0]))
            scale = np.sqrt(geometry.area(box))
            return report.landmark_sections(batch, np.asarray(found.points), points, visible, scale)
        judgement = Judgement(self.info.class_names)
        judgement.add(batch, found)
        return report.detection_sections(
            batch,
            found,
            judgement,
            sizes=self.sizes,
            shapes=self.info.shapes,
            shown_score=self.config.shown_score,
        )

    @functools.cached_property
    def detect(self) -> Callable[[Variables, Batch], Any]:
        """Maps (variables, a batch of images of 0..255) to what is found, compiled."""

        def run(variables: Variables, batch: Batch) -> Any:
            images = self.scaled(variables, batch["image"])
            return self.detector.apply(variables, images, batch, method="detect")

        return jax.jit(run)

    def found(self, variables: Variables, images: np.ndarray) -> Any:
        """Returns what is found in square images [N, S, S, C] of 0..255, as NumPy's arrays."""
        rows = {"image": images}
        if self.config.model in WITH_CANDIDATES:
            rows |= candidates_of(images, self.config)
        parts = []
        # A power of 2, so that few sizes are compiled.
        together = min(_TOGETHER, 1 << (len(images) - 1).bit_length())
        for start in range(0, len(images), together):
            count = min(together, len(images) - start)
            batch = {
                name: np.pad(
                    array[start : start + count],
                    [(0, together - count), *[(0, 0)] * (array.ndim - 1)],
                )
                for name, array in rows.items()
            }
            found = jax.device_get(self.detect(variables, batch))
            parts.append(jax.tree.map(lambda leaf, count=count: leaf[:count], found))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> list[Found]:
        """Returns what is found in each picture, in its own pixels.

        Args:
            variables: of the network.
            inputs: uint8 arrays [H, W, C] of any size, or paths of image files.
        """
        shape = self.info.image_shape
        images, sizes = _squares(inputs, shape, self.info.bits)
        found = self.found(variables, images)
        return [_in_picture(found, row, size, shape[0]) for row, size in enumerate(sizes)]

    def answers(self, inputs: Sequence[Any], outputs: Sequence[Found]) -> list[dict[str, Any]]:
        return [self._answer(found) for found in outputs]

    def _answer(self, found: Found) -> dict[str, Any]:
        answer: dict[str, Any] = {"height": found.size[0], "width": found.size[1]}
        if len(found.points):
            named = zip(self.info.landmark_names, found.points.tolist(), strict=True)
            landmarks = [{"landmark": name, "x": x, "y": y} for name, (y, x) in named]
            return {**answer, "landmarks": landmarks}
        boxes = geometry.convert(found.boxes, "corners", "corner_size").tolist()
        detections = [
            {"class": self.info.class_names[label], "score": float(score), "box": box}
            for label, score, box in zip(found.labels, found.scores, boxes, strict=True)
        ]
        return {**answer, **(detections[0] if detections else {}), "detections": detections}

    def write_answers(self, folder: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
        """Draws answers on copies of their pictures in a new folder, beside detections.json."""
        ids = dict(zip(self.info.class_names, self.info.category_ids, strict=True))
        drawing.write_folder(folder, rows, ids, self.config.shown_score)


def make_augment(data: DetectionData, steps: str) -> Augment:
    """Returns the augmentation of --augment."""
    return augmentation(steps, num_classes=len(data.class_names), pairs=data.landmark_pairs)


def object_sizes(train: Split) -> np.ndarray:
    """Returns height and width [n, 2] of the objects of at most `SAMPLE` pictures, in pixels."""
    sample = evenly_spaced(train, SAMPLE)
    sizes = []
    for start in range(0, len(sample), 256):
        batch = sample.gather(np.arange(start, min(start + 256, len(sample))))
        boxes = batch["boxes"][batch["boxes_mask"] & ~batch["crowd"]]
        sizes.append(boxes[:, 2:] - boxes[:, :2])
    return np.concatenate(sizes)


def scores_of(judgement: Judgement) -> dict[str, float]:
    """Returns the scores of every detector of boxes."""
    return {"mAP50": voc_scores(judgement).mean, "AP": coco_scores(judgement).ap}


def right_share(judgement: Judgement) -> float | None:
    """Returns the share of pictures with one object in which it is found; None without any.

    The one detection has its class and an IoU of at least 0.5 with it.
    """
    right = []
    for picture in judgement.ordered():
        if len(picture.boxes) == 1 and not picture.ignored.any():
            here = (picture.found_labels == picture.labels[0])[:1]
            right.append(
                bool((here & (geometry.iou(picture.found, picture.boxes) >= 0.5)[:1]).any())
            )
    return float(np.mean(right)) if right else None


def _means(parts: Mapping[str, jax.Array], weight: jax.Array) -> tuple[Mean, dict[str, Mean]]:
    """Returns the loss and its terms."""
    terms = {f"{name}_loss": Mean.of(part, weight) for name, part in parts.items()}
    total = sum(term.total for term in terms.values())
    return Mean(jnp.asarray(total), next(iter(terms.values())).weight), terms


def _squares(
    inputs: Sequence[Any], shape: tuple[int, int, int], bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures in squares [B, S, S, C], and height and width of each [B, 2]."""
    if all(isinstance(one, np.ndarray) for one in inputs):
        images = np.stack([fit_letterbox(one, shape[0]) for one in inputs])
        return images, np.array([one.shape[:2] for one in inputs])
    return read_squares(inputs, shape, bits)


def _in_picture(result: Any, row: int, size: np.ndarray, side: int) -> Found:
    height, width = map(int, size)
    letterbox = geometry.Letterbox.fit(height, width, side)
    if isinstance(result, Landmarks):
        nothing = np.zeros((0, 4), np.float32)
        points = letterbox.to_picture(result.points[row])
        scores = np.asarray(result.scores[row])
        return Found((height, width), nothing, scores, np.zeros(0, int), points)
    kept = result.mask[row]
    boxes = geometry.clip(letterbox.to_picture(result.boxes[row][kept]), height, width)
    nowhere = np.zeros((0, 2), np.float32)
    return Found(
        (height, width), boxes, result.scores[row][kept], result.labels[row][kept], nowhere
    )


if __name__ == "__main__":
    launch.main(Detection)
