"""Optimizers by name: Optax's update rules, with decay, freezing and rate factors by path rules.

Every optimizer is the same chain, of which only the second link has a name:

    clip -> update rule -> + weight_decay * params -> factors -> * -learning_rate -> average

Weight decay is decoupled (Loshchilov & Hutter 2019): it is added behind the update rule and scaled
by the learning rate, never divided by the gradient's statistics. LAMB's trust ratio stands behind
the decay, as its paper has it. Frozen parameters are outside the chain: they take no optimizer
state, count in no norm and keep their bits.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError, pick
from dlcore.optim.averaging import average_weights
from dlcore.optim.reports import Reported
from dlcore.optim.schedules import Schedule
from dlcore.optim.selection import is_matrix, weights
from dlcore.paths import Rules, match, path_of

# Parameters with a row for each word.
_TABLES = ("embedding", "output_kernel")


def optimizer(
    name: str,
    learning_rate: float | Schedule,
    *,
    weight_decay: float = 0.0,
    decay_rules: Rules[bool] = (),
    clip: optax.GradientTransformation | None = None,
    frozen: Rules[bool] = (),
    factors: Rules[float] = (),
    average: float | None = None,
    **hyper: Any,
) -> optax.GradientTransformation:
    """The named optimizer; its state reports the "learning_rate" of the last step.

    `optax.apply_updates(params, updates)` adds what it returns. Names, hyperparameters and their
    defaults, which are the papers':

    - sgd (Robbins & Monro 1951): none.
    - momentum (Polyak 1964), nesterov (Sutskever et al. 2013): decay=0.9, dampening=0;
      v = decay * v + (1 - dampening) * g. Dampening 0 is the heavy ball, dampening = decay the
      exponential moving average, which is the heavy ball at learning_rate * (1 - decay).
    - adagrad (Duchi et al. 2011): initial_accumulator_value=0, eps=1e-10 (inside the root).
    - adadelta (Zeiler 2012): rho=0.95, eps=1e-6. The paper has no learning rate: give 1.
    - rmsprop (Tieleman & Hinton 2012): decay=0.9, eps=1e-8, eps_in_sqrt=True, centered=False,
      momentum=0. With eps=0 an element whose gradients were all 0 stays where it is.
    - adam (Kingma & Ba 2015), adamw (Loshchilov & Hutter 2019): b1=0.9, b2=0.999, eps=1e-8,
      eps_root=0, bias_correction=True. The two differ in nothing: the decay is always decoupled.
    - lamb (You et al. 2020): b1=0.9, b2=0.999, eps=1e-6.
    - lion (Chen et al. 2023): b1=0.9, b2=0.99.
    - muon (Jordan et al. 2024): beta=0.95, ns_steps=5, nesterov=True for the kernels of dense
      layers and image convolutions (2 and 4 dimensions; all but the last are its rows); Adam with
      the same `nesterov`, b1=0.9, b2=0.999, eps=1e-8 for the rest and for tables of words
      (`embedding`, `output_kernel`), most of whose rows have no gradient in a step;
      consistent_rms=0.2 makes one learning rate and decay, an Adam's, fit both (Liu et al. 2025),
      None is Jordan's scale.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: a number, or a function of the steps taken.
        weight_decay: the share of a parameter taken off per step and unit of learning rate.
        decay_rules: which leaves decay; where no rule matches, matrices (`selection.is_matrix`).
        clip: applied to the gradients first; see `dlcore.optim.clipping`.
        frozen: which leaves never change; [("^head/", False), ("", True)] trains the head alone.
        factors: what multiplies the learning rate, decay included; 1 where no rule matches.
        average: the decay of a moving average of the weights, which `averaged` reads.
        **hyper: the hyperparameters of the named optimizer.

    Raises:
        InputError: for an unknown name or hyperparameter, a negative learning rate or decay, a
            rule that matches no path, an average that is not in [0, 1), and when everything is
            frozen.
    """
    update_rule = pick("optimizer", name, _UPDATE_RULES)
    possible = inspect.signature(update_rule).parameters
    for given in hyper:
        if given not in possible:
            raise InputError(
                f"optimizer {name!r} has no hyperparameter {given!r}; it has: "
                + (", ".join(possible) or "none")
            )
    for what, value in (("learning rate", learning_rate), ("weight decay", weight_decay)):
        if not callable(value) and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{what} {value} is not a number >= 0; give one")

    following = () if average is None else (average_weights(average),)

    def of(tree: Any) -> optax.GradientTransformation:
        """The transformation for trees with the paths of `tree`, parameters or gradients."""
        is_frozen = match(tree, frozen, False)
        if all(jax.tree.leaves(is_frozen)):
            raise InputError(f"the rules {list(frozen)} freeze every parameter; train at least one")

        def trained(values: Any) -> Any:
            """`values` in the form that Optax gives a tree without its frozen leaves."""
            return jax.tree.map(
                lambda off, value: optax.MaskedNode() if off else value, is_frozen, values
            )

        chain = optax.chain(
            clip or optax.identity(),
            update_rule(**hyper),
            optax.add_decayed_weights(weight_decay, trained(weights(tree, decay_rules))),
            optax.scale_by_trust_ratio() if name == "lamb" else optax.identity(),
            _scale_by(trained(match(tree, factors, 1.0))) if factors else optax.identity(),
            _scale_by_learning_rate(learning_rate),
            *following,
        )
        if not any(jax.tree.leaves(is_frozen)):
            return chain
        labels = jax.tree.map(lambda off: "frozen" if off else "trained", is_frozen)
        return optax.partition({"trained": chain, "frozen": _keep_bits()}, labels)

    def init(params: Any) -> Any:
        return of(params).init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return of(updates).update(updates, state, params)

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
        # The smallest normal number inside the root changes no bit of any root but that of 0, and
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
    # The correction 1 - b**count is exactly 1 at the largest count, where Optax's counter stays.
    last = jnp.iinfo(jnp.int32).max
    return optax.GradientTransformation(
        lambda params: adam.init(params)._replace(count=jnp.asarray(last, jnp.int32)), adam.update
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
    def dimensions(
        key_path: tuple[Any, ...], leaf: jax.Array
    ) -> optax.contrib.MuonDimensionNumbers | None:
        table = path_of(key_path).endswith(_TABLES)
        if table or leaf.ndim not in (2, 4) or not is_matrix(key_path, leaf):
            return None
        rows = tuple(range(leaf.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(rows, rows[-1] + 1)

    # Optax exports Muon only whole: a learning rate of -1 leaves its scaling of the gradients.
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
    "lamb": _lamb,
    "lion": _lion,
    "muon": _muon,
}
OPTIMIZERS = tuple(_UPDATE_RULES)


def _scale_by(factors: Any) -> optax.GradientTransformation:
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


def _scale_by_learning_rate(learning_rate: float | Schedule) -> optax.GradientTransformation:
    """Multiplies by minus the learning rate, and reports it."""

    def init(params: Any) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros((), jnp.int32), Reported.nothing_yet("learning_rate"))

    def update(
        updates: Any, state: LearningRateState, params: Any = None
    ) -> tuple[Any, LearningRateState]:
        del params
        given = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(given, float)
        scaled = jax.tree.map(lambda u: u * -rate.astype(u.dtype), updates)
        steps = optax.safe_increment(state.steps)
        return scaled, LearningRateState(steps, Reported({"learning_rate": rate}))

    return optax.GradientTransformation(init, update)
