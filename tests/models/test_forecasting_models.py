"""Networks of forecasters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.forecasting import ACROSS, FORECASTERS, ConvolutionBody, Forecaster, PatchBody

CONTEXT = jnp.array(np.random.default_rng(0).normal(size=(4, 24, 3)), jnp.float32)
SMALL = {
    **dict.fromkeys(("rnn", "lstm", "gru"), (("features", 5), ("layers", 2))),
    "convolution": (("features", 5), ("layers", 2)),
    "transformer": (("features", 8), ("heads", 2), ("layers", 1), ("patch", 8), ("stride", 4)),
    "linear": (),
}


def made(name, **options):
    model = Forecaster(name, 3, 6, 2, options=SMALL[name], **options)
    return model, jax.jit(model.init)(jax.random.key(0), CONTEXT)


def moved(variables):
    """Parameters of which none is 0, as branches are at first."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return tree.unflatten(
        [
            leaf + 0.3 * jax.random.normal(k, leaf.shape)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
    )


every_forecaster = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("rnn", "gru", "convolution")))
        for name in FORECASTERS
    ],
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("transformer", "linear")))
        for name in FORECASTERS
    ],
)
def test_shapes_rows_and_noise(name):
    model, variables = made(name, reversible=True)
    variables = moved(variables)
    apply = jax.jit(model.apply, static_argnames="train")
    y, activations = apply(variables, CONTEXT)
    assert y.shape == (4, 6, 3, 2)
    assert all(len(leaf) == 4 for leaf in jax.tree.leaves(activations))
    alone = jnp.concatenate([apply(variables, CONTEXT[n : n + 1])[0] for n in range(4)])
    np.testing.assert_allclose(alone, y, atol=1e-4)
    noisy = [apply(variables, CONTEXT, train=True, rngs={"dropout": jax.random.key(n)})[0]
             for n in (0, 0, 1)]  # fmt: skip
    np.testing.assert_array_equal(noisy[0], noisy[1])
    if name != "linear":
        assert not np.allclose(noisy[0], noisy[2])
        assert not np.allclose(noisy[0], y)


@every_forecaster
def test_which_columns_a_forecast_depends_on(name):
    model, variables = made(name)
    variables = moved(variables)

    def first(context):
        return (model.apply(variables, context)[0][:, :, 0] ** 2).sum()

    gradient = np.abs(np.asarray(jax.jit(jax.grad(first))(CONTEXT))).sum((0, 1))
    assert gradient[0] > 0
    assert (gradient[1:] > 0).all() if name in ACROSS else (gradient[1:] == 0).all()


def test_columns_alone_share_their_weights():
    model, variables = made("transformer")
    variables = moved(variables)
    apply = jax.jit(model.apply)
    y, _ = apply(variables, CONTEXT)
    swapped, _ = apply(variables, CONTEXT[..., ::-1])
    np.testing.assert_allclose(swapped, y[:, :, ::-1], atol=1e-5)


def test_the_linear_network_is_a_product():
    model, variables = made("linear")
    head = variables["params"]["network"]["head"]
    expected = np.einsum("bcd,ck->bdk", CONTEXT, head["kernel"]).reshape(4, 3, 6, 2)
    y, _ = model.apply(variables, CONTEXT)
    np.testing.assert_allclose(y, expected.transpose(0, 2, 1, 3), atol=1e-5)


@pytest.mark.parametrize("reversible", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_residual_starts_as_its_linear_map(reversible):
    model, variables = made("gru", residual=True, reversible=reversible)
    kernel = jax.random.normal(jax.random.key(1), (24, 6))
    variables = {**variables, "linear": {"kernel": kernel, "bias": jnp.arange(6.0)}}
    mean, deviation = 0.0, 1.0
    if reversible:
        mean = CONTEXT.mean(1, keepdims=True)
        deviation = jnp.sqrt(CONTEXT.var(1, keepdims=True) + 1e-5)
    x = (CONTEXT - mean) / deviation
    expected = np.einsum("bcd,ch->bhd", x, kernel) + np.arange(6.0)[:, None]
    expected = expected * deviation + mean
    y, _ = jax.jit(model.apply)(variables, CONTEXT)
    for quantile in (0, 1):
        np.testing.assert_allclose(y[..., quantile], expected, atol=1e-4)


def test_the_convolutions_are_causal_and_see_what_they_should():
    body = ConvolutionBody(features=4, layers=2, kernel=3)
    variables = moved(body.init(jax.random.key(0), CONTEXT))

    def block(context):
        _, activations = body.apply(variables, context)
        return activations["block_1"][:, 15].sum()

    gradient = np.abs(np.asarray(jax.grad(block)(CONTEXT))).sum((0, 2))
    assert (gradient[16:] == 0).all()
    # 1 + 2 * (3 - 1) * (2^2 - 1) = 13 steps.
    assert (gradient[:3] == 0).all() and gradient[3] > 0


def test_the_patches_are_those_of_the_paper():
    # (L - P) / S + 2 patches (Nie et al. 2023, section 3.1): 42 of 336 steps.
    body = PatchBody()
    variables = jax.eval_shape(body.init, jax.random.key(0), jnp.zeros((1, 336, 1)))
    positions = variables["params"]["transformer"]["position_embedding"]
    assert positions.shape == (42, 16)


@pytest.mark.parametrize("options", [(("patch", 40),), (("stride", 0),), (("patch", 0),)])
def test_patches_that_do_not_fit(options):
    with pytest.raises(InputError, match="do not fit into a context of 24"):
        Forecaster("transformer", 3, 6, options=options).init(jax.random.key(0), CONTEXT)


def test_an_unknown_body():
    with pytest.raises(InputError, match="unknown forecaster 'tcn'; choose one of: convolution"):
        Forecaster("tcn", 3, 6).init(jax.random.key(0), CONTEXT)
