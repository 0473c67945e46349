"""Translation: recurrent nets with attention and transformers on pairs of texts.

By default a recurrent net with attention writes dates of many languages and formats in ISO 8601,
which needs no network; `--dataset=dates/en_de` translates them. `--data_path` takes a TSV file of
pairs or a folder of aligned files (with `--languages=en,de`), `--dataset` any prepared TFDS set of
translations; `--model=transformer --shared --level=bpe` is the usual model of such. Once trained,
`--workdir=DIR --translate=FILE` translates the lines of a file into DIR/translated.txt.

With `--autoencode` each text is its own target (a sequence autoencoder, Dai & Le 2015): the decoder
has the encoder's last states alone to write it again by, and `text_classification --init_from=DIR`
starts from the encoder. Texts are then the lines of any file, or of a data set.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch, parallel
from dlcore.data import Loader
from dlcore.data.text import (
    Pairs,
    ParallelText,
    TokenLoader,
    Vocabulary,
    load_copied_text,
    load_parallel_text,
)
from dlcore.data.text.vocabulary import UNKNOWN
from dlcore.decode import scheduled_inputs
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.launch.fields import LARGEST, choice, integer, names, number, switch
from dlcore.launch.loading import read_summary, trained_by
from dlcore.launch.predictions import input_lines
from dlcore.launch.running import checkpoint_folder
from dlcore.launch.text import (
    LayersConfig,
    TransformerGroup,
    VocabularyConfig,
    cut_off,
    encode,
)
from dlcore.metrics import bleu_tokenizer, check_bleu_tokenizer
from dlcore.models.text import TENSOR_PARALLEL
from dlcore.models.text.prediction import log_probs, nats, training_losses
from dlcore.nn.recurrent import CELLS
from dlcore.nn.sequences import length_mask
from dlcore.report import Section
from dlcore.train.logs import write_table, writing
from dlcore.types import Aux, Batch, Mean, Metrics, Params, PyTree, TrainState, Variables

from . import report, search, texts
from .models import MODELS, RecurrentGroup, make_model
from .search import SearchConfig, Translator

_PAIRS = {"autoencode": (False,)}
SHIFT = 7  # of the key of scheduled sampling, so that it is not that of dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    LayersConfig,
    TransformerGroup,
    RecurrentGroup,
    SearchConfig,
    dataset="dates",
    steps=1500,
    batch_size=64,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=100,
    eval_every=500,
    clip_norm=1.0,
    level="char",
    embedding_size=64,
):
    """The configuration of a translator."""

    group_conditions: ClassVar = {
        TransformerGroup: {"model": ("transformer",)},
        RecurrentGroup: {"model": tuple(CELLS)},
        "embedding_size": {"model": tuple(CELLS)},
        "attention": _PAIRS,
        "input_feeding": _PAIRS,
        "coverage": _PAIRS,
        "copy": _PAIRS,
    }

    model: str = choice("gru", MODELS, "transformer, or the cell of a recurrent translator")
    autoencode: bool = switch(
        False,
        "each text is its own target, by one vocabulary and without attention",
        when={"model": tuple(CELLS)},
    )
    languages: tuple[str, ...] = names(
        "source and target, such as en,de; default the data's own", when=_PAIRS
    )
    shared: bool = switch(False, "one vocabulary and one table for both languages", when=_PAIRS)
    limit: int = integer(
        128, 2, LARGEST, "most tokens of a side; longer training pairs are dropped"
    )
    batch_tokens: int | None = integer(
        None, 1, LARGEST, "target tokens per step, instead of --batch_size examples"
    )
    label_smoothing: float = number(0.0, 0, 1, "share of the target spread over all tokens")
    z_loss: float = number(
        0.0, 0, 1, "weight of the softmax's squared log normaliser in the loss, such as 1e-4"
    )
    scheduled_sampling: float = number(
        0.0, 0, 1, "share of decoder inputs that the model draws itself (scheduled sampling)"
    )

    @property
    def one_vocabulary(self) -> bool:
        """Tells whether both sides have one vocabulary and one table."""
        return self.shared or self.autoencode

    def shrunk(self) -> Self:
        shrunk = super().shrunk()
        if shrunk.batch_tokens is None:
            return shrunk
        return dataclasses.replace(shrunk, batch_tokens=min(shrunk.batch_tokens, 256))


@dataclasses.dataclass(frozen=True)
class Info:
    """The part of the data that a translator remembers.

    Attributes:
        vocabulary: of both sides, with --shared; then there are not two.
        source: the vocabulary of the sources.
        target: that of the targets.
        longest: the most tokens of a target in training, its end included.
    """

    vocabulary: Vocabulary | None = None
    source: Vocabulary | None = None
    target: Vocabulary | None = None
    longest: int = dataclasses.field(default=1, compare=False)

    @property
    def sides(self) -> tuple[Vocabulary, Vocabulary]:
        """The vocabularies of the sources and of the targets."""
        source, target = self.source or self.vocabulary, self.target or self.vocabulary
        assert source is not None and target is not None
        return source, target


class Translated(NamedTuple):
    """A translation.

    Attributes:
        text: the translation.
        score: what the search maximised: by default log P per token.
    """

    text: str
    score: float


class Translation(launch.Task[Config, Info]):
    """A translator, trained by the cross-entropy of each target token."""

    metric = ("loss", "min")
    rules = TENSOR_PARALLEL
    reads = "lines"
    asks = ("predict", "translate")

    @property
    def keep(self) -> int:
        return max(3, self.config.average)

    def data(self) -> launch.Data[Info]:
        config = self.config
        text = self.load()
        text = text._replace(
            train=config.cut(text.train, 500),
            valid=config.cut(text.valid, 40),
            test=config.cut(text.test, 40),
        )
        for note in text.notes:
            launch.say(note)
        vocabularies = self.vocabularies(text)
        source, target = vocabularies.sides
        train, valid, test = (
            texts.encode_pairs(part, source, target) for part in (text.train, text.valid, text.test)
        )
        pairs = Pairs(*train, limit=config.limit, longer="drop")
        held_out = texts.in_one_shape(*valid, limit=config.limit) if text.valid else None
        self.texts, self.test = text, texts.in_one_shape(*test, limit=config.limit)
        left_out = [
            f"{count:,} {why}"
            for count, why in ((text.skipped, "with an empty side"), (pairs.dropped, "too long"))
            if count
        ]
        launch.say(
            f"{text.name}, {' to '.join(text.languages)}: {len(pairs):,} pairs to train on, "
            f"{len(text.valid):,} to validate and {len(self.test):,} to test with; "
            f"{len(source):,} and {len(target):,} tokens; shapes {pairs.buckets}"
            + (f"; left out {' and '.join(left_out)}" if left_out else "")
            + cut_off(
                {"to test with": self.test}
                | ({} if held_out is None else {"to validate with": held_out}),
                config.limit,
            )
        )
        self.info = dataclasses.replace(vocabularies, longest=int(pairs.target_lengths.max()))
        self.rehearse()
        batches, per_step = self.batches(pairs)
        return launch.Data(
            batches,
            self.passes(texts.by_length(self.test)),
            self.info,
            None if held_out is None else self.passes(texts.by_length(held_out)),
            per_step,
        )

    def load(self) -> ParallelText:
        """Returns the texts, which with --autoencode are their own targets."""
        config = self.config
        load: Callable[..., ParallelText] = load_copied_text
        if not config.autoencode:
            load = functools.partial(load_parallel_text, languages=config.languages)
        return load(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            valid_share=config.validation,
        )

    def vocabularies(self, text: ParallelText) -> Info:
        """Returns the vocabularies of the training texts."""
        build = self.config.build_vocabulary
        if self.config.autoencode:
            return Info(vocabulary=build([line for line, _ in text.train]))
        if self.config.shared:
            return Info(vocabulary=build([line for pair in text.train for line in pair]))
        source, target = ([pair[side] for pair in text.train] for side in (0, 1))
        return Info(source=build(source), target=build(target))

    def batches(self, pairs: Pairs) -> tuple[Callable[[int], Iterator[Batch]], dict[str, int]]:
        """Returns the training batches from a step on, and how many of which unit each has."""
        config = self.config
        if config.batch_tokens is None:
            loader = Loader(pairs, config.batch_size, seed=config.seed, **self.part())
            return loader.batches, {"examples": config.batch_size}
        tokens = TokenLoader(
            pairs,
            config.batch_tokens,
            multiple=config.accumulate * jax.device_count(),
            seed=config.seed,
            **self.part(),
        )
        return tokens.batches, {
            "target_tokens": round(tokens.tokens_per_epoch / tokens.steps_per_epoch)
        }

    def rehearse(self) -> None:
        """Traces a search, so that what is wrong with it shows before hours of training.

        Raises:
            InputError: as `others`, `Translator` and `check_bleu_tokenizer`.
        """
        check_bleu_tokenizer(self.scoring()["tokenizer"])
        own = jax.eval_shape(lambda: self.computing(self.init(jax.random.key(0))))
        others = [variables for _, variables in self.others]
        self.searcher.rehearse([own, *others], self.test)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The translator."""
        return make_model(self.config, *map(len, self.info.sides))

    def init(self, key: jax.Array) -> Variables:
        tokens = jnp.zeros((1, 1), jnp.int32)
        variables: Variables = self.model.init(key, tokens, jnp.ones(1, jnp.int32), tokens)
        return variables

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        variables = {"params": params, **model_state}
        prediction, activations = self.model.apply(
            variables,
            batch["source"],
            batch["source_length"],
            self.inputs(variables, batch, jax.random.fold_in(rng, SHIFT)),
            train=True,
            rngs={"dropout": rng},
        )
        losses = training_losses(
            prediction,
            batch["targets"],
            smoothing=self.config.label_smoothing,
            z_weight=self.config.z_loss,
        )
        if "coverage_loss" in activations:
            losses = losses + activations["coverage_loss"]
        return _mean(losses, batch), Aux(model_state, {})

    def inputs(self, variables: Variables, batch: Batch, key: jax.Array) -> jax.Array:
        """Returns the inputs of teacher forcing, of which the model draws --scheduled_sampling."""
        if self.config.scheduled_sampling == 0:
            return batch["inputs"]
        call = functools.partial(self.model.apply, variables)
        memory = call(batch["source"], batch["source_length"], method="encode")
        carry = call(memory, batch["inputs"].shape[1], method="initial_carry")
        return scheduled_inputs(
            lambda carry, token: call(carry, token, memory, method="next_token"),
            carry,
            batch["inputs"],
            key,
            share=self.config.scheduled_sampling,
            rows=parallel.positions(len(batch["inputs"])),
        )

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        prediction, _ = self.model.apply(
            {"params": state.params, **state.model_state},
            batch["source"],
            batch["source_length"],
            batch["inputs"],
        )
        return {"loss": _mean(nats(prediction, batch["targets"]), batch)}

    def observe(self, variables: Variables, step: int) -> str | None:
        """Translates some test sentences, into WORKDIR/samples/STEP.txt too."""
        shown = self.test.subset(np.arange(min(report.SHOWN, len(self.test))))
        found = self.sampler.find([self.computing(variables)], shown, "samples")
        translations = [of[0] for of in found.texts]
        report.write_sample(self.workdir, step, translations)
        return "\n".join(translations)

    @functools.cached_property
    def sampler(self) -> Translator:
        """Translates greedily by the model alone."""
        return self.translator([self.model], width=1)

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        def forward(variables: Variables, source: jax.Array) -> Any:
            lengths = jnp.full(len(source), source.shape[1], jnp.int32)
            prediction, activations = self.model.apply(variables, source, lengths, source % 2)
            return log_probs(prediction), activations

        return launch.Check(forward, "source", float(np.log(len(self.info.sides[1]))))

    def reported(self, variables: Variables) -> Variables:
        if self.config.average == 1:
            return variables
        from dlcore.train.checkpoint import average_params  # Orbax takes a second to import

        params, steps = average_params(checkpoint_folder(self), self.config.average)
        launch.say(f"mean of the parameters at the steps {', '.join(map(str, steps))}")
        return {**variables, "params": params}

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        models, variables = self.together(outcome.variables)
        beam = self.config.beam
        decoders = {
            name: self.translator(models, width=width)
            for name, width in {"greedy": 1, f"beam {beam}": beam}.items()
        }
        sources, references = zip(*self.texts.test, strict=True)
        self.tested = tested = search.test(
            decoders, variables, self.test, references, **self.scoring()
        )
        write_table(
            self.workdir / "test.tsv",
            ("source", "reference", "output"),
            zip(sources, references, tested.outputs, strict=True),
        )
        return outcome.extended(
            tested.metrics,
            greedy_bleu=tested.scores["greedy"].bleu,
            search_errors=tested.errors.shares,
        )

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        sources, references = zip(*self.texts.test, strict=True)
        return report.translation_sections(
            sources,
            references,
            self.tested.outputs,
            scores=self.tested.scores,
            source_lengths=self.test.source_lengths,
            errors=self.tested.errors,
            samples=report.read_samples(self.workdir, sources, references),
            attention=report.attention_examples(
                self.model, outcome.variables, self.test, self.tested.found.tokens, self.info.sides
            ),
            **self.scoring(),
        )

    def scoring(self) -> dict[str, Any]:
        """Returns how outputs are compared with references: BLEU's tokeniser and the case."""
        tokenizer = self.config.bleu_tokenizer
        if tokenizer == "auto":
            targets = [target for _, target in self.texts.test]
            tokenizer = bleu_tokenizer(self.texts.languages[1], targets)
        return {"tokenizer": tokenizer, "lower": self.config.lower}

    # Translating.

    def translator(self, models: Sequence[nn.Module], *, width: int, n_best: int = 1) -> Translator:
        """Returns what translates by models together, see `Translator`."""
        return Translator(
            models,
            self.info.sides[1],
            self.config,
            steps=self.config.longest(self.info.longest, self.config.limit),
            width=width,
            n_best=n_best,
        )

    def together(self, variables: Variables) -> tuple[tuple[nn.Module, ...], tuple[Variables, ...]]:
        """Returns the model and those of --ensemble, and the variables that each computes with."""
        models, each = zip((self.model, self.computing(variables)), *self.others, strict=True)
        return models, each

    @functools.cached_property
    def others(self) -> list[tuple[nn.Module, Variables]]:
        """The models of --ensemble, with the variables that they compute with.

        Raises:
            InputError: when a run is not finished, or has other vocabularies.
        """
        return [self._other(pathlib.Path(name)) for name in self.config.ensemble]

    def _other(self, path: pathlib.Path) -> tuple[nn.Module, Variables]:
        if not _is_finished(path):
            raise InputError(
                f"--ensemble={path} is not the --workdir of a finished translation run"
            )
        trained = launch.load(path, type(self))
        if trained.config.one_vocabulary != self.config.one_vocabulary:
            raise InputError(
                f"--ensemble={path} has shared={trained.config.shared}, this run "
                f"shared={self.config.shared}; models that translate together have the same "
                "vocabularies"
            )
        for mine, its in zip(self.info.sides, trained.info.sides, strict=True):
            mine.check(its.fingerprint, owner=f"the run in {path}")
        task: Any = trained.task
        return task.model, task.computing(trained.variables)

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[list[Translated]]:
        """Returns the --n_best translations of each text, the best first.

        An empty text stays empty, a token outside the vocabulary is read as "<unk>", and a text
        longer than --limit is cut.
        """
        return self.translated(variables, [self.ids(line) for line in inputs])

    def answers(
        self, inputs: Sequence[str], outputs: list[list[Translated]]
    ) -> list[dict[str, Any]]:
        rows = []
        for best in outputs:
            found = [
                {"translation": text, "score": score if np.isfinite(score) else None}
                for text, score in best
            ]
            rows.append({**found[0], "n_best": found} if self.config.n_best > 1 else found[0])
        return rows

    def ids(self, line: str) -> np.ndarray | None:
        """Returns the ids of a text to translate; None of an empty one."""
        return encode(self.info.sides[0], line.strip()) if line.strip() else None

    def translated(
        self, variables: Variables, sources: Sequence[np.ndarray | None]
    ) -> list[list[Translated]]:
        """Returns the translations of texts given by their ids, see `predict` and `ids`."""
        out = [[Translated("", 0.0)] for _ in sources]
        filled = {place: ids for place, ids in enumerate(sources) if ids is not None}
        if not filled:
            return out
        _, each = self.together(variables)
        data = texts.to_translate([*filled.values()], limit=self.config.limit)
        found = self.searcher.find(each, data, "translating")
        for place, outputs, scores in zip(filled, found.texts, found.scores, strict=True):
            out[place] = [
                Translated(text, float(score)) for text, score in zip(outputs, scores, strict=False)
            ]
        return out

    @functools.cached_property
    def searcher(self) -> Translator:
        """Translates by all models with --beam and --n_best."""
        models = [self.model, *(model for model, _ in self.others)]
        return self.translator(models, width=self.config.beam, n_best=self.config.n_best)

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        if config.translate is None:
            return False
        lines = input_lines(config.translate)
        if config.workdir is None or not _is_finished(pathlib.Path(config.workdir)):
            raise InputError(
                "--translate needs the --workdir of a finished translation run; train one first, "
                "without --translate"
            )
        trained = trained_by(cls, config, given)
        task: Translation = trained.task  # type: ignore[assignment]
        task.translate(trained.variables, lines)
        return True

    def translate(self, variables: Variables, lines: Sequence[str]) -> None:
        """Translates lines into WORKDIR/translated.txt and onto standard output, see `predict`.

        With --n_best each line is translated to as many, with the number of the line and the score
        before them.
        """
        sources = [self.ids(line) for line in lines]
        filled = [ids for ids in sources if ids is not None]
        unknown = sum(int((ids == UNKNOWN).sum()) for ids in filled)
        cut = sum(len(ids) >= self.config.limit for ids in filled)
        out = []
        for place, best in enumerate(self.translated(variables, sources)):
            if self.config.n_best == 1 or sources[place] is None:
                out.append(best[0].text)
            else:
                out += [f"{place + 1}\t{score:.4f}\t{text}" for text, score in best]
        text = "".join(f"{line}\n" for line in out)
        sys.stdout.write(text)
        target = self.workdir / "translated.txt"
        with writing(target):
            write_whole(target, text)
        launch.say(
            f"{len(filled):,} of {len(lines):,} lines of {self.config.translate} translated to "
            f"{target}; {unknown:,} tokens were unknown, {cut:,} lines longer than "
            f"--limit={self.config.limit} were cut"
        )


def _mean(losses: jax.Array, batch: Batch) -> Mean:
    """Returns the mean of losses [B, T] over the real tokens, by the weights of the examples."""
    real = length_mask(batch["target_length"], losses.shape[1]).astype(jnp.float32)
    return Mean.of(losses, real * batch["weight"][:, None])


def _is_finished(workdir: pathlib.Path) -> bool:
    """Returns whether a folder holds a finished run of this job."""
    return read_summary(workdir).get("experiment") == Translation.name()
