"""The report section on scores of texts that have references."""

from collections.abc import Mapping

from dlcore.metrics import TranslationScores
from dlcore.report import markup
from dlcore.report.sections import Section


def scores_section(title: str, scores: Mapping[str, TranslationScores]) -> Section:
    """Shows the scores of texts, such as those of each decoder, by name."""
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
            f"{score.bleu:.2f}",
            f"{score.chrf:.2f}",
            f"{score.exact_match:.2%}",
            " / ".join(f"{precision:.1f}" for precision in score.precisions),
            f"{score.brevity_penalty:.3f}",
            f"{score.length_ratio:.3f}",
        ]
        for decoder, score in scores.items()
    ]
    signatures = dict.fromkeys(
        f"{metric}|{signature}"
        for score in scores.values()
        for metric, signature in (("BLEU", score.bleu_signature), ("chrF", score.chrf_signature))
    )
    parts = [markup.table(rows, header=header), markup.preformatted("\n".join(signatures))]
    return Section(title, lambda _: markup.join(parts))
