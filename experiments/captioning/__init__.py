"""Captions of pictures, by the body of an image classifier and a decoder of words.

By default a small residual network and an LSTM with soft attention learn the names of printed
characters, such as "latin small letter e with acute", and are tested on characters that they have
never seen; this needs no network. `--model` picks the decoder: attention (Xu et al. 2015), an lstm
that sees the picture once (Vinyals et al. 2015), or a transformer. `--data_path` takes a table of
pictures and captions, or COCO's JSON; `--level=word --lower --image_size=64` are for such.

Beside every score stands that of the caption of the nearest training picture. `--predict` writes
captions of picture files.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import (
    Arrays,
    CaptionData,
    Captioned,
    Loader,
    PictureTexts,
    channel_moments,
    evenly_spaced,
    load_captions,
    read_images,
)
from dlcore.data.text import Pairs, Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.errors import InputError
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    number,
    path,
    switch,
    text,
    texts,
)
from dlcore.launch.options import parse_options
from dlcore.launch.search import Searcher, SearchGroup
from dlcore.launch.text import LayersConfig, TransformerGroup, VocabularyConfig, encode
from dlcore.launch.weights import adopt_inside
from dlcore.losses import doubly_stochastic
from dlcore.metrics import bleu_tokenizer, check_bleu_tokenizer, translation_scores
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.captioning import (
    Captioner,
    ShowAndTell,
    ShowAttendAndTell,
    TransformerTeller,
    Words,
)
from dlcore.models.detection.body import BODY, Body, FeatureMap, make_body
from dlcore.models.text.prediction import log_probs, nats, training_losses
from dlcore.nn.augment import OF_ONE_PICTURE, augmentation_of_one
from dlcore.nn.sequences import length_mask
from dlcore.nn.standardise import standardise
from dlcore.report import Section
from dlcore.types import Aux, Batch, Mean, Metrics, Params, PyTree, TrainState, Variables

from . import report
from .report import Look

MODELS = ("attention", "lstm", "transformer")
SAMPLE = 10_000  # pictures that are enough to measure on
_COMPARED = 30_000  # training pictures among which the nearest one is looked for
_ATTENDING = {"model": ("attention",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    LayersConfig,
    TransformerGroup,
    SearchGroup,
    dataset="glyph_names",
    steps=2000,
    batch_size=64,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.1,
    clip_norm=1.0,
    eval_every=500,
    level="space",
    dropout=0.3,
):
    """The configuration of a captioner."""

    group_conditions: ClassVar = {
        TransformerGroup: {"model": ("transformer",)},
        "layers": {"model": ("transformer",)},
        "embedding_size": {"model": ("attention", "lstm")},
    }

    model: str = choice("attention", MODELS, "decoder that writes the words")
    body: str = choice(
        "resnet8", IMAGE_MODELS, "image model that reads the picture, without its head"
    )
    stride: int = integer(
        4, 1, 64, "pixels between two places of the map of the body that is read, a power of 2"
    )
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the body, such as width=0.5; a wrong name lists all"
    )
    gate: bool = switch(
        True, "multiply the attended features by a gate that the state computes", when=_ATTENDING
    )
    doubly_stochastic: float = number(
        0.0,
        0,
        LARGEST_NUMBER,
        "weight of the penalty for places whose attention does not sum to 1; the paper has 1",
        when=_ATTENDING,
    )
    label_smoothing: float = number(0.1, 0, 1, "share of the target spread over all tokens")
    limit: int = integer(
        40,
        2,
        LARGEST,
        "largest number of tokens of a caption; longer training captions are dropped",
    )
    image_size: int | None = integer(
        None,
        1,
        1 << 15,
        "side of the squares in pixels; default the data set's own, for other files the body's",
    )
    augment: str = text(
        "crop:2",
        "random changes of training pictures, with numbers where wanted, as flip,crop:4; "
        f"steps: {', '.join(OF_ONE_PICTURE)}",
    )
    init_from: str | None = path(
        None, "start from the body of this run or file (.safetensors, .pth)"
    )
    init_prefix: str | None = text(
        None, "with --init_from=FILE, prefix of the names to take, such as model_ema"
    )

    def for_check(self) -> "Config":
        return dataclasses.replace(super().for_check(), augment="none")


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a captioner remembers.

    Attributes:
        vocabulary: of the captions.
        image_shape: (H, W, C).
        mean: of each channel, in units of 0..255.
        deviation: of each channel.
        longest: the most tokens of a caption in training, its end included.
        bits: of the values in image files that have more than 8.
    """

    vocabulary: Vocabulary
    image_shape: tuple[int, int, int]
    mean: np.ndarray = dataclasses.field(compare=False)
    deviation: np.ndarray = dataclasses.field(compare=False)
    longest: int = dataclasses.field(default=1, compare=False)
    bits: int = 16


