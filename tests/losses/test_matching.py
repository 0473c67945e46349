"""Losses of pictures and texts against plain loops over pairs in float64, and PyTorch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.losses import batch_matches, hardest_hinge, matching_cross_entropy, summed_hinges
from dlcore.train import gradient_step
from dlcore.types import Aux, Mean, TrainState

RNG = np.random.default_rng(0)
N, D = 8, 4


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


PICTURES, TEXTS = unit(RNG.normal(size=(N, D))), unit(RNG.normal(size=(N, D)))
PICTURE_IDS = np.array([0, 1, 2, 2, 3, 4, 5, 6], np.int32)  # one picture twice
TEXT_IDS = np.array([0, 1, 2, 3, 4, 5, 1, 6], np.int32)  # one text of two pictures
WEIGHTS = np.ones(N, np.float32)
WEIGHTS[5] = 0
IDS = PICTURE_IDS, TEXT_IDS, WEIGHTS
LOSSES = {
    "summed": functools.partial(summed_hinges, margin=0.3),
    "hardest": functools.partial(hardest_hinge, margin=0.3),
    "cross_entropy": functools.partial(matching_cross_entropy, scale=5.0),
}


def plain(name, pictures, texts):
    """The losses by loops over anchors and negatives."""
    s = pictures.astype(np.float64) @ texts.astype(np.float64).T
    losses = []
    for a in range(N):
        negatives = [
            n
            for n in range(N)
            if WEIGHTS[a] and WEIGHTS[n]
            and PICTURE_IDS[n] != PICTURE_IDS[a]
            and TEXT_IDS[n] != TEXT_IDS[a]
        ]  # fmt: skip
        total = 0.0
        for scores in (s[a], s[:, a]):
            hinges = [max(0.0, 0.3 - s[a, a] + scores[n]) for n in negatives]
            if name == "summed":
                total += sum(hinges)
            elif name == "hardest":
                total += max(hinges, default=0.0)
            else:
                parts = [math.exp(5 * scores[n]) for n in (a, *negatives)]
                total += -math.log(parts[0] / sum(parts)) / 2
        losses.append(total)
    return np.array(losses)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_plain_loops(name):
    found = jax.jit(lambda x, y: LOSSES[name](batch_matches(x, y, *IDS)))(PICTURES, TEXTS)
    assert found.losses.dtype == jnp.float32
    np.testing.assert_allclose(found.losses, plain(name, PICTURES, TEXTS), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.weights, WEIGHTS)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_plain_loops(name):
    def total(x, y):
        return Mean.of(*LOSSES[name](batch_matches(x, y, *IDS))).total

    gradients = jax.jit(jax.grad(total, (0, 1)))(PICTURES, TEXTS)
    assert not gradients[0][WEIGHTS == 0].any() and not gradients[1][WEIGHTS == 0].any()
    moves = [RNG.normal(size=(N, D)) for _ in range(2)]
    step = 1e-5

    def value(sign):
        moved = [x + sign * step * move for x, move in zip((PICTURES, TEXTS), moves, strict=True)]
        return (plain(name, *moved) * WEIGHTS).sum()

    expected = (value(1) - value(-1)) / (2 * step)
    along = sum(float((g * m).sum()) for g, m in zip(gradients, moves, strict=True))
    assert along == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("alike", [np.zeros(3, np.int32), np.arange(3, dtype=np.int32)])
def test_a_batch_without_negatives_has_no_loss_and_a_gradient_of_0(name, alike):
    """All are texts of one picture, or there is one text for all."""

    def total(x, y):
        ids = np.zeros(3, np.int32), alike, np.ones(3, np.float32)
        found = LOSSES[name](batch_matches(x, y, *ids))
        return found.losses.sum(), found

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(PICTURES[:3], TEXTS[:3])
    np.testing.assert_array_equal(found.losses, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", LOSSES)
def test_embeddings_that_are_all_equal_have_a_finite_gradient(name):
    x = jnp.broadcast_to(PICTURES[:1], (N, D))
    value, gradient = jax.value_and_grad(
        lambda x: LOSSES[name](batch_matches(x, x, *IDS)).losses.sum()
    )(x)
    assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(name):
    def total(x, y, ids):
        return Mean.of(*LOSSES[name](batch_matches(x, y, *ids))).compute()

    real = WEIGHTS > 0
    short = total(PICTURES[real], TEXTS[real], [each[real] for each in IDS])
    np.testing.assert_allclose(total(PICTURES, TEXTS, IDS), short, rtol=1e-6)


def test_cross_entropy_is_pytorch_s():
    torch = pytest.importorskip("torch")
    s = 5 * torch.from_numpy(PICTURES) @ torch.from_numpy(TEXTS).T
    own = torch.arange(N)
    each = [torch.nn.functional.cross_entropy(x, own, reduction="none") for x in (s, s.T)]
    ids = np.arange(N, dtype=np.int32), np.arange(N, dtype=np.int32), np.ones(N, np.float32)
    found = matching_cross_entropy(batch_matches(PICTURES, TEXTS, *ids), scale=5.0)
    np.testing.assert_allclose(found.losses, (sum(each) / 2).numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("pmap", "summed"),
        pytest.param("pmap", "hardest", marks=pytest.mark.slow),
        pytest.param("pmap", "cross_entropy", marks=pytest.mark.slow),
        pytest.param("mesh", "summed", marks=pytest.mark.slow),
        ("mesh", "hardest"),
        ("mesh", "cross_entropy"),
    ],
)
def test_negatives_come_from_all_devices(name, kind):
    """The same step in each layout: the negatives are those of the global batch."""

    def loss(params, model_state, batch, rng):
        del rng
        x, y = (batch[name] @ params[name] for name in ("pictures", "texts"))
        found = LOSSES[name](
            batch_matches(x, y, batch["picture"], batch["caption"], batch["weight"])
        )
        return Mean.of(*found), Aux(model_state, {})

    tx = optax.sgd(0.5)
    batch = {"pictures": PICTURES, "texts": TEXTS, "picture": PICTURE_IDS, "caption": TEXT_IDS,
             "weight": WEIGHTS}  # fmt: skip
    found = {}
    for each in ("jit", kind):
        layout = runtime.layout(each)
        state = layout.initialise(
            lambda: TrainState.create(
                {"params": {side: jnp.eye(D) for side in ("pictures", "texts")}},
                tx,
                jax.random.key(0),
            )
        )
        step = runtime.compile_step(gradient_step(loss, tx), layout)
        for _ in range(2):
            state, metrics = step(state, batch)
        found[each] = jax.device_get((state.params, metrics["loss"].compute()))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        found["jit"],
        found[kind],
    )
