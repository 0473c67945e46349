"""Restricted Boltzmann machines against brute force, and their training against the gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain_boltzmann import PlainRBM, bars_and_stripes, one_hots, states
from sklearn.neural_network import BernoulliRBM

from dlcore.errors import InputError
from dlcore.models import boltzmann
from dlcore.models.boltzmann import RBM, Binary, Contrast, Gaussian, Softmax
from dlcore.models.boltzmann.contrastive import first_chains, first_means, moved, tempered
from dlcore.models.boltzmann.partition import places
from dlcore.train import gradient_step
from dlcore.types import Aux, TrainState

V, H = 6, 4


def drawn(rbm, scale=0.6, seed=0):
    """Parameters that are not small."""
    rng = np.random.default_rng(seed)
    params = jax.eval_shape(rbm.init, jax.random.key(0))
    return {name: jnp.float32(scale * rng.normal(size=x.shape)) for name, x in params.items()}


@pytest.fixture(scope="module")
def rbm():
    return RBM(Binary(), V, H)


@pytest.fixture(scope="module")
def params(rbm):
    return drawn(rbm)


@pytest.fixture(scope="module")
def plain(params):
    return PlainRBM(params)


# The machine.


def test_energies_are_those_of_brute_force(rbm, params, plain):
    v, h = np.float32(states(V)), np.float32(states(H)[3])
    machine = rbm.machine(params)
    energy, free = jax.jit(
        lambda v: (machine.energy(v, jnp.tile(h, (len(v), 1))), machine.free_energy(v))
    )(v)
    np.testing.assert_allclose(energy, plain.energy(v, np.tile(h, (len(v), 1))), atol=1e-5)
    np.testing.assert_allclose(free, plain.free_energy(v), atol=1e-5)
    assert boltzmann.log_partition(machine) == pytest.approx(plain.log_z(), abs=1e-5)
    found = boltzmann.log_likelihood(machine, jnp.asarray(v), plain.log_z())
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)


def test_conditionals_and_pseudo_likelihood_agree_with_scikit_learn(rbm, params, plain):
    machine = rbm.machine(params)
    theirs = BernoulliRBM(n_components=H, random_state=np.random.RandomState(0))
    theirs.components_ = plain.w.T
    theirs.intercept_hidden_, theirs.intercept_visible_ = plain.c, plain.b
    theirs._n_features_out = H
    v = np.float32(np.random.default_rng(1).integers(0, 2, (200, V)))
    np.testing.assert_allclose(
        jax.nn.sigmoid(machine.hidden_field(v)), theirs.transform(v), atol=1e-6
    )
    exact = np.asarray(jax.jit(boltzmann.pseudo_log_likelihood)(machine, v))
    # scikit-learn flips one random bit of each example and multiplies by their number.
    estimates = np.mean([theirs.score_samples(v) for _ in range(300)], axis=0)
    assert np.abs(estimates - exact).mean() < 0.05 * np.abs(exact).mean()
    # Which is this sum, exactly.
    total = np.zeros(len(v))
    for unit in range(V):
        flipped = v.copy()
        flipped[:, unit] = 1 - flipped[:, unit]
        total -= np.log1p(np.exp(plain.free_energy(v) - plain.free_energy(flipped)))
    np.testing.assert_allclose(exact, total, atol=1e-5)


def test_softmax_units_are_bits_of_which_one_is_on():
    rbm = RBM(Softmax(3), 6, 4)
    params, every = drawn(rbm), one_hots(2, 3)
    machine, plain = rbm.machine(params), PlainRBM(params)
    assert boltzmann.log_partition(machine) == pytest.approx(plain.log_z(every), abs=1e-5)
    log_p = plain.log_likelihood(every, every)
    # p(unit | others) by enumeration of its levels.
    p, expected = np.exp(log_p), np.zeros(len(every))
    for unit in range(2):
        same = every.reshape(-1, 2, 3)[:, 1 - unit, None] == every.reshape(-1, 2, 3)[:, 1 - unit]
        expected += np.log(p / (same.all(-1) * p).sum(1))
    found = jax.jit(boltzmann.pseudo_log_likelihood)(machine, jnp.float32(every))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    v, _ = jax.jit(functools.partial(boltzmann.gibbs, steps=2))(
        machine, jnp.zeros((50, 6)), jax.random.key(0)
    )
    np.testing.assert_array_equal(v.reshape(50, 2, 3).sum(-1), 1)


@pytest.mark.parametrize("learned", [False, True])
def test_a_gaussian_machine_is_a_mixture_of_normal_distributions(learned):
    rbm = RBM(Gaussian(), 2, 3, learned_variance=learned)
    params = drawn(rbm)
    machine = rbm.machine(params)
    variance = np.exp(np.asarray(params.get("log_variance", np.zeros(2)), np.float64))
    w, b, c = (np.asarray(params[n], np.float64) for n in ("kernel", "visible_bias", "bias"))
    h = states(3)
    means = b + h @ w.T  # Cho et al. 2011, eq. 2
    log_weights = h @ c + 0.5 * (means**2 / variance).sum(1)
    weights = np.exp(log_weights) / np.exp(log_weights).sum()
    v = np.random.default_rng(0).normal(size=(50, 2))
    density = np.exp(-0.5 * ((v[:, None] - means) ** 2 / variance).sum(-1))
    density /= 2 * np.pi * np.sqrt(variance.prod())
    log_z = boltzmann.log_partition(machine)
    found = boltzmann.log_likelihood(machine, jnp.float32(v), log_z)
    np.testing.assert_allclose(found, np.log(density @ weights), atol=1e-5)
    hidden = jax.nn.sigmoid(machine.hidden_field(jnp.float32(v)))
    np.testing.assert_allclose(hidden, 1 / (1 + np.exp(-(c + (v / variance) @ w))), atol=1e-5)
    chains, _ = jax.jit(functools.partial(boltzmann.gibbs, steps=20))(
        machine, jnp.zeros((4000, 2)), jax.random.key(1)
    )
    np.testing.assert_allclose(chains.mean(0), weights @ means, atol=0.1)
    with pytest.raises(TypeError, match="Gaussian units have no pseudo-likelihood"):
        boltzmann.pseudo_log_likelihood(machine, jnp.float32(v))


def test_gibbs_sampling_has_the_distribution_of_the_machine(rbm, params, plain):
    v, h = jax.jit(functools.partial(boltzmann.gibbs, steps=30))(
        rbm.machine(params), jnp.zeros((20_000, V)), jax.random.key(0)
    )
    every = states(V)
    p = np.exp(plain.log_likelihood(every))
    assert h.shape == (20_000, H)
    np.testing.assert_allclose(np.asarray(v).mean(0), p @ every, atol=0.02)
    np.testing.assert_allclose(
        np.asarray(v).T @ np.asarray(v) / len(v), np.einsum("n,ni,nj", p, every, every), atol=0.02
    )


def test_tempered_chains_have_the_distributions_of_their_temperatures(rbm, plain):
    params = drawn(rbm, scale=1.5)
    plain = PlainRBM(params)
    machine = rbm.machine(params)

    @jax.jit
    def run(chains, key):
        keys = jax.random.split(key, 40)
        return jax.lax.scan(lambda c, k: (tempered(machine, c, k, steps=1), None), chains, keys)[0]

    chains = run(jnp.zeros((2000, 4, 3, V)), jax.random.key(0)).reshape(-1, 3, V)
    for place, beta in enumerate((0.0, 0.5, 1.0)):
        here = PlainRBM({"kernel": beta * plain.w, "visible_bias": plain.b, "bias": beta * plain.c})
        p = np.exp(here.log_likelihood(states(V)))
        np.testing.assert_allclose(chains[:, place].mean(0), p @ states(V), atol=0.025)


# Its gradient.


def gradient_of(rbm, contrast, params, data, key, means=None):
    """The gradient of the contrastive loss, and what it found."""

    def loss(params):
        found = boltzmann.contrastive_loss(
            rbm,
            contrast,
            params,
            first_means(rbm, contrast) if means is None else means,
            data,
            jnp.ones(len(data)),
            key,
            first_chains(rbm, contrast, len(data), jax.random.key(9)),
        )
        return found.loss.compute(), found

    return jax.jit(jax.grad(loss, has_aux=True))(params)


def test_the_expected_gradient_approaches_the_exact_one_as_k_grows(rbm):
    """It is biased for small k (Hinton 2002), and ours is what it should be for each k."""
    params = drawn(rbm, scale=2)
    data = np.float32(np.random.default_rng(2).integers(0, 2, (4, V)))
    plain = PlainRBM(params)
    exact = plain.gradient(data)

    def distance(gradient):
        errors = [np.square(gradient[name] - exact[name]).sum() for name in exact]
        return np.sqrt(sum(errors))

    biases = [distance(plain.gradient(data, k)) for k in (1, 3, 9, 100)]
    assert biases == sorted(biases, reverse=True) and biases[0] > 0.3 and biases[-1] < 0.05, biases
    many = jnp.asarray(np.tile(data, (4000, 1)))
    for k in (1, 3):
        found, _ = jax.jit(functools.partial(gradient_of, rbm, Contrast(k)))(
            params, many, jax.random.key(0)
        )
        for name, expected in plain.gradient(data, k).items():
            np.testing.assert_allclose(found[name], expected, atol=0.02)


def test_persistent_chains_give_the_exact_gradient_where_they_have_mixed(rbm, params, plain):
    data = np.float32(np.random.default_rng(2).integers(0, 2, (40, V)))
    contrast = Contrast(30, chains=200)
    found, (_, _, chains, ends, _) = jax.jit(functools.partial(gradient_of, rbm, contrast))(
        params, data, jax.random.key(0)
    )
    assert chains.shape == (40, 200, 1, V) and ends.shape == (40, 200, V)
    for name, expected in plain.gradient(data).items():
        np.testing.assert_allclose(found[name], expected, atol=0.02)


def test_the_value_of_the_loss_is_the_error_of_the_data_drawn_again(rbm, params):
    machine, data = rbm.machine(params), jnp.float32(states(V))
    _, found = gradient_of(rbm, Contrast(3), params, data, jax.random.key(0))
    h = np.float32(states(H))
    p_h = np.asarray(jax.nn.sigmoid(machine.hidden_field(data)))
    q = np.prod(np.where(h[None] > 0, p_h[:, None], 1 - p_h[:, None]), axis=-1)
    p_v = np.asarray(jax.nn.sigmoid(machine.visible_field(h)))
    errors = -np.log(np.where(np.asarray(data)[:, None] > 0, p_v[None], 1 - p_v[None])).sum(-1)
    assert float(found.loss.compute()) == pytest.approx((q * errors).sum(1).mean(), rel=0.1)
    free = found.metrics["free_energy"].compute()
    assert float(free) == pytest.approx(float(machine.free_energy(data).mean()), rel=1e-5)


@pytest.mark.slow
def test_mean_field_visible_units_have_their_means(rbm, params):
    """Then the one thing drawn is h of the first step, over which the sum is taken here."""
    machine, data = rbm.machine(params), np.float32(states(V)[5:7])
    many = jnp.asarray(np.tile(data, (8000, 1)))
    found, _ = gradient_of(rbm, Contrast(mean_field=True), params, many, jax.random.key(0))
    h = np.float32(states(H))
    p_h = np.asarray(jax.nn.sigmoid(machine.hidden_field(data)))
    q = np.prod(np.where(h[None] > 0, p_h[:, None], 1 - p_h[:, None]), axis=-1)
    again = np.asarray(jax.nn.sigmoid(machine.visible_field(h)))
    hidden = np.asarray(jax.nn.sigmoid(machine.hidden_field(again)))
    expected = np.einsum("nh,hi,hj->ij", q / 2, again, hidden) - data.T @ p_h / 2
    np.testing.assert_allclose(found["kernel"], expected, atol=0.01)


def test_the_centred_gradient_is_that_of_the_centred_machine(rbm, params):
    """A step of plain descent on W, b', c' of (v - m) W (h - l), written in W, b and c."""
    rng = np.random.default_rng(3)
    data = jnp.float32(rng.integers(0, 2, (8, V)))
    means = {"visible": jnp.float32(rng.random(V)), "hidden": jnp.float32(rng.random(H))}
    plain, _ = gradient_of(rbm, Contrast(), params, data, jax.random.key(0))
    found, (_, new, *_) = gradient_of(
        rbm, Contrast(centre=True), params, data, jax.random.key(0), means
    )
    m, offset = (np.asarray(means[name]) for name in ("visible", "hidden"))

    def of_centred(w, b, c):
        return {"kernel": w, "visible_bias": b - w @ offset, "bias": c - m @ w}

    _, pull = jax.vjp(of_centred, params["kernel"], params["visible_bias"], params["bias"])
    expected = of_centred(*pull({name: plain[name] for name in plain}))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
    moved_to = 0.95 * m + 0.05 * np.asarray(data).mean(0)
    np.testing.assert_allclose(new["visible"], moved_to, rtol=1e-5)


@pytest.mark.slow
def test_sparsity_moves_what_its_papers_move(rbm, params):
    data = jnp.float32(np.random.default_rng(4).integers(0, 2, (8, V)))
    means = {"visible": jnp.full(V, 0.5), "hidden": jnp.full(H, 0.7)}
    key = jax.random.key(0)
    plain, _ = gradient_of(rbm, Contrast(), params, data, key)
    p = np.asarray(jax.nn.sigmoid(rbm.machine(params).hidden_field(data)))
    activity = 0.95 * 0.7 + 0.05 * p.mean(0)
    options = {"target": 0.2, "cost": 3.0}
    found, _ = gradient_of(
        rbm, Contrast(sparsity="cross_entropy", **options), params, data, key, means
    )
    excess = 3 * (activity - 0.2)
    np.testing.assert_allclose(found["bias"] - plain["bias"], excess, rtol=1e-4)
    np.testing.assert_allclose(
        found["kernel"] - plain["kernel"], np.outer(np.asarray(data).mean(0), excess), atol=1e-5
    )
    found, _ = gradient_of(rbm, Contrast(sparsity="squared", **options), params, data, key, means)
    expected = 2 * excess * (p * (1 - p)).mean(0)
    np.testing.assert_allclose(found["bias"] - plain["bias"], expected, rtol=1e-3)
    np.testing.assert_array_equal(found["kernel"], plain["kernel"])


def test_running_means_leave_padding_out():
    means = {"visible": jnp.zeros(1), "hidden": jnp.ones(1)}
    new = moved(means, jnp.array([[1.0], [9.0]]), jnp.array([[0.5], [9.0]]), jnp.array([1.0, 0.0]))
    assert float(new["visible"][0]) == pytest.approx(0.05)
    assert float(new["hidden"][0]) == pytest.approx(0.975)


# Its likelihood.


@pytest.fixture(scope="module")
def larger():
    """A machine with 16 hidden units, and its exact log Z by PlainRBM's other side."""
    rbm = RBM(Binary(), 20, 16)
    return rbm.machine(drawn(rbm, scale=0.5))


