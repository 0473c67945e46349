import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.embedding import glove_tiles
from dlcore.models.embedding.glove import (
    Tables,
    fitted_biases,
    glove_cost,
    glove_step,
    glove_tables,
    glove_vectors,
    initial_squares,
)
from dlcore.models.embedding.glove_tiles import GloveTiles
from dlcore.types import TrainState

V, D = 37, 5


def state_of(tables: Tables, squares: Tables | None = None) -> TrainState:
    """A state at step 0."""
    squares = initial_squares(tables) if squares is None else squares
    return TrainState(jnp.zeros((), jnp.int32), tables, {}, squares, jax.random.key(1))


def first_state(*, vocabulary_size: int = V, dimension: int = D, **others: object) -> TrainState:
    sizes = {"vocabulary_size": vocabulary_size, "dimension": dimension}
    return state_of(glove_tables(jax.random.key(0), **sizes, **others))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Squares and parts so small that a tiny matrix has many of both."""
    from dlcore.models.embedding import glove

    for module in (glove, glove_tiles):
        monkeypatch.setattr(module, "REST_SIDE", 16)
    monkeypatch.setattr(glove_tiles, "_REST_CELLS", 8)


def cells(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of a matrix that is denser at its top left, sorted."""
    rng = np.random.default_rng(seed)
    rank = np.arange(1, V + 1)
    rows, columns = np.nonzero(rng.random((V, V)) < 12 / (rank[:, None] * rank))
    values = rng.lognormal(2, 2, len(rows)).astype(np.float32)
    return rows.astype(np.int32), columns.astype(np.int32), values


def some_params(seed: int = 0) -> Tables:
    rng = np.random.default_rng(seed)
    shapes = (V, D), (V, D), (V,), (V,)
    return Tables(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes))


def cells_of(batch: dict) -> list[tuple[int, int, float]]:
    """The cells that a batch holds, one by one."""
    found = []
    for k, values in enumerate(batch["values"]):
        for place in zip(*np.nonzero(values), strict=True):
            if "rows" in batch:
                row, column = batch["rows"][k][place], batch["columns"][k][place]
            else:
                row, column = place
            at = int(batch["first_row"][k] + row), int(batch["first_column"][k] + column)
            found.append((*at, float(values[place])))
    return found


def make_tiles(**options) -> GloveTiles:
    options = {"vocabulary_size": V, "seed": 3, "tile": 8, "density": 0.2, **options}
    return GloveTiles(*cells(), **options)


@pytest.mark.parametrize("tile", [1, 7, 8, 16])
@pytest.mark.parametrize("density", [0.0, 0.2, 2.0])
def test_an_epoch_holds_every_cell_once(tile: int, density: float) -> None:
    tiles = make_tiles(tile=tile, density=density)
    expected = sorted(zip(*(array.tolist() for array in cells()), strict=True))
    for epoch in (0, 1):
        steps = range(epoch * tiles.epoch_steps, (epoch + 1) * tiles.epoch_steps)
        assert sorted(cell for step in steps for cell in cells_of(tiles.batch(step))) == expected
    if tile == 1 or density != 0.2:
        assert tiles.dense_share == (density < 2)  # tiles of one cell are full or empty
    else:
        assert 0 < tiles.dense_share < 1


def test_batches_are_a_function_of_seed_and_step() -> None:
    tiles, same, other = make_tiles(), make_tiles(), make_tiles(seed=4)
    steps = range(2 * tiles.epoch_steps)
    forward = [cells_of(tiles.batch(step)) for step in steps]
    assert forward[::-1] == [cells_of(same.batch(step)) for step in steps[::-1]]
    assert forward[: tiles.epoch_steps] != forward[tiles.epoch_steps :]
    assert forward != [cells_of(other.batch(step)) for step in steps]
    later = tiles.batches(3)
    assert [cells_of(next(later)) for _ in range(2)] == forward[3:5]


