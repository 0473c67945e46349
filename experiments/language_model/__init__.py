"""Language models: recurrent networks, transformers and n-grams on running text.

By default an LSTM on the words of the Python language reference and the docstrings of installed
packages, which needs no network, beside a counted Kneser-Ney model of the same tokens.
`--data_path` takes a text file or a folder of them, `--dataset` any prepared TFDS data set with one
text per example. `--model=ngram` counts alone.

A finished run goes on from any text (`--workdir=DIR --prompt="The " --generate=100`) and scores the
lines of a file (`--workdir=DIR --predict=FILE`): log P of each in nats, from the line end before it
to its own, and the perplexity of its tokens.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import Loader
from dlcore.data.text import Corpus, Stream, Vocabulary, Windows, load_corpus
from dlcore.errors import InputError
from dlcore.launch import workdir as folders
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    number,
    path,
    switch,
    text,
)
from dlcore.launch.loading import read_summary, trained_by
from dlcore.launch.text import LayersConfig, StackConfig, TransformerGroup, VocabularyConfig
from dlcore.losses.output import SOFTMAXES, Readout, output_layer
from dlcore.losses.word_trees import order_by_likeness
from dlcore.models.text import TENSOR_PARALLEL, LanguageModel
from dlcore.models.text.ngram import SMOOTHINGS
from dlcore.nn.recurrent import CELLS, RecurrentStack
from dlcore.nn.transformer import Transformer
from dlcore.report import Section
from dlcore.runtime import processes
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Carry,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
)

from . import counted, report
from .sampling import SAMPLING, Sampler, write_sample

PARTS = ("train", "valid", "test")
RECURRENT = tuple(CELLS)
NEURAL = ("transformer", *RECURRENT)
_NEURAL = {"model": NEURAL}
_RECURRENT = {"model": RECURRENT}
_LEAST_SHARE = 1e-6  # of the probability that sampling keeps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    TransformerGroup,
    StackConfig,
    LayersConfig,
    VocabularyConfig,
    dataset="python_docs",
    steps=4000,
    batch_size=32,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.01,
    eval_every=1000,
    clip_norm=1.0,
    validation=0.1,
    level="word",
    vocab_size=10_000,
    hidden=256,
    layers=2,
    embedding_size=256,
    dropout=0.1,
):
    """The configuration of a language model."""

    group_conditions = {
        launch.ScheduleConfig: _NEURAL,
        launch.DevicesConfig: _NEURAL,
        LayersConfig: _NEURAL,
        StackConfig: _RECURRENT,
        TransformerGroup: {"model": ("transformer",)},
        "embedding_size": _RECURRENT,
        **{
            name: _NEURAL
            for name in (
                "steps",
                "batch_size",
                "checkpoint_every",
                "checkpoint_dir",
                "eval_every",
                "log_every",
                "patience",
                "check",
                "report",
                "profile",
            )
        },
    }

    model: str = choice("lstm", ("ngram", *NEURAL), "network to train, or ngram to count n-grams")
    window: int = integer(35, 1, LARGEST, "tokens of each row in a step", when=_NEURAL)
    detach: int | None = integer(
        None,
        1,
        LARGEST,
        "number of tokens through which a gradient flows back; default the window",
        when=_RECURRENT,
    )
    tie: bool = switch(True, "use one table for embedding and output", when=_NEURAL)
    softmax: str = choice("full", SOFTMAXES, "how the output layer is trained", when=_NEURAL)
    samples: int = integer(
        1024, 1, LARGEST, "noise words of a sampled softmax", when={"softmax": ("sampled", "nce")}
    )
    z_loss: float = number(
        0.0,
        0,
        1,
        "weight of the softmax's squared log normaliser in the loss, such as 1e-4",
        when={"softmax": ("full",), **_NEURAL},
    )
    order: int = integer(
        5, 0, 100, "order of the n-gram model that is counted for comparison; 0 counts none"
    )
    smoothing: str = choice(
        "kneser_ney", SMOOTHINGS, "smoothing of the n-gram model", when={"order": range(1, 101)}
    )
    add_k: float = number(
        0.01,
        0,
        LARGEST_NUMBER,
        "number that is added to each count",
        when={"smoothing": ("add_k",)},
    )
    arpa: str | None = path(
        None,
        "file to write the n-gram model to, in the ARPA format",
        free=True,
        when={"order": range(1, 101)},
    )
    characters: int | None = integer(
        None, 1, LARGEST, "largest number of characters of training text; default all"
    )
    prompt: str = text("\n", "text that the sampled texts continue", free=True)
    generate: int = integer(
        60, 0, LARGEST, "tokens to sample at each evaluation; 0 for none", free=True
    )
    temperature: float = number(
        0.8, 0, LARGEST_NUMBER, "temperature of sampling; 0 takes the likeliest token", free=True
    )
    top_k: int | None = integer(
        None, 1, LARGEST, "sample only from this many of the likeliest tokens", free=True
    )
    top_p: float | None = number(
        None,
        _LEAST_SHARE,
        1,
        "sample only from the likeliest tokens that together have this probability",
        free=True,
    )
    min_p: float | None = number(
        None,
        _LEAST_SHARE,
        1,
        "sample only from tokens at least this share as likely as the likeliest",
        free=True,
    )


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a language model remembers.

    Attributes:
        vocabulary: of the text.
        counts: how often each token occurs in the training text, int [V].
        order: that of the tokens in the tree of a hierarchical softmax, int [V]; None without one,
            and where it is Huffman's tree, as in runs of earlier versions.
    """

    vocabulary: Vocabulary
    counts: np.ndarray = dataclasses.field(compare=False)
    order: np.ndarray | None = dataclasses.field(default=None, compare=False)


