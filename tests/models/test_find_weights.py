"""A model's weights among what a file has beside them, under whatever prefix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn import resnet
from dlcore.models.cnn.alexnet import AlexNetOneTower
from dlcore.models.cnn.resnet import ResNet
from dlcore.models.cnn.torch_weights import find_weights, from_torch, to_torch

MODEL = AlexNetOneTower(5, width=0.05, hidden=8)


def state_of(model, side=95):
    """Arrays by torchvision's names, of whose shapes no number is 0."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return to_torch(
        model, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    )


@pytest.fixture(scope="module")
def state():
    return state_of(MODEL)


@pytest.fixture(scope="module")
def residual():
    """A network whose first block has names of the stem within: layer1.0.conv1.weight."""
    with pytest.MonkeyPatch.context() as patch:
        # Few blocks are enough for the names, and quick to trace.
        patch.setitem(resnet.STAGES, 18, (1, 1))
        patch.setitem(resnet.STAGES, 34, (2, 1))
        model = ResNet(5, depth=18, width=0.05)
        yield model, state_of(model)


def under(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def assert_found(found, state):
    assert found.arrays.keys() == state.keys()
    for name, array in state.items():
        assert found.arrays[name] is array


PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "state_dict.model._orig_mod.",
    "model_state_dict.",
    "net.0.",
    "checkpoint.encoder.backbone.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_single_prefix(residual, prefix):
    model, state = residual
    found = find_weights(model, under(prefix, state))
    assert_found(found, state)
    assert (found.prefix, found.others, found.extra) == (prefix, (), ())
    named = f"{len(state)} arrays" + (f" under {prefix}" if prefix else "")
    assert str(found) == named


def test_weights_under_a_prefix_are_converted(state):
    plain = from_torch(MODEL, state)
    wrapped = from_torch(MODEL, under("a.module.", state))
    jax.tree.map(np.testing.assert_array_equal, plain, wrapped)


def test_wrappers_of_modules_within_the_model(residual):
    model, state = residual
    inner = {
        name.replace("layer1.", "layer1._orig_mod.").replace(
            "layer2.0.", "layer2._fsdp_wrapped_module.0._checkpoint_wrapped_module."
        ): array
        for name, array in state.items()
    }
    assert_found(find_weights(model, under("module.", inner)), state)


def test_what_lies_beside_the_weights_is_left_out_and_named(state):
    beside = {
        "total_ops": np.zeros(1),
        "features.0.total_params": np.zeros(1),
        "n_averaged": np.array(3),
    }
    found = find_weights(MODEL, state | beside)
    assert_found(found, state)
    assert found.extra == tuple(beside)
    assert "3 others are left out: total_ops, features.0.total_params, n_averaged" in str(found)
    from_torch(MODEL, state | beside)
    # Outside of the prefix anything may lie; within it another layer shows another model.
    loss = {"criterion.weight": np.ones(5)}
    assert find_weights(MODEL, under("model.", state) | loss).extra == tuple(loss)
    with pytest.raises(InputError, match=r"1 unexpected: criterion\.weight"):
        from_torch(MODEL, state | loss)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("plain", "average"),
    [("model.", "model_ema.module."), ("state_dict.", "state_dict_ema."), ("", "ema.")],
)
def test_averages_are_taken_by_choice(state, plain, average, order):
    other = {name: array + 1 for name, array in state.items()}
    parts = [under(plain, state), under(average, other)][::order]
    arrays = parts[0] | parts[1]
    found = find_weights(MODEL, arrays)
    assert_found(found, state)
    assert (found.prefix, found.others, found.extra) == (plain, (average,), ())
    assert f"as many are under {average}; --init_prefix chooses" in str(found)
    chosen = find_weights(MODEL, arrays, average.split(".")[0])
    assert_found(chosen, other)
    with pytest.raises(InputError, match="unknown prefix of weights 'mean'; choose one of: "):
        find_weights(MODEL, arrays, "mean")


def test_student_and_teacher(residual):
    """The teacher has all names of the student, and more."""
    model, state = residual
    teacher = state_of(ResNet(5, depth=34, width=0.05))
    assert teacher.keys() > state.keys()
    found = find_weights(model, under("teacher.", teacher) | under("student.", state))
    assert_found(found, state)
    with pytest.raises(InputError, match=r"\d+ unexpected: layer1\.1\."):
        from_torch(model, teacher, output=False)


@pytest.mark.parametrize("case", ["missing", "of other classes", "a sequence", "another name"])
def test_an_output_layer_that_nobody_wants(residual, case):
    model, state = residual
    body = {name: array for name, array in state.items() if not name.startswith("fc.")}
    rng = np.random.default_rng(0)
    heads = {
        "missing": {},
        "of other classes": {"fc.weight": rng.normal(size=(7, 6)), "fc.bias": np.ones(7)},
        "a sequence": {"fc.1.weight": np.ones((7, 6)), "fc.1.running_mean": np.ones(7)},
        "another name": {"projector.0.weight": np.ones((7, 6)), "projector.0.bias": np.ones(7)},
    }
    head = heads[case]
    variables = from_torch(model, under("module.", body | head), output=False)
    assert "output" not in variables["params"] and "stem" in variables["params"]
    assert find_weights(model, body | head, output=False).extra == tuple(head)
    if case != "of other classes":
        with pytest.raises(InputError, match=r"2 missing: fc\.bias, fc\.weight"):
            from_torch(model, body | head)
