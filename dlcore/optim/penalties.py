"""LASSO, ridge and elastic net: penalties added to the loss, proximal steps and constraints.

The elastic net of strength lambda and mix a adds to the loss

    lambda * ((1 - a) * ||theta||_1 + a * ||theta||_2^2)

(Zou & Hastie 2005, with their a). LASSO (Tibshirani 1996) is a = 0, ridge is a = 1. Mind the
conventions: the squared norm has no factor 1/2, and a weighs the squared norm. theta are the leaves
that the rules choose, by default the matrices (`selection.is_matrix`).

The constrained forms bound a norm of theta instead: ||theta||_1 <= t is LASSO as Tibshirani defines
it, and ||theta||_2 <= t is ridge; for each strength some t leads to the same minimum.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError, pick
from dlcore.optim.schedules import Schedule
from dlcore.optim.selection import weights
from dlcore.paths import Rules
from dlcore.types import Aux, Batch, LossFn, Mean, Params, PyTree

Penalty = Callable[[Params], jax.Array]


def elastic_net(strength: float, *, mix: float, rules: Rules[bool] = ()) -> Penalty:
    """Makes the penalty strength * ((1 - mix) * ||theta||_1 + mix * ||theta||_2^2).

    Args:
        strength: lambda, 0 or more.
        mix: the share a of the squared norm, in [0, 1].
        rules: rules that are true for penalised leaves; where none matches, matrices are.

    Returns:
        A function of the parameters.

    Raises:
        InputError: when a number is outside its range, or (on call) a rule matches no path.

    >>> penalty = elastic_net(0.5, mix=0.25)
    >>> float(penalty({"kernel": jnp.array([[1.0, -3.0]]), "bias": jnp.array([9.0])}))
    2.75
    """
    _check(strength, mix)

    def penalty(params: Params) -> jax.Array:
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
    """Makes the penalty strength * ||theta||_1; see `elastic_net`.

    Its gradient makes values small, but not exactly zero, as `proximal` does.
    """
    return elastic_net(strength, mix=0.0, rules=rules)


def ridge(strength: float, *, rules: Rules[bool] = ()) -> Penalty:
    """Makes the penalty strength * ||theta||_2^2; see `elastic_net`."""
    return elastic_net(strength, mix=1.0, rules=rules)


def with_penalty(loss_fn: LossFn, penalty: Penalty, *, name: str = "penalty") -> LossFn:
    """Adds a penalty to the mean of a loss function.

    The penalty has the weight of the loss, so that it counts once after the parts of a batch
    (accumulation, padding, devices) are merged.

    Args:
        loss_fn: the loss function.
        penalty: a function of the parameters.
        name: the metric under which the penalty is reported.
    """

    def penalised(
        params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        loss, aux = loss_fn(params, model_state, batch, rng)
        mean = Mean(penalty(params) * loss.weight, loss.weight)
        total = Mean(loss.total + mean.total, loss.weight)
        return total, aux._replace(metrics={**aux.metrics, name: mean})

    return penalised


class ScikitLearn(NamedTuple):
    """The arguments of `sklearn.linear_model.ElasticNet` (and, except l1_ratio, of `Lasso`)."""

    alpha: float
    l1_ratio: float


def to_scikit_learn(strength: float, mix: float) -> ScikitLearn:
    """Converts an elastic net on half the mean square to scikit-learn's arguments.

    scikit-learn minimises ||y - Xw||^2 / (2n) + alpha * (r ||w||_1 + (1 - r) / 2 ||w||_2^2). Equal
    coefficients give alpha = strength * (1 + mix) and r = l1_ratio = (1 - mix) / (1 + mix). (The
    often quoted l1_ratio = 1 - mix forgets the 1/2.) For a loss of c times the mean square,
    alpha = strength * (1 + mix) / (2c).

    Raises:
        InputError: when a number is outside its range.

    >>> to_scikit_learn(0.5, mix=1.0)
    ScikitLearn(alpha=1.0, l1_ratio=0.0)
    """
    _check(strength, mix)
    return ScikitLearn(alpha=strength * (1 + mix), l1_ratio=(1 - mix) / (1 + mix))


class ProximalState(NamedTuple):
    """The number of steps taken."""

    steps: jax.Array


def proximal(
    learning_rate: float | Schedule, *, l1: float = 0.0, l2: float = 0.0, rules: Rules[bool] = ()
) -> optax.GradientTransformation:
    """Takes the proximal step of l1 * ||theta||_1 + l2 * ||theta||_2^2, as the last of a chain.

    With x = theta + update and the learning rate eta, the step gives
    theta = sign(x) * max(|x| - eta * l1, 0) / (1 + 2 * eta * l2), which makes weights exactly 0.
    After sgd this is the proximal gradient method (Daubechies et al. 2004), which minimises loss
    plus penalty.

    Args:
        learning_rate: the learning rate of the optimizer before it.
        l1: strength * (1 - mix) of an elastic net.
        l2: strength * mix of an elastic net.
        rules: rules that are true for the leaves to shrink; where none matches, matrices are.
            Beside an optimizer that freezes leaves, give the step to it as `correct`.

    Raises:
        InputError: when a strength is negative, or (on init) a rule matches no path.

    >>> tx = optax.chain(optax.sgd(0.5), proximal(0.5, l1=1.0))
    >>> w = jnp.array([[0.25, -2.0]])
    >>> updates, _ = tx.update(jnp.zeros((1, 2)), tx.init(w), w)
    >>> (w + updates).tolist()
    [[0.0, -1.5]]
    """
    _check(l1, 0.0)
    _check(l2, 0.0)

    def init(params: Params) -> ProximalState:
        weights(params, rules)
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(
        updates: Params, state: ProximalState, params: Params
    ) -> tuple[Params, ProximalState]:
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


_BALLS = {
    "l1": optax.projections.projection_l1_ball,
    "l2": optax.projections.projection_l2_ball,
}


def projection(
    norm: str, radius: float, *, rules: Rules[bool] = ()
) -> optax.GradientTransformation:
    """Projects the parameters after a step onto a ball, as the last of a chain.

    theta becomes the nearest point with ||theta||_1 <= radius (Duchi et al. 2008, which makes
    weights exactly 0) or ||theta||_2 <= radius; within the ball it stays. After sgd this is the
    projected gradient method, which minimises the loss under the constraint. theta are the chosen
    leaves all together.

    Args:
        norm: "l1" or "l2".
        radius: the radius of the ball.
        rules: as for `proximal`.

    Raises:
        InputError: for an unknown norm, when the radius is not positive, or (on init) a rule
            matches no path.

    >>> tx = optax.chain(optax.sgd(0.5), projection("l1", 2.0))
    >>> w = jnp.array([[0.25, -3.0]])
    >>> updates, _ = tx.update(jnp.zeros((1, 2)), tx.init(w), w)
    >>> (w + updates).tolist()
    [[0.0, -2.0]]
    """
    project = pick("norm", norm, _BALLS)
    if not (math.isfinite(radius) and radius > 0):
        raise InputError(f"radius {radius} of a ball is not positive; give a number > 0")

    def init(params: Params) -> optax.EmptyState:
        weights(params, rules)
        return optax.EmptyState()

    def update(
        updates: Params, state: optax.EmptyState, params: Params
    ) -> tuple[Params, optax.EmptyState]:
        is_weight = weights(params, rules)
        moved = jax.tree.map(
            lambda chosen, update, param: param + update if chosen else optax.MaskedNode(),
            is_weight,
            updates,
            params,
        )
        with jax.numpy_dtype_promotion("standard"):  # Optax divides sums by integers
            nearest = project(moved, radius)
        projected = jax.tree.map(
            lambda chosen, update, param, near: (
                near.astype(param.dtype) - param if chosen else update
            ),
            is_weight,
            updates,
            params,
            nearest,
        )
        return projected, state

    return optax.GradientTransformation(init, update)


def _check(strength: float, mix: float) -> None:
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"penalty strength {strength} is not a number >= 0; give one")
    if not 0 <= mix <= 1:
        raise InputError(f"elastic net mix {mix} is not in [0, 1]; 0 is LASSO, 1 is ridge")
