"""How likely images are to a Boltzmann machine: log p of an RBM, a bound of it of a network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.models.boltzmann import (
    MOST_EXACT,
    DeepBelief,
    Machine,
    Stack,
    ais,
    bound,
    enumerated,
    log_partition,
    require_enumerable,
    reverse_ais,
)
from dlcore.models.boltzmann.belief import means_up
from dlcore.types import Params

METHODS = ("auto", "exact", "ais", "none")
# Images that are annealed backwards.
_BACKWARDS = 100
# Estimates of log Z from both sides that agree are less far apart, in nats.
_APART = 1.0


class Judged(NamedTuple):
    """How a machine was judged.

    Attributes:
        metrics: by name, in nats.
        summary: further entries of summary.json: the estimates of log Z.
        lines: for the log.
    """

    metrics: dict[str, float]
    summary: dict[str, Any]
    lines: list[str]


class LogZ(NamedTuple):
    """Log Z of a machine, in nats.

    Attributes:
        value: exact, or from below on the average.
        low: of its error bar; equal to `value` where that is exact.
        high: of its error bar.
        above: an estimate that is from above on the average.
        effective: chains of equal weights that would tell as much; None where it is exact.
    """

    value: float
    low: float
    high: float
    above: float
    effective: float | None

    def __str__(self) -> str:
        if self.effective is None:
            return f"{self.value:.3f} exactly"
        return (
            f"{self.value:.3f} by annealing ({self.low:.3f} to {self.high:.3f}, as of "
            f"{self.effective:.0f} equal chains), and by annealing backwards {self.above:.3f}"
        )


def require_exact(belief: DeepBelief) -> None:
    """Raises InputError where a layer has too many units for an exact log Z."""
    for rbm in belief.layers:
        require_enumerable(rbm.units, rbm.visible, rbm.hidden)


def judge(
    belief: DeepBelief,
    stack: Callable[[Params], Stack],
    params: Params,
    images: Mapping[str, jax.Array],
    mean: np.ndarray,
    config: Any,
) -> Judged:
    """Judges a trained machine.

    An RBM has the "log_likelihood" of the test images and the "free_energy_gap", by which their
    free energy is above that of training images: it grows where a machine overfits (Hinton 2010,
    section 16). A network has a bound of each number of layers.

    Args:
        belief: the network.
        stack: gives that which the run reports.
        params: the parameters.
        images: the visible units of "train" and "test", [N, V].
        mean: of those of training images, [V].
        config: of the run.
    """
    if config.model == "rbm":
        return _judge_machine(stack(params).top, images, mean, config)
    return _judge_network(belief, stack, params, images, mean, config)


def _judge_machine(
    machine: Machine, images: Mapping[str, jax.Array], mean: np.ndarray, config: Any
) -> Judged:
    energy = jax.jit(lambda v: machine.free_energy(v).mean())
    train, test = (float(energy(images[name])) for name in ("train", "test"))
    metrics, lines = {"free_energy_gap": test - train}, []
    log_z = find_log_z(machine, mean, images["test"], config)
    if log_z is None:
        return Judged(metrics, {}, [])
    metrics["log_likelihood"] = -test - log_z.value
    metrics["train_log_likelihood"] = -train - log_z.value
    line = f"log Z: {log_z}; log p of the test images: {metrics['log_likelihood']:.3f} nats"
    if log_z.effective is not None:
        # Whatever is wrong with the two estimates, they are wrong on different sides.
        metrics["log_likelihood_below"] = -test - log_z.above
        line += f", and backwards {metrics['log_likelihood_below']:.3f}"
    lines += [line, *_warning(log_z)]
    return Judged(metrics, {"log_z": log_z._asdict()}, lines)


def _judge_network(
    belief: DeepBelief,
    stack: Callable[[Params], Stack],
    params: Params,
    images: Mapping[str, jax.Array],
    mean: np.ndarray,
    config: Any,
) -> Judged:
    networks = {str(n + 1): belief.stack(params, n + 1) for n in range(len(belief.hidden))}
    if config.up_down_steps:
        networks["up_down"] = stack(params)
    metrics: dict[str, float] = {}
    summary, lines = {}, []
    measure = jax.jit(lambda stack, v, key: bound(stack, v, 0.0, key).mean())
    above = jax.jit(lambda stack, v: means_up(stack, v))
    for name, network in networks.items():
        # The visible units of the top are the hidden ones of the layer below.
        inputs = {part: [v, *above(network, v)][-2] for part, v in images.items()}
        top_mean = np.asarray(inputs["train"].mean(0)) if network.up else mean
        units = inputs["test"]
        if network.up:
            noise = jax.random.uniform(jax.random.key(config.seed), units.shape)
            units = (noise < units).astype(units.dtype)
        log_z = find_log_z(network.top, top_mean, units, config)
        if log_z is None:
            return Judged({}, {}, [])
        value = float(measure(network, images["test"], jax.random.key(config.seed))) - log_z.value
        metrics[f"bound_{name}"] = value
        summary[f"log_z_{name}"] = log_z._asdict()
        what = "after up-down training" if name == "up_down" else f"of {name} layer(s)"
        lines.append(f"bound of log p {what}: {value:.3f} nats; log Z of the top: {log_z}")
        lines += _warning(log_z)
    return Judged(metrics, summary, lines)


def _warning(log_z: LogZ) -> list[str]:
    """Returns a line for an estimate of log Z that cannot be trusted."""
    apart = log_z.above - log_z.value
    if apart <= _APART:
        return []
    return [
        f"warning: the two estimates of log Z are {apart:.1f} nats apart, and the true one is "
        "likely between them; the same command with more --ais_steps brings them together"
    ]


def find_log_z(machine: Machine, mean: np.ndarray, examples: jax.Array, config: Any) -> LogZ | None:
    """Returns log Z by --log_likelihood; None where that is none.

    Args:
        machine: the machine.
        mean: of its visible units over the training data, [V], from where chains start.
        examples: visible units, [N, V], from which the way back starts.
        config: of the run.

    Raises:
        InputError: for an exact one of too many units.
    """
    method = config.log_likelihood
    if method == "none":
        return None
    if method == "auto":
        few = enumerated(machine.units, *machine.kernel.shape) <= MOST_EXACT
        method = "exact" if few else "ais"
    if method == "exact":
        exact = log_partition(machine)
        return LogZ(exact, exact, exact, exact, None)
    precision = None if machine.precision is None else np.asarray(machine.precision)
    base = jnp.asarray(machine.units.field_of(mean, precision), jnp.float32)
    keys = jax.random.split(jax.random.key(config.seed))
    found = ais(machine, base, keys[0], chains=config.ais_chains, steps=config.ais_steps)
    chosen = examples[:: max(1, len(examples) // _BACKWARDS)][:_BACKWARDS]
    above, _ = reverse_ais(machine, base, chosen, keys[1], steps=config.ais_steps)
    return LogZ(found.value, found.low, found.high, above, found.effective)
