"""The pictures of the glossary, made by the code that they are about when the site is built."""

import pathlib

import matplotlib

from pictures import activations, diagrams, layers, sequences, training, unsupervised, vision  # noqa: F401
from pictures.drawing import PICTURES, STYLE, of_term

__all__ = ["PICTURES", "WITHOUT", "draw_all", "of_term"]

# Why an entry has no picture.
WITHOUT = {
    "ICML": "a conference has nothing that a picture would explain",
    "Other frameworks": "a list of programs and years",
}


def draw_all(folder: pathlib.Path) -> None:
    """Draws the pictures that are not in a folder yet, or that are older than the code."""
    folder.mkdir(exist_ok=True)
    here = pathlib.Path(__file__).resolve()
    sources = [*here.parent.glob("*.py"), *(here.parents[2] / "dlcore").rglob("*.py")]
    newest = max(path.stat().st_mtime for path in sources)
    for one in PICTURES:
        path = folder / f"{one.name}.svg"
        if not path.exists() or path.stat().st_mtime < newest:
            with matplotlib.rc_context(STYLE):
                figure = one.draw()
                figure.savefig(
                    path, metadata={"Date": None}, facecolor="white", bbox_inches="tight"
                )
