"""Losses of embeddings against plain loops over pairs and triplets in float64, and PyTorch."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.losses import (
    DISTANCES,
    PerAnchor,
    arcface,
    batch_pairs,
    contrastive,
    info_nce,
    margin_penalty,
    miner,
    on_unit_sphere,
    pair_cross_entropy,
    prototypical,
    soft_penalty,
    triplet,
)
from dlcore.losses.triplets import log_inverse_density
from dlcore.types import Mean

RNG = np.random.default_rng(0)
D = 3
N = 18  # more than are mined together
X = RNG.normal(size=(N, D)).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
X[2] = -X[0]  # positives with no negative that is farther
# An identity with one example, whose only partner is padding; padding of an identity of its own.
LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 2, 3, 3, 1, 9, 4, 4, 5, 5, 5, 4], np.int32)
WEIGHTS = np.ones(N, np.float32)
WEIGHTS[[9, 11]] = 0
REAL = np.flatnonzero(WEIGHTS)


def np_distance(name, x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    if name == "cosine":
        return 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    if name == "l1":
        return np.abs(x - y).sum()
    square = ((x - y) ** 2).sum()
    return square if name == "squared_l2" else math.sqrt(square)


def partners(anchor):
    """The positives and the negatives of an anchor, by loops."""
    others = [n for n in REAL if n != anchor] if WEIGHTS[anchor] else []
    positives = [n for n in others if LABELS[n] == LABELS[anchor]]
    return positives, [n for n in others if LABELS[n] != LABELS[anchor]]


def d(name, a, n):
    return np_distance(name, X[a], X[n])


def check(found, terms, counted):
    """Compares with the list of terms of each anchor, and the weight that it should have."""
    assert found.losses.dtype == jnp.float32
    for anchor in range(len(X)):
        weight = counted(terms(anchor))
        assert found.weights[anchor] == weight, anchor
        if weight:
            expected = np.mean(terms(anchor))
            np.testing.assert_allclose(found.losses[anchor], expected, rtol=1e-6, atol=1e-6)
    assert np.isfinite(found.losses).all()


def on_pairs(function, distance, *arguments):
    """Runs a loss of pairs in a compiled function, and its gradient, which must be finite."""

    @jax.jit
    def run(x):
        def total(x):
            pairs = batch_pairs(x, LABELS, WEIGHTS, distance=DISTANCES[distance])
            found = function(pairs, *arguments)
            return Mean.of(*found).total, found

        return jax.value_and_grad(total, has_aux=True)(x)

    (_, found), gradient = run(jnp.asarray(X))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    assert not gradient[WEIGHTS == 0].any()
    return found


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_and_gradients_are_safe_where_two_are_equal_or_0(name):
    x = np.concatenate([X[:4], X[:1], np.zeros((1, D), np.float32)])
    found, gradient = jax.jit(
        lambda x: (DISTANCES[name](x, x), jax.grad(lambda x: DISTANCES[name](x, x).sum())(x))
    )(x)
    assert np.isfinite(gradient).all()
    for a in range(5):
        for n in range(5):
            np.testing.assert_allclose(found[a, n], np_distance(name, x[a], x[n]), atol=1e-6)
    assert found[5, 0] == (1 if name == "cosine" else pytest.approx(np_distance(name, x[5], x[0])))


def test_contrastive():
    def halves(a):
        positives, negatives = partners(a)
        if not positives or not negatives:
            return []
        near = np.mean([d("l2", a, n) ** 2 / 2 for n in positives])
        far = np.mean([max(0.8 - d("l2", a, n), 0) ** 2 / 2 for n in negatives])
        return [(near + far) / 2]

    check(on_pairs(functools.partial(contrastive, margin=0.8), "l2"), halves, len)


def test_cross_entropy_of_pairs():
    def halves(a):
        positives, negatives = partners(a)
        if not positives or not negatives:
            return []
        p = {
            n: 1 / (1 + math.exp(2.5 * d("squared_l2", a, n) - 0.7)) for n in positives + negatives
        }
        near = np.mean([-math.log(p[n]) for n in positives])
        far = np.mean([-math.log(1 - p[n]) for n in negatives])
        return [(near + far) / 2]

    def loss(pairs):
        return pair_cross_entropy(pairs, offset=jnp.array(0.7), scale=jnp.array(2.5))

    check(on_pairs(loss, "squared_l2"), halves, len)


def d2(a, n):
    return d("squared_l2", a, n)


def mined(mining, a):
    """The (positive, negative) of an anchor by loops over all triplets."""
    positives, negatives = partners(a)
    triplets = [(p, n) for p in positives for n in negatives]
    if mining == "all" or not triplets:
        return triplets
    if mining == "hard":
        return [max(triplets, key=lambda t: d2(a, t[0]) - d2(a, t[1]))]
    chosen = []
    for p in positives:
        near = min(
            (n for n in negatives if d2(a, n) > d2(a, p)), key=lambda n: d2(a, n), default=None
        )
        far = max(negatives, key=lambda n: d2(a, n))
        chosen.append((p, far if near is None else near))
    return chosen


@pytest.mark.parametrize(
    "mining",
    [
        pytest.param("all", marks=pytest.mark.slow),
        pytest.param("hard", marks=pytest.mark.slow),
        "semi_hard",
    ],
)
def test_mining_against_all_triplets(mining):
    penalties = [margin_penalty(0.3), soft_penalty]
    plain = [lambda x: max(x + 0.3, 0), lambda x: math.log1p(math.exp(x))]

    def both(pairs):
        found = [triplet(pairs, penalty, mine=miner(mining)) for penalty in penalties]
        return PerAnchor(sum(each.losses for each in found), found[0].weights)

    def terms(a):
        gaps = [d2(a, p) - d2(a, n) for p, n in mined(mining, a)]
        return [sum(penalty(gap) for penalty in plain) for gap in gaps]

    check(on_pairs(both, "squared_l2"), terms, len)


def test_some_positives_have_no_farther_negative():
    """Else the rule for them was not tested."""
    assert any(d2(a, n) < d2(a, p) for a in REAL for p, n in mined("semi_hard", a))


def test_distance_weighted_mining_draws_by_the_inverse_density():
    distances = np.array([0.9, 0.1, 0.5, 0.7, 1.0, 1.3, 1.5, 0.2], np.float32)
    positive = np.array([1, 0, 0, 0, 0, 0, 0, 1], bool)
    n = 8
    q = np.maximum(distances, 0.5).astype(np.float64) ** (n - 2)
    q *= (1 - np.maximum(distances, 0.5) ** 2 / 4) ** ((n - 3) / 2)
    np.testing.assert_allclose(
        np.diff(log_inverse_density(distances[:6], n)), np.diff(-np.log(q[:6])), rtol=1e-5
    )
    expected = np.where(~positive & (distances < 1.4), 1 / q, 0)
    distances, positive = jnp.asarray(distances), jnp.asarray(positive)
    keys = jax.random.split(jax.random.key(0), 4000)
    mine = miner("distance_weighted", dimensions=n)
    found = jax.jit(jax.vmap(lambda key: mine(distances, positive, ~positive, key)))(keys)
    assert (np.asarray(found.real) == np.asarray(positive)).all()
    drawn = np.asarray(found.negative)[:, [0, 7]].ravel()
    share = np.array([(drawn == distance).mean() for distance in np.asarray(distances)])
    np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)
    # Where all are far, each is as likely as the others.
    far = jnp.array([0.3, 1.5, 1.6])
    own = jnp.array([True, False, False])
    drawn = jax.jit(jax.vmap(lambda key: mine(far, own, ~own, key)))(keys).negative[:, 0]
    assert abs((drawn == far[1]).mean() - 0.5) < 0.03


def test_distance_weighted_mining_takes_a_near_negative_for_each_positive():
    mine = miner("distance_weighted", dimensions=D)
    loss = functools.partial(triplet, penalty=soft_penalty, mine=mine, key=jax.random.key(3))
    found = on_pairs(loss, "l2")
    for a in range(len(X)):
        positives, negatives = partners(a)
        assert found.weights[a] == (len(positives) if negatives else 0)
        if positives and negatives:
            near = [n for n in negatives if d("l2", a, n) < 1.4] or negatives
            terms = [
                [math.log1p(math.exp(d("l2", a, p) - d("l2", a, n))) for n in near]
                for p in positives
            ]
            possible = [np.mean(drawn) for drawn in itertools.product(*terms)]
            assert min(abs(each - found.losses[a]) for each in possible) < 1e-6


def test_info_nce_is_the_n_pair_loss():
    def terms(a):
        positives, negatives = partners(a)
        gaps = {
            p: sum(math.exp((d("cosine", a, p) - d("cosine", a, n)) / 0.5) for n in negatives)
            for p in positives
        }
        return [math.log1p(gaps[p]) for p in positives]

    check(on_pairs(functools.partial(info_nce, temperature=0.5), "cosine"), terms, len)


def arcface_of(x, class_weights, margin, scale):
    x, y = (v.astype(np.float64) for v in (x, class_weights))
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    cosines = x @ y.T / norms
    losses = []
    for row, label in zip(cosines, LABELS, strict=True):
        logits = scale * row
        theta = math.acos(min(row[label], 1))
        past = row[label] - margin * math.sin(margin)
        logits[label] = scale * (math.cos(theta + margin) if theta + margin < math.pi else past)
        losses.append(np.logaddexp.reduce(logits) - logits[label])
    return losses


def test_arcface():
    classes = RNG.normal(size=(10, D)).astype(np.float32)
    classes[2] = -X[3]  # behind the angle at which the margin would turn round
    classes[1] = 2 * X[1]  # an angle of 0
    x = 3 * X

    @jax.jit
    def run(x, classes):
        def total(x, classes):
            found = arcface(x, LABELS, WEIGHTS, class_weights=classes, margin=0.5, scale=8.0)
            return Mean.of(*found).total, found

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(x, classes)

    (_, found), gradients = run(x, classes)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    expected = arcface_of(x, classes, 0.5, 8.0)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.weights, WEIGHTS)


@pytest.mark.parametrize(("distance", "shots"), [("squared_l2", 1), ("l2", 2)])
def test_prototypical(distance, shots):
    def loss(x):
        return prototypical(x, LABELS, WEIGHTS, distance=DISTANCES[distance], shots=shots)

    def total(x):
        found = loss(x)
        return Mean.of(*found).total, found

    (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(X))
    assert np.isfinite(gradient).all()
    prototypes, queries = {}, []
    for label in sorted({*LABELS[REAL].tolist()}):
        rows = [n for n in REAL if LABELS[n] == label]
        prototypes[label] = X[rows[:shots]].astype(np.float64).mean(0)
        queries += rows[shots:]
    np.testing.assert_array_equal(np.flatnonzero(found.weights), sorted(queries))
    for a in queries:
        scores = {k: -np_distance(distance, X[a], p) for k, p in prototypes.items()}
        expected = np.logaddexp.reduce([*scores.values()]) - scores[LABELS[a]]
        np.testing.assert_allclose(found.losses[a], expected, rtol=1e-6, atol=1e-6)


def test_pytorchs_triplet_margin_loss():
    torch = pytest.importorskip("torch")
    a, p, n = (torch.tensor(X[rows]) for rows in ([0, 1, 3], [2, 4, 6], [1, 3, 0]))
    loss = torch.nn.TripletMarginLoss(margin=0.3, eps=0, reduction="none")
    expected = loss(a, p, n).numpy()
    l2 = DISTANCES["l2"]
    gaps = jnp.diagonal(l2(a.numpy(), p.numpy()) - l2(a.numpy(), n.numpy()))
    np.testing.assert_allclose(margin_penalty(0.3)(gaps), expected, rtol=1e-5, atol=1e-6)


def test_on_unit_sphere_keeps_zeros():
    assert on_unit_sphere(jnp.zeros((1, 3))).tolist() == [[0, 0, 0]]


def test_unknown_mining_and_too_few_dimensions():
    with pytest.raises(InputError, match="semi_hard"):
        miner("soft")
    with pytest.raises(ValueError, match="2 or more"):
        miner("distance_weighted", dimensions=1)
