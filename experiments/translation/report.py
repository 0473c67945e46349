"""The tables, samples and report sections of a translation run.

Shapes: N test sentences.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from dlcore.data.text import Pairs, Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.evaluation.search_errors import VERDICTS, SearchErrors
from dlcore.files import write_whole
from dlcore.metrics import (
    LengthScore,
    SentenceScores,
    TranslationScores,
    bleu_by_length,
    sentence_scores,
)
from dlcore.report import markup
from dlcore.report.attention import AttentionExample, attention_section
from dlcore.report.plots import plot_bars
from dlcore.report.sections import Section, picture_section
from dlcore.report.translation import scores_section
from dlcore.train.logs import writing
from dlcore.types import Variables

SHOWN = 4  # test sentences whose translation is followed, and whose attention is shown
_MOST_MISTAKES = 10
_MOST_EXTREMES = 5


class Samples(NamedTuple):
    """Translations of some sentences in the course of training.

    Attributes:
        sources: a few texts.
        references: the reference translation of each.
        outputs: pairs of a step and the translation of each source at that step; may be empty.
    """

    sources: Sequence[str]
    references: Sequence[str]
    outputs: Sequence[tuple[int, Sequence[str]]]


def translation_sections(
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[str],
    *,
    scores: Mapping[str, TranslationScores],
    source_lengths: Sequence[int] | np.ndarray,
    errors: SearchErrors | None = None,
    samples: Samples | None = None,
    attention: Sequence[AttentionExample] = (),
    tokenizer: str = "13a",
    lower: bool = False,
) -> list[Section]:
    """Shows scores, BLEU by length, sentences, errors of search and model, samples and attention.

    Args:
        sources: N texts of the test data.
        references: N translations by people.
        outputs: N translations by the model, with the best of its decoders.
        scores: the scores of each decoder on the test data, by its name.
        source_lengths: (N,) the lengths of the sources in tokens.
        errors: the verdicts on the outputs, see `search_errors`.
        samples: translations in the course of training.
        attention: examples of the decoder's attention to the source.
        tokenizer: BLEU's, see `translation_scores`.
        lower: whether texts are compared in lower case.
    """
    groups = bleu_by_length(outputs, references, source_lengths, tokenizer=tokenizer, lower=lower)
    sections = [
        scores_section("Translation scores", scores),
        picture_section(
            "BLEU by length",
            "bleu_by_length",
            lambda path: plot_bars(
                {_group_name(group): group.bleu for group in groups},
                path,
                title="BLEU by length of the source",
                x="source tokens",
                y="BLEU",
            ),
        ),
    ]
    if errors is not None:
        sections.append(_error_section(errors, sources, references, outputs))
    if samples is not None and samples.outputs:
        sections.append(_samples_section(samples))
    if len(outputs) > 1:
        sentences = sentence_scores(outputs, references, tokenizer=tokenizer, lower=lower)
        sections.append(_extremes_section(sentences, sources, references, outputs))
    if attention:
        text = "Each row is a token of the output and shows the source tokens that it attends to."
        sections.append(attention_section("Attention", attention, text=text))
    return sections


def _extremes_section(
    scores: SentenceScores,
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[str],
) -> Section:
    """Lists the sentences with the lowest and the highest chrF, which short ones have as well."""
    header = ["sentence", "source", "reference", "output", "chrF", "BLEU"]
    order = np.argsort(scores.chrf, kind="stable")
    worst = order[: min(_MOST_EXTREMES, len(order) // 2)]
    parts = []
    for name, rows in (("Worst", worst), ("Best", order[::-1][: len(worst)])):
        cells = [
            [
                row + 1,
                sources[row],
                references[row],
                outputs[row],
                f"{scores.chrf[row]:.1f}",
                f"{scores.bleu[row]:.1f}",
            ]
            for row in rows
        ]
        parts += [markup.heading(name), markup.table(cells, header=header)]
    return Section("Best and worst sentences", lambda _: markup.join(parts))


def _group_name(group: LengthScore) -> str:
    lengths = dict.fromkeys((group.shortest, group.longest))
    plural = "s" * (group.sentences != 1)
    return f"{'–'.join(map(str, lengths))}\n{group.sentences:,} sentence{plural}"


def _error_section(
    errors: SearchErrors,
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[str],
) -> Section:
    shares = [
        [verdict, f"{np.sum(errors.verdicts == verdict):,}", f"{share:.1%}", VERDICTS[verdict]]
        for verdict, share in errors.shares.items()
    ]
    parts = [markup.table(shares, header=["", "sentences", "share", "what helps"])]
    if errors.warning:
        parts.append(markup.paragraph(errors.warning))
    header = ["sentence", "source", "reference", "output", "its score", "the reference's"]
    for verdict in ("search", "model"):
        rows = [
            [
                index + 1,
                sources[index],
                references[index],
                outputs[index],
                f"{errors.output_scores[index]:.3f}",
                f"{errors.reference_scores[index]:.3f}",
            ]
            for index in errors.worst(verdict, _MOST_MISTAKES)
        ]
        if rows:
            parts += [
                markup.heading(f"Worst faults of the {verdict}"),
                markup.table(rows, header=header),
            ]
    return Section("Error analysis of the search", lambda _: markup.join(parts))


def _samples_section(samples: Samples) -> Section:
    parts = []
    for index, (source, reference) in enumerate(
        zip(samples.sources, samples.references, strict=True)
    ):
        rows = [["source", source], ["reference", reference]]
        rows += [[f"step {step:,}", outputs[index]] for step, outputs in samples.outputs]
        parts += [markup.heading(f"Sentence {index + 1}"), markup.table(rows)]
    return Section("Samples", lambda _: markup.join(parts))


def write_sample(workdir: pathlib.Path, step: int, outputs: Sequence[str]) -> None:
    """Writes the translations of some sentences at a step into WORKDIR/samples/STEP.txt."""
    path = workdir / "samples" / f"{step:08}.txt"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, "".join(f"{line}\n" for line in outputs))


def read_samples(
    workdir: pathlib.Path, sources: Sequence[str], references: Sequence[str]
) -> Samples:
    """Returns the samples that a run has written, of the first of its test sentences."""
    steps = sorted((workdir / "samples").glob("*.txt"))
    return Samples(
        sources[:SHOWN],
        references[:SHOWN],
        [(int(path.stem), path.read_text(encoding="utf-8").splitlines()) for path in steps],
    )


def attention_examples(
    model: nn.Module,
    variables: Variables,
    data: Pairs,
    outputs: Sequence[np.ndarray],
    vocabularies: tuple[Vocabulary, Vocabulary],
) -> list[AttentionExample]:
    """Returns the attention to the source, at each token of the outputs of the first sentences.

    Args:
        model: a translator; one without attention gives no examples.
        variables: of it.
        data: the N test sentences.
        outputs: the ids of the output of each, with its end.
        vocabularies: of the sources and the outputs.
    """
    rows = [row for row, tokens in enumerate(outputs[:SHOWN]) if len(tokens)]
    if not rows:
        return []
    batch, shown = data.gather(np.array(rows)), [outputs[row] for row in rows]
    inputs = np.zeros((len(rows), max(map(len, shown))), np.int32)
    for row, tokens in zip(inputs, shown, strict=True):
        row[: len(tokens)] = [END, *tokens[:-1]]
    _, activations = jax.jit(model.apply)(
        variables, batch["source"], batch["source_length"], inputs
    )
    if "attention" not in activations:  # a decoder that the bridge alone informs
        return []
    weights, lengths = np.asarray(activations["attention"]), batch["source_length"]
    source, target = vocabularies
    return [
        AttentionExample(
            f"sentence {row + 1}",
            weights[place, :, : len(tokens), : lengths[place]],
            _spelt(source, batch["source"][place, : lengths[place]]),
            _spelt(target, tokens),
        )
        for place, (row, tokens) in enumerate(zip(rows, shown, strict=True))
    ]


def _spelt(vocabulary: Vocabulary, tokens: np.ndarray) -> Sequence[str]:
    """Returns each token as people read it."""
    ends = {END: "<eos>"}
    return [ends.get(token) or vocabulary.decode([token]) for token in tokens.tolist()]
