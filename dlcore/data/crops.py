"""Square crops of pictures of any size, for jobs that need pictures without classes.

The pictures come from a folder and the folders within it, or are the photographs that scikit-learn
ships. Where the folder holds `train/` and one of `test/`, `validation/`, `valid/` and `val/`, these
are the parts; else a fixed fifth of the pictures, at most 64, is held out. Of the photographs the
left third is held out.

Shapes: H W height and width of a picture, S side of a crop, B pictures of the global batch.
"""

import concurrent.futures
import functools
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data.image_folder import HELD_OUT, TRAIN, FolderReader, shown
from dlcore.data.loader import Loader, process_rows
from dlcore.data.pictures import (
    FORMATS,
    PHOTOGRAPHS,
    StoredImage,
    image_suffixes,
    opened,
    photograph,
    pixels,
    resized,
    upright_size,
)
from dlcore.data.sources import Arrays, Batch, Records
from dlcore.errors import InputError

_SHARE, _MOST_HELD_OUT = 0.2, 64
# Sides of a picture in sides of a crop: a larger picture is stored so, that a crop shows something.
_LARGEST = 2


class CropData(NamedTuple):
    """Pictures to crop.

    Attributes:
        name: the name of the source in logs.
        train: the pictures to train on, {"image": uint8 [H, W, 3]}, each of its own size.
        test: crops of the held-out pictures, {"image": uint8 [S, S, 3]}.
        notes: lines for the log about data that was left out or changed when it was read.
    """

    name: str
    train: Records[StoredImage] | Records[np.ndarray]
    test: Arrays
    notes: tuple[str, ...]


def load_crops(
    data_path: str | os.PathLike[str] | None, size: int, *, in_memory_bytes: int = 2 << 30
) -> CropData:
    """Loads pictures and decodes them into memory if they fit there.

    A picture whose shorter side has more than 2 S pixels is shrunk to 2 S pixels.

    Args:
        data_path: a folder of pictures; None means scikit-learn's photographs.
        size: S.
        in_memory_bytes: the most memory that decoded pictures may take. Beyond that, pictures are
            read each time that they are cropped.

    Raises:
        InputError: when there is no folder, it has no picture to train on or none to hold out, or
            a picture cannot be read.
    """
    if data_path is None:
        whole = [photograph(name) for name in PHOTOGRAPHS]
        third = whole[0].shape[1] // 3
        train = [_shrunk(picture[:, third:], size) for picture in whole]
        test = [_shrunk(picture[:, :third], size) for picture in whole]
        return CropData("photographs", _in_memory(train), _test(test, size), ())
    path = pathlib.Path(data_path).expanduser()
    try:
        parts, notes = _Reader(path).read()
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    sizes = [_stored_size(stored) for stored in (*parts[0], *parts[1])]
    if small := sum(min(one) < size for one in sizes):
        notes += (f"{path}: {small:,} of {len(sizes):,} pictures enlarged to {size} pixels",)
    decode = functools.partial(_decoded, size=size)
    fits = sum(3 * h * w for h, w in (_shrunk_size(one, size) for one in sizes)) <= in_memory_bytes
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        held_out = [*threads.map(decode, parts[1])]
        decoded = [*threads.map(decode, parts[0] if fits else [])]
    looked_at = [*held_out, *decoded]
    counts = Counter(note for _, of_one in looked_at for note in of_one)
    among = f"{len(looked_at):,} pictures" + ("" if fits else " that were looked at")
    notes += tuple(f"{path}: {n:,} of {among} {note}" for note, n in sorted(counts.items()))
    crops = _test([picture for picture, _ in held_out], size)
    if fits:
        return CropData(str(path), _in_memory([picture for picture, _ in decoded]), crops, notes)
    records = Records(parts[0], lambda stored: {"image": decode(stored)[0]})
    return CropData(str(path), records, crops, notes)


