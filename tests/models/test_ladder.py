"""The ladder network against its equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.ladder import GaussianCombinator, LadderNetwork, VanillaCombinator

RNG = np.random.default_rng(0)
B, WIDTHS = 6, (5, 4, 3, 2)
X = RNG.normal(size=(B, 5)).astype(np.float32)
NOISE = [0.3 * RNG.normal(size=(B, width)).astype(np.float32) for width in WIDTHS]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gaussian(z, u, a):
    mu = a[0] * sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
    v = a[5] * sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
    return (z - mu) * v + mu


def vanilla(z, u, w):
    inside = w[5] + w[6] * z + w[7] * u + w[8] * z * u
    return w[0] + w[1] * z + w[2] * u + w[3] * z * u + w[4] * sigmoid(inside)


@pytest.mark.parametrize(
    ("combine", "equation", "name"),
    [(GaussianCombinator(), gaussian, "a"), (VanillaCombinator(), vanilla, "w")],
)
def test_each_combinator_is_its_equation_and_begins_near_the_noisy_layer(combine, equation, name):
    z, u = RNG.normal(size=(2, B, 3)).astype(np.float32)
    variables = combine.init(jax.random.key(0), z, u)
    start = variables["params"][name]
    first = combine.apply(variables, z, u)
    np.testing.assert_allclose(first, equation(z, u, np.asarray(start)[:, None]), rtol=1e-5)
    if name == "a":
        np.testing.assert_allclose(first, z, atol=1e-6)
    table = RNG.normal(size=start.shape).astype(np.float32)
    found = combine.apply({"params": {name: table}}, z, u)
    np.testing.assert_allclose(found, equation(z, u, table[:, None]), rtol=1e-4, atol=1e-5)


def whitened(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def encoded(params, noise):
    """z of each layer, the moments before the normalisation, and the logits."""
    h = z = X + noise[0]
    layers, moments = [z], [(0.0, 1.0)]
    for number in range(3):
        before = h @ params[f"up_{number}"]["kernel"]
        moments.append((before.mean(0), np.sqrt(before.var(0) + 1e-5)))
        z = whitened(before) + noise[number + 1]
        y = z + params[f"bias_{number + 1}"]
        h = np.maximum(y, 0) if number < 2 else params["scale"] * y
        layers.append(z)
    return layers, moments, h


def made(denoise="all", combinator="gaussian"):
    net = LadderNetwork(5, 2, (4, 3), denoise, combinator)
    variables = jax.jit(net.init)(jax.random.key(0), X)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * RNG.normal(size=leaf.shape).astype(np.float32),
        variables["params"],
    )
    return net, {**variables, "params": params}


def costs_of(net, variables):
    def run(variables):
        def encode(noise):
            return net.apply(
                variables, X, noise, train=True, mutable=["batch_stats"], method="encode"
            )

        (clean, state), (noisy, _) = encode(None), encode([jnp.asarray(n) for n in NOISE])
        costs = net.apply(variables, clean, noisy, train=True, method="costs")
        return clean, noisy, state, {str(layer): cost for layer, cost in costs.items()}

    return jax.jit(run)(variables)


@pytest.mark.parametrize(
    ("combinator", "denoise"),
    [
        ("gaussian", "all"),
        pytest.param("gaussian", "top", marks=pytest.mark.slow),
        pytest.param("vanilla", "all", marks=pytest.mark.slow),
        ("vanilla", "top"),
    ],
)
def test_encoders_and_costs_are_those_of_the_paper(denoise, combinator):
    net, variables = made(denoise, combinator)
    params = jax.tree.map(np.asarray, variables["params"])
    clean, noisy, state, costs = costs_of(net, variables)
    layers, moments, logits = encoded(params, [0.0] * 4)
    noisy_layers, _, noisy_logits = encoded(params, NOISE)
    for found, expected in zip(clean.layers + noisy.layers, layers + noisy_layers, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(clean.logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(noisy.logits, noisy_logits, rtol=1e-4, atol=1e-4)

    equation, name = {"gaussian": (gaussian, "a"), "vanilla": (vanilla, "w")}[combinator]
    estimate = np.exp(noisy_logits - noisy_logits.max(1, keepdims=True))
    estimate /= estimate.sum(1, keepdims=True)
    wanted = {}
    for layer in [3, 2, 1, 0] if denoise == "all" else [3]:
        if layer < 3:
            estimate = estimate @ params[f"down_{layer}"]["kernel"]
        u, table = whitened(estimate), params[f"combine_{layer}"][name][:, None]
        estimate = equation(noisy_layers[layer], u, table)
        mean, deviation = moments[layer]
        wanted[str(layer)] = ((layers[layer] - (estimate - mean) / deviation) ** 2).mean(1)
    assert set(costs) == set(wanted)
    for layer, cost in wanted.items():
        np.testing.assert_allclose(costs[layer], cost, rtol=2e-3, atol=1e-4, err_msg=layer)
    # The clean moments run, and an evaluation goes by them.
    running = state["batch_stats"]["whiten_0"]["mean"]
    np.testing.assert_allclose(running, 0.1 * moments[1][0], rtol=1e-4, atol=1e-5)


def test_an_evaluation_looks_at_each_example_alone():
    net, variables = made()
    apply = jax.jit(net.apply)
    whole = apply(variables, X)
    np.testing.assert_allclose(apply(variables, X[:2]), whole[:2], rtol=1e-5, atol=1e-6)


def test_without_a_decoder_there_are_no_costs_and_no_parameters_of_one():
    net, variables = made("none")
    names = set(variables["params"])
    assert not any(name.startswith(("combine", "down")) for name in names)
    # Weights, biases after the noise, and one scale.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 38 + 9 + 2
