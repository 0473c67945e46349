import gzip
import io
import re
import struct

import numpy as np
import pytest

from dlcore.data.text import vectors as module
from dlcore.data.text.vectors import (
    Vectors,
    check_words,
    embedding_matrix,
    read_vectors,
    write_vectors,
)
from dlcore.errors import InputError

FORMATS = ("glove", "word2vec", "word2vec_binary")
WORDS = ["the", "Zürich", ",", "1,000", "3", "a\u00a0b", "\u2028", "\udcff\udc80x"]


def some(count: int = len(WORDS), dimension: int = 5) -> Vectors:
    words = WORDS + [f"word{number}" for number in range(count - len(WORDS))]
    matrix = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    return Vectors(words[:count], matrix)


def binary(*words: tuple[str, list[float]], end: bytes = b"\n") -> bytes:
    return b"".join(
        word.encode() + b" " + struct.pack(f"<{len(values)}f", *values) + end
        for word, values in words
    )


@pytest.fixture
def file(tmp_path):
    def write(content: bytes):
        path = tmp_path / "vectors"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        b"the 0.5 -1 2e-3\nof 1 2 3\n",
        b"the 0.5 -1 2e-3\nof 1 2 3",
        b"the 0.5 -1 2e-3\r\nof 1 2 3\r\n",
        b"2 3\nthe 0.5 -1 2e-3\nof 1 2 3\n",
        b"2 3\nthe 0.5 -1 2e-3 \nof 1 2 3 \n",  # as word2vec.c writes
        b"the 0.5  -1 2e-3\nof\t1\t2\t3\n",
        b"2 3\n" + binary(("the", [0.5, -1, 2e-3]), ("of", [1, 2, 3])),
        b"2 3\n" + binary(("the", [0.5, -1, 2e-3]), ("of", [1, 2, 3]), end=b""),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_format_shows_in_the_content(file, content, pack) -> None:
    words, matrix, _ = read_vectors(file(pack(content)))
    assert words == ["the", "of"]
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[0.5, -1, 2e-3], [1, 2, 3]], np.float32))
    words, matrix, _ = read_vectors(file(pack(content)), wanted={"of", "for"})
    assert words == ["of"] and matrix.tolist() == [[1, 2, 3]]
    words, matrix, _ = read_vectors(file(pack(content)), wanted={"for"})
    assert words == [] and matrix.shape == (0, 3)


@pytest.mark.parametrize("dimension", [1, 2, 50])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read(tmp_path, format: str, ending: str, dimension: int) -> None:
    path, again = tmp_path / f"vectors{ending}", tmp_path / "again"
    given = some(40, dimension)
    # Numbers whose shortest decimals are hard: tiny, huge, and neighbours.
    given.matrix[:3, 0] = [1e-45, 3.4028235e38, np.nextafter(np.float32(0.1), np.float32(1))]
    write_vectors(path, given, format=format)
    assert path.read_bytes().startswith(b"\x1f\x8b") == (ending == ".gz")
    got = read_vectors(path)
    assert got.words == given.words
    assert got.matrix.tobytes() == given.matrix.tobytes()
    write_vectors(again, got, format=format)
    opened = gzip.open if ending else io.open
    with opened(path, "rb") as content:
        assert again.read_bytes() == content.read()


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_many_blocks(tmp_path, monkeypatch, format: str) -> None:
    given = some(300, 8)
    path = tmp_path / "vectors"
    write_vectors(path, given, format=format)
    monkeypatch.setattr(module, "_BLOCK", 256)
    got = read_vectors(path)
    assert got.words == given.words
    np.testing.assert_array_equal(got.matrix, given.matrix)
    part = read_vectors(path, wanted={*given.words[5::7], "unheard of"})
    assert part.words == given.words[5::7]
    np.testing.assert_array_equal(part.matrix, given.matrix[5::7])


def test_words_may_hold_spaces_in_text(file) -> None:
    path = file(b"a 1 2\n. . . 3 4\nat name@domain.com 5 6\n. 7 8\n")
    words, matrix, _ = read_vectors(path)
    assert words == ["a", ". . .", "at name@domain.com", "."]
    assert matrix.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert read_vectors(path, wanted={". . ."}).words == [". . ."]
    assert read_vectors(path, wanted={"at", "."}).words == ["."]


