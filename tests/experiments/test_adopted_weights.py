"""What a classifier takes over from weights of others and from runs, without a run of its own."""

import re
import types

import jax
import numpy as np
import pytest

from dlcore import optim
from dlcore.errors import InputError
from dlcore.launch import jobs, weights
from dlcore.launch.task import make_state
from dlcore.models.cnn.torch_weights import to_torch
from dlcore.models.torch_files import write_torch_file
from dlcore.paths import leaves_by_path

JOB = jobs.task_class("image_classification")
CONFIG, INFO = JOB.parts()
ALEXNET = {
    "model": "alexnet_one_tower",
    "option": ("width=0.05", "hidden=8"),
    "augment": "none",
}
STEM = "params/conv1/kernel"


def task_of(channels=3, classes=5, side=95, **options):
    """A task whose data is known, without having read any."""
    task = JOB(CONFIG(**{**ALEXNET, **options}))
    names = tuple(map(str, range(classes)))
    task.info = INFO(names, (side, side, channels), np.zeros(channels), np.ones(channels))
    return task


def variables_of(state):
    return leaves_by_path({"params": state.params, **state.model_state})


@pytest.fixture(scope="module")
def colour():
    """A task of colours, and the variables that it begins with."""
    task = task_of()
    return task, task.init(jax.random.key(5))


def saved(path, task, variables, change=lambda arrays: arrays):
    write_torch_file(path, change(to_torch(task.model, variables)))
    return str(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_first_layer_fits_other_channels(colour, channels, tmp_path, capsys):
    """Grey images give the same response as images of three equal colours."""
    source, variables = colour
    file = saved(tmp_path / "a.safetensors", source, variables)
    task = task_of(channels, init_from=file, transfer="head")
    state = task.adopt(make_state(task))
    now = variables_of(state)
    for path, leaf in leaves_by_path(variables).items():
        if path != STEM and "output" not in path:
            np.testing.assert_array_equal(now[path], leaf)
    images = np.random.default_rng(0).uniform(0, 255, (2, 95, 95, 1)).astype(np.float32)
    grey, three = (np.repeat(images, n, axis=-1) for n in (channels, 3))
    if channels == 4:
        grey[..., 3] = 77  # of which nothing is known yet
    found = jax.jit(lambda x: task.forward({"params": state.params}, x)[1]["conv1"])(grey)
    expected = jax.jit(lambda x: source.forward(variables, x)[1]["conv1"])(three)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    said = f"{STEM}: fitted from 3 channels to images of {channels}" in capsys.readouterr().err
    assert said == (channels != 3)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("model", ["alexnet_one_tower", "mlp"])
def test_colours_from_a_grey_run(model, channels, monkeypatch):
    options = {"model": model, "side": 95 if model != "mlp" else 4}
    options |= {"option": ()} if model == "mlp" else {}
    source = task_of(1, **options)
    variables = source.init(jax.random.key(5))
    trained = types.SimpleNamespace(variables=variables, info=source.info)
    monkeypatch.setattr(weights, "load", lambda path: trained, raising=False)
    task = task_of(channels, init_from=".", transfer="head", **options)
    state = task.adopt(make_state(task))
    side = options["side"]
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 1)).astype(np.float32)
    more = np.repeat(images, channels, axis=-1)
    _, expected = source.forward(variables, images)
    _, found = task.forward({"params": state.params}, more)
    first = next(iter(expected))
    np.testing.assert_allclose(found[first], expected[first], rtol=1e-4, atol=1e-2)


def test_what_is_not_there_is_not_frozen(colour, tmp_path):
    source, variables = colour
    file = saved(tmp_path / "a.safetensors", source, variables)
    # The map before the dense layer has another size.
    for level, frozen in (("head", True), ("all", False), (None, False)):
        task = task_of(side=127, init_from=file, transfer=level)
        if frozen:
            message = (
                rf"--transfer=head would freeze weights that are not in {file}: params/fc6/kernel "
                r"\(\(52, 8\) there, \(117, 8\) here\); train them by --transfer=all"
            )
            with pytest.raises(InputError, match=message):
                task.adopt(make_state(task))
        else:
            task.adopt(make_state(task))


