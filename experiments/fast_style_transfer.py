"""Fast style transfer: a network that turns any picture into one style in a single pass.

It is trained once for a style (Johnson et al. 2016), by the costs of style transfer that a frozen
network tells of its pictures, on random crops of the pictures in `--data_path`; by default on those
of scikit-learn's photographs, with a frozen network of random weights, which needs neither a file
nor a network. `--predict=FILE_OR_FOLDER --workdir=DIR` then styles pictures of any size and writes
them into the folder `--predict_to`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.crops import CropLoader, load_crops
from dlcore.data.pictures import PHOTOGRAPHS, read_picture
from dlcore.launch.fields import LARGEST, choice, integer, number, path
from dlcore.launch.frozen_network import NetworkConfig, NetworkTask, as_pixels
from dlcore.launch.stages import save_picture
from dlcore.launch.style_costs import StyleConfig, StyleCosts, Wanted
from dlcore.models.cnn.transformation import UPSAMPLING, TransformationNetwork
from dlcore.report import Section, picture_section, plots
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
)

_SHOWN = 4  # held-out crops in a stage
_SMOKE_SIZE = 48


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    NetworkConfig,
    StyleConfig,
    launch.OptimizerConfig,
    launch.DevicesConfig,
    steps=300,
    eval_every=100,
    log_every=25,
    optimizer="adam",
    learning_rate=1e-3,
    average_pool=True,
    style_weight=5.0,
    predict_to="styled",
):
    """The configuration of fast style transfer.

    The weights suit a network of random weights.
    """

    style: str = path(PHOTOGRAPHS[1], "picture whose style the network learns")
    style_size: int | None = integer(
        None, 1, 1 << 14, "longer side of the style in pixels; default --size"
    )
    data_path: str | None = path(
        None, "folder of pictures to train on; default scikit-learn's photographs"
    )
    size: int = integer(128, 1, 1 << 14, "side of the training crops in pixels")
    batch_size: int = integer(4, 1, LARGEST, "crops per step, over all devices")
    width: float = number(0.25, 0.01, 16, "factor of the paper's numbers of filters")
    blocks: int = integer(5, 0, 99, "residual blocks")
    upsampling: str = choice(
        "nearest", UPSAMPLING, "repeat pixels before a convolution, or use a transposed convolution"
    )

    def shrunk(self) -> "Config":
        small: dict[str, Any] = {"size": min(self.size, _SMOKE_SIZE), "batch_size": 2}
        small |= {"width": min(self.width, 0.125), "blocks": min(self.blocks, 1)}
        return dataclasses.replace(super().shrunk(), **small)


class FastStyleTransfer(NetworkTask[Config, None]):
    """A network that turns pictures into one style."""

    metric = ("cost", "min")
    reads = "images"
    answered_together = 1  # Pictures may be large, and of any sizes.

    # The frozen network.

    @functools.cached_property
    def style_costs(self) -> StyleCosts:
        """The costs and the layers that they look at."""
        return StyleCosts.of(self.config, self.config.model, lambda: self.layer_names)

    @property
    def layers(self) -> tuple[str, ...]:
        return self.style_costs.layers

    @property
    def smallest_view(self) -> tuple[int, int]:
        return self.config.size, self.config.size

    def check_layers(self) -> None:
        super().check_layers()
        shapes = self.activation_shapes(*self.smallest_view)
        self.style_costs.check_places(self.config.model, shapes)

    def targets(self, model_state: PyTree) -> PyTree:
        return self._style_matrices(model_state, self.style)

    def target_shapes(self) -> PyTree:
        # They are of one size whatever that of the style.
        blank = np.zeros((*self.smallest_view, 3), np.uint8)
        return jax.eval_shape(
            lambda key: self._style_matrices(self.first_network(key), blank), jax.random.key(0)
        )

    def _style_matrices(self, model_state: PyTree, style: np.ndarray) -> dict[str, jax.Array]:
        pictures = jnp.asarray(style[None].astype(np.float32) / np.float32(255))
        return self.style_costs.style_matrices(self.activations(model_state, pictures))

    # The data.

    def data(self) -> launch.Data[None]:
        config = self.config
        self.style = read_picture(config.style, config.style_size or config.size)
        self.check_layers()
        self.activation_shapes(*self.style.shape[:2])  # Says now when the style is too small.
        data = load_crops(config.data_path, config.size)
        for note in data.notes:
            launch.say(note)
        self.test = data.test
        launch.say(
            f"{data.name}: {len(data.train):,} pictures to train on, {len(data.test):,} crops of "
            "others to test"
        )
        loader = CropLoader(
            data.train, config.size, config.batch_size, seed=config.seed, **self.part()
        )
        return launch.Data(loader.batches, self.passes(data.test), None)

    # The styling network.

    @functools.cached_property
    def styling(self) -> TransformationNetwork:
        """The network that is trained."""
        config = self.config
        return TransformationNetwork(config.width, config.blocks, config.upsampling)

    def init(self, key: jax.Array) -> Variables:
        network_key, styling_key = jax.random.split(key)
        variables = self.styling.init(styling_key, jnp.zeros((1, *self.smallest_view, 3)))
        return {**variables, **self.init_network(network_key)}

    def adopt(self, state: TrainState) -> TrainState:
        state = super().adopt(state)
        self.write_picture({"params": state.params}, self.stage(0))
        return state

    def forward(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps pictures of 0..255 to styled pictures of 0 to 1, and activations by name."""
        params = variables["params"]
        x = images.astype(jax.tree.leaves(params)[0].dtype) / 255
        found: tuple[jax.Array, Activations] = self.styling.apply({"params": params}, x)
        return found

    def costs(
        self, params: Params, model_state: PyTree, batch: Batch
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns the parts of the costs of styled pictures, [B] each, and of those given."""
        styled, _ = self.forward({"params": params}, batch["image"])
        contents = batch["image"].astype(styled.dtype) / 255
        given = self.activations(model_state, contents)
        wanted = Wanted(content=given, style=model_state["targets"], masks={})
        found = self.activations(model_state, styled)
        parts = self.style_costs.parts
        return parts(styled, found, wanted), parts(contents, given, wanted)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        summed = self.style_costs.summed(self.costs(params, model_state, batch)[0])
        means = {name: Mean.of(cost, batch["weight"]) for name, cost in summed.items()}
        return means.pop("cost"), Aux(model_state, means)

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        styled, given = self.costs(state.params, state.model_state, batch)
        costs = self.style_costs.summed(styled)
        before = self.style_costs.summed(given)
        costs |= {f"{name}_before": before[name] for name in ("cost", "style_cost")}
        costs |= {name: cost for name, cost in styled.items() if name != "variation"}
        return {name: Mean.of(cost, batch["weight"]) for name, cost in costs.items()}

    def checks(self, data: launch.Data[None]) -> launch.Check:
        return launch.Check(self.forward, "image")

    # What a run writes.

    @functools.cached_property
    def _styled(self) -> Callable[[Variables, np.ndarray], jax.Array]:
        def styled(variables: Variables, images: jax.Array) -> jax.Array:
            return self.forward(variables, images)[0]

        return jax.jit(styled)

    def _given(self) -> np.ndarray:
        """Returns a few of the held-out crops, [n, S, S, 3]."""
        last = len(self.test) - 1
        return self.test.gather(np.unique(np.linspace(0, last, _SHOWN, dtype=int)))["image"]

    def shown(self, variables: Variables) -> np.ndarray:
        styled = as_pixels(self._styled({"params": variables["params"]}, self._given()))
        return np.concatenate([*styled], 1)

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        before, after = (outcome.metrics[name] for name in ("style_cost_before", "style_cost"))
        launch.say(
            f"style cost of held-out crops: {before:.4g} as they are, {after:.4g} styled, "
            f"{before / max(after, 1e-30):.1f} times less"
        )
        return outcome

    def report(self, outcome: launch.Outcome) -> list[Section]:
        given = self._given()
        styled = as_pixels(self._styled(self.computing(outcome.variables), given))
        rows = {"given": given, "styled": styled, "style": self.style[None]}
        section = picture_section(
            "Held-out pictures",
            "held_out",
            lambda target: plots.plot_rows(rows, target, scale=2.5),
        )
        return [section, *super().report(outcome)]

    # What a trained run answers.

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> list[np.ndarray]:
        """Returns each picture in the style, uint8 [H, W, 3], in its own size.

        Args:
            variables: of the networks.
            inputs: uint8 arrays [H, W, 3] of any size, or paths of image files. Each new size is
                compiled.
        """
        styled = []
        for given in inputs:
            picture = given if isinstance(given, np.ndarray) else read_picture(str(given))
            found = self._styled({"params": variables["params"]}, picture[None])
            styled.append(as_pixels(found)[0])
        return styled

    def answers(self, inputs: Sequence[Any], outputs: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        return [{"picture": picture} for picture in outputs]

    def write_answers(self, folder: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
        """Writes styled pictures as PNG into a new folder."""
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007, whose last value is used
            source = pathlib.Path(row["input"])
            save_picture(row["picture"], folder / f"{count:04d}_{source.stem}.png")
        launch.say(f"{count:,} picture{'' if count == 1 else 's'}: {folder}")


if __name__ == "__main__":
    launch.main(FastStyleTransfer)
