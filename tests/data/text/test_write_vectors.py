"""What cannot be written is one clear line, and no file is left half-written."""

import errno
import os

import numpy as np
import pytest

from dlcore.data.text import Vectors, read_vectors, write_vectors
from dlcore.errors import InputError

GOOD = Vectors(["a", "b"], np.ones((2, 3), np.float32))


@pytest.mark.parametrize("format", ["word2vec", "word2vec_binary", "glove"])
@pytest.mark.parametrize("word", ["", "two\nlines", " first", "last "])
def test_a_word_that_would_not_come_back(tmp_path, format, word):
    path = tmp_path / "vectors"
    with pytest.raises(InputError, match="cannot be written"):
        write_vectors(path, Vectors(["a", word], GOOD.matrix), format=format)
    assert not [*tmp_path.iterdir()]


def test_spaces_inside_are_for_glove_alone(tmp_path):
    phrase = Vectors(["b", "new york"], GOOD.matrix)  # the first line tells D
    write_vectors(tmp_path / "glove", phrase, format="glove")
    assert read_vectors(tmp_path / "glove").words == phrase.words
    for format in ("word2vec", "word2vec_binary"):
        with pytest.raises(InputError, match="'new york'"):
            write_vectors(tmp_path / "other", phrase, format=format)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite(tmp_path, value):
    matrix = GOOD.matrix.copy()
    matrix[1, 2] = value
    with pytest.raises(InputError, match="'b' is not finite"):
        write_vectors(tmp_path / "vectors", Vectors(["a", "b"], matrix))
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "vectors"
    write_vectors(path, GOOD)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_vectors(path, Vectors(["other"], np.ones((1, 3), np.float32)))
    assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == before


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="cannot write word vectors"):
        write_vectors(tmp_path / "none" / "vectors", GOOD)


def test_packed_files_do_not_know_the_time(tmp_path, monkeypatch):
    for name, now in (("a.gz", 1.0), ("b.gz", 2.0e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_vectors(tmp_path / name, GOOD)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