GOOD = b"the 0.1 0.2\n"
PAIR = binary(("the", [1, 2]), ("of", [3, 4]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: empty"),
        (b"\n" + GOOD, "line 1: empty"),
        (b"the\nof\n", "line 1: expected 1 values, found 0"),
        (b"PK\x03\x04 \x00\x01\x02\n", "line 1: .* is not a finite number"),
        (GOOD * 3 + b"of 0.1\n" + GOOD, "line 4: expected 2 values, found 1"),
        (GOOD + b"of 0.1 0.2 0.3\n", "line 2: expected 2 values, found 3"),
        (GOOD + b"\n" + GOOD, "line 2: expected 2 values, found 0"),
        (GOOD + b" 0.1 0.2\n", "line 2: expected 2 values, found 1"),
        (GOOD + b"of 0.1 0,2\n", "line 2: '0,2' is not a finite number"),
        (GOOD + b"of nan 0.2\n", "line 2: 'nan' is not a finite number"),
        (GOOD + b"of 1e39 0.2\n", "line 2: '1e39' is not a finite number"),
        # Together these have the right number of values.
        (GOOD + b"of 0.1\nand 0.1 0.2 0.3\n", "line 2: expected 2 values, found 1"),
        (b"2 3\n" + GOOD * 2, "line 2: expected 3 values, found 2"),
        (b"3 2\n" + GOOD + b"of x 1\n" + GOOD, "line 3: 'x' is not a finite number"),
        (b"3 2\n" + GOOD * 2, "line 1: 3 vectors, but 2 lines follow"),
        (b"1 2\n" + GOOD * 2, "line 1: 1 vectors, but 2 lines follow"),
        (b"5 2\n", "line 1: 5 vectors, but 0 lines follow"),
        (b"0 2\n", "line 1: 0 vectors of 2 values"),
        (b"2 0\nthe\nof\n", "line 1: 2 vectors of 0 values"),
        (b"2 2\n" + PAIR[:-2], "word 2: the file ends here, it should hold 2"),
        (b"2 2\n" + PAIR[:-10], "word 2: the file ends here, it should hold 2"),
        (b"2 2\n" + PAIR[:5], "word 1: the file ends here, it should hold 2"),
        (b"1 2\n" + PAIR, "word 2: line 1 says that there are only 1"),
        (b"2 2\n" + binary(("a", [1, 2]), ("b", [np.inf, 1])), "word 'b': values .* not finite"),
    ],
)
def test_files_at_fault_are_named_with_the_place(file, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_vectors(file(content), strict=True)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(file(content)))


@pytest.mark.parametrize(
    ("content", "words", "note"),
    [
        (b"5 2\n" + GOOD + b"of 1 2\n", ["the", "of"], "line 1: 5 vectors, but 2 lines follow"),
        (b"1 2\n" + GOOD + b"of 1 2\n", ["the", "of"], "line 1: 1 vectors, but 2 lines follow"),
        (GOOD + b"of 1\nand 1 2\n", ["the", "and"], "line 2: expected 2 values, found 1"),
        (b"of 1\n" + GOOD + b"and 1 2\n", ["the", "and"], "line 1: expected 2 values, found 1"),
        (b"3 2\n" + GOOD + b"of 1 x\nand 1 2\n", ["the", "and"], "line 3: 'x' is not a finite"),
        (b"2 2\n" + GOOD + b"of 1 2\n\n", ["the", "of"], "line 4: expected 2 values, found 0"),
        (b"\n \n" + GOOD, ["the"], None),
        (b"\xef\xbb\xbf" + GOOD, ["the"], None),
        (b"\xef\xbb\xbf1 2\n" + GOOD, ["the"], None),
        (b"2\t2\r\n" + GOOD + b"of\t1\t2\r\n", ["the", "of"], None),
        (GOOD + b"  1 2\n   3 4\n", ["the", " ", "  "], None),
        (GOOD + b" 1 2\n", ["the"], "line 2: expected 2 values, found 1"),
        (b"2 2\n" + GOOD + b"\xffx\x80 1 2\n", ["the", "\udcffx\udc80"], None),
        (b"2 2\n\xffx 1 2\n" + GOOD, ["\udcffx", "the"], None),
        (b"2 2\n\x01x 1 2\n" + GOOD, ["\x01x", "the"], None),
        (b"5 2\n" + PAIR, ["the", "of"], "word 3: the file ends here, it should hold 5"),
        (b"1 2\n" + PAIR, ["the", "of"], "word 2: line 1 says that there are only 1"),
        (b"2 2\n" + PAIR[:-3], ["the"], "word 2: the file ends here, it should hold 2"),
        (
            b"2 2\n" + binary(("a", [np.nan, 2]), ("b", [3, 4])),
            ["b"],
            "word 'a': values that are not finite",
        ),
        (
            GOOD + b"x 1\n" * 9,
            ["the"],
            "line 2: expected 2 values, found 1; line 3: expected 2 values, found 1; line 4: "
            "expected 2 values, found 1; and 6 more",
        ),
    ],
)
@pytest.mark.parametrize("block", [16, 1 << 22])
def test_what_can_be_read_is_read(
    file, monkeypatch, content: bytes, words: list[str], note: str | None, block: int
) -> None:
    if b"x 1\n" * 9 in content:
        content = content.replace(GOOD, GOOD * 11, 1)
        words, note = words * 11, note and re.sub(r"line (\d)", r"line 1\1", note)
    path = file(content)
    if block > 16 or b"\x00" not in content:
        monkeypatch.setattr(module, "_BLOCK", block)
    found = read_vectors(path)
    assert found.words == words and len(found.matrix) == len(words)
    if "the" in words and b"\x00" not in content:
        assert found.matrix[words.index("the")].tolist() == [np.float32(0.1), np.float32(0.2)]
    if note is None:
        assert found.notes == ()
    else:
        assert found.notes[0].startswith(f"{path}: not read as it should be: {note}")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("limit", [1, 7, 40, 99])