class LanguageModelling(launch.Task[Config, Info]):
    """A language model, trained by truncated back-propagation through time.

    Each row of a batch goes on where it stopped. Models that carry nothing on read windows in any
    order instead.
    """

    rules = TENSOR_PARALLEL
    reads = "lines"
    asks = ("predict", "prompt")

    def data(self) -> launch.Data[Info]:
        config = self.config
        corpus = load_corpus(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            valid_share=config.validation,
            limit=config.characters,
        )
        for note in corpus.notes:
            launch.say(note)
        cut = {part: config.cut(getattr(corpus, part), 20_000) for part in PARTS}
        self.corpus = corpus = corpus._replace(**cut)
        vocabulary = config.build_vocabulary(corpus.train)
        self.ids = ids = encode(vocabulary, corpus)
        launch.say(
            f"{corpus.name}: {len(ids['train']):,} tokens to train on, {len(ids['valid']):,} to "
            f"validate and {len(ids['test']):,} to test with, {len(vocabulary):,} different ones"
        )
        if config.model == "ngram" and not config.order:
            raise InputError("--model=ngram --order=0 counts nothing; give an order of 1 or more")
        self.counted = counted.count(config, vocabulary, corpus, ids) if config.order else None
        if config.arpa and self.counted is not None:
            self.counted.write(config.arpa, vocabulary)
        counts = np.bincount(ids["train"], minlength=len(vocabulary))
        hierarchical = config.model != "ngram" and config.softmax == "hierarchical"
        order = None
        # A run that continues remembers its own.
        if hierarchical and not folders.holds_run(self.workdir):
            order = processes.of_primary(order_by_likeness(ids["train"], len(vocabulary)))
        self.info = Info(vocabulary, counts, order)
        if config.model == "ngram":
            return launch.Data(lambda start: iter(()), lambda: iter(()), self.info)
        if self.counted is not None:
            launch.say(self.counted.describe())
        size, part = config.batch_size, self.part()
        streams = {
            split: Stream(tokens, size, config.window, **part)
            for split, tokens in ids.items()
            if len(tokens)
        }
        train = streams["train"].batches
        if config.model == "transformer":  # which carries nothing from window to window
            windows = Windows(ids["train"], config.window)
            train = Loader(windows, size, seed=config.seed, **part).batches
        return launch.Data(
            train,
            streams["test"].epoch,
            self.info,
            validation=streams["valid"].epoch if "valid" in streams else None,
            per_step={"tokens": size * config.window},
        )

    @functools.cached_property
    def model(self) -> LanguageModel:
        """The network.

        Raises:
            InputError: for n-grams, whose counts no run keeps.
        """
        config = self.config
        if config.model == "ngram":
            raise InputError(
                "a run of --model=ngram has no network, and its counts are not kept; count again "
                "by the same command"
            )
        # The network is kept: what it holds must not belong to the trace that asks first.
        with jax.ensure_compile_time_eval():
            output = output_layer(
                config.softmax,
                self.info.counts,
                samples=config.samples,
                z_weight=config.z_loss,
                order=self.info.order,
            )
        options: dict[str, Any] = {
            "tie": config.tie,
            "dropout": config.dropout,
            "embedding_dropout": config.embedding_dropout,
        }
        if config.model == "transformer":
            body = Transformer(config.transformer_config(context=config.window))
            return LanguageModel(output, body, config.hidden, scale=config.hidden**0.5, **options)
        return LanguageModel(output, recurrent_body(config), config.embedding_size, **options)

    @property
    def metric(self) -> tuple[str, str]:  # type: ignore[override]
        """The score that models of this kind of tokens are compared by."""
        spelt = self.info.vocabulary.level == "char"
        return ("bits_per_character" if spelt else "perplexity_per_token"), "min"

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.model.init(key, jnp.zeros((1, 1), jnp.int32))
        return variables

    def carry(self) -> Carry:
        return self.model.initial_carry(self.config.batch_size)

    def window(
        self, variables: Variables, batch: Batch, carry: Carry, **options: Any
    ) -> tuple[Carry, Readout, PyTree]:
        """Reads the next window; returns the carry, the readout and the model's state."""
        (carry, readout), state = self.model.apply(
            variables, batch["inputs"], batch["reset"], carry=carry, method="window", **options
        )
        return carry, readout, dict(state)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        noise_key, dropout_key = jax.random.split(rng)
        carry, readout, model_state = self.window(
            {"params": params, **model_state},
            batch,
            batch.get("carry"),
            detach=self.config.detach,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )
        losses = self.model.output.losses(noise_key, readout, batch["targets"].reshape(-1))
        return mean(losses, batch), Aux(model_state, {}, carry)

    def metrics(self, state: TrainState, batch: Batch) -> tuple[Metrics, Carry]:
        variables = {"params": state.params, **state.model_state}
        carry, readout, _ = self.window(variables, batch, state.carry, mutable=[])
        nats = self.model.output.nats(readout, batch["targets"].reshape(-1))
        return {"loss": mean(nats, batch)}, carry

    def summarise(self, means: dict[str, float], split: str) -> dict[str, float]:
        part = "valid" if split == "validation" else split
        vocabulary = self.info.vocabulary
        return means | counted.scores(means["loss"], vocabulary, self.corpus, self.ids, part)

    @functools.cached_property
    def sample(self) -> Callable[[Variables], str]:
        """Writes a text as the configuration says."""
        return Sampler(self.config, self.info.vocabulary).neural(self.model)

    def observe(self, variables: Variables, step: int) -> str | None:
        if not self.config.generate:
            return None
        sample = self.sample(self.computing(variables))
        write_sample(self.workdir, step, sample)
        return sample

    def log_probs(self, variables: Variables, tokens: jax.Array) -> tuple[jax.Array, Activations]:
        """Returns the log-probabilities of all words after each token, and the activations."""
        _, readout, activations = self.model.apply(variables, tokens)
        hidden = readout.hidden.reshape(-1, readout.hidden.shape[-1])
        return self.model.output.log_probs(readout._replace(hidden=hidden)), activations

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.log_probs, "inputs", float(np.log(len(self.info.vocabulary))))

    def without_training(self) -> tuple[dict[str, float], str] | None:
        if self.config.model != "ngram":
            return None
        assert self.counted is not None, "data() counts"
        if self.config.generate:
            sample = Sampler(self.config, self.info.vocabulary).counted(self.counted.model)
            write_sample(self.workdir, 0, sample)
        return self.counted.scores, f"by {self.counted.name}"

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        return outcome.extended({}, ngram=self.counted and self.counted.scores)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        scores = {self.config.model: outcome.metrics}
        if self.counted is not None:
            scores[self.counted.name] = self.counted.scores
        return report.sections(self, self.computing(outcome.variables), scores)

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        """Continues --prompt by a run that has ended, unless more steps are asked for.

        Flags of sampling alone ask for that too; beside others they belong to a run. With --report
        the run writes its report as well.
        """
        alone = SAMPLING & {*given} and {*given} <= SAMPLING | {"workdir"}
        if config.workdir is None or not ("prompt" in given or alone):
            return False
        if config.model == "ngram" and "model" in given:  # counted again
            return False
        summary = read_summary(pathlib.Path(config.workdir))
        if not summary or ("steps" in given and config.steps > summary.get("step", 0)):
            return False
        trained = trained_by(cls, config, given)
        task: Any = trained.task
        write = Sampler(task.config, task.info.vocabulary).neural(task.model)
        print(write(task.computing(trained.variables)))
        return not config.report

    @functools.cached_property
    def _nats(self) -> Callable[[Variables, jax.Array, jax.Array], jax.Array]:
        @jax.jit
        def nats(variables: Variables, inputs: jax.Array, targets: jax.Array) -> jax.Array:
            carry = self.model.initial_carry(len(inputs))
            _, readout = self.model.apply(
                variables, inputs, jnp.ones(len(inputs), bool), carry=carry, method="window"
            )
            return self.model.output.nats(readout, targets.reshape(-1)).reshape(targets.shape)

        return nats

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[np.ndarray]:
        """Returns -log P of each token of each line, its end included, in nats."""
        found, config = [], self.config
        learned = config.model == "transformer" and config.position == "learned"
        for line in inputs:
            ids = self.info.vocabulary.encode(f"\n{line}\n")
            count = len(ids) - 1
            if learned and count > config.window:
                raise InputError(
                    f"a line of {count} tokens is longer than the --window={config.window} "
                    "positions that this run has learned; shorten it"
                )
            # As long as powers of two, so that lines of all lengths share few compiled programs.
            size = 1 << max(count - 1, 1).bit_length()
            size = min(size, config.window) if learned else size
            padded = np.pad(ids, (0, size + 1 - len(ids)))[None]
            nats = self._nats(variables, jnp.asarray(padded[:, :-1]), jnp.asarray(padded[:, 1:]))
            found.append(np.asarray(nats)[0, :count])
        return found

    def answers(self, inputs: Sequence[str], outputs: list[np.ndarray]) -> list[dict[str, Any]]:
        return [
            {
                "log_probability": -float(nats.sum()),
                "tokens": len(nats),
                "perplexity": float(np.exp(nats.mean())),
            }
            for nats in outputs
        ]


