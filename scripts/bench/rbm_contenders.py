"""A step of a restricted Boltzmann machine: ours, and scikit-learn's."""

import numpy as np
from contenders import Step, job_step

SIDE, HIDDEN, BATCH = 28, 500, 100


def _bits(rows: int) -> np.ndarray:
    """Images of bits, of which a fifth are on; uint8 [rows, 28, 28, 1] of 0 and 255."""
    rng = np.random.default_rng(0)
    return (255 * (rng.random((rows, SIDE, SIDE, 1)) < 0.2)).astype(np.uint8)


def our_step() -> Step:
    """A step of the job, as a run takes it."""
    import jax
    from dlcore.experiments.boltzmann import Boltzmann, Config, Info

    from dlcore import runtime
    from dlcore.launch.task import make_state

    runtime.configure()
    task = Boltzmann(Config(hidden=(HIDDEN,), batch_size=BATCH))
    shape = SIDE, SIDE, 1
    task.info = Info(shape, np.zeros(shape), 1.0)
    state = jax.jit(lambda: make_state(task))()
    batch = {"image": _bits(BATCH), "weight": np.ones(BATCH, np.float32)}
    return job_step(task, state, batch)


def their_step(*, precision: str) -> Step:
    """The same by scikit-learn, whose rule is persistent CD with one step."""
    from sklearn.neural_network import BernoulliRBM

    v = (_bits(BATCH) / 255).reshape(BATCH, -1).astype(precision)
    rbm = BernoulliRBM(n_components=HIDDEN, learning_rate=0.01, random_state=0)
    rbm.partial_fit(v)
    generator = np.random.RandomState(0)
    if not hasattr(rbm, "h_samples_"):
        rbm.h_samples_ = np.zeros((BATCH, HIDDEN), precision)
    return lambda: rbm._fit(v, generator)
