"""Predictions with dropout on, which come with their uncertainty (Gal & Ghahramani 2016)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dlcore.errors import InputError
from dlcore.launch.config import Group
from dlcore.launch.fields import integer
from dlcore.metrics.uncertainty import Uncertain
from dlcore.nn.dropout import sampled_dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class UncertaintyConfig(Group):
    """The options of Monte Carlo dropout in predictions."""

    title = "Predictions"

    dropout_samples: int | None = integer(
        None,
        2,
        100_000,
        "average --predict over this many random dropout masks and report "
        "the uncertainty; default no dropout",
        free=True,
    )

    def samples(self, predict: Callable[[jax.Array], Any]) -> np.ndarray:
        """Returns the stacked predictions that a function of a key makes for the samples' keys."""
        config: Any = self  # has the seed of `RunConfig`
        keys = jax.random.split(jax.random.key(config.seed), config.dropout_samples)
        return np.stack([np.asarray(predict(key)) for key in keys])


def with_dropout(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled function in which dropout is active although the model evaluates.

    Args:
        function: calls the model, with a key for "dropout" among its arguments.

    Raises:
        InputError: when the function is called and the model has no active dropout.
    """

    def sampled(*args: Any) -> Any:
        with sampled_dropout() as rates:
            result = function(*args)
        if not rates:
            raise InputError(
                "the model has no dropout, so all --dropout_samples would be the same; train it "
                "with dropout, or leave them out"
            )
        return result

    return jax.jit(sampled)


def uncertain_answers(rows: list[dict[str, Any]], found: Uncertain) -> list[dict[str, Any]]:
    """Returns rows of predictions with the columns "entropy" and "mutual_information", in nats."""
    measures = zip(rows, found.entropy, found.mutual_information, strict=True)
    return [
        {**row, "entropy": float(entropy), "mutual_information": float(information)}
        for row, entropy, information in measures
    ]
