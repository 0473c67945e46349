"""Optimizers by name: Optax's update rules, with decay, freezing and rate factors by path rules.

All optimizers are the same chain and differ in its second link only, the update rule:

    clip -> update rule -> + weight_decay * params -> factors -> * -learning_rate -> correct
         -> average

Weight decay is decoupled (Loshchilov & Hutter 2019): it is added after the update rule and scaled
by the learning rate, never divided by the gradient's statistics. LAMB's trust ratio follows the
decay, as in its paper. Frozen parameters are outside the chain: they have no optimizer state, count
in no norm and keep their bits.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from dlcore.errors import InputError, pick
from dlcore.optim.averaging import average_weights
from dlcore.optim.plateau import Plateau
from dlcore.optim.reports import Reported
from dlcore.optim.schedules import Schedule
from dlcore.optim.selection import is_matrix, weights
from dlcore.optim.units import is_table
from dlcore.paths import Rules, match
from dlcore.types import Params, PyTree


def optimizer(
    name: str,
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    decay_rules: Rules[bool] = (),
    clip: optax.GradientTransformation | None = None,
    frozen: Rules[bool] = (),
    factors: Rules[float] = (),
    correct: optax.GradientTransformation | None = None,
    average: float | None = None,
    reducible: bool = False,
    **hyper: float | None,
) -> optax.GradientTransformation:
    """Makes the named optimizer; its state reports the "learning_rate" of the last step.

    The names and their hyperparameters, with the papers' defaults, are:

    - sgd (Robbins & Monro 1951): no hyperparameters.
    - momentum (Polyak 1964), nesterov (Sutskever et al. 2013): decay=0.9, dampening=0;
      v = decay * v + (1 - dampening) * g. Dampening 0 is the heavy ball, dampening = decay the
      exponential moving average, which is the heavy ball at learning_rate * (1 - decay).
    - adagrad (Duchi et al. 2011): initial_accumulator_value=0, eps=1e-10 (inside the root).
    - adadelta (Zeiler 2012): rho=0.95, eps=1e-6. The paper has no learning rate: give 1.
    - rmsprop (Tieleman & Hinton 2012): decay=0.9, eps=1e-8, eps_in_sqrt=True, centered=False,
      momentum=0. With eps=0 an element whose gradients were all 0 stays where it is.
    - adam (Kingma & Ba 2015), adamw (Loshchilov & Hutter 2019): b1=0.9, b2=0.999, eps=1e-8,
      eps_root=0, bias_correction=True. The two are the same here: the decay is always decoupled.
    - amsgrad (Reddi et al. 2018): b1=0.9, b2=0.999, eps=1e-8, eps_root=0, bias_correction=True;
      Adam that divides by the root of the largest second moment yet. The paper's algorithm 2 has
      bias_correction=False; with True it is the largest of the corrected moments.
    - lamb (You et al. 2020): b1=0.9, b2=0.999, eps=1e-6.
    - lion (Chen et al. 2023): b1=0.9, b2=0.99.
    - muon (Jordan et al. 2024): beta=0.95, ns_steps=5, nesterov=True for the kernels of dense
      layers and image convolutions (2 and 4 dimensions; all but the last are its rows); Adam with
      the same `nesterov`, b1=0.9, b2=0.999, eps=1e-8 for the rest and for tables of words
      (`embedding`, `output_kernel`), most of whose rows have no gradient in a step;
      consistent_rms=0.2 makes one learning rate and decay, Adam's, fit both (Liu et al. 2025), None
      is Jordan's scale.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: a number, or a function of the steps taken.
        weight_decay: the share of a parameter that a step at learning rate 1 subtracts.
        decay_rules: rules that are true for leaves with decay; where none matches, matrices decay
            (`selection.is_matrix`).
        clip: the first transformation of the gradients; see `dlcore.optim.clipping`.
        frozen: rules that are true for leaves that never change; [("^head/", False), ("", True)]
            trains the head alone.
        factors: rules for factors of the learning rate and decay; 1 where no rule matches.
        correct: the transformation that changes the updates of the trained parameters last, such
            as `proximal` or `projection`.
        average: the decay of a moving average of the weights, which `averaged` reads.
        reducible: whether the state has a factor of the learning rate, for `reduce_on_plateau`.
        **hyper: the hyperparameters of the named optimizer.

    Raises:
        InputError: for an unknown name or hyperparameter, a negative learning rate or decay, a
            rule that matches no path, an average that is not in [0, 1), and when everything is
            frozen.

    >>> tx = optimizer("momentum", 0.5, weight_decay=0.25, frozen=[("^stem/", True)])
    >>> params = {"stem": {"kernel": jnp.ones((1, 1))}, "head": {"kernel": jnp.ones((1, 1))}}
    >>> gradients = jax.tree.map(jnp.ones_like, params)
    >>> updates, state = tx.update(gradients, tx.init(params), params)
    >>> params = optax.apply_updates(params, updates)
    >>> params["stem"]["kernel"].item(), params["head"]["kernel"].item()
    (1.0, 0.375)
    """
    update_rule = pick("optimizer", name, _UPDATE_RULES)
    possible = inspect.signature(update_rule).parameters
    for given in hyper:
        if given not in possible:
            raise InputError(
                f"optimizer {name!r} has no hyperparameter {given!r}; it has: "
                + (", ".join(possible) or "none")
            )
    for label, value in (("learning rate", learning_rate), ("weight decay", weight_decay)):
        if not callable(value) and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{label} {value} is not a number >= 0; give one")

    last = () if correct is None else (correct,)
    if average is not None:
        last = (*last, average_weights(average))

    def transformation(tree: Params) -> optax.GradientTransformation:
        """Makes the transformation for parameters or gradients with the paths of `tree`."""
        is_frozen = match(tree, frozen, False)
        if all(jax.tree.leaves(is_frozen)):
            raise InputError(f"the rules {list(frozen)} freeze every parameter; train at least one")

        def trained(values: PyTree) -> PyTree:
            """Masks the frozen leaves, as `optax.partition` does in the trees that it passes on."""
            return jax.tree.map(
                lambda frozen, value: optax.MaskedNode() if frozen else value, is_frozen, values
            )

        chain = optax.chain(
            clip or optax.identity(),
            update_rule(**hyper),
            optax.add_decayed_weights(weight_decay, trained(weights(tree, decay_rules))),
            optax.scale_by_trust_ratio() if name == "lamb" else optax.identity(),
            _scale_by(trained(match(tree, factors, 1.0))) if factors else optax.identity(),
            _scale_by_learning_rate(learning_rate, reducible),
            *last,
        )
        if not any(jax.tree.leaves(is_frozen)):
            return chain
        labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", is_frozen)
        return optax.partition({"trained": chain, "frozen": _keep_bits()}, labels)

    def init(params: Params) -> optax.OptState:
        return transformation(params).init(params)

    def update(
        updates: Params, state: optax.OptState, params: Params = None
    ) -> tuple[Params, optax.OptState]:
        return transformation(updates).update(updates, state, params)

    return optax.GradientTransformation(init, update)


def _momentum(
    decay: float = 0.9, dampening: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    return optax.chain(optax.scale(1.0 - dampening), optax.trace(decay, nesterov=nesterov))


def _nesterov(decay: float = 0.9, dampening: float = 0.0) -> optax.GradientTransformation:
    return _momentum(decay, dampening, nesterov=True)


def _adagrad(
    initial_accumulator_value: float = 0.0, eps: float = 1e-10
) -> optax.GradientTransformation:
    return optax.scale_by_rss(initial_accumulator_value, eps)


def _adadelta(rho: float = 0.95, eps: float = 1e-6) -> optax.GradientTransformation:
    return optax.scale_by_adadelta(rho, eps)


def _rmsprop(
    decay: float = 0.9,
    eps: float = 1e-8,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float = 0.0,
) -> optax.GradientTransformation:
    if eps == 0:
        # Adding the smallest normal number inside the root changes only the root of 0, so that
        # 0 / sqrt(0), the step of an element that never had a gradient, becomes 0.
        eps, eps_in_sqrt = float(jnp.finfo(jnp.float32).tiny), True
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(
        scale(decay, eps, eps_in_sqrt=eps_in_sqrt),
        optax.trace(momentum) if momentum else optax.identity(),
    )


def _adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction: bool = True,
) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(b1, b2, eps, eps_root)
    if bias_correction:
        return adam
    # The correction 1 - b**count is exactly 1 at the largest count, which Optax never exceeds.
    last = jnp.iinfo(jnp.int32).max
    return optax.GradientTransformation(
        lambda params: adam.init(params)._replace(count=jnp.asarray(last, jnp.int32)), adam.update
    )


def _amsgrad(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction: bool = True,
) -> optax.GradientTransformation:
    return optax.scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        bias_correction_mu=bias_correction,
        bias_correction_nu=bias_correction,
    )


def _lamb(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _lion(b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1, b2)


def _muon(
    beta: float = 0.95,
    ns_steps: int = 5,
    nesterov: bool = True,
    consistent_rms: float | None = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    def dimensions(key_path: KeyPath, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if is_table(key_path) or leaf.ndim not in (2, 4) or not is_matrix(key_path, leaf):
            return None
        rows = tuple(range(leaf.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(rows, rows[-1] + 1)

    # Optax exports Muon only as a whole: a learning rate of -1 leaves the scaled gradients.
    return optax.contrib.muon(
        learning_rate=-1.0,
        beta=beta,
        ns_steps=ns_steps,
        nesterov=nesterov,
        consistent_rms=consistent_rms,
        adam_b1=b1,
        adam_b2=b2,
        eps=eps,
        muon_weight_dimension_numbers=functools.partial(
            jax.tree_util.tree_map_with_path, dimensions
        ),
    )


_UPDATE_RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": lambda: optax.identity(),
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adam,
    "amsgrad": _amsgrad,
    "lamb": _lamb,
    "lion": _lion,
    "muon": _muon,
}
# The names of the optimizers.
OPTIMIZERS = tuple(_UPDATE_RULES)


def _scale_by(factors: PyTree) -> optax.GradientTransformation:
    """Multiplies each leaf of the updates by its factor."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, factor: u * factor, updates, factors)
    )


