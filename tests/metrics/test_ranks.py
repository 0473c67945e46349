"""Ranks in a gallery against sorting by brute force."""

import numpy as np
import pytest

from dlcore.metrics import best_ranks, inner_products, rank_scores, ranks, recall_curve

RNG = np.random.default_rng(0)


def brute_force(scores, relevant):
    """The rank of the best relevant example: behind all others that are not below it."""
    found = []
    for query, row in enumerate(scores):
        own = {item for one, item in relevant.tolist() if one == query}
        best = max(row[item] for item in own)
        others = [score for item, score in enumerate(row) if item not in own]
        found.append(1 + sum(not score < best for score in others))
    return found


@pytest.mark.parametrize("block", [1, 4, 7, 30])
def test_ranks_are_those_of_brute_force_in_blocks_of_any_size(block):
    scores = RNG.integers(0, 12, (30, 17)).astype(float)  # many ties
    pairs = {(query, int(RNG.integers(17))) for query in range(30) for _ in range(3)}
    relevant = RNG.permutation(np.array(sorted(pairs)))
    blocks = (scores[start : start + block] for start in range(0, 30, block))
    assert best_ranks(blocks, relevant, 30).tolist() == brute_force(scores, relevant)


def test_a_model_that_maps_all_to_one_point_or_to_nan_finds_nothing():
    relevant = np.stack([np.arange(5), np.arange(5)], 1)
    for scores in (np.zeros((5, 5)), np.full((5, 5), np.nan)):
        assert best_ranks([scores], relevant, 5).tolist() == [5] * 5


def test_a_query_must_look_for_something_and_have_scores():
    with pytest.raises(ValueError, match="look for something"):
        best_ranks([np.zeros((2, 2))], np.array([[0, 1]]), 2)
    with pytest.raises(ValueError, match="look for something"):
        best_ranks([np.zeros((1, 2))], np.array([[0, 1], [1, 1]]), 1)
    with pytest.raises(ValueError, match="scores of 1 queries"):
        best_ranks([np.zeros((1, 2))], np.array([[0, 1], [1, 0]]), 2)


def test_inner_products_come_in_blocks_of_little_memory(monkeypatch):
    monkeypatch.setattr(ranks, "_SCORES", 20)
    x, y = RNG.normal(size=(9, 3)).astype(np.float32), RNG.normal(size=(7, 3)).astype(np.float32)
    blocks = [*inner_products(x, y)]
    assert [len(block) for block in blocks] == [2, 2, 2, 2, 1]
    np.testing.assert_allclose(np.concatenate(blocks), x.astype(float) @ y.T.astype(float))
    assert [len(block) for block in inner_products(x, np.repeat(y, 9, 0))] == [1] * 9


def test_scores_of_ranks():
    found = rank_scores(np.array([1, 1, 3, 5, 6, 10, 11, 90]))
    assert found == {
        "recall_at_1": 2 / 8, "recall_at_5": 4 / 8, "recall_at_10": 6 / 8, "median_rank": 5.5,
    }  # fmt: skip
    places, recalls = recall_curve(np.array([1, 1, 3]), 4)
    assert places.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(recalls, [2 / 3, 2 / 3, 1, 1])
