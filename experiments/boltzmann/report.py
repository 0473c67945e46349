"""The report sections of a Boltzmann machine: chains over time, samples and filters."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.launch.stages import strip_sections, write_row
from dlcore.models.boltzmann import Machine, Stack
from dlcore.models.boltzmann.belief import drawn_up
from dlcore.report import Section, picture_section, plots
from dlcore.types import Params

_SHOWN = 10
# Steps of Gibbs sampling from noise to a sample as training goes.
_SAMPLING = 200
# The steps of Gibbs sampling between the rows of a strip.
_STEPS = (1, 9, 90, 900)


def sections(task: Any, params: Params) -> list[Section]:
    """Shows chains that start at test images, chains that start at noise, and filters.

    Args:
        task: the job.
        params: the parameters.
    """
    stack = task.stack(params)
    text = f"The means of the pixels after {_SAMPLING} steps of Gibbs sampling from the same noise."
    strip = strip_sections(task.workdir, _SHOWN, text=text)
    return [*strip, *_chains(task, stack), *_filters(task, params)]


def write_samples(task: Any, stack: Stack, step: int) -> None:
    """Writes a row of samples that start from the same noise at every step.

    Args:
        task: the job.
        stack: the network.
        step: after which.
    """
    key = jax.random.key(task.config.seed)
    _, means = task.walk(stack, _noise(stack.top, key), key, _SAMPLING)
    write_row(task.workdir, task.pictures(means), step)


def _noise(top: Machine, key: jax.Array) -> jax.Array:
    """Returns visible units of the top that are drawn without a field, [N, V]."""
    shape = _SHOWN, len(top.visible_bias)
    precision = None if top.precision is None else jnp.ones_like(top.precision)
    return top.units.draw(jnp.zeros(shape), precision, top.units.noise(key, shape))


def _chains(task: Any, stack: Stack) -> Iterator[Section]:
    key = jax.random.key(task.config.seed)
    test = task.judged["test"]
    images = test.gather(np.arange(_SHOWN) % len(test))["image"]
    v = task.visible(jnp.asarray(images))
    starts = {
        "chains": ([*drawn_up(stack, v, key)] or [v])[-1],
        "samples": _noise(stack.top, key),
    }
    titles = {"chains": "Chains from test images", "samples": "Chains from noise"}
    for name, units in starts.items():
        rows = {"test images": images} if name == "chains" else {}
        total = 0
        for steps in _STEPS:
            total += steps
            units, means = task.walk(stack, units, jax.random.fold_in(key, total), steps)
            rows[f"{total} step{'s' if total > 1 else ''}"] = task.pictures(means)
        yield picture_section(
            titles[name],
            name,
            functools.partial(plots.plot_rows, rows),
            text="The means of the pixels after steps of Gibbs sampling in the uppermost machine.",
        )


def _filters(task: Any, params: Params) -> Iterator[Section]:
    """Yields the weights of each layer's units to the pixels, through the layers below."""
    kernel = None
    belief = task.belief
    for n, machine in enumerate(belief.machines(params)):
        own = np.asarray(machine.kernel, np.float64)
        if kernel is None:
            count = len(own) // int(np.prod(task.info.image_shape))
            # Of a pixel of several levels, how much brighter its unit makes it.
            brighter = np.linspace(-1, 1, count) if count > 1 else np.ones(1)
            own = np.einsum("pkh,k->ph", own.reshape(-1, count, own.shape[-1]), brighter)
        kernel = own if kernel is None else kernel @ own
        filters = kernel.reshape(*task.info.image_shape, -1)
        yield picture_section(
            f"Filters of layer {n + 1}",
            f"filters_{n + 1}",
            functools.partial(plots.plot_filters, filters, layer=f"Layer {n + 1}"),
            text="" if n == 0 else "Products with the weights of the layers below.",
        )
