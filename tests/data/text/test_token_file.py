import collections
import gzip
import json
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest

from dlcore.data.text import splitting, token_file
from dlcore.data.text.phrases import Phrases
from dlcore.data.text.splitting import Lines
from dlcore.data.text.token_file import SENTENCE_END, build_token_file, open_token_file
from dlcore.errors import InputError


def some_text(seed: int = 0, lines: int = 300) -> str:
    """Lines of Zipf-distributed words of one to four bytes a character, some of them empty."""
    rng = np.random.default_rng(seed)
    words = [
        letters + str(number)
        for number, letters in enumerate(rng.choice(["a", "Zürich", "\u4e16", "\U0001f600x"], 400))
    ]
    ranks = np.minimum(rng.zipf(1.3, (lines, 12)) - 1, 399)
    lengths = rng.integers(0, 13, lines)
    return "".join(
        " ".join(words[rank] for rank in row[:length]) + "\n"
        for row, length in zip(ranks, lengths, strict=True)
    )


def reference(text, split, *, min_count=5, max_words=None, max_sentence=10_000):
    """Words, counts, tokens and the number of words, by Python's own means."""
    lines = [split(line) for line in text.splitlines()]
    counts = collections.Counter(word for line in lines for word in line)
    words = [word for word in counts if counts[word] >= min_count]
    words = sorted(words, key=lambda word: (-counts[word], word))[:max_words]
    tokens = []
    for line in lines:
        kept = [words.index(word) for word in line if word in words]
        for start in range(0, len(kept), max_sentence):
            tokens += [*kept[start : start + max_sentence], SENTENCE_END]
    return words, [counts[word] for word in words], tokens, counts.total()


def check(found, expected) -> None:
    words, counts, tokens, raw_words = expected
    assert found.words == tuple(words) and found.counts.tolist() == counts
    assert found.counts.dtype == np.int64 and found.tokens.dtype == np.int32
    assert found.tokens.tolist() == tokens and found.raw_words == raw_words
    assert found.size == sum(token != SENTENCE_END for token in tokens)


