"""What a language model reports. Shapes: N tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from dlcore.report import markup
from dlcore.report.plots.lines import reading
from dlcore.report.sections import Section
from dlcore.report.text import heat_section

_MOST_PASSAGES = 5


def language_sections(
    scores: Mapping[str, Mapping[str, float]],
    *,
    samples: Sequence[tuple[int, str]],
    tokens: Sequence[str],
    nats: np.ndarray,
    separator: str = " ",
) -> list[Section]:
    """The scores beside those of other models, samples over training, the worst passages.

    Args:
        scores: of each model by its name, its metrics by theirs, on the same test text.
        samples: texts that the model wrote in training, each with the step; may be empty.
        tokens: N tokens of the test text in order.
        nats: (N,) what each of them cost the model, its negative log-likelihood.
        separator: what stands between two tokens; "" where they are characters or parts of words.
    """
    names = list(dict.fromkeys(name for metrics in scores.values() for name in metrics))
    rows = [
        [model, *(reading(name).text(metrics[name]) if name in metrics else "" for name in names)]
        for model, metrics in scores.items()
    ]
    header = ["", *(reading(name).title for name in names)]
    sections = [Section("Comparison", lambda _: markup.table(rows, header=header))]
    written = [
        part
        for step, sample in samples
        for part in (markup.heading(f"Step {step:,}"), markup.preformatted(sample))
    ]
    if written:
        sections.append(Section("Samples", lambda _: markup.join(written)))
    passages = [
        (f"{nats[start:end].mean():.2f} nats per token", tokens[start:end], nats[start:end])
        for start, end in worst_passages(nats)
    ]
    text = "The redder the bar under a token, the less it was expected."
    passage_section = heat_section(
        "Worst predicted passages", passages, text=text, separator=separator
    )
    return [*sections, passage_section]


def worst_passages(
    nats: np.ndarray, *, length: int = 40, most: int = _MOST_PASSAGES
) -> list[tuple[int, int]]:
    """The starts and ends of the passages that cost the most, the worst first.

    Args:
        nats: (N,) the cost of each token.
        length: of a passage, in tokens; the text is cut into such.
        most: how many to give at most.
    """
    starts = np.arange(0, len(nats), length)
    ends = np.minimum(starts + length, len(nats))
    means = np.add.reduceat(nats, starts) / (ends - starts) if len(nats) else np.zeros(0)
    whole = np.flatnonzero(ends - starts == min(length, len(nats)))
    order = whole[np.argsort(-means[whole], kind="stable")][:most]
    return [(int(starts[i]), int(ends[i])) for i in order]
