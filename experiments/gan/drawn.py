"""Files of what a generator draws. Shapes: N examples, H W C an image, 2 a point."""

import io
import pathlib

import numpy as np

from dlcore import launch
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.launch.stages import save_picture, stage
from dlcore.report.plots.images import tiled
from dlcore.report.plots.scatter import plot_points
from dlcore.train.logs import writing

# Pixels of the shorter side of a strip of small images.
_LEAST_SIDE = 256


def draw_samples(
    workdir: pathlib.Path, step: int, drawn: np.ndarray, columns: int, centres: np.ndarray | None
) -> None:
    """Writes the stage after a step.

    Args:
        workdir: of the run.
        step: after which they were drawn.
        drawn: images uint8 [N, H, W, C], or points [N, 2].
        columns: of images.
        centres: of the modes [K, 2] where they are points.
    """
    target = stage(workdir, step)
    if drawn.ndim == 2:
        target.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"drawn": drawn} if centres is None else {"drawn": drawn, "modes": centres}
        plot_points(kinds, target, title=f"step {step}")
        return
    sheet = tiled(drawn, columns)
    factor = -(-_LEAST_SIDE // min(sheet.shape[:2]))
    save_picture(sheet.repeat(factor, 0).repeat(factor, 1), target)


def write_samples(target: pathlib.Path, drawn: np.ndarray, labels: np.ndarray | None) -> None:
    """Writes samples as a file of arrays, .npz, or images into a folder as PNG.

    Raises:
        InputError: when it cannot be written, and for points that should be pictures.
    """
    images = drawn.ndim == 4
    if target.suffix == ".npz":
        arrays = {"image" if images else "point": drawn}
        _write_arrays(target, arrays if labels is None else {**arrays, "label": labels})
    elif not images:
        raise InputError(f"--generate_to={target}: points go to a file that ends in .npz")
    else:
        digits = len(str(len(drawn) - 1))
        for number, image in enumerate(drawn):
            name = f"{number:0{digits}d}" + ("" if labels is None else f"_class_{labels[number]}")
            save_picture(tiled(image[None], 1, gap=0), target / f"{name}.png")
    launch.say(f"{len(drawn):,} samples: {target}")


def _write_arrays(target: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    with writing(target), io.BytesIO() as buffer:
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, buffer.getvalue())
