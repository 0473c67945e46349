"""How numbers that are changed make a picture: pixels by octave, or a spectrum.

Shapes: H W the size of the picture, h w that of an octave; values are 0..1.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.nn.octaves import Size, carried, resize
from dlcore.nn.spectrum import from_spectrum, start_spectrum, to_colours
from dlcore.types import Params


class Canvas(Protocol):
    """A parametrisation of a picture."""

    def init(self, key: jax.Array) -> Params:
        """Returns the parameters that a run starts from."""
        ...

    def picture(self, params: Params, octave: int) -> jax.Array:
        """Returns the picture (1, h, w, 3) at the size of an octave, numbered from 0 on."""
        ...

    def kept(self, before: Params, after: Params, octave: int) -> Params:
        """Returns what a step at an octave may make of the parameters before it.

        Args:
            before: the parameters before the step.
            after: those that the optimizer made of them.
            octave: its number.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A picture and the details that each octave adds to it, see `nn.octaves`.

    A step at an octave changes the details of that octave alone, and no value leaves 0..1. The
    parameters are "picture", the one that a run starts from, and "octave01", "octave02" ...

    Attributes:
        sizes: of the octaves, the smallest first.
    """

    sizes: tuple[Size, ...]

    def init(self, key: jax.Array) -> Params:
        del key
        return self.fresh(jnp.zeros((1, *self.sizes[-1], 3)))

    def fresh(self, picture: jax.Array) -> Params:
        """Returns the parameters of a picture (1, H, W, 3) without further details."""
        details = {
            _name(octave): jnp.zeros((1, *size, 3), picture.dtype)
            for octave, size in enumerate(self.sizes)
        }
        return {"picture": picture, **details}

    def picture(self, params: Params, octave: int) -> jax.Array:
        return jax.lax.stop_gradient(self._below(params, octave)) + params[_name(octave)]

    def kept(self, before: Params, after: Params, octave: int) -> Params:
        below, name = self._below(before, octave), _name(octave)
        return {**before, name: (below + after[name]).clip(0, 1) - below}

    def _below(self, params: Params, octave: int) -> jax.Array:
        """Returns the picture without the details of the octave itself."""
        size = self.sizes[octave]
        found = resize(params["picture"], size)
        if octave:
            details = carried([params[_name(number)] for number in range(octave)])
            found += resize(details, size)
        return found


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """A spectrum of decorrelated colours, see `nn.spectrum`; it has one octave.

    Attributes:
        size: (H, W).
        axes: (3, 3), of the colours.
    """

    size: Size
    axes: np.ndarray

    def init(self, key: jax.Array) -> Params:
        return {"spectrum": start_spectrum(key, (1, *self.size, 3))}

    def picture(self, params: Params, octave: int) -> jax.Array:
        del octave
        spectrum = params["spectrum"]
        # The transform needs single precision.
        values = from_spectrum(spectrum.astype(jnp.float32), self.size[1])
        return to_colours(values, self.axes).astype(spectrum.dtype)

    def kept(self, before: Params, after: Params, octave: int) -> Params:
        del before, octave
        return after


def _name(octave: int) -> str:
    # Two digits, so that the order of the names is that of the octaves.
    return f"octave{octave + 1:02}"
