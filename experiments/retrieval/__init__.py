"""Retrieval: pictures and texts in one space, so that each finds the other.

By default a small convolutional net and a recurrent one bring the characters of DejaVu's fonts and
their names together, which needs no network; the characters of the test are not among those of the
training. `--data_path` takes captions in COCO's form or a table of pictures and captions; `--loss`
is the hardest or the sum of hinges, or the cross-entropy of a softmax over the batch.

    --predict=PICTURES --captions=FILE --workdir=DIR
    --search="small letter e with acute" --pictures=FOLDER --workdir=DIR
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch
from dlcore.data import channel_moments, evenly_spaced, read_images
from dlcore.data.captions import Captioned, load_captions
from dlcore.data.text import Vocabulary
from dlcore.data.text.files import read_lines
from dlcore.errors import InputError
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    number,
    path,
    text,
    texts,
)
from dlcore.launch.loading import Trained, trained_by
from dlcore.launch.options import parse_options
from dlcore.launch.predictions import input_images
from dlcore.launch.text import (
    EncoderConfig,
    TransformerGroup,
    VocabularyConfig,
    not_read,
    with_table,
)
from dlcore.launch.weights import adopt_inside
from dlcore.losses import batch_matches
from dlcore.metrics import nearest
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.text import POOLINGS, RecurrentEncoder, TransformerEncoder
from dlcore.models.two_towers import (
    LARGEST_SCALE,
    MATCHING_LOSSES,
    PICTURES,
    Matching,
    TextTower,
    TwoTowers,
)
from dlcore.nn.augment import OF_ONE_PICTURE, augmentation_of_one
from dlcore.nn.standardise import standardise
from dlcore.optim import bound_above
from dlcore.report import Section
from dlcore.types import (
    Activations,
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

from . import report
from .pairs import Pairs, Setting, padded, scores_of

SAMPLE = 10_000  # pictures that are enough to measure on
_HINGES = ("vse0", "vse++")
_RECURRENT = {"text_tower": ("recurrent",)}
_WITH_WORDS = {"text_tower": ("recurrent", "bag")}
_TOGETHER = 64  # pictures or texts that are embedded at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    EncoderConfig,
    TransformerGroup,
    dataset="glyph_names",
    steps=1500,
    batch_size=128,
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.05,
    eval_every=500,
    lower=True,
    cell="gru",
    limit=32,
):
    """The configuration of two towers."""

    group_conditions: ClassVar = {
        # A micro-batch would lack the negatives of the others.
        "accumulate": {"loss": ()},
        TransformerGroup: {"text_tower": ("transformer",)},
        **dict.fromkeys(("layers", "hidden"), {"text_tower": ("recurrent", "transformer")}),
        **dict.fromkeys(
            (
                "cell",
                "bidirectional",
                "merge",
                "residual",
                "variational",
                "state_dropout",
                "candidate_dropout",
            ),
            _RECURRENT,
        ),
        **dict.fromkeys(
            ("embedding_size", "embeddings", "strict", "freeze_embeddings"), _WITH_WORDS
        ),
    }

    loss: str = choice("infonce", MATCHING_LOSSES, "loss that trains the towers")
    margin: float = number(
        0.2, 1e-6, LARGEST_NUMBER, "margin of the hinges", when={"loss": _HINGES}
    )
    model: str = choice("conv4", IMAGE_MODELS, "tower of pictures, with its last layer replaced")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the tower of pictures, such as width=0.5; a wrong name lists all"
    )
    text_tower: str = choice("recurrent", ("recurrent", "transformer", "bag"), "tower of texts")
    pooling: str = choice("max", POOLINGS, "how the words of a text become one vector")
    embedding: int = integer(128, 1, 1 << 16, "dimensions of an embedding")
    image_size: int | None = integer(
        None, 1, 1 << 15, "side of the squares in pixels; default the tower's or the data's own"
    )
    augment: str = text(
        "affine",
        "random changes of training pictures, with numbers where wanted, as crop:4,noise; "
        f"steps: {', '.join(OF_ONE_PICTURE)}",
    )
    init_from: str | None = path(
        None,
        "start from the towers of this run, or from the tower of pictures of a run or file "
        "(.safetensors, .pth) of a classifier",
    )
    init_prefix: str | None = text(
        None, "with --init_from=FILE, prefix of the names to take, such as model_ema"
    )
    captions: str | None = path(
        None,
        "file of captions, one per line; --predict lists the best ones for each picture, and "
        "without the file the embeddings",
        free=True,
        when={"predict": lambda predict: predict is not None},
    )
    search: tuple[str, ...] = texts(
        "text for which the run in --workdir finds the best of --pictures", free=True
    )
    pictures: str | None = path(
        None, "folder of pictures to search", free=True, when={"search": lambda asked: bool(asked)}
    )
    top: int = integer(5, 1, LARGEST, "captions or pictures that are listed", free=True)

    def for_check(self) -> Self:
        return dataclasses.replace(super().for_check(), augment="none")


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that the towers remember.

    Attributes:
        image_shape: (H, W, C).
        vocabulary: of the captions.
        mean: of each channel, in units of 0..255.
        deviation: of each channel.
        bits: of the values in image files that have more than 8.
    """

    image_shape: tuple[int, int, int]
    vocabulary: Vocabulary
    mean: np.ndarray = dataclasses.field(compare=False)
    deviation: np.ndarray = dataclasses.field(compare=False)
    bits: int = 16


