"""Pictures that a run writes during training, and the sections of a report that show them."""

import functools
import io
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from dlcore.files import write_whole
from dlcore.report import Section, picture_section, plots
from dlcore.train.logs import writing

_FOLDER = "pictures"
# The stages that a report shows, at even distances.
_SHOWN = 8


def stage(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the path of the picture after a step: WORKDIR/pictures/step_000100.png."""
    return workdir / _FOLDER / f"step_{step:06d}.png"


def save_picture(picture: np.ndarray, target: pathlib.Path) -> None:
    """Writes a picture uint8 [H, W, C] as PNG so that the file is either complete or absent.

    The folder is made when it does not exist.

    Raises:
        InputError: when the file cannot be written.
    """
    with writing(target), io.BytesIO() as buffer:
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "png")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, buffer.getvalue())


def write_row(workdir: pathlib.Path, images: np.ndarray, step: int) -> None:
    """Writes images uint8 [N, H, W, C] side by side as the stage after a step.

    Raises:
        InputError: when the file cannot be written.
    """
    save_picture(np.concatenate([*images], axis=1), stage(workdir, step))


def stages_section(workdir: pathlib.Path, scale: float, *, text: str) -> Section:
    """Returns a section with the stages that a run has written, only some if there are many.

    Args:
        workdir: the folder of the run, which has written at least one.
        scale: see `plots.plot_rows`.
        text: the beginning of the caption, which continues "after 0, 100 steps".
    """
    stages = _read(workdir, "RGB")
    return picture_section(
        "Stages",
        "stages",
        functools.partial(plots.plot_rows, {"": np.stack([*stages.values()])}, scale=scale),
        text=f"{text} after {', '.join(map(str, stages))} steps.",
    )


def strip_sections(workdir: pathlib.Path, count: int, *, text: str) -> Iterator[Section]:
    """Yields a section with the rows that `write_row` has written; nothing where it wrote none.

    Args:
        workdir: the folder of the run.
        count: N, the images of a row.
        text: the caption.
    """
    rows = {
        f"step {step}": np.stack(np.split(row, count, axis=1))
        for step, row in _read(workdir).items()
    }
    if rows:
        yield picture_section(
            "Samples as training goes",
            "strip",
            functools.partial(plots.plot_rows, rows),
            text=text,
        )


def _read(workdir: pathlib.Path, mode: str | None = None) -> dict[int, np.ndarray]:
    """Returns stages uint8 [H, W, C] by their steps, at most as many as a report shows."""
    paths = sorted((workdir / _FOLDER).glob("step_*.png"))
    found = {}
    for place in np.unique(np.linspace(0, len(paths) - 1, _SHOWN, dtype=int)) if paths else ():
        path = paths[place]
        with Image.open(path, formats=("PNG",)) as image:
            picture = np.asarray(image if mode is None else image.convert(mode))
        step = int(path.stem.partition("_")[2])
        found[step] = picture.reshape(*picture.shape[:2], -1)
    return found