def encode(vocabulary: Vocabulary, corpus: Corpus) -> counted.Ids:
    """Returns the token ids of the corpus by split.

    Raises:
        InputError: when the training or the test text has no token.
    """
    ids = {split: vocabulary.encode(getattr(corpus, split)) for split in PARTS}
    for split in ("train", "test"):
        if not len(ids[split]):
            raise InputError(f"the {split} text of {corpus.name} is empty; give a longer text")
    return ids


def recurrent_body(config: Config) -> RecurrentStack:
    """Returns the recurrent layers of a configuration.

    Raises:
        InputError: for cells that a stream cannot have, and a gradient beyond the window.
    """
    if config.model == "lstm_batch_norm":
        raise InputError(
            "--model=lstm_batch_norm keeps statistics for each step of a sequence, and a stream "
            "has no first step; lstm_layer_norm does without"
        )
    if config.detach is not None and config.detach > config.window:
        raise InputError(
            f"--detach={config.detach} is beyond --window={config.window}, where the gradient ends "
            "anyway; lower the one or raise the other"
        )
    return RecurrentStack(
        config.make_cells(config.model),
        residual=config.residual,
        dropout=config.dropout,
        variational=config.variational,
        state_dropout=config.state_dropout,
        candidate_dropout=config.candidate_dropout,
    )


def mean(losses: jax.Array, batch: Batch) -> Mean:
    """Returns the mean of the losses [B T] of a window, by the weights of its rows or tokens."""
    weight, shape = batch["weight"], batch["targets"].shape
    weight = jnp.broadcast_to(weight.reshape(shape[0], -1), shape)
    return Mean.of(losses, weight.reshape(-1))