class CropLoader(Loader):
    """A loader of batches of random crops: it draws a picture as `Loader` does, and a square of it.

    The side of the square is drawn log-uniformly between S and the picture's shorter side (it is
    the shorter side where that is less than S). Its position is drawn uniformly, and half of the
    crops are mirrored. All this depends only on the seed and the position in the stream of
    examples.

    Args:
        pictures: pictures of any sizes, at least one.
        size: S.
        batch_size: B, over all processes.
        seed: the seed of the order of the pictures and of the crops.
        process_index: the number of this process.
        process_count: the number of processes, which must divide B.

    Raises:
        InputError: as for `Loader`.
    """

    def __init__(
        self,
        pictures: Records[StoredImage] | Records[np.ndarray],
        size: int,
        batch_size: int,
        *,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        super().__init__(
            pictures,
            batch_size,
            seed=seed,
            process_index=process_index,
            process_count=process_count,
        )
        self._size, self._pictures = size, pictures
        self._rows = process_rows(batch_size, process_index, process_count)

    def batch(self, step: int) -> Batch:
        """Returns this process's crops of global batch `step`.

        They are {"image": uint8 [B / P, S, S, 3], "weight": float32 ones [B / P]}.
        """
        chosen, first = self._chosen(step)[self._rows], step * self._batch_size + self._rows.start
        crops = []
        for place, index in enumerate(chosen, first):
            picture = self._pictures.gather(np.array([index]))["image"][0]
            seeds = np.random.SeedSequence([self._seed, place])
            rng = np.random.Generator(np.random.Philox(seeds))
            crops.append(random_crop(picture, self._size, rng))
        return {"image": np.stack(crops), "weight": np.ones(len(crops), np.float32)}


def random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a random square of a picture, mirrored or not, uint8 [S, S, 3]; see `CropLoader`.

    Args:
        picture: uint8 [H, W, 3].
        size: S.
        rng: the generator that draws the square.
    """
    height, width = picture.shape[:2]
    longest = min(height, width)
    least = min(size, longest)
    side = round(least * (longest / least) ** rng.random())
    top, left = (int(rng.integers(0, whole - side + 1)) for whole in (height, width))
    crop = resized(picture[top : top + side, left : left + side], size, size)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def squares(picture: np.ndarray, size: int) -> np.ndarray:
    """Returns the fewest squares that cover a picture, at even distances, uint8 [n, S, S, 3].

    Args:
        picture: uint8 [H, W, 3].
        size: S.

    >>> squares(np.zeros((4, 10, 3), np.uint8), 8).shape
    (3, 8, 8, 3)
    """
    height, width = picture.shape[:2]
    side = min(height, width)
    count = -(-max(height, width) // side)
    places = np.linspace(0, max(height, width) - side, count).round().astype(int)
    tall = height > width
    cut = [picture[p : p + side] if tall else picture[:, p : p + side] for p in places]
    return np.stack([resized(square, size, size) for square in cut])


class _Reader(FolderReader):
    """A reader that lists the pictures of a folder and of the folders within it."""

    def read(self) -> tuple[tuple[list[StoredImage], list[StoredImage]], tuple[str, ...]]:
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder; give a folder of pictures")
        named = {item.name.casefold(): item for item in self.path.iterdir() if item.is_dir()}
        parts = [
            next((named[name] for name in names if name in named), None)
            for names in (TRAIN, HELD_OUT)
        ]
        if parts[0] is not None and parts[1] is not None:
            train, test = (self._pictures(part) for part in parts if part is not None)
            beside = [
                file
                for item in self.visible(self.path)
                if item not in parts
                for file in (self.files(item) if item.is_dir() else [item])
            ]
            self.note(f"left out, beside {parts[0].name}/ and {parts[1].name}/", *beside)
        else:
            found = self._pictures(self.path)
            order = np.random.default_rng(0).permutation(len(found))
            count = min(max(1, round(_SHARE * len(found))), _MOST_HELD_OUT)
            train = [found[i] for i in np.sort(order[count:])]
            test = [found[i] for i in np.sort(order[:count])]
        if not train or not test:
            there = len(train) + len(test)
            raise InputError(
                f"{self.path} has {there or 'no'} picture{'' if there == 1 else 's'} in one of the "
                f"formats {', '.join(FORMATS)}; give a folder with one or more to train on and one "
                "to hold out"
            )
        return (train, test), self.notes()

    def _pictures(self, folder: pathlib.Path) -> list[StoredImage]:
        suffixes, found = image_suffixes(), []
        for file in self.files(folder):
            if file.suffix.lower() in suffixes:
                found.append(StoredImage(file, 0, shown(file)))
            else:
                self.note("left out, no pictures by their names", file)
        return found


def _in_memory(pictures: Sequence[np.ndarray]) -> Records[np.ndarray]:
    return Records(pictures, lambda picture: {"image": picture})


def _test(pictures: Sequence[np.ndarray], size: int) -> Arrays:
    return Arrays({"image": np.concatenate([squares(picture, size) for picture in pictures])})


def _stored_size(stored: StoredImage) -> tuple[int, int]:
    with opened(stored) as image:
        return upright_size(image)


def _decoded(stored: StoredImage, size: int) -> tuple[np.ndarray, list[str]]:
    """Returns a picture as it is kept, and the notes on it."""
    notes: list[str] = []
    with opened(stored) as image:
        picture = pixels(image, channels=3, notes=notes)
    return _shrunk(picture, size), notes


def _shrunk_size(shape: Sequence[int], size: int) -> tuple[int, int]:
    height, width = shape[:2]
    scale = min(1.0, _LARGEST * size / min(height, width))
    return round(height * scale), round(width * scale)


def _shrunk(picture: np.ndarray, size: int) -> np.ndarray:
    return resized(picture, *_shrunk_size(picture.shape, size))