@pytest.mark.parametrize("lost", ["params/dense_0/bias", "params/dense_0", "state"])
def test_nor_is_what_a_run_has_not(lost, monkeypatch):
    source = task_of(model="mlp", option=("features=[4,4,4]",), side=4)
    variables = source.init(jax.random.key(5))
    kept = {path: leaf for path, leaf in leaves_by_path(variables).items() if lost not in path}
    trained = types.SimpleNamespace(variables=kept, info=source.info)
    monkeypatch.setattr(weights, "load", lambda path: trained, raising=False)
    for level in ("head", "top"):
        task = task_of(
            model="mlp", option=("features=[4,4,4]",), side=4, init_from=".", transfer=level
        )
        state = make_state(task)
        if lost == "state":
            task.adopt(state)
        else:
            with pytest.raises(InputError, match=r"dense_0/.*it has none of this name"):
                task.adopt(state)


def test_other_classes_and_no_output_under_transfer(colour, tmp_path):
    source, variables = colour
    arrays = to_torch(source.model, variables)
    body = {name: array for name, array in arrays.items() if "classifier.6" not in name}
    assert len(body) == len(arrays) - 2
    for number, content in enumerate((arrays, body, arrays | {"total_ops": np.ones(1)})):
        file = tmp_path / f"{number}.safetensors"
        write_torch_file(file, content)
        task = task_of(classes=7, init_from=str(file), transfer="head")
        state = task.adopt(make_state(task))
        np.testing.assert_array_equal(
            state.params["conv2"]["kernel"], variables["params"]["conv2"]["kernel"]
        )
        np.testing.assert_array_equal(
            state.params["output"]["kernel"], make_state(task).params["output"]["kernel"]
        )


def test_the_prefix_is_said_and_chosen(colour, tmp_path, capsys):
    source, variables = colour
    arrays = to_torch(source.model, variables)
    file = tmp_path / "a.safetensors"
    both = {f"model.{name}": array for name, array in arrays.items()}
    both |= {f"model_ema.module.{name}": array + 1 for name, array in arrays.items()}
    write_torch_file(file, both)
    for prefix, offset in ((None, 0), ("model_ema", 1)):
        task = task_of(init_from=str(file), init_prefix=prefix)
        state = task.adopt(make_state(task))
        expected = variables["params"]["conv2"]["bias"] + offset
        np.testing.assert_array_equal(state.params["conv2"]["bias"], expected)
    said = capsys.readouterr().err
    assert "16 arrays under model.; as many are under model_ema.module.; --init_prefix" in said
    assert "16 arrays under model_ema.module.; 16 others are left out: model." in said


def test_auxiliary_outputs_are_output_layers():
    """Weights of other classes leave the heads of GoogLeNet without outputs, which are trained."""
    task = task_of(model="googlenet", option=("width=0.05",), init_from=".", transfer="head")
    rules = task.frozen()
    frozen = {
        path: next(value for pattern, value in rules if re.search(pattern, path))
        for path in ("auxiliary_0/output/kernel", "output/bias", "auxiliary_0/hidden/kernel")
    }
    assert list(frozen.values()) == [False, False, True]


def test_a_run_gives_what_it_reported(monkeypatch):
    """That is what `load` gives, see test_loading; the average of the new run starts at it."""
    options = {"model": "mlp", "option": ("features=[4,4]",), "side": 4}
    source = task_of(**options)
    variables = source.init(jax.random.key(5))
    asked = []
    trained = types.SimpleNamespace(variables=variables, info=source.info)
    monkeypatch.setattr(
        weights, "load", lambda path: asked.append(str(path)) or trained, raising=False
    )
    task = task_of(**options, init_from=".", ema=0.99)
    state = task.adopt(make_state(task))
    assert asked == ["."]
    for params in (state.params, optim.averaged(state.opt_state, state.params)):
        jax.tree.map(np.testing.assert_array_equal, params, variables["params"])


@pytest.mark.parametrize("moments", ["data", "unit"])
def test_an_encoder_of_unscaled_pixels_is_taken_without_its_output(monkeypatch, capsys, moments):
    """It lies inside of its net; a code of as many numbers as there are classes is no class."""
    task = task_of(1, side=4, model="mlp", option=(), init_from=".", moments=moments)
    own = task.init(jax.random.key(5))["params"]
    whole = {"params": {"encoder": own, "decoder": {"dense_0": own["dense_0"]}}}
    source = types.SimpleNamespace(
        variables=whole, info=types.SimpleNamespace(image_shape=(4, 4, 1))
    )
    monkeypatch.setattr(weights, "load", lambda path: source, raising=False)
    state = task.adopt(make_state(task))
    for name in ("dense_0", "dense_1"):
        np.testing.assert_array_equal(state.params[name]["kernel"], own[name]["kernel"])
    assert (state.params["output"]["kernel"] != own["output"]["kernel"]).any()
    said = capsys.readouterr().err
    assert "restored 4 leaves" in said
    assert ("scaled by --moments=data; give --moments=unit" in said) == (moments == "data")
