"""What attention looks at. Shapes: H heads, T output tokens, S source tokens."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlcore.report import markup
from dlcore.report.markup import Html
from dlcore.report.plots import plot_attention
from dlcore.report.sections import Section


class AttentionExample(NamedTuple):
    """The attention of one layer in one sentence, without its padding.

    Attributes:
        title: what it is of.
        weights: (H, T, S), at least 0.
        source: S tokens that are looked at.
        output: T tokens that look; those of the source again in a self-attention.
    """

    title: str
    weights: np.ndarray
    source: Sequence[str]
    output: Sequence[str]


def attention_section(
    title: str, examples: Sequence[AttentionExample], *, text: str = ""
) -> Section:
    """A map of the mean over the heads of each example, and one of each head where it has several.

    Args:
        title: the heading; the pictures' files are named after it, so it differs from that of other
            sections of the report.
        examples: a few.
        text: what the weights are.
    """
    name = re.sub(r"\W+", "_", title.lower())

    def content(folder: pathlib.Path) -> Html:
        parts = [markup.paragraph(text)] if text else []
        for number, (heading, weights, source, output) in enumerate(examples, start=1):
            heads = len(weights)
            mean = weights.mean(axis=0, keepdims=True)
            pictures = [("", f"mean of {heads} heads" if heads > 1 else "", mean)]
            if heads > 1:
                pictures.append(("_heads", "each head", weights))
            parts.append(markup.heading(heading))
            for ending, of, maps in pictures:
                file = f"{name}_{number}{ending}.png"
                plot_attention(maps, source, output, folder / file, title=of)
                parts.append(markup.picture(file))
        return markup.join(parts)

    return Section(title, content)
