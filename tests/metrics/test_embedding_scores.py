"""Verification, identification, retrieval and few-shot accuracy against loops and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score, roc_curve

from dlcore.errors import InputError
from dlcore.metrics import (
    decisions,
    distance_matrix,
    few_shot_accuracy,
    identification,
    open_set,
    pair_distances,
    retrieval,
    roc,
    threshold_at,
    verification_pairs,
)

RNG = np.random.default_rng(0)
LABELS = np.repeat([7, 2, 5, 9, 4], [4, 3, 5, 1, 3])
X = RNG.normal(size=(5, 3))[np.repeat(np.arange(5), [4, 3, 5, 1, 3])] + RNG.normal(size=(16, 3))
X[3] = X[0]  # twice the same
SCIPY = {"cosine": "cosine", "l1": "cityblock", "l2": "euclidean", "squared_l2": "sqeuclidean"}


@pytest.mark.parametrize("name", SCIPY)
def test_distances_are_scipys(name):
    expected = cdist(X, X[:7], SCIPY[name])
    np.testing.assert_allclose(distance_matrix(name, X, X[:7]), expected, atol=1e-12)
    first, second = RNG.integers(0, len(X), (2, 3000))
    expected = cdist(X, X, SCIPY[name])[first, second]
    np.testing.assert_allclose(pair_distances(name, X, first, second), expected, atol=1e-12)


def test_vectors_of_zeros_and_equal_ones():
    zero = np.zeros((1, 3))
    assert distance_matrix("cosine", zero, X[:1]) == 1
    far = X[:1] * 1e3 + 1e3
    assert distance_matrix("l2", far, far) == 0
    assert len(pair_distances("l2", X, *np.zeros((2, 0), int))) == 0


def test_unknown_distance():
    for function in (
        lambda: distance_matrix("l3", X, X),
        lambda: pair_distances("l3", X, *np.zeros((2, 1), int)),
    ):
        with pytest.raises(InputError, match="squared_l2"):
            function()


def all_pairs():
    return [*itertools.combinations(range(len(LABELS)), 2)]


def test_all_pairs_of_a_small_split():
    pairs = verification_pairs(LABELS, most=1000)
    found = {(int(a), int(b)): bool(same) for a, b, same in zip(*pairs, strict=True)}
    assert found == {(a, b): LABELS[a] == LABELS[b] for a, b in all_pairs()}


def test_some_pairs_of_each_kind():
    first, second, same = verification_pairs(LABELS, most=15, seed=1)
    assert same.sum() == 15 and (~same).sum() == 15
    assert ((LABELS[first] == LABELS[second]) == same).all() and (first < second).all()
    assert len({*zip(first, second, strict=True)}) == 30
    again = verification_pairs(LABELS, most=15, seed=1)
    other = verification_pairs(LABELS, most=15, seed=2)
    assert (again.first == first).all() and not (other.first == first).all()


@pytest.fixture(params=["distinct", "ties"])
def scored(request):
    """Distances of pairs, and which are of one identity."""
    same = RNG.random(200) < 0.3
    distances = RNG.normal(size=200) + ~same
    return (np.round(distances) if request.param == "ties" else distances), same


def test_the_curve_is_scikit_learns(scored):
    distances, same = scored
    curve = roc(distances, same)
    false, true, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_accept, false)
    np.testing.assert_allclose(curve.true_accept, true)
    np.testing.assert_allclose(curve.thresholds, -thresholds)
    assert curve.auc == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)


def test_equal_error_rate(scored):
    """Along the curve of straight lines, followed in small steps."""
    curve = roc(*scored)
    steps = np.linspace(0, len(curve.thresholds) - 1, 200_001)
    false, true = (
        np.interp(steps, np.arange(len(rates)), rates)
        for rates in (curve.false_accept, curve.true_accept)
    )
    expected = false[np.argmin(np.abs(false - (1 - true)))]
    assert curve.equal_error_rate == pytest.approx(expected, abs=1e-3)


def test_rates_of_extremes():
    perfect = roc(np.array([1.0, 2, 3, 4]), np.array([True, True, False, False]))
    assert (perfect.auc, perfect.equal_error_rate) == (1, 0)
    collapsed = roc(np.zeros(9), np.arange(9) < 3)
    assert (collapsed.auc, collapsed.equal_error_rate) == (0.5, 0.5)
    wrong = roc(np.array([1.0, 2]), np.array([False, True]))
    assert (wrong.auc, wrong.equal_error_rate) == (0, 1)
    alone = roc(np.array([1.0, 2]), np.array([True, True]))
    assert math.isnan(alone.auc) and math.isnan(alone.equal_error_rate)


@pytest.mark.parametrize("rate", [0, 0.01, 0.1, 0.25, 1])
def test_the_threshold_is_the_largest_of_its_rate(scored, rate):
    distances, same = scored
    threshold = threshold_at(distances, same, rate)
    accepted = [d for d, s in zip(distances, same, strict=True) if not s and d <= threshold]
    assert len(accepted) <= rate * (~same).sum() + 1e-9
    larger = sorted(d for d, s in zip(distances, same, strict=True) if not s and d > threshold)
    if larger:
        assert sum(d <= larger[0] for d in distances[~same]) > rate * (~same).sum()


def test_decisions(scored):
    distances, same = scored
    found = decisions(distances, same, 0.5)
    right = [(d <= 0.5) == s for d, s in zip(distances, same, strict=True)]
    assert found.accuracy.value == np.mean(right)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    curve = roc(distances, same)
    last = np.searchsorted(curve.thresholds, 0.5, side="right") - 1
    assert found.false_accept.value == pytest.approx(curve.false_accept[last])
    assert found.true_accept.value == pytest.approx(curve.true_accept[last])


def plain_ranks(distances, gallery, probes):
    """The nearest distance and the rank of the own identity of each probe, by loops."""
    ranks, nearest = {}, {}
    for probe, row in enumerate(distances):
        persons = {p: min(row[gallery == p]) for p in gallery}
        nearest[probe] = min(persons.values())
        if (own := probes[probe]) in persons:
            ranks[probe] = 1 + sum(p != own and d <= persons[own] for p, d in persons.items())
    return ranks, nearest


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("rate", [0, 0.3])
def test_identification(rounded, rate):
    gallery, probes = RNG.integers(0, 6, 14), RNG.integers(0, 9, 60)
    distances = RNG.random((60, 14)) + (gallery != probes[:, None])
    distances = np.round(distances, 1) if rounded else distances
    ranks, nearest = plain_ranks(distances, gallery, probes)
    found = identification(distances, gallery, probes, false_alarm_rate=rate)
    assert found.ranks.tolist() == [*ranks.values()]
    for k in (1, 3):
        assert found.top(k).value == np.mean([rank <= k for rank in ranks.values()])
    strangers = [d for probe, d in nearest.items() if probe not in ranks]
    assert np.mean([d <= found.threshold for d in strangers]) <= rate
    expected = [rank == 1 and nearest[probe] <= found.threshold for probe, rank in ranks.items()]
    assert found.detected.value == np.mean(expected) > 0


def test_identification_without_strangers_or_known_ones():
    distances = np.array([[0.1, 0.4]])
    known = identification(distances, np.array([1, 2]), np.array([1]))
    assert known.top(1).value == 1 and math.isnan(known.detected.value)
    unknown = identification(distances, np.array([1, 2]), np.array([3]))
    assert not len(unknown.ranks) and math.isnan(unknown.top(1).value)


def test_a_collapsed_encoder_recognises_nobody():
    assert identification(np.zeros((3, 2)), np.array([0, 1]), np.array([0, 1, 5])).top(1).value == 0
    x = np.ones((len(LABELS), 2))
    assert retrieval(x, LABELS, distance="l2")[:2] == (0, pytest.approx(0, abs=0.2))
    assert few_shot_accuracy(x, LABELS, distance="l2", ways=2, episodes=9).value == 0


def test_an_open_set_has_known_probes_and_strangers():
    gallery, probes = open_set(LABELS, seed=3)
    assert len({*LABELS[gallery]}) == len(gallery) == 2 and 9 not in LABELS[gallery]
    assert sorted([*gallery, *probes]) == [*range(len(LABELS))]
    known = np.isin(LABELS[probes], LABELS[gallery])
    assert known.any() and not known.all()


def plain_retrieval(distances):
    """Precision at 1 and MAP@R by the definition, ties in the worst order."""
    first, average = [], []
    for query, label in enumerate(LABELS):
        others = [n for n in range(len(LABELS)) if n != query]
        order = sorted(others, key=lambda n: (distances[query, n], LABELS[n] == label))
        relevant = [LABELS[n] == label for n in order]
        if total := sum(relevant):
            first.append(relevant[0])
            precisions = [
                sum(relevant[: i + 1]) / (i + 1) if relevant[i] else 0 for i in range(total)
            ]
            average.append(sum(precisions) / total)
    return np.mean(first), np.mean(average)


@pytest.mark.parametrize("rounded", [False, True])
def test_retrieval(rounded):
    x = np.round(X) if rounded else X
    found = retrieval(x, LABELS, distance="l1")
    expected = plain_retrieval(np.abs(x[:, None] - x[None]).sum(-1))
    assert found[:2] == pytest.approx(expected, abs=1e-12)
    assert found.left_out == 1
    assert 0 < found.map_at_r < 1
    alone = retrieval(X[:2], np.array([0, 1]), distance="l1")
    assert math.isnan(alone.precision_at_1) and alone.left_out == 2


def test_few_shot_accuracy_is_the_chance_of_the_nearest_being_right():
    """One way to lay out episodes: all of them, weighed by how often they are drawn."""
    x, labels = X[:7], LABELS[:7]  # two identities of four and of three
    a, b = np.flatnonzero(labels == 7), np.flatnonzero(labels == 2)
    chances = []
    drawn = [itertools.permutations(rows, 2) for rows in (a, b)]
    for (s, q), (t, r) in itertools.product(*drawn):
        right = [
            np.linalg.norm(x[q] - x[s]) < np.linalg.norm(x[q] - x[t]),
            np.linalg.norm(x[r] - x[t]) < np.linalg.norm(x[r] - x[s]),
        ]
        chances.append(np.mean(right))
    found = few_shot_accuracy(x, labels, distance="l2", ways=2, episodes=1500)
    assert found.low < np.mean(chances) < found.high
    assert 0 < found.high - found.low < 0.06


def test_more_shots_and_the_same_episodes_for_all_encoders():
    x = np.repeat(np.eye(5), [4, 3, 5, 1, 3], axis=0)
    options = {"distance": "squared_l2", "ways": 3, "shots": 2, "episodes": 50}
    assert few_shot_accuracy(x, LABELS, **options).value == 1
    found = [few_shot_accuracy(X, LABELS, **options, seed=seed).value for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_episodes_within_a_group():
    labels = np.repeat(np.arange(4), 2)
    groups = np.array(["a"] * 4 + ["b"] * 4)
    # The identities of a group are far from each other; each has a twin in the other group.
    x = np.array([0.0, 0, 9, 9, 0, 0, 9, 9])[:, None]
    options = {"distance": "l2", "ways": 2, "episodes": 40}
    assert few_shot_accuracy(x, labels, groups=groups, **options).value == 1
    assert few_shot_accuracy(x, labels, **options).value < 1


def test_too_few_identities_for_so_many_ways():
    with pytest.raises(InputError, match="5 identities with 2 pictures, there are 4"):
        few_shot_accuracy(X, LABELS, distance="l2", ways=5)
    with pytest.raises(InputError, match="in one group, there are 3"):
        few_shot_accuracy(X, LABELS, distance="l2", ways=4, groups=(LABELS == 7).astype(int))
