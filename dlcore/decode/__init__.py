"""Decoders, which draw or search sequences by a model's pure next-token function (`NextToken`)."""

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
