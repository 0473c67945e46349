"""Weights from and to PyTorch: the same logits as the same network written in PyTorch."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_networks as twins  # noqa: E402
import torch_twin  # noqa: E402

from dlcore.errors import InputError  # noqa: E402
from dlcore.models.cnn import resnet  # noqa: E402
from dlcore.models.cnn.alexnet import AlexNet, AlexNetOneTower  # noqa: E402
from dlcore.models.cnn.densenet import BLOCKS, DenseNet  # noqa: E402
from dlcore.models.cnn.googlenet import MODULES, GoogLeNet  # noqa: E402
from dlcore.models.cnn.inception import AuxiliaryHead  # noqa: E402
from dlcore.models.cnn.resnet import ResNet  # noqa: E402
from dlcore.models.cnn.squeezenet import SqueezeNet  # noqa: E402
from dlcore.models.cnn.torch_names import rewritten  # noqa: E402
from dlcore.models.cnn.torch_weights import from_torch, to_torch  # noqa: E402
from dlcore.models.cnn.vgg import CONFIGURATIONS, VGG  # noqa: E402
from dlcore.paths import leaves_by_path  # noqa: E402

FEATURES = (64, 128, 256, 512, 512)
COUNTERS = "num_batches_tracked"


def alexnet(width=1.0, inputs=9216, hidden=4096, classes=1000):
    features = [round(width * n) for n in (64, 192, 384, 256, 256)]
    return twins.alexnet(features, inputs, hidden, classes)


def vgg(config, batch_norm, width=1.0, inputs=25088, hidden=4096, classes=1000):
    stages = [
        [round(width * features)] * len(sizes)
        for features, sizes in zip(FEATURES, CONFIGURATIONS[config], strict=True)
    ]
    return twins.vgg(stages, batch_norm, inputs, hidden, classes)


def googlenet(width=1.0, classes=1000, heads=True):
    def scaled(numbers):
        return [max(1, round(width * n)) for n in numbers]

    modules = {name: scaled(numbers) for name, numbers in MODULES.items()}
    return twins.GoogLeNet(scaled((64, 192)), modules, heads and scaled((128, 1024)), classes)


def residual(depth, width=1.0, classes=1000):
    stages = [(round(width * 64 * 2**i), blocks) for i, blocks in enumerate(resnet.STAGES[depth])]
    return twins.ResNet(stages, depth >= 50, classes)


def densenet(growth=32, blocks=BLOCKS[121], classes=1000):
    return twins.densenet(growth, blocks, classes)


def squeezenet(version, width=1.0, classes=1000):
    """The published numbers of filters, at a width."""
    stem, window, pools = {"1.0": (96, 7, (4, 8)), "1.1": (64, 3, (3, 5))}[version]
    fires = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    scaled = [[max(1, round(count * width)) for count in fire] for fire in fires]
    return twins.SqueezeNet(max(1, round(stem * width)), window, scaled, pools, classes)


# Name: (model, its twin, the images' side). The maps before dense layers are 2x2.
SMALL = {
    "alexnet": (
        lambda: AlexNetOneTower(5, width=0.05, hidden=8),
        lambda: alexnet(0.05, 4 * 13, 8, 5),
        95,
    ),
    "vgg16": (
        lambda: VGG(5, "D", width=0.04, hidden=8),
        lambda: vgg("D", False, 0.04, 4 * 20, 8, 5),
        64,
    ),
    "vgg11_bn": (
        lambda: VGG(5, "A", batch_norm=True, width=0.04, hidden=8),
        lambda: vgg("A", True, 0.04, 4 * 20, 8, 5),
        64,
    ),
    "googlenet": (
        lambda: GoogLeNet(5, batch_norm=True, width=0.05),
        lambda: googlenet(0.05, 5),
        64,
    ),
    "squeezenet1_0": (
        lambda: SqueezeNet(5, width=1 / 4),
        lambda: squeezenet("1.0", 1 / 4, 5),
        48,
    ),
    "squeezenet1_1": (
        lambda: SqueezeNet(5, "1.1", width=1 / 4),
        lambda: squeezenet("1.1", 1 / 4, 5),
        47,
    ),
    "resnet18": (lambda: ResNet(5, depth=18, width=0.05), lambda: residual(18, 0.05, 5), 64),
    "resnet50": (lambda: ResNet(5, depth=50, width=0.05), lambda: residual(50, 0.05, 5), 64),
    "densenet": (
        lambda: DenseNet(5, growth=4, layers=(3, 1, 2, 2)),
        lambda: densenet(4, (3, 1, 2, 2), 5),
        64,
    ),
}


def state_of(module):
    """Random weights by their names, with biases and running statistics that show."""
    rng = np.random.default_rng(0)
    state = {}
    for name, value in module.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith(COUNTERS):
            state[name] = np.array(7)
        elif value.ndim > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            state[name] = rng.normal(0, scale, shape).astype(np.float32)
        else:
            centred = name.endswith(("bias", "mean"))
            low, high = (-0.2, 0.2) if centred else (0.7, 1.4)
            state[name] = rng.uniform(low, high, shape).astype(np.float32)
    return state


def loaded(module, state):
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return module.eval()


@pytest.fixture(scope="module", params=SMALL)
def case(request):
    """(model, its twin in PyTorch, the twin's weights by name, the model's variables, side)."""
    with pytest.MonkeyPatch.context() as patch:
        # Two, one, one and no block behind the first: enough for the names, quick to compile.
        patch.setitem(resnet.STAGES, 50, (3, 2, 2, 1))
        build, build_twin, side = SMALL[request.param]
        model, twin = build(), build_twin()
        state = state_of(twin)
        yield model, loaded(twin, state), state, from_torch(model, state), side


def test_logits(case):
    model, twin, _, variables, side = case
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    images *= np.float32([1, 2, 4]).reshape(3, 1, 1, 1)  # or their means would hardly differ
    logits = jax.jit(lambda v, x: model.apply(v, x)[0])(variables, images)
    torch_twin.assert_close(logits, torch_twin.run(twin, images))


def test_there_and_back(case):
    model, twin, state, variables, _ = case
    arrays = to_torch(model, jax.tree.map(jnp.asarray, variables))
    assert set(arrays) == {name for name in state if not name.endswith(COUNTERS)}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, state[name])
        assert array.flags.c_contiguous
    jax.tree.map(np.testing.assert_array_equal, from_torch(model, arrays), variables)
    # PyTorch takes them, strictly: it fills the counters in by itself.
    loaded(twin, arrays)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_missing_unexpected_and_mismatched_names_are_one_error(name):
    build, build_twin, _ = SMALL[name]
    model, state = build(), state_of(build_twin())
    first, second, *_ = [name for name in state if name.endswith("weight")]
    broken = {**state, "more.weight": np.ones(3), second: state[second][:1]}
    del broken[first]
    shapes = [re.escape(str(each[second].shape)) for each in (broken, state)]
    message = (
        rf"not those of {type(model).__name__} as it was built: 1 missing: {first}; "
        rf"1 unexpected: more\.weight; 1 mismatched: {second} is {shapes[0]}, not {shapes[1]}; "
        "choose"
    )
    with pytest.raises(InputError, match=message):
        from_torch(model, broken)


def test_heads_of_googlenet():
    """They run in training only, so here each by itself."""
    build, build_twin, _ = SMALL["googlenet"]
    twin, model = build_twin(), build()
    state = state_of(twin)
    loaded(twin, state)
    variables = from_torch(model, state)
    for number, channels in enumerate((25, 26)):
        name = f"auxiliary_{number}"
        mine = {collection: tree[name] for collection, tree in variables.items()}
        features = mine["params"]["conv"]["conv"]["kernel"].shape[-1]
        maps = np.random.default_rng(2).normal(size=(3, 4, 4, channels)).astype(np.float32)
        head = AuxiliaryHead(5, features=features, hidden=51, batch_norm=True)
        logits = jax.jit(head.apply)(mine, maps)
        torch_twin.assert_close(logits, torch_twin.run(getattr(twin, f"aux{number + 1}"), maps))


def test_a_model_without_heads_leaves_those_of_the_file():
    _, build_twin, _ = SMALL["googlenet"]
    state = state_of(build_twin())
    variables = from_torch(GoogLeNet(5, batch_norm=True, width=0.05, auxiliary=False), state)
    assert not [path for path in leaves_by_path(variables) if "auxiliary" in path]
    without = {name: value for name, value in state.items() if not name.startswith("aux")}
    with pytest.raises(InputError, match=r"GoogLeNet .*\d+ missing: aux1\."):
        from_torch(GoogLeNet(5, batch_norm=True, width=0.05), without)


def test_older_names_of_densenet():
    model, twin, _ = (each() if callable(each) else each for each in SMALL["densenet"])
    state = state_of(twin)
    older = {
        re.sub(r"(denselayer\d+\.(norm|conv))([12])", r"\1.\3", name): value
        for name, value in state.items()
    }
    assert "features.denseblock1.denselayer2.norm.1.running_mean" in older
    jax.tree.map(np.testing.assert_array_equal, from_torch(model, older), from_torch(model, state))


def test_classes_and_channels_are_those_of_the_file():
    state = state_of(residual(18, 0.05, 5))
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    variables = from_torch(ResNet(100, depth=18, width=0.05), state)
    assert variables["params"]["output"]["kernel"].shape[1] == 5
    assert variables["params"]["stem"]["kernel"].shape[2] == 1


def test_the_map_before_a_dense_layer_is_that_of_the_file():
    state = state_of(alexnet(0.05, 36 * 13, 8, 5))
    model = AlexNetOneTower(5, width=0.05, hidden=8)
    variables = from_torch(model, state)
    assert variables["params"]["fc6"]["kernel"].shape == (36 * 13, 8)
    # Of pixel (2, 4) of the 6x6 map, channel 3.
    place = (2 * 6 + 4) * 13 + 3
    kernel = state["classifier.1.weight"].reshape(8, 13, 6, 6)
    np.testing.assert_array_equal(variables["params"]["fc6"]["kernel"][place], kernel[:, 3, 2, 4])
    state["classifier.1.weight"] = state["classifier.1.weight"][:, : 35 * 13]
    with pytest.raises(InputError, match=r"classifier\.1\.weight is \(8, 455\)"):
        from_torch(model, state)


# The features of the two hidden dense layers, most of the memory, do not matter to the names.
FULL = {
    "alexnet": (AlexNetOneTower(1000, hidden=8), lambda: alexnet(hidden=8)),
    "vgg13_bn": (VGG(1000, "B", batch_norm=True, hidden=8), lambda: vgg("B", True, hidden=8)),
    "vgg19": (VGG(1000, "E", hidden=8), lambda: vgg("E", False, hidden=8)),
    "resnet152": (ResNet(1000, depth=152), lambda: residual(152)),
    "densenet121": (DenseNet(1000), densenet),
    "squeezenet1_0": (SqueezeNet(1000), lambda: squeezenet("1.0")),
    "squeezenet1_1": (SqueezeNet(1000, "1.1"), lambda: squeezenet("1.1")),
}


@pytest.mark.parametrize("name", FULL)
def test_names_and_shapes_at_full_size(name):
    """Nothing is computed: the arrays are views of one zero, and PyTorch's have no memory."""
    model, build = FULL[name]
    with torch.device("meta"):
        state = build().state_dict()
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    arrays = to_torch(model, zeros)
    expected = {key: tuple(v.shape) for key, v in state.items() if not key.endswith(COUNTERS)}
    assert {key: array.shape for key, array in arrays.items()} == expected


