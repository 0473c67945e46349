"""Selective search: candidate boxes from the parts of a picture (Uijlings et al. 2013).

A graph-based segmentation (Felzenszwalb & Huttenlocher 2004, by scikit-image) cuts a picture into
small regions. Then the two most similar neighbours are merged repeatedly until one region is left,
and the box of every region on the way is a candidate. Several colour spaces, scales and
similarities, each with a hierarchy of its own, find objects that a single one would miss.

Shapes: H W picture, C channels, R regions, D values of a histogram, n candidates. Everything here
uses NumPy.
"""

import concurrent.futures
import dataclasses
import heapq
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from dlcore import errors
from dlcore.errors import InputError

_COLOUR_BINS = 25
_TEXTURE_BINS = 10
_ORIENTATIONS = 8
_STEEPEST = 0.5  # of a derivative of a channel from 0 to 1; above it the last bin of texture counts
_SMOOTHING = 0.8  # sigma before the segmentation
_DERIVATIVE = 1.0  # sigma of the texture's derivatives
BLOCK = 32  # pictures that a process searches at a time


def _channels(*names: str) -> Callable[[np.ndarray], np.ndarray]:
    def convert(rgb: np.ndarray) -> np.ndarray:
        from skimage import color

        parts: dict[str, np.ndarray] = {}
        if {"hue", "saturation", "value"} & {*names}:
            hsv = color.rgb2hsv(rgb)
            parts |= dict(zip(("hue", "saturation", "value"), np.moveaxis(hsv, -1, 0), strict=True))
        if "lightness" in names:
            lab = color.rgb2lab(rgb) / [100, 255, 255] + [0, 0.5, 0.5]
            parts |= dict(zip(("lightness", "a", "b"), np.moveaxis(lab, -1, 0), strict=True))
        total = rgb.sum(-1)
        parts["intensity"] = total / 3
        parts["red"], parts["green"] = np.moveaxis(
            rgb[..., :2] / np.where(total > 0, total, 1)[..., None], -1, 0
        )
        return np.stack([parts[name] for name in names], -1).clip(0, 1)

    return convert


# Pictures (H, W, 3) from 0 to 1 in other colours, each channel from 0 to 1.
COLOURS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rgb": lambda rgb: rgb,
    "hsv": _channels("hue", "saturation", "value"),
    "lab": _channels("lightness", "a", "b"),
    "rgi": _channels("red", "green", "intensity"),
    "hue": _channels("hue"),
    "intensity": _channels("intensity"),
}
# What two regions are alike in; the sum of the similarities named orders the merging.
SIMILARITIES = ("colour", "texture", "size", "fill")


@dataclasses.dataclass(frozen=True)
class Diversity:
    """The hierarchies of a search: each colour with each scale and each set of similarities.

    Attributes:
        colours: names of `COLOURS`.
        scales: values of k in the segmentation, which is also the fewest pixels of a region; larger
            ones make larger regions.
        similarities: sets of `SIMILARITIES`.
    """

    colours: tuple[str, ...]
    scales: tuple[float, ...]
    similarities: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for colour in self.colours:
            errors.pick("colour space", colour, COLOURS)
        for name in {name for names in self.similarities for name in names}:
            errors.pick("similarity", name, dict.fromkeys(SIMILARITIES))
        if not (self.colours and self.scales and self.similarities and all(self.similarities)):
            raise InputError(f"{self} has no hierarchy; name a colour, a scale and a similarity")
        if min(self.scales) <= 0:
            raise InputError(f"scales {self.scales} must be above 0")


_ALL = ("colour", "texture", "size", "fill")
_NO_COLOUR = ("texture", "size", "fill")
# The paper's table 6.
MODES: dict[str, Diversity] = {
    "single": Diversity(("hsv",), (100,), (_ALL,)),
    "fast": Diversity(("hsv", "lab"), (50, 100), (_ALL, _NO_COLOUR)),
    "quality": Diversity(
        ("hsv", "lab", "rgi", "hue", "intensity"),
        (50, 100, 150, 300),
        (_ALL, _NO_COLOUR, ("fill",), ("size",)),
    ),
}


