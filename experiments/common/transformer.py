"""The flags of transformers, which the language model and the translator share."""

from collections.abc import Iterable

from absl import flags

from dlcore.errors import InputError
from dlcore.nn.attention.positions import POSITIONS
from dlcore.nn.feed_forward import FEED_FORWARDS
from dlcore.nn.transformer import NORMS, TransformerConfig
from experiments.common.flags import adopt, define_remat_flag

FLAGS = flags.FLAGS
# The flags that only one kind of model reads.
OF_TRANSFORMERS = (
    "heads", "kv_heads", "feed_forward", "norm", "norm_first", "activation", "position", "qk_norm",
    "bias", "chunk", "remat",
)  # fmt: skip
OF_STACKS = ("residual", "variational", "state_dropout", "candidate_dropout")


def define_transformer_flags(*, heads: int) -> None:
    """Defines the flags of the blocks that no other net has, with a job's defaults."""
    flags.DEFINE_integer("heads", heads, "attention heads", 1)
    flags.DEFINE_integer("kv_heads", None, "key and value heads; default as many as --heads", 1)
    flags.DEFINE_integer("feed_forward", None, "inner width; default 4 times --hidden", 1)
    flags.DEFINE_string("norm", "rms", f"one of {', '.join(NORMS)}")
    flags.DEFINE_bool("norm_first", True, "normalise what a branch reads, not the sums")
    flags.DEFINE_string(
        "activation", "gelu", f"of the feed-forward nets, one of {', '.join(FEED_FORWARDS)}"
    )
    flags.DEFINE_string(
        "position", "rotary", f"how steps know their places, one of {', '.join(POSITIONS)}"
    )
    flags.DEFINE_bool("qk_norm", False, "normalise queries and keys")
    flags.DEFINE_bool("bias", False, "dense layers and norms have biases")
    flags.DEFINE_integer("chunk", None, "keys that attention takes at once; default all", 1)
    define_remat_flag()
    adopt(__name__)


def transformer_config(*, context: int) -> TransformerConfig:
    """What the flags describe; learned positions are as many as `context`."""
    return TransformerConfig(
        features=FLAGS.hidden, layers=FLAGS.layers, heads=FLAGS.heads, groups=FLAGS.kv_heads,
        hidden=FLAGS.feed_forward, norm=FLAGS.norm, norm_first=FLAGS.norm_first,
        activation=FLAGS.activation, position=FLAGS.position,
        context=context if FLAGS.position == "learned" else None, qk_norm=FLAGS.qk_norm,
        bias=FLAGS.bias, dropout=FLAGS.dropout, chunk=FLAGS.chunk, remat=FLAGS.remat,
    )  # fmt: skip


def refuse(names: Iterable[str], chosen: str) -> None:
    """Refuses flags that have no effect beside a chosen one, instead of ignoring them.

    Args:
        names: of the flags.
        chosen: the name of the flag whose value has no use for them.

    Raises:
        InputError: when one of them was given.
    """
    if given := [name for name in names if FLAGS[name].present]:
        raise InputError(
            f"--{chosen}={FLAGS[chosen].value} does not read --{given[0]}; leave it away"
        )
