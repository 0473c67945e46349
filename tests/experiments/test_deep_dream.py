"""The job `deep_dream`: octaves, zoom, spectra, guides, tiles, resuming and refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from outcomes import assert_fails
from PIL import Image

import dlcore
from dlcore import launch
from dlcore.launch import jobs
from dlcore.nn.octaves import resize, zoom_in

JOB = jobs.task_class("deep_dream")
CONFIG, _ = JOB.parts()
TILES = jobs.module("deep_dream").mean_over_tiles
SMALL = {
    "model": "strided_cnn",
    "option": ("filters=[16,32]",),
    "objective": "layer:conv_1",
    "size": 40,
    "octaves": 2,
    "octave_steps": 2,
    "jitter": 0,
}
SQUEEZENET = {"model": "squeezenet1_1", "option": ("width=0.25",), "objective": "layer:fire8"}


@pytest.fixture
def job():
    return "deep_dream"


@pytest.fixture
def common_flags():
    return ["--option=width=0.25", "--size=40", "--octaves=1"]


def run_in(folder, **options):
    task = JOB(CONFIG(workdir=str(folder), **{**SMALL, **options}))
    return launch.run(task), task


@pytest.fixture(scope="module")
def zoomed(tmp_path_factory):
    """A run of two frames of two octaves of two steps, its task and its folder."""
    folder = tmp_path_factory.mktemp("zoomed")
    outcome, task = run_in(folder, zoom=2, zoom_share=0.2, report=True)
    return outcome, task, folder


def test_the_run_is_the_published_loop(zoomed):
    """Base plus carried detail, ascent by normalised gradients, cut to 0..1, zoomed."""
    outcome, task, _ = zoomed
    model_state = {name: outcome.variables[name] for name in ("network", "scaling", "targets")}

    @jax.jit
    def gradient(picture):
        def value(picture):
            return (task.activations(model_state, picture)["conv_1"] ** 2).mean()

        return jax.grad(value)(picture)

    frame = np.asarray(task.pictures["start"][None] / np.float32(255))
    for number in range(2):
        if number:
            frame = np.asarray(zoom_in(jnp.asarray(frame), 0.2))
        detail = np.zeros((1, 1, 1, 3), np.float32)
        for size in task.sizes:
            base = np.asarray(resize(jnp.asarray(frame), size))
            detail = np.asarray(resize(jnp.asarray(detail), size))
            source = base + detail
            for _ in range(2):
                g = np.asarray(gradient(jnp.asarray(source)))
                source = np.clip(source + 1.5 / 255 * g / np.abs(g).mean(), 0, 1)
            detail = source - base
        frame = source
    found = jax.jit(task.draw)(outcome.variables["params"])
    np.testing.assert_allclose(found, frame, atol=2e-3)


def test_what_a_run_writes(zoomed):
    _, task, folder = zoomed
    stages = [task.stage(step) for step in (0, 2, 4, 6, 8)]
    assert sorted((folder / "pictures").iterdir()) == stages
    with Image.open(folder / "zoom.gif") as gif:
        assert gif.n_frames == 3 and gif.size == (40, 27)
        first = np.asarray(gif.convert("RGB"), int)
    # Colours of a GIF are of a palette.
    assert np.abs(first - np.asarray(Image.open(stages[0]), int)).mean() < 8
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "stages.png" in text and "Objective" in text and "Total variation" in text


@pytest.mark.slow
def test_a_run_that_ended_within_an_octave_goes_on_bit_for_bit(zoomed, tmp_path):
    whole, task, folder = zoomed
    run_in(tmp_path, zoom=2, zoom_share=0.2, steps=5)
    parts, _ = run_in(tmp_path, zoom=2, zoom_share=0.2, steps=8)
    for name, leaf in whole.variables["params"].items():
        np.testing.assert_array_equal(parts.variables["params"][name], leaf)
    assert (tmp_path / "zoom.gif").read_bytes() == (folder / "zoom.gif").read_bytes()
    trained = dlcore.load(folder)
    np.testing.assert_array_equal(
        jax.jit(trained.task.draw)(trained.params), jax.jit(task.draw)(whole.variables["params"])
    )


@pytest.mark.slow
def test_the_objective_grows_ten_times_and_the_picture_stays_one(tmp_path):
    # Deeper layers have more to gain.
    outcome, _ = run_in(tmp_path, **SQUEEZENET, size=64, octave_steps=20, jitter=4)
    found = outcome.metrics
    assert found["objective"] > 10 * found["objective_before"]
    assert found["total_variation"] < 6 * found["total_variation_before"]


@pytest.mark.slow
def test_a_spectrum_shows_what_a_layer_looks_for(tmp_path):
    config = CONFIG(
        workdir=str(tmp_path),
        model="strided_cnn",
        option=("filters=[16,32]",),
        objective="layer:conv_1",
        size=40,
        start="noise",
        parameters="fourier",
        octave_steps=12,
    )
    task = JOB(config)
    assert (task.config.optimizer, task.config.learning_rate) == ("adam", 0.05)
    assert task.config.augment == "crop:12,scale:1.1,rotate:10"
    outcome = launch.run(task)
    rows = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([row for row in rows if '"train"' in row]) == 12
    variables = outcome.variables
    value = jax.jit(lambda params: task.value(variables, task.draw(params)))
    first = jax.jit(task.first_params)(jax.random.key(3))
    assert value(variables["params"])[0] > 2 * value(first)[0]


def test_a_guide_is_seen_by_the_same_layer(tmp_path):
    task = JOB(CONFIG(**{**SMALL, "guide": "flower.jpg", "size": 30, "octaves": 1}))
    task.workdir = tmp_path
    task.info = task.data().info
    state = jax.jit(task.init)(jax.random.key(0))
    guide = jnp.asarray(task.pictures["guide"][None] / np.float32(255))
    assert max(guide.shape) == 224
    seen = np.asarray(jax.jit(task.activations)(state, guide)["conv_1"]).reshape(-1, 32)
    targets = jax.jit(task.targets)(state)
    np.testing.assert_allclose(targets["guide"], seen, atol=1e-5)
    assert jax.tree.map(lambda leaf: leaf.shape, state["targets"]) == {"guide": seen.shape}
    picture = jax.random.uniform(jax.random.key(1), (1, 20, 30, 3))
    found = jax.jit(task.activations)(state, picture)["conv_1"].reshape(-1, 32)
    expected = (np.asarray(found) @ seen.T).max(-1).mean()
    value = jax.jit(task.value)({**state, "targets": targets}, picture)
    np.testing.assert_allclose(value, [expected], rtol=1e-4)


def test_tiles_cover_the_picture_evenly():
    picture = jnp.arange(7 * 5 * 1.0).reshape(1, 7, 5, 1)

    def middle(tile):
        assert tile.shape == (1, 4, 4, 1)
        return (tile**2).sum((1, 2, 3))

    value, gradient = jax.jit(jax.value_and_grad(lambda picture: TILES(middle, picture, 4)[0]))(
        picture
    )
    corners = [(0, 0), (0, 1), (3, 0), (3, 1)]
    plain, count = np.asarray(picture)[0, ..., 0], np.zeros((7, 5))
    total = 0.0
    for top, left in corners:
        total += (plain[top : top + 4, left : left + 4] ** 2).sum()
        count[top : top + 4, left : left + 4] += 1
    np.testing.assert_allclose(value, total / 4)
    np.testing.assert_allclose(gradient[0, ..., 0], 2 * plain * count / 4)
    assert (count > 0).all()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--objective=layer:fire1"], ["no layer 'fire1'", "conv1, pool1, fire2", "output"]),
        (["--objective=class:1000"], ["beyond the 1000 classes", "0 to 999"]),
        (["--objective=channel:fire2:32"], ["beyond the 32 channels of fire2", "0 to 31"]),
        (["--objective=channel:fire2"], ["none of layer:NAME, channel:NAME:3"]),
        (["--objective=neuron:fire2:-1"], ["none of layer:NAME"]),
        (["--octaves=4"], ["4 octaves", "10x15", "too small", "fewer octaves"]),
        (["--octaves=9", "--octave_scale=1.01"], ["one before"]),
        (["--size=0"], ["--size=0 is not an integer from 1"]),
        (["--octave_steps=0"], ["--octave_steps=0 is not an integer from 1"]),
        (["--objective=class:1", "--guide=flower.jpg"], ["does not read --guide"]),
        (["--start=noise", "--picture=flower.jpg"], ["does not read --picture"]),
        (["--parameters=fourier"], ["does not read --parameters"]),
        (["--start=noise", "--parameters=fourier", "--zoom=2"], ["does not read --"]),
        (["--zoom_share=0.1"], ["--zoom_share is for --zoom"]),
        (["--zoom=2", "--octave_steps=4", "--eval_every=3"], ["--eval_every=3", "divisor"]),
        (["--picture=nothing.png"], ["no picture nothing.png"]),
        (["--guide=nothing.png"], ["no picture nothing.png"]),
        (["--augment=turn"], ["augmentation", "turn"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_what_is_wrong_is_one_line(run, tmp_path, flags, words):
    assert_fails(run(f"--workdir={tmp_path / 'run'}", *flags), *words)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_is_not_given_is_what_suits():
    settled = CONFIG().settled()
    assert (settled.steps, settled.eval_every, settled.octave_steps) == (80, 20, 20)
    assert settled.settled() == settled
    frames = dataclasses.replace(CONFIG(), zoom=3).settled()
    assert frames.steps == 240
    octave = functools.partial(JOB.octave, type("Task", (), {"config": frames, "sizes": [0] * 4})())
    assert [octave(step) for step in (0, 19, 20, 79, 80, 239)] == [0, 0, 1, 3, 0, 3]
