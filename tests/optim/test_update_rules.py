"""Update rules follow the papers' equations in NumPy, also where sources confuse variants.

A reference takes the parameters, the gradients of five steps and the learning rate, and gives the
parameters after them, all of one leaf. Both sides compute in float64: in float32 Adam's correction
1 - 0.999 alone would cost four digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.optim import optimizer

RATE = 0.1
STEPS = 5


def run(tx, params, gradients):
    """Returns the parameters after one update per gradient tree."""
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def sgd(p, gs, lr):
    for g in gs:
        p = p - lr * g
    return p


def momentum(p, gs, lr, b=0.9, dampening=0.0, nesterov=False):
    v = 0
    for g in gs:
        g = (1 - dampening) * g
        v = b * v + g
        p = p - lr * (g + b * v if nesterov else v)
    return p


def adagrad(p, gs, lr):
    for t in range(len(gs)):
        p = p - lr * gs[t] / np.sqrt(np.square(gs[: t + 1]).sum(0) + 1e-10)
    return p


def adadelta(p, gs, lr, rho=0.95, eps=1e-6):
    square_g = square_x = 0
    for g in gs:
        square_g = rho * square_g + (1 - rho) * g**2
        step = -np.sqrt(square_x + eps) / np.sqrt(square_g + eps) * g
        square_x = rho * square_x + (1 - rho) * step**2
        p = p + lr * step
    return p


def rmsprop(p, gs, lr, rho=0.9, inside=0.0, outside=0.0, centered=False, b=0.0):
    r = m = v = 0
    for g in gs:
        r = rho * r + (1 - rho) * g**2
        m = rho * m + (1 - rho) * g
        v = b * v + g / (np.sqrt(r - centered * m**2 + inside) + outside)
        p = p - lr * v
    return p


def adam(
    p, gs, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, corrected=True, layerwise=False, ams=False
):
    m = v = largest = 0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = (m / (1 - b1**t), v / (1 - b2**t)) if corrected else (m, v)
        largest = np.maximum(largest, v_hat)
        step = m_hat / (np.sqrt(largest if ams else v_hat) + eps) + decay * p
        if layerwise:
            step = step * np.linalg.norm(p) / np.linalg.norm(step)
        p = p - lr * step
    return p


def lion(p, gs, lr, b1=0.9, b2=0.99, decay=0.0):
    m = 0
    for g in gs:
        p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
    return p


RULES = {
    "sgd": ("sgd", {}, sgd, {}),
    "heavy ball": ("momentum", {}, momentum, {}),
    "moving average": ("momentum", {"dampening": 0.9}, momentum, {"dampening": 0.9}),
    "nesterov": ("nesterov", {}, momentum, {"nesterov": True}),
    "adagrad": ("adagrad", {}, adagrad, {}),
    "adadelta": ("adadelta", {}, adadelta, {}),
    "rmsprop": ("rmsprop", {}, rmsprop, {"inside": 1e-8}),
    "rmsprop, eps 0": ("rmsprop", {"eps": 0}, rmsprop, {}),
    "rmsprop, eps inside": ("rmsprop", {"eps": 0.1}, rmsprop, {"inside": 0.1}),
    "rmsprop, eps outside": (
        "rmsprop",
        {"eps": 0.1, "eps_in_sqrt": False},
        rmsprop,
        {"outside": 0.1},
    ),
    "rmsprop, centered": (
        "rmsprop",
        {"eps": 0.1, "centered": True},
        rmsprop,
        {"inside": 0.1, "centered": True},
    ),
    "rmsprop, momentum": ("rmsprop", {"momentum": 0.5}, rmsprop, {"inside": 1e-8, "b": 0.5}),
    "adam": ("adam", {}, adam, {}),
    "adam, uncorrected": ("adam", {"bias_correction": False}, adam, {"corrected": False}),
    "adam, other betas": ("adam", {"b1": 0.5, "b2": 0.7}, adam, {"b1": 0.5, "b2": 0.7}),
    "adamw": ("adamw", {"weight_decay": 0.3}, adam, {"decay": 0.3}),
    "amsgrad": ("amsgrad", {"b2": 0.5}, adam, {"b2": 0.5, "ams": True}),
    "amsgrad, the paper's": (
        "amsgrad",
        {"b2": 0.5, "bias_correction": False},
        adam,
        {"b2": 0.5, "ams": True, "corrected": False},
    ),
    "lamb": (
        "lamb",
        {"weight_decay": 0.3},
        adam,
        {"decay": 0.3, "layerwise": True, "eps": 1e-6},
    ),
    "lion": ("lion", {"weight_decay": 0.3}, lion, {"decay": 0.3}),
}


@pytest.mark.parametrize("case", RULES)
def test_rule_is_the_papers(case):
    name, hyper, reference, expected_hyper = RULES[case]
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 2))
    gradients = rng.normal(size=(STEPS, 3, 2))
    with jax.enable_x64(True):
        end = run(
            optimizer(name, RATE, **hyper),
            {"kernel": jnp.asarray(start)},
            [{"kernel": jnp.asarray(g)} for g in gradients],
        )
    expected = reference(start, gradients, RATE, **expected_hyper)
    np.testing.assert_allclose(end["kernel"], expected, rtol=1e-9)


def test_moving_average_momentum_is_the_heavy_ball_at_a_smaller_rate():
    gradients = list(jax.random.normal(jax.random.key(0), (STEPS, 4)))
    start = jnp.arange(4.0)
    # 1 - 0.75 is a power of two, so not one rounding differs.
    average = run(optimizer("momentum", 0.3, decay=0.75, dampening=0.75), start, gradients)
    heavy = run(optimizer("momentum", 0.3 * 0.25, decay=0.75), start, gradients)
    np.testing.assert_array_equal(average, heavy)
    assert not np.allclose(heavy, run(optimizer("momentum", 0.3, decay=0.75), start, gradients))


def test_first_adam_step_is_the_sign_of_the_gradient():
    gradient = jnp.array([1e-3, -2.0, 50.0])
    corrected = run(optimizer("adam", 0.01), jnp.zeros(3), [gradient])
    np.testing.assert_allclose(corrected, -0.01 * np.sign(gradient), rtol=2e-5)
    literal = run(optimizer("adam", 0.01, bias_correction=False), jnp.zeros(3), [gradient])
    np.testing.assert_allclose(literal, -0.01 * 0.1 / np.sqrt(0.001) * np.sign(gradient), rtol=1e-3)


def test_rmsprop_without_the_square_is_nan_and_ours_is_not():
    gradients = jnp.array([[1.0, -1.0], [0.5, -0.5]])
    mean, literal = jnp.zeros(2), jnp.zeros(2)
    for g in gradients:
        mean = 0.9 * mean + 0.1 * g
        literal = literal - 0.1 * g / jnp.sqrt(mean)
    assert np.isfinite(literal[0]) and np.isnan(literal[1])
    ours = run(optimizer("rmsprop", 0.1, eps=0), jnp.zeros(2), list(gradients))
    np.testing.assert_allclose(ours[0], -ours[1])
    assert np.isfinite(ours).all()


def test_rmsprop_without_eps_leaves_elements_without_gradient():
    end = run(optimizer("rmsprop", 0.1, eps=0), jnp.ones(2), [jnp.array([0.0, 3.0])] * 3)
    assert end[0] == 1.0 and np.isfinite(end[1]) and end[1] < 1.0


def test_adadelta_keeps_the_units_of_the_parameters():
    def path(scale):
        """Minimises f(x / scale) from scale * x0, in units of the scale."""
        tx = optimizer("adadelta", 1.0, eps=1e-30)
        params = scale * jnp.array([1.0, -2.0, 3.0])
        state = optax.tree.set(tx.init(params), e_x=jnp.full(3, (0.1 * scale) ** 2))
        points = []
        for _ in range(5):
            gradient = jax.grad(lambda x: jnp.sum(jnp.cosh(x / scale)))(params)
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            points.append(params / scale)
        return jnp.stack(points)

    np.testing.assert_allclose(path(100.0), path(1.0), rtol=1e-5)
    assert np.abs(path(1.0)[-1] - path(1.0)[0]).min() > 0.1


def newton_schulz(x):
    """Runs five quintic iterations of Jordan et al. 2024 on x, rows by columns."""
    x = x / np.linalg.norm(x)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize(
    "shape", [(4, 6), pytest.param((6, 4), marks=pytest.mark.slow), (2, 2, 2, 5)]
)
def test_muon_orthogonalises_matrices(shape):
    gradient = np.random.default_rng(0).normal(size=shape)
    rows, columns = int(np.prod(shape[:-1])), shape[-1]

    def first_step(**hyper):
        with jax.enable_x64(True):
            tx = optimizer("muon", 1.0, **hyper)
            end = run(tx, {"kernel": jnp.zeros(shape)}, [{"kernel": jnp.asarray(gradient)}])
        return -np.reshape(end["kernel"], (rows, columns))

    matrix = gradient.reshape(rows, columns)
    orthogonal = newton_schulz(matrix)
    np.testing.assert_allclose(
        first_step(consistent_rms=None), np.sqrt(max(1, columns / rows)) * orthogonal, rtol=1e-6
    )
    np.testing.assert_allclose(
        first_step(), 0.2 * np.sqrt(max(rows, columns)) * orthogonal, rtol=1e-6
    )
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    singular = left.T @ orthogonal @ right.T
    np.testing.assert_allclose(singular, np.diag(np.diag(singular)), atol=1e-9)
    assert (np.diag(singular) > 0.6).all() and (np.diag(singular) < 1.3).all()


def test_muon_leaves_the_rest_to_adam():
    gradients = [
        {"bias": g, "kernel": jnp.eye(2), "slopes": jnp.full((2, 2, 2), 0.5)}
        for g in jax.random.normal(jax.random.key(0), (STEPS, 3))
    ]
    start = jax.tree.map(jnp.zeros_like, gradients[0])
    muon = run(optimizer("muon", RATE, nesterov=False), start, gradients)
    adam_end = run(optimizer("adam", RATE), start, gradients)
    for leaf in ("bias", "slopes"):
        np.testing.assert_allclose(muon[leaf], adam_end[leaf], rtol=1e-6)
    assert not np.allclose(muon["kernel"], adam_end["kernel"])