def test_the_first_vectors_alone(tmp_path, monkeypatch, format: str, limit: int) -> None:
    given = some(40, 3)
    write_vectors(tmp_path / "v", given, format=format)
    for block in (64, 1 << 22):
        monkeypatch.setattr(module, "_BLOCK", block)
        found = read_vectors(tmp_path / "v", limit=limit, strict=True)
        assert found.words == given.words[:limit] and found.notes == ()
        np.testing.assert_array_equal(found.matrix, given.matrix[:limit])
        wanted = {given.words[0], given.words[20]}
        found = read_vectors(tmp_path / "v", limit=limit, wanted=wanted)
        assert found.words == [word for word in given.words[:limit] if word in wanted]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"It is a text of words alone.\nAnother line it has.\n", "line 1: "),
        (b"5 3\nIt is a text.\nAnother line.\n", "line 2: "),
    ],
)
def test_other_files_are_named(file, content: bytes, message: str) -> None:
    for strict in (False, True):
        with pytest.raises(InputError, match=message) as error:
            read_vectors(file(content), strict=strict)
        assert "\n" not in str(error.value)


def test_a_damaged_or_missing_file_is_named(tmp_path, file) -> None:
    packed = gzip.compress(GOOD * 1000)
    for path in (file(packed[: len(packed) // 2]), tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="cannot read word vectors from .*") as error:
            read_vectors(path)
        assert str(path) in str(error.value)


def test_unwanted_lines_are_not_kept_in_memory(tmp_path, monkeypatch) -> None:
    import tracemalloc

    given = some(3000, 100)
    for format in FORMATS:
        write_vectors(tmp_path / "vectors", given, format=format)
        monkeypatch.setattr(module, "_BLOCK", 1 << 14)
        tracemalloc.start()
        read_vectors(tmp_path / "vectors", wanted={"word5"})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < given.matrix.nbytes / 4


@pytest.mark.parametrize(
    ("format", "word"),
    [("glove", ""), ("word2vec", "a\nb"), ("glove", "a "), ("word2vec_binary", "a b")],
)
def test_words_that_a_format_cannot_hold(tmp_path, format: str, word: str) -> None:
    with pytest.raises(ValueError, match="cannot be written in the format"):
        write_vectors(tmp_path / "v", Vectors([word], np.ones((1, 2), np.float32)), format=format)


@pytest.mark.parametrize("word", ["new york", " york", "york\n"])
def test_a_format_is_offered_only_where_it_holds_the_word(word: str) -> None:
    with pytest.raises(InputError) as error:
        check_words([word], "word2vec")
    offered = "choose the format glove" in str(error.value)
    if offered:
        check_words([word], "glove")
    assert offered == (word == "new york")


def test_an_unknown_format(tmp_path) -> None:
    with pytest.raises(InputError, match="unknown format of word vectors 'fasttext'; choose one"):
        write_vectors(tmp_path / "v", some(), format="fasttext")


def test_an_embedding_holds_the_vectors_of_its_tokens() -> None:
    given = Vectors(["b", "a", "b"], np.array([[1, -1], [3, 5], [9, 9]], np.float32))
    matrix, found = embedding_matrix(given, ["<unk>", "a", "b", "c"], seed=0)
    assert matrix.dtype == np.float32 and matrix.shape == (4, 2) and found == 2
    assert matrix[1:3].tolist() == [[3, 5], [1, -1]]  # of two vectors of b the first
    again, _ = embedding_matrix(given, ["<unk>", "a", "b", "c"], seed=0)
    other, _ = embedding_matrix(given, ["<unk>", "a", "b", "c"], seed=1)
    np.testing.assert_array_equal(again, matrix)
    assert (other[[0, 3]] != matrix[[0, 3]]).all() and (other[1:3] == matrix[1:3]).all()


def test_missing_words_are_drawn_with_the_deviation_of_the_found() -> None:
    given = Vectors(["a"], np.array([[0.2, -0.2] * 50], np.float32))
    matrix, _ = embedding_matrix(given, ["a", *(f"missing{i}" for i in range(400))], seed=0)
    noise = matrix[1:]
    assert noise.size == 40_000
    # Six standard errors of a mean and of a deviation.
    assert abs(noise.mean()) < 6 * 0.2 / 200
    assert abs(noise.std() - 0.2) < 6 * 0.2 / np.sqrt(2) / 200


def test_vectors_of_another_language_are_refused() -> None:
    with pytest.raises(InputError, match="none of the 2 tokens has one of the 8 word vectors"):
        embedding_matrix(some(), ["<unk>", "rien"], seed=0)
