"""Steps that compute in bfloat16 between parameters and sums of float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.nn.recurrent import BatchNormLSTM, Recurrent
from dlcore.runtime.precision import Precision
from dlcore.train import Evaluation, evaluate, fit, gradient_step
from dlcore.types import Aux, Mean, TrainState

LAYOUTS = {
    "jit": lambda: runtime.layout("jit"),
    "pmap": lambda: runtime.layout("pmap"),
    "fsdp": lambda: runtime.layout("mesh", mesh="data=2,fsdp=2"),
}
BFLOAT16 = runtime.precision("bfloat16")
TX = optax.adamw(1e-2)
SEEN: dict[str, set[str]] = {}


class BatchNormNetwork(nn.Module):
    """The network of the other tests, in the type of its parameters."""

    @nn.compact
    def __call__(self, x, train=False):
        return networks.Network(rate=0.0, name="inner")(x, train)


class ReadingNetwork(nn.Module):
    """An LSTM with batch normalisation over the features as a sequence."""

    @nn.compact
    def __call__(self, x, train=False):
        rows = x.reshape(len(x), 4, 4)
        _, y = Recurrent(BatchNormLSTM(8, steps=3))(rows, train=train)
        return nn.Dense(5)(y[:, -1].astype(x.dtype))


MODELS = {"batch norm": BatchNormNetwork(), "LSTM": ReadingNetwork()}


def logits_of(model, variables, batch, **how):
    leaf = jax.tree.leaves(variables["params"])[0]
    SEEN.setdefault("params", set()).update(
        str(leaf.dtype) for leaf in jax.tree.leaves(variables["params"])
    )
    SEEN.setdefault("statistics", set()).update(
        str(leaf.dtype) for leaf in jax.tree.leaves(variables["batch_stats"])
    )
    return model.apply(variables, jnp.asarray(batch["x"]).astype(leaf.dtype), **how)


def make_loss(model, statistics=None):
    def loss_fn(params, model_state, batch, rng):
        logits, new = logits_of(
            model, {"params": params, **model_state}, batch, train=True, mutable=["batch_stats"]
        )
        SEEN["logits"] = {str(logits.dtype)}
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        if statistics is not None:  # as of a model that does not care
            new = jax.tree.map(lambda leaf: leaf.astype(statistics), new)
        return Mean.of(losses), Aux(dict(new), {"half": Mean.of(logits.mean(1))})

    return loss_fn


def make_metrics(model):
    def metrics(state, batch):
        logits = logits_of(model, {"params": state.params, **state.model_state}, batch)
        return {"logit": Mean.of(logits[:, 0])}, None

    return metrics


def make_state(model):
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16)))
    return TrainState.create(variables, TX, jax.random.key(1))


def train(model, layout, precision, steps=30, **how):
    SEEN.clear()
    step = gradient_step(make_loss(model, **how), TX, accumulate=2)
    compiled = runtime.compile_evaluation(make_metrics(model), layout, precision=precision)
    losses = []

    def follow(state):
        losses.append(evaluate(compiled, state, map(networks.batch, range(2)))["logit"])
        return {"logit": losses[-1]}

    state = layout.initialise(lambda: make_state(model))
    before = jax.tree.map(lambda leaf: leaf.dtype, state)
    result = fit(
        step, state, networks.batches, steps=steps, layout=layout, precision=precision,
        hooks=[Evaluation(follow)],
    )  # fmt: skip
    assert jax.tree.map(lambda leaf: leaf.dtype, result.state) == before
    assert result.recompilations == 0
    return result


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("batch norm", "fsdp"),
        pytest.param("LSTM", "jit", marks=pytest.mark.slow),
        pytest.param("batch norm", "jit", marks=pytest.mark.slow),
        pytest.param("batch norm", "pmap", marks=pytest.mark.slow),
        pytest.param("LSTM", "pmap", marks=pytest.mark.slow),
        pytest.param("LSTM", "fsdp", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_models_with_statistics_train_in_bfloat16(name, layout):
    plain = train(MODELS[name], LAYOUTS["jit"](), None)
    assert SEEN == {"params": {"float32"}, "statistics": {"float32"}, "logits": {"float32"}}
    # The carry that a cell starts from is of float32.
    with jax.numpy_dtype_promotion("standard" if name == "LSTM" else "strict"):
        half = train(MODELS[name], LAYOUTS[layout](), BFLOAT16)
    assert SEEN == {"params": {"bfloat16"}, "statistics": {"float32"}, "logits": {"bfloat16"}}
    networks.assert_close(half.state.params, plain.state.params, tolerance=0.05)
    networks.assert_close(half.state.model_state, plain.state.model_state, tolerance=0.05)
    assert half.evaluation["logit"] == pytest.approx(plain.evaluation["logit"], abs=0.05)
    assert half.evaluation != plain.evaluation


def test_statistics_of_another_type_come_back_as_they_were():
    train(MODELS["batch norm"], LAYOUTS["jit"](), BFLOAT16, steps=3, statistics=jnp.bfloat16)


def test_gradients_and_means_are_of_float32():
    state = make_state(MODELS["batch norm"])
    step = gradient_step(make_loss(MODELS["batch norm"]), TX)
    lowered = runtime.lower_step(
        step, LAYOUTS["jit"](), state, networks.batch(0), precision=BFLOAT16
    )
    new, metrics = lowered.out_info
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(new.params)} == {jnp.dtype("float32")}
    assert "bf16" in lowered.as_text()


def test_float32_is_the_same_program_as_none():
    state, step = make_state(MODELS["LSTM"]), gradient_step(make_loss(MODELS["LSTM"]), TX)
    texts = [
        runtime.lower_step(
            step, LAYOUTS["jit"](), state, networks.batch(0), precision=how
        ).as_text()
        for how in (None, runtime.precision("float32"))
    ]
    assert texts[0] == texts[1] and "bf16" not in texts[0]


def test_the_sum_of_many_halves_is_not_rounded():
    values = jnp.full(1000, 1.01, jnp.bfloat16)
    total = Mean.of(values).total
    assert total.dtype == jnp.float32 and float(total) == float(values[0]) * 1000


def test_the_carry_keeps_its_types():
    def loss_fn(params, model_state, batch, rng):
        carry = params["w"] * batch["x"].astype(params["w"].dtype)
        return Mean.of(carry), Aux(model_state, {}, {"h": carry})

    state = TrainState.create(
        {"params": {"w": jnp.ones(())}}, TX, jax.random.key(0), {"h": jnp.zeros(4)}
    )
    step = runtime.compile_step(gradient_step(loss_fn, TX), LAYOUTS["jit"](), precision=BFLOAT16)
    for _ in range(3):
        state, _ = step(state, {"x": np.ones(4, np.float32)})
    assert state.carry["h"].dtype == jnp.float32 and step.traces == 1


def test_leaves_of_another_type_stay():
    tree = {"a": jnp.zeros(2), "b": jnp.zeros(2, jnp.float16), "c": jnp.zeros(2, int)}
    types = {name: str(leaf.dtype) for name, leaf in BFLOAT16.cast(tree).items()}
    assert types == {"a": "bfloat16", "b": "float16", "c": "int32"}
    assert Precision().cast(tree) is tree


def test_an_unknown_precision():
    with pytest.raises(InputError, match="unknown precision 'half'; choose one of: bfloat16, floa"):
        runtime.precision("half")
