"""The job of style transfer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dlcore.experiments.style_transfer import Config, StyleTransfer
from in_process import run_here
from PIL import Image

from dlcore import launch
from dlcore.errors import InputError
from dlcore.files import read_json_lines
from dlcore.models import image_model

SMALL = dict(size=24, model="strided_cnn", option=("filters=[4,8]",))
SMALL |= dict(style_layers=("conv_0", "conv_1"), content_layers=("conv_1",))
SQUEEZENET = dict(model="squeezenet1_1", option=("width=0.0625",))
SQUEEZENET |= dict(style_layers=("conv1", "fire2"), content_layers=("fire2",))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of a content, a style of another shape, and masks of the left and the right half."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    left = np.zeros((24, 20), np.uint8)
    left[:, :10] = 255
    drawn = {
        "content": rng.integers(0, 256, (24, 20, 3), np.uint8),
        "style": rng.integers(0, 256, (18, 24, 3), np.uint8),
        "left": left,
        "right": 255 - left,
    }
    for name, picture in drawn.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in drawn}


def task_of(pictures, **options):
    given = {"content": pictures["content"], "style": (pictures["style"],), **SMALL, **options}
    if given.get("texture"):
        del given["content"], given["content_layers"]
    task = StyleTransfer(Config(**given))
    task.data()
    return task


def state_of(task):
    variables = jax.jit(task.init)(jax.random.key(0))
    state = {name: value for name, value in variables.items() if name != "params"}
    return variables["params"], {**state, "targets": jax.jit(task.targets)(state)}


def two_levels(capfd, pictures, workdir, steps, *more):
    flags = [f"--content={pictures['content']}", f"--style={pictures['style']}", *more]
    flags += ["--levels=2", "--size=48", "--level_steps=3", "--report", "--eval_every=2"]
    flags += ["--log_every=2", "--average_pool", f"--workdir={workdir}", f"--steps={steps}"]
    process = run_here(capfd, "style_transfer", flags)
    assert process.returncode == 0, process.stderr


def test_a_run_of_two_levels_leaves_its_files(capfd, pictures, tmp_path):
    network = ["--model=strided_cnn", "--option=filters=[4,8]", "--content_layers=conv_1"]
    two_levels(capfd, pictures, tmp_path, 5, *network, "--style_layers=conv_0,conv_1")
    assert (tmp_path / "report/layers.png").exists()
    rows = read_json_lines(tmp_path / "metrics.jsonl")
    costs = [row["cost"] for row in rows if row["split"] == "test"]
    assert costs[-1] < costs[0]
    # A finished run comes back without its pictures.
    trained = launch.load(tmp_path)
    assert trained.params["picture"].shape == (1, 48, 40, 3)


@pytest.mark.slow
def test_a_killed_run_of_two_levels_goes_on_bit_for_bit(capfd, pictures, tmp_path):
    network = ["--option=width=0.0625", "--style_layers=conv1,fire2", "--content_layers=fire2"]
    for folder, steps in (("whole", 5), ("parts", 2), ("parts", 5)):
        two_levels(capfd, pictures, tmp_path / folder, steps, *network)
    whole, parts = ((tmp_path / name / "picture.png").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_costs_and_gradient_are_those_of_gatys_in_pytorch(pictures):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    from dlcore.models.cnn.torch_weights import from_torch

    layers = {"conv1": 1, "fire2": 3, "fire3": 4}  # and the number of its module in torchvision
    task = task_of(
        pictures,
        model="squeezenet1_1",
        option=(),
        style_layers=("conv1:1", "fire3:0.5"),
        content_layers=("fire2:1",),
        content_cost="gatys",
        content_weight=1e-3,
        variation_weight=0.0,
        average_pool=False,
    )
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(weights=None).eval()
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    params, model_state = state_of(task)
    theirs = from_torch(image_model("squeezenet1_1", num_classes=1000), arrays)
    own = {name: theirs["params"][name] for name in model_state["network"]["params"]}
    model_state = {**model_state, "network": {"params": own}}
    model_state["targets"] = jax.jit(task.targets)(model_state)
    batch = next(task.batches(0))
    value, gradient = jax.jit(
        jax.value_and_grad(lambda params: task.loss(params, model_state, batch, None)[0].compute())
    )(params)

    mean, deviation = (
        torch.tensor(model_state["scaling"][name].tolist()).reshape(1, 3, 1, 1)
        for name in ("mean", "deviation")
    )

    def activations(pixels):
        x, found = (255 * pixels - mean) / deviation, {}
        for number, module in enumerate(network.features):
            x = module(x)
            found |= {name: x for name, place in layers.items() if place == number}
        return found

    def gram(x):
        flat = x.reshape(x.shape[1], -1)
        return flat @ flat.T, flat.shape

    def of(picture):
        return torch.from_numpy(np.array(picture, np.float32).transpose(2, 0, 1)[None].copy())

    wanted = activations(of(task.pictures["content"] / 255.0))["fire2"].detach()
    styles = activations(of(task.pictures["style 0"] / 255.0))
    x = of(params["picture"][0]).requires_grad_()
    found = activations(x)
    cost = 1e-3 * 0.5 * ((found["fire2"] - wanted) ** 2).sum()
    for name, weight in {"conv1": 1, "fire3": 0.5}.items():
        (mine, (channels, places)), (style, (_, others)) = gram(found[name]), gram(styles[name])
        difference = ((mine / places - style.detach() / others) ** 2).sum()
        cost = cost + 100 * weight * difference / (4 * channels**2)
    cost.backward()
    np.testing.assert_allclose(value, cost.item(), rtol=1e-4)
    expected = x.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        gradient["picture"], expected, rtol=1e-3, atol=1e-4 * abs(expected).max()
    )


def test_a_texture_has_its_style_cost_brought_down_a_hundred_times(pictures, tmp_path):
    options = dict(texture=True, variation_weight=0.0, steps=60, eval_every=30)
    task = task_of(pictures, workdir=str(tmp_path), **options)
    outcome = launch.run(task)
    params = {"picture": jax.random.uniform(jax.random.key(5), (1, 18, 24, 3))}
    state = {name: value for name, value in outcome.variables.items() if name != "params"}
    costs = jax.jit(task.costs)(params, state, next(task.batches(0)))
    before = sum(value for name, value in costs.items() if name.startswith("style_"))
    assert outcome.metrics["style_cost"] < before / 100
    assert "content_cost" not in outcome.metrics


def test_each_style_is_for_the_white_of_its_mask(pictures):
    two = {"style": (pictures["style"], pictures["content"])}
    masked = task_of(pictures, mask=(pictures["left"], pictures["right"]), **two)
    _, model_state = state_of(masked)
    wanted = model_state["targets"]["24x20"]
    batch = next(masked.batches(0))
    picture = jnp.asarray(masked.pictures["content"][None] / np.float32(255))
    found = jax.jit(masked.costs)({"picture": picture}, model_state, batch)["style_conv_0"]
    # The same by hand: places of the left half against the first style, the others the second.
    maps = jax.jit(masked.activations)(model_state, picture)["conv_0"][0]
    masks = np.asarray(wanted["masks"]["conv_0"])
    assert masks.shape == (2, *maps.shape[:2])
    np.testing.assert_allclose([masks[0, 0, 0], masks[1, 0, -1]], 1, rtol=1e-6)
    cost = 0.0
    for mask, style in zip(masks, wanted["style"]["conv_0"], strict=True):
        gram = np.einsum("hw,hwi,hwj->ij", mask, maps, maps) / mask.sum()
        cost += ((gram - style) ** 2).sum() / (4 * len(style) ** 2) / 2  # styles share evenly
    np.testing.assert_allclose(found, 0.5 * cost, rtol=1e-4)  # and so do layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_layers": ("conv9",)}, "no layer 'conv9'; choose one of: conv1, pool1, fire2"),
        ({"style_layers": ("conv1:x",)}, "conv1:x is not NAME or NAME:WEIGHT"),
        ({"style_layers": ("conv1", "conv1:2")}, "names conv1 twice"),
        ({"content": "nowhere.png"}, "there is no picture nowhere.png"),
        ({"size": 16}, "too small for squeezenet1_1; the smallest size is 17x17"),
        ({"levels": 2}, "too small for squeezenet1_1"),
        ({"texture": True, "start": "content"}, "--texture has no content to start from"),
        ({"mask": ("a.png", "b.png")}, "there are 2 masks for 1 styles"),
        ({"style_layers": ("output",)}, "layer output of squeezenet1_1 has no positions"),
        ({"model": "resnet20", "style_layers": (), "option": ()}, "give the layers of resnet20"),
    ],
)
def test_mistakes_are_one_line(pictures, options, message):
    with pytest.raises(InputError, match=message):
        task_of(pictures, **(SQUEEZENET | options))


def test_flags_that_are_not_read_are_refused():
    with pytest.raises(InputError, match="optimizer=lbfgs does not read --learning_rate"):
        Config(learning_rate=1.0)
    with pytest.raises(InputError, match="texture does not read --content_weight"):
        Config(texture=True, content_weight=2.0)
    Config(optimizer="adam", learning_rate=1.0)


def test_size_0_is_refused(capfd):
    process = run_here(capfd, "style_transfer", ["--size=0"])
    assert process.returncode == 2 and "--size=0 is not an integer from 1" in process.stderr
