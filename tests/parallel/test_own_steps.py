"""Steps of one's own: right in every layout, or refused by a line that names them."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import native, parallel, runtime
from dlcore.errors import InputError
from dlcore.models import embedding
from dlcore.train import fit, gradient_step, guard, mean_gradient
from dlcore.types import Aux, Mean, TrainState

LAYOUTS = {
    "jit": lambda: runtime.layout("jit"),
    "pmap": lambda: runtime.layout("pmap"),
    "mesh": lambda: runtime.layout("mesh"),
    "fsdp": lambda: runtime.layout("mesh", mesh="data=2,fsdp=2"),
    "model": lambda: runtime.layout("mesh", mesh="model=4"),
}
ROWS, WIDTH, HIDDEN = 32, 64, 48  # leaves large enough for FSDP to cut


def batches(start):
    while True:
        rng = np.random.default_rng(start)
        yield {
            "x": rng.uniform(size=(ROWS, WIDTH)).astype(np.float32),
            "weight": rng.integers(0, 2, ROWS).astype(np.float32),
        }
        start += 1


def train(step, make_state, layout, steps=3):
    """The state after some steps, and the metrics of the last, as numbers."""
    compiled = runtime.compile_step(step, layout)
    state, source = layout.initialise(make_state), batches(0)
    for _ in range(steps):
        state, metrics = compiled(state, next(source))
    return state, {name: float(mean.compute()) for name, mean in metrics.items()}


# Two players, each with an optimizer, that learn from the same rows.

TX = optax.adam(1e-2)


def make_players():
    keys = jax.random.split(jax.random.key(0))
    params = {
        name: {"kernel": 0.1 * jax.random.normal(key, (WIDTH, HIDDEN))}
        for name, key in zip(("generator", "critic"), keys, strict=True)
    }
    opt_state = {name: TX.init(params[name]) for name in params}
    return TrainState(jnp.int32(0), params, {}, opt_state, jax.random.key(1))


def loss_of(player, sign):
    def loss_fn(params, others, batch, rng):
        both = {**others, player: params}
        keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(
            parallel.positions(len(batch["x"]))
        )
        noise = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys)
        made = jnp.tanh(noise @ both["generator"]["kernel"] @ both["generator"]["kernel"].T)
        scores = [jnp.tanh(x @ both["critic"]["kernel"]).mean(1) for x in (made, batch["x"])]
        return Mean.of(sign * (scores[0] - scores[1]), batch["weight"]), Aux(others, {})

    return loss_fn


def players_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    params, opt_state, metrics = dict(state.params), dict(state.opt_state), {}
    for player, sign in (("critic", 1.0), ("generator", -1.0)):
        others = {name: leaf for name, leaf in params.items() if name != player}
        gradient = mean_gradient(loss_of(player, sign), accumulate=2)
        grads, metrics[player], _ = gradient(params[player], others, batch, rng)
        updates, opt_state[player] = TX.update(grads, opt_state[player], params[player])
        params[player] = optax.apply_updates(params[player], updates)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


# Contrastive divergence: sums of products, no gradient.


def make_machine():
    params = {"kernel": 0.1 * jax.random.normal(jax.random.key(0), (WIDTH, HIDDEN))}
    return TrainState(jnp.int32(0), params, {}, (), jax.random.key(1))


def statistics(params, rows, rng):
    hidden = jax.nn.sigmoid(rows["x"] @ params["kernel"])
    keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(parallel.positions(len(hidden)))
    on = hidden > jax.vmap(lambda key: jax.random.uniform(key, (HIDDEN,)))(keys)
    visible = jax.nn.sigmoid(on.astype(float) @ params["kernel"].T)
    again = jax.nn.sigmoid(visible @ params["kernel"])
    errors = Mean.of(((visible - rows["x"]) ** 2).mean(1))
    return rows["x"].T @ hidden - visible.T @ again, errors


def divergence_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    change, errors = runtime.sum_over_rows(statistics)(state.params, batch, rng)
    params = {"kernel": state.params["kernel"] + 0.1 * change / errors.weight}
    return state.replace(step=state.step + 1, params=params), {"error": errors}


# Without any of our functions but the sum.


def by_hand_step(state, batch):
    def loss(params):
        return ((batch["x"] @ params["kernel"]) ** 2).sum()

    value, grads = jax.value_and_grad(loss)(state.params)
    rows = jnp.float32(len(batch["x"]))
    value, grads, rows = parallel.sum_over_devices((value, grads, rows))
    params = jax.tree.map(lambda p, g: p - 0.01 * g / rows, state.params, grads)
    return state.replace(step=state.step + 1, params=params), {"loss": Mean(value, rows)}


STEPS = {
    "two gradients": (players_step, make_players),
    "sums": (divergence_step, make_machine),
    "by hand": (by_hand_step, make_machine),
}


@functools.cache
def trained_on_one_device(step, make_state):
    """The state that every layout must reach."""
    state, metrics = train(step, make_state, LAYOUTS["jit"]())
    return networks.arrays(state), metrics


# On a mesh the guard sees what it sees on one device; under pmap, a part.
@pytest.mark.parametrize(
    ("case", "name", "guarded"),
    [
        pytest.param(
            *(case, name, guarded),
            marks=[pytest.mark.slow]
            * ((guarded and case != "two gradients") or (not guarded and name != "fsdp")),
        )
        for case in STEPS
        for name, guarded in (
            ("pmap", True),
            *((name, False) for name in LAYOUTS if name != "jit"),
        )
    ],
)
def test_a_step_of_ones_own_equals_that_of_one_device(case, name, guarded):
    step, make_state = STEPS[case]
    reference, expected = trained_on_one_device(step, make_state)
    state, metrics = train(guard(step) if guarded else step, make_state, LAYOUTS[name]())
    for metric, value in expected.items():
        assert metrics[metric] == pytest.approx(value, abs=1e-6)
    networks.assert_close(state, reference, tolerance=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_sums_are_computed_in_the_precision_that_the_step_is_told(name):
    def step(state, batch):
        def sums(params, rows):
            assert params["kernel"].dtype == jnp.bfloat16
            product = rows["x"].astype(jnp.bfloat16) @ params["kernel"]
            return {"product": product.sum(0)}

        found = runtime.sum_over_rows(sums)(state.params, batch)
        assert {leaf.dtype for leaf in found.values()} == {jnp.dtype("float32")}
        return state, {"sum": Mean(found["product"].sum(), jnp.ones(()))}

    layout = LAYOUTS[name]()
    compiled = runtime.compile_step(step, layout, precision=runtime.precision("bfloat16"))
    state, metrics = compiled(layout.initialise(make_machine), next(batches(0)))
    exact = (next(batches(0))["x"] @ np.asarray(state.params["kernel"])).sum()
    assert float(metrics["sum"].total) == pytest.approx(exact, rel=0.01)


def test_devices_add_halves_as_float32_and_whole_numbers_as_they_are():
    def total(x, count):
        with parallel.part_of_batch(parallel.Part(axis_name="data")):
            return parallel.sum_over_devices({"x": x, "count": count})

    halves, counts = jnp.full((4, 2), 1.01, jnp.bfloat16), jnp.arange(4)
    found = jax.pmap(total, "data")(halves, counts)
    assert found["x"].dtype == jnp.bfloat16 and found["count"].tolist() == [6] * 4
    jaxpr = str(jax.make_jaxpr(total, axis_env=[("data", 4)])(halves[0], counts[0]))
    assert "f32[2] = psum" in jaxpr.replace("bf16", "half") and "i32[] = psum" in jaxpr


def naive_step(state, batch):
    value, grads = jax.value_and_grad(lambda p: ((batch["x"] @ p["kernel"]) ** 2).mean())(
        state.params
    )
    params = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    return state.replace(step=state.step + 1, params=params), {"loss": Mean(value, jnp.ones(()))}


def half_step(state, batch):
    new, metrics = naive_step(state, batch)
    return new, jax.tree.map(lambda x: parallel.sum_over_devices(x) / 4, metrics)


def unreported_step(state, batch):
    new, metrics = by_hand_step(state, batch)
    return new, metrics | {"own": Mean(batch["x"].sum(), jnp.ones(()))}


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (naive_step, "it never sums over the devices"),
        (half_step, "they disagree about state/params/kernel"),
        (unreported_step, "they disagree about metrics/own/total"),
    ],
)
def test_a_step_that_knows_its_own_rows_alone_is_refused_under_pmap(step, why):
    for name in ("mesh", "fsdp", "model"):
        if step is not half_step:  # which divides by the devices of pmap
            reference, _ = trained_on_one_device(step, make_machine)
            networks.assert_close(train(step, make_machine, LAYOUTS[name]())[0], reference)
    for wrapped in (step, guard(step)):
        with pytest.raises(InputError) as error:
            train(wrapped, make_machine, LAYOUTS["pmap"]())
        assert f"the step {step.__name__} cannot" in str(error.value)
        assert why in str(error.value) and "--layout=jit" in str(error.value)
        assert "\n" not in str(error.value)


def test_fit_names_the_step_that_it_refuses():
    layout = LAYOUTS["pmap"]()
    with pytest.raises(InputError, match="the step naive_step cannot .* never sums"):
        fit(naive_step, layout.initialise(make_machine), batches, steps=2, layout=layout)
    with pytest.raises(InputError, match="step half_step cannot .* about state/params/kernel"):
        fit(half_step, layout.initialise(make_machine), batches, steps=2, layout=layout)


@pytest.mark.slow
def test_fit_trains_the_same_network_in_every_layout_that_it_is_told():
    model, tx = networks.Network(norm=False), optax.adamw(1e-2)
    step, reference = gradient_step(networks.make_loss(model), tx), None
    for name, make_layout in LAYOUTS.items():  # the same step: nothing is left from another layout
        layout = make_layout()
        state = layout.initialise(lambda: networks.make_state(model, tx))
        result = fit(step, state, networks.batches, steps=3, layout=layout)
        reference = reference or result
        networks.assert_close(result.state, reference.state), name


def test_what_is_not_finite_alike_on_all_devices_is_no_disagreement():
    def step(state, batch):
        new, metrics = by_hand_step(state, batch)
        bad = {name: Mean(jnp.float32(name), jnp.ones(())) for name in ("nan", "inf", "-inf")}
        return new, metrics | bad

    _, metrics = train(step, make_machine, LAYOUTS["pmap"](), steps=1)
    assert np.isnan(metrics["nan"]) and metrics["inf"] == -metrics["-inf"] == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_device_whose_number_is_not_finite_disagrees(value):
    def step(state, batch):
        new, metrics = by_hand_step(state, batch)
        first = jax.lax.axis_index("data") == 0
        return new, metrics | {"own": Mean(jnp.where(first, value, 0.0), jnp.ones(()))}

    with pytest.raises(InputError, match="disagree about metrics/own/total"):
        train(step, make_machine, LAYOUTS["pmap"](), steps=1)


@pytest.mark.parametrize("name", ["pmap", "mesh"])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": np.zeros((8, 2)), "y": np.zeros(6)}, "'y' of the batch has 6 rows.* 4 devices"),
        ({"x": np.zeros(8), "rate": np.float32(1)}, "'rate' of the batch is a single number.* 4"),
    ],
)
def test_leaves_whose_rows_do_not_divide_are_named(name, batch, message):
    layout = LAYOUTS[name]()

    def nothing(state, batch):
        return parallel.sum_over_devices(state), {}

    with pytest.raises(InputError, match=message):
        runtime.compile_step(nothing, layout)(layout.initialise(lambda: jnp.zeros(())), batch)
    count = runtime.compile_evaluation(lambda state, batch: ({}, None), layout)
    with pytest.raises(InputError, match=message):
        count(layout.initialise(lambda: jnp.zeros(())), batch)


WORDS = 500


def word2vec(
    *,
    window=6,
    architecture="skip_gram",
    how="negative_sampling",
    paragraphs=None,
    micro_batch=512,
):
    """A step of word2vec, or of paragraph vectors of that architecture."""
    how = embedding.objective(
        how, np.arange(WORDS, 0, -1.0), negatives=5, samples=32, exponent=0.75
    )
    rng = np.random.default_rng(0)
    words = rng.integers(0, WORDS, 1024 + 2 * window).astype(np.int32)
    batch = {"words": words, "sentences": np.arange(len(words)) // 20, "reach": words % 5 + 1}
    if paragraphs is not None:
        model = embedding.ParagraphVectors(how, 16, paragraphs, window=window, paragraphs=52)
    else:
        model = embedding.Word2Vec(how, 16, architecture, window)
    step = embedding.word2vec_step(
        model, learning_rate=lambda step: jnp.asarray(0.3), micro_batch=micro_batch
    )
    return step, embedding.initial_sums, model.init, batch


def glove(number, tile):
    """The step of GloVe with a batch of the rest (number 0) or of dense tiles."""
    rng = np.random.default_rng(0)
    places = np.unique(rng.zipf(1.3, (2, 20_000)) % WORDS, axis=1).astype(np.int32)
    tiles = embedding.GloveTiles(
        *places,
        np.ones(places.shape[1], np.float32),
        vocabulary_size=WORDS,
        seed=0,
        tile=tile,
    )
    batches = (tiles.batch(step) for step in range(tiles.epoch_steps))
    batch = [batch for batch in batches if ("rows" in batch) == (number == 0)][0]
    make_params = functools.partial(embedding.glove_tables, vocabulary_size=WORDS, dimension=16)
    return embedding.glove_step(), embedding.initial_squares, make_params, batch


@functools.cache
def trained_vectors(make, name, *, divided=True):
    """The tables after two steps in a layout."""
    step, start, make_params, batch = make()
    kind, mesh = ("mesh", name) if "=" in name else (name, None)
    defaults = embedding.TENSOR_PARALLEL
    layout = runtime.layout(kind, mesh=mesh, defaults=defaults)
    tx = optax.GradientTransformation(start, optax.identity().update)

    def make_state():
        return TrainState.create({"params": make_params(jax.random.key(0))}, tx, jax.random.key(1))

    step = guard(runtime.on_each_device(step) if divided else step)
    compiled, state = runtime.compile_step(step, layout), layout.initialise(make_state)
    with native.only_xla():  # C sums losses in double precision
        for _ in range(2):
            state, metrics = compiled(state, batch)
    assert float(metrics["skipped"].compute()) == 0
    return networks.arrays(state), float(metrics["loss"].compute())


TABLES = {
    "skip_gram": word2vec,
    "cbow": functools.partial(word2vec, architecture="cbow_mean"),
    "full": functools.partial(word2vec, how="full"),
    "hierarchical": functools.partial(word2vec, how="hierarchical"),
    "paragraphs": functools.partial(word2vec, paragraphs="pv_dm"),
    "glove, rest": functools.partial(glove, 0, 128),
    "glove, tiles": functools.partial(glove, 1, 50),  # 4 devices have 13, 13, 13 and 11 rows
}


QUICK = {("skip_gram", "data=2,model=2"), ("glove, tiles", "model=4")}


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, marks=[pytest.mark.slow] * ((case, name) not in QUICK))
        for case in TABLES
        for name in ("pmap", "model=4", "data=4", "data=2,model=2", "fsdp=4")
    ],
)
def test_steps_on_tables_are_right_in_every_layout(case, name):
    tables, loss = trained_vectors(TABLES[case], "jit")
    found, found_loss = trained_vectors(TABLES[case], name)
    networks.assert_close(found, tables, tolerance=1e-5)
    # XLA sums thousands of pairs in float32, in an order that hangs on the layout.
    assert found_loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("make", [TABLES["cbow"], TABLES["glove, rest"]], ids=["cbow", "glove"])
def test_steps_on_tables_need_not_know_of_a_mesh(make):
    reference = trained_vectors(make, "jit")
    found = trained_vectors(make, "data=2,model=2", divided=False)
    networks.assert_close(found[0], reference[0], tolerance=1e-5)


def test_words_that_do_not_divide_among_devices_are_refused():
    with pytest.raises(InputError, match="'reach' of the batch has 1034 rows.* --mesh=model=N"):
        trained_vectors(functools.partial(word2vec, window=5), "data=4")
    with pytest.raises(InputError, match="words do not divide among 4 .* multiple of 512 words"):
        trained_vectors(functools.partial(word2vec, micro_batch=256), "data=4")
