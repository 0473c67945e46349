"""The report section on attention. Shapes: H heads, T output tokens, S source tokens."""

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
        title: the heading of the example.
        weights: (H, T, S), at least 0.
        source: S tokens that are attended to.
        output: T tokens that attend; in a self-attention these are the source's tokens.
    """

    title: str
    weights: np.ndarray
    source: Sequence[str]
    output: Sequence[str]


def attention_section(
    title: str, examples: Sequence[AttentionExample], *, text: str = ""
) -> Section:
    """Shows a map of each example's mean over the heads, and of each head if it has several.

    Args:
        title: the heading; the pictures' files are named after it, so no other section of the
            report may have the same.
        examples: a few examples.
        text: an explanation of the weights.
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
            for ending, subtitle, maps in pictures:
                file = f"{name}_{number}{ending}.png"
                plot_attention(maps, source, output, folder / file, title=subtitle)
                parts.append(markup.picture(file))
        return markup.join(parts)

    return Section(title, content)
