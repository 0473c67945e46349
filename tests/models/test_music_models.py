"""The laws of chords by enumeration, and networks that tell them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_boltzmann import PlainRBM, sigmoid, states

from dlcore.models.boltzmann import Machine, row_log_partitions, row_log_partitions_above
from dlcore.models.chords import (
    DRAWN,
    NADE,
    Independent,
    IndependentOutput,
    Machines,
    MachinesOutput,
    NADEOutput,
)
from dlcore.models.music import MusicModel, compose, given_notes, step_keys
from dlcore.nn.recurrent import RecurrentStack, cell

V, H = 6, 4
EVERY = np.float32(states(V))


def drawn(shape, seed, scale=1.0):
    return jnp.float32(scale * np.random.default_rng(seed).normal(size=shape))


def nade(places=(), notes=V, scale=1.0):
    return NADE(
        drawn((V, H), 0, scale),
        drawn((V, H), 1, scale),
        drawn((*places, V), 2),
        drawn((*places, H), 3),
        notes,
    )


def machines(places, hidden=H, scale=0.7, **options):
    machine = Machine(
        drawn((V, hidden), 0, scale), drawn((*places, V), 1), drawn((*places, hidden), 2)
    )
    options = {"k": 1, "gibbs": 50, "chains": 20, "annealing": 200, **options}
    return Machines(machine, **options)


def keys_of(shape, seed=0):
    return jax.random.split(jax.random.key(seed), shape)


def plain_nade(law, v):
    """log p of one chord by the definition, note by note from the highest."""
    w, u, b, c = (
        np.asarray(x, np.float64) for x in (law.kernel, law.back, law.visible_bias, law.hidden_bias)
    )
    total = 0.0
    for i in reversed(range(V)):
        p = sigmoid(b[i] + u[i] @ sigmoid(c + sum(w[j] * v[j] for j in range(i + 1, V))))
        total += np.log(p if v[i] else 1 - p)
    return total


def test_the_probabilities_of_all_chords_of_a_nade_sum_to_one():
    law = nade()
    every = _repeated(law, len(EVERY))
    found = jax.jit(every.log_prob)(EVERY, keys_of((64,)))
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, [plain_nade(law, v) for v in EVERY], atol=1e-5)


def test_a_nade_at_numbers_by_hand():
    # Two pitches; the higher one sounds: b + U . sigmoid(c) = 1 + 2 / 2, and turns c into ln 3.
    law = NADE(
        jnp.array([[0.0], [np.log(3)]]), jnp.array([[4.0], [2.0]]), jnp.array([-3.0, 1.0]),
        jnp.zeros(1), 2,
    )  # fmt: skip
    found = float(law.log_prob(jnp.array([0.0, 1.0]), jax.random.key(0)))
    # Then the lower one is silent: sigmoid(-3 + 4 * 3/4) = 1/2.
    assert found == pytest.approx(-np.log1p(np.exp(-2.0)) - np.log(2), abs=1e-6)


def test_a_nade_has_no_probability_of_more_notes_than_it_is_asked_for():
    few, all_of_them = nade(notes=2), nade()
    v = jnp.float32([0, 1, 0, 0, 1, 0])
    key = jax.random.key(0)
    np.testing.assert_allclose(few.log_prob(v, key), all_of_them.log_prob(v, key), rtol=1e-6)
    assert np.isnan(few.log_prob(v.at[0].set(1), key))
    gradient = jax.grad(lambda w: few.replace(kernel=w).log_prob(v, key))(few.kernel)
    others = jax.grad(lambda w: all_of_them.replace(kernel=w).log_prob(v, key))(few.kernel)
    np.testing.assert_allclose(gradient, others, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["independent", "nade", pytest.param("machines", marks=pytest.mark.slow)]
)
def test_chords_are_drawn_by_their_law_given_the_highest_notes(name):
    count = 20_000
    laws = {
        "independent": lambda: Independent(jnp.tile(drawn(V, 5), (count, 1))),
        "nade": lambda: _repeated(nade(), count),
        "machines": lambda: _repeated(machines(()), count),
    }
    law = laws[name]()
    small = jax.tree.map(lambda x: x[:64] if len(x) == count else x, law)
    if name == "machines":
        plain = PlainRBM(
            {
                "kernel": law.machine.kernel,
                "visible_bias": law.machine.visible_bias[0],
                "bias": law.machine.hidden_bias[0],
            }
        )
        p = np.exp(plain.log_likelihood(EVERY))
    else:
        p = np.exp(np.asarray(small.log_prob(EVERY, keys_of((64,)))))
    draw = jax.jit(lambda law, keys, given: law.draw(keys, given))
    for told in ([DRAWN] * V, [DRAWN, DRAWN, DRAWN, DRAWN, 1, 0]):
        fits = ((np.array(told) == DRAWN) | (EVERY == told)).all(1)
        given = jnp.tile(jnp.array(told, jnp.int8), (count, 1))
        found = np.asarray(draw(law, keys_of((count,)), given))
        here = p * fits / (p * fits).sum()
        np.testing.assert_allclose(found.mean(0), here @ EVERY, atol=0.015)
        np.testing.assert_allclose(
            found.T @ found / count, np.einsum("n,ni,nj", here, EVERY, EVERY), atol=0.015
        )


def _repeated(law, count):
    if isinstance(law, Machines):
        machine = law.machine
        return law.replace(
            machine=machine.replace(
                visible_bias=jnp.tile(machine.visible_bias, (count, 1)),
                hidden_bias=jnp.tile(machine.hidden_bias, (count, 1)),
            )
        )
    return law.replace(
        visible_bias=jnp.tile(law.visible_bias, (count, 1)),
        hidden_bias=jnp.tile(law.hidden_bias, (count, 1)),
    )


def test_temperature_zero_takes_the_likelier_of_sound_and_silence():
    law = nade()
    found = law.draw(jax.random.key(0), jnp.full(V, DRAWN), temperature=0)
    v = np.zeros(V)
    w, u, b, c = (np.asarray(x) for x in (law.kernel, law.back, law.visible_bias, law.hidden_bias))
    for i in reversed(range(V)):
        v[i] = b[i] + u[i] @ sigmoid(c + v[i + 1 :] @ w[i + 1 :]) > 0
    np.testing.assert_array_equal(found, v)


# The RNN-RBM.


def plain_of(law, *place):
    machine = law.machine
    return PlainRBM(
        {
            "kernel": machine.kernel,
            "visible_bias": machine.visible_bias[place],
            "bias": machine.hidden_bias[place],
        }
    )


def test_the_likelihood_of_few_hidden_units_is_exact_for_each_step():
    law = machines((2, 3))
    v = jnp.asarray(np.random.default_rng(4).integers(0, 2, (2, 3, V)), jnp.float32)
    found = jax.jit(law.log_prob)(v, keys_of((2, 3)))
    below = jax.jit(law.log_prob_below)(v, keys_of((2, 3)))
    for place in np.ndindex(2, 3):
        expected = plain_of(law, *place).log_likelihood(np.asarray(v[place])[None])[0]
        assert found[place] == pytest.approx(expected, abs=1e-4)
        assert below[place] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_annealing_of_each_step_is_near_the_exact_log_z_from_both_sides():
    law = machines((40,), hidden=10, scale=1.0)
    keys = keys_of((40,))
    exact = np.array([plain_of(law, n).log_z() for n in range(40)])
    found = jax.jit(functools.partial(row_log_partitions, chains=50, steps=300))(law.rows, keys)
    np.testing.assert_allclose(found, exact, atol=0.2)
    assert abs(np.mean(found - exact)) < 0.03
    # Samples of the machines, from which annealing goes back.
    v = law.draw(keys, jnp.full((40, V), DRAWN))
    above = jax.jit(functools.partial(row_log_partitions_above, steps=300))(law.rows, v, keys)
    assert -0.03 < np.mean(above - exact) < 0.3


@pytest.mark.slow
def test_the_expected_gradient_is_that_of_contrastive_divergence_at_each_step():
    law = machines((1, 2), scale=1.5)
    v = jnp.asarray([[[0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 0]]], jnp.float32)
    count = 16_000
    many = jax.tree.map(lambda x: jnp.tile(x, (count, 1, 1)) if x.ndim == 3 else x, law)

    def loss(machine, k):
        found = many.replace(machine=machine, k=k).loss(
            jnp.tile(v, (count, 1, 1)), jnp.ones((count, 2)), jax.random.key(0)
        )
        return found.compute()

    for k in (1, 3):
        found = jax.jit(jax.grad(functools.partial(loss, k=k)))(many.machine)
        plain = [plain_of(law, 0, t).gradient(np.asarray(v[:, t]), k) for t in range(2)]
        kernel = np.mean([step["kernel"] for step in plain], axis=0)
        np.testing.assert_allclose(found.kernel, kernel, atol=0.012)
        for t in range(2):
            # The gradient of a mean over both steps, the sum over the copies of a piece.
            np.testing.assert_allclose(
                2 * found.visible_bias[:, t].sum(0), plain[t]["visible_bias"], atol=0.02
            )
            np.testing.assert_allclose(
                2 * found.hidden_bias[:, t].sum(0), plain[t]["bias"], atol=0.02
            )


# The network.


OUTPUTS = {
    "independent": IndependentOutput(V),
    "nade": NADEOutput(V, H, V),
    "rnn_rbm": MachinesOutput(V, H, gibbs=3),
}


def network(name, kind="gru"):
    model = MusicModel(RecurrentStack((cell(kind, 5), cell(kind, 5))), OUTPUTS[name])
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2, V)))
    # The first weights of a machine are too small to see anything.
    params = jax.tree.map(
        lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables
    )
    return model, params


def rolls(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, (*shape, V)), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def nats_of(model, variables, roll, lengths=None):
    law, _ = model.apply(variables, roll, lengths)
    return law.log_prob(roll, step_keys(jax.random.key(1), *roll.shape[:2]))


every_output = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "rnn_rbm")) for name in OUTPUTS],
)


@every_output
def test_padding_changes_nothing_and_rows_are_on_their_own(name):
    model, variables = network(name)
    roll = rolls((3, 7))
    lengths = jnp.array([7, 4, 1])
    batch = nats_of(model, variables, roll, lengths)
    padded = nats_of(
        model, variables, jnp.pad(roll, ((0, 0), (0, 5), (0, 0)), constant_values=1), lengths
    )
    for row, length in enumerate([7, 4, 1]):
        alone = nats_of(model, variables, roll[row : row + 1, :length])
        np.testing.assert_allclose(batch[row, :length], alone[0], atol=1e-5)
        np.testing.assert_allclose(padded[row, :length], alone[0], atol=1e-5)


@pytest.mark.slow
def test_padding_changes_no_gradient_of_contrastive_divergence():
    model, variables = network("rnn_rbm")
    roll = rolls((3, 7))
    lengths, real = jnp.array([7, 4, 1]), np.float32(np.arange(12) < [[7], [4], [1]])

    def gradient(extra):
        def loss(params):
            wide = jnp.pad(roll, ((0, 0), (0, extra), (0, 0)), constant_values=1)
            law, _ = model.apply({"params": params}, wide, lengths)
            return law.loss(wide, jnp.asarray(real[:, : 7 + extra]), jax.random.key(3)).compute()

        return jax.jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
        gradient(0),
        gradient(5),
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "rnn_rbm")) for name in OUTPUTS]
)
def test_a_chord_depends_on_those_before_and_on_no_later_one(name):
    model, variables = network(name)
    roll = rolls((1, 6))
    at = 3
    before = np.asarray(nats_of(model, variables, roll))
    changed = np.asarray(nats_of(model, variables, roll.at[0, at].set(1 - roll[0, at])))
    np.testing.assert_array_equal(before[0, :at], changed[0, :at])
    assert (np.abs(before[0, at:] - changed[0, at:]) > 1e-6).all()
    # A piece's first chord knows that it is one: silence before is not the beginning.
    silence = jnp.zeros((1, 2, V))
    law, _ = jax.jit(model.apply)(variables, silence)
    biases = jax.tree.leaves(law)[-1]
    assert np.abs(biases[0, 0] - biases[0, 1]).max() > 1e-3


@every_output
def test_composing_step_by_step_has_the_laws_of_the_whole_piece(name):
    model, variables = network(name, "lstm")
    given = (
        jnp.full((4, 5, V), DRAWN, jnp.int8).at[:, 0].set(jnp.array([0, 1, 0, 1, 0, 0], jnp.int8))
    )
    piece = jax.jit(functools.partial(compose, model))(variables, jax.random.key(2), given)
    np.testing.assert_array_equal(piece[:, 0], jnp.tile(jnp.array([0.0, 1, 0, 1, 0, 0]), (4, 1)))
    law, _ = jax.jit(model.apply)(variables, piece)
    again = law.draw(step_keys(jax.random.key(2), 4, 5), given)
    np.testing.assert_array_equal(piece, again)
    longer = compose(
        model,
        variables,
        jax.random.key(2),
        jnp.pad(given, ((0, 0), (0, 3), (0, 0)), constant_values=-1),
    )
    np.testing.assert_array_equal(piece, longer[:, :5])


def test_what_is_given_with_a_melody():
    roll = jnp.array([[[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]])
    expected = [[-1, 1, -1, -1, 1, 0], [-1] * 6, [-1, -1, -1, -1, -1, 1]]
    assert given_notes(roll)[0].tolist() == expected
