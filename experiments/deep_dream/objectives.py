"""The objectives that --objective names, which a dream makes grow."""

from collections.abc import Mapping
from typing import NamedTuple

import jax

from dlcore.errors import InputError
from dlcore.losses import activation

OUTPUT = "output"  # the name that every image model gives its logits
_FORMS = {"layer": "layer:NAME", "channel": "channel:NAME:3", "neuron": "neuron:NAME:3",
          "class": "class:5"}  # fmt: skip


class Objective(NamedTuple):
    """A number that the activations of a network give, to be made large.

    Attributes:
        kind: a key of `_FORMS`; a class is a neuron of the logits.
        layer: the name of the activation.
        channel: of the layer; None for all of them.
    """

    kind: str
    layer: str
    channel: int | None

    def of(self, activations: Mapping[str, jax.Array], guide: jax.Array | None) -> jax.Array:
        """Returns the number for each picture, (B,).

        Args:
            activations: by name.
            guide: (P, C), what the layer sees in the guide, where there is one.
        """
        found = activations[self.layer]
        if self.channel is None:
            if guide is None:
                return activation.layer_objective(found)
            return activation.guided_objective(found, guide)
        if self.kind == "channel":
            return activation.channel_objective(found, self.channel)
        return activation.neuron_objective(found, self.channel)

    def check(self, given: str, count: int) -> None:
        """Checks the objective against the layer.

        Args:
            given: the text of it, for errors.
            count: how many channels the layer has.

        Raises:
            InputError: for a channel that the layer does not have.
        """
        if self.channel is not None and self.channel >= count:
            what = "classes" if self.kind == "class" else f"channels of {self.layer}"
            raise InputError(
                f"--objective={given} is beyond the {count} {what}; give a number from 0 to "
                f"{count - 1}"
            )


def parse(given: str) -> Objective:
    """Reads layer:NAME, channel:NAME:3, neuron:NAME:3 or class:5.

    Raises:
        InputError: for anything else.
    """
    kind, *parts = given.split(":")
    forms = ", ".join(_FORMS.values())
    wrong = InputError(f"--objective={given} is none of {forms}, with numbers from 0 on")
    if kind not in _FORMS or len(parts) != _FORMS[kind].count(":"):
        raise wrong
    if kind == "layer":
        return Objective(kind, parts[0], None)
    if not (parts[-1].isascii() and parts[-1].isdecimal()):
        raise wrong
    return Objective(kind, OUTPUT if kind == "class" else parts[0], int(parts[-1]))
