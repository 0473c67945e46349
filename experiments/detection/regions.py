"""Detectors that look at regions: their options, and the candidates that some of them need."""

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import tqdm

from dlcore import boxes as geometry
from dlcore import launch
from dlcore.data import Split, evaluation_batches, evenly_spaced
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, choice, integer
from dlcore.models.detection import selective_search
from dlcore.models.detection.fast_rcnn import POOLINGS, FastRCNN, RegionHead, Sampling
from dlcore.models.detection.faster_rcnn import FasterRCNN, ProposalRules, shapes_by_level
from dlcore.models.detection.rcnn import (
    MACHINES,
    RCNN,
    Candidates,
    Warped,
    candidates_of_rows,
    fit_machines,
)
from dlcore.runtime import processes
from dlcore.train.logs import writing
from dlcore.types import Batch, PyTree, Variables

from .systems import Setting, body_of

# Those that need candidates of selective search.
WITH_CANDIDATES = ("rcnn", "fast_rcnn")
_TOGETHER = 16  # pictures whose candidates are read together
_POOLED = ("fast_rcnn", "faster_rcnn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionGroup(launch.Group):
    """Detectors of regions."""

    title = "Regions"

    regions: int = integer(
        32,
        4,
        10_000,
        "regions of a picture that a step looks at",
        when={"model": ("rcnn", *_POOLED)},
    )
    pooling: str = choice(
        "align", POOLINGS, "RoIAlign, or RoI pooling as published", when={"model": _POOLED}
    )
    levels: int = integer(
        1,
        1,
        5,
        "levels of a feature pyramid, from --stride on; 1 for none",
        when={"model": ("faster_rcnn",)},
    )
    proposals: int = integer(
        100,
        1,
        10_000,
        "proposals of a picture in detection; training takes twice as many",
        when={"model": ("faster_rcnn",)},
    )
    anchor_sample: int = integer(
        128,
        2,
        10_000,
        "anchors of a picture that a step looks at",
        when={"model": ("faster_rcnn",)},
    )
    training: str = choice(
        "joint",
        ("joint", "alternating"),
        "both networks at once, or by turns in the paper's four steps",
        when={"model": ("faster_rcnn",)},
    )
    candidates: int = integer(
        400, 1, 10_000, "candidates of a picture, see --search", when={"model": WITH_CANDIDATES}
    )
    search: str = choice(
        "fast",
        selective_search.MODES,
        "variety of selective search, which finds the candidates",
        when={"model": WITH_CANDIDATES},
    )
    crop: int = integer(
        32, 8, 1024, "side that candidates are warped to, in pixels", when={"model": ("rcnn",)}
    )
    machine_pictures: int = integer(
        1000,
        1,
        LARGEST,
        "training pictures that the support vector machines are fitted to at the end",
        when={"model": ("rcnn",)},
    )


def _head(config: Any, setting: Setting, strides: tuple[int, ...]) -> RegionHead:
    return RegionHead(setting.num_classes, strides, width=config.hidden, pooling=config.pooling)


def _fast_rcnn(config: Any, setting: Setting) -> nn.Module:
    return FastRCNN(
        body_of(config, setting.image_shape),
        _head(config, setting, (config.stride,)),
        Sampling(count=config.regions),
        config.decoding(),
    )


def _faster_rcnn(config: Any, setting: Setting) -> nn.Module:
    strides = tuple(config.stride * 2**level for level in range(config.levels))
    # As wide as the proposals' convolution.
    width = FasterRCNN.width
    return FasterRCNN(
        body_of(config, setting.image_shape, strides),
        _head(config, setting, strides),
        shapes_by_level(setting.shapes, config.levels),
        pyramid=width if config.levels > 1 else None,
        rules=ProposalRules(
            sample=config.anchor_sample,
            train=2 * config.proposals,
            detect=config.proposals,
        ),
        sampling=Sampling(count=config.regions, background=(0.0, 0.5)),
        decoding=config.decoding(),
    )


def _rcnn(config: Any, setting: Setting) -> nn.Module:
    return RCNN(
        body_of(config, (config.crop, config.crop, setting.image_shape[2])),
        setting.num_classes,
        side=config.crop,
        hidden=config.hidden,
        sampling=Sampling(count=config.regions, background=(0.0, 0.5)),
        decoding=config.decoding(),
    )


REGION_SYSTEMS: dict[str, Callable[[Any, Setting], nn.Module]] = {
    "rcnn": _rcnn,
    "fast_rcnn": _fast_rcnn,
    "faster_rcnn": _faster_rcnn,
}


@dataclasses.dataclass(frozen=True)
class Extended:
    """A split with further arrays.

    Attributes:
        split: N examples.
        arrays: by name, of N rows each.
    """

    split: Split
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.split)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Gathers the examples at `indices` [n], each with its rows."""
        rows = {name: array[indices] for name, array in self.arrays.items()}
        return {**self.split.gather(indices), **rows}

    def subset(self, indices: np.ndarray) -> "Extended":
        """Returns a split of the examples at `indices` [n] alone."""
        rows = {name: array[indices] for name, array in self.arrays.items()}
        return Extended(self.split.subset(indices), rows)


def with_candidates(split: Split, part: str, config: Any, workdir: pathlib.Path) -> Split:
    """Returns a split with "candidates" and "candidates_mask", see `candidates_of`.

    A search of many pictures takes minutes, so that the run keeps what it found in a file of its
    folder, by which it goes on.

    Args:
        split: N pictures.
        part: "train" or "test".
        config: of the run.
        workdir: its folder.

    Raises:
        InputError: for an augmentation that candidates cannot follow.
    """
    if "mosaic" in config.augment:
        raise InputError(
            f"--augment={config.augment}: mosaic has no rule for the candidates that "
            f"--model={config.model} looks at; leave it out"
        )
    kept = workdir / f"candidates_{part}.npz"
    named = np.array([config.search, config.candidates, config.seed, len(split)], "U32")
    if before := _read_kept(kept, named):
        return Extended(split, before)

    def images(numbers: np.ndarray) -> np.ndarray:
        return split.gather(numbers)["image"]

    found = _searched(images, len(split), config, f"searching {part} pictures")
    covered = _covered(split, found)
    launch.say(
        f"selective search: {found['candidates_mask'].sum(1).mean():.0f} candidates of a {part} "
        f"picture, which find {100 * covered:.1f} % of the objects at IoU 0.5"
    )
    _keep(kept, of=named, **found)
    return Extended(split, found)


def _keep(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes arrays to a file of the run as a whole; of several processes, the first one does."""
    if not processes.is_primary():
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial_{path.name}")
        np.savez_compressed(partial, allow_pickle=False, **arrays)
        partial.replace(path)


