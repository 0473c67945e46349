"""Embedding nets: every loss with its parameters, and the learned distance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.metrics import distance_matrix
from dlcore.models import MLP
from dlcore.models.embedding_net import LOSSES, PLAIN, EmbeddingNet, Objective

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 4, 4, 1)).astype(np.float32)
LABELS = np.repeat(np.arange(4, dtype=np.int32), 2)
OWN = {"siamese": {"offset", "scale"}, "arcface": {"class_weights"}}


def net_of(objective, **options):
    build = functools.partial(MLP, num_classes=6, features=(8,))
    return EmbeddingNet(build, 6, objective, **options)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(
            loss, marks=[pytest.mark.slow] * (loss not in ("siamese", "triplet", "arcface"))
        )
        for loss in LOSSES
    ],
)
def test_every_parameter_learns(loss):
    net = net_of(Objective(loss, "weighted_l1", mining="semi_hard", identities=4))

    @jax.jit
    def gradients(images):
        params = jax.jit(net.init)(jax.random.key(0), images)["params"]

        def total(params):
            embeddings, _ = net.apply({"params": params}, images)
            examples = embeddings, LABELS, jnp.ones(8), jax.random.key(1)
            found = net.apply({"params": params}, *examples, method="losses")
            return (found.losses * found.weights).sum()

        return jax.grad(total)(params)

    found = gradients(IMAGES)
    assert {*found} == {"encoder", "weights"} | OWN.get(loss, set())
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(found))


def test_the_learned_distance_is_the_weighted_l1_of_plain_embeddings():
    net = net_of(Objective("siamese", "weighted_l1"), normalise=False)
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES)
    plain = net.apply(variables, IMAGES)[0]
    weights = jnp.array([0.0, 1, -2, 3, 0.5, 1])
    params = {**variables["params"], "weights": weights}
    found = net.apply({"params": params}, IMAGES)[0]
    expected = (np.abs(weights) * np.abs(plain[:, None] - plain[None])).sum(-1)
    distances = distance_matrix(PLAIN["weighted_l1"], found, found)
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_embeddings_are_on_the_unit_sphere_unless_they_shall_not():
    objective = Objective("triplet")
    variables = net_of(objective).init(jax.random.key(0), IMAGES)
    norms = [
        np.linalg.norm(net_of(objective, normalise=normalise).apply(variables, IMAGES)[0], axis=1)
        for normalise in (True, False)
    ]
    np.testing.assert_allclose(norms[0], 1, rtol=1e-5)
    assert np.abs(norms[1] - 1).max() > 0.01


def test_an_unknown_loss():
    net = net_of(Objective("centre"))
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES)
    examples = jnp.ones((8, 6)), LABELS, jnp.ones(8), jax.random.key(0)
    with pytest.raises(InputError, match="prototypical"):
        net.apply(variables, *examples, method="losses")