def test_the_cost_is_the_papers() -> None:
    rows, columns, values = cells()
    w, c, b, d = (np.asarray(table, np.float64) for table in some_params())
    total = 0.0
    for i, j, x in zip(rows, columns, values.astype(np.float64), strict=True):
        weight = (x / 20) ** 0.6 if x < 20 else 1.0
        total += 0.5 * weight * (w[i] @ c[j] + b[i] + d[j] - np.log(x)) ** 2
    cost = glove_cost(some_params(), rows, columns, values, x_max=20, alpha=0.6)
    np.testing.assert_allclose(cost.total, total, rtol=1e-5)
    assert cost.weight == len(rows)


def test_training_starts_small() -> None:
    biases = np.stack([np.arange(V), -np.arange(V)]).astype(np.float32)
    state = first_state(biases=biases)
    for vectors in state.params[:2]:
        assert vectors.shape == (V, D)
        assert 0.4 / D < jnp.abs(vectors).max() <= 0.5 / D and jnp.abs(vectors.mean()) < 0.1 / D
    np.testing.assert_array_equal(jnp.stack(state.params[2:]), biases)
    assert all((table == np.float32(1e-3)).all() for table in state.opt_state)
    assert state.step == 0


def plain_updates(params: Tables, batch: dict, rate: float) -> tuple[list, list]:
    """Cell by cell within each square, then an update of AdaGrad."""
    tables = [np.array(table, np.float64) for table in params]
    squares = [np.full_like(table, 1e-3) for table in tables]
    for k in range(len(batch["values"])):
        gradient = [np.zeros_like(table) for table in tables]
        w, c, b, d = tables
        for i, j, x in cells_of({name: array[k : k + 1] for name, array in batch.items()}):
            slope = min(1, x / 100) ** 0.75 * (w[i] @ c[j] + b[i] + d[j] - np.log(x))
            gradient[0][i] += slope * c[j]
            gradient[1][j] += slope * w[i]
            gradient[2][i] += slope
            gradient[3][j] += slope
        for table, square, change in zip(tables, squares, gradient, strict=True):
            square += change**2
            table -= rate * change / np.sqrt(square)
    return tables, squares


@pytest.mark.parametrize("density", [0.0, 0.2, 2.0])
def test_a_step_is_the_plain_one(density: float) -> None:
    tiles = make_tiles(density=density)
    step = jax.jit(glove_step(rate=0.2))
    start = state_of(some_params())
    for number in range(tiles.epoch_steps):
        batch = tiles.batch(number)
        state, metrics = step(start, batch)
        tables, squares = plain_updates(some_params(), batch, 0.2)
        for got, expected in zip(
            (*state.params, *state.opt_state), (*tables, *squares), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
        assert metrics["loss"].weight == len(cells_of(batch))
        assert state.step == 1


@pytest.mark.parametrize("density", [0.0, pytest.param(2.0, marks=pytest.mark.slow)])
def test_the_gradient_is_that_of_the_cost(density: float) -> None:
    # From accumulators of 0 by one square alone, accumulator = gradient^2.
    batch = make_tiles(density=density).batch(0)
    batch = {name: array[:1] for name, array in batch.items()}
    zeros = jax.tree.map(jnp.zeros_like, some_params())
    step = glove_step(x_max=20, alpha=0.6)
    state, metrics = step(state_of(some_params(), zeros), batch)
    rows, columns, values = (np.array(x) for x in zip(*cells_of(batch), strict=True))

    def total(params: Tables) -> jax.Array:
        return glove_cost(params, rows, columns, values, x_max=20, alpha=0.6).total

    np.testing.assert_allclose(metrics["loss"].total, total(some_params()), rtol=1e-5)
    for got, gradient in zip(state.opt_state, jax.grad(total)(some_params()), strict=True):
        np.testing.assert_allclose(jnp.sqrt(got), jnp.abs(gradient), rtol=1e-3, atol=1e-4)


def test_squares_without_cells_change_nothing() -> None:
    state = first_state()
    for batch in map(make_tiles().batch, range(4)):
        empty = {**batch, "values": np.zeros_like(batch["values"])}
        after, metrics = glove_step()(state, empty)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves((state.params, state.opt_state)),
                jax.tree.leaves((after.params, after.opt_state)),
                strict=True,
            )
        )
        assert metrics["loss"].total == 0 and metrics["loss"].weight == 0