def test_annealing_brackets_the_exact_log_z_from_both_sides(larger):
    exact = boltzmann.log_partition(larger)
    base = jnp.zeros(20)
    found = boltzmann.ais(larger, base, jax.random.key(0), chains=200, steps=500)
    assert found.value == pytest.approx(exact, abs=0.1)
    assert found.low < exact < found.high and found.high - found.low < 0.2
    assert 20 < found.effective <= 200
    v, _ = jax.jit(functools.partial(boltzmann.gibbs, steps=50))(
        larger, jnp.zeros((200, 20)), jax.random.key(1)
    )
    above, deviation = boltzmann.reverse_ais(larger, base, v, jax.random.key(2), steps=500)
    assert exact - 3 * deviation < above < exact + 0.2
    # Few places make both wrong on the average, each on its own side.
    short = [
        boltzmann.ais(larger, base, jax.random.key(seed), chains=2, steps=8).value
        for seed in range(40)
    ]
    above, _ = boltzmann.reverse_ais(larger, base, v, jax.random.key(2), steps=8)
    assert np.mean(short) < exact - 0.1 and above > exact + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("units", [Gaussian(), Softmax(2)], ids=["gaussian", "softmax"])
def test_annealing_of_other_visible_units(units):
    rbm = RBM(units, 4, 5, learned_variance=isinstance(units, Gaussian))
    machine = rbm.machine(drawn(rbm))
    found = boltzmann.ais(machine, jnp.full(4, 0.3), jax.random.key(0), chains=200, steps=200)
    assert found.value == pytest.approx(boltzmann.log_partition(machine), abs=0.1)


