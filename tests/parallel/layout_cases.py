"""Small nets with all that layouts can get wrong, and the layouts they run in.

Shapes: B batch, T time, C features, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import runtime
from dlcore.losses.output import Full, output_layer
from dlcore.models.text import TENSOR_PARALLEL, LanguageModel
from dlcore.nn import BatchNorm, Conv, Dense, Dropout, max_pool
from dlcore.nn.recurrent import RecurrentStack
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Aux, Mean, TrainState

B, T, V, LAYERS = 16, 16, 832, 2
PRIME = 829  # words, which no axis divides
SINGLE = "single"  # the plain compiled step on one device, which all layouts must equal
LAYOUTS = (
    "jit", "pmap", "data=8", "fsdp=8", "model=8", "data=2,fsdp=4", "data=2,model=4",
    "fsdp=2,model=4", "data=2,fsdp=2,model=2",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        make_state: the state at step 0.
        loss_fn: of `gradient_step`.
        metric_fn: of an evaluation.
        tx: the optimizer.
        batch: the whole batch of a number.
    """

    make_state: Callable[[], TrainState]
    loss_fn: Callable[..., Any]
    metric_fn: Callable[..., Any]
    tx: optax.GradientTransformation
    batch: Callable[[int], dict[str, np.ndarray]]


class _Net(nn.Module):
    """A convolution, batch normalisation, and dropout."""

    features: int

    @nn.compact
    def __call__(self, x, train=False):
        # A bias under batch normalisation has gradient 0 but for rounding, which Adam makes large.
        x = Conv(self.features, (3, 3), padding="same", use_bias=False)(x)
        x = max_pool(nn.relu(BatchNorm()(x, train)), 2)
        x = Dropout(0.25)(x, train).reshape(len(x), -1)
        return Dense(10)(x)


def _cnn(features: int) -> Case:
    model, tx = _Net(features), optax.adamw(1e-3)

    def loss_of(variables, batch, **how):
        logits, new = model.apply(variables, batch["image"], **how)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return Mean.of(losses, batch["weight"]), dict(new)

    def loss_fn(params, model_state, batch, rng):
        how = {"train": True, "rngs": {"dropout": rng}, "mutable": ["batch_stats"]}
        loss, new = loss_of({"params": params, **model_state}, batch, **how)
        return loss, Aux(new, {})

    def metric_fn(state, batch):
        variables = {"params": state.params, **state.model_state}
        return {"loss": loss_of(variables, batch, mutable=[])[0]}, None

    def make_state():
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        return TrainState.create(variables, tx, jax.random.key(1))

    def batch(number):
        rng = np.random.default_rng(number)
        image = rng.normal(size=(B, 8, 8, 3)).astype(np.float32)
        label = rng.integers(0, 10, B).astype(np.int32)
        return {"image": image, "label": label, "weight": np.ones(B, np.float32)}

    return Case(make_state, loss_fn, metric_fn, tx, batch)


def _language_model(body: nn.Module, features: int, output: Any = None) -> Case:
    """Clipped and tied, on rows that go on where they stopped and now and then start anew."""
    output = output or Full(np.ones(V))
    model = LanguageModel(output, body, features, tie=True, dropout=0.1)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def read(params, batch, **how):
        return model.apply({"params": params}, batch["inputs"], batch["reset"], method="window",
                           carry=batch.get("carry"), **how)  # fmt: skip

    def mean(losses, batch):
        return Mean.of(losses, jnp.repeat(batch["weight"], T))

    def loss_fn(params, model_state, batch, rng):
        carry, readout = read(params, batch, train=True, rngs={"dropout": rng})
        losses = output.losses(rng, readout, batch["targets"].reshape(-1))
        return mean(losses, batch), Aux(model_state, {}, carry)

    def metric_fn(state, batch):
        carry, readout = read(state.params, {**batch, "carry": state.carry})
        return {"loss": mean(output.nats(readout, batch["targets"].reshape(-1)), batch)}, carry

    def make_state():
        variables = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        return TrainState.create(variables, tx, jax.random.key(1), model.initial_carry(B))

    def batch(number):
        rng = np.random.default_rng(number)
        tokens = rng.zipf(1.3, (B, T + 1)).astype(np.int32) % len(output.counts)
        reset = np.full(B, number == 0) | (rng.random(B) < 0.1)
        return {
            "inputs": tokens[:, :-1], "targets": tokens[:, 1:], "reset": reset,
            "weight": np.ones(B, np.float32),
        }  # fmt: skip

    return Case(make_state, loss_fn, metric_fn, tx, batch)


def _lstm(features: int) -> Case:
    return _language_model(RecurrentStack((LSTM(features),) * LAYERS, dropout=0.1), features)


def _transformer(features: int) -> Case:
    body = Transformer(TransformerConfig(features, LAYERS, 8, dropout=0.1))
    return _language_model(body, features)


def _prime(features: int) -> Case:
    body = Transformer(TransformerConfig(features, LAYERS, 8, dropout=0.1))
    return _language_model(body, features, Full(np.ones(PRIME)))


def _sampled(features: int) -> Case:
    output = output_layer("sampled", np.arange(V, 0, -1.0), samples=64)
    return _language_model(RecurrentStack((LSTM(features),)), features, output)


NETS: dict[str, Callable[[int], Case]] = {
    "cnn": _cnn, "lstm": _lstm, "transformer": _transformer, "sampled softmax": _sampled,
    "prime vocabulary": _prime,
}  # fmt: skip


def make_layout(name: str) -> runtime.Layout:
    """The layout of a name such as "pmap" or "data=2,model=2"."""
    if "=" not in name:
        return runtime.layout(name)
    return runtime.layout("mesh", mesh=name, defaults=TENSOR_PARALLEL)
