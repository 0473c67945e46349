import json
import pathlib
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from dlcore.data.text.vocabulary import LEVELS, Vocabulary
from dlcore.errors import InputError

TEXT = "The cat sat.\nThe dog didn't... it's 'so' x_1\n"
NASTY = "naïve ☃ 日本\r\n\u2028 \x0c\tfoo<unk><eos>\x00\n\n  y 👩‍🚀"


def test_words_are_split_by_the_documented_rule() -> None:
    split = Vocabulary.build(TEXT).split
    assert split(TEXT) == (
        ["The", "cat", "sat", ".", "\n", "The", "dog", "didn't", "...", "it's", "'", "so", "'"]
        + ["x_1", "\n"]
    )
    assert split("the cat 's N <unk> of $ --- a-b\t!?") == (
        ["the", "cat", "'s", "N", "<unk>", "of", "$", "---", "a", "-", "b", "!", "?"]
    )


def test_words_by_hand() -> None:
    vocabulary = Vocabulary.build("b a c a\nb a\nd")
    assert vocabulary.tokens == ("<unk>", "<eos>", "a", "b", "c", "d") and len(vocabulary) == 6
    ids = vocabulary.encode("a x\nd <unk>\n")
    assert ids.dtype == np.int32 and ids.tolist() == [2, 0, 1, 5, 0, 1]
    assert vocabulary.decode(ids) == "a <unk>\nd <unk>\n"


def test_characters_come_back() -> None:
    vocabulary = Vocabulary.build("abab b\n\n", level="char")
    assert vocabulary.tokens == ("<unk>", "<eos>", "b", "\n", "a", " ")
    assert vocabulary.decode(vocabulary.encode("a\nb b\n")) == "a\nb b\n"
    assert vocabulary.encode("z").tolist() == [0] and vocabulary.decode([2, 1, 2]) == "b\nb"


def test_byte_pairs_by_hand() -> None:
    # The pair (a, b) occurs four times, then (space, ab) twice, all others once.
    vocabulary = Vocabulary.build("xab yab ab ab\n", level="bpe", size=300, min_count=2)
    assert vocabulary.merges == (("a", "b"), ("Ġ", "ab")) and len(vocabulary) == 2 + 256 + 2
    assert vocabulary.split("xab ab") == ["x", "ab", "Ġab"]
    assert vocabulary.tokens[2:4] == ("ab", "Ġab")


@pytest.mark.parametrize("text", [NASTY, "", "\n", "no line end", "\n\n a\n", "'s\n"])
def test_byte_pairs_lose_nothing(text: str) -> None:
    vocabulary = Vocabulary.build(TEXT * 20, level="bpe", size=300)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text and ids.dtype == np.int32
    assert not {0, 1} & set(ids.tolist())


def test_byte_pairs_lose_nothing_of_random_text() -> None:
    vocabulary = Vocabulary.build(TEXT * 20, level="bpe", size=300)
    draw = random.Random(0)
    for _ in range(50):
        codes = [draw.choice((draw.randrange(0xD800), draw.randrange(128))) for _ in range(40)]
        text = "".join(map(chr, codes))
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_bytes_that_are_no_character_show_as_such() -> None:
    vocabulary = Vocabulary.build(TEXT, level="bpe", size=258)
    assert vocabulary.decode(vocabulary.encode("é")[:1]) == "\ufffd"
    assert vocabulary.decode([1, *vocabulary.encode("a"), 0]) == "\na<unk>"


@pytest.mark.parametrize("level", LEVELS)
def test_ids_fall_in_frequency(level: str) -> None:
    text = pathlib.Path(__file__).read_text().replace("<unk>", "") * 2
    vocabulary = Vocabulary.build(text, level=level, size=400 if level == "bpe" else None)
    ids = vocabulary.encode(text)
    counts = np.bincount(ids, minlength=len(vocabulary))
    assert counts[0] == 0 and (counts[2:-1] >= counts[3:]).all() and counts[2] > counts[-1]
    if level == "bpe":
        assert vocabulary.decode(ids) == text


def test_size_and_rarity() -> None:
    text = "a a a b b c"
    assert Vocabulary.build(text, size=4).tokens[2:] == ("a", "b")
    assert Vocabulary.build(text, min_count=2).tokens[2:] == ("a", "b")
    assert Vocabulary.build(text, level="char", size=3).tokens[2:] == (" ",)
    assert len(Vocabulary.build(TEXT * 9, level="bpe", size=270)) <= 270


@pytest.mark.parametrize("level", LEVELS)
def test_lower_case(level: str) -> None:
    vocabulary = Vocabulary.build("Aa AA", level=level, lower=True)
    assert np.array_equal(vocabulary.encode("aA"), vocabulary.encode("AA"))
    assert 0 not in vocabulary.encode("AA") and vocabulary.decode(vocabulary.encode("AA")) == "aa"


def test_several_texts_count_as_one() -> None:
    for level in LEVELS:
        parts = Vocabulary.build(["a b\n", "b c\n"], level=level)
        assert parts == Vocabulary.build("a b\nb c\n", level=level)


def test_tokens_that_are_given() -> None:
    vocabulary = Vocabulary.of_tokens(["New York", ",", "New York", "\n"], lower=True)
    assert vocabulary.tokens[2:] == ("new york", ",")
    assert vocabulary.encode_tokens(["NEW YORK", "?", "\n"]).tolist() == [2, 0, 1]
    # A string is a sequence of characters.
    assert Vocabulary.of_tokens("abb", size=3).encode_tokens("ab").tolist() == [0, 2]


