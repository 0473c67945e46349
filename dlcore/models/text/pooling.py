"""Pools the features of all steps into one vector. Shapes: B batch, T time, F features."""

import jax

from dlcore import errors
from dlcore.nn.sequences import AttentionPooling, last_over_time, max_over_time, mean_over_time
from dlcore.types import Activations

# How the outputs of the time steps become one vector of a text.
POOLINGS = ("last", "max", "mean", "attention")


def pooled(
    pooling: str, x: jax.Array, lengths: jax.Array, *, directions: str | None = None
) -> tuple[jax.Array, Activations]:
    """Returns one vector for each text; call it in a module whose `pooling` has the parameters.

    Args:
        pooling: one of `POOLINGS`; "last" is the final output of each direction.
        x: the features [B, T, F].
        lengths: int [B]; the vector of a text of length 0 is zeros.
        directions: the merge of the features of both directions; None for one direction.

    Returns:
        The vectors [B, F], and the activations by name: "pooled" and, where there is one,
        "attention", the weights of the steps [B, T].

    Raises:
        InputError: for an unknown pooling, and for "last" with directions that are not
            concatenated.
    """
    activations: Activations = {}
    match pooling:
        case "last":
            if directions not in (None, "concat"):
                raise errors.InputError(
                    "the final outputs of both directions cannot be told from their "
                    f"{directions}; merge them by concat, or pool by max or mean"
                )
            x = last_over_time(x, lengths, bidirectional=directions is not None)
        case "max":
            x = max_over_time(x, lengths)
        case "mean":
            x = mean_over_time(x, lengths)
        case "attention":
            x, activations["attention"] = AttentionPooling(name="pooling")(x, lengths)
        case _:
            raise errors.choose("pooling", pooling, POOLINGS)
    return x, {**activations, "pooled": x}
