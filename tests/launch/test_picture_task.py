"""The core of jobs whose parameters are a picture."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch.picture_task import PictureConfig, PictureInfo, PictureTask
from dlcore.models import image_model
from dlcore.types import Aux, Mean

LAYERS = ("pool1", "fire2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PictureConfig, steps=4, eval_every=2, log_every=1, option=("width=0.0625",), size=20):
    coarse: int = 0


class Inversion(PictureTask[Config, PictureInfo]):
    """Finds a picture with the activations of another one, seen in half its size at first."""

    metric = ("cost", "min")
    layers = LAYERS

    def read(self):
        return {"wanted": np.random.default_rng(0).integers(0, 256, (20, 18, 3), np.uint8)}

    def view(self, step):
        height, width, _ = self.info.shape
        return (height, width) if step >= self.config.coarse else (height - 2, width - 1)

    @property
    def smallest_view(self):
        return self.view(0)

    def target_shapes(self):
        return self.activation_shapes(*self.info.shape[:2])

    def targets(self, model_state):
        return self.activations(model_state, jnp.asarray(self.pictures["wanted"][None] / 255.0))

    def loss(self, params, model_state, batch, rng):
        found = self.activations(model_state, self.seen(params, batch))
        wanted = model_state["targets"]
        costs = {
            f"cost_{name}": Mean.of(((found[name] - wanted[name]) ** 2).mean()[None])
            for name in LAYERS
            if found[name].shape == wanted[name].shape
        }
        loss = sum((cost.total for cost in costs.values()), jnp.zeros(()))
        return Mean.of(loss[None], batch["weight"]), Aux(model_state, costs)

    def metrics(self, state, batch):
        return {"cost": self.loss(state.params, state.model_state, batch, state.rng)[0]}


def run(workdir, **options):
    return launch.run(Inversion(Config(workdir=str(workdir), learning_rate=0.05, **options)))


def test_a_run_writes_its_stages_and_a_killed_one_goes_on_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole", steps=4, optimizer="adam", checkpoint_every=2)
    assert whole.metrics["cost"] < 0.9 * first_cost(tmp_path / "whole")
    # What a process killed after step 2 left: the checkpoint and the picture of then.
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/4")
    (tmp_path / "parts/pictures/step_000004.png").unlink()
    (tmp_path / "parts/picture.png").unlink()
    parts = run(tmp_path / "parts", steps=4, optimizer="adam", report=True)
    np.testing.assert_array_equal(
        whole.variables["params"]["picture"], parts.variables["params"]["picture"]
    )
    for folder in ("whole", "parts"):
        written = sorted(path.name for path in (tmp_path / folder / "pictures").iterdir())
        assert written == ["step_000000.png", "step_000002.png", "step_000004.png"]
    expected = np.rint(255 * np.clip(whole.variables["params"]["picture"][0], 0, 1))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "whole/picture.png")), expected)
    assert (tmp_path / "parts/report/stages.png").exists()
    assert (tmp_path / "parts/report/layers.png").exists()
    # It comes back without its pictures.
    trained = launch.load(tmp_path / "whole", Inversion)
    np.testing.assert_array_equal(trained.params["picture"], whole.variables["params"]["picture"])


def first_cost(workdir):
    rows = [
        json.loads(line)
        for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return next(row["loss"] for row in rows if row["split"] == "train")


def task_of(**options):
    task = Inversion(Config(**options))
    task.data()
    return task


def test_activations_are_those_of_the_whole_network_on_scaled_images():
    task = task_of()
    variables = jax.jit(task.init)(jax.random.key(0))
    picture = jax.random.uniform(jax.random.key(1), (1, 20, 18, 3))
    found = jax.jit(task.activations)(variables, picture)
    assert {*found} == {*LAYERS}
    # Only what leads to the layers is there.
    assert sorted(variables["network"]["params"]) == ["conv1", "fire2"]
    whole = image_model("squeezenet1_1", num_classes=1000).clone(width=0.0625)
    shapes = jax.eval_shape(whole.init, jax.random.key(2), picture)["params"]
    # The layers behind those that are looked at.
    rest = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    full = {"params": {**rest, **variables["network"]["params"]}}
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = ((np.asarray(picture) - mean) / deviation).astype(np.float32)
    _, expected = jax.jit(whole.apply)(full, images)
    for name in LAYERS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_steps_see_the_picture_in_the_size_of_their_number():
    task = task_of(coarse=2)
    sizes = [next(task.batches(step))["view"].shape for step in range(3)]
    assert sizes == [(1, 18, 17, 0), (1, 18, 17, 0), (1, 20, 18, 0)]
    params = {"picture": jnp.full((1, 20, 18, 3), 0.25)}
    seen = jax.jit(task.seen)(params, next(task.batches(0)))
    np.testing.assert_allclose(seen, np.full((1, 18, 17, 3), 0.25), rtol=1e-6)


def test_unknown_layers_and_small_pictures_are_one_line(monkeypatch):
    monkeypatch.setattr(Inversion, "layers", ("fire1",))
    with pytest.raises(
        InputError, match="has no layer 'fire1'; choose one of: conv1, pool1, fire2, "
    ):
        task_of()
    monkeypatch.setattr(Inversion, "read", lambda _: {"a": np.zeros((16, 30, 3), np.uint8)})
    with pytest.raises(InputError, match=r"16x30 pixels are too small .* is 17x17"):
        task_of()


def test_weights_that_do_not_fit_are_one_line(tmp_path):
    from dlcore.models.cnn.torch_weights import to_torch
    from dlcore.models.torch_files import write_torch_file

    model = image_model("squeezenet1_1", num_classes=5).clone(width=0.0625)
    draw = np.random.default_rng(3)
    variables = jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype),
        jax.eval_shape(model.init, jax.random.key(3), jnp.zeros((1, 17, 17, 3))),
    )
    file = tmp_path / "weights.safetensors"
    write_torch_file(file, to_torch(model, variables))
    task = task_of(init_from=str(file))
    found = task._weights(jax.eval_shape(task.init, jax.random.key(0))["network"])
    given = variables["params"]["fire2"]["squeeze"]["kernel"]
    np.testing.assert_array_equal(found["network"]["params"]["fire2"]["squeeze"]["kernel"], given)
    task = task_of(init_from=str(file), option=("width=0.125",))
    with pytest.raises(InputError, match="lacks .* arrays that the layers|these weights are not"):
        task._weights(jax.eval_shape(task.init, jax.random.key(0))["network"])
