"""The formats of word vectors byte by byte, and that gensim reads ours and we read gensim's."""

import gzip
import struct
import types

import numpy as np
import pytest

from dlcore.data.text.vectors import Vectors, read_vectors, write_vectors
from dlcore.errors import InputError

FORMATS = ("word2vec", "word2vec_binary", "glove")
# Hard ones: tiny, huge, neighbours, minus zero, and what has a line end or a space in its bytes.
VALUES = [1e-45, 3.4028235e38, -0.0, 0.1, np.nextafter(np.float32(0.1), np.float32(1))]
BYTES = np.frombuffer(b"\n   \x0a\x20\x41\x41", "<f4").tolist()
WORDS = ["the", "Zürich", "北京", "naïve", "🙂", "1,000", "3", "a_b", "\u2028", "x\u00a0y"]


def some() -> Vectors:
    matrix = np.random.default_rng(0).normal(size=(len(WORDS), 7)).astype(np.float32)
    matrix[2] = VALUES + BYTES
    return Vectors(WORDS, matrix)


@pytest.fixture
def keyedvectors() -> types.ModuleType:
    return pytest.importorskip("gensim.models.keyedvectors")


@pytest.mark.parametrize(
    "format, expected",
    [
        ("word2vec", "2 3\nof 0.5 -1.0 0.1\nZürich 1e-45 1.5 -0.0\n".encode()),
        ("glove", "of 0.5 -1.0 0.1\nZürich 1e-45 1.5 -0.0\n".encode()),
        (
            "word2vec_binary",
            b"2 3\nof \x00\x00\x00\x3f\x00\x00\x80\xbf\xcd\xcc\xcc\x3d\n"
            b"Z\xc3\xbcrich \x01\x00\x00\x00\x00\x00\xc0\x3f\x00\x00\x00\x80\n",
        ),
    ],
)
def test_bytes_by_hand(tmp_path, format: str, expected: bytes) -> None:
    matrix = np.array([[0.5, -1, 0.1], [1e-45, 1.5, -0.0]], np.float32)
    write_vectors(tmp_path / "ours", Vectors(["of", "Zürich"], matrix), format=format)
    assert (tmp_path / "ours").read_bytes() == expected
    (tmp_path / "theirs").write_bytes(expected)
    words, read, _ = read_vectors(tmp_path / "theirs")
    assert words == ["of", "Zürich"] and read.tobytes() == matrix.tobytes()


# Without a header gensim reads the file twice and leaves it open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_gensim_reads_ours(tmp_path, keyedvectors, format: str, ending: str) -> None:
    ours, path = some(), tmp_path / f"vectors{ending}"
    write_vectors(path, ours, format=format)
    theirs = keyedvectors.KeyedVectors.load_word2vec_format(
        path, binary=format == "word2vec_binary", no_header=format == "glove"
    )
    assert theirs.index_to_key == ours.words
    assert theirs.vectors.dtype == np.float32
    assert theirs.vectors.tobytes() == ours.matrix.tobytes()


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_we_read_gensims(tmp_path, keyedvectors, format: str, ending: str) -> None:
    given, path = some(), tmp_path / f"vectors{ending}"
    theirs = keyedvectors.KeyedVectors(7)
    theirs.add_vectors(given.words, given.matrix)
    theirs.save_word2vec_format(
        path, binary=format == "word2vec_binary", write_header=format != "glove"
    )
    words, matrix, _ = read_vectors(path)
    assert words == given.words and matrix.tobytes() == given.matrix.tobytes()

    # The same bytes as ours in text; in the binary format word2vec.c ends each vector by a line
    # end, as we do, and gensim does not.
    again = tmp_path / "again"
    write_vectors(again, Vectors(words, matrix), format=format)
    written = gzip.decompress(path.read_bytes()) if ending else path.read_bytes()
    if format != "word2vec_binary":
        assert again.read_bytes() == written
    else:
        vectors = [
            word.encode() + b" " + struct.pack("<7f", *row)
            for word, row in zip(words, matrix.tolist(), strict=True)
        ]
        assert written == b"10 7\n" + b"".join(vectors)
        assert again.read_bytes() == b"10 7\n" + b"".join(vector + b"\n" for vector in vectors)


def test_vectors_that_gensim_trained(tmp_path, keyedvectors) -> None:
    """Words by falling frequency, with their counts, as the models of gensim save them."""
    word2vec = pytest.importorskip("gensim.models.word2vec")
    sentences = [f"w{i} w{i * i % 7} w{i % 3}".split() for i in range(40)]
    model = word2vec.Word2Vec(sentences, vector_size=6, min_count=1, workers=1, epochs=1, seed=1)
    for binary in (False, True):
        model.wv.save_word2vec_format(tmp_path / "vectors", binary=binary)
        words, matrix, _ = read_vectors(tmp_path / "vectors")
        assert words == model.wv.index_to_key
        assert matrix.tobytes() == model.wv.vectors.tobytes()


def test_of_a_repeated_word_gensim_takes_the_first_as_we_do(tmp_path, keyedvectors) -> None:
    given = Vectors(["b", "a", "b"], np.arange(6, dtype=np.float32).reshape(3, 2))
    write_vectors(tmp_path / "vectors", given)
    theirs = keyedvectors.KeyedVectors.load_word2vec_format(tmp_path / "vectors")
    assert (
        theirs["b"].tolist() == [0, 1] and read_vectors(tmp_path / "vectors").words == given.words
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_last_row_is_no_vector(tmp_path, format: str) -> None:
    """A cut within the last number of a text leaves another number, and cannot be seen."""
    path = tmp_path / "vectors"
    write_vectors(path, some(), format=format)
    whole = path.read_bytes()
    word = WORDS[-1].encode()
    last = whole.rindex(word)
    # GloVe's text does not say how many rows there are: a whole row less cannot be seen either.
    for end in range(last + (format == "glove"), last + len(word) + 6):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="vectors, (line|word) "):
            read_vectors(path, strict=True)
        words, _, (note,) = read_vectors(path)
        assert words == some().words[:-1] and "not read as it should be: " in note
