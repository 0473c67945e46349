"""The models of the translation job: recurrent nets with attention, and transformers."""

import dataclasses
from typing import Any

import flax.linen as nn

from dlcore import launch
from dlcore.launch.fields import LARGEST, choice, integer, switch
from dlcore.models.text import BRIDGES, RecurrentTranslator, TransformerTranslator
from dlcore.nn.attention.registry import ATTENTIONS, attention
from dlcore.nn.recurrent import CELLS

MODELS = ("transformer", *CELLS)
_ATTENDING = {"attention": lambda name: name != "none"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentGroup(launch.Group):
    """Recurrent translators; `layers`, `hidden` and `dropout` are those of `LayersConfig`."""

    title = "Recurrent translator"

    bidirectional: bool = switch(True, "read the source in both directions")
    attention: str = choice(
        "general", ("none", *ATTENTIONS), "how the decoder scores the places of the source"
    )
    attention_window: int = integer(
        10,
        1,
        LARGEST,
        "places that local attention looks at to either side",
        when={"attention": lambda name: name.startswith("local")},
    )
    bridge: str = choice("dense", BRIDGES, "how the decoder starts from the encoder's last states")
    reverse_source: bool = switch(False, "read the source backwards")
    input_feeding: bool = switch(
        False, "the decoder also reads what it attended to a step before", when=_ATTENDING
    )
    coverage: bool = switch(
        False,
        "attention sees where it has been, and the loss has a penalty for repeats",
        when=_ATTENDING,
    )
    copy: bool = switch(False, "the decoder can copy tokens of the source", when=_ATTENDING)
    tie: bool = switch(True, "use one table for target embedding and output")


def make_model(config: Any, source_size: int, target_size: int) -> nn.Module:
    """Returns the translator that a configuration describes.

    Args:
        config: of the job.
        source_size: the number of source ids.
        target_size: the number of target ids.
    """
    sizes: dict[str, Any] = {
        "source_vocab_size": source_size,
        "target_vocab_size": target_size,
        "shared": config.one_vocabulary,
        "dropout": config.dropout,
        "embedding_dropout": config.embedding_dropout,
    }
    if config.model == "transformer":
        return TransformerTranslator(config.transformer_config(context=config.limit), **sizes)
    scores = None
    if config.attention != "none" and not config.autoencode:
        scores = attention(
            config.attention,
            features=config.hidden,
            window=config.attention_window,
            coverage=config.coverage,
        )
    cells = config.make_cells(config.model)
    return RecurrentTranslator(
        embedding_features=config.embedding_size,
        encoder_cells=cells,
        decoder_cells=cells,
        attention=scores,
        bidirectional=config.bidirectional,
        reverse_source=config.reverse_source,
        bridge=config.bridge,
        input_feeding=config.input_feeding,
        copying=config.copy,
        tie=config.tie,
        **sizes,
    )