def _read_kept(path: pathlib.Path, named: np.ndarray) -> dict[str, np.ndarray] | None:
    """Returns the arrays that `_keep` wrote with this "of"; None where there are none of it.

    Raises:
        InputError: for a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        # NumPy leaves a file open that is no archive, unless it was given open.
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path} cannot be read; remove it, and it is made again") from None
    return arrays if np.array_equal(arrays.pop("of", None), named) else None


def candidates_of(images: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """Returns "candidates" (N, M, 4) and "candidates_mask" of square pictures (N, S, S, C)."""
    return _searched(images.__getitem__, len(images), config, "searching pictures")


def _searched(
    images: Callable[[np.ndarray], np.ndarray], count: int, config: Any, title: str
) -> dict[str, np.ndarray]:
    boxes, mask = selective_search.search_all(
        images,
        count,
        selective_search.MODES[config.search],
        most=config.candidates,
        seed=config.seed,
        title=title,
    )
    return {"candidates": boxes, "candidates_mask": mask}


def _covered(split: Split, found: dict[str, np.ndarray]) -> float:
    """Returns the share of the objects that a candidate overlaps by 0.5; NaN without objects."""
    right = []
    for start in range(0, len(split), 256):
        rows = np.arange(start, min(start + 256, len(split)))
        batch = split.gather(rows)
        overlap = geometry.pairwise(geometry.iou, batch["boxes"], found["candidates"][rows])
        right.append((overlap.max(-1) >= 0.5)[batch["boxes_mask"]])
    return float(np.concatenate(right).mean())


Scaled = Callable[[Variables, jax.Array], jax.Array]


def with_machines(
    variables: Variables,
    model: RCNN,
    scaled: Scaled,
    train: Split | None,
    config: Any,
    workdir: pathlib.Path,
) -> Variables:
    """Returns the variables of an R-CNN with its machines, from the file that the run keeps.

    Where it has none of these parameters, they are fitted to training pictures and written.

    Args:
        variables: of the model.
        model: the network.
        scaled: gives images as the model takes them.
        train: the training pictures with their candidates; None where a run is loaded.
        config: of the run.
        workdir: its folder.

    Raises:
        InputError: where there are neither the machines nor pictures to fit them to.
    """
    kept = workdir / "machines.npz"
    named = np.array(_checksum(variables["params"]))
    if before := _read_kept(kept, named):
        return {**variables, MACHINES: before}
    if train is None:
        raise InputError(
            f"{kept} has no machines of these parameters; the command that trained them fits them"
        )

    @jax.jit
    def read(batch: Batch) -> tuple[Warped, Warped]:
        images = scaled(variables, batch["image"])
        said, true = (
            model.apply(variables, images, boxes=batch[name])[0] for name in ("candidates", "boxes")
        )
        return said, true

    sample = evenly_spaced(train, config.machine_pictures)

    def pictures() -> Iterator[Candidates]:
        with tqdm.tqdm(
            total=len(sample), desc="fitting machines", delay=2, leave=False
        ) as progress:
            for batch in evaluation_batches(sample, _TOGETHER):
                said, true = jax.device_get(read(batch))
                yield from candidates_of_rows(batch, said, true)
                progress.update(int((batch["weight"] > 0).sum()))

    fitted = fit_machines(pictures(), model.num_classes)._asdict()
    launch.say(f"fitted the machines of {model.num_classes} classes to {len(sample):,} pictures")
    _keep(kept, of=named, **fitted)
    return {**variables, MACHINES: fitted}


def _checksum(params: PyTree) -> int:
    """Tells parameters from others, by all of their bits."""
    found = 0
    for leaf in jax.tree.leaves(params):
        found = zlib.crc32(np.asarray(leaf).tobytes(), found)
    return found
