"""Autoencoder: a dense or convolutional net that draws images again from a code of few numbers."""

import dataclasses
from typing import Any

import jax
import numpy as np

from dlcore import launch
from dlcore.data import read_images
from dlcore.launch.fields import choice, integer
from dlcore.models.cnn.autoencoder import AUTOENCODERS
from dlcore.report import Section, picture_section, plots
from dlcore.types import Activations, Aux, Batch, Mean, Metrics, TrainState, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(launch.Config, steps=2000, learning_rate=2e-3, schedule="cosine", eval_every=500):
    model: str = choice("dense", AUTOENCODERS, "kind of the net")
    code: int = integer(16, 1, 4096, "numbers of the code")
    hidden: int = integer(128, 1, 4096, "units, or filters, before and after the code")


@dataclasses.dataclass(frozen=True)
class Info:
    shape: tuple[int, int, int]  # height, width and channels of the images
    bits: int = 16  # of the values in image files that have more than 8


class Autoencoder(launch.Task[Config, Info]):
    reads = "images"

    def data(self) -> launch.Data[Info]:
        images = self.images()
        self.shown = images.test.gather(np.arange(10) % len(images.test))["image"]
        return self.split_data(images.train, images.test, Info(images.image_shape, images.bits))

    def net(self) -> Any:
        return AUTOENCODERS[self.config.model](self.config.code, self.config.hidden)

    def init(self, key: jax.Array) -> Variables:
        return self.net().init(key, np.zeros((1, *self.info.shape), np.float32))

    def forward(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, Activations]:
        x = images.astype(jax.tree.leaves(variables)[0].dtype) / 255
        return self.net().apply(variables, x), {}

    def loss(self, params: Any, model_state: Any, batch: Batch, rng: Any) -> tuple[Mean, Aux]:
        drawn, _ = self.forward({"params": params}, batch["image"])
        errors = (drawn - batch["image"].astype(drawn.dtype) / 255) ** 2
        return Mean.of(errors.mean((1, 2, 3)), batch["weight"]), Aux(model_state, {})

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        return {"loss": self.loss(state.params, None, batch, None)[0]}

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.forward, "image")

    def predict(self, variables: Variables, inputs: Any) -> np.ndarray:
        images = read_images(inputs, self.info.shape, self.info.bits)
        return np.asarray(255 * jax.jit(self.forward)(variables, images)[0].clip(0, 1), np.uint8)

    def report(self, outcome: launch.Outcome) -> list[Section]:
        drawn = self.predict(self.computing(outcome.variables), self.shown)
        rows = {"given": self.shown, "drawn again": drawn}
        return [picture_section("Images", "images", lambda path: plots.plot_rows(rows, path))]


if __name__ == "__main__":
    launch.main(Autoencoder)
