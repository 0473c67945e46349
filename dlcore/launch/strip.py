"""Rows of images that a model makes as its training goes, and the strip of them in a report."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from dlcore.launch.frozen_network import save_picture
from dlcore.report import Section, picture_section, plots

_FOLDER = "samples"
# The rows of a strip, at even distances.
_ROWS = 8


def write_row(workdir: pathlib.Path, images: np.ndarray, step: int) -> None:
    """Writes images side by side as WORKDIR/samples/step_000100.png.

    Args:
        workdir: the folder of the run.
        images: uint8 [N, H, W, C], as many at each step.
        step: after which they were made.

    Raises:
        InputError: when the file cannot be written.
    """
    row = np.concatenate([*images], axis=1)
    target = workdir / _FOLDER / f"step_{step:06d}.png"
    save_picture(row[..., 0] if row.shape[-1] == 1 else row, target)


def strip_sections(workdir: pathlib.Path, count: int, *, text: str) -> Iterator[Section]:
    """Yields the strip of the rows that a run has written, some of them if there are many.

    Args:
        workdir: the folder of the run.
        count: N, the images of a row.
        text: what is said below the strip.
    """
    paths = sorted((workdir / _FOLDER).glob("step_*.png"))
    if not paths:
        return
    rows = {}
    for place in np.unique(np.linspace(0, len(paths) - 1, _ROWS, dtype=int)):
        with Image.open(paths[place], formats=("PNG",)) as image:
            row = np.asarray(image)
        row = row.reshape(*row.shape[:2], -1)
        step = int(paths[place].stem.partition("_")[2])
        rows[f"step {step}"] = np.stack(np.split(row, count, axis=1))
    yield picture_section(
        "Samples as training goes",
        "strip",
        functools.partial(plots.plot_rows, rows),
        text=text,
    )
