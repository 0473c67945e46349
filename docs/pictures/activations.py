"""Pictures of activations and output functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dlcore.nn import activation
from dlcore.nn.activations import leaky_relu, softmax
from pictures.drawing import add, axes, curves, picture

_SHOWN = {
    "Binary step": "binary_step",
    "Linear activation": "linear",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "ReLU": "relu",
    "Leaky ReLU": "leaky_relu",
    "ELU": "elu",
    "Softplus": "softplus",
}


def _curve(name: str) -> Figure:
    figure, (ax,) = axes(height=2.3)
    x = jnp.linspace(-4, 4, 401)
    function = activation(name)
    slope = jax.vmap(jax.grad(lambda z: function(z[None])[0]))(x)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8)
    ax.axvline(0, color="#bbbbbb", linewidth=0.8)
    curves(ax, x, {"value": function(x)})
    ax.plot(x, slope, "--", label="slope")
    ax.set(xlabel="input", ylim=(-1.6, 3.2))
    ax.legend()
    return figure


for _term, _name in _SHOWN.items():
    add(
        f"activation_{_name}",
        (_term,),
        f"Curve of the activation {_term} for inputs from -4 to 4, and of its slope as gradients "
        "take it, dashed.",
        functools.partial(_curve, _name),
    )


@picture(
    "Activation function",
    alt="Curves of eight activations over inputs from -4 to 4: those that saturate on the left, "
    "those that grow without bound on the right.",
)
def activations() -> Figure:
    figure, found = axes(2)
    x = jnp.linspace(-4, 4, 401)
    sides = ("binary_step", "sigmoid", "tanh"), ("linear", "relu", "leaky_relu", "elu", "softplus")
    for ax, names in zip(found, sides, strict=True):
        curves(ax, x, {name: activation(name)(x) for name in names}, xlabel="input")
        ax.set_ylim(-1.6, 4.2)
    return figure


@picture(
    "PReLU",
    alt="A parametric ReLU with slopes 0, 0.25 and 0.6 for negative inputs; the slope is learned.",
)
def prelu() -> Figure:
    figure, (ax,) = axes(height=2.3)
    x = jnp.linspace(-4, 4, 201)
    curves(ax, x, {f"a = {a}": leaky_relu(x, slope=a) for a in (0.0, 0.25, 0.6)}, xlabel="input")
    return figure


@picture(
    "Maxout",
    alt="Three dashed lines and their maximum, a convex curve of straight pieces: a maxout unit.",
)
def maxout() -> Figure:
    figure, (ax,) = axes(height=2.3)
    x = np.linspace(-3, 3, 301)
    lines = np.stack([-x - 0.5, 0.2 * x + 0.3, 1.3 * x - 0.8])
    for line in lines:
        ax.plot(x, line, "--", linewidth=1)
    ax.plot(x, lines.max(0), color="black", linewidth=2.2, label="max of three pieces")
    ax.set(xlabel="input", ylim=(-2, 3.5))
    ax.legend()
    return figure


@picture(
    "Softmax",
    "Softmax temperature",
    alt="Bars of the softmax of five logits at temperatures 0.3, 1 and 5: at the low "
    "temperature nearly all probability is on the largest, at the high one all are nearly "
    "equal.",
)
def softmax_temperature() -> Figure:
    figure, found = axes(3, height=2.1)
    logits = jnp.array([2.0, 1.0, 0.5, -0.5, -1.0])
    for ax, temperature in zip(found, (0.3, 1.0, 5.0), strict=True):
        ax.bar(range(5), softmax(logits, temperature=temperature))
        ax.set(title=f"temperature {temperature:g}", ylim=(0, 1), xticks=range(5))
        ax.set_xticklabels([f"{z:g}" for z in np.asarray(logits)], fontsize=8)
    found[0].set_ylabel("probability")
    found[1].set_xlabel("logit")
    return figure
