"""Sections: the building blocks of a report."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from dlcore.report import markup
from dlcore.report.markup import Html


class Section(NamedTuple):
    """A part of a report.

    Attributes:
        title: the heading.
        content: takes the folder of the report, draws the section's pictures into it, if there are
            any, and returns the HTML.
    """

    title: str
    content: Callable[[pathlib.Path], Html]


def picture_section(
    title: str, name: str, draw: Callable[[pathlib.Path], None], *, text: str = ""
) -> Section:
    """Makes a section of one picture.

    Args:
        title: the heading.
        name: the name of the picture's file, without its ending.
        draw: takes a path and writes the PNG to it.
        text: the text below the picture.
    """

    def content(folder: pathlib.Path) -> Html:
        draw(folder / f"{name}.png")
        below = [markup.paragraph(text)] if text else []
        return markup.join([markup.picture(f"{name}.png"), *below])

    return Section(title, content)
