"""Problems of algorithms, beside the same rules written as loops."""

import math

import numpy as np
import pytest

from dlcore.data.algorithms import (
    ALGORITHMS,
    AssociativeRecall,
    Copy,
    DynamicNgrams,
    PrioritySort,
    RepeatCopy,
    Sort,
    draw_batch,
    draw_split,
    padded,
    read_problem,
)
from dlcore.errors import InputError

SHORT = {name: kind(bits=2) for name, kind in ALGORITHMS.items() if name != "dynamic_ngrams"}
SHORT["dynamic_ngrams"] = DynamicNgrams()
NAMES = sorted(ALGORITHMS)


def rows(array):
    """Steps as texts of their numbers."""
    return [" ".join(f"{number:g}" for number in step) for step in array]


def answer(algorithm, text):
    encoded = algorithm.encode(algorithm.read(text))
    assert (encoded.target[encoded.mask == 0] == 0).all()
    return rows(encoded.input), rows(encoded.target[encoded.mask == 1])


def test_copies_of_a_hand_worked_problem():
    given, right = answer(Copy(2), "01 11")
    assert given == ["0 1 0", "1 1 0", "0 0 1", "0 0 0", "0 0 0"] and right == ["0 1", "1 1"]
    given, right = answer(RepeatCopy(2, repeats=3), "01 11 x2")
    assert given == ["0 1 0 0", "1 1 0 0", "0 0 1 0"] + ["0 0 0 0"] * 5
    assert right == ["0 1 0", "1 1 0", "0 1 0", "1 1 0", "0 0 1"]
    # 1, 2 and 3 have the deviation sqrt(2/3).
    three = RepeatCopy(2, repeats=3).encode((np.ones((1, 2)), 3)).input
    assert three[1, 3] == pytest.approx(math.sqrt(1.5))
    assert answer(RepeatCopy(1, repeats=1), "1 x1")[1] == ["1 0", "0 1"]


def test_sorts_of_a_hand_worked_problem():
    assert answer(Sort(3), "110 011 111 000")[1] == ["0 0 0", "0 1 1", "1 1 0", "1 1 1"]
    given, right = answer(PrioritySort(2), "01:0.5 11:-0.25 00:1")
    assert given[:4] == ["0 1 0.5 0", "1 1 -0.25 0", "0 0 1 0", "0 0 0 1"]
    assert right == ["0 0", "0 1", "1 1"] and len(given) == 7
    # Four of five are given out, and 16 of 20.
    assert answer(PrioritySort(1), "1:1 0:0.5 1:0 1:-1 0:-0.5")[1] == ["1", "0", "1", "0"]
    assert PrioritySort().steps(20) == 20 + 1 + 16


def test_recall_of_a_hand_worked_problem():
    given, right = answer(AssociativeRecall(1), "1 0 1, 0 0 1, 1 1 1 ? 0 0 1")
    assert right == ["1", "1", "1"]
    asked = ["0 0 1", "0 0 0", "0 0 0", "1 0 0", "0 0 1"]
    assert given[:5] == ["0 1 0", "1 0 0", "0 0 0", "1 0 0", "0 1 0"] and given[12:17] == asked
    assert given[17:] == ["0 0 0"] * 3


def test_numbers_of_a_sort_are_sorted():
    algorithm = Sort(5)
    vectors = algorithm.draw(30, np.random.default_rng(0))
    powers = 2 ** np.arange(4, -1, -1)
    found = algorithm.encode(vectors).target[-30:] @ powers
    np.testing.assert_array_equal(found, np.sort(vectors @ powers))


def test_the_best_predictor_of_ngrams_counts():
    algorithm, bits = DynamicNgrams(), "000000100000011"
    counts, needed = {}, 0.0
    for place in range(5, len(bits)):
        ones, zeros = counts.setdefault(bits[place - 5 : place], [0, 0])
        right = (ones if bits[place] == "1" else zeros) + 0.5
        needed -= math.log2(right / (ones + zeros + 1))
        counts[bits[place - 5 : place]][bits[place] == "0"] += 1
    problem = algorithm.read(bits)
    assert algorithm.best(problem) == pytest.approx(needed)
    given, right = answer(algorithm, bits)
    assert given == [*bits[:-1]] and right == [*bits[5:]]


