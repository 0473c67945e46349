"""The report sections of a model of music: its pieces beside real ones."""

import functools
import pathlib
from typing import Any

from dlcore.data.music import LOWEST, Piece, shares, to_roll, voices_text
from dlcore.data.music.notes import NAMES
from dlcore.report import Section, markup, picture_section, plots
from dlcore.types import Variables

_SHOWN = 64  # steps of a piece


def sections(task: Any, variables: Variables) -> list[Section]:
    """Returns the sections of a run.

    Args:
        task: the job, `Music`.
        variables: of the trained model.
    """
    real = [piece[:_SHOWN] for piece in task.tested[:2]]
    found = [_completed(task, variables, real[0])]
    if not task.config.generate:
        return found
    pieces = task.compositions(variables)
    rolls = {f"composed {n}": to_roll(p) for n, p in enumerate(pieces[:2], 1)}
    rolls |= {f"test piece {n}": to_roll(piece) for n, piece in enumerate(real, 1)}
    return [
        picture_section(
            "Composed pieces",
            "composed",
            functools.partial(plots.plot_rolls, rolls, lowest=LOWEST),
            text="Pieces that the model composes above, pieces of the test below.",
        ),
        Section("A composed piece by its voices", functools.partial(_written, pieces[0])),
        *found,
        _compared(pieces, task.tested),
    ]


def _written(piece: Piece, folder: pathlib.Path) -> markup.Html:
    return markup.Html(
        markup.preformatted(voices_text(piece))
        + markup.paragraph("The n-th line of a block has the n-th note of each chord from above.")
    )


def _completed(task: Any, variables: Variables, piece: Piece) -> Section:
    """Shows a test piece whose highest notes were given, beside the real one."""
    melody = tuple(chord[-1:] for chord in piece)
    found = task.completed(variables, melody)
    rolls = {"with the model's notes": to_roll(found), "the real piece": to_roll(piece)}
    bits = to_roll(melody)
    return picture_section(
        "Notes below a melody",
        "completed",
        functools.partial(
            plots.plot_rolls, rolls, lowest=LOWEST, marked=dict.fromkeys(rolls, bits)
        ),
        text="The highest notes, in the second colour, are those of a test piece.",
    )


def _compared(composed: list[Piece], real: list[Piece]) -> Section:
    """Shows what composed and real pieces have in common, in numbers."""
    ours, theirs = shares(composed), shares(real)
    rows = [
        ("notes of a chord", f"{ours.notes:.2f}", f"{theirs.notes:.2f}"),
        ("silent steps", f"{ours.silent:.1%}", f"{theirs.silent:.1%}"),
        ("chords that stay", f"{ours.repeated:.1%}", f"{theirs.repeated:.1%}"),
        *(
            (f"notes {name}", f"{mine:.1%}", f"{true:.1%}")
            for name, mine, true in zip(NAMES, ours.classes, theirs.classes, strict=True)
        ),
    ]

    def content(folder: pathlib.Path) -> markup.Html:
        return markup.table(rows, header=("", "composed", "test"))

    return Section("Composed and real pieces in numbers", content)
