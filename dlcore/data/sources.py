"""Splits of data sets: examples that can be gathered by index.

Shapes: N examples of a split, n gathered examples, H W C the height, width and channels of an
image.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

# Arrays of one leading axis B, by name.
Batch = dict[str, np.ndarray]
Record = TypeVar("Record")

# Examples that a thread decodes at a time: enough to outweigh the cost of handing them to a
# thread, few enough to share the work evenly.
_CHUNK = 256


class Split(Protocol):
    """N examples, each a dict of arrays of the same names and shapes."""

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> Batch:
        """Gathers the examples at `indices` [n]: each array has the leading axis n."""
        ...

    def subset(self, indices: np.ndarray) -> "Split":
        """Returns a split of the examples at `indices` [n] alone."""
        ...


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A split that is held in memory.

    Attributes:
        arrays: arrays by name, all with the leading axis N.

    Raises:
        ValueError: when the arrays differ in length.

    >>> split = Arrays({"label": np.array([3, 1, 2])})
    >>> len(split), split.gather(np.array([2, 0]))
    (3, {'label': array([2, 3])})
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays of one split must have one length, given {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def gather(self, indices: np.ndarray) -> Batch:
        """Copies the rows at `indices` [n] into arrays of leading axis n."""
        return {name: array.take(indices, axis=0) for name, array in self.arrays.items()}

    def subset(self, indices: np.ndarray) -> "Arrays":
        """Returns a split of copies of the rows at `indices` [n]."""
        return Arrays(self.gather(indices))


@dataclasses.dataclass(frozen=True)
class Records(Generic[Record]):
    """A split that does not fit in memory: stored records are decoded each time they are gathered.

    Attributes:
        source: the N stored records.
        decode: a function that turns one record into the arrays of one example.
    """

    source: Sequence[Record]
    decode: Callable[[Record], Mapping[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, indices: np.ndarray) -> Batch:
        """Decodes the examples at `indices` [n] and stacks them along a leading axis n."""
        examples = [self.decode(self.source[int(index)]) for index in indices]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def subset(self, indices: np.ndarray) -> "Records[Record]":
        """Returns a split of the records at `indices` [n] with the same `decode`."""
        return Records(_Selection(self.source, indices), self.decode)

    def load(self) -> Arrays:
        """Decodes the whole split into memory on all cores."""
        first = self.gather(np.zeros(1, int))
        arrays = {
            name: np.empty((len(self), *array.shape[1:]), array.dtype)
            for name, array in first.items()
        }

        def fill(start: int) -> None:
            chunk = np.arange(start, min(start + _CHUNK, len(self)))
            for name, array in self.gather(chunk).items():
                arrays[name][chunk] = array

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(fill, range(0, len(self), _CHUNK)))
        return Arrays(arrays)


@dataclasses.dataclass(frozen=True)
class _Selection(Sequence[Record]):
    """The records of `source` at `indices` [n], read on demand."""

    source: Sequence[Record]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self.source[int(self.indices[index])]


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set of images by class.

    Attributes:
        name: the name of the data set in logs and errors.
        train: the training split; an example is {"image": uint8 [H, W, C], "label": int32 []}, or
            with a label float32 [K] where images may have several.
        test: the held-out split, of the same form.
        class_names: the name of each label.
        image_shape: (H, W, C) of every image.
        bits: the bits of values in image files with more than 8, see `pictures.bits_of`.
        notes: lines for the log about data that was left out or changed when it was read.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    bits: int = 16
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes; labels run from 0 to one less."""
        return len(self.class_names)
