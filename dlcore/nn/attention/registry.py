"""The attentions of recurrent decoders by name."""

from dlcore import errors
from dlcore.nn.attention.scores import (
    Additive,
    AdditiveCoverage,
    Attention,
    Dot,
    General,
    LocalMonotonic,
    LocalPredictive,
    ScaledDot,
)

# The kinds of attention of recurrent decoders.
ATTENTIONS = ("additive", "dot", "general", "scaled", "local_monotonic", "local_predictive")


def attention(
    name: str, *, features: int = 256, window: int = 10, coverage: bool = False
) -> Attention:
    """Returns the named attention.

    Args:
        name: one of `ATTENTIONS`.
        features: the width of the hidden layer of "additive".
        window: the largest distance, to either side, that the local attentions reach.
        coverage: whether scores depend on the attention so far; only for "additive".

    Raises:
        InputError: for an unknown name, coverage with another attention than "additive", and
            features or a window below 1.
    """
    if coverage and name in ATTENTIONS and name != "additive":
        raise errors.InputError(
            f"coverage enters additive scores, not {name} ones; choose additive attention"
        )
    for option, value in {"features": features, "window": window}.items():
        if value < 1:
            raise errors.InputError(f"{option}={value} of an attention is below 1; raise it")
    possible: dict[str, Attention] = {
        "additive": AdditiveCoverage(features) if coverage else Additive(features),
        "dot": Dot(),
        "general": General(),
        "scaled": ScaledDot(),
        "local_monotonic": LocalMonotonic(window),
        "local_predictive": LocalPredictive(window),
    }
    return errors.pick("attention", name, possible)
