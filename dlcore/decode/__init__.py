"""Decoders, which draw or search sequences with a model's pure next-token function (`NextToken`).

A next-token function maps a carry and the last tokens to the next carry and logits, so that any
model can be decoded: a recurrent net, a transformer with its cache, or a table. `greedy` takes the
likeliest token, `sample` and `generate` draw, `beam_search` keeps several hypotheses, and
`score_sequences` returns log P of given sequences.

>>> import jax.numpy as jnp
>>> from dlcore.decode import beam_search
>>> def countdown(carry, token):  # the next token is one less, or sometimes two
...     chances = jnp.array([[1, 0, 0, 0], [1, 0, 0, 0], [0.4, 0.6, 0, 0], [0, 0.5, 0.5, 0]])
...     return carry, jnp.log(chances)[token]
>>> found = beam_search(countdown, (), jnp.array([3]), end=0, steps=4, width=3)
>>> found.tokens[0, 0].tolist(), float(jnp.exp(found.log_probs[0, 0]).round(3))
([1, 0, 0, 0], 0.5)
"""

from dlcore.decode.beam import Hypotheses, beam_search
from dlcore.decode.constraints import Constraints
from dlcore.decode.forced import scheduled_inputs, score_sequences
from dlcore.decode.greedy import greedy
from dlcore.decode.next_token import NextToken, ensemble
from dlcore.decode.objective import NORMALISATIONS, Objective
from dlcore.decode.sampling import filter_logits, generate, sample

__all__ = [
    "NORMALISATIONS",
    "Constraints",
    "Hypotheses",
    "NextToken",
    "Objective",
    "beam_search",
    "ensemble",
    "filter_logits",
    "generate",
    "greedy",
    "sample",
    "scheduled_inputs",
    "score_sequences",
]
