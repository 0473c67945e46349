"""Penalties, the proximal step and projections equal scikit-learn and closed forms."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.linear_model

from dlcore.errors import InputError
from dlcore.optim import (
    averaged,
    elastic_net,
    lasso,
    optimizer,
    projection,
    proximal,
    ridge,
    to_scikit_learn,
    with_penalty,
)
from dlcore.types import Mean

PARAMS = {
    "dense": {"bias": jnp.array([7.0]), "kernel": jnp.array([[1.0, -2.0]])},
    "head": jnp.array([[3.0]]),
}
N, D = 60, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = X @ np.array([3.0, -2.0, 0, 0, 1.0, 0, 0, 0]) + 0.5 * RNG.normal(size=N)
# Both regressions below use the step 1 / L, L the largest curvature of half the mean square.
RATE = float(1 / np.linalg.eigvalsh(X.T @ X / N).max())


class Aux(NamedTuple):
    model_state: Any
    metrics: dict[str, Mean]


def half_mean_square(params, model_state, batch, rng):
    error = (batch["x"] @ params["w"])[:, 0] - batch["y"]
    loss = Mean.of(0.5 * error**2, batch["weight"])
    return loss, Aux(model_state, {"loss": loss})


def batch(rows=slice(None), padding=0):
    x, y = jnp.asarray(X, jnp.float32)[rows], jnp.asarray(Y, jnp.float32)[rows]
    return {
        "x": jnp.pad(x, ((0, padding), (0, 0))),
        "y": jnp.pad(y, (0, padding)),
        "weight": jnp.pad(jnp.ones_like(y), (0, padding)),
    }


def fit(loss_fn, tx, steps=400):
    """Returns the coefficients after `steps` full-batch steps from 0."""

    def mean_loss(params):
        return loss_fn(params, {}, batch(), None)[0].compute()

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(mean_loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = {"w": jnp.zeros((D, 1))}
    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps))(start)[0][0]["w"]


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (lasso(0.5), 0.5 * 6),
        (ridge(0.5), 0.5 * 14),
        (elastic_net(0.5, mix=0.25), 0.5 * (0.75 * 6 + 0.25 * 14)),
        (lasso(1.0, rules=[("bias", True), ("head", False)]), 10),
        (ridge(1.0, rules=[("", False)]), 0),
    ],
)
def test_value_by_hand(penalty, expected):
    assert float(penalty(PARAMS)) == pytest.approx(expected)


def test_is_scikit_learns_objective():
    """At arbitrary points it equals our loss and penalty with converted arguments."""
    strength, mix = 0.7, 0.3
    alpha, l1_ratio = to_scikit_learn(strength, mix)
    for w in RNG.normal(size=(5, D, 1)):
        theirs = (
            np.sum((Y - X @ w[:, 0]) ** 2) / (2 * N)
            + alpha * l1_ratio * np.abs(w).sum()
            + 0.5 * alpha * (1 - l1_ratio) * np.square(w).sum()
        )
        loss_fn = with_penalty(half_mean_square, elastic_net(strength, mix=mix))
        loss, _ = loss_fn({"w": jnp.asarray(w, jnp.float32)}, {}, batch(), None)
        assert float(loss.compute()) == pytest.approx(theirs, rel=1e-5)


def test_ridge_is_the_closed_form():
    strength = 0.2
    fitted = fit(with_penalty(half_mean_square, ridge(strength)), optimizer("sgd", RATE / 2))
    closed = np.linalg.solve(X.T @ X / N + 2 * strength * np.eye(D), X.T @ Y / N)
    np.testing.assert_allclose(fitted[:, 0], closed, atol=1e-5)
    learned = sklearn.linear_model.Ridge(alpha=2 * strength * N, fit_intercept=False).fit(X, Y)
    np.testing.assert_allclose(fitted[:, 0], learned.coef_, atol=1e-5)


def test_proximal_lasso_is_coordinate_descent():
    strength = 0.3
    fitted = fit(
        half_mean_square, optax.chain(optimizer("sgd", RATE), proximal(RATE, l1=strength))
    )[:, 0]
    expected = sklearn.linear_model.Lasso(alpha=strength, fit_intercept=False, tol=1e-10).fit(X, Y)
    np.testing.assert_allclose(fitted, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(fitted == 0, expected.coef_ == 0)
    assert (fitted == 0).sum() >= 3
    # The penalty's subgradient only comes close to 0: this is why there is a proximal step.
    soft = fit(with_penalty(half_mean_square, lasso(strength)), optimizer("sgd", RATE))
    assert not (soft == 0).any()


def nearest_in_l1_ball(theta, radius):
    """Shrinks all values by the number, found by bisection, that leaves a norm of the radius."""
    if np.abs(theta).sum() <= radius:
        return theta
    low, high = 0.0, np.abs(theta).max()
    for _ in range(100):
        middle = (low + high) / 2
        left = np.maximum(np.abs(theta) - middle, 0)
        low, high = (middle, high) if left.sum() > radius else (low, middle)
    return np.sign(theta) * left


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("radius", [1.0, 100.0])
def test_a_projection_is_the_nearest_point_of_the_ball(norm, radius):
    """It takes the chosen leaves together, and leaves the others and points within as they are."""
    shapes = {
        "a": {"kernel": (3, 4), "bias": (4,)},
        "head": {"kernel": (4, 2)},
        "last": {"kernel": (2, 2)},
    }
    params, updates = (
        jax.tree.map(
            lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32),
            shapes,
            is_leaf=lambda shape: isinstance(shape, tuple),
        )
        for _ in range(2)
    )
    tx = projection(norm, radius, rules=[("last", False)])
    found, _ = jax.jit(tx.update)(updates, tx.init(params), params)
    chosen = [params[name]["kernel"] + updates[name]["kernel"] for name in ("a", "head")]
    theta = np.concatenate([np.ravel(leaf) for leaf in chosen])
    if norm == "l1":
        nearest = nearest_in_l1_ball(theta, radius)
    else:
        nearest = theta * min(1, radius / np.linalg.norm(theta))
    ours = [np.ravel(params[name]["kernel"] + found[name]["kernel"]) for name in ("a", "head")]
    np.testing.assert_allclose(np.concatenate(ours), nearest, atol=1e-6)
    np.testing.assert_array_equal(found["last"]["kernel"], updates["last"]["kernel"])
    np.testing.assert_array_equal(found["a"]["bias"], updates["a"]["bias"])


def test_the_constrained_lasso_is_the_penalised_one():
    """Under the norm of its solution as radius, coordinate descent finds the same weights."""
    expected = sklearn.linear_model.Lasso(alpha=0.3, fit_intercept=False, tol=1e-10).fit(X, Y)
    radius = float(np.abs(expected.coef_).sum())
    tx = optimizer("sgd", RATE, correct=projection("l1", radius))
    fitted = fit(half_mean_square, tx)[:, 0]
    np.testing.assert_allclose(fitted, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(fitted == 0, expected.coef_ == 0)


def test_corrections_leave_frozen_parameters_alone_and_precede_the_average():
    frozen = [("head", True)]
    tx = optimizer("sgd", 1.0, frozen=frozen, correct=projection("l2", 0.1), average=0.0)
    state = tx.init(PARAMS)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS)
    after = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(after["head"], PARAMS["head"])
    assert np.linalg.norm(after["dense"]["kernel"]) == pytest.approx(0.1, rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), averaged(state, PARAMS), after
    )


@pytest.mark.parametrize("mix", [0.2, 0.8])
def test_proximal_elastic_net_is_scikit_learns(mix):
    strength = 0.3
    step = proximal(RATE, l1=strength * (1 - mix), l2=strength * mix)
    fitted = fit(half_mean_square, optax.chain(optimizer("sgd", RATE), step))[:, 0]
    expected = sklearn.linear_model.ElasticNet(
        **to_scikit_learn(strength, mix)._asdict(), fit_intercept=False, tol=1e-10
    ).fit(X, Y)
    np.testing.assert_allclose(fitted, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(fitted == 0, expected.coef_ == 0)


def test_proximal_follows_the_schedule_and_the_rules():
    tx = proximal(lambda t: 0.1 * (t + 1).astype(jnp.float32), l1=1.0, rules=[("head", False)])
    state = tx.init(PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for rate in (0.1, 0.2):
        updates, state = tx.update(zeros, state, PARAMS)
        np.testing.assert_allclose(updates["dense"]["kernel"], [[-rate, rate]], rtol=1e-5)
        assert not updates["dense"]["bias"].any() and not updates["head"].any()


def test_proximal_zeros_are_exact_and_do_not_flip():
    params = {"w": jnp.array([[0.1, -0.1, 0.30000001, -0.7]])}
    tx = proximal(0.5, l1=0.6)
    updates, _ = tx.update({"w": jnp.full((1, 4), 0.01)}, tx.init(params), params)
    after = optax.apply_updates(params, updates)["w"][0]
    assert (after[:2] == 0).all()
    np.testing.assert_allclose(after[2:], [0.01, -0.39], atol=1e-6)


def test_penalty_is_counted_once_whatever_the_parts():
    loss_fn = with_penalty(half_mean_square, ridge(0.1))
    params = {"w": jnp.ones((D, 1))}
    whole, aux = loss_fn(params, {}, batch(), None)
    value = 0.1 * D
    plain = half_mean_square(params, {}, batch(), None)[0]
    assert float(whole.compute()) == pytest.approx(float(plain.compute()) + value)
    assert float(aux.metrics["penalty"].compute()) == pytest.approx(value)
    assert float(aux.metrics["loss"].compute()) == pytest.approx(float(plain.compute()))

    parts = [batch(slice(0, 20)), batch(slice(20, 25), padding=15), batch(slice(25, None))]
    parts.append({**batch(slice(0, 4)), "weight": jnp.zeros(4)})
    (loss, metrics), *rest = [
        (loss, aux.metrics) for loss, aux in (loss_fn(params, {}, part, None) for part in parts)
    ]
    for other, other_metrics in rest:
        loss = loss.merge(other)
        metrics = {name: mean.merge(other_metrics[name]) for name, mean in metrics.items()}
    assert float(loss.compute()) == pytest.approx(float(whole.compute()), rel=1e-6)
    assert float(metrics["penalty"].compute()) == pytest.approx(value, rel=1e-6)


def test_penalties_compose_and_report_by_name():
    once = with_penalty(half_mean_square, lasso(0.1), name="lasso")
    twice = with_penalty(once, ridge(0.2), name="ridge")
    params = {"w": jnp.full((D, 1), 2.0)}
    loss, aux = twice(params, {}, batch(), None)
    plain, _ = half_mean_square(params, {}, batch(), None)
    assert float(aux.metrics["lasso"].compute()) == pytest.approx(0.1 * 2 * D)
    assert float(aux.metrics["ridge"].compute()) == pytest.approx(0.2 * 4 * D)
    assert float(loss.compute()) == pytest.approx(float(plain.compute()) + 0.2 * D + 0.8 * D)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lasso(-1.0), "penalty strength -1.0 is not a number >= 0"),
        (lambda: elastic_net(1.0, mix=1.5), "elastic net mix 1.5 is not in"),
        (lambda: to_scikit_learn(1.0, -0.5), "elastic net mix -0.5 is not in"),
        (lambda: proximal(0.1, l1=float("nan")), "penalty strength nan is not"),
        (lambda: proximal(0.1, l1=1.0, rules=[("nope", True)]).init(PARAMS), "rule 'nope' matches"),
        (lambda: projection("l1", 0.0), "radius 0.0 of a ball is not positive"),
        (lambda: projection("l3", 1.0), "norm 'l3'"),
        (
            lambda: projection("l2", 1.0, rules=[("nope", True)]).init(PARAMS),
            "rule 'nope' matches",
        ),
        (lambda: ridge(1.0, rules=[("nope", True)])(PARAMS), "rule 'nope' matches"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