class Regions(NamedTuple):
    """The properties of R regions that merging needs.

    Attributes:
        sizes: float64 (R,), in pixels.
        boxes: float64 (R, 4), y_min, x_min, y_max, x_max.
        colour: float64 (R, D), histograms of sum 1.
        texture: float64 (R, D'), histograms of sum 1.
        pairs: int (E, 2), the regions that touch each other, the lower number first.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    pairs: np.ndarray


def search(
    image: np.ndarray, diversity: Diversity = MODES["fast"], *, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Returns the candidates of a picture, float32 (n, 4) y_min, x_min, y_max, x_max in pixels.

    The order is the paper's: in each hierarchy the i-th region from the top has the value i times a
    random number from 0 to 1, and candidates are sorted by it, so that large regions tend to come
    first and no hierarchy comes last. Of equal boxes only the first is kept.

    Args:
        image: uint8 (H, W, C) with C = 1, 3 or 4; a fourth channel is ignored. The only colour of a
            grey picture is its intensity.
        diversity: the hierarchies; `MODES` has the paper's.
        seed: the seed of the random numbers.

    Raises:
        InputError: for a picture of another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(
            f"selective search in an array {image.dtype} {image.shape}; give a picture uint8 "
            "[H, W, C] with 1, 3 or 4 channels"
        )
    rng = np.random.default_rng(seed)
    colours = diversity.colours if image.shape[2] > 1 else ("intensity",)
    rgb = np.broadcast_to(image[..., :3] / 255.0, (*image.shape[:2], 3))
    found, values = [], []
    for colour in colours:
        picture = COLOURS[colour](rgb)
        texture = derivatives(picture)
        for scale in diversity.scales:
            regions = describe(picture, segment(picture, scale), texture)
            for similarities in diversity.similarities:
                boxes = merge(regions, similarities)
                found.append(boxes[::-1])  # from the top of the hierarchy
                values.append(rng.random(len(boxes)) * np.arange(1, len(boxes) + 1))
    boxes = np.concatenate(found)[np.argsort(np.concatenate(values), kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)].astype(np.float32)


def search_all(
    images: Callable[[np.ndarray], np.ndarray],
    count: int,
    diversity: Diversity = MODES["fast"],
    *,
    most: int,
    seed: int = 0,
    title: str = "selective search",
) -> tuple[np.ndarray, np.ndarray]:
    """Searches many pictures, on all processor cores where there are enough of them.

    Args:
        images: returns the pictures uint8 (B, H, W, C) for indices (B,).
        count: the number of pictures.
        diversity: the hierarchies.
        most: M, the number of first candidates to keep.
        seed: the seed of the run; each picture has random numbers of its own, whatever the number
            of processes.
        title: the title of the progress bar.

    Returns:
        Candidates float32 (count, M, 4), zeros where a picture has fewer, and which of them exist,
        bool (count, M).
    """
    boxes = np.zeros((count, most, 4), np.float32)
    mask = np.zeros((count, most), bool)
    blocks = np.array_split(np.arange(count), max(1, -(-count // BLOCK)))
    bar = tqdm.tqdm(total=count, desc=title, delay=2, leave=False)

    def keep(block: np.ndarray, found: list[np.ndarray]) -> None:
        for at, candidates in zip(block, found, strict=True):
            boxes[at, : len(candidates)] = candidates
            mask[at, : len(candidates)] = True
        bar.update(len(block))

    cores = min(len(os.sched_getaffinity(0)), len(blocks))
    with bar:
        if cores == 1:
            for block in blocks:
                keep(block, _search_block(images(block), block, diversity, most, seed))
            return boxes, mask
        # JAX has threads, which a fork would not bring along.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(cores, mp_context=spawn) as pool:
            waiting: list[tuple[np.ndarray, concurrent.futures.Future[list[np.ndarray]]]] = []
            for block in blocks:
                # Few pictures at a time are in memory.
                if len(waiting) > 2 * cores:
                    first, future = waiting.pop(0)
                    keep(first, future.result())
                task = pool.submit(_search_block, images(block), block, diversity, most, seed)
                waiting.append((block, task))
            for block, future in waiting:
                keep(block, future.result())
    return boxes, mask


def _search_block(
    images: np.ndarray, numbers: np.ndarray, diversity: Diversity, most: int, seed: int
) -> list[np.ndarray]:
    return [
        search(image, diversity, seed=(seed, int(number)))[:most]
        for image, number in zip(images, numbers, strict=True)
    ]


def segment(picture: np.ndarray, scale: float) -> np.ndarray:
    """Returns the region of each pixel, int (H, W) from 0, of a picture (H, W, C) from 0 to 1."""
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(
        picture, scale=scale, sigma=_SMOOTHING, min_size=round(scale), channel_axis=-1
    )


def describe(picture: np.ndarray, labels: np.ndarray, texture: np.ndarray) -> Regions:
    """Returns the regions of a picture.

    Args:
        picture: float64 (H, W, C) from 0 to 1.
        labels: int (H, W), the region of each pixel.
        texture: int (H, W, E), the bin of each derivative, one of ten.
    """
    from scipy import ndimage

    count = int(labels.max()) + 1
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count).astype(np.float64)
    boxes = np.array(
        [[y.start, x.start, y.stop, x.stop] for y, x in ndimage.find_objects(labels + 1)], float
    )
    bins = np.minimum((picture * _COLOUR_BINS).astype(int), _COLOUR_BINS - 1)
    pairs = np.concatenate(
        [
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1),
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1),
        ]
    )
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1)
    return Regions(
        sizes,
        boxes,
        _histograms(flat, bins, _COLOUR_BINS, count),
        _histograms(flat, texture, _TEXTURE_BINS, count),
        np.unique(pairs, axis=0),
    )


def merge(regions: Regions, similarities: Sequence[str] = SIMILARITIES) -> np.ndarray:
    """Merges the most similar neighbours until one region is left.

    The similarities are those of the paper, from 0 to 1 each, and they are added: the intersection
    of the histograms of colour and of texture; size, 1 minus the share of the picture that both
    cover; fill, 1 minus the share of the picture in the box around both that neither covers. The
    histograms of a merged region are the means of both, weighted by their sizes. Of equal
    similarities the pair with the lower numbers goes first; merged regions have the numbers from R
    on.

    Args:
        regions: the R regions.
        similarities: names in `SIMILARITIES`.

    Returns:
        The boxes of the first regions and of the merged ones, float64 (2 R - 1, 4), in order. A
        picture's regions are connected, so that the last one is the whole picture.
    """
    first = len(regions.sizes)
    total = 2 * first - 1
    area = regions.sizes.sum()
    sizes, boxes = np.zeros(total), np.zeros((total, 4))
    colour, texture = (
        np.zeros((total, part.shape[1])) for part in (regions.colour, regions.texture)
    )
    for whole, part in (
        (sizes, regions.sizes),
        (boxes, regions.boxes),
        (colour, regions.colour),
        (texture, regions.texture),
    ):
        whole[:first] = part
    # One table, so that both intersections are one pass where both are wanted.
    wanted = [
        table for name, table in (("colour", colour), ("texture", texture)) if name in similarities
    ]
    size_weight, fill_weight = "size" in similarities, "fill" in similarities

    def similarity(a: np.ndarray | int, b: np.ndarray) -> np.ndarray:
        value = np.zeros(len(b))
        for table in wanted:
            value += np.minimum(table[a], table[b]).sum(-1)
        both = sizes[a] + sizes[b]
        if size_weight:
            value += 1 - both / area
        if fill_weight:
            sides = np.maximum(boxes[a][..., 2:], boxes[b][..., 2:]) - np.minimum(
                boxes[a][..., :2], boxes[b][..., :2]
            )
            value += 1 - (sides.prod(-1) - both) / area
        return value

    neighbours: list[set[int]] = [set() for _ in range(total)]
    for a, b in regions.pairs.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    pairs = regions.pairs
    heap = [
        (-value, a, b)
        for value, (a, b) in zip(
            similarity(pairs[:, 0], pairs[:, 1]).tolist(), pairs.tolist(), strict=True
        )
    ]
    heapq.heapify(heap)
    alive = np.ones(total, bool)
    new = first
    while heap:
        _, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        alive[a] = alive[b] = False
        sizes[new] = sizes[a] + sizes[b]
        boxes[new, :2] = np.minimum(boxes[a, :2], boxes[b, :2])
        boxes[new, 2:] = np.maximum(boxes[a, 2:], boxes[b, 2:])
        for table in wanted:
            table[new] = (sizes[a] * table[a] + sizes[b] * table[b]) / sizes[new]
        around = (neighbours[a] | neighbours[b]) - {a, b}
        neighbours[new] = around
        for one in around:
            neighbours[one] -= {a, b}
            neighbours[one].add(new)
        if around:
            others = np.array(sorted(around))
            for value, other in zip(similarity(new, others).tolist(), others.tolist(), strict=True):
                heapq.heappush(heap, (-value, other, new))
        new += 1
    return boxes[:new]


def derivatives(picture: np.ndarray) -> np.ndarray:
    """Returns the bin of each Gaussian derivative, int (H, W, 8 C), in 8 directions per channel.

    As in the paper, only the positive part of the derivative in each of 8 directions counts, as in
    SIFT-like measurements in eight orientations.
    """
    from scipy.ndimage import gaussian_filter

    down, across = (
        np.stack(
            [
                gaussian_filter(picture[..., c], _DERIVATIVE, order=order, mode="nearest")
                for c in range(picture.shape[-1])
            ],
            -1,
        )
        for order in ((1, 0), (0, 1))
    )
    angles = 2 * np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS
    steep = down[..., None] * np.sin(angles) + across[..., None] * np.cos(angles)
    bins = (steep.clip(0) * (_TEXTURE_BINS / _STEEPEST)).astype(int)
    return np.minimum(bins, _TEXTURE_BINS - 1).reshape(*picture.shape[:2], -1)


def _histograms(flat: np.ndarray, bins: np.ndarray, most: int, count: int) -> np.ndarray:
    """Returns histograms (count, channels * most), of sum 1, of the pixels by label `flat`."""
    channels = bins.shape[-1]
    places = (flat[:, None] * channels + np.arange(channels)) * most + bins.reshape(-1, channels)
    counts = np.bincount(places.ravel(), minlength=count * channels * most)
    counts = counts.reshape(count, channels * most).astype(np.float64)
    return counts / counts.sum(1, keepdims=True)
