"""Tagging: recurrent networks that give each token a tag.

By default a bidirectional LSTM finds the token class of each character of Python source, which
needs no network. `--data_path` takes a file in CoNLL columns, or a folder with train and test
(and dev) files, `--dataset` any prepared TFDS data set with tokens and a sequence of classes per
example.
`--predict=FILE --workdir=DIR` tags the lines of a file, whose tokens have white space between them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.text import Sequences, TaggedText, Vocabulary, load_tagged_text
from dlcore.errors import InputError
from dlcore.launch.fields import FILES, choice, column, switch
from dlcore.launch.text import (
    EncoderConfig,
    VocabularyConfig,
    answer_batches,
    at_full_length,
    cut_off,
    not_read,
    with_table,
)
from dlcore.metrics import (
    SPAN_FORMS,
    SPAN_SCHEMES,
    convert_spans,
    f1,
    span_scheme,
    span_scores,
)
from dlcore.models.text import RecurrentEncoder, Tagger
from dlcore.nn.sequences import length_mask
from dlcore.report import Section, tagging_sections
from dlcore.types import (
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
    at_least_float32,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    EncoderConfig,
    dataset="python_tokens",
    steps=600,
    batch_size=64,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.01,
    eval_every=250,
    clip_norm=1.0,
    vocab_size=20_000,
    embedding_size=64,
):
    """The configuration of a tagger."""

    tag_scheme: str = choice(
        "auto",
        ("auto", "none", *SPAN_SCHEMES),
        "how tags mark spans, such as names; auto finds out from the tags, none scores only tokens",
    )
    convert_tags: str | None = choice(
        None, SPAN_FORMS, "form that tags of spans are converted to, for training and predictions"
    )
    crf: bool = switch(False, "score neighbouring tags too, by a conditional random field")
    token_column: int | str | None = column("column of a file's tokens", when=FILES)
    tag_column: int | str | None = column(
        "column of a file's tags; default UPOS of CoNLL-U, else the last", when=FILES
    )


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a tagger remembers.

    Attributes:
        tag_names: the name of each tag.
        characters: whether each character is a token, white space and line ends too.
        vocabulary: of the tokens.
        longest: the most tokens of a sequence in training; 0 where it is not known.
    """

    tag_names: tuple[str, ...]
    characters: bool
    vocabulary: Vocabulary
    longest: int = dataclasses.field(default=0, compare=False)

    def tokens(self, line: str) -> list[str]:
        """Returns the tokens of a line."""
        return list(line) if self.characters else line.split()


