"""What compiled steps and evaluations of the cases send and hold; nothing is run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from layout_cases import NETS, make_layout

from dlcore import runtime
from dlcore.models import embedding
from dlcore.plan.collectives import collectives
from dlcore.train import gradient_step, guard
from dlcore.types import TrainState

WORDS = 1000
PAIRS = 64  # of an evaluation


def cost(net: str, name: str, program: str, features: int, accumulate: int = 1) -> dict[str, Any]:
    """The collectives of a program on a mesh, and the bytes of the state.

    Args:
        net: of `layout_cases.NETS`, "word2vec" or "glove".
        name: the axes of the mesh.
        program: "step" or "evaluation".
        features: the width of the net.
        accumulate: micro-batches of a step.

    Returns:
        "collectives", a list of {kind, axes, runs, bytes, source}, the bytes those that a device
        puts in or gets out in one run, the larger; "held" and "whole", the bytes of parameters and
        optimizer state on a device and altogether; "params", the bytes of the parameters.
    """
    if net in ("word2vec", "glove"):
        layout, function, make_state, batch = _words(net, name, features, program)
    else:
        case, layout = NETS[net](features), make_layout(name)
        make_state, batch, function = case.make_state, case.batch(0), case.metric_fn
        if program == "step":
            function = gradient_step(case.loss_fn, case.tx, accumulate=accumulate)
    state = layout.abstract(make_state)
    if program == "step":
        compiled = layout.lower_step(guard(function), state, batch).compile()
    else:
        compiled = layout.lower_evaluation(function, state, batch).compile()
    mesh = layout.mesh
    found = [
        {
            "kind": one.kind, "axes": one.axes(mesh), "runs": one.runs, "source": one.source,
            "bytes": max(one.operand_bytes, one.result_bytes), "sent": one.sent_bytes,
        }
        for one in collectives(compiled)
    ]  # fmt: skip
    kept = jax.tree.leaves((state.params, state.opt_state))
    return {
        "collectives": found,
        "held": sum(leaf.dtype.itemsize * _size(leaf.sharding.shard_shape(leaf.shape))
                    for leaf in kept),
        "whole": sum(leaf.dtype.itemsize * leaf.size for leaf in kept),
        "params": sum(leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(state.params)),
    }  # fmt: skip


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _words(net: str, name: str, features: int, program: str) -> tuple[Any, ...]:
    """Layout, step or evaluation, state and batch of word vectors."""
    layout = runtime.layout("mesh", mesh=name, defaults=embedding.TENSOR_PARALLEL)
    if net == "glove":
        rng = np.random.default_rng(0)
        places = np.unique(rng.zipf(1.3, (2, 20_000)) % WORDS, axis=1).astype(np.int32)
        tiles = embedding.GloveTiles(
            *places, np.ones(places.shape[1], np.float32), vocabulary_size=WORDS, seed=0
        )
        start, step = embedding.initial_squares, embedding.glove_step()
        batch = next(tiles.batches(0))
        make_params = functools.partial(
            embedding.glove_tables, vocabulary_size=WORDS, dimension=features
        )
    else:
        how = embedding.objective(
            "negative_sampling", np.arange(WORDS, 0, -1.0), negatives=5, samples=32, exponent=0.75
        )
        model = embedding.Word2Vec(how, features)
        start, make_params = embedding.initial_sums, model.init
        step = embedding.word2vec_step(
            model, learning_rate=lambda step: jnp.asarray(0.3), micro_batch=256
        )
        flat = np.zeros(1024 + 2 * model.window, np.int32)
        batch = {"words": flat, "sentences": flat, "reach": flat}
        if program == "evaluation":
            ones = np.ones(PAIRS, np.int32)
            batch = {
                "queries": ones[:, None], "targets": ones, "noise": np.ones((PAIRS, 5), np.int32),
                "weight": ones.astype(np.float32),
            }  # fmt: skip
            step = lambda state, batch: (model.held_out(state.params, batch), None)  # noqa: E731
    tx = optax.GradientTransformation(start, optax.identity().update)

    def make_state() -> TrainState:
        key = jax.random.key(0)
        return TrainState.create({"params": make_params(key)}, tx, key)

    return layout, step, make_state, batch