@pytest.mark.parametrize("level", LEVELS)
def test_saved_and_loaded(level: str, tmp_path: pathlib.Path) -> None:
    vocabulary = Vocabulary.build(TEXT + NASTY, level=level, lower=True)
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary and loaded.fingerprint == vocabulary.fingerprint
    assert np.array_equal(loaded.encode(TEXT), vocabulary.encode(TEXT))


def test_another_process_builds_the_same() -> None:
    code = (
        "from dlcore.data.text.vocabulary import *\nimport sys\n"
        f"print(*[Vocabulary.build({TEXT!r} * 9, level=x, size=280).fingerprint for x in LEVELS])\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [Vocabulary.build(TEXT * 9, level=level, size=280).fingerprint for level in LEVELS]
    assert done.stdout.split() == here and len(set(here)) == len(LEVELS)


def test_a_vocabulary_that_does_not_match_is_refused() -> None:
    one, other = Vocabulary.build("a b"), Vocabulary.build("a b", lower=True)
    assert one != other and one == Vocabulary.build("b a")
    one.check(Vocabulary.build("b a").fingerprint, owner="the checkpoint")
    with pytest.raises(
        InputError, match=r"word vocabulary of 4 tokens .* the one of the check"
    ) as e:
        one.check(other.fingerprint, owner="the checkpoint")
    assert "\n" not in str(e.value)


def damaged(path: pathlib.Path, case: str) -> None:
    Vocabulary.build(TEXT).save(path)
    content = json.loads(path.read_text())
    match case:
        case "missing":
            path.unlink()
        case "cut":
            path.write_text(path.read_text()[:100])
        case "changed":
            path.write_text(json.dumps({**content, "tokens": content["tokens"][:-1]}))
        case "incomplete":
            del content["level"]
            path.write_text(json.dumps(content))
        case "no fingerprint":
            del content["fingerprint"]
            path.write_text(json.dumps(content))
        case "list":
            path.write_text("[1]")
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "case", ["missing", "cut", "changed", "incomplete", "no fingerprint", "list", "binary"]
)
def test_a_damaged_file_is_one_clear_error(tmp_path: pathlib.Path, case: str) -> None:
    path = tmp_path / "vocabulary.json"
    damaged(path, case)
    expected = "cannot read vocab" if case == "missing" else "json is not a whole vocabulary file; "
    with pytest.raises(InputError, match=expected) as error:
        Vocabulary.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("level", "size", "message"),
    [
        (
            "syllable",
            None,
            "unknown vocabulary level 'syllable'; choose one of: bpe, char, space, word",
        ),
        ("word", 2, "vocabulary size 2 is too small; give 3 or more"),
        ("bpe", 257, "vocabulary size 257 is too small for byte pairs; give 258 or more"),
    ],
)
def test_vocabularies_that_cannot_be(level: str, size: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary.build(TEXT, level=level, size=size)


@pytest.mark.parametrize("level", LEVELS)
def test_counts_that_nothing_reaches_are_refused(level: str) -> None:
    """For each level of each job; the most frequent token, the space, occurs 6 times."""
    with pytest.raises(InputError, match="occurs 99 times.*lower the smallest count") as error:
        Vocabulary.build(TEXT, level=level, min_count=99)
    assert "\n" not in str(error.value)
    assert len(Vocabulary.build(TEXT, level=level, min_count=2)) > 2


def test_counts_of_given_tokens_that_nothing_reaches_are_refused() -> None:
    with pytest.raises(InputError, match="no token occurs 3 times, the most frequent 2 times"):
        Vocabulary.of_tokens(["a", "b", "a"], min_count=3)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_text_in_pieces_is_the_same_text(level: str, lower: bool, monkeypatch) -> None:
    texts = [
        "",
        "\n\n",
        f"{TEXT}ΣΑΣ ΟΔΟΣ\r\nΣ \n  \x85a\ufeff\U0001f600" * 9,
        "word " * 50 + "é" * 60,
    ]
    vocabulary = Vocabulary.build(texts, level=level, size=300, lower=lower)
    ids = [
        vocabulary.encode(text).tolist()
        for text in [*texts, "\ud800?"][: None if level != "bpe" else -1]
    ]
    for piece in (1, 7, 50):
        monkeypatch.setattr("dlcore.data.text.vocabulary._PIECE", piece)
        assert Vocabulary.build(texts, level=level, size=300, lower=lower) == vocabulary
        for text, plain in zip(texts, ids, strict=False):
            found = vocabulary.encode(text)
            assert found.dtype == np.int32 and found.tolist() == plain
    if level != "bpe":
        number = {token: id for id, token in enumerate(vocabulary.tokens)} | {"\n": 1}
        if level == "char":
            number["\n"] = vocabulary.tokens.index("\n")
        assert ids == [
            [number.get(token, 0) for token in vocabulary.split(text)]
            for text in [*texts, "\ud800?"]
        ]


def test_memory_of_ids_does_not_grow_with_the_tokens_as_strings() -> None:
    text = "some words, and others\n" * 250_000
    vocabulary = Vocabulary.build(text[:10_000])
    tracemalloc.start()
    ids = vocabulary.encode(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * ids.nbytes + 40 * 2**20