def test_ngrams_follow_their_table_and_no_predictor_beats_the_best():
    algorithm, rng = DynamicNgrams(), np.random.default_rng(0)
    problems = [algorithm.draw(200, rng) for _ in range(200)]
    best = np.mean([algorithm.best(problem) for problem in problems])
    # Of a known table 1 / ln 2 - 1 = 0.557 bits a step are needed in the mean, for log p is
    # integrated over Beta(1/2, 1/2); of a table to be learned half log2(n) for each context more.
    assert 195 * 0.557 < best < 195 * 0.557 + 32 * 0.5 * math.log2(195 / 32) + 32
    long = algorithm.draw(40_000, np.random.default_rng(1)).astype(int)
    contexts = np.convolve(long, 2 ** np.arange(5))[4:-5]
    shares = [long[5:][contexts == c].mean() for c in range(32) if (contexts == c).sum() > 300]
    assert np.std(shares) > 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_is_that_of_its_number(name):
    algorithm = SHORT[name]
    lengths = algorithm.lengths(algorithm.shortest + 3)
    whole = draw_batch(algorithm, lengths, range(6), key=(0, 7))
    part = draw_batch(algorithm, lengths, range(3, 6), key=(0, 7))
    for key in whole:
        np.testing.assert_array_equal(whole[key][3:], part[key])
    other = draw_batch(algorithm, lengths, range(6), key=(0, 8))
    assert not np.array_equal(whole["input"], other["input"])
    assert whole["input"].shape == (6, algorithm.steps(lengths[-1]), algorithm.inputs)
    assert whole["target"].shape == (6, algorithm.steps(lengths[-1]), algorithm.outputs)
    assert {*whole["length"]} <= {*lengths} and (whole["mask"].sum(1) > 0).all()
    split = draw_split(algorithm, lengths, 6, key=(0, 7))
    assert split.arrays["length"].tolist() == ([*lengths] * 6)[:6]
    more = draw_split(algorithm, lengths, 9, key=(0, 7))
    np.testing.assert_array_equal(split.arrays["input"], more.arrays["input"][:6])


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_problem_has_the_steps_that_are_padded_to(name):
    algorithm = SHORT[name]
    for length in (algorithm.shortest, algorithm.shortest + 4):
        rng = np.random.default_rng(0)
        drawn = [algorithm.encode(algorithm.draw(length, rng)) for _ in range(30)]
        assert max(len(one.input) for one in drawn) == algorithm.steps(length)


def test_padding_has_no_inputs_and_no_weight():
    algorithm = Copy(2)
    batch = padded(algorithm, [algorithm.read("01"), algorithm.read("11 10")], [1, 2], 8)
    assert batch["mask"].tolist() == [[0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]]
    assert (batch["input"][0, 2:] == 0).all() and (batch["target"][1, 5:] == 0).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("copy", text) for text in ("", "0 11", "012", "02 11", "٠١ 11")),
        *(("sort", text) for text in ("1", "a b")),
        *(
            ("repeat_copy", text)
            for text in ("", "01", "x3", "01 x0", "01 x", "01 3", "01 x9999999")
        ),
        ("associative_recall", "01 11 01, 01 01 01"),
        ("associative_recall", "01 11 01, 01 01 01 ? 01 01 01"),
        ("associative_recall", "01 11 01, 01 01 ? 01 11 01"),
        ("associative_recall", "? 01 11 01"),
        *(("dynamic_ngrams", text) for text in ("01010", "0101012", "")),
        *(
            ("priority_sort", text)
            for text in ("", "01", "01:x", "01:2", "01:nan", "01:1:1", "0:1")
        ),
    ],
)
def test_a_bad_problem_is_one_line(name, text):
    with pytest.raises(
        InputError, match="input 3, .* is not a problem of this task; write"
    ) as error:
        read_problem(SHORT[name], 3, text)
    assert "\n" not in str(error.value) and "{" not in str(error.value)
