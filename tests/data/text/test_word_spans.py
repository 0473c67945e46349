import hashlib
import random

import numpy as np
import pytest

from dlcore.data.text import splitting
from dlcore.data.text.spans import RULES, Words
from dlcore.data.text.splitting import SPLITTERS

# Letters of one to four bytes, marks, hidden characters, and all that looks like a space.
SIGNS = [
    *"ab'’_-1²東é\u0435\u0301\u0308\u00ad\u200d\ufeff\U0001f600\0",
    *" \t\r\n\v\f\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u3000",
    *"'' \n\nab",
]  # fmt: skip


def sentences(words: Words) -> list[list[str]]:
    found = [words.word(index) for index in range(len(words.starts))]
    ends = words.ends.tolist()
    return [found[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("name", RULES)
def test_places_are_those_of_the_words(name: str) -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(SIGNS, k=rng.randrange(40)))
        lines = [SPLITTERS[name](line) for line in text.replace("\r\n", "\n").split("\n")]
        plain = [words for words in lines if words]
        assert sentences(RULES[name].words(text)) == plain
        assert sentences(Words.of_lists(plain)) == plain


@pytest.mark.parametrize("name", RULES)
def test_every_character_alone_and_between_letters(name: str) -> None:
    signs = [chr(code) for code in range(0x3100) if code != ord("\n")]
    lines = [line for sign in signs for line in (sign, f"a{sign}b")]
    plain = [words for words in map(SPLITTERS[name], lines) if words]
    assert sentences(RULES[name].words("\n".join(lines))) == plain


def test_equal_words_have_equal_hashes_wherever_they_are() -> None:
    words = ["x" * size for size in range(1, 130)] + ["y", "x\0", "x" * 8 + "\0", "x" * 200 + "y"]
    there = Words.of_lists([words]).hashes()
    assert len(set(there.tolist())) == len(words)
    around = Words.of_lists([["é", *words[::-1], "z"]]).hashes()
    assert np.array_equal(around[1:-1][::-1], there)


def test_hashes_use_all_of_their_bits() -> None:
    """Half of the bits differ between words that are alike, and slots are shared evenly."""
    found = Words.of_lists([[f"word{number}" for number in range(1 << 14)]]).hashes()
    bits = np.unpackbits(found.view(np.uint8).reshape(-1, 8), axis=1)
    assert (np.abs(bits.mean(0) - 0.5) < 0.02).all()
    assert (np.abs((bits[1:] != bits[:-1]).mean(0) - 0.5) < 0.06).all()
    counts = np.bincount((found & np.uint64(255)).astype(int), minlength=256)
    assert counts.min() > 30 and counts.max() < 110


def test_words_that_share_a_hash_are_the_only_ones_that_are_confused(monkeypatch) -> None:
    """A slot that was never filled holds a hash of 0, which a word may have as well."""
    monkeypatch.setattr(Words, "hashes", lambda words: np.zeros(len(words.starts), np.uint64))
    numbers = splitting.WordNumbers()
    found = numbers.blocks(splitting.in_blocks([["a", "b"], ["c"]]))
    assert [block.tolist() for block in found] == [[1, 1, 0, 1, 0]]
    assert numbers.words == ["\n", "a"]


def test_long_words_are_hashed_whole() -> None:
    word = "é" * 100
    expected = hashlib.blake2b(word.encode(), digest_size=8).digest()
    assert Words.of_lists([[word]]).hashes().tolist() == [int.from_bytes(expected)]
