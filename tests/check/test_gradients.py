"""The gradient check: right derivatives pass, a wrong sign is caught, a kink is reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check.gradients import check_gradients

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
PARAMS = {
    "first": {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)},
    "second": {"kernel": np.linspace(0.3, 1, 4, dtype=np.float32), "unused": np.ones(2)},
}


def network(params, product=jnp.dot, squash=jnp.tanh):
    hidden = squash(product(jnp.asarray(X), params["first"]["kernel"]))
    return jnp.mean(jnp.square(hidden @ params["second"]["kernel"] - 1))


def product_with(backward):
    """x @ w with a backward pass of one's own."""
    product = jax.custom_vjp(jnp.dot)
    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: backward(*saved, g))
    return product


def test_a_right_gradient_passes_to_rounding():
    report = check_gradients(network, PARAMS, key=jax.random.key(0), tolerance=1e-8)
    assert [p.name for p in report.probes] == [
        "first/kernel",
        "second/kernel",
        "second/unused",
        "all 0",
        "all 1",
        "all 2",
    ]
    assert report.passed and {p.outcome for p in report.probes} == {"ok"}
    assert report.jvp_error is not None and report.jvp_error < 1e-12
    assert len(report.render().splitlines()) == 7


def test_the_slopes_are_those_of_numpy():
    """f = sum(w^3) at w = (1, 2): the slope along a unit v is 3 v_1 + 12 v_2."""
    report = check_gradients(
        lambda w: jnp.sum(w**3), jnp.array([1.0, 2.0]), key=jax.random.key(3), directions=0
    )
    v = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(3)))).normal(size=2)
    slope = (3 * v[0] + 12 * v[1]) / np.linalg.norm(v)
    assert report.probes[0].derived == pytest.approx(slope, rel=1e-12)
    assert report.probes[0].difference == pytest.approx(slope, rel=1e-7)


def test_a_planted_sign_is_caught_in_its_leaf():
    wrong = product_with(lambda x, w, g: (g @ w.T, -x.T @ g))
    report = check_gradients(lambda p: network(p, wrong), PARAMS, key=jax.random.key(0))
    assert not report.passed
    assert report.wrong == ("first/kernel", "all 0", "all 1", "all 2")
    assert report.probes[0].relative_error == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("factor", [1.001, 0.0, float("nan")])
def test_a_wrong_factor_is_caught(factor):
    wrong = product_with(lambda x, w, g: (g @ w.T, factor * x.T @ g))
    report = check_gradients(lambda p: network(p, wrong), PARAMS, key=jax.random.key(0))
    assert "first/kernel" in report.wrong


def test_a_sign_is_caught_behind_rectifiers():
    wrong = product_with(lambda x, w, g: (g @ w.T, -x.T @ g))
    report = check_gradients(
        lambda p: network(p, wrong, jax.nn.relu), PARAMS, key=jax.random.key(0)
    )
    assert "first/kernel" in report.wrong


def test_a_right_custom_rule_passes_without_forward_mode():
    right = product_with(lambda x, w, g: (g @ w.T, x.T @ g))
    report = check_gradients(lambda p: network(p, right), PARAMS, key=jax.random.key(0))
    assert report.passed and report.jvp_error is None
    assert "forward mode not available" in report.render()


def test_modes_that_disagree_do_not_pass():
    """A linear map whose transpose, the reverse mode, is right, and which itself is not."""

    @jax.custom_jvp
    def identity(x):
        return x

    @identity.defjvp
    def _(primals, tangents):
        return primals[0], jax.custom_derivatives.linear_call(
            lambda _, t: 2 * t, lambda _, t: t, (), tangents[0]
        )

    report = check_gradients(
        lambda w: jnp.sum(identity(w) ** 2), jnp.array([1.0, 2.0]), key=jax.random.key(0)
    )
    assert not report.wrong and not report.passed
    assert report.jvp_error == pytest.approx(0.5)


def test_a_kink_is_reported_and_does_not_fail():
    """All units of a rectifier sit exactly at 0: the two sides' slopes differ at every h."""
    params = {"at_kink": jnp.zeros(3), "smooth": jnp.ones(2)}
    report = check_gradients(
        lambda p: jnp.sum(jax.nn.relu(p["at_kink"])) + jnp.sum(jnp.sin(p["smooth"])),
        params,
        key=jax.random.key(0),
    )
    assert report.probes[0].outcome == "kink" and report.probes[1].outcome == "ok"
    assert report.passed


def test_a_kink_is_no_excuse_for_a_wrong_derivative():
    """The slope -5 lies outside of [0, 1] times the direction, so a kink cannot explain it."""
    relu = jax.custom_vjp(jax.nn.relu)
    relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, g: (-5 * g,))
    report = check_gradients(lambda p: jnp.sum(relu(p)), jnp.zeros(1), key=jax.random.key(0))
    assert report.wrong


def test_nothing_but_kinks_does_not_pass():
    report = check_gradients(lambda p: jnp.sum(jax.nn.relu(p)), jnp.zeros(3), key=jax.random.key(0))
    assert not report.wrong and not report.passed


def test_kinks_within_the_large_steps_do_not_matter():
    """A rectifier 2e-4 away from its kink: only the smaller h see a smooth function."""
    report = check_gradients(
        lambda p: jnp.sum(jax.nn.relu(p)), jnp.full(1, 2e-4), key=jax.random.key(0)
    )
    assert report.passed and all(p.step <= 1e-4 for p in report.probes)


def test_a_loss_that_casts_to_float32_is_refused():
    with pytest.raises(ValueError, match=r"float32\[\], but a float64 scalar is needed"):
        check_gradients(
            lambda p: jnp.sum(p).astype(jnp.float32), jnp.ones(2), key=jax.random.key(0)
        )


def test_float64_does_not_leak():
    check_gradients(lambda p: jnp.sum(p**2), jnp.ones(2), key=jax.random.key(0))
    assert jnp.ones(2).dtype == jnp.float32
