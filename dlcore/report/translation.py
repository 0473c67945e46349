"""What a translator reports. Shapes: N test sentences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.evaluation.search_errors import VERDICTS, SearchErrors
from dlcore.metrics import LengthScore, TranslationScores, bleu_by_length
from dlcore.report import markup
from dlcore.report.attention import AttentionExample, attention_section
from dlcore.report.plots import plot_bars
from dlcore.report.sections import Section, picture_section

_MOST_MISTAKES = 10


class Samples(NamedTuple):
    """How some sentences were translated in the course of training.

    Attributes:
        sources: a few texts.
        references: of each.
        outputs: the step, and what each source was translated to then; may be empty.
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
) -> list[Section]:
    """The scores, BLEU by length, the search's and the model's errors, samples and attention.

    Args:
        sources: N texts of the test data.
        references: how people translated them.
        outputs: how the model did, with the best of its decoders.
        scores: on the test data, of each decoder by its name.
        source_lengths: (N,) of the sources in tokens.
        errors: the verdicts on the outputs, see `search_errors`.
        samples: of the course of training.
        attention: examples of what the decoder looks at in the source.
    """
    groups = bleu_by_length(outputs, references, source_lengths)
    sections = [
        _scores_section(scores),
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
    if attention:
        text = "Each row is a token that is written, and shows where in the source it looks."
        sections.append(attention_section("Attention", attention, text=text))
    return sections


def _scores_section(scores: Mapping[str, TranslationScores]) -> Section:
    header = [
        "",
        "BLEU",
        "chrF",
        "exact match",
        "precision of 1 to 4 words",
        "brevity penalty",
        "length ratio",
    ]
    rows = [
        [
            decoder,
            f"{of.bleu:.2f}",
            f"{of.chrf:.2f}",
            f"{of.exact_match:.2%}",
            " / ".join(f"{precision:.1f}" for precision in of.precisions),
            f"{of.brevity_penalty:.3f}",
            f"{of.length_ratio:.3f}",
        ]
        for decoder, of in scores.items()
    ]
    signatures = dict.fromkeys(
        f"{metric}|{signature}"
        for of in scores.values()
        for metric, signature in (("BLEU", of.bleu_signature), ("chrF", of.chrf_signature))
    )
    parts = [markup.table(rows, header=header), markup.preformatted("\n".join(signatures))]
    return Section("Translation scores", lambda _: markup.join(parts))


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
