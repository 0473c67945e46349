"""The figures of an accelerator that determine the time of a step on it."""

import re
from typing import NamedTuple

from dlcore.errors import InputError


class Chip(NamedTuple):
    """A device as its vendor describes it.

    Attributes:
        flops: the peak of floating-point operations per second, in the type to compute in.
        memory: its memory, in bytes.
        bandwidth: the bandwidth of that memory, in bytes per second.
        link: the bandwidth to other devices in one direction, all its links together, in bytes per
            second.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float


# FLOP/s are of bfloat16 without sparsity. Vendors state the bandwidth of links in both directions
# together, of which half counts here.
# TPU: cloud.google.com/tpu/docs/v5e, /v5p and /v6e. GPU: NVIDIA's data sheets of the A100 80GB SXM,
# H100 SXM and H200 SXM; their link is NVLink, which ends at the node: between nodes, give the
# network's figure instead.
CHIPS = {
    "tpu-v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "tpu-v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "tpu-v6e": Chip(918e12, 32e9, 1638e9, 400e9),
    "a100": Chip(312e12, 80e9, 2039e9, 300e9),
    "h100": Chip(989e12, 80e9, 3350e9, 450e9),
    "h200": Chip(989e12, 141e9, 4800e9, 450e9),
}


# JAX's names of them; other variants have other figures.
_KINDS = {
    "TPU v5 lite": "tpu-v5e",
    "TPU v5e": "tpu-v5e",
    "TPU v5": "tpu-v5p",
    "TPU v5p": "tpu-v5p",
    "TPU v6 lite": "tpu-v6e",
    "TPU v6e": "tpu-v6e",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}


def chip_of(device_kind: str) -> Chip | None:
    """Returns the figures of a device by its `jax.Device.device_kind`; None for an unknown one."""
    return CHIPS[_KINDS[device_kind]] if device_kind in _KINDS else None


def parse_chip(text: str) -> Chip:
    """Reads a chip from a flag: a name of `CHIPS`, figures, or a name and the figures that differ.

    >>> parse_chip("tpu-v5e,memory=8e9")
    Chip(flops=197000000000000.0, memory=8000000000.0, bandwidth=819000000000.0, link=200000000000.0)

    Raises:
        InputError: for an unknown name or figure, and for a figure that is not a positive number,
            is given twice or is missing.
    """  # noqa: E501
    form = (
        f"chip {text!r}: give a name ({', '.join(CHIPS)}), the figures flops=197e12,memory=16e9,"
        "bandwidth=819e9,link=200e9, or a name and then the figures that differ"
    )
    first, *rest = text.split(",")
    parts = rest if first in CHIPS else [first, *rest]
    figures: dict[str, float] = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in Chip._fields or name in figures:
            raise InputError(form)
        if not re.fullmatch(r"\d+(\.\d*)?(e\+?\d+)?", value) or float(value) <= 0:
            raise InputError(f"chip {text!r}: {name} {value!r} is not a positive number; {form}")
        figures[name] = float(value)
    if first in CHIPS:
        return CHIPS[first]._replace(**figures)
    if len(figures) < len(Chip._fields):
        missing = ", ".join(name for name in Chip._fields if name not in figures)
        raise InputError(f"chip {text!r} lacks {missing}; {form}")
    return Chip(**figures)
