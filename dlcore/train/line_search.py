"""The step of optimizers that search along their direction, such as L-BFGS."""

import jax
import jax.numpy as jnp
import optax

from dlcore.runtime.precision import current_precision
from dlcore.types import Batch, LossFn, Mean, Metrics, Params, Step, TrainState


def line_search_step(loss_fn: LossFn, tx: optax.GradientTransformationExtraArgs) -> Step:
    """Returns the step of an optimizer that evaluates the loss at several points (`optax.lbfgs`).

    The loss at a point must be the same at each call, so every step uses the key of the run itself,
    and the batch should stay the same. Where another loss begins, such as the loss of a larger
    picture, the batch has "anew", whose rows are 1, and the optimizer starts again. On a mesh the
    loss is over the whole batch.

    Args:
        loss_fn: as for `gradient_step`; it leaves the model's state as it is.
        tx: an optimizer whose update takes `value`, `grad` and `value_fn`, and whose state keeps
            the value and the gradient of the last point ("value", "grad"), so that they need not be
            computed again.

    Returns:
        A step whose metrics are "loss" and "grad_norm" at the point where the step began, as in
        `gradient_step`, and "evaluations", the number of times that the search computed the loss.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        precision, opt_state = current_precision(), state.opt_state

        def value_of(params: Params) -> jax.Array:
            loss, _ = loss_fn(precision.cast(params), state.model_state, batch, state.rng)
            return precision.widen(loss).compute()

        if "anew" in batch:
            opt_state = jax.lax.cond(
                (batch["anew"] > 0).any(), lambda: tx.init(state.params), lambda: state.opt_state
            )
        value, grad = optax.value_and_grad_from_state(value_of)(state.params, state=opt_state)
        updates, opt_state = tx.update(
            grad, opt_state, state.params, value=value, grad=grad, value_fn=value_of
        )
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        count = optax.tree.get(opt_state, "num_linesearch_steps")
        numbers = {"loss": value, "grad_norm": optax.tree.norm(grad), "evaluations": count}
        one = jnp.ones(())
        return new, {
            name: Mean(jnp.asarray(number, jnp.float32), one) for name, number in numbers.items()
        }

    return step