class Caption(NamedTuple):
    """A caption.

    Attributes:
        text: the caption.
        score: what the search maximised: by default log P per token.
    """

    text: str
    score: float


class Captioning(launch.Task[Config, Info]):
    """A captioner, trained by the cross-entropy of each word."""

    reads = "images"

    def data(self) -> launch.Data[Info]:
        config = self.config
        self.augment = augmentation_of_one(config.augment)
        data = load_captions(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            image_size=config.image_size,
            size_of_mixed=image_spec(config.body).image_size,
            valid_share=config.validation,
        )
        for note in data.notes:
            launch.say(note)
        self.captions = data = dataclasses.replace(
            data,
            train=first(data.train, config, 500),
            valid=None if data.valid is None else first(data.valid, config, 40),
            test=first(data.test, config, 40),
        )
        vocabulary = config.build_vocabulary(data.train.pairs[1])
        mean, deviation = channel_moments(evenly_spaced(data.train.images, SAMPLE))
        train, dropped = self.texts(data.train, vocabulary, drop=True)
        test, cut = self.texts(data.test, vocabulary)
        held_out = None if data.valid is None else self.texts(data.valid, vocabulary)[0]
        self.info = Info(
            vocabulary,
            data.image_shape,
            mean,
            deviation,
            int(train.targets.target_lengths.max()),
            data.bits,
        )
        beyond = f"; longer than --limit={config.limit} tokens: " + " and ".join(
            f"{count:,} {what}"
            for count, what in ((dropped, "left out of training"), (cut, "cut for the test"))
            if count
        )
        launch.say(
            f"{config.model} on {data.name}: {len(data.train):,} pictures with {len(train):,} "
            f"captions to train on, {len(data.test):,} with {len(test):,} to test, shape "
            f"{data.image_shape}, {len(vocabulary):,} tokens{beyond if dropped or cut else ''}"
        )
        self.rehearse()
        # The body has batch normalisation, by which batches of one length would tell the length.
        loader = Loader(
            train, config.batch_size, seed=config.seed, similar_lengths=False, **self.part()
        )
        return launch.Data(
            loader.batches,
            self.passes(test),
            self.info,
            None if held_out is None else self.passes(held_out),
        )

    def texts(
        self, part: Captioned, vocabulary: Vocabulary, *, drop: bool = False
    ) -> tuple[PictureTexts, int]:
        """Returns the captions of a part, and how many are longer than --limit.

        Args:
            part: pictures and captions.
            vocabulary: of the captions.
            drop: whether longer captions are left out, instead of cut.

        Raises:
            InputError: when all captions are longer.
        """
        limit = self.config.limit
        pictures, captions = part.pairs
        ids = [encode(vocabulary, caption) for caption in captions]
        longer = np.array([len(one) >= limit for one in ids])
        kept = np.flatnonzero(~longer) if drop else np.arange(len(ids))
        if not len(kept):
            raise InputError(
                f"all {len(ids):,} captions are longer than --limit={limit} tokens; raise it"
            )
        nothing: list[Any] = [()] * len(kept)
        targets = Pairs(nothing, [ids[row] for row in kept], limit=limit, longer="cut")
        return PictureTexts(part.images, pictures[kept], targets), int(longer.sum())

    def rehearse(self) -> None:
        """Traces the model and a search, so that what is wrong shows before training.

        Raises:
            InputError: for a body without such a map, a search that is not possible, a --max_length
                that no model has seen, and a tokeniser that is not installed.
        """
        check_bleu_tokenizer(self.scoring()["tokenizer"])
        variables = jax.eval_shape(lambda: self.computing(self.init(jax.random.key(0))))
        self.searcher.rehearse(variables, self.captions.test.images)

    @functools.cached_property
    def body(self) -> tuple[Body, FeatureMap]:
        """The body of the image model, and the map of it that is read.

        Raises:
            InputError: where there is no map of the --stride.
        """
        config = self.config
        options = parse_options(config.body, image_spec(config.body).build, config.option)
        body, (seen,) = make_body(config.body, (config.stride,), self.info.image_shape, **options)
        return body, seen

    @functools.cached_property
    def model(self) -> Captioner:
        """The captioner."""
        config = self.config
        body, seen = self.body
        height, width, channels = seen.shape
        features = config.hidden if config.model == "transformer" else config.embedding_size
        words = Words(len(self.info.vocabulary), features, config.dropout, config.embedding_dropout)
        decoder: Any
        if config.model == "transformer":
            blocks = config.transformer_config(context=config.limit)
            decoder = TransformerTeller(words, blocks, height * width)
        elif config.model == "lstm":
            decoder = ShowAndTell(words, config.hidden)
        else:
            decoder = ShowAttendAndTell(
                words, config.hidden, (height * width, channels), config.gate
            )
        return Captioner(body, decoder)

    def scaled(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Returns images of 0..255 as the model takes them, in the parameters' type."""
        return standardise(images, self.info.mean, self.info.deviation, variables["params"])

    def init(self, key: jax.Array) -> Variables:
        pictures = jnp.zeros((1, *self.info.image_shape))
        variables: Variables = self.model.init(key, pictures, jnp.zeros((1, 1), jnp.int32))
        return variables

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        config = self.config
        augment_key, dropout_key = jax.random.split(rng)
        batch = {**batch, **self.augment(augment_key, {"image": batch["image"]})}
        variables = {"params": params, **model_state}
        (prediction, activations), new_state = self.model.apply(
            variables,
            self.scaled(variables, batch["image"]),
            batch["inputs"],
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )
        losses = training_losses(prediction, batch["targets"], smoothing=config.label_smoothing)
        if config.doubly_stochastic:
            lengths = batch["target_length"]
            real = length_mask(lengths, losses.shape[1])
            penalty = doubly_stochastic(activations["attention"][:, 0], real)
            # Of a caption's loss, which is the sum over its words.
            share = penalty / lengths.astype(penalty.dtype)
            losses = losses + config.doubly_stochastic * share[:, None]
        return _mean(losses, batch), Aux(dict(new_state), {})

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": state.params, **state.model_state}
        images = self.scaled(variables, batch["image"])
        prediction, _ = self.model.apply(variables, images, batch["inputs"])
        targets = batch["targets"]
        said = log_probs(prediction).argmax(-1) == targets
        exact = (said | ~length_mask(batch["target_length"], targets.shape[1])).all(1)
        return {
            "loss": _mean(nats(prediction, targets), batch),
            "exact": Mean.of(exact.astype(jnp.float32), batch["weight"]),
        }

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        return {**measures, "perplexity": float(np.exp(measures["loss"]))}

    def adopt(self, state: TrainState) -> TrainState:
        config = self.config
        if config.init_from is None:
            return state
        return adopt_inside(
            state,
            config.init_from,
            config.init_prefix,
            self.body[0].build(),
            self.info.image_shape,
            module=BODY,
            name=config.body,
        )

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        def forward(variables: Variables, images: jax.Array) -> Any:
            inputs = jnp.full((len(images), 2), END)
            prediction, activations = self.model.apply(
                variables, self.scaled(variables, images), inputs
            )
            with jax.named_scope(
                "captioner/decoder/words"
            ):  # where the output layer's parameters are
                return log_probs(prediction), activations

        return launch.Check(forward, "image", float(np.log(len(self.info.vocabulary))))

    # Searching.

    @functools.cached_property
    def searcher(self) -> Searcher:
        """Searches captions with --beam and --n_best."""
        config = self.config
        return Searcher(
            self._begin,
            self.info.vocabulary,
            config,
            steps=self.config.longest(self.info.longest, self.config.limit),
            width=config.beam,
            n_best=config.n_best,
        )

    def _begin(self, variables: Any, batch: Batch, steps: int) -> tuple[Any, Any, None]:
        call = functools.partial(self.model.apply, variables)
        memory = call(self.scaled(variables, batch["image"]), method="encode")
        carry = call(memory, steps, method="initial_carry")
        return (
            lambda carry, token: call(carry, token, memory, method="next_token"),
            carry,
            None,
        )

    def scoring(self) -> dict[str, Any]:
        """Returns how captions are compared with references: BLEU's tokeniser and the case."""
        tokenizer = self.config.bleu_tokenizer
        if tokenizer == "auto":
            tokenizer = bleu_tokenizer("captions", self.captions.test.pairs[1])
        return {"tokenizer": tokenizer, "lower": self.config.lower}

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        """Adds the scores of the captions that the search finds, and of the nearest picture's."""
        variables = self.computing(outcome.variables)
        test = self.captions.test
        self.found = self.searcher.find(variables, test.images, "captions")
        self.outputs = [best[0] for best in self.found.texts]
        self.nearest = nearest_captions(self.captions)
        self.scores = {
            name: translation_scores(outputs, test.captions, **self.scoring())
            for name, outputs in (
                (f"beam {self.config.beam}", self.outputs),
                ("nearest picture", self.nearest),
            )
        }
        for name, scores in self.scores.items():
            launch.say(f"{name}:\n{scores.render()}")
        return outcome.extended(
            {
                f"{prefix}{metric}": getattr(scores, metric)
                for prefix, scores in zip(("", "nearest_"), self.scores.values(), strict=True)
                for metric in ("exact_match", "bleu", "chrf")
            }
        )

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        captions = self.captions.test.captions
        report.write_captions(self.workdir / "test.tsv", captions, self.outputs, self.nearest)
        return outcome

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        test = self.captions.test
        shown = np.arange(min(report.SHOWN, len(test)))
        return report.sections(
            test,
            self.outputs,
            self.nearest,
            scores=self.scores,
            log_probs=self.found.log_probs[:, 0],
            looks=self.looks(outcome.variables, test.images.gather(shown)["image"]),
            **self.scoring(),
        )

    def looks(self, variables: Variables, images: np.ndarray) -> list[Look]:
        """Returns where a captioner looks at each word of its captions of images, if it attends."""
        variables = self.computing(variables)
        found = self.searcher.find(variables, Arrays({"image": images}), "attention")
        tokens = [ids if len(ids) else np.array([END]) for ids in found.tokens]
        inputs = np.zeros((len(images), max(map(len, tokens))), np.int32)
        for row, ids in zip(inputs, tokens, strict=True):
            row[: len(ids)] = [END, *ids[:-1]]
        _, activations = self._seen(variables, images, inputs)
        if "attention" not in activations:
            return []
        height, width, _ = self.body[1].shape
        weights = np.asarray(activations["attention"], np.float32).mean(1)
        decode = self.info.vocabulary.decode
        return [
            Look(
                image,
                tuple("<eos>" if token == END else decode([token]) for token in ids.tolist()),
                of[: len(ids)].reshape(-1, height, width),
            )
            for image, ids, of in zip(images, tokens, weights, strict=True)
        ]

    @functools.cached_property
    def _seen(self) -> Any:
        return jax.jit(
            lambda variables, images, inputs: self.model.apply(
                variables, self.scaled(variables, images), inputs
            )
        )

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> list[list[Caption]]:
        """Returns the --n_best captions of each picture, the best first.

        Args:
            variables: of the captioner.
            inputs: uint8 arrays [H, W, C] of the run's shape, or paths of image files, which are
                brought to it as --image_size does.
        """
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        data = Arrays({"image": images})
        found = self.searcher.find(self.computing(variables), data, "captions")
        return [
            [Caption(text, float(score)) for text, score in zip(of, scores, strict=False)]
            for of, scores in zip(found.texts, found.scores, strict=True)
        ]

    def answers(self, inputs: Sequence[Any], outputs: list[list[Caption]]) -> list[dict[str, Any]]:
        rows = []
        for best in outputs:
            found = [
                {"caption": text, "score": score if np.isfinite(score) else None}
                for text, score in best
            ]
            rows.append({**found[0], "n_best": found} if self.config.n_best > 1 else found[0])
        return rows


def first(part: Captioned, config: Config, count: int) -> Captioned:
    """Returns the pictures that a run uses: all, or of a smoke test the first `count`."""
    return part.subset(np.array(config.cut([*range(len(part))], count)))


def nearest_captions(data: CaptionData) -> list[str]:
    """Returns for each test picture the first caption of the training picture nearest to it.

    Near is the Euclidean distance of the pixels, among 30,000 evenly spaced pictures at most.
    """
    count = len(data.train)
    rows = np.unique(np.linspace(0, count - 1, min(count, _COMPARED)).astype(int))
    best = np.full(len(data.test), np.inf)
    nearest = np.zeros(len(data.test), int)
    queries = _flat(data.test.images.gather(np.arange(len(data.test)))["image"])
    for at in range(0, len(rows), 1000):
        chosen = rows[at : at + 1000]
        keys = _flat(data.train.images.gather(chosen)["image"])
        # The squares of the queries are the same for all.
        distances = (keys**2).sum(1) - 2 * queries @ keys.T
        closest = distances.argmin(1)
        found = distances[np.arange(len(queries)), closest]
        nearest = np.where(found < best, chosen[closest], nearest)
        best = np.minimum(found, best)
    return [data.train.captions[row][0] for row in nearest]


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def _mean(losses: jax.Array, batch: Batch) -> Mean:
    """Returns the mean of losses [B, T] over the real tokens, by the weights of the examples."""
    real = length_mask(batch["target_length"], losses.shape[1]).astype(jnp.float32)
    return Mean.of(losses, real * batch["weight"][:, None])
