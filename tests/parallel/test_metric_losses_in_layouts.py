"""Pairs span the global batch: one step under pmap and on a mesh is that of one device."""

import functools

import jax
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.models import MLP
from dlcore.models.embedding_net import EmbeddingNet, Objective
from dlcore.train import gradient_step
from dlcore.types import Aux, Mean, TrainState

ROWS = 16
LAYOUTS = {"pmap": ("pmap", None), "mesh": ("mesh", "data=2,fsdp=2")}
# Those that look across the batch: by pairs, by drawn triplets, and by prototypes.
OBJECTIVES = {
    "drawn": Objective("soft_margin", "l2", mining="distance_weighted"),
    "prototypical": Objective("prototypical"),
}
TX = optax.sgd(0.5)


def batch():
    rng = np.random.default_rng(0)
    # Identities lie on several devices, and some rows are padding.
    return {
        "image": rng.normal(size=(ROWS, 2, 2, 1)).astype(np.float32),
        "label": (np.arange(ROWS) % 5).astype(np.int32),
        "weight": (np.arange(ROWS) % 7 != 6).astype(np.float32),
    }


def one_step(objective, layout):
    net = EmbeddingNet(functools.partial(MLP, num_classes=4, features=(8,)), 4, objective)

    def loss_fn(params, model_state, batch, rng):
        x, _ = net.apply({"params": params}, batch["image"])
        examples = x, batch["label"], batch["weight"]
        found = net.apply({"params": params}, *examples, rng, method="losses")
        return Mean.of(*found), Aux(model_state, {})

    def make_state():
        variables = jax.jit(net.init)(jax.random.key(0), batch()["image"])
        return TrainState.create(variables, TX, jax.random.key(1))

    compiled = runtime.compile_step(gradient_step(loss_fn, TX), layout)
    state, metrics = compiled(layout.initialise(make_state), batch())
    return jax.device_get(state.params), {k: float(v.compute()) for k, v in metrics.items()}


@pytest.mark.parametrize(
    "objective", [pytest.param("drawn", marks=pytest.mark.slow), "prototypical"]
)
def test_one_step_is_the_same_in_every_layout(objective):
    params, metrics = one_step(OBJECTIVES[objective], runtime.layout("jit"))
    assert metrics["grad_norm"] > 0.01
    for kind, mesh in LAYOUTS.values():
        layout = runtime.layout(kind) if mesh is None else runtime.layout(kind, mesh=mesh)
        found, measured = one_step(OBJECTIVES[objective], layout)
        assert measured == pytest.approx(metrics, rel=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, params
        )