@pytest.mark.parametrize("density", [0.0, 2.0])
def test_the_tables_are_written_in_place(density: float) -> None:
    # A copy of a table for each square would cost more than its cells.
    state = first_state()
    step = jax.jit(glove_step(), donate_argnums=0)
    program = step.lower(state, make_tiles(density=density).batch(0)).compile().as_text()
    assert f"f32[{V},{D}]" in program
    assert not re.findall(rf"= f32\[{V}(?:,{D})?\]\S* copy\(", program)


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    tiles, again = make_tiles(), make_tiles()
    step = jax.jit(glove_step())
    state = first_state()
    states = [state]
    for number in range(tiles.epoch_steps + 3):
        states.append(step(states[-1], tiles.batch(number))[0])
    middle = states[4].replace(  # as a checkpoint holds it
        params=jax.tree.map(np.asarray, states[4].params),
        opt_state=jax.tree.map(np.asarray, states[4].opt_state),
    )
    for _ in range(4, tiles.epoch_steps + 3):
        middle, _ = step(middle, again.batch(int(middle.step)))
    whole = states[-1]
    ours, theirs = (middle.params, middle.opt_state), (whole.params, whole.opt_state)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_fitted_biases_are_the_best_without_vectors() -> None:
    rows, columns, values = cells()
    b, d = fitted_biases(rows, columns, values, vocabulary_size=V + 1, sweeps=200)
    weight = np.minimum(1, values / 100) ** 0.75
    design = np.zeros((len(rows), 2 * V + 2))
    design[np.arange(len(rows)), rows] = design[np.arange(len(rows)), V + 1 + columns] = 1
    root = np.sqrt(weight)
    best = np.linalg.lstsq(design * root[:, None], root * np.log(values), rcond=None)[0]
    np.testing.assert_allclose(b[rows] + d[columns], design @ best, atol=2e-3)
    assert b[V] == d[V] == 0


@pytest.mark.slow
def test_a_planted_matrix_is_recovered() -> None:
    rng = np.random.default_rng(0)
    w, c = rng.normal(size=(2, 24, 3))
    log = w @ c.T + rng.normal(size=(24, 1)) + rng.normal(size=24)
    rows, columns = np.indices((24, 24)).reshape(2, -1).astype(np.int32)
    values = np.exp(log).ravel().astype(np.float32)
    biases = fitted_biases(rows, columns, values, vocabulary_size=24, alpha=0)
    for density in (0.0, 2.0):
        tiles = GloveTiles(
            rows, columns, values, vocabulary_size=24, seed=0, tile=12, density=density
        )
        state = first_state(vocabulary_size=24, dimension=3, biases=biases)
        step = jax.jit(glove_step(alpha=0, rate=0.3), donate_argnums=0)
        for number in range(4000):
            state, _ = step(state, tiles.batch(number))
        p = jax.tree.map(np.asarray, state.params)
        got = p.word @ p.context.T + p.word_bias[:, None] + p.context_bias[None]
        np.testing.assert_allclose(got, log, atol=1e-3)


def test_the_vectors_combine_words_and_contexts() -> None:
    params = some_params()

    def cosines(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit @ unit.T

    summed = glove_vectors(params)
    np.testing.assert_array_equal(summed, np.asarray(params.word) + np.asarray(params.context))
    average = glove_vectors(params, combination="average")
    np.testing.assert_array_equal(2 * average, summed)
    np.testing.assert_array_equal(cosines(average), cosines(summed))
    np.testing.assert_array_equal(glove_vectors(params, combination="word"), params.word)
    both = glove_vectors(params, combination="concatenate")
    np.testing.assert_array_equal(both, np.concatenate(params[:2], axis=1))
    with pytest.raises(InputError, match="choose one of: average, concatenate, sum, word"):
        glove_vectors(params, combination="product")


def test_bad_tiles_are_refused() -> None:
    for options in ({"tile": 0}, {"tile": 17}, {"seed": -1}):
        with pytest.raises(InputError, match="tiles of 1 to 16 and a seed of 0 or more"):
            make_tiles(**options)
    with pytest.raises(InputError, match="0 cells"):
        GloveTiles(*(array[:0] for array in cells()), vocabulary_size=V, seed=0)
