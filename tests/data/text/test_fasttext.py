"""Models of fastText, written here from the format's description."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from dlcore.data.text import fasttext as module
from dlcore.data.text import read_vectors
from dlcore.errors import InputError

WORDS = ["</s>", "the", "Zürich", "a", "banana"]
RNG = np.random.default_rng(0)


def model(
    words=WORDS, labels=(), buckets=11, lengths=(3, 6), matrix=None, version=12, quantised=False,
    pruned=-1, dimension=4,
) -> bytes:  # fmt: skip
    """The bytes of a model and, at their end, of an output matrix that nobody reads."""
    if matrix is None:
        matrix = np.random.default_rng(1).normal(size=(len(words) + buckets, dimension))
    entries = [(word, 0) for word in words] + [(label, 1) for label in labels]
    parts = [
        struct.pack("<ii", 793712314, version),
        # dim ws epoch minCount neg wordNgrams loss model bucket minn maxn lrUpdateRate t
        struct.pack("<12id", dimension, 5, 5, 1, 5, 1, 1, 2, buckets, *lengths, 100, 1e-4),
        struct.pack("<iii", len(entries), len(words), len(labels)),
        struct.pack("<qq", 1234, pruned),
    ]
    for number, (word, kind) in enumerate(entries):
        name = word if isinstance(word, bytes) else word.encode()
        parts.append(name + b"\0" + struct.pack("<qb", 100 - number, kind))
    parts.append(struct.pack("<?qq", quantised, *matrix.shape))
    parts.append(matrix.astype("<f4").tobytes())
    return b"".join(parts) + struct.pack("<?qq", False, 1, 1) + b"\0" * 4


def expected(word: str, matrix: np.ndarray, lengths=(3, 6), buckets=11) -> np.ndarray:
    """The mean of the word's row and those of the n-grams of <word>, hashed byte by byte."""
    rows = [WORDS.index(word)]
    marked = f"<{word}>"
    for start in range(len(marked)):
        for end in range(start + lengths[0], min(start + lengths[1], len(marked)) + 1):
            value = 2166136261
            for byte in marked[start:end].encode():
                value ^= byte if byte < 128 else byte + 0xFFFFFF00  # a signed char, widened
                value = value * 16777619 % 2**32
            if word != "</s>":
                rows.append(len(WORDS) + value % buckets)
    return matrix.astype(np.float32)[rows].astype(np.float64).mean(0)


@pytest.fixture
def file(tmp_path):
    def write(content: bytes) -> pathlib.Path:
        (tmp_path / "model.bin").write_bytes(content)
        return tmp_path / "model.bin"

    return write


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("block", [16, 50, 1 << 22])
def test_words_are_means_of_their_n_grams(file, monkeypatch, pack, block) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_TOGETHER", 2)
    matrix = RNG.normal(size=(16, 4))
    path = file(pack(model(matrix=matrix)))
    found = read_vectors(path, strict=True)
    assert found.words == WORDS and found.notes == () and found.matrix.dtype == np.float32
    np.testing.assert_allclose(found.matrix, [expected(word, matrix) for word in WORDS], rtol=1e-5)
    some = read_vectors(path, wanted={"a", "Zürich", "cat"})
    assert some.words == ["Zürich", "a"]
    np.testing.assert_allclose(some.matrix, found.matrix[2:4], rtol=1e-6)
    assert read_vectors(path, limit=2).words == WORDS[:2]


def test_classifiers_have_words_without_n_grams(file) -> None:
    matrix = RNG.normal(size=(8, 4))  # with rows of pairs of words
    content = model(labels=["__label__a", "__label__b"], buckets=3, lengths=(0, 0), matrix=matrix)
    found = read_vectors(file(content))
    assert found.words == WORDS
    np.testing.assert_array_equal(found.matrix, matrix[:5].astype(np.float32))


def test_words_that_cannot_be_read_are_noted(file) -> None:
    matrix = RNG.normal(size=(16, 4))
    matrix[1] = np.nan
    path = file(model(words=["</s>", "the", b"\xff", "a", "banana"], matrix=matrix))
    found = read_vectors(path)
    assert found.words == ["</s>", "a", "banana"]
    assert found.notes == (
        f"{path}: not read as it should be: word '\\\\xff': not UTF-8; word 'the': values that are "
        "not finite",
    )
    with pytest.raises(InputError, match="word .*: not UTF-8"):
        read_vectors(path, strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model(quantised=True), r"is a quantised model of fastText \(.ftz\), .*; give the .bin"),
        (model(pruned=3), "is a quantised model of fastText"),
        (model(version=11), "of fastText of version 11, which is not read, 12 is; give the .vec"),
        (model(dimension=0, matrix=np.zeros((16, 0))), "is a damaged model of fastText; get it"),
        (model(matrix=np.zeros((9, 4))), "is a damaged model"),
        (model(matrix=np.zeros((16, 5))), "is a damaged model"),
        (model(words=[]), "is a damaged model"),
        (model()[:30], "cannot read word vectors from .*: the file ends too early"),
        (model()[:120], "the file ends within its words"),
        (model()[:-200], "the file ends too early"),
    ],
)
def test_models_that_cannot_be_read_are_named(file, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_vectors(file(content))
    assert "\n" not in str(error.value)
