"""What a report is made of."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from dlcore.report import markup
from dlcore.report.markup import Html


class Section(NamedTuple):
    """A part of a report.

    Attributes:
        title: its heading.
        content: draws its pictures, if it has any, into the folder of the report, and returns its
            HTML.
    """

    title: str
    content: Callable[[pathlib.Path], Html]


def picture_section(
    title: str, name: str, draw: Callable[[pathlib.Path], None], *, text: str = ""
) -> Section:
    """A section of one picture.

    Args:
        title: the heading.
        name: of the picture's file, without its ending.
        draw: writes the PNG to the path that it is given.
        text: to stand below.
    """

    def content(folder: pathlib.Path) -> Html:
        draw(folder / f"{name}.png")
        below = [markup.paragraph(text)] if text else []
        return markup.join([markup.picture(f"{name}.png"), *below])

    return Section(title, content)
