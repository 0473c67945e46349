"""The step of several players: whose turn it is, in which layout, and where it goes on."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import parallel, runtime
from dlcore.optim import optimizer
from dlcore.train import guard
from dlcore.train.players import Player, players_optimizer, players_step
from dlcore.types import Aux, Mean, TrainState

ROWS, WIDTH = 16, 8
NAMES = ("critic", "artist")


def batches(start):
    while True:
        rng = np.random.default_rng(start)
        yield {"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32)}
        start += 1


def drawn(params, rows, rng):
    keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(parallel.positions(rows))
    noise = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys)
    return jnp.tanh(noise @ params["artist"]["kernel"])


def critic_loss(params, model_state, batch, rng):
    made = drawn(params, len(batch["x"]), rng)
    scores = [jnp.tanh(x @ params["critic"]["kernel"]).mean(1) for x in (made, batch["x"])]
    seen = {"seen": model_state["seen"] + 1}
    return Mean.of(scores[0] - scores[1]), Aux(seen, {"real": Mean.of(scores[1])})


def artist_loss(params, model_state, batch, rng):
    made = drawn(params, len(batch["x"]), rng)
    return Mean.of(-jnp.tanh(made @ params["critic"]["kernel"]).mean(1)), Aux(model_state, {})


def own_optimizer(name):
    return optimizer("adam", 0.01, frozen=((f"^{name}/", False), ("", True)))


def make_step(every=1, accumulate=1):
    players = {
        "critic": Player(critic_loss, own_optimizer("critic")),
        "artist": Player(artist_loss, own_optimizer("artist"), every),
    }
    return players_step(players, accumulate=accumulate)


def make_state():
    keys = jax.random.split(jax.random.key(0))
    params = {
        name: {"kernel": 0.1 * jax.random.normal(key, (WIDTH, WIDTH))}
        for name, key in zip(NAMES, keys, strict=True)
    }
    tx = players_optimizer({name: own_optimizer(name) for name in NAMES})
    variables = {"params": params, "seen": jnp.zeros(())}
    return TrainState.create(variables, tx, jax.random.key(1))


def train(step, layout, steps, state=None):
    compiled, source = runtime.compile_step(guard(step), layout), batches(0)
    state = layout.initialise(make_state) if state is None else state
    found = []
    for _ in range(steps):
        state, metrics = compiled(state, next(source))
        found.append(metrics)
    return state, found


def test_the_players_move_one_after_the_other_along_their_own_gradients():
    step, state, batch = make_step(), make_state(), next(batches(0))
    new, metrics = jax.jit(step)(state, batch)
    keys = jax.random.split(jax.random.fold_in(state.rng, 0), 2)
    params, tx = state.params, optax.adam(0.01)
    for name, loss, key in zip(NAMES, (critic_loss, artist_loss), keys, strict=True):

        def value(own, name=name, loss=loss, key=key, params=params):
            return loss({**params, name: own}, {"seen": jnp.zeros(())}, batch, key)[0].compute()

        number, gradient = jax.value_and_grad(value)(params[name])
        updates, _ = tx.update(gradient, tx.init(params[name]))
        params = {**params, name: optax.apply_updates(params[name], updates)}
        assert float(metrics[f"{name}_loss"].compute()) == pytest.approx(float(number), rel=1e-5)
        norm = float(optax.tree.norm(gradient))
        assert float(metrics[f"{name}_grad_norm"].compute()) == pytest.approx(norm, rel=1e-5)
    networks.assert_close(new.params, params)
    assert int(new.step) == 1 and float(new.model_state["seen"]) == 1
    assert metrics["loss"] == metrics["critic_loss"] and "real" in metrics
    assert float(metrics["learning_rate"].compute()) == pytest.approx(0.01)


def test_a_player_that_moves_seldom_stays_bit_for_bit_between_and_counts_nothing():
    step, layout = make_step(every=3), runtime.layout("jit")
    state, first = make_state(), make_state()
    moved = []
    for number in range(6):
        before = networks.arrays(state.params["artist"])
        state, (metrics,) = train(step, layout, 1, state)
        moved.append(not np.array_equal(before["kernel"], state.params["artist"]["kernel"]))
        assert float(metrics["artist_loss"].weight) == (ROWS if moved[-1] else 0), number
        assert float(metrics["critic_loss"].weight) == ROWS
    assert moved == [False, False, True, False, False, True]
    assert not np.array_equal(first.params["critic"]["kernel"], state.params["critic"]["kernel"])


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("pmap", 1),
        pytest.param("pmap", 2, marks=pytest.mark.slow),
        pytest.param("mesh", 1, marks=pytest.mark.slow),
        pytest.param("mesh", 2, marks=pytest.mark.slow),
        pytest.param("fsdp", 1, marks=pytest.mark.slow),
        pytest.param("fsdp", 2, marks=pytest.mark.slow),
    ],
)
def test_every_layout_and_accumulation_computes_what_one_device_does(name, every):
    options = {"fsdp": {"mesh": "data=2,fsdp=2"}}
    kind = "mesh" if name in options else name
    layout = runtime.layout(kind, **options.get(name, {}))
    reference, expected = train(make_step(every), runtime.layout("jit"), 3)
    state, found = train(make_step(every, accumulate=2), layout, 3)
    # Each of the micro-batches passes the model's state on.
    networks.assert_close(
        (state.params, state.opt_state), (reference.params, reference.opt_state), tolerance=1e-5
    )
    for one, other in zip(found, expected, strict=True):
        for metric in other:
            got, wanted = one[metric], other[metric]
            assert float(got.total) == pytest.approx(float(wanted.total), abs=1e-4), metric


def test_bfloat16_reaches_all_players():
    kinds = set()

    def spying(params, model_state, batch, rng):
        kinds.update(leaf.dtype for leaf in jax.tree.leaves(params))
        score = (batch["x"].astype(jnp.bfloat16) @ params["critic"]["kernel"]).mean(1)
        return Mean.of(score), Aux(model_state, {})

    step = players_step({name: Player(spying, own_optimizer(name)) for name in NAMES})
    compiled = runtime.compile_step(
        step, runtime.layout("jit"), precision=runtime.precision("bfloat16")
    )
    state, _ = compiled(make_state(), next(batches(0)))
    assert kinds == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("every", [(0, 1), (2, 3)])
def test_players_of_whom_none_moves_always_are_refused(every):
    players = {
        name: Player(critic_loss, own_optimizer(name), turn)
        for name, turn in zip(NAMES, every, strict=True)
    }
    with pytest.raises(ValueError, match=r"move every \["):
        players_step(players)
