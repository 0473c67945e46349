"""Pieces by rules of counterpoint: the rules, read again, and the entropy rate, by counting."""

import itertools

import numpy as np
import pytest

from dlcore.data import counterpoint
from dlcore.data.builders import EMBEDDED
from dlcore.data.music import load_music


@pytest.fixture(scope="module")
def pieces():
    return counterpoint.draw(2000, seed=11)


def test_every_chord_and_every_step_keeps_the_rules(pieces):
    for piece in pieces[:300]:
        assert 24 <= len(piece) <= 64
        for bass, tenor, alto, soprano in piece:
            assert (
                40 <= bass <= 60 and 48 <= tenor <= 67 and 55 <= alto <= 74 and 60 <= soprano <= 79
            )
            assert bass < tenor < alto < soprano
            assert tenor - bass <= 19 and alto - tenor <= 12 and soprano - alto <= 12
            classes = {bass % 12, tenor % 12, alto % 12, soprano % 12}
            triads = [{0, 4, 7}, {2, 5, 9}, {4, 7, 11}, {5, 9, 0}, {7, 11, 2}, {9, 0, 4}]
            assert classes in triads
            assert [p % 12 for p in (bass, tenor, alto, soprano)].count(11) < 2
        for before, now in zip(piece[:-1], piece[1:], strict=True):
            moves = now - before
            assert (np.abs(moves) <= [7, 5, 5, 5]).all()
            for low, high in itertools.combinations(range(4), 2):
                perfect = [(chord[high] - chord[low]) % 12 for chord in (before, now)]
                parallel = perfect[0] == perfect[1] and perfect[0] in (0, 7)
                assert not (parallel and moves[low] * moves[high] > 0), (before, now)
            assert (now[:3] <= before[1:]).all() and (now[1:] >= before[:3]).all()


def test_the_entropy_rate_is_that_of_the_pieces(pieces):
    chain = counterpoint.chain()
    number = {tuple(chord): n for n, chord in enumerate(chain.chords.tolist())}
    states = [[number[tuple(chord)] for chord in piece.tolist()] for piece in pieces]
    steps = np.array([pair for piece in states for pair in zip(piece[:-1], piece[1:], strict=True)])
    nats = -np.log(chain.transitions[steps[:, 0], steps[:, 1]])
    error = nats.std() / np.sqrt(len(nats))
    assert nats.mean() == pytest.approx(chain.entropy_rate, abs=4 * error)
    assert chain.entropy_rate == pytest.approx(2.9866, abs=1e-3)
    # By counts of pairs alone, which are too few and so too certain.
    counts = np.zeros_like(chain.transitions)
    np.add.at(counts, (steps[:, 0], steps[:, 1]), 1)
    p = counts / counts.sum(1, keepdims=True).clip(1)
    counted = -(counts[counts > 0] * np.log(p[counts > 0])).sum() / counts.sum()
    assert chain.entropy_rate - 0.1 < counted < chain.entropy_rate


def test_the_chain_stays_in_its_distribution():
    chain = counterpoint.chain()
    np.testing.assert_allclose(chain.transitions.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(chain.stationary @ chain.transitions, chain.stationary, atol=1e-12)
    values = np.linalg.eigvals(chain.transitions)
    # One eigenvalue of 1: there is no other stationary distribution.
    assert (np.abs(values) > 1 - 1e-9).sum() == 1
    harmonies = chain.harmonies
    # V follows itself by 0.15, but where a chord has no way to one of the other harmonies.
    shares = chain.transitions[harmonies == 4][:, harmonies == 4].sum(1)
    assert np.isclose(shares, 0.15).mean() > 0.9 and (shares > 0.1499).all()


def test_the_data_set_is_the_same_always_and_knows_its_entropy(tmp_path):
    assert "counterpoint" in EMBEDDED
    music = load_music(data_dir=tmp_path)
    assert [len(part) for part in (music.train, music.valid, music.test)] == [400, 50, 100]
    assert music.entropy == pytest.approx(counterpoint.chain().entropy_rate)
    expected = {tuple(map(tuple, piece.tolist())) for piece in counterpoint.draw(400, 0)}
    assert {*music.train} == expected and not expected & {*music.test}
