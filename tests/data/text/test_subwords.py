import numpy as np
import pytest

from dlcore.data.text.subwords import subword_ids
from dlcore.errors import InputError

BIGGEST = (1 << 31) - 1
WORDS = ["where", "of", "a", "Zürich", "世界", "x😀é", "banana", "ÿ", "aaaaaaa", ""]


def fnv(text: str, *, signed: bool = True) -> int:
    """FNV-1a of 32 bits; with the sign that fastText gives to bytes."""
    value = 2166136261
    for byte in text.encode():
        value ^= (byte - 256) % 2**32 if signed and byte > 127 else byte
        value = value * 16777619 % 2**32
    return value


def reference(word: str, shortest: int, longest: int) -> list[str]:
    marked = f"<{word}>"
    grams = [
        marked[start : start + length]
        for start in range(len(marked))
        for length in range(shortest, longest + 1)
        if start + length <= len(marked)
    ]
    if shortest == 1:  # the marks: one n-gram of one character at each end
        ends = [grams.index("<"), len(grams) - 1]
        grams = [gram for place, gram in enumerate(grams) if place not in ends]
    return grams


def test_the_plain_hash_is_that_of_its_authors() -> None:
    # Published values of FNV-1a, 32 bits.
    assert fnv("") == 0x811C9DC5 and fnv("a") == 0xE40C292C and fnv("foobar") == 0xBF9CF968


def test_the_hash_by_hand() -> None:
    """Worked step by step: (h ^ byte) * 16777619 mod 2^32, from h = 2166136261."""

    def hash_of(character: str) -> int:
        return subword_ids([character], shortest=1, longest=1, buckets=BIGGEST).item()

    assert hash_of("a") == 3826002220 % BIGGEST  # the published 0xE40C292C
    # C3 A9, which fastText reads as -61 and -87: first 3321057138, then
    assert hash_of("é") == 1023043777
    assert fnv("é", signed=False) == 513665217
    # < o f >: 957132539, 1660343036, 1686997102, then
    whole = subword_ids(["of"], shortest=4, longest=4, buckets=2_000_000)
    assert whole.tolist() == [[2597164528 % 2_000_000]]


def test_the_n_grams_of_the_paper() -> None:
    # Section 3.2: where with n = 3; the paper's list without the word itself.
    grams = ["<wh", "whe", "her", "ere", "re>"]
    expected = [fnv(gram) % 1000 for gram in grams]
    assert subword_ids(["where"], shortest=3, longest=3, buckets=1000).tolist() == [expected]


@pytest.mark.parametrize("buckets", [1, 97, 2_000_000, BIGGEST])
@pytest.mark.parametrize("lengths", [(3, 6), (1, 3), (2, 2), (5, 20)])
def test_ids_are_the_hashes_in_order(lengths: tuple[int, int], buckets: int) -> None:
    shortest, longest = lengths
    ids = subword_ids(WORDS, shortest=shortest, longest=longest, buckets=buckets)
    assert ids.dtype == np.int32
    expected = [
        [fnv(gram) % buckets for gram in reference(word, shortest, longest)] for word in WORDS
    ]
    assert [[id for id in row if id >= 0] for row in ids.tolist()] == expected
    assert ids.shape == (len(WORDS), max(map(len, expected)))
    # Padding comes last.
    assert [row[: len(kept)] for row, kept in zip(ids.tolist(), expected, strict=True)] == expected


def test_a_word_is_the_same_in_any_company() -> None:
    together = subword_ids(WORDS, buckets=1000)
    for word, row in zip(WORDS, together, strict=True):
        (alone,) = subword_ids([word], buckets=1000)
        assert alone.tolist() == row[: len(alone)].tolist()
        assert (row[len(alone) :] == -1).all()


def test_no_words() -> None:
    assert subword_ids([], buckets=10).shape == (0, 0)
    assert subword_ids(["", "a"], shortest=4, longest=5, buckets=10).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortest": 0}, "sub-words of 0 to 6 characters are not possible"),
        ({"shortest": 7}, "sub-words of 7 to 6 characters are not possible"),
        ({"buckets": 0}, "0 buckets are not possible; give 1 to 2147483647"),
        ({"buckets": 1 << 31}, "2147483648 buckets are not possible"),
    ],
)
def test_options_that_are_not_possible(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        subword_ids(["a"], **{"buckets": 10, **options})
