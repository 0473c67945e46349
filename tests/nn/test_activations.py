"""Activation functions equal their formulas in NumPy, also at very large arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dlcore import nn
from dlcore.errors import InputError
from dlcore.models import MLP, HighwayCNN, HighwayMLP
from dlcore.nn import activations
from dlcore.nn.feed_forward import FeedForward

FORMULAS = {
    "binary_step": lambda x: 1.0 * (x >= 0),
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "scaled_tanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
    "relu": lambda x: np.maximum(0, x),
    "leaky_relu": lambda x: np.where(x >= 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "squared_relu": lambda x: np.maximum(0, x) ** 2,
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
}


def test_every_activation_has_a_formula():
    assert set(FORMULAS) == set(nn.ACTIVATIONS)
    assert not set(nn.LEARNED) & set(nn.ACTIVATIONS)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name):
    """They agree with formulas and central differences at 1,000 points away from kinks."""
    formula = FORMULAS[name]
    x = np.random.default_rng(0).uniform(-4, 4, (100, 10))
    x = np.where(np.abs(x) < 1e-3, 0.5, x)
    with jax.enable_x64(True):
        y, vjp = jax.vjp(nn.activation(name), jnp.asarray(x))
        g = np.random.default_rng(1).normal(size=x.shape)
        (dx,) = vjp(jnp.asarray(g))
    # 1 + tanh(u), in gelu, cancels where u is far below 0: a rounding of tanh itself remains.
    np.testing.assert_allclose(y, formula(x), rtol=1e-12, atol=1e-14)
    if name == "binary_step":  # The straight-through estimator is not the derivative.
        expected = g * (np.abs(x) <= 1)
    else:
        h, expected = 1e-5, np.empty_like(x)
        for i in range(x.shape[1]):
            step = h * np.eye(10)[i]
            expected[:, i] = ((formula(x + step) - formula(x - step)) / (2 * h) * g).sum(-1)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"linear"}))
@pytest.mark.parametrize("z", [-1e4, -1000.0, 1000.0, 1e4])
def test_finite_far_out(name, z):
    y, vjp = jax.vjp(nn.activation(name), jnp.array([z, 0.0]))
    assert np.isfinite(y).all() and np.isfinite(vjp(jnp.ones(2))[0]).all()
    if name in ("sigmoid", "tanh", "scaled_tanh", "binary_step"):
        assert vjp(jnp.array([1.0, 0.0]))[0][0] == 0


@pytest.mark.parametrize("name, at_zero", [("relu", 0.0), ("binary_step", 1.0), ("elu", 1.0)])
def test_gradient_at_zero(name, at_zero):
    assert jax.grad(nn.activation(name))(0.0) == at_zero


def test_published_identities():
    z = jnp.linspace(-5, 5, 101)
    np.testing.assert_allclose(jnp.tanh(z), 2 * jax.nn.sigmoid(2 * z) - 1, atol=1e-6)
    # The scaled tanh is built to map +-1 to +-1 (to the four digits of its constants).
    np.testing.assert_allclose(activations.scaled_tanh(jnp.array([-1.0, 1.0])), [-1, 1], atol=1e-4)
    slope = jax.vmap(jax.grad(activations.softplus))(z)
    np.testing.assert_allclose(slope, jax.nn.sigmoid(z), atol=1e-6)
    assert activations.binary_step(0.0) == 1
    assert np.isnan(activations.binary_step(jnp.nan))


def test_arguments():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_allclose(activations.leaky_relu(x, slope=0.2), [-0.4, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(activations.elu(x, alpha=2.0)[0], 2 * (np.exp(-2) - 1), rtol=1e-6)
    expected = np.log1p(np.exp(5 * np.asarray(x))) / 5
    np.testing.assert_allclose(activations.softplus(x, beta=5.0), expected, rtol=1e-6)


def test_xor_with_one_hidden_layer_of_steps():
    """Hand-set weights: OR and AND in the hidden layer, OR and not AND in the output."""
    x = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    hidden = activations.binary_step(x @ jnp.ones((2, 2)) - jnp.array([[0.5, 1.5]]))
    y = activations.binary_step(hidden @ jnp.array([[1.0], [-1.0]]) - 0.5)
    assert y[:, 0].tolist() == [0, 1, 1, 0]


class TestSoftmax:
    scores = jnp.array([[1e4, 1.0, -2.0], [0.3, 0.1, 0.2]])

    def test_shift_changes_nothing(self):
        shifted = nn.softmax(self.scores[1] + 64.0)
        np.testing.assert_allclose(shifted, nn.softmax(self.scores[1]), rtol=1e-5)

    @pytest.mark.parametrize("temperature", [1e-6, 1e-36])
    def test_cold_is_argmax(self, temperature):
        p = nn.softmax(self.scores, temperature=temperature)
        np.testing.assert_array_equal(p, [[1, 0, 0], [1, 0, 0]])

    def test_entropy_rises_with_temperature(self):
        def entropy(temperature):
            p = np.asarray(nn.softmax(self.scores[1], temperature=temperature), np.float64)
            return -(p * np.log(p)).sum()

        entropies = [entropy(t) for t in (0.05, 0.1, 0.5, 1, 10)]
        assert entropies == sorted(entropies)
        assert entropies[-1] == pytest.approx(np.log(3), abs=1e-4)

    def test_mask(self):
        mask = jnp.array([[False, True, True], [False, False, False]])
        p, vjp = jax.vjp(lambda x: nn.softmax(x, mask=mask), self.scores)
        np.testing.assert_allclose(p[0, 1:], nn.softmax(self.scores[0, 1:]), rtol=1e-6)
        assert p[0, 0] == 0 and (p[1] == 0).all()
        gradient = vjp(jnp.arange(6.0).reshape(2, 3))[0]
        assert np.isfinite(gradient).all() and gradient[0, 0] == 0 and (gradient[1] == 0).all()

    def test_axis(self):
        np.testing.assert_allclose(nn.softmax(self.scores, axis=0).sum(0), np.ones(3), rtol=1e-6)


class TestPReLU:
    x = jnp.array([[-2.0, -4.0], [3.0, -1.0]])

    def test_starts_at_a_quarter_for_each_channel(self):
        y, variables = nn.PReLU().init_with_output(jax.random.key(0), self.x)
        assert variables["params"]["negative_slope"].shape == (2,)
        np.testing.assert_array_equal(y, [[-0.5, -1], [3, -0.25]])

    def test_channels_have_their_own_slopes(self):
        params = {"negative_slope": jnp.array([0.5, 0.1])}
        y = nn.PReLU().apply({"params": params}, self.x)
        np.testing.assert_allclose(y, [[-1, -0.4], [3, -0.1]], rtol=1e-6)

    @pytest.mark.parametrize("shared, expected", [(True, [0.1]), (False, [0.1, 0.1])])
    def test_recovers_the_slope_of_its_target(self, shared, expected):
        x = jax.random.normal(jax.random.key(1), (64, 2))
        prelu = nn.PReLU(shared=shared)
        params = prelu.init(jax.random.key(0), x)

        def loss(params):
            error = prelu.apply(params, x) - activations.leaky_relu(x, slope=0.1)
            return jnp.mean(error**2)

        for _ in range(40):
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))
        np.testing.assert_allclose(params["params"]["negative_slope"], expected, atol=1e-2)


class TestMaxout:
    x = jnp.linspace(-1, 1, 41).reshape(-1, 1)

    def apply(self, slopes, offsets):
        params = {"kernel": jnp.array([slopes]), "bias": jnp.array(offsets)}
        return nn.Maxout(1, len(slopes)).apply({"params": {"affine": params}}, self.x)

    def test_two_pieces_are_relu_and_abs_exactly(self):
        np.testing.assert_array_equal(self.apply([1.0, 0.0], [0.0, 0.0]), jax.nn.relu(self.x))
        np.testing.assert_array_equal(self.apply([1.0, -1.0], [0.0, 0.0]), jnp.abs(self.x))

    def test_eight_pieces_approximate_a_parabola(self):
        """Tangents at the middles of 8 intervals, raised by 1/128, miss x^2 by at most 1/128."""
        at = np.arange(-7, 8, 2) / 8
        y = self.apply((2 * at).tolist(), (1 / 128 - at**2).tolist())
        np.testing.assert_allclose(y, self.x**2, atol=1 / 128 + 1e-6)

    def test_convolutional_pieces_belong_to_their_feature(self):
        x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
        maxout = nn.Maxout(4, 3, kernel_size=(3, 2), stride=2, padding="same")
        y, variables = maxout.init_with_output(jax.random.key(1), x)
        conv = nn.Conv(12, (3, 2), stride=2, padding="same")
        conv = conv.apply({"params": variables["params"]["affine"]}, x)
        expected = np.stack([conv[..., 3 * i : 3 * i + 3].max(-1) for i in range(4)], -1)
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        assert sum(p.size for p in jax.tree.leaves(variables)) == 3 * 4 * (3 * 2 * 3 + 1)


@pytest.mark.parametrize(
    "model, at",
    [
        (MLP(3, (4, 5), activation="prelu"), {"activation_0": (4,), "activation_1": (5,)}),
        (
            HighwayMLP(3, depth=4, features=6, activation="prelu"),
            {"activation_0": (6,), "layers/activation": (3, 6)},
        ),
        pytest.param(
            HighwayMLP(3, depth=4, features=6, gated=False, activation="prelu"),
            {"activation_0": (6,), "layers/activation": (3, 6)},
            marks=pytest.mark.slow,
        ),
        (
            HighwayCNN(3, depth=4, features=5, activation="prelu"),
            {"activation_0": (5,), "conv_1/activation": (5,), "conv_2/activation": (5,)},
        ),
    ],
)
def test_each_place_of_a_network_learns_slopes_of_its_own(model, at):
    """With slopes of 1 the network is that of the identity, with slopes of 0 that of ReLU."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables, apply = jax.jit(model.init)(jax.random.key(1), x), jax.jit(model.apply)
    leaves = traverse_util.flatten_dict(variables, sep="/")
    found = {path: leaf for path, leaf in leaves.items() if path.endswith("negative_slope")}
    assert {path: leaf.shape for path, leaf in found.items()} == {
        f"params/{place}/negative_slope": shape for place, shape in at.items()
    }
    others = {path: leaf for path, leaf in leaves.items() if path not in found}
    for slope, name in ((1.0, "linear"), (0.0, "relu")):
        same = others | {path: jnp.full_like(leaf, slope) for path, leaf in found.items()}
        y, _ = apply(traverse_util.unflatten_dict(same, sep="/"), x)
        plain, _ = jax.jit(model.clone(activation=name).apply)(
            traverse_util.unflatten_dict(others, sep="/"), x
        )
        np.testing.assert_allclose(y, plain, rtol=1e-5, atol=1e-6)

    def loss(params):
        return jnp.sum(jnp.sin(model.apply({"params": params}, x)[0]))

    gradient = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]), sep="/")
    assert all(gradient[f"{place}/negative_slope"].any() for place in at)


def test_a_feed_forward_net_learns_its_slopes():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3))
    variables = FeedForward(4, "prelu", bias=False).init(jax.random.key(1), x)
    assert variables["params"]["activation"]["negative_slope"].shape == (4,)


def test_unknown_name():
    with pytest.raises(InputError, match="unknown activation 'reluu'; choose one of: binary_step"):
        nn.activation("reluu")