@pytest.mark.parametrize(
    "model, message",
    [
        (AlexNet(5), "AlexNet has no counterpart .* choose one of: AlexNetOneTower, DenseNet,"),
        (ResNet(5, version=2), "PyTorch has ResNet with version=1 only, not 2"),
        (ResNet(5, shortcut="identity"), "ResNet with shortcut='projection' only"),
        (GoogLeNet(5), "PyTorch has GoogLeNet with batch_norm=True only, not False"),
        (DenseNet(5, bottleneck=False), "DenseNet with bottleneck=True only"),
    ],
)
def test_models_that_pytorch_has_not(model, message):
    for convert in (from_torch, to_torch):
        with pytest.raises(InputError, match=message):
            convert(model, {})


def test_variables_of_another_model():
    model = AlexNetOneTower(5, width=0.05, hidden=8)
    variables = from_torch(model, state_of(alexnet(0.05, 4 * 13, 8, 5)))
    message = "not those of VGG as it was built: .* missing: .*conv1_1.* unexpected: params/conv1/b"
    with pytest.raises(InputError, match=message):
        to_torch(VGG(5, width=0.05, hidden=8), variables)


def test_rules_rewrite_one_after_another():
    rules = [(r"^a_(\d+)/b(\d)", "{2}.{1+1}/x{1}"), ("x", "y"), ("/", ".")]
    assert rewritten("a_9/b3/x", rules) == "3.10.y9.y"
