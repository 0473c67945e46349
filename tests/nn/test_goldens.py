"""The layers equal PyTorch's, whose results scripts/make_goldens.py saved."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "goldens" / "nn.npz")


def golden(group: str) -> dict[str, np.ndarray]:
    """Returns the arrays of one group by the last part of their names."""
    return {key[len(group) + 1 :]: GOLDEN[key] for key in GOLDEN if key.startswith(group + "/")}


def assert_close(actual: jax.Array, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, options",
    [
        ("conv1d", {"stride": 2, "padding": ((1, 1),)}),
        ("conv2d", {}),
        ("conv2d_strided", {"stride": 2, "padding": ((1, 1),) * 2, "dilation": 2, "groups": 2}),
        ("conv3d", {"padding": ((1, 1),) * 3}),
    ],
)
def test_conv(name, options):
    a = golden(name)
    conv = nn.Conv(a["w"].shape[-1], a["w"].shape[:-2], **options)
    params = {"kernel": jnp.asarray(a["w"]), "bias": jnp.asarray(a["b"])}
    y, vjp = jax.vjp(
        jax.jit(lambda p, x: conv.apply({"params": p}, x)), params, jnp.asarray(a["x"])
    )
    gradient, dx = vjp(jnp.asarray(a["g"]))
    assert_close(y, a["y"])
    assert_close(dx, a["dx"])
    assert_close(gradient["kernel"], a["dw"])
    assert_close(gradient["bias"], a["db"])


@pytest.mark.parametrize(
    "name, pool, options",
    [
        ("max_2x2", nn.max_pool, {"window": 2}),
        ("max_3x3_stride_2", nn.max_pool, {"window": 3, "stride": 2}),
        ("max_3x3_stride_2_padded", nn.max_pool, {"window": 3, "stride": 2, "padded": True}),
        ("average_2x2", nn.average_pool, {"window": 2}),
        (
            "average_3x3_stride_2_padded",
            nn.average_pool,
            {"window": 3, "stride": 2, "padded": True},
        ),
        (
            "average_3x3_stride_2_not_counted",
            nn.average_pool,
            {"window": 3, "stride": 2, "padded": True, "count_include_padding": False},
        ),
    ],
)
def test_pool(name, pool, options):
    a = golden(f"pool/{name}")
    options = dict(options)
    if options.pop("padded", False):
        options["padding"] = ((1, 1), (1, 1))
    y, vjp = jax.vjp(jax.jit(lambda x: pool(x, **options)), jnp.asarray(GOLDEN["pool/x"]))
    assert_close(y, a["y"])
    assert_close(vjp(jnp.asarray(a["g"]))[0], a["dx"])


def test_batch_norm():
    a = {key: jnp.asarray(value) for key, value in golden("norm").items()}
    norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    start = {"mean": jnp.zeros(4), "var": jnp.ones(4)}

    @jax.jit
    def train(scale, bias, x):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": start}
        return norm.apply(variables, x, train=True, mutable=["batch_stats"])

    y, vjp, updated = jax.vjp(train, a["scale"], a["bias"], a["x"], has_aux=True)
    assert_close(y, a["y"])
    for actual, name in zip(vjp(a["g"]), ("dscale", "dbias", "dx"), strict=True):
        assert_close(actual, a[name])
    # PyTorch normalises by the biased variance but keeps the unbiased one.
    n = a["x"].size / 4
    variance = 0.9 + (a["variance"] - 0.9) * (n - 1) / n
    assert_close(updated["batch_stats"]["mean"], a["mean"])
    assert_close(updated["batch_stats"]["var"], variance)
    stats = {"mean": a["mean"], "var": a["variance"]}
    params = {"scale": a["scale"], "bias": a["bias"]}
    assert_close(norm.apply({"params": params, "batch_stats": stats}, a["x"]), a["y_eval"])


@pytest.mark.parametrize(
    "name", ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "softmax"]
)
def test_activation(name):
    a = golden(f"activation/{name}")
    y, vjp = jax.vjp(nn.activation(name), jnp.asarray(GOLDEN["activation/x"]))
    assert_close(y, a["y"])
    assert_close(vjp(jnp.asarray(GOLDEN["activation/g"]))[0], a["dx"])
