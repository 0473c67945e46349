"""How drawn examples compare with real ones, against SciPy, scikit-learn and plain loops."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.neighbors import NearestNeighbors

from dlcore.metrics import frechet_distance, generative, mode_scores, nearest, precision_recall

RNG = np.random.default_rng(0)


def test_the_frechet_distance_is_that_by_the_root_of_the_product():
    real = RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, 6))
    drawn = RNG.normal(size=(30, 6)) @ RNG.normal(size=(6, 6)) + 0.5
    first, second = np.cov(real, rowvar=False), np.cov(drawn, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = ((real.mean(0) - drawn.mean(0)) ** 2).sum()
    expected += np.trace(first + second - 2 * root)
    assert frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_without_full_rank():
    real = RNG.normal(size=(5, 8))
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(real, real + 2) == pytest.approx(32)
    # Of other deviations along one axis: (3 - 1)^2 times the variance.
    line = np.outer(np.linspace(-1, 1, 9), [0, 1, 0])
    assert frechet_distance(line, 3 * line) == pytest.approx(4 * line.var(0, ddof=1).sum())
    with pytest.raises(ValueError, match="2 each"):
        frechet_distance(real, real[:1])


@pytest.mark.parametrize("most", [generative._MOST, 50])
def test_precision_and_recall_by_a_loop(monkeypatch, most):
    monkeypatch.setattr(generative, "_MOST", most)
    real, drawn = RNG.normal(size=(23, 2)), 0.5 * RNG.normal(size=(17, 2)) + 0.8

    def share(queries, others):
        distances = NearestNeighbors(n_neighbors=4).fit(others).kneighbors(others)[0][:, 3]
        inside = [
            any(np.linalg.norm(q - o) <= d for o, d in zip(others, distances, strict=True))
            for q in queries
        ]
        return np.mean(inside)

    found = precision_recall(real, drawn)
    assert found == pytest.approx((share(drawn, real), share(real, drawn)))
    assert 0 < found.recall < found.precision <= 1
    assert precision_recall(real, real + 100) == (0, 0)
    with pytest.raises(ValueError, match="no 3 neighbours"):
        precision_recall(real[:3], drawn)


@pytest.mark.parametrize("most", [generative._MOST, 50])
def test_the_nearest_is_that_of_scikit_learn(monkeypatch, most):
    monkeypatch.setattr(generative, "_MOST", most)
    queries, others = RNG.normal(size=(13, 3)), RNG.normal(size=(21, 3))
    index, distance = nearest(queries, others)
    expected = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(queries)
    np.testing.assert_array_equal(index, expected[1][:, 0])
    np.testing.assert_allclose(distance, expected[0][:, 0])


def test_planted_modes_are_counted():
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    drawn = np.repeat(centres[:3], [6, 3, 1], axis=0) + [0.0, 2.9]
    drawn = np.concatenate([drawn, [[5, 5], [10, 13.1]]])
    modes, good, divergence = mode_scores(drawn, centres, 1.0)
    assert (modes, good) == (3, 10 / 12)
    shares = np.array([0.6, 0.3, 0.1])
    assert divergence == pytest.approx((shares * np.log(shares / 0.25)).sum())
    assert mode_scores(drawn + 100, centres, 1.0) == (0, 0, pytest.approx(np.log(4)))
