import gzip
import os
import re

import pytest

from dlcore import patterns
from dlcore.data.text import splitting
from dlcore.data.text.splitting import (
    Lines,
    WordNumbers,
    find_splitter,
    fingerprint,
    in_blocks,
    sentences,
)
from dlcore.errors import InputError


@pytest.mark.parametrize(
    ("splitter", "lower", "words"),
    [
        ("space", False, ["Don't", "stop,", "l’été", "x_1", "-", "'tis", "don't"]),
        ("space", True, ["don't", "stop,", "l’été", "x_1", "-", "'tis", "don't"]),
        ("words", False, ["Don't", "stop", "l’été", "x_1", "tis", "don't"]),
        ("letters", True, ["don", "t", "stop", "l", "été", "x", "tis", "don", "t"]),
        ("regex:[a-z]+", False, ["on", "t", "stop", "l", "t", "x", "tis", "don", "t"]),
        ("regex:(\\w+)'", False, ["Don", "don"]),
        ("regex:[0-9]*", False, ["1"]),
    ],
)
def test_splitters(text_file, splitter: str, lower: bool, words: list[str]) -> None:
    path = text_file("Don't stop, l’été\tx_1 -\r\n\n'tis don't")
    found = list(sentences(path, splitter=splitter, lower=lower))
    assert [word for sentence in found for word in sentence] == words


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        ("comma", "unknown splitter 'comma'; choose one of: letters, regex:PATTERN, space, words"),
        ("regex:(a", r"splitter 'regex:\(a' is not a regular expression: missing \)"),
        ("regex:(a)(b)", "has 2 groups; write all but one as"),
    ],
)
def test_splitters_that_are_not_possible(splitter: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_splitter(splitter)


@pytest.mark.parametrize("pattern", ["(a+)+$", r"(?:\w*)*\s", "((?:a*)*b)", "(?:a+)*!!"])
def test_patterns_that_repeat_repeats_end(pattern: str) -> None:
    assert find_splitter(f"regex:{pattern}")("a" * 40 + "!" + "x" * 100) == []


@pytest.mark.parametrize(
    "pattern", ["(?:a|a)*$", "(?:a|aa)+$", "((?:a|a|a)*)[bx]!", "(?:a|aa)+[!b]a"]
)
def test_patterns_that_never_end_are_refused(text_file, monkeypatch, pattern: str) -> None:
    monkeypatch.setattr(patterns, "_SECONDS", 0.05)
    path = text_file("short\n" + "a" * 40 + "!" + "x" * 100)
    message = (
        r"splitter 'regex:.*' takes more than 0.05 s for the 141 characters 'aaa.*\.\.\.'; write"
    )
    with pytest.raises(InputError, match=message) as error:
        list(sentences(path, splitter=f"regex:{pattern}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+",
        r"[^\W\d_]+",
        r"\S+",
        "(?i)DO",
        r"\b\w",
        "[a-zé]+(?:['’][a-z]+)?",
        r"(\w+)\t",
        "^.|.$",
    ],
)
def test_patterns_mean_what_they_mean_in_python(pattern: str) -> None:
    line = "Don't stop, l’été\tx_1 - 'tis ١٢ день 東京 ﬁn a" + "b" * 1000
    assert find_splitter(f"regex:{pattern}")(line) == re.findall(pattern, line)


@pytest.mark.parametrize("small", [False, True])
def test_a_long_line_is_read_in_parts_at_spaces(text_file, monkeypatch, small: bool) -> None:
    words = [f"word{number}" for number in range(1000)] + ["x" * 1000, "end"]
    path = text_file(" ".join(words) + "\nnext line")
    if small:
        monkeypatch.setattr(splitting, "_BLOCK", 50)
        monkeypatch.setattr(splitting, "_LONGEST_LINE", 200)
    found = list(sentences(path, splitter="space"))
    if not small:
        assert found == [words, ["next", "line"]]
        return
    assert max(len(" ".join(line)) for line in found) <= 250
    assert [word for line in found for word in line][:1000] == words[:1000]
    # A word of more than a whole line is cut where that ends.
    assert "".join("".join(line) for line in found) == "".join(words) + "nextline"


def test_files_are_read_in_order_and_end_a_sentence(text_file, tmp_path) -> None:
    text_file("\ufeffone two", "b.txt")
    text_file("three", "a.txt")
    text_file(gzip.compress(b"four"), "c.txt.gz")
    text_file("hidden", ".d.txt")
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    text_file("five", "sub/deep/e.txt")
    found = list(sentences(tmp_path, splitter="space"))
    assert found == [["three"], ["one", "two"], ["four"]]
    assert list(sentences(f"{tmp_path}/*.txt", splitter="space")) == found[:2]
    assert list(sentences(f"{tmp_path}/**/e.txt", splitter="space")) == [["five"]]


def test_lines_are_texts_of_one_or_more_lines() -> None:
    source = Lines("two texts", lambda: iter(["a B\r\n\nc", "D"]))
    assert list(sentences(source, splitter="regex:.+", lower=True)) == [["a b"], ["c"], ["d"]]


def test_fingerprints_tell_sources_apart(text_file) -> None:
    path = text_file("a")
    first = fingerprint(path)
    assert fingerprint(path) == first == fingerprint(str(path))
    time = path.stat().st_mtime_ns
    os.utime(text_file("bc"), ns=(time, time))
    assert fingerprint(path) != first
    os.utime(text_file("d"), ns=(time + 1, time + 1))
    assert fingerprint(path) != first
    assert fingerprint(Lines("x", list)) != fingerprint(Lines("y", list))


@pytest.mark.parametrize("slots", [1, 8, 1 << 19])
def test_words_are_numbered_by_their_first_appearance(monkeypatch, slots: int) -> None:
    monkeypatch.setattr(splitting, "_SLOTS", slots)
    monkeypatch.setattr(splitting, "_BLOCK", 64)
    lines = [[f"{number * number % 97}" for number in range(row, row + 9)] for row in range(200)]
    numbers = WordNumbers()
    found = [int(number) for block in numbers.blocks(in_blocks(lines)) for number in block]
    plain = [word for line in lines for word in [*line, "\n"]]
    assert numbers.words == list(dict.fromkeys(["\n", *plain]))
    assert [numbers.words[number] for number in found] == plain