class Tagging(launch.Task[Config, Info]):
    """A tagger, trained by the likelihood of the tags."""

    reads = "lines"
    table: np.ndarray | None = None  # pre-trained vectors that a new run starts from

    def data(self) -> launch.Data[Info]:
        config = self.config
        data = load_tagged_text(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            token_column=config.token_column,
            tag_column=config.tag_column,
        )
        for note in data.notes:
            launch.say(note)
        if config.convert_tags is not None:
            data = converted(data, self.scheme(data.tag_names), config.convert_tags)
        examples, self.tested = config.cut(data.train, 500), config.cut(data.test, 40)
        valid = [] if data.valid is None else [config.cut(data.valid, 40)]
        vocabulary = config.vocabulary_of_tokens(token for one, _ in examples for token in one)
        train, test, *held_out = (
            Sequences(
                [vocabulary.encode_tokens(tokens) for tokens, _ in part],
                tags=[tags for _, tags in part],
                limit=config.limit,
            )
            for part in (examples, self.tested, *valid)
        )
        launch.say(
            f"{data.name}: {len(train):,} sequences to train on, {len(test):,} to test, "
            + "".join(f"{len(part):,} to validate with, " for part in held_out)
            + f"{len(data.tag_names)} tags, {len(vocabulary):,} different tokens"
            + cut_off({"to train on": train, "to test": test}, config.limit)
        )
        self.table = config.pretrained(vocabulary, config.seed)
        scheme = self.scored_by(data.tag_names)
        if scheme is not None and config.convert_tags is None:
            launch.say(f"tags mark spans by the scheme {scheme}; --tag_scheme names another")
        self.metric = ("accuracy" if scheme is None else "span_f1", "max")
        characters = isinstance(examples[0][0], str)
        info = Info(data.tag_names, characters, vocabulary, int(train.lengths.max()))
        return self.split_data(train, test, info, validation=next(iter(held_out), None))

    def scheme(self, tag_names: Sequence[str]) -> str | None:
        """Returns the scheme by which the data's tags mark spans, or None where they mark none."""
        told = self.config.tag_scheme
        if told == "auto":
            return span_scheme(tag_names)
        return None if told == "none" else told

    def scored_by(self, tag_names: Sequence[str]) -> str | None:
        """Returns the scheme of the tags that are trained, or None where they mark no spans."""
        form = self.config.convert_tags
        return self.scheme(tag_names) if form is None else SPAN_FORMS[form]

    @functools.cached_property
    def model(self) -> Tagger:
        """The network."""
        encoder = RecurrentEncoder(len(self.info.vocabulary), **self.config.encoder_options())
        return Tagger(encoder, len(self.info.tag_names), self.config.crf)

    def init(self, key: jax.Array) -> Variables:
        variables = self.model.init(key, jnp.zeros((1, 2), jnp.int32), jnp.ones(1, jnp.int32))
        return with_table(variables, self.table)

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        return self.config.frozen_table()

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        variables = {"params": params, **model_state}
        (emissions, _), new_state = self.model.apply(
            variables,
            batch["tokens"],
            batch["length"],
            train=True,
            rngs={"dropout": rng},
            mutable=list(model_state),
        )
        metrics = self.measure(variables, emissions, batch)
        return metrics.pop("loss"), Aux(dict(new_state), metrics)

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": state.params, **state.model_state}
        emissions, _ = self.model.apply(variables, batch["tokens"], batch["length"])
        return self.measure(variables, emissions, batch)

    def measure(self, variables: Variables, emissions: jax.Array, batch: Batch) -> Metrics:
        """Returns the negative log-likelihood of the tags, and how many of the found are right."""
        emissions = emissions.astype(at_least_float32(emissions.dtype))
        tags, lengths, weight = batch["tags"], batch["length"], batch["weight"]
        losses = self.model.apply(variables, emissions, tags, lengths, weight, method="losses")
        found = self.model.apply(variables, emissions, lengths, method="predict")
        real = jnp.where(length_mask(lengths, tags.shape[1]), weight[:, None], 0)
        right = (found == tags).astype(jnp.float32)
        whole = jnp.all((found == tags) | (real == 0), axis=1).astype(jnp.float32)
        names, scheme = self.info.tag_names, self.scored_by(self.info.tag_names)
        return {
            "loss": Mean.of(*losses),
            "accuracy": Mean.of(right, real),
            "sequence_accuracy": Mean.of(whole, weight),
            **(span_scores(found, tags, real > 0, names, scheme) if scheme else {}),
        }

    def summarise(self, means: dict[str, float], split: str) -> dict[str, float]:
        if self.scored_by(self.info.tag_names) is None:
            return means
        return {**means, "span_f1": f1(means["span_precision"], means["span_recall"])}

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        # A conditional random field has one loss for a whole sequence.
        tokens = np.mean(next(data.train(0))["length"]) if self.config.crf else 1
        chance = float(tokens * np.log(len(self.info.tag_names)))
        return launch.Check(at_full_length(self.model), "tokens", chance)

    @functools.cached_property
    def tags(self) -> Callable[[Variables, Batch], jax.Array]:
        """Maps variables and a batch [B, T] to tags, int32 [B, T], 0 past the lengths."""

        def tags(variables: Variables, batch: Batch) -> jax.Array:
            emissions, _ = self.model.apply(variables, batch["tokens"], batch["length"])
            emissions = emissions.astype(at_least_float32(emissions.dtype))
            found: jax.Array = self.model.apply(
                variables, emissions, batch["length"], method="predict"
            )
            return found

        return jax.jit(tags)

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[np.ndarray]:
        """Returns the tags of the tokens of each line, int32 [T], at most --limit of them.

        Where each character is a token, as in source code, the lines are those of one text: as many
        together as sequences in training were long are tagged as one, with their line ends.
        """
        if not self.info.characters:
            return self.predict_tokens(variables, [self.info.tokens(line) for line in inputs])
        groups = lines_together(inputs, self.info.longest or self.config.limit)
        found = self.predict_tokens(variables, ["".join(f"{line}\n" for line in g) for g in groups])
        tags = []
        for group, row in zip(groups, found, strict=True):
            starts = itertools.accumulate((len(line) + 1 for line in group), initial=0)
            tags += [row[at : at + len(line)] for at, line in zip(starts, group, strict=False)]
        return tags

    def predict_tokens(
        self, variables: Variables, sentences: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """Returns the tags of sentences that are split already, as `predict` does."""
        # What has no token is read as an unknown one, and gets no tag.
        ids = [self.info.vocabulary.encode_tokens(tokens or ("",)) for tokens in sentences]
        rows = [
            row
            for batch in answer_batches(ids, self.config.limit)
            for row in np.asarray(self.tags(variables, batch))
        ]
        limit = self.config.limit
        return [row[: min(len(one), limit)] for row, one in zip(rows, sentences, strict=False)]

    def remark(self, inputs: Sequence[str]) -> str | None:
        encoded = [self.info.vocabulary.encode_tokens(self.info.tokens(line)) for line in inputs]
        return not_read(encoded, self.config.limit)

    def answers(self, inputs: Sequence[str], outputs: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        return [
            {
                "tags": [self.info.tag_names[tag] for tag in tags],
                "tokens": self.info.tokens(line)[: len(tags)],
            }
            for line, tags in zip(inputs, outputs, strict=True)
        ]

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        limit = self.config.limit
        variables = self.computing(outcome.variables)
        found = self.predict_tokens(variables, [tokens for tokens, _ in self.tested])
        return tagging_sections(
            [tokens[:limit] for tokens, _ in self.tested],
            [np.array(tags[:limit]) for _, tags in self.tested],
            found,
            tag_names=self.info.tag_names,
            separator="" if self.info.characters else " ",
        )


def converted(data: TaggedText, scheme: str | None, form: str) -> TaggedText:
    """Returns data whose tags mark the same spans in another form, and says how many changed.

    Args:
        data: as it was read.
        scheme: of its tags, one of `SPAN_SCHEMES`.
        form: one of `SPAN_FORMS`.

    Raises:
        InputError: where the tags mark no spans.
    """
    if scheme is None:
        raise InputError(
            f"--convert_tags={form}: the tags of {data.name} mark no spans, as B-TYPE and I-TYPE "
            f"do; name their scheme by --tag_scheme={'|'.join(SPAN_SCHEMES)}, or leave it out"
        )
    parts = [data.train, data.test, *([] if data.valid is None else [data.valid])]
    named = [[[data.tag_names[tag] for tag in tags] for _, tags in part] for part in parts]
    new = [[convert_spans(tags, scheme, form) for tags in part] for part in named]
    pairs = [
        (before, after)
        for sides in zip(named, new, strict=True)
        for pair in zip(*sides, strict=True)
        for before, after in zip(*pair, strict=True)
    ]
    names = tuple(sorted({after for _, after in pairs}))
    changed = sum(before != after for before, after in pairs)
    launch.say(
        f"converted the tags of the scheme {scheme} to {form}: {changed:,} of "
        f"{len(pairs):,} tokens "
        f"have a new tag, and {len(data.tag_names)} tags became {len(names)}"
    )
    train, test, *valid = (
        [
            (tokens, [names.index(tag) for tag in tags])
            for (tokens, _), tags in zip(part, tags_of_part, strict=True)
        ]
        for part, tags_of_part in zip(parts, new, strict=True)
    )
    return data._replace(train=train, test=test, valid=valid[0] if valid else None, tag_names=names)


def lines_together(lines: Sequence[str], longest: int) -> list[list[str]]:
    """Groups lines that follow each other, so that with their ends they are as long as allowed.

    >>> lines_together(["ab", "c", "a long line", "", "d"], 6)
    [['ab', 'c'], ['a long line'], ['', 'd']]
    """
    groups: list[list[str]] = []
    free = 0
    for line in lines:
        free -= len(line) + 1
        if free < 0:
            groups.append([])
            free = longest - len(line) - 1
        groups[-1].append(line)
    return groups


if __name__ == "__main__":
    launch.main(Tagging)
