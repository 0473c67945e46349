"""Few labelled examples beside many without labels."""

import numpy as np
import pytest

from dlcore.data import Arrays
from dlcore.data.labelled import Beside, choose_labelled
from dlcore.errors import InputError

LABELS = np.repeat(np.arange(4), [30, 20, 6, 5])
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("count", [4, 10, 19])
def test_classes_have_equal_shares_by_the_seed(count):
    chosen = choose_labelled(LABELS, count, NAMES, seed=0)
    shares = np.bincount(LABELS[chosen], minlength=4)
    assert len(np.unique(chosen)) == count == shares.sum() and np.ptp(shares) <= 1
    np.testing.assert_array_equal(chosen, choose_labelled(LABELS, count, NAMES, seed=0))
    assert not np.array_equal(chosen, choose_labelled(LABELS, count, NAMES, seed=1))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "--labels=0 of 61 training examples"),
        (62, "--labels=62 of 61 .* give 1 to 61"),
        (3, "leaves some of 4 classes without a labelled example"),
        (40, "class 'c' has 6 training examples, and --labels=40 takes 10"),
    ],
)
def test_impossible_counts_are_one_line(count, message):
    with pytest.raises(InputError, match=message):
        choose_labelled(LABELS, count, NAMES, seed=0)


def test_a_class_without_examples_is_named():
    with pytest.raises(InputError, match="class 'e' has 0 training examples"):
        choose_labelled(LABELS, 5, (*NAMES, "e"), seed=0)


def test_batches_have_both_and_no_label_of_the_many():
    many = Arrays({"image": np.arange(61)[:, None], "label": LABELS})
    few = many.subset(np.array([0, 31, 60]))
    stream = Beside(few, many, 8, seed=3)
    taken = stream.batches()
    first, second = next(taken), next(taken)
    assert set(first) == {"labelled", "label", "image", "weight"}
    assert set(np.unique(first["labelled"])) <= {0, 31, 60} and len(first["labelled"]) == 8
    np.testing.assert_array_equal(LABELS[first["labelled"][:, 0]], first["label"])
    assert not set(first["image"][:, 0]) & set(second["image"][:, 0])
    again = next(stream.batches(1))
    for name in second:
        np.testing.assert_array_equal(again[name], second[name])
