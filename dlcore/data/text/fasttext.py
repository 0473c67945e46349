"""Reads the word vectors of a fastText model, its file .bin of version 12, little-endian.

    int32 magic, int32 version
    the options       int32 D, window, epochs, least count, negatives, word n-grams, loss, model,
                      K, shortest and longest n-gram, rate of updates; float64 sampling threshold
    the dictionary    int32 entries, words, labels; int64 tokens, pruned; each entry a word, NUL,
                      int64 count, int8 kind, the words first
    the input matrix  bool quantised; int64 rows, columns; float32 [n + K, D], the words' own
                      vectors and those of the n-grams

The output matrix, which follows, is not read. The vector of a word is the mean of its own vector
and those of its n-grams (`subwords`), as fastText prints it. Shapes: n words, K buckets of n-grams,
D dimensions of a vector.
"""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dlcore.data.text.subwords import subword_ids
from dlcore.data.text.vector_lines import Block
from dlcore.errors import InputError

MAGIC = (793712314).to_bytes(4, "little")
_VERSION = 12
_END = b"</s>"  # the end of a sentence, the one word without n-grams
_BLOCK = 1 << 22  # bytes read at once
_TOGETHER = 1 << 13  # words whose n-grams are found at once


class FastText(NamedTuple):
    """A model without its matrix.

    Attributes:
        words: n words, the most frequent first.
        dimension: D.
        buckets: K.
        shortest: the fewest characters of an n-gram, marks included.
        longest: the most characters of an n-gram; 0 where the model has none.
        start: the offset of the matrix in the file, in bytes.
    """

    words: list[bytes]
    dimension: int
    buckets: int
    shortest: int
    longest: int
    start: int

    def read(
        self, file: io.BufferedReader, keep: set[bytes] | None, limit: int | None
    ) -> Iterator[Block]:
        """Yields one block with the wanted words among the first `limit`."""
        faults: dict[str, str] = {}
        rows, words = [], []
        for row, word in enumerate(self.words[:limit]):
            if keep is not None and word not in keep:
                continue
            try:
                word.decode()
            except UnicodeDecodeError:
                faults[f"word {word.decode(errors='backslashreplace')!r}"] = "not UTF-8"
            else:
                rows.append(row)
                words.append(word)
        sums = np.zeros((len(words), self.dimension), np.float32)
        owners, parts = self._parts(words, np.array(rows, np.int64))
        counts = np.bincount(owners, minlength=len(words))
        # The matrix may be larger than memory: its rows are added where they belong as they come.
        order = np.argsort(parts, kind="stable")
        owners, parts = owners[order], parts[order]
        size = 4 * self.dimension
        together = max(1, _BLOCK // size)
        at = 0
        while at < len(parts):
            first = int(parts[at])
            end = int(np.searchsorted(parts, first + together))
            file.seek(self.start + first * size)
            data = _exactly(file, (int(parts[end - 1]) + 1 - first) * size)
            block = np.frombuffer(data, "<f4").reshape(-1, self.dimension)
            np.add.at(sums, owners[at:end], block[parts[at:end] - first])
            at = end
        vectors = sums / counts[:, None].astype(np.float32)
        finite = np.isfinite(vectors).all(1)
        for place in np.flatnonzero(~finite):
            faults[f"word {words[place].decode()!r}"] = "values that are not finite"
        yield Block([words[place] for place in np.flatnonzero(finite)], vectors[finite], faults)

    def _parts(self, words: list[bytes], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of the matrix that make up the vectors, and the words they belong to."""
        owners, parts = [np.arange(len(words))], [rows]
        for start in range(0, len(words) if self.longest else 0, _TOGETHER):
            some = words[start : start + _TOGETHER]
            ids = subword_ids(
                [word.decode() for word in some],
                shortest=max(self.shortest, 1),
                longest=self.longest,
                buckets=self.buckets,
            )
            real = (ids >= 0) & np.array([[word != _END] for word in some])
            owners.append(start + np.nonzero(real)[0])
            parts.append(len(self.words) + ids[real].astype(np.int64))
        return np.concatenate(owners), np.concatenate(parts)


def open_fasttext(file: io.BufferedReader, name: str) -> FastText:
    """Reads a model up to its matrix.

    Args:
        file: the file, at its beginning.
        name: the name of the file, for errors.

    Raises:
        InputError: for a model that is quantised, of another version, or malformed.
        EOFError: for a file that ends too early.
    """
    _, version = struct.unpack("<4si", _exactly(file, 8))
    if version != _VERSION:
        raise InputError(
            f"{name} is a model of fastText of version {version}, which is not read, {_VERSION} "
            "is; give the .vec file that fastText writes beside it"
        )
    options = struct.unpack("<12id", _exactly(file, 56))
    dimension, buckets, shortest, longest = options[0], options[8], options[9], options[10]
    entries, count, labels, _, pruned = struct.unpack("<3i2q", _exactly(file, 28))
    damaged = InputError(f"{name} is a damaged model of fastText; get it again")
    if not (0 < dimension and 0 < count and 0 <= labels and entries == count + labels):
        raise damaged
    words = []
    data, at = b"", 0
    for number in range(entries):
        while (end := data.find(b"\0", at)) < 0 or len(data) < end + 10:
            more = file.read(_BLOCK)
            if not more:
                raise EOFError("the file ends within its words")
            data, at = data[at:] + more, 0
        if number < count:
            words.append(data[at:end])
        at = end + 10  # past NUL, count and kind
    file.seek(file.tell() - len(data) + at)
    quantised, rows, columns = struct.unpack("<?2q", _exactly(file, 17))
    if quantised or pruned >= 0:
        raise InputError(
            f"{name} is a quantised model of fastText (.ftz), which holds no whole vectors; give "
            "the .bin or the .vec file that it was made from"
        )
    grams = buckets if longest > 0 else 0
    if columns != dimension or rows < count + grams or (longest > 0 and buckets < 1):
        raise damaged
    return FastText(words, dimension, buckets, shortest, max(longest, 0), file.tell())


def _exactly(file: io.BufferedReader, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("the file ends too early")
    return data