def _keep_bits() -> optax.GradientTransformation:
    # Not +0, which would turn a parameter of -0 into +0.
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates)
    )


class LearningRateState(NamedTuple):
    """The number of steps taken, and the "learning_rate" of the last one."""

    steps: jax.Array
    last: Reported


class ReducibleRateState(NamedTuple):
    """A `LearningRateState` that also has a factor of the learning rate."""

    steps: jax.Array
    last: Reported
    plateau: Plateau


RateState = LearningRateState | ReducibleRateState


def _scale_by_learning_rate(
    learning_rate: float | Schedule, reducible: bool
) -> optax.GradientTransformation:
    """Multiplies the updates by minus the learning rate, and reports the learning rate."""

    def init(params: Params) -> RateState:
        del params
        steps, last = jnp.zeros((), jnp.int32), Reported.nothing_yet("learning_rate")
        if reducible:
            return ReducibleRateState(steps, last, Plateau.start())
        return LearningRateState(steps, last)

    def update(
        updates: Params, state: RateState, params: Params = None
    ) -> tuple[Params, RateState]:
        del params
        value = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(value, float)
        if isinstance(state, ReducibleRateState):
            rate = rate * state.plateau.scale
        scaled = jax.tree.map(lambda u: u * -rate.astype(u.dtype), updates)
        steps = optax.safe_increment(state.steps)
        return scaled, state._replace(steps=steps, last=Reported({"learning_rate": rate}))

    return optax.GradientTransformation(init, update)