def test_places_are_those_of_the_paper():
    beta = places(14_500)
    assert len(beta) == 14_501 and beta[0] == 0 and beta[-1] == 1 and (np.diff(beta) > 0).all()
    assert beta[500] == pytest.approx(0.5) and beta[4500] == pytest.approx(0.9)


def test_too_many_units_are_not_enumerated():
    rbm = RBM(Binary(), 784, 500)
    with pytest.raises(InputError, match="2.500 states, and 20 .*=ais.* 156.8 GFLOP") as error:
        boltzmann.log_partition(rbm.machine(rbm.init(jax.random.key(0))))
    assert "\n" not in str(error.value)
    assert boltzmann.enumerated(Binary(), 784, 2) == boltzmann.enumerated(Binary(), 2, 784) == 2
    assert boltzmann.enumerated(Gaussian(), 2, 784) == 784


# Its training.


@pytest.mark.slow
def test_bars_and_stripes_are_learned():
    """The exact likelihood rises, and the divergence from the data falls below 0.1 nat."""
    data, steps = np.float32(bars_and_stripes(3)), 2000
    rbm, contrast = RBM(Binary(), 9, 16), Contrast(10)
    batch = {"v": np.tile(data, (2, 1)), "weight": np.ones(2 * len(data), np.float32)}
    tx = optax.sgd(optax.linear_schedule(0.2, 0, 3 * steps), momentum=0.5)

    def loss(params, model_state, batch, rng):
        found = boltzmann.contrastive_loss(
            rbm, contrast, params, {}, batch["v"], batch["weight"], rng
        )
        return found.loss, Aux(model_state, {})

    step = gradient_step(loss, tx)
    state = TrainState.create({"params": rbm.init(jax.random.key(0))}, tx, jax.random.key(2))

    @jax.jit
    def train(state):
        return jax.lax.fori_loop(0, steps, lambda _, state: step(state, batch)[0], state)

    likelihoods = []
    for part in range(4):
        state = train(state) if part else state
        machine = rbm.machine(state.params)
        log_p = boltzmann.log_likelihood(machine, data, boltzmann.log_partition(machine))
        likelihoods.append(log_p.mean())
    assert likelihoods == sorted(likelihoods), likelihoods
    # The data are 14 equally likely patterns.
    assert -np.log(len(data)) - likelihoods[-1] < 0.1, likelihoods