class Listed(NamedTuple):
    """The best of a gallery for one query.

    Attributes:
        names: captions or paths of pictures, the best one first.
        similarities: the cosines.
    """

    names: tuple[str, ...]
    similarities: tuple[float, ...]


class Retrieval(launch.Task[Config, Info]):
    """Two towers that embed pictures and texts in one space."""

    reads = "images"
    asks = ("predict", "search")
    metric = ("recall_sum", "max")
    table: np.ndarray | None = None  # pre-trained vectors that a new run starts from
    _gallery: tuple[Variables, np.ndarray] | None = None  # embedded captions, by what

    def data(self) -> launch.Data[Info]:
        config = self.config
        if config.batch_size < 2:
            raise InputError(
                "--batch_size=1 leaves a picture no other text to be told from; give 2 or more, "
                "such as 128"
            )
        self.augment = augmentation_of_one(config.augment)
        data = load_captions(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            image_size=config.image_size or image_spec(config.model).image_size,
            valid_share=config.validation,
        )
        for note in data.notes:
            launch.say(note)
        parts = {"train": data.train, "test": data.test, "validation": data.valid}
        self.captioned = {
            name: shortened(part, 500 if name == "train" else 40) if config.smoke else part
            for name, part in parts.items()
            if part is not None
        }
        vocabulary = config.build_vocabulary(self.captioned["train"].pairs[1])
        self.splits = {
            name: Pairs.of(part, vocabulary, config.limit) for name, part in self.captioned.items()
        }
        self.settings = {
            name: Setting.of(part, name) for name, part in self.captioned.items() if name != "train"
        }
        train, test = self.captioned["train"], self.captioned["test"]
        lines = train.pairs[1]
        cut = not_read([vocabulary.encode(line) for line in lines], config.limit)
        launch.say(
            f"{config.model} and {config.text_tower} on {data.name}: {len(train):,} pictures with "
            f"{len(lines):,} captions to train on, {len(test):,} with "
            f"{len(self.splits['test']):,} to test, shape {data.image_shape}, "
            f"{len(vocabulary):,} words" + (f"; to train on: {cut}" if cut else "")
        )
        self.table = config.pretrained(vocabulary, config.seed)
        mean, deviation = channel_moments(evenly_spaced(train.images, SAMPLE))
        self.info = info = Info(data.image_shape, vocabulary, mean, deviation, data.bits)
        jax.eval_shape(self.init, jax.random.key(0))  # Says now what does not go together.
        return self.split_data(
            self.splits["train"],
            self.splits["test"],
            info,
            validation=self.splits.get("validation"),
        )

    # The network.

    @functools.cached_property
    def net(self) -> TwoTowers:
        """The network."""
        config = self.config
        if config.text_tower == "bag" and config.pooling == "last":
            raise InputError(
                "--text_tower=bag has no order of words, and --pooling=last takes the last one "
                "alone; choose --pooling=mean, max or attention"
            )
        build = image_spec(config.model).build
        options = parse_options(config.model, build, config.option)
        both = config.text_tower == "recurrent" and config.bidirectional
        return TwoTowers(
            functools.partial(build, num_classes=config.embedding, **options),
            TextTower(
                self._encoder(),
                config.embedding,
                config.pooling,
                config.merge if both else None,
                config.dropout,
            ),
            Matching(config.loss, config.margin),
        )

    def _encoder(self) -> nn.Module:
        """Returns what the tower of texts reads the words by."""
        config, words = self.config, len(self.info.vocabulary)
        if config.text_tower == "recurrent":
            return RecurrentEncoder(words, **config.encoder_options())
        dropout = {"dropout": config.dropout, "embedding_dropout": config.embedding_dropout}
        if config.text_tower == "bag":  # no layer reads their order
            return RecurrentEncoder(words, config.embedding_size, (), **dropout)
        return TransformerEncoder(words, config.transformer_config(context=config.limit), **dropout)

    def scaled(self, images: jax.Array, variables: Variables) -> jax.Array:
        """Returns images of 0..255 as the network takes them, in the parameters' type."""
        return standardise(images, self.info.mean, self.info.deviation, variables["params"])

    def init(self, key: jax.Array) -> Variables:
        variables = self.net.init(
            key,
            jnp.zeros((1, *self.info.image_shape)),
            jnp.zeros((1, 1), jnp.int32),
            jnp.ones(1, jnp.int32),
        )
        return with_table(variables, self.table, within=("texts",))

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        return self.config.frozen_table()

    def optimizer(self) -> optax.GradientTransformation:
        tx = super().optimizer()
        if self.config.loss != "infonce":
            return tx
        return optax.chain(tx, bound_above([("^log_scale$", math.log(LARGEST_SCALE))]))

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        augment_key, dropout_key = jax.random.split(rng)
        batch = self.augment(augment_key, dict(batch))
        variables = {"params": params, **model_state}
        (pictures, captions), new_state = self.net.apply(
            variables,
            self.scaled(batch["image"], variables),
            batch["tokens"],
            batch["length"],
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )
        weight = batch["weight"]
        matches = batch_matches(pictures, captions, batch["picture"], batch["caption"], weight)
        found = self.net.apply(variables, matches, method="losses")
        negative = matches.negative.astype(matches.own.dtype)
        metrics = {
            "similarity": Mean.of(matches.own, weight),
            "negative_similarity": Mean.of(matches.to_texts, negative),
        }
        if self.config.loss == "infonce":
            scale = self.net.apply(variables, method="scale")
            metrics["scale"] = Mean.of(jnp.broadcast_to(scale, weight.shape), weight)
        return Mean.of(*found), Aux(dict(new_state), jax.lax.stop_gradient(metrics))

    # Evaluation.

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        pictures, captions = self.net.apply(
            variables, self.scaled(batch["image"], variables), batch["tokens"], batch["length"]
        )
        embeddings = {"pictures": pictures, "captions": captions}
        return {
            "embeddings": Rows(
                jax.tree.map(lambda x: x.astype(jnp.float32), embeddings), batch["weight"]
            )
        }

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        setting, found = self.settings[split], measures["embeddings"]
        return scores_of(
            setting.ranks(found["pictures"][setting.pictures], found["captions"][setting.captions])
        )

    @functools.cached_property
    def baseline(self) -> dict[str, np.ndarray]:
        """The ranks of the test where a picture has the caption of the nearest training picture.

        Pictures are compared by the L2 distance of their pixels, and captions by their words.
        """
        train, test = (self.captioned[part] for part in ("train", "test"))
        if len(train) > SAMPLE:
            launch.say(f"the nearest picture is looked for among {SAMPLE:,} of {len(train):,}")
        rows = np.unique(
            np.linspace(0, len(train) - 1, min(len(train), SAMPLE)).round().astype(int)
        )
        known = train.images.gather(rows)["image"]
        asked = test.images.gather(np.arange(len(test)))["image"]
        found, _ = nearest(asked.reshape(len(asked), -1), known.reshape(len(known), -1))
        words = [train.captions[row][0].lower().split() for row in rows[found]]
        return self.settings["test"].ranks_by_words(words, self.config.seed)

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        """Adds what the names of the nearest pictures would reach."""
        found = scores_of(self.baseline)
        return outcome.extended({f"baseline_{name}": value for name, value in found.items()})

    def adopt(self, state: TrainState) -> TrainState:
        config = self.config
        if config.init_from is None:
            return state
        source = pathlib.Path(config.init_from).expanduser()
        if source.is_dir():
            # The rows of its table of words mean those of its own vocabulary.
            of_run = launch.load(source).info
            if isinstance(of_run, Info):
                owner = f"the run in {source}"
                self.info.vocabulary.check(of_run.vocabulary.fingerprint, owner=owner)
        return adopt_inside(
            state,
            config.init_from,
            config.init_prefix,
            self.net.build(),
            self.info.image_shape,
            module=PICTURES,
            name=config.model,
        )

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        config = self.config
        # The loss of embeddings that are all equal.
        collapsed = {
            "vse0": 2 * config.margin * (config.batch_size - 1),
            "vse++": 2 * config.margin,
            "infonce": math.log(config.batch_size),
        }[config.loss]
        gap = metrics["similarity"] - metrics["negative_similarity"]
        if not (abs(gap) <= 0.005 and abs(metrics["loss"] / collapsed - 1) <= 0.05):  # or NaN
            return None
        return (
            f"pictures are no more similar to their own texts than to others ({gap:.1g} apart), "
            f"and the loss {metrics['loss']:.3f} is that of equal embeddings, {collapsed:.3f}. "
            "Likely cause: hard negatives before the towers can tell them apart, or a learning "
            "rate that is too high. Remedy: a lower --learning_rate, more --warmup_steps, or "
            "vse++ from a run of --loss=vse0 or infonce (--init_from)"
        )

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        first = next(data.train(0))
        tokens, length = (jnp.asarray(first[name][:1]) for name in ("tokens", "length"))

        def forward(variables: Variables, images: jax.Array) -> tuple[Any, Activations]:
            pictures, activations = self.net.apply(
                variables, self.scaled(images, variables), method="of_pictures"
            )
            # What pictures do not pass through is used too.
            captions, _ = self.net.apply(variables, tokens, length, method="of_texts")
            of_loss = self.net.apply({"params": variables["params"]}, method="of_loss")
            return (pictures, captions, of_loss), activations

        return launch.Check(forward, "image")

    # Use.

    @functools.cached_property
    def _embed_pictures(self) -> Callable[[Variables, Any], jax.Array]:
        return jax.jit(
            lambda variables, images: self.net.apply(
                variables, self.scaled(images, variables), method="of_pictures"
            )[0].astype(jnp.float32)
        )

    @functools.cached_property
    def _embed_texts(self) -> Callable[[Variables, Any, Any], jax.Array]:
        return jax.jit(
            lambda variables, tokens, lengths: self.net.apply(
                variables, tokens, lengths, method="of_texts"
            )[0].astype(jnp.float32)
        )

    def embed_pictures(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the embeddings of pictures, float32 [N, D].

        Args:
            variables: of the network.
            inputs: uint8 arrays [H, W, C] of the run's shape, or paths of image files, which are
                brought to it as --image_size does.
        """
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        return in_blocks(functools.partial(self._embed_pictures, variables), images)

    def embed_texts(self, variables: Variables, lines: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of texts, float32 [N, D]."""
        tokens, lengths = padded(lines, self.info.vocabulary, self.config.limit)
        return in_blocks(functools.partial(self._embed_texts, variables), tokens, lengths)

    @functools.cached_property
    def captions(self) -> tuple[str, ...]:
        """The different captions of --captions.

        Raises:
            InputError: where there are not two to choose between.
        """
        file = pathlib.Path(self.config.captions or "").expanduser()
        lines = read_lines(file)
        found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if len(found) < 2:
            raise InputError(
                f"{file} has {len(found)} different captions; give two or more to choose among, "
                "one a line"
            )
        if len(found) < len(lines):
            launch.say(f"{file}: {len(lines) - len(found):,} empty or repeated lines are left out")
        return found

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray | list[Listed]:
        """Returns the embeddings of pictures, float32 [N, D]; with --captions the best of these.

        The inputs are those of `embed_pictures`.
        """
        pictures = self.embed_pictures(variables, inputs)
        if self.config.captions is None:
            return pictures
        if self._gallery is None or self._gallery[0] is not variables:
            self._gallery = variables, self.embed_texts(variables, self.captions)
        return best_of(pictures, self._gallery[1], self.captions, self.config.top)

    def answers(self, inputs: Sequence[Any], outputs: Any) -> list[dict[str, Any]]:
        if isinstance(outputs, np.ndarray):
            return [{"embedding": output.tolist()} for output in outputs]
        return [listing("caption", found) for found in outputs]

    def remark(self, inputs: Sequence[Any]) -> str | None:
        if self.config.captions is None:
            return None
        lines = [self.info.vocabulary.encode(line) for line in self.captions]
        found = not_read(lines, self.config.limit)
        return None if found is None else f"of {self.config.captions} {found}"

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        if "search" not in given:
            return False
        trained = trained_by(cls, config, given)
        for answer in search(trained):
            print(json.dumps(answer, ensure_ascii=False))
        return True

    def report(self, outcome: launch.Outcome) -> list[Section]:
        setting, part = self.settings["test"], self.captioned["test"]
        variables = self.computing(outcome.variables)
        images = part.images.gather(np.arange(len(part)))["image"]
        pictures = self.embed_pictures(variables, [*images])
        captions = self.embed_texts(variables, setting.texts)
        return report.sections(images, pictures, captions, setting, self.baseline)


def shortened(part: Captioned, count: int) -> Captioned:
    """Returns at most so many pictures of a part, at even distances."""
    rows = np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int)
    return part.subset(np.unique(rows))


