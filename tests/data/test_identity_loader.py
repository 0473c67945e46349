"""Batches of P identities and K pictures."""

import numpy as np
import pytest

from dlcore.data import Arrays, IdentityLoader
from dlcore.errors import InputError

# Identity 0 has 7 pictures, 1 has 4, 2 has 3 and 3 has 1; the split goes to and fro.
LABELS = np.array([0, 1, 2, 0, 1, 0, 2, 0, 1, 0, 3, 0, 2, 1, 0], np.int32)
SPLIT = Arrays({"row": np.arange(15), "label": LABELS})


def batches(steps: int, *, identities: int = 3, pictures: int = 2, seed: int = 0) -> np.ndarray:
    loader = IdentityLoader(SPLIT, LABELS, identities, pictures, seed=seed)
    rows = [loader.batch(step)["row"] for step in range(steps)]
    return np.stack(rows).reshape(steps, identities, pictures)


def test_a_batch_has_different_identities_with_different_pictures() -> None:
    rows = batches(60)
    labels = LABELS[rows]
    assert (labels == labels[..., :1]).all()
    assert all(len({*own}) == 3 for own in labels[..., 0].tolist())
    twice = rows[..., 0] == rows[..., 1]
    assert np.array_equal(twice, labels[..., 0] == 3)
    assert len({*map(tuple, labels[..., 0].tolist())}) > 10
    # Each is left out of an epoch, which is one batch here, as often as the others.
    counts = np.bincount(labels[..., 0].ravel(), minlength=4)
    assert counts.sum() == 180 and counts.min() > 35


def test_no_picture_comes_again_before_the_others() -> None:
    rows = batches(12, identities=4)  # of all identities, so that an epoch is a batch
    labels = LABELS[rows][..., 0]
    for identity, pictures in ((0, 6), (1, 4)):
        own = rows[labels == identity].reshape(-1, pictures)
        assert all(len({*part}) == pictures for part in own.tolist())
        assert len({tuple(part) for part in own.tolist()}) > 1
    assert {*rows[labels == 0].ravel().tolist()} == {*np.flatnonzero(LABELS == 0).tolist()}


def test_an_identity_of_few_pictures_repeats_all_of_them() -> None:
    rows = batches(3, identities=4, pictures=5)
    own = rows[LABELS[rows][..., 0] == 2]
    counts = [np.unique(part, return_counts=True)[1].tolist() for part in own]
    assert all(sorted(part) == [1, 2, 2] for part in counts)
    loader = IdentityLoader(SPLIT, LABELS, 4, 5, seed=0)
    note = "3 of 4 identities have fewer than 5 pictures, and some of these twice or more"
    assert (loader.note() or "").startswith(note)
    assert IdentityLoader(SPLIT, LABELS, 4, 1, seed=0).note() is None


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    assert np.array_equal(batches(5), batches(5))
    assert not np.array_equal(batches(5), batches(5, seed=1))
    loader = IdentityLoader(SPLIT, LABELS, 3, 2, seed=0)
    resumed = [next(it)["row"] for it in [loader.batches(3)] for _ in range(2)]
    assert np.array_equal(np.stack(resumed), batches(5)[3:].reshape(2, 6))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_global_batch(count: int) -> None:
    parts = [
        IdentityLoader(SPLIT, LABELS, 3, 2, seed=0, process_index=index, process_count=count)
        for index in range(count)
    ]
    rows = np.concatenate([part.batch(4)["row"] for part in parts])
    assert np.array_equal(rows, batches(5)[4].ravel())
    assert parts[0].batch(4)["weight"].tolist() == [1] * (6 // count)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="5 identities cannot be drawn from 4; take 4 or fewer"):
        IdentityLoader(SPLIT, LABELS, 5, 2, seed=0)
    with pytest.raises(InputError, match="3 identities with 0 pictures each is not possible"):
        IdentityLoader(SPLIT, LABELS, 3, 0, seed=0)
    with pytest.raises(InputError, match="cannot be shared by 4 processes"):
        IdentityLoader(SPLIT, LABELS, 3, 2, seed=0, process_count=4)
