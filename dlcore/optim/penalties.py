"""LASSO, ridge and elastic net, as penalties of the loss and as a proximal step.

The elastic net of strength lambda and mix a adds to the loss

    lambda * ((1 - a) * ||theta||_1 + a * ||theta||_2^2)

(Zou & Hastie 2005, whose a it is). LASSO (Tibshirani 1996) is a = 0, ridge is a = 1. Mind the
conventions: there is no 1/2 before the squared norm, and a weighs that one. theta are the leaves
that the rules say, by default those of two or more dimensions.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError
from dlcore.optim.schedules import Schedule
from dlcore.optim.selection import weights
from dlcore.paths import Rules
from dlcore.types import Mean

Penalty = Callable[[Any], jax.Array]


def elastic_net(strength: float, *, mix: float, rules: Rules[bool] = ()) -> Penalty:
    """strength * ((1 - mix) * ||theta||_1 + mix * ||theta||_2^2), a function of the parameters.

    Args:
        strength: lambda, 0 or more.
        mix: the share of the squared norm, in [0, 1].
        rules: which leaves are penalised; where no rule matches, those of two or more dimensions.

    Raises:
        InputError: when a number is outside its range, or (on call) a rule matches no path.
    """
    _check(strength, mix)

    def penalty(params: Any) -> jax.Array:
        chosen = [
            leaf
            for leaf, is_chosen in zip(
                jax.tree.leaves(params), jax.tree.leaves(weights(params, rules)), strict=True
            )
            if is_chosen
        ]
        l1 = optax.tree.norm(chosen, ord=1)
        l2 = optax.tree.norm(chosen, squared=True)
        return strength * ((1 - mix) * l1 + mix * l2)

    return penalty


def lasso(strength: float, *, rules: Rules[bool] = ()) -> Penalty:
    """strength * ||theta||_1; see `elastic_net`. Gives small values, not zeros: see `proximal`."""
    return elastic_net(strength, mix=0.0, rules=rules)


def ridge(strength: float, *, rules: Rules[bool] = ()) -> Penalty:
    """strength * ||theta||_2^2; see `elastic_net`. Its gradient is 2 * strength * theta."""
    return elastic_net(strength, mix=1.0, rules=rules)


def with_penalty(
    loss_fn: Callable[..., tuple[Mean, Any]], penalty: Penalty, *, name: str = "penalty"
) -> Callable[..., tuple[Mean, Any]]:
    """The loss function whose mean is that of `loss_fn` plus the penalty.

    The penalty is counted with the weight of the loss, so that merging the parts of a batch
    (accumulation, padding, devices) gives it once.

    Args:
        loss_fn: (params, model_state, batch, rng) -> (Mean, Aux).
        penalty: a function of the parameters.
        name: the metric under which the penalty is reported.
    """

    def penalised(params: Any, *args: Any) -> tuple[Mean, Any]:
        loss, aux = loss_fn(params, *args)
        part = Mean(penalty(params) * loss.weight, loss.weight)
        total = Mean(loss.total + part.total, loss.weight)
        return total, aux._replace(metrics={**aux.metrics, name: part})

    return penalised


class ScikitLearn(NamedTuple):
    """The arguments of `sklearn.linear_model.ElasticNet` (and, but for l1_ratio, of `Lasso`)."""

    alpha: float
    l1_ratio: float


def to_scikit_learn(strength: float, mix: float) -> ScikitLearn:
    """scikit-learn's arguments for the elastic net of `strength` and `mix` on half the mean square.

    scikit-learn minimises ||y - Xw||^2 / (2n) + alpha * (r ||w||_1 + (1 - r) / 2 ||w||_2^2). Equal
    coefficients give alpha = strength * (1 + mix) and r = l1_ratio = (1 - mix) / (1 + mix). (The
    often quoted l1_ratio = 1 - mix forgets the 1/2.) For a loss of c times the mean square,
    alpha = strength * (1 + mix) / (2c).

    Raises:
        InputError: when a number is outside its range.
    """
    _check(strength, mix)
    return ScikitLearn(alpha=strength * (1 + mix), l1_ratio=(1 - mix) / (1 + mix))


class ProximalState(NamedTuple):
    """The number of steps taken."""

    steps: jax.Array


def proximal(
    learning_rate: float | Schedule, *, l1: float = 0.0, l2: float = 0.0, rules: Rules[bool] = ()
) -> optax.GradientTransformation:
    """The proximal step of l1 * ||theta||_1 + l2 * ||theta||_2^2: the last link of a chain.

    After the step theta is sign(x) * max(|x| - eta * l1, 0) / (1 + 2 * eta * l2), x being where the
    links before had moved it and eta the learning rate: exact zeros. Behind sgd this is the
    proximal gradient method (Daubechies et al. 2004), which minimises loss plus penalty.

    Args:
        learning_rate: that of the optimizer before it.
        l1: strength * (1 - mix) of an elastic net.
        l2: strength * mix of an elastic net.
        rules: which leaves it acts on; where no rule matches, those of two or more dimensions.
            Leaves that the optimizer freezes need a rule of False here too.

    Raises:
        InputError: when a strength is negative, or (on init) a rule matches no path.
    """
    _check(l1, 0.0)
    _check(l2, 0.0)

    def init(params: Any) -> ProximalState:
        weights(params, rules)
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: ProximalState, params: Any) -> tuple[Any, ProximalState]:
        eta = learning_rate(state.steps) if callable(learning_rate) else learning_rate

        def shrink(is_weight: bool, update: jax.Array, param: jax.Array) -> jax.Array:
            if not is_weight:
                return update
            moved = param + update
            kept = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - eta * l1, 0.0)
            return kept / (1.0 + 2.0 * eta * l2) - param

        shrunk = jax.tree.map(shrink, weights(params, rules), updates, params)
        return shrunk, ProximalState(optax.safe_increment(state.steps))

    return optax.GradientTransformation(init, update)


def _check(strength: float, mix: float) -> None:
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"penalty strength {strength} is not a number >= 0; give one")
    if not 0 <= mix <= 1:
        raise InputError(f"elastic net mix {mix} is not in [0, 1]; 0 is LASSO, 1 is ridge")
