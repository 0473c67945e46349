"""Autoencoders against principal components, their probabilistic form, and plain NumPy.

Shapes: N examples, D pixels, K numbers of a code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg, stats

from dlcore.losses import evidence_bound, importance_bound
from dlcore.models import MLP
from dlcore.models.autoencoder import Posterior, make_autoencoder, make_variational
from dlcore.parallel import Part, part_of_batch
from dlcore.paths import leaves_by_path

RNG = np.random.default_rng(0)
K = 2
# Pixels of an image (2, 3, 1), of which two directions vary more than the others.
X = (RNG.normal(size=(60, 6)) * [0.2, 2, 0.15, 1.2, 0.1, 0.25]) @ stats.ortho_group.rvs(
    6, random_state=1
) + RNG.normal(size=6)
IMAGES = X.reshape(60, 2, 3, 1).astype(np.float32)


def principal(count):
    """Mean, directions (D, K) and variances (D,) of the examples, largest first."""
    mean = X.mean(0)
    variances, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    return mean, vectors[:, ::-1][:, :count], variances[::-1]


def trained(net, loss, steps, rate=0.03):
    """Parameters after full-batch training, compiled as one loop."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def run(key):
        params = net.init(key, IMAGES)["params"]

        def step(carry, key):
            params, opt_state = carry
            updates, opt_state = tx.update(jax.grad(loss)(params, key), opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        keys = jax.random.split(key, steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    with jax.numpy_dtype_promotion("standard"):
        return run(jax.random.key(0))


@pytest.mark.parametrize("tied", [False, True])
def test_a_linear_autoencoder_spans_the_space_of_the_principal_components(tied):
    """Baldi & Hornik 1989."""
    net = make_autoencoder("dense", (2, 3, 1), K, (), tied=tied)

    def error(params, key):
        return ((net.apply({"params": params}, IMAGES)[0] - IMAGES) ** 2).mean()

    params = trained(net, error, 8000)
    mean, space, variances = principal(K)
    expected = variances[K:].sum() / 6
    assert float(error(params, None)) == pytest.approx(expected, rel=1e-4)
    kernel = (
        params["encoder"]["output"]["kernel"].T if tied else params["decoder"]["dense_0"]["kernel"]
    )
    assert linalg.subspace_angles(np.asarray(kernel, np.float64).T, space).max() < 1e-3


def optimum():
    """The parameters of a linear Gaussian VAE that is probabilistic PCA, and log p(x) (N,).

    Tipping & Bishop 1999, equations 7 and 8: W = U (L - s^2 I)^(1/2), and s^2 is the mean of the
    variances that are left. The posterior is N(M^-1 W^T (x - mean), s^2 M^-1), M = W^T W + s^2 I.
    """
    mean, space, variances = principal(K)
    noise = variances[K:].mean()
    weights = space * np.sqrt(variances[:K] - noise)
    inverse = 1 / ((weights**2).sum(0) + noise)
    kernel = np.concatenate([weights * inverse, np.zeros((6, K))], 1)
    bias = np.concatenate([-mean @ kernel[:, :K], np.log(noise * inverse)])
    params = {
        "encoder": {"output": {"kernel": kernel, "bias": bias}},
        "decoder": {"dense_0": {"kernel": weights.T, "bias": mean}},
        "log_variance": np.log(noise),
    }
    covariance = weights @ weights.T + noise * np.eye(6)
    likelihood = stats.multivariate_normal(mean, covariance).logpdf(X)
    return jax.tree.map(lambda a: np.asarray(a, np.float32), params), likelihood


LINEAR = make_variational("dense", (2, 3, 1), K, (), "gaussian")


@jax.jit
def log_weights(params, key):
    """log p(x, z) - log q(z | x) of 64 samples by example, and the bound with the exact KL."""
    terms = LINEAR.apply({"params": params}, IMAGES, key, 64, method="terms")
    bound = evidence_bound(terms.log_likelihood.mean(0), terms.kl.sum(-1))
    return terms.log_likelihood + terms.log_ratio, bound


def test_the_bound_of_a_linear_gaussian_vae_is_probabilistic_pcas_likelihood():
    """q is the exact posterior, so that each sample's weight is p(x)."""
    params, likelihood = optimum()
    weights, bound = log_weights(params, jax.random.key(1))
    np.testing.assert_allclose(weights, np.tile(likelihood, (64, 1)), atol=1e-3)
    assert float(weights.mean()) == pytest.approx(likelihood.mean(), abs=1e-3)
    assert float(bound.mean()) == pytest.approx(likelihood.mean(), abs=0.05)
    # Of no other parameters the bound is higher.
    for seed in range(4):
        rng = np.random.default_rng(seed)
        moved = jax.tree.map(lambda a, r=rng: a + 0.05 * r.normal(size=a.shape).astype("f"), params)
        assert float(log_weights(moved, jax.random.key(1))[0].mean()) < likelihood.mean()


def test_training_reaches_that_optimum():
    def loss(params, key):
        terms = LINEAR.apply({"params": params}, IMAGES, key, 4, method="terms")
        return -(terms.log_likelihood + terms.log_ratio).mean()

    params = trained(LINEAR, loss, 3000)
    _, likelihood = optimum()
    weights, _ = log_weights(params, jax.random.key(2))
    assert float(weights.mean()) == pytest.approx(likelihood.mean(), abs=0.02)


def test_importance_weighted_bounds_rise_and_stay_below():
    params, likelihood = optimum()
    # A posterior that is too narrow, and off.
    params["encoder"]["output"]["bias"] += np.array([0.03, -0.03, -0.3, -0.3], np.float32)
    keys = jax.random.split(jax.random.key(3), 20)
    weights = np.concatenate([log_weights(params, key)[0] for key in keys], 1)
    bounds = [
        float(importance_bound(jnp.asarray(weights.reshape(k, -1))).mean()) for k in (1, 2, 8, 64)
    ]
    expected = np.tile(likelihood, 20).mean()
    assert bounds == sorted(bounds) and bounds[-1] < expected
    assert expected - bounds[0] > 0.05 > 0.01 > expected - bounds[-1]


def test_bits_and_grey_pixels():
    """Terms of a Bernoulli model against NumPy, sums over pixels."""
    net = make_variational("dense", (2, 3, 1), K, (4,))
    x = RNG.random((3, 2, 3, 1)).astype(np.float32)

    @jax.jit
    def found(key):
        variables = net.init(key, x)
        posterior = net.apply(variables, x, method="encode")[0]
        z = posterior.sample(jax.random.key(1), 5)
        p = jax.vmap(lambda z: net.apply(variables, z, method="decode"))(z)
        terms = net.apply(variables, x, jax.random.key(1), 5, method="terms")
        return terms, posterior, z, p

    terms, posterior, z, p = jax.tree.map(
        lambda a: np.asarray(a, np.float64), found(jax.random.key(0))
    )
    log_p = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum((2, 3, 4))
    np.testing.assert_allclose(terms.log_likelihood, log_p, rtol=1e-4)
    q = stats.norm(posterior.mean, np.exp(posterior.log_variance / 2))
    ratio = (stats.norm.logpdf(z) - q.logpdf(z)).sum(-1)
    np.testing.assert_allclose(terms.log_ratio, ratio, rtol=1e-3, atol=1e-4)


def test_samples_of_an_example_go_by_its_position():
    posterior = Posterior(jnp.zeros((4, 3)), jnp.log(jnp.full((4, 3), 4.0)))

    @jax.jit
    def both(posterior):
        whole = posterior.sample(jax.random.key(0), 500)
        with part_of_batch(Part(offset=1, stride=2)):
            return whole, jax.tree.map(lambda a: a[1::2], posterior).sample(jax.random.key(0), 500)

    whole, odd = both(posterior)
    assert whole.shape == (500, 4, 3) and float(whole.std()) == pytest.approx(2, abs=0.1)
    np.testing.assert_array_equal(odd, whole[:, 1::2])


def test_tied_layers_mirror_the_encoder():
    net = make_autoencoder("dense", (2, 3, 1), K, (5, 4), tied=True, code_activation="sigmoid")
    params = net.init(jax.random.key(0), IMAGES)["params"]
    params = jax.tree.map(lambda a: a + 0.1, params)
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(params["decoder"]).items()}
    assert shapes == {"bias_0": (4,), "bias_1": (5,), "bias_2": (6,)}
    x = IMAGES.reshape(60, 6)
    e, d = jax.tree.map(np.asarray, (params["encoder"], params["decoder"]))
    kernels = [np.asarray(e[name]["kernel"]) for name in ("dense_0", "dense_1", "output")]
    for name, kernel in zip(("dense_0", "dense_1"), kernels, strict=False):
        x = np.maximum(x @ kernel + e[name]["bias"], 0)
    code = x = 1 / (1 + np.exp(-(x @ kernels[2] + e["output"]["bias"])))
    for number in range(3):
        x = x @ kernels[2 - number].T + d[f"bias_{number}"]
        x = np.maximum(x, 0) if number < 2 else x
    drawn, activations = jax.jit(net.apply)({"params": params}, IMAGES)
    np.testing.assert_allclose(activations["code"], code, rtol=1e-4)
    np.testing.assert_allclose(drawn.reshape(60, 6), x, rtol=1e-4, atol=1e-5)


def test_layers_one_by_one_are_the_whole():
    net = make_autoencoder("dense", (2, 3, 1), K, (5,))

    @jax.jit
    def both(key):
        variables = net.init(key, IMAGES)
        hidden = net.apply(variables, 1, IMAGES, method="layer_input")
        inner = net.apply(variables, 1, hidden, method="redraw_layer")
        return net.apply(variables, IMAGES)[0], inner, variables["params"]["decoder"]["dense_1"]

    drawn, inner, last = jax.tree.map(np.asarray, both(jax.random.key(0)))
    np.testing.assert_allclose(inner @ last["kernel"] + last["bias"], drawn.reshape(60, 6), 1e-4)


def test_the_encoder_has_the_parameters_of_a_classifier():
    net = make_variational("dense", (2, 3, 1), K, (5, 4))
    own = leaves_by_path(net.init(jax.random.key(0), IMAGES)["params"]["encoder"])
    twin = leaves_by_path(MLP(2 * K, features=(5, 4)).init(jax.random.key(0), IMAGES)["params"])
    assert {p: a.shape for p, a in own.items()} == {p: a.shape for p, a in twin.items()}


def test_the_convolutional_net_restores_every_size():
    for size in ((8, 8), (7, 10), (1, 3)):
        images = np.zeros((2, *size, 3), np.float32)
        net = make_autoencoder("convolutional", images.shape[1:], 4, (3, 6))
        drawn = jax.eval_shape(net.init_with_output, jax.random.key(0), images)[0][0]
        assert drawn.shape == images.shape


def test_the_contraction_of_one_layer_and_of_several():
    for hidden in ((), (5,)):
        net = make_autoencoder("dense", (2, 3, 1), K, hidden, code_activation="sigmoid")
        variables = jax.jit(net.init)(jax.random.key(0), IMAGES)

        def code(row, net=net, variables=variables):
            return net.apply(variables, row[None], method="encode")[0][0]

        def both(x, net=net, variables=variables, code=code):
            squares = jax.vmap(jax.jacobian(code))(x) ** 2
            return squares.sum((1, 2, 3, 4)), net.apply(variables, x, method="contraction")

        np.testing.assert_allclose(*jax.jit(both)(IMAGES[:4]), rtol=1e-5)
