"""RoIAlign and RoI pooling equal torchvision's, and loops over the samples and cells."""

import functools
import math
import pathlib
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.regions import roi_align, roi_pool

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "goldens" / "detection.npz")
ALIGNED = {
    "align": {"samples": 2, "size": (3, 2), "aligned": True},
    "align_edge": {"samples": 3, "size": (2, 2), "aligned": False},
}


@pytest.mark.parametrize("name", [*ALIGNED, "pool"])
def test_equal_torchvision_with_gradients(name):
    x, boxes = GOLDEN[f"regions/{name}/x"], GOLDEN["regions/boxes"]
    pool = roi_pool if name == "pool" else roi_align
    options = ALIGNED.get(name, {"size": (3, 2)})

    @jax.jit
    def both(x, g):
        y, vjp = jax.vjp(lambda x: pool(x, jnp.asarray(boxes), stride=8, **options), x)
        return y, vjp(g)[0]

    y, dx = both(x, GOLDEN[f"regions/{name}/g"])
    np.testing.assert_allclose(y, GOLDEN[f"regions/{name}/y"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, GOLDEN[f"regions/{name}/dx"], rtol=1e-5, atol=1e-5)


def test_pooling_equals_loops_for_any_box_and_size():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 13, 3)).astype(np.float32)
    boxes = rng.uniform(-3, 15, (2, 40, 4)).astype(np.float32)
    boxes[..., 2:] += boxes[..., :2].clip(0)
    for size in ((1, 1), (4, 7)):
        y = jax.jit(lambda x, boxes, size=size: roi_pool(x, boxes, stride=1, size=size))(x, boxes)
        for b in range(2):
            for r, box in enumerate(boxes[b]):
                edges = np.sign(box) * np.floor(np.abs(box) + 0.5)
                top, left, bottom, right = map(int, edges)
                height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
                for p in range(size[0]):
                    for q in range(size[1]):
                        rows, columns = (
                            np.arange(
                                low + math.floor(Fraction(bin * length, bins)),
                                low + math.ceil(Fraction((bin + 1) * length, bins)),
                            )
                            for low, length, bin, bins in (
                                (top, height, p, size[0]), (left, width, q, size[1]),
                            )
                        )  # fmt: skip
                        rows = rows[(rows >= 0) & (rows < 9)]
                        columns = columns[(columns >= 0) & (columns < 13)]
                        cells = x[b][np.ix_(rows, columns)].reshape(-1, 3)
                        expected = cells.max(0) if len(cells) else np.zeros(3)
                        np.testing.assert_array_equal(y[b, r, p, q], expected)


def test_aligned_bins_of_a_plane_have_its_value_at_their_middle():
    """Bilinear samples of a linear function are exact, and so is their mean."""
    rows, columns = np.mgrid[:10, :12] + 0.5
    plane = jnp.asarray(3 * rows - 2 * columns, "float32")[None, :, :, None]
    box = jnp.array([[[8.0, 12, 56, 60]]])
    align = jax.jit(functools.partial(roi_align, stride=8, size=(3, 4)))
    y = align(plane, box)[0, 0, :, :, 0]
    rows, columns = 1 + (np.arange(3) + 0.5) * 6 / 3, 1.5 + (np.arange(4) + 0.5) * 6 / 4
    np.testing.assert_allclose(y, 3 * rows[:, None] - 2 * columns, rtol=1e-5)


def test_no_boxes_and_impossible_sizes():
    x = jnp.zeros((1, 4, 4, 2))
    for pool in (roi_align, roi_pool):
        assert pool(x, jnp.zeros((1, 0, 4)), stride=1).shape == (1, 0, 7, 7, 2)
        with pytest.raises(InputError, match="regions of 0 x 7 bins"):
            pool(x, jnp.zeros((1, 1, 4)), stride=1, size=(0, 7))
