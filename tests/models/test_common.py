"""What every image model must pass."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.models import IMAGE_MODELS, MLP, image_model

# Name: (model, image size), as small as it goes.
SMALL = {
    "mlp": (MLP(num_classes=4, features=(16,), dropout=0.3), 4),
    "lenet5": (image_model("lenet5", num_classes=4), 16),
    "lenet5_paper": (image_model("lenet5_paper", num_classes=10), 32),
    "resnet20": (image_model("resnet20", num_classes=4), 8),
}
NOISY = {"mlp"}
NORMALISED = {"resnet20"}
# Parameters at 10 classes and 32x32 images of one channel, for the ResNets of three.
COUNTS = {
    "mlp": (1024 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 10,
    "lenet5": 61_706,
    "lenet5_paper": 60_000,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=SMALL)
def case(request):
    """(name, module, variables, images) of each small model, initialised once."""
    model, size = SMALL[request.param]
    images = jax.random.normal(jax.random.key(1), (4, size, size, 1))
    return request.param, model, jax.jit(model.init)(KEY, images), images


def apply(model, variables, images, train=False, seed=0):
    """(logits, activations), the new model state dropped."""
    mutable = [name for name in variables if name != "params"] if train else False
    rngs = {"dropout": jax.random.key(seed)}
    outputs = model.apply(variables, images, train=train, rngs=rngs, mutable=mutable)
    return outputs[0] if train else outputs


def test_every_family_is_here():
    assert set(COUNTS) == set(IMAGE_MODELS)
    families = {name.rstrip("0123456789") for name in SMALL}
    assert {name.rstrip("0123456789") for name in IMAGE_MODELS} == families


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_shapes_and_parameter_counts(name):
    """The papers' counts; nothing is computed."""
    model = image_model(name, num_classes=10)
    channels = 3 if name.startswith("resnet") else 1
    images = jax.ShapeDtypeStruct((2, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == COUNTS[name]
    assert set(variables) <= {"params", "batch_stats"}
    logits, activations = jax.eval_shape(lambda v, x: apply(model, v, x), variables, images)
    assert logits.shape == (2, 10) and logits.dtype == jnp.float32
    assert all(each.shape[0] == 2 for each in activations.values())
    assert activations["output"].shape == logits.shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [2, 100])
@pytest.mark.parametrize("name", SMALL)
def test_other_channels_and_classes(name, num_classes, channels):
    model, size = image_model(name, num_classes=num_classes), IMAGE_MODELS[name].image_size or 9
    images = jax.ShapeDtypeStruct((2, size, size + 4, channels), jnp.float32)
    (logits, _), _ = jax.eval_shape(model.init_with_output, KEY, images)
    assert logits.shape == (2, num_classes)


def test_deterministic_by_key(case):
    _, model, variables, images = case
    again = jax.jit(model.init)(KEY, images)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    other = jax.jit(model.init)(jax.random.key(9), images)
    assert any(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (variables, other)), strict=True)
    )


def test_finite(case):
    _, model, variables, images = case
    for train in (False, True):
        for name, value in apply(model, variables, 10 * images, train)[1].items():
            assert np.isfinite(value).all(), name


def test_logits_are_the_last_activation(case):
    _, model, variables, images = case
    logits, activations = apply(model, variables, images)
    assert list(activations)[-1] == "output"
    np.testing.assert_array_equal(logits, activations["output"])


def test_training_differs_only_by_noise_and_normalisation(case):
    name, model, variables, images = case
    evaluated = apply(model, variables, images)[0]
    trained = [apply(model, variables, images, train=True, seed=seed)[0] for seed in (0, 1)]
    assert (evaluated != trained[0]).any() == (name in NOISY | NORMALISED)
    assert (trained[0] != trained[1]).any() == (name in NOISY)


def test_batch_is_vmap_of_one(case):
    _, model, variables, images = case
    together = apply(model, variables, images)[0]
    alone = jax.vmap(lambda image: apply(model, variables, image[None])[0][0])(images)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_jit_is_no_jit(case):
    _, model, variables, images = case
    for train in (False, True):
        plain = apply(model, variables, images, train)
        jitted = jax.jit(lambda v, x, train=train: apply(model, v, x, train))(variables, images)
        compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
        jax.tree.map(compare, plain, jitted)


def test_overfits_one_batch(case):
    _, model, variables, images = case
    labels = jnp.arange(4)
    params = variables["params"]
    stats = {name: value for name, value in variables.items() if name != "params"}
    tx = optax.adam(3e-3)

    @jax.jit
    def step(carry):
        params, stats, opt_state = carry

        def loss_fn(params):
            (logits, _), new = model.apply(
                {"params": params, **stats}, images, train=True, mutable=list(stats),
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, new

        (loss, new), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), loss

    carry = (params, stats, tx.init(params))
    for _ in range(100):
        carry, loss = step(carry)
    assert loss < 0.05


@pytest.mark.parametrize("name", sorted(set(IMAGE_MODELS) - {"mlp"}))
def test_too_small_images_name_the_smallest_size(name):
    smallest = {"lenet5": 16, "lenet5_paper": 32}.get(name, 8)
    model = image_model(name, num_classes=10)
    jax.eval_shape(model.init, KEY, jnp.ones((1, smallest, smallest, 1)))
    expected = f"too small for {name}; the smallest size is {smallest}x{smallest}"
    with pytest.raises(InputError, match=expected):
        jax.eval_shape(model.init, KEY, jnp.ones((1, smallest, smallest - 1, 1)))


def test_images_need_four_axes():
    with pytest.raises(
        ValueError, match=r"lenet5 takes images \(B, H, W, C\), got .*\(32, 32, 1\)"
    ):
        image_model("lenet5", num_classes=10).init(KEY, jnp.ones((32, 32, 1)))


def test_unknown_model():
    with pytest.raises(InputError, match="unknown model 'lenet'; choose one of: lenet5, lenet5_p"):
        image_model("lenet", num_classes=10)
