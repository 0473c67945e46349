"""The tests that every image model must pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.errors import InputError
from dlcore.models import IMAGE_MODELS, MLP, image_model
from dlcore.models.cnn import googlenet


def small(name, **options):
    """The model of that name for four classes."""
    return IMAGE_MODELS[name].build(num_classes=4, **options)


# Name: (model, image size), as small as it goes.
SMALL = {
    "mlp": (MLP(num_classes=4, features=(16,), dropout=0.3), 4),
    "highway_mlp": (small("highway_mlp", depth=4, features=16), 4),
    "highway_cnn": (small("highway_cnn", depth=4, features=6), 8),
    "maxout_mlp": (small("maxout_mlp", features=16, pieces=2), 4),
    "maxout_cnn": (small("maxout_cnn", width=0.06), 16),
    "lenet5": (small("lenet5"), 16),
    "lenet5_paper": (image_model("lenet5_paper", num_classes=10), 32),
    "conv4": (small("conv4", width=1 / 8), 16),
    "strided_cnn": (small("strided_cnn", filters=(4, 8)), 5),
    "alexnet": (small("alexnet", width=1 / 16, hidden=32, initialiser="he_normal"), 64),
    "alexnet_one_tower": (small("alexnet_one_tower", width=1 / 16, hidden=32), 63),
    "vgg11": (small("vgg11", width=1 / 32, hidden=32), 32),
    "googlenet": (small("googlenet", width=1 / 16, batch_norm=True, auxiliary=False), 32),
    "resnet20": (small("resnet20", width=0.5, depth=8), 8),
    "resnet18": (small("resnet18", width=1 / 16), 32),
    "densenet40": (small("densenet40", depth=7, growth=4), 8),
    "densenet121": (small("densenet121", layers=(1, 1, 1, 1), growth=4), 64),
    "darknet_small": (small("darknet_small", width=1 / 6), 16),
    "squeezenet1_1": (small("squeezenet1_1", width=1 / 8), 32),
}
NOISY = {
    "mlp",
    "maxout_mlp",
    "maxout_cnn",
    "alexnet",
    "alexnet_one_tower",
    "vgg11",
    "googlenet",
    "squeezenet1_1",
}
NORMALISED = {
    "conv4",
    "googlenet",
    "resnet20",
    "resnet18",
    "densenet40",
    "densenet121",
    "darknet_small",
}
# Those that take more than a hundred steps to learn four images by heart.
SLOW = {"alexnet", "alexnet_one_tower", "vgg11", "maxout_cnn", "densenet121", "squeezenet1_1"}
# Learning rates of those that greater ones break: SqueezeNet has a rectifier behind the logits,
# whose gradient is gone once they are all 0.
RATES = {"squeezenet1_1": 5e-4}
# Of three channels and the size and number of classes that each was designed for: 1,000 classes at
# 224x224, else 10 at 32x32.
COUNTS = {
    "mlp": (3072 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 10,
    "highway_mlp": 404_060,
    "highway_cnn": 153_994,
    "maxout_mlp": 3_979_210,
    "maxout_cnn": 11_927_830,
    "lenet5": 62_006,
    "lenet5_paper": 60_300,
    "conv4": 9 * 64 * (3 + 3 * 64) + 4 * 128 + (256 + 1) * 10,
    "strided_cnn": (16 * 3 + 1) * 32 + (16 * 32 + 1) * 64 + (8 * 8 * 64 + 1) * 10,
    "alexnet": 60_965_224,
    "alexnet_one_tower": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16_c": 133_638_952,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 13_378_280,
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet40": 1_019_722,
    "densenet100": 6_979_642,
    "densenet100_bc": 769_162,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "darknet19": 20_842_376,
    "darknet_small": 510_322,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
}
# Those whose tests take seconds for the number of their layers.
DEEP = {
    "resnet18",
    "vgg13",
    "vgg16_c",
    "vgg16",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "resnet101",
    "resnet152",
    "densenet100",
    "densenet100_bc",
    "densenet121",
    "densenet169",
    "densenet201",
    "densenet264",
}
# One of each kind: dense layers, with dropout, plain convolutions, residual and dense blocks.
QUICK = {
    "mlp",
    "highway_mlp",
    "maxout_mlp",
    "lenet5",
    "strided_cnn",
    "resnet20",
    "densenet40",
}
COMPILED = {"mlp", "lenet5", "resnet20"}  # of these, the time without jit is short
LEARNT = {"mlp", "highway_mlp", "lenet5", "densenet40"}


def marked(names, slow):
    """The names, those among `slow` marked so."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


def apply(model, variables, images, seed=0, train=False):
    """(logits, activations), the new model state dropped."""
    mutable = [name for name in variables if name != "params"] if train else False
    rngs = {"dropout": jax.random.key(seed)}
    outputs = model.apply(variables, images, train=train, rngs=rngs, mutable=mutable)
    return outputs[0] if train else outputs


class Case(NamedTuple):
    """A small model and its compiled functions, which its tests share.

    Attributes:
        name: of the model.
        model: the module.
        init: (key, images) -> variables.
        run: (variables, images, seed, train) -> (logits, activations).
        variables: initial ones.
        images: four of them.
    """

    name: str
    model: nn.Module
    init: Callable[..., Any]
    run: Callable[..., Any]
    variables: Any
    images: jax.Array


@pytest.fixture(scope="module", params=marked(SMALL, SMALL.keys() - QUICK))
def case(request):
    model, size = SMALL[request.param]
    images = jax.random.normal(jax.random.key(1), (4, size, size, 1))
    init = jax.jit(model.init)
    run = jax.jit(functools.partial(apply, model), static_argnames="train")
    with pytest.MonkeyPatch.context() as patch:
        # One module between two pools: each more is the same code, compiled for other sizes.
        kept = {number: googlenet.MODULES[number] for number in ("3b", "4e", "5b")}
        patch.setattr(googlenet, "MODULES", kept)
        yield Case(request.param, model, init, run, init(jax.random.key(0), images), images)


