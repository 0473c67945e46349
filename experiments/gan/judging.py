"""A trained classifier of images judges those that are drawn.

Shapes: B batch, D features, K classes.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.launch.loading import load


class Judge:
    """A classifier that a run of this project has trained, as features of images and their classes.

    The features are the activations before the output layer.

    Args:
        workdir: the folder of the run.
        shape: (H, W, C) of the images that it will see.
        class_names: of their labels; None where no label is compared.

    Raises:
        InputError: for a run of another kind, of other image sizes or of other classes.
    """

    def __init__(self, workdir: str, shape: tuple[int, ...], class_names: tuple[str, ...] | None):
        folder = pathlib.Path(workdir).expanduser()
        self._trained = trained = load(folder)
        if trained.task.name() != "image_classification":
            raise InputError(
                f"--features={workdir} is a run of {trained.task.name()}; give one of "
                "image_classification"
            )
        own = trained.info.image_shape
        if own != shape:
            raise InputError(
                f"--features={workdir} has learned images of {_sizes(own)}, but those drawn here "
                f"are {_sizes(shape)}; give a run of the same sizes, such as by --image_size="
                f"{own[0]}"
            )
        if class_names is not None and class_names != trained.info.class_names:
            raise InputError(
                f"--features={workdir} tells {len(trained.info.class_names)} classes apart, "
                f"{', '.join(trained.info.class_names[:3])} ..., which are not those of the data, "
                f"{', '.join(class_names[:3])} ...; give a run on the same classes"
            )

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images of 0..255 [B, H, W, C] to features float32 [B, D] and classes int [B]."""
        task: Any = self._trained.task
        logits, activations = task.forward(self._trained.variables, images)
        # While this is traced, the activations are in the order of their layers.
        *_, last = (name for name in activations if activations[name] is not logits)
        features = activations[last].astype(jnp.float32)
        return features.reshape(len(images), -1), logits.argmax(-1)


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def pixels(images: jax.Array) -> jax.Array:
    """Returns images of 0..255 as features of their own, 0..1 each, float32 [B, D]."""
    return images.astype(jnp.float32).reshape(len(images), -1) / np.float32(255)
