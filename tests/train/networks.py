"""A small network with all that layouts can get wrong, and its loss."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.nn import BatchNorm, Dropout
from dlcore.types import Aux, Mean, TrainState


class Network(nn.Module):
    """Two dense layers, batch normalisation and dropout where asked for."""

    norm: bool = True
    rate: float = 0.25

    @nn.compact
    def __call__(self, x, train=False):
        # A bias under batch normalisation has gradient 0 but for rounding, which Adam makes large.
        x = nn.Dense(32, use_bias=not self.norm)(x)
        x = BatchNorm()(x, train) if self.norm else x
        x = Dropout(self.rate)(nn.tanh(x), train)
        return nn.Dense(5)(x)


def make_loss(model):
    def loss_fn(params, model_state, batch, rng):
        logits, new_state = model.apply(
            {"params": params, **model_state},
            batch["x"],
            train=True,
            rngs={"dropout": rng},
            mutable=list(model_state),
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        metrics = {"accuracy": Mean.of(right, batch["weight"])}
        return Mean.of(loss, batch["weight"]), Aux(dict(new_state), metrics)

    return loss_fn


def make_state(model, tx, seed=0):
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 16)))
    return TrainState.create(variables, tx, jax.random.key(seed + 1))


def batch(step, size=32):
    rng = np.random.default_rng(step)
    x = rng.normal(size=(size, 16)).astype(np.float32)
    label = x[:, :5].argmax(-1).astype(np.int32)
    return {"x": x, "label": label, "weight": np.ones(size, np.float32)}


def batches(start):
    while True:
        yield batch(start)
        start += 1


def arrays(tree):
    """The leaves as NumPy arrays, keys as their data."""

    def array(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    return jax.tree.map(array, tree)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, arrays(left), arrays(right))


def assert_close(left, right, tolerance=1e-6):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    jax.tree.map(close, arrays(left), arrays(right))


def read_metrics(path):
    """The reports in a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]