def test_every_family_is_here():
    assert set(COUNTS) == set(IMAGE_MODELS)
    modules = {type(model) for model, _ in SMALL.values()}
    assert {type(image_model(name, num_classes=4)) for name in IMAGE_MODELS} == modules


@pytest.mark.parametrize("name", marked(IMAGE_MODELS, DEEP))
def test_shapes_and_parameter_counts(name):
    """The papers' counts; nothing is computed."""
    size = IMAGE_MODELS[name].image_size or 32
    classes = 1000 if size == 224 else 10
    model = image_model(name, num_classes=classes)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    (logits, activations), variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), images
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == COUNTS[name]
    assert set(variables) <= {"params", "batch_stats"}
    assert logits.shape == (2, classes) and logits.dtype == jnp.float32
    assert all(each.shape[0] == 2 for each in activations.values())
    assert activations["output"].shape == logits.shape


@pytest.mark.parametrize(
    ("num_classes", "channels"), [(2, 3), pytest.param(100, 1, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", marked(SMALL, SMALL.keys() - QUICK))
def test_other_channels_and_classes(name, num_classes, channels):
    model, size = image_model(name, num_classes=num_classes), IMAGE_MODELS[name].image_size or 16
    images = jax.ShapeDtypeStruct((2, size, size + 4, channels), jnp.float32)
    (logits, _), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert logits.shape == (2, num_classes)


def test_deterministic_by_key(case):
    again = case.init(jax.random.key(0), case.images)
    jax.tree.map(np.testing.assert_array_equal, case.variables, again)
    other = case.init(jax.random.key(9), case.images)
    leaves = zip(*map(jax.tree.leaves, (case.variables, other)), strict=True)
    assert any((a != b).any() for a, b in leaves)


def test_finite(case):
    for train in (False, True):
        _, activations = case.run(case.variables, 10 * case.images, train=train)
        for name, value in activations.items():
            assert np.isfinite(value).all(), name


def test_logits_are_the_last_activation(case):
    # In the order of the calls, which a compiled function's outputs have not.
    names = []

    def forward(variables, images):
        logits, activations = apply(case.model, variables, images)
        names.extend(activations)
        return logits

    jax.eval_shape(forward, case.variables, case.images)
    logits, activations = case.run(case.variables, case.images)
    assert names[-1] == "output"
    np.testing.assert_array_equal(logits, activations["output"])


def test_training_differs_only_by_noise_and_normalisation(case):
    evaluated = case.run(case.variables, case.images)[0]
    trained = [case.run(case.variables, case.images, seed=i, train=True)[0] for i in (0, 1)]
    assert (evaluated != trained[0]).any() == (case.name in NOISY | NORMALISED)
    assert (trained[0] != trained[1]).any() == (case.name in NOISY)


def test_batch_is_vmap_of_one(case):
    together = case.run(case.variables, case.images)[0]
    one = lambda image: case.run(case.variables, image[None])[0][0]  # noqa: E731
    np.testing.assert_allclose(together, jax.vmap(one)(case.images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", marked(SMALL, SMALL.keys() - COMPILED), indirect=True)
def test_jit_is_no_jit(case):
    plain = apply(case.model, case.variables, case.images, train=True)
    jitted = case.run(case.variables, case.images, train=True)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(compare, plain, jitted)


@pytest.mark.parametrize("case", marked(SMALL, SMALL.keys() - LEARNT), indirect=True)
def test_overfits_one_batch(case):
    name, model, _, _, variables, images = case
    labels = jnp.arange(4)
    params = variables["params"]
    stats = {name: value for name, value in variables.items() if name != "params"}
    tx = optax.adam(RATES.get(name, 3e-3))

    @jax.jit
    def step(carry):
        params, stats, opt_state = carry

        def loss_fn(params):
            (logits, _), new = model.apply(
                {"params": params, **stats},
                images,
                train=True,
                mutable=list(stats),
                rngs={"dropout": jax.random.key(0)},
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, new

        (loss, new), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), loss

    carry = (params, stats, tx.init(params))
    for _ in range(300 if name in SLOW else 100):
        carry, loss = step(carry)
    assert loss < 0.05


SMALLEST = {
    "highway_cnn": 8,
    "maxout_cnn": 8,
    "lenet5": 16,
    "lenet5_paper": 32,
    "alexnet": 64,
    "alexnet_one_tower": 63,
    "vgg11": 32,
    "googlenet": 79,
    "resnet20": 8,
    "resnet18": 8,
    "densenet40": 4,
    "densenet121": 29,
    "darknet_small": 15,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
}


@pytest.mark.parametrize("name", marked(SMALLEST, {"densenet121", "squeezenet1_0"}))
def test_too_small_images_name_the_smallest_size(name):
    smallest = SMALLEST[name]
    model = image_model(name, num_classes=10)
    jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, smallest, smallest, 1)))
    expected = f"too small for {name}.*; the smallest size is {smallest}x{smallest}"
    with pytest.raises(InputError, match=expected):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, smallest, smallest - 1, 1)))


def test_images_need_four_axes():
    with pytest.raises(
        ValueError, match=r"lenet5 takes images \(B, H, W, C\), got .*\(32, 32, 1\)"
    ):
        image_model("lenet5", num_classes=10).init(jax.random.key(0), jnp.ones((32, 32, 1)))


def test_unknown_model():
    with pytest.raises(InputError, match="unknown model 'lenet'; choose one of: alexnet, alexnet_"):
        image_model("lenet", num_classes=10)
