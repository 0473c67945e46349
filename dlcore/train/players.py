"""Training several players against or beside each other, each with a loss and an optimizer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.optim import reported
from dlcore.runtime.precision import current_precision
from dlcore.train.gradient import mean_gradient
from dlcore.types import Aux, Batch, LossFn, Mean, Metrics, Step, TrainState


class Player(NamedTuple):
    """One of the players.

    Attributes:
        loss: the loss as for `gradient_step`, a function of the parameters of all players.
        optimizer: an optimizer of the parameters of all players; it should freeze those of the
            others, whose gradient is 0.
        every: the player moves in the steps whose number, from 1 on, is a multiple of this.
    """

    loss: LossFn
    optimizer: optax.GradientTransformation
    every: int = 1


def players_optimizer(
    optimizers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Returns an optimizer whose state holds all players' states by name; it cannot update."""

    def init(params: Any) -> dict[str, Any]:
        return {name: tx.init(params) for name, tx in optimizers.items()}

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        raise TypeError("players are updated by `players_step`")

    return optax.GradientTransformation(init, update)


def players_step(players: Mapping[str, Player], *, accumulate: int = 1) -> Step:
    """Returns the step in which players move one after the other, each knowing the moves before.

    The state's parameters are a tree by the names of the players, and `players_optimizer` makes its
    optimizer's state. All players see the same batch, each with a key of its own.

    Args:
        players: the players by name, in the order of their moves; at least one moves in every step.
        accumulate: as for `gradient_step`; model state passes through all micro-batches.

    Returns:
        A step whose metrics are the metrics of the losses, "NAME_loss" and "NAME_grad_norm" for
        each player, what the first player's optimizer reports, and "loss", the first player's loss.
        The metrics of a player that does not move have weight 0.

    Raises:
        ValueError: when a player never moves, or no player moves in every step.
    """
    turns = [player.every for player in players.values()]
    if min(turns, default=0) != 1:
        raise ValueError(f"players move every {turns} steps; give 1 or more, and 1 for one of them")
    first = next(iter(players))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        metrics: Metrics = {}
        state = state.replace(step=state.step + 1)
        for (name, player), key in zip(
            players.items(), jax.random.split(rng, len(players)), strict=True
        ):
            state, found = _turn(name, player, accumulate, state, batch, key)
            metrics |= found
        metrics |= {"loss": metrics[f"{first}_loss"], **reported(state.opt_state[first])}
        return state, metrics

    return step


def _turn(
    name: str, player: Player, accumulate: int, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[TrainState, Metrics]:
    """Moves a player if it is its turn."""

    def move(state: TrainState) -> tuple[TrainState, Metrics]:
        return _move(name, player, accumulate, state, batch, key)

    if player.every == 1:
        return move(state)
    shapes = jax.eval_shape(lambda state: move(state)[1], state)

    def stay(state: TrainState) -> tuple[TrainState, Metrics]:
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    found: tuple[TrainState, Metrics] = jax.lax.cond(
        state.step % player.every == 0, move, stay, state
    )
    return found


def _move(
    name: str, player: Player, accumulate: int, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[TrainState, Metrics]:
    precision = current_precision()

    def loss(own: Any, shared: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        others, model_state = shared
        value, aux = player.loss({**precision.cast(others), name: own}, model_state, batch, rng)
        return value, aux._replace(model_state=(others, aux.model_state))

    own = state.params[name]
    others = {other: params for other, params in state.params.items() if other != name}
    gradient = mean_gradient(loss, accumulate=accumulate)
    grads, value, aux = gradient(own, (others, state.model_state), batch, key)
    norm = Mean(optax.tree.norm(grads), jnp.ones(()))
    everything = {**jax.tree.map(jnp.zeros_like, others), name: grads}
    updates, opt_state = player.optimizer.update(
        {player: everything[player] for player in state.params},
        state.opt_state[name],
        state.params,
    )
    new = state.replace(
        params={**state.params, name: optax.apply_updates(own, updates[name])},
        model_state=aux.model_state[1],
        opt_state={**state.opt_state, name: opt_state},
    )
    return new, {f"{name}_loss": value, f"{name}_grad_norm": norm, **aux.metrics}
