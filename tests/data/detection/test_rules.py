"""The rules for boxes with faults, one by one."""

import numpy as np
import pytest

from dlcore.data.detection import objects as rules
from dlcore.data.detection.objects import PictureId, Rules, mirror_pairs, numbers
from dlcore.errors import InputError

GOOD = [0.1, 0.2, 0.5, 0.6]
NAN, INF = float("nan"), float("inf")


def treat(*boxes, **more):
    table = Rules()
    found = table.objects(PictureId(1, "a"), None, boxes, range(len(boxes)), **more)
    return found, {note: count for note, count in table.counts.items() if count}


@pytest.mark.parametrize(
    ("box", "note"),
    [
        ([NAN, 0.2, 0.5, 0.6], rules.NOT_FINITE),
        ([0.1, 0.2, INF, 0.6], rules.NOT_FINITE),
        ([0.5, 0.2, 0.1, 0.6], rules.REVERSED),
        ([0.1, 0.6, 0.5, 0.2], rules.REVERSED),
        ([0.1, 0.2, 0.1, 0.6], rules.NO_AREA),
        ([0.1, 0.2, 0.5, 0.2], rules.NO_AREA),
        ([1.0, 0.2, 1.5, 0.6], rules.OUTSIDE),
        ([0.1, -0.6, 0.5, -0.2], rules.OUTSIDE),
    ],
)
def test_what_is_dropped(box, note):
    found, counts = treat(GOOD, box, GOOD, difficult=[0, 0, 1], crowd=[1, 0, 0])
    assert found.boxes.tolist() == [GOOD, GOOD]
    assert found.labels.tolist() == [0, 2]
    assert found.difficult.tolist() == [False, True] and found.crowd.tolist() == [True, False]
    assert counts == {note: 1}


def test_what_is_clipped():
    found, counts = treat([-0.1, 0.2, 0.5, 1.6])
    assert found.boxes.tolist() == [[0.0, 0.2, 0.5, 1.0]]
    assert counts == {rules.CLIPPED: 1}


def test_rounding_at_the_edge_is_no_fault():
    found, counts = treat([0.0, 0.0, 1.0 + 1e-9, 1.0])
    assert found.boxes.tolist() == [[0.0, 0.0, 1.0, 1.0]] and not counts


def test_counts_become_notes():
    table = Rules()
    table.objects(PictureId(1, "a"), None, [GOOD, [0.5, 0.5, 0.5, 0.6]], [0, 0])
    table.objects(PictureId(2, "b"), None, [[0.7, 0.7, 0.7, 0.7]], [0])
    assert table.notes("here") == ("here: 2 of 3 boxes without area, dropped",)


def test_a_picture_without_an_object_has_arrays_of_none():
    found, counts = treat()
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,) and not counts


def test_landmarks_are_dropped_with_their_box_and_hidden_outside():
    table = Rules(landmarks=2)
    points = np.array([[[0.5, 0.5], [0.2, 0.2]], [[0.5, 1.5], [NAN, 0.2]], [[0.1, 0.3], [1, 1]]])
    mask = np.array([[True, True], [True, True], [True, False]])
    found = table.objects(
        PictureId(1, "a"),
        None,
        [[0.5, 0.5, 0.5, 0.6], GOOD, GOOD],
        [0, 1, 2],
        landmarks=points,
        landmarks_mask=mask,
    )
    assert found.landmarks_mask.tolist() == [[False, False], [True, False]]
    assert found.landmarks[1].tolist() == [[0.1, 0.3], [0, 0]]
    assert np.isfinite(found.landmarks).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["1", "2", "3", "4"], r"the box is \['1', '2', '3', '4'\], not all of which are numbers"),
        ([1, 2, 3], r"the box is \[1, 2, 3\]; it must be 4 numbers"),
        ("1 2 3 4", "the box is '1 2 3 4'; it must be 4 numbers"),
        ([1, 2, 3, None], "not all of which are numbers"),
        ([1, 2, 3, True], "not all of which are numbers"),
        ([1, 2, 3, 10**400], "too many digits"),
        (["x" * 500, 2, 3, 4], r"'xxx.*\.\.\., not all"),
    ],
)
def test_what_is_no_box_is_refused(given, message):
    with pytest.raises(InputError, match=message) as error:
        numbers(given, 4, "the box")
    assert len(str(error.value)) < 200


def test_mirror_images_are_known_by_their_names():
    names = ["nose", "left_eye", "right_eye", "Left Ear", "right ear", "left_toe", "cleft"]
    assert mirror_pairs(names) == ((1, 2), (3, 4))
