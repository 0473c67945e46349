"""The common test suite of all optimizers, and their rules by path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.optim import OPTIMIZERS, clip_by_global_norm, optimizer, reported

# Learning rates at which 300 steps on the quadratic below reach its minimum.
RATES = {
    "sgd": 0.3,
    "momentum": 0.05,
    "nesterov": 0.05,
    "adagrad": 0.5,
    "adadelta": 20.0,
    "rmsprop": 0.01,
    "adam": 0.1,
    "adamw": 0.1,
    "amsgrad": 0.1,
    "lamb": 0.05,
    "lion": 0.02,
    "muon": 0.1,
}
CURVATURE = jnp.array([[1.0, 3.0, 0.5], [2.0, 0.3, 1.0]])


def params():
    return {
        "body": {"bias": jnp.array([-0.0, 0.5]), "kernel": jnp.array([[1.0, -2.0, 3.0]] * 2)},
        "head": {"kernel": jnp.array([[2.0, 1.0]]), "scale": jnp.array([1.0])},
    }


def loss(p):
    """Computes a quadratic of several curvatures with its minimum at 0."""
    return 0.5 * sum(
        [
            jnp.sum(CURVATURE * p["body"]["kernel"] ** 2),
            jnp.sum(p["body"]["bias"] ** 2),
            jnp.sum(2.0 * p["head"]["kernel"] ** 2),
            jnp.sum(p["head"]["scale"] ** 2),
        ]
    )


def step(tx, p, state):
    updates, state = tx.update(jax.grad(loss)(p), state, p)
    return optax.apply_updates(p, updates), state


def descend(tx, p, steps):
    def body(carry, _):
        return step(tx, *carry), None

    return jax.jit(lambda p: jax.lax.scan(body, (p, tx.init(p)), length=steps)[0])(p)


def bits(array):
    return np.asarray(array).view(np.uint32)


@pytest.fixture(params=OPTIMIZERS)
def name(request):
    return request.param


def test_converges_on_a_quadratic(name):
    end, _ = descend(optimizer(name, RATES[name]), params(), 300)
    assert loss(end) < 1e-2 * loss(params())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("adam", "lion")))
        for name in OPTIMIZERS
    ],
    indirect=True,
)
def test_jit_is_no_jit(name):
    tx = optimizer(name, RATES[name], weight_decay=0.1, clip=clip_by_global_norm(1.0))
    eager, jitted = (params(), tx.init(params())), (params(), tx.init(params()))
    compiled = jax.jit(functools.partial(step, tx))
    for _ in range(3):
        eager, jitted = step(tx, *eager), compiled(*jitted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), eager, jitted)


def test_state_is_a_plain_pytree(name):
    tx = optimizer(name, RATES[name], frozen=[("head/scale", True)])
    half = descend(tx, params(), 3)
    leaves, structure = jax.tree.flatten(half)
    restored = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    assert structure == jax.tree.structure((params(), tx.init(params())))
    after, again = step(tx, *half), step(tx, *restored)
    jax.tree.map(np.testing.assert_array_equal, after, again)


def test_weight_decay_is_decoupled_and_spares_vectors(name):
    tx = optimizer(name, 0.5, weight_decay=0.1)
    zeros = jax.tree.map(jnp.zeros_like, params())
    updates, _ = tx.update(zeros, tx.init(params()), params())
    # LAMB gives every layer's step the length of the layer.
    shrink = 0.5 * (1.0 if name == "lamb" else 0.1)
    for part in ("body", "head"):
        kernel = params()[part]["kernel"]
        np.testing.assert_allclose(updates[part]["kernel"], -shrink * kernel, rtol=1e-6)
    assert not updates["body"]["bias"].any() and not updates["head"]["scale"].any()


def test_decay_follows_the_rules(name):
    rules = [("head/kernel", False), ("head/scale", True)]
    tx = optimizer(name, 0.5, weight_decay=0.1, decay_rules=rules)
    zeros = jax.tree.map(jnp.zeros_like, params())
    updates, _ = tx.update(zeros, tx.init(params()), params())
    assert not updates["head"]["kernel"].any() and not updates["body"]["bias"].any()
    assert updates["head"]["scale"].all() and updates["body"]["kernel"].all()


def test_factors_multiply_the_learning_rate(name):
    gradients = jax.grad(loss)(params())
    updates = []
    for rate, factors in ((0.1, [("^body/kernel", 3.0), ("bias", 0.0)]), (0.1, ()), (0.3, ())):
        tx = optimizer(name, rate, weight_decay=0.1, factors=factors)
        updates.append(tx.update(gradients, tx.init(params()), params())[0])
    by_rule, plain, triple = updates
    np.testing.assert_allclose(by_rule["body"]["kernel"], triple["body"]["kernel"], rtol=1e-6)
    assert not by_rule["body"]["bias"].any()
    jax.tree.map(np.testing.assert_array_equal, by_rule["head"], plain["head"])


def test_frozen_leaves_keep_their_bits_and_take_no_state(name):
    settings = {"weight_decay": 0.1, "clip": clip_by_global_norm(1.0)}
    frozen = [("^head", False), ("", True)]
    tx = optimizer(
        name, RATES[name], frozen=frozen, factors=[("^body", 2.0), ("scale", 0.5)], **settings
    )
    end, state = descend(tx, params(), 5)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(bits(a), bits(b)), end["body"], params()["body"]
    )
    assert np.signbit(end["body"]["bias"][0])
    frozen_shapes = {leaf.shape for leaf in jax.tree.leaves(params()["body"])}
    assert not frozen_shapes & {leaf.shape for leaf in jax.tree.leaves(state)}
    # Trained leaves change as if the frozen ones did not exist, also in the norm of the gradients.
    alone = optimizer(name, RATES[name], factors=[("scale", 0.5)], **settings)

    def head_loss(head):
        return loss({"body": params()["body"], "head": head})

    head, alone_state = params()["head"], alone.init(params()["head"])
    for _ in range(5):
        updates, alone_state = alone.update(jax.grad(head_loss)(head), alone_state, head)
        head = optax.apply_updates(head, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), end["head"], head)


def test_nan_gradients_do_not_reach_frozen_leaves():
    tx = optimizer("adam", 0.1, frozen=[("body", True)])
    nans = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params())
    updates, _ = tx.update(nans, tx.init(params()), params())
    # Not under jit, where XLA may drop an addition of 0 and with it the sign of -0.
    end = optax.apply_updates(params(), updates)
    for leaf in ("bias", "kernel"):
        np.testing.assert_array_equal(bits(end["body"][leaf]), bits(params()["body"][leaf]))
    assert np.isnan(end["head"]["kernel"]).all()


def test_sgd_converges_at_the_predicted_rate():
    end, _ = descend(optimizer("sgd", 0.1), params(), 10)
    expected = (1 - 0.1 * CURVATURE) ** 10 * params()["body"]["kernel"]
    np.testing.assert_allclose(end["body"]["kernel"], expected, rtol=1e-5)


def test_reports_the_learning_rate_of_the_last_step_and_the_clipped_share():
    tx = optimizer(
        "adam",
        lambda t: 0.5 / (jnp.asarray(t, float) + 1),
        clip=clip_by_global_norm(1e-3),
        frozen=[("scale", True)],
    )
    state = tx.init(params())
    assert {k: float(v.compute()) for k, v in reported(state).items()} == {
        "clipped": 0.0,
        "learning_rate": 0.0,
    }
    before, p = params(), params()
    for expected in (0.5, 0.25, 0.5 / 3):
        before, (p, state) = p, step(tx, p, state)
        report = {name: float(mean.compute()) for name, mean in reported(state).items()}
        assert report == {"clipped": 1.0, "learning_rate": pytest.approx(expected)}
    # Adam's step on a gradient that keeps its sign is about the learning rate.
    moved = np.abs(p["head"]["kernel"] - before["head"]["kernel"])
    np.testing.assert_allclose(moved, 0.5 / 3, rtol=0.2)
    assert reported(optax.adam(0.1).init(params())) == {}


def test_reports_under_one_name_merge():
    tx = optax.chain(clip_by_global_norm(1e-3), clip_by_global_norm(1.0))
    _, state = tx.update({"w": jnp.ones(4)}, tx.init({"w": jnp.ones(4)}))
    assert float(reported(state)["clipped"].compute()) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm'; choose one of: adadelta, adagrad, adam"),
        ({"name": "adam", "beta": 0.9}, "'adam' has no hyperparameter 'beta'; it has: b1, b2, eps"),
        ({"name": "sgd", "decay": 0.9}, "'sgd' has no hyperparameter 'decay'; it has: none"),
        ({"name": "sgd", "learning_rate": -1.0}, "learning rate -1.0 is not a number >= 0"),
        ({"name": "sgd", "weight_decay": float("nan")}, "weight decay nan is not a number >= 0"),
        ({"name": "sgd", "frozen": [("boddy", True)]}, "rule 'boddy' matches none of the 4 paths"),
        ({"name": "sgd", "factors": [("boddy", 2.0)]}, "rule 'boddy' matches none"),
        ({"name": "sgd", "decay_rules": [("boddy", True)]}, "rule 'boddy' matches none"),
        ({"name": "sgd", "frozen": [("", True)]}, "freeze every parameter"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(InputError) as error:
        optimizer(**{"learning_rate": 0.1, **arguments}).init(params())
    assert message in str(error.value) and "\n" not in str(error.value)
