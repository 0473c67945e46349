"""Selective search against a plain merging, and what it finds."""

import numpy as np
import pytest

from dlcore import boxes as geometry
from dlcore.data.builders import digit_scenes
from dlcore.errors import InputError
from dlcore.models.detection import selective_search as search


def plain_similarity(a, b, area, names):
    """Of two regions, each (pixels, colour, texture): sets of (y, x) and histograms."""
    (pixels_a, *histograms_a), (pixels_b, *histograms_b) = a, b
    value = 0.0
    for name, one, other in zip(("colour", "texture"), histograms_a, histograms_b, strict=True):
        if name in names:
            value += sum(min(x, y) for x, y in zip(one, other, strict=True))
    union = pixels_a | pixels_b
    if "size" in names:
        value += 1 - len(union) / area
    if "fill" in names:
        y, x = zip(*union, strict=True)
        around = (max(y) - min(y) + 1) * (max(x) - min(x) + 1)
        value += 1 - (around - len(union)) / area
    return value


def plain_merge(labels, regions, names):
    """Looks at all pairs each time; the pixels are sets, so that boxes and sizes are counted."""
    alive = {
        k: ({(int(y), int(x)) for y, x in np.argwhere(labels == k)}, colour, texture)
        for k, (colour, texture) in enumerate(zip(regions.colour, regions.texture, strict=True))
    }
    made = list(alive.values())
    while len(alive) > 1:
        best = None
        for a in alive:
            for b in alive:
                near = any(
                    (y + dy, x + dx) in alive[b][0]
                    for y, x in alive[a][0]
                    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
                )
                if a < b and near:
                    value = round(plain_similarity(alive[a], alive[b], labels.size, names), 9)
                    if best is None or value > best[0]:
                        best = value, a, b
        _, a, b = best
        one, other = alive.pop(a), alive.pop(b)
        count, more = len(one[0]), len(other[0])
        mixed = [
            (count * x + more * y) / (count + more) for x, y in zip(one[1:], other[1:], strict=True)
        ]
        alive[len(made)] = (one[0] | other[0], *mixed)
        made.append(alive[len(made)])
    return [
        (min(y), min(x), max(y) + 1, max(x) + 1)
        for y, x in (zip(*pixels, strict=True) for pixels, *_ in made)
    ]


@pytest.mark.parametrize(
    "names",
    [("colour",), ("texture",), ("size",), ("fill",), search.SIMILARITIES],
    ids=lambda names: "+".join(names),
)
def test_merging_is_that_of_looking_at_all_pairs(names):
    rng = np.random.default_rng(0)
    # Voronoi cells, which are connected.
    places = np.stack(np.indices((14, 17)), -1)
    middles = rng.uniform([0, 0], [14, 17], (9, 2))
    labels = np.square(places[:, :, None] - middles).sum(-1).argmin(-1)
    _, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(14, 17)
    picture = rng.random((14, 17, 3)) * 0.3 + rng.random((9, 3))[labels] * 0.7
    regions = search.describe(picture, labels, search.derivatives(picture))
    found = search.merge(regions, names)
    np.testing.assert_array_equal(found, plain_merge(labels, regions, names))
    assert found[-1].tolist() == [0, 0, 14, 17]


def test_histograms_of_regions_are_those_of_their_pixels():
    rng = np.random.default_rng(1)
    picture, labels = rng.random((6, 8, 2)), rng.integers(0, 3, (6, 8))
    texture = rng.integers(0, 10, (6, 8, 4))
    regions = search.describe(picture, labels, texture)
    for k in range(3):
        pixels = picture[labels == k]
        counts = [np.histogram(pixels[:, c], 25, (0, 1))[0] for c in range(2)]
        np.testing.assert_allclose(regions.colour[k], np.concatenate(counts) / pixels.size)
        bins = [np.bincount(texture[labels == k][:, e], minlength=10) for e in range(4)]
        np.testing.assert_allclose(regions.texture[k], np.concatenate(bins) / (4 * len(pixels)))


def test_texture_of_a_ramp_has_one_direction():
    # Ten bins reach up to a slope of 1 / 2; the directions go round from x.
    ramp = np.broadcast_to(0.12 * np.arange(21)[:, None, None], (21, 9, 1))
    assert search.derivatives(ramp)[10, 4].tolist() == [0, 1, 2, 1, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def drawn():
    return [digit_scenes.draw_scene("test", index) for index in range(24)]


def test_the_fast_search_finds_95_percent_of_the_digits(drawn):
    best = []
    for number, scene in enumerate(drawn):
        found = search.search(scene.image, seed=number)
        assert found.dtype == np.float32 and len(np.unique(found, axis=0)) == len(found)
        assert (found[:, :2] < found[:, 2:]).all() and (0 <= found).all() and (found <= 96).all()
        if len(scene.boxes):
            best += geometry.pairwise(geometry.iou, scene.boxes, found).max(1).tolist()
    assert len(best) > 40 and np.mean(np.array(best) >= 0.5) >= 0.95


def test_the_order_is_that_of_the_seed_and_the_candidates_are_not(drawn):
    one, same, other = (search.search(drawn[0].image, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(np.unique(one, axis=0), np.unique(other, axis=0))
    # The whole picture is on top of each hierarchy; its value is below 1, that of few others is.
    assert 0 <= one.tolist().index([0, 0, 96, 96]) < len(one) // 4


@pytest.mark.slow
def test_a_set_is_searched_alike_by_one_process_and_by_several(drawn, monkeypatch):
    images = np.stack([scene.image for scene in drawn[:5]])
    diversity = search.MODES["single"]
    one = search.search_all(images.__getitem__, 5, diversity, most=9)
    monkeypatch.setattr(search, "BLOCK", 2)
    several = search.search_all(images.__getitem__, 5, diversity, most=9)
    for a, b in zip(one, several, strict=True):
        np.testing.assert_array_equal(a, b)
    boxes, mask = one
    assert boxes.shape == (5, 9, 4) and mask.any(1).all() and (boxes[~mask] == 0).all()
    np.testing.assert_array_equal(
        boxes[3, mask[3]], search.search(images[3], diversity, seed=(0, 3))[:9]
    )


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (5, 4, 1), (12, 12, 4)])
def test_small_grey_and_transparent_pictures_have_candidates(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = search.search(image)
    assert [0, 0, shape[0], shape[1]] in found.tolist()
    assert search.search(np.zeros(shape, np.uint8)).tolist() == [[0, 0, shape[0], shape[1]]]


def test_what_is_no_picture_or_no_search_is_refused():
    with pytest.raises(InputError, match=r"float64 \(4, 4, 3\).*uint8"):
        search.search(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match="colour space 'cmyk'"):
        search.Diversity(("cmyk",), (50,), (("size",),))
    with pytest.raises(InputError, match="similarity 'shape'"):
        search.Diversity(("hsv",), (50,), (("shape",),))
    with pytest.raises(InputError, match="no hierarchy"):
        search.Diversity(("hsv",), (50,), ())
    with pytest.raises(InputError, match="above 0"):
        search.Diversity(("hsv",), (0,), (("size",),))