def in_blocks(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """Returns what a compiled function gives for arrays [N, ...], in blocks of one size."""
    count = len(arrays[0])
    rows = np.arange(-(-count // _TOGETHER) * _TOGETHER) % count
    parts = [
        np.asarray(function(*(array[rows[at : at + _TOGETHER]] for array in arrays)))
        for at in range(0, len(rows), _TOGETHER)
    ]
    return np.concatenate(parts)[:count]


def best_of(
    queries: np.ndarray, gallery: np.ndarray, names: Sequence[str], top: int
) -> list[Listed]:
    """Returns the best of a gallery for each query.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        names: of the G examples.
        top: how many are listed.
    """
    found = []
    for query in queries:
        scores = gallery @ query
        order = np.argsort(-scores, kind="stable")[:top]
        found.append(Listed(tuple(names[n] for n in order), tuple(scores[order].tolist())))
    return found


def listing(kind: str, found: Listed) -> dict[str, Any]:
    """Returns an answer: the best one, and all that are listed."""
    rows = [
        {kind: name, "similarity": similarity}
        for name, similarity in zip(found.names, found.similarities, strict=True)
    ]
    return {**rows[0], f"{kind}s": rows}


def search(trained: Trained[Any, Any]) -> list[dict[str, Any]]:
    """Returns the pictures of --pictures that are the best for each text of --search.

    Raises:
        InputError: for no pictures to choose among, and for a text that is empty.
    """
    task, config = trained.task, trained.config
    assert isinstance(task, Retrieval)
    if config.pictures is None:
        raise InputError("--search looks among pictures; give their folder by --pictures")
    for line in config.search:
        if not line.strip():
            raise InputError("--search is an empty text; say what is on the pictures")
    files = input_images(config.pictures)
    if len(files) < 2:
        raise InputError(
            f"{config.pictures} is one picture; give a folder with two or more to choose among"
        )
    words = [trained.info.vocabulary.encode(line) for line in config.search]
    if unread := not_read(words, config.limit):
        launch.say(f"of --search {unread}")
    variables = task.computing(trained.variables)
    gallery = task.embed_pictures(variables, files)
    found = best_of(task.embed_texts(variables, config.search), gallery, files, config.top)
    return [
        {"input": line, **listing("picture", best)}
        for line, best in zip(config.search, found, strict=True)
    ]
