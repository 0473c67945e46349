import collections
import itertools
import math

import numpy as np
import pytest

from dlcore.data.text import phrases as module
from dlcore.data.text.phrases import Phrases, find_phrases, join
from dlcore.errors import InputError


def some_lines(seed: int = 0, count: int = 400) -> list[list[str]]:
    """Random words, among which "new york", "new york times" and "ad hoc" are too frequent."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = [f"w{rank}" for rank in np.minimum(rng.zipf(1.5, rng.integers(1, 15)), 200)]
        for rate, phrase in ((0.1, "new york"), (0.1, "new york times"), (0.04, "ad hoc")):
            if rng.random() < rate:
                place = rng.integers(len(words) + 1)
                words[place:place] = phrase.split()
        lines.append(words)
    return lines


def reference(lines, *, threshold=100.0, delta=5.0, min_count=5) -> set[tuple[str, str]]:
    words = collections.Counter(word for line in lines for word in line)
    pairs = collections.Counter(pair for line in lines for pair in itertools.pairwise(line))
    return {
        (a, b)
        for (a, b), count in pairs.items()
        if count >= min_count
        and (count - delta) * words.total() / (words[a] * words[b]) > threshold
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": 1.5},
        {"threshold": 0.5, "delta": 0.0, "min_count": 1},
        {"threshold": -math.inf, "min_count": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("merge_at", [1, 300, 1 << 22])
def test_phrases_are_those_of_the_equation(monkeypatch, options, merge_at: int) -> None:
    monkeypatch.setattr(module, "_WORDS_PER_MERGE", merge_at)
    monkeypatch.setattr("dlcore.data.text.splitting._BLOCK", 512)
    lines = some_lines()
    (found,) = find_phrases(iter(lines), **options).passes
    expected = reference(lines, **options)
    assert found == expected
    # Fewer than all pairs, more than none.
    assert 0 < len(expected) < len({pair for line in lines for pair in itertools.pairwise(line)})


def test_the_score_by_hand() -> None:
    # count(a b) = 9, count(a) = 10, count(b) = 12, N = 60, delta 5: 4 * 60 / 120 = 2.
    lines = [["a", "b"]] * 9 + [["a"], ["b"], ["b", "b"]] + [["c"]] * 38
    assert sum(map(len, lines)) == 60
    assert find_phrases(lines, threshold=1.999).passes == (frozenset({("a", "b")}),)
    assert find_phrases(lines, threshold=2.0).passes == (frozenset(),)


def test_pairs_end_at_line_ends() -> None:
    assert find_phrases([["a"], ["b"]] * 50, threshold=0, delta=0).passes == (frozenset(),)


@pytest.mark.parametrize(
    ("line", "joined"),
    [
        ("a b", "a_b"),
        ("a b c", "a_b c"),  # b c is a phrase too
        ("b c a b", "b_c a_b"),
        ("a a b a", "a a_b a"),
        ("d d d d d", "d_d d_d d"),
        ("x y", "x y"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_words_are_joined_from_the_left(line: str, joined: str) -> None:
    phrases = Phrases((frozenset({("a", "b"), ("b", "c"), ("d", "d")}),))
    words = line.split()
    assert join(words, phrases) == joined.split()
    assert words == line.split()


def test_more_passes_make_longer_phrases() -> None:
    lines = some_lines()
    once = find_phrases(lines, threshold=20)
    twice = find_phrases(lines, threshold=5, before=once)
    assert once.passes == twice.passes[:1] and len(twice.passes) == 2
    assert twice.passes[1] == reference([join(line, once) for line in lines], threshold=5)
    assert join("the new york times".split(), once) == ["the", "new_york", "times"]
    assert join("the new york times".split(), twice) == ["the", "new_york_times"]


def test_rare_pairs_are_dropped_when_there_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr(module, "_WORDS_PER_MERGE", 200)
    monkeypatch.setattr("dlcore.data.text.splitting._BLOCK", 512)
    sizes = []
    merge = module._Pairs.merge

    def watched(self, other):
        sizes.append(len(self.keys))
        return merge(self, other)

    monkeypatch.setattr(module._Pairs, "merge", watched)
    lines = some_lines()
    (found,) = find_phrases(lines, threshold=1.5, max_pairs=100).passes
    assert len(sizes) > 5 and 0 < max(sizes) <= 100
    # Counts are too low at most, so that nothing is found that is none.
    assert found <= reference(lines, threshold=1.5)
    assert ("new", "york") in found


def test_what_is_dropped_is_counted_anew(monkeypatch) -> None:
    monkeypatch.setattr(module, "_WORDS_PER_MERGE", 1)
    monkeypatch.setattr("dlcore.data.text.splitting._BLOCK", 8)
    options = {"threshold": -math.inf, "min_count": 1}
    # The second line brings five pairs, of which all but x y have occurred once and go.
    lines = [["a", "b", "c", "d"], ["x", "y", "x", "y"], ["a", "b"]]
    assert find_phrases(lines, max_pairs=3, **options).passes[0] == {("x", "y"), ("a", "b")}
    # The fifth brings four, and then those that have occurred twice go too.
    lines += [["p", "q"], ["r", "s"], ["e", "f"]]
    assert find_phrases(lines, max_pairs=3, **options).passes[0] == {("e", "f")}
    assert find_phrases(lines, max_pairs=9, **options).passes[0] == reference(lines, **options)


def test_fingerprints_tell_phrases_apart() -> None:
    a, b = frozenset({("a", "b"), ("c", "d")}), frozenset({("c", "d"), ("a", "b")})
    other = frozenset({("a", "b"), ("c", "e")})
    assert Phrases((a,)).fingerprint == Phrases((b,)).fingerprint
    several = [(a,), (other,), (a, other), (other, a), (a, frozenset()), ()]
    assert len({Phrases(passes).fingerprint for passes in several}) == len(several)


@pytest.mark.parametrize("name", ["max_pairs", "min_count"])
def test_options_that_are_not_possible(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} 0 is not possible; give 1 or more"):
        find_phrases([["a"]], **{name: 0})