@pytest.mark.parametrize(
    "options",
    [{}, {"min_count": 1}, {"max_words": 10}, {"max_sentence": 3}, {"max_sentence": 1}],
    ids=str,
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_token_file_is_what_python_counts(text_file, tmp_path, pack, options) -> None:
    text = some_text()
    path = text_file(pack(text.encode()))
    check(build_token_file(path, tmp_path / "t", **options), reference(text, str.split, **options))
    check(open_token_file(tmp_path / "t"), reference(text, str.split, **options))


@pytest.mark.parametrize("chunk", [1, 7])
@pytest.mark.parametrize("max_sentence", [4, 10_000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_blocks_change_nothing(
    text_file, tmp_path, monkeypatch, pack, max_sentence: int, chunk: int
) -> None:
    text = some_text()
    monkeypatch.setattr(splitting, "_BLOCK", 64)
    monkeypatch.setattr(splitting, "_SLOTS", 64)  # few, so that words push each other out
    monkeypatch.setattr(token_file, "_CHUNK", chunk)
    path = text_file(pack(text.encode()))
    found = build_token_file(path, tmp_path / "t", max_sentence=max_sentence)
    check(found, reference(text, str.split, max_sentence=max_sentence))


def test_the_tokens_are_a_memory_map(text_file, tmp_path) -> None:
    found = build_token_file(text_file("a b a\n"), tmp_path / "t", min_count=1)
    assert isinstance(found.tokens, np.memmap) and not found.tokens.flags.writeable
    assert (tmp_path / "t" / "tokens.bin").read_bytes() == np.array([0, 1, 0, -1], "<i4").tobytes()
    assert (tmp_path / "t" / "words.tsv").read_text() == "a\t2\nb\t1\n"


def test_sentences_close_over_rare_words_and_none_is_empty(text_file, tmp_path) -> None:
    path = text_file("\n\none\na b two a\n\nthree\n \nb\nfour")
    found = build_token_file(path, tmp_path / "t", min_count=2)
    assert found.words == ("a", "b")
    assert found.tokens.tolist() == [0, 1, 0, -1, 1, -1]
    assert found.size == 4 and found.raw_words == 8


def test_lines_are_read_anew_for_each_token_file(tmp_path) -> None:
    source = Lines("two texts, 1", lambda: iter(["a b\nc", "a"]))
    found = build_token_file(source, tmp_path / "t", min_count=1)
    assert found.words == ("a", "b", "c")
    assert found.tokens.tolist() == [0, 1, -1, 2, -1, 0, -1]
    # Of the same name, it is not read again.
    again = build_token_file(Lines(source.name, lambda: 1 / 0), tmp_path / "t", min_count=1)
    assert again.tokens.tolist() == found.tokens.tolist()
    other = build_token_file(Lines("other", lambda: ["b"]), tmp_path / "t", min_count=1)
    assert other.words == ("b",)


def test_odd_words_come_back(tmp_path) -> None:
    words = ["a\tb", "c\rd", "e\u2028f", " ", "\udcff", "\0", "1\t2\t3"]
    source = Lines("odd words", lambda: words)
    found = build_token_file(source, tmp_path / "t", min_count=1, splitter="regex:.+")
    assert found.words == tuple(sorted(words)) == open_token_file(tmp_path / "t").words


def test_phrases_are_joined_before_words_are_counted(text_file, tmp_path) -> None:
    path, phrases = (
        text_file("new york is new\nnew york\n"),
        Phrases((frozenset({("new", "york")}),)),
    )
    found = build_token_file(path, tmp_path / "t", min_count=1, phrases=phrases)
    assert found.words == ("new_york", "is", "new") and found.raw_words == 4
    assert found.tokens.tolist() == [0, 1, 2, -1, 0, -1]
    assert build_token_file(path, tmp_path / "t", min_count=1).words == ("new", "york", "is")


def built_again(monkeypatch, *args, **options) -> bool:
    """Whether a token file is built, rather than taken from the directory."""
    called = []
    with monkeypatch.context() as patched:
        patched.setattr(
            token_file, "WordNumbers", lambda: called.append(1) or splitting.WordNumbers()
        )
        build_token_file(*args, **options)
    return bool(called)


def test_the_same_corpus_is_built_once(text_file, tmp_path, monkeypatch) -> None:
    path = text_file("a b a b c\n")
    arguments = (monkeypatch, path, tmp_path / "t")
    assert built_again(*arguments, min_count=1)
    assert not built_again(*arguments, min_count=1)
    for options in (
        {"splitter": "words"},
        {"max_words": 2},
        {"lower": True},
        {"max_sentence": 3},
        {"phrases": Phrases((frozenset(),))},
        {"phrases": Phrases((frozenset({("a", "b")}),))},
        {"min_count": 2},
    ):
        assert built_again(*arguments, **{"min_count": 1, **options})
        assert not built_again(*arguments, **{"min_count": 1, **options})
        assert built_again(*arguments, min_count=1)
    os.utime(path, ns=(1, 1))
    assert built_again(*arguments, min_count=1)
    assert not built_again(*arguments, min_count=1)


def damaged(folder: pathlib.Path) -> dict:
    tokens, words, meta = folder / "tokens.bin", folder / "words.tsv", folder / "meta.json"
    return {
        "no tokens": tokens.unlink,
        "no words": words.unlink,
        "no meta": meta.unlink,
        "short tokens": lambda: os.truncate(tokens, tokens.stat().st_size - 4),
        "short words": lambda: os.truncate(words, words.stat().st_size - 4),
        "other words": lambda: words.write_text(words.read_text().replace("a\t", "z\t")),
        "short meta": lambda: os.truncate(meta, 20),
        "empty meta": lambda: meta.write_text("{}"),
        "old meta": lambda: meta.write_text(
            json.dumps({"request": json.loads(meta.read_text())["request"]})
        ),
    }


@pytest.mark.parametrize("damage", list(damaged(pathlib.Path())))
def test_a_damaged_token_file_is_refused_and_built_again(text_file, tmp_path, damage) -> None:
    path, folder = text_file("a b a\n"), tmp_path / "t"
    whole = build_token_file(path, folder, min_count=1)
    damaged(folder)[damage]()
    with pytest.raises(InputError, match="holds no whole token file: .*; delete it and") as error:
        open_token_file(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    again = build_token_file(path, folder, min_count=1)
    assert again.words == whole.words and again.tokens.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("place", ["searchsorted", "bincount", "insert"])
def test_a_build_that_fails_leaves_what_was_there(text_file, tmp_path, monkeypatch, place) -> None:
    folder = tmp_path / "t"
    build_token_file(text_file("a b a\n"), folder, min_count=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, place, full)
        message = f"cannot write a token file in {folder}: No space left on device; make room"
        with pytest.raises(InputError, match=re.escape(message)):
            build_token_file(text_file("c d c\n"), folder, min_count=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_is_named(text_file) -> None:
    with pytest.raises(InputError, match="cannot write a token file in /dev/null/t: Not a directo"):
        build_token_file(text_file("a\n"), "/dev/null/t", min_count=1)


PACKED = gzip.compress(b"a b c d e f g")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "text has no words; give a text that has some, or a splitter that finds them"),
        (" \n\n\t", "text has no words"),
        (
            "a\nb\nb\n",
            "no word of .*text occurs 5 times, the minimum count; 'b', the most frequent, "
            "occurs 2 times: lower the minimum or give more text",
        ),
        (b"a\nb\n\xff\n", r"line 3 of .*text is not UTF-8 \(byte 0xff\); convert the file"),
        (b"a\n\xe4\xbd", r"line 2 of .*text is not UTF-8 \(byte 0xe4\); convert the file"),
        (gzip.compress(b"a\n\xff"), r"line 2 of .*text is not UTF-8 \(byte 0xff\)"),
        (PACKED[:10] + b"\xff" * 9, "cannot read .*text: Error -3 while decompressing"),
        (PACKED[:-4], "cannot read .*text: Compressed file ended before"),
    ],
    ids=["empty", "blank", "rare", "latin-1", "cut", "packed latin-1", "damaged gzip", "cut gzip"],
)
@pytest.mark.parametrize("block", [2, 1 << 16])
def test_bad_text(text_file, tmp_path, monkeypatch, content, message: str, block: int) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", block)
    with pytest.raises(InputError, match=message) as error:
        build_token_file(text_file(content), tmp_path / "t")
    assert "\n" not in str(error.value)
    assert not any((tmp_path / "t").iterdir())


def test_no_file(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "missing", f"{tmp_path}/*.txt", ""):
        with pytest.raises(InputError, match="there is no file '.*'; give a text file, a folder"):
            build_token_file(source, tmp_path / "t")
    with pytest.raises(InputError, match="empty has no files; add some"):
        build_token_file(tmp_path / "empty", tmp_path / "t")


@pytest.mark.parametrize("option", ["min_count", "max_words", "max_sentence"])
def test_options_that_are_not_possible(text_file, tmp_path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} 0 is not possible; give 1 or more"):
        build_token_file(text_file("a\n"), tmp_path / "t", **{option: 0})


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 1 << 12)
    monkeypatch.setattr(splitting, "_SLOTS", 1 << 8)
    monkeypatch.setattr(token_file, "_CHUNK", 1 << 10)
    text = some_text(lines=500)
    peaks = []
    for times in (5, 50):
        (tmp_path / "text").write_text(text * times)
        tracemalloc.start()
        build_token_file(tmp_path / "text", tmp_path / f"t{times}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(text) * 45 > 600_000 and peaks[1] < peaks[0] + 40_000
