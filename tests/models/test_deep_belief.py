"""Deep belief networks against sums over all states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain_boltzmann import PlainRBM, bars_and_stripes, states

from dlcore.models.boltzmann import Binary, Contrast, DeepBelief, bound, log_partition
from dlcore.models.boltzmann.belief import drawn_down, drawn_up
from dlcore.types import Mean

V, H = 6, (4, 5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(belief, up_down=False, scale=0.7):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(functools.partial(belief.init, up_down=up_down), jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(scale * rng.normal(size=x.shape)), shapes)


@pytest.fixture(scope="module")
def belief():
    return DeepBelief(Binary(), V, H)


def exact_bounds(params, v):
    """E log p(v, h) - log q(h | v) and log p(v), by all states of h, in float64."""
    lower, upper = (PlainRBM(params[name]) for name in ("dense_0", "dense_1"))
    h = states(H[0])
    log_prior = upper.log_likelihood(h, h)
    field = lower.b + h @ lower.w.T
    log_given = v @ field.T - np.logaddexp(0, field).sum(1)
    q = sigmoid(lower.c + v @ lower.w)[:, None]
    log_q = np.log(np.where(h > 0, q, 1 - q)).sum(-1)
    joint = log_given + log_prior
    return (np.exp(log_q) * (joint - log_q)).sum(1), np.log(np.exp(joint).sum(1))


def test_the_bound_is_that_of_the_sum_over_all_states(belief):
    params, v = drawn(belief), np.float32(states(V)[::5])
    stack = belief.stack(params)
    log_z = log_partition(stack.top)
    found = jax.jit(functools.partial(bound, samples=3000))(stack, v, log_z, jax.random.key(0))
    bounds, exact = exact_bounds(params, np.float64(v))
    assert (bounds < exact).all() and np.abs(bounds - exact).max() > 0.1
    np.testing.assert_allclose(found, bounds, atol=0.1)
    np.testing.assert_allclose(np.mean(found), bounds.mean(), atol=0.03)


def test_one_layer_is_a_machine_with_its_log_likelihood(belief):
    params, v = drawn(belief), np.float32(states(V)[::5])
    plain = PlainRBM(params["dense_0"])
    stack = belief.stack(params, 1)
    found = bound(stack, v, log_partition(stack.top), jax.random.key(0), samples=1)
    np.testing.assert_allclose(found, plain.log_likelihood(np.float64(v)), atol=1e-4)


@pytest.mark.slow
def test_a_second_layer_starts_at_the_first_and_raises_the_bound():
    """Of bars and stripes, by exact sums: equal before the second layer learns, higher after."""
    belief = DeepBelief(Binary(), 9, (6, 9))
    data = jnp.asarray(np.tile(np.float32(bars_and_stripes(3)), (4, 1)))
    weight = jnp.ones(len(data))
    tx = optax.sgd(0.05, momentum=0.9)

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def train(params, number, steps, key):
        def one(step, state):
            params, opt_state = state

            def loss(layer):
                rng = jax.random.fold_in(key, step)
                every = {**params, f"dense_{number}": layer}
                found = belief.greedy_loss(number, Contrast(5), every, {}, data, weight, rng)
                return found.loss.compute()

            layer = params[f"dense_{number}"]
            updates, opt_state = tx.update(jax.grad(loss)(layer), opt_state)
            return {**params, f"dense_{number}": optax.apply_updates(layer, updates)}, opt_state

        opt_state = tx.init(params[f"dense_{number}"])
        return jax.lax.fori_loop(0, steps, one, (params, opt_state))[0]

    def exact_bound(params):
        lower, upper = (PlainRBM(params[name]) for name in ("dense_0", "dense_1"))
        v, h = np.float64(data[:14]), states(6)
        log_prior = -upper.free_energy(h) - log_partition(belief.stack(params).top)
        field = lower.b + h @ lower.w.T
        q = sigmoid(lower.c + v @ lower.w)[:, None]
        log_q = np.log(np.where(h > 0, q, 1 - q)).sum(-1)
        joint = v @ field.T - np.logaddexp(0, field).sum(1) + log_prior
        return (np.exp(log_q) * (joint - log_q)).sum(1).mean()

    params = train(belief.init(jax.random.key(0)), 0, 600, jax.random.key(1))
    before = PlainRBM(params["dense_0"]).log_likelihood(np.float64(data[:14])).mean()
    params = belief.started(params, 1)
    assert exact_bound(params) == pytest.approx(before, abs=1e-4)
    params = train(params, 1, 1500, jax.random.key(2))
    assert exact_bound(params) > before + 0.1


def test_a_layer_learns_from_draws_of_those_below(belief):
    params, v = drawn(belief), jnp.float32(np.tile(states(V)[7:9], (4000, 1)))

    @jax.jit
    def gradient(params):
        def loss(params):
            found = belief.greedy_loss(
                1, Contrast(), params, {}, v, jnp.ones(len(v)), jax.random.key(0)
            )
            return found.loss.compute(), found.metrics["free_energy"].compute()

        return jax.grad(loss, has_aux=True)(params)

    found, free_energy = gradient(params)
    assert not any(np.any(leaf) for leaf in found["dense_0"].values())
    assert all(np.any(leaf) for leaf in found["dense_1"].values())
    lower, upper = (PlainRBM(params[name]) for name in ("dense_0", "dense_1"))
    h = states(H[0])
    q = sigmoid(lower.c + np.float64(v[:2]) @ lower.w)[:, None]
    p = np.prod(np.where(h > 0, q, 1 - q), axis=-1)
    assert float(free_energy) == pytest.approx((p @ upper.free_energy(h)).mean(), abs=0.02)


def test_up_down_training_follows_wake_and_sleep(belief):
    """The three parts have gradients of their own, those of the expectations over the draws."""
    params = belief.untied(drawn(belief))
    np.testing.assert_array_equal(params["up_0"]["kernel"], params["dense_0"]["kernel"])
    np.testing.assert_array_equal(params["top"]["bias"], params["dense_1"]["bias"])
    params = drawn(belief, up_down=True)
    v = jnp.float32(np.tile(states(V)[7:9], (10_000, 1)))
    key = jax.random.key(0)

    @jax.jit
    def gradient(params):
        def loss(params):
            mean = belief.up_down_loss(Contrast(), params, v, jnp.ones(len(v)), key)
            return mean.compute()

        return jax.value_and_grad(loss)(params)

    value, found = gradient(params)
    w, c = (np.float64(params["up_0"][name]) for name in ("kernel", "bias"))
    g, b = (np.float64(params["down_0"][name]) for name in ("kernel", "visible_bias"))
    rows, h = np.float64(v[:2]), states(H[0])
    q = sigmoid(c + rows @ w)[:, None]
    q = np.prod(np.where(h > 0, q, 1 - q), axis=-1) / 2  # [2, 16]
    field = b + h @ g.T
    errors = np.logaddexp(0, field).sum(1) - rows @ field.T
    assert float(value) == pytest.approx((q * errors).sum(), abs=0.05)
    # Wake: generation draws v from h.
    expected = np.einsum("nh,nhi,hj->ij", q, sigmoid(field)[None] - rows[:, None], h)
    np.testing.assert_allclose(found["down_0"]["kernel"], expected, atol=0.02)
    # The top: contrastive divergence at h, one step.
    top = PlainRBM(params["top"])
    above = states(H[1])
    p_up = sigmoid(top.c + h @ top.w)
    p_up = np.prod(np.where(above > 0, p_up[:, None], 1 - p_up[:, None]), axis=-1)
    back = sigmoid(top.b + above @ top.w.T)
    back = np.prod(np.where(h > 0, back[:, None], 1 - back[:, None]), axis=-1)
    ends = q.sum(0) @ p_up @ back
    hidden = sigmoid(top.c + h @ top.w)
    expected = np.einsum("h,hi,hj->ij", ends - q.sum(0), h, hidden)
    np.testing.assert_allclose(found["top"]["kernel"], expected, atol=0.02)
    # Sleep: recognition tells h of a dream from v of it.
    below = sigmoid(field)
    dreams = states(V)
    p_down = np.prod(np.where(dreams > 0, below[:, None], 1 - below[:, None]), axis=-1)  # [16, 64]
    joint = ends[:, None] * p_down
    guess = sigmoid(c + dreams @ w)
    expected = np.einsum("hd,di,hdj->ij", joint, dreams, guess[None] - h[:, None])
    np.testing.assert_allclose(found["up_0"]["kernel"], expected, atol=0.02)
    # What was trained layer by layer stays.
    assert not any(np.any(x) for n in (0, 1) for x in found[f"dense_{n}"].values())


def test_layers_are_drawn_in_order():
    belief = DeepBelief(Binary(), V, (4, 5, 3))
    stack = belief.stack(drawn(belief, scale=30))  # all but certain
    v = jnp.float32(states(V)[3:4])
    up = drawn_up(stack, v, jax.random.key(0))
    assert [x.shape for x in up] == [(1, 4), (1, 5)]
    for machine, below, above in zip(stack.up, [v, up[0]], up, strict=True):
        np.testing.assert_array_equal(above, machine.hidden_field(below) > 0)
    down = drawn_down(stack, up[-1], jax.random.key(0))
    assert [x.shape for x in down] == [(1, V), (1, 4), (1, 5)]
    np.testing.assert_array_equal(down[1], stack.down[1].visible_field(down[2]) > 0)


def test_the_loss_of_padding_counts_nothing(belief):
    params = drawn(belief, up_down=True)
    v = jnp.float32(states(V)[:4])
    loss = jax.jit(functools.partial(belief.up_down_loss, Contrast()))
    weight = jnp.array([1.0, 1.0, 0.0, 0.0])
    found = loss(params, v, weight, jax.random.key(0))
    other = loss(params, v.at[2:].set(1.0), weight, jax.random.key(0))
    assert isinstance(found, Mean) and float(found.weight) == 2
    assert float(found.total) == pytest.approx(float(other.total))
