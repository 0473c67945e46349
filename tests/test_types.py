"""The contracts' own behaviour, beside that of `Mean`."""

import jax
import numpy as np
import optax

from dlcore.train.checkpoint import Restored
from dlcore.train.spikes import SpikeGuardedState
from dlcore.types import TrainState

VARIABLES = {"params": {"a": np.zeros((100, 20)), "b": np.zeros(5)}, "stats": {"mean": np.ones(3)}}


def test_a_state_says_how_many_numbers_it_holds() -> None:
    state = TrainState.create(VARIABLES, optax.sgd(0.1, momentum=0.9), jax.random.key(0))
    expected = (
        "TrainState(step=0, params=<2,005 numbers in 2 arrays>, model_state=<3 numbers in 1 "
        "arrays>, opt_state=<2,005 numbers in 2 arrays>, rng=<1 numbers in 1 arrays>)"
    )
    assert repr(state) == expected
    restored = Restored(3, state, {"best": 1}, [])
    assert repr(restored) == f"Restored(step=3, state={expected}, loop={{'best': 1}}, skipped=[])"
    guarded = SpikeGuardedState.create(VARIABLES, optax.sgd(0.1), jax.random.key(0))
    assert repr(guarded).startswith("SpikeGuardedState(step=0, ") and "recent=<" in repr(guarded)
    assert len(repr(guarded)) < 300
    # While it is traced, and as shapes alone.
    shapes = jax.eval_shape(lambda: state)
    assert "params=<2,005 numbers in 2 arrays>" in repr(shapes)
    jax.jit(lambda state: [repr(state), state][1])(state)
