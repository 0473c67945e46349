"""Attention: the pure functions, full and chunked, and the encodings of positions."""

from dlcore.nn.attention.attending import AttendingCell
from dlcore.nn.attention.chunked import chunked_attention
from dlcore.nn.attention.decoder import Decoder
from dlcore.nn.attention.functions import attention, attention_weights, weighted_sum
from dlcore.nn.attention.positions import POSITIONS, alibi_slopes, rotate, sinusoidal
from dlcore.nn.attention.registry import ATTENTIONS
from dlcore.nn.attention.scores import Attention

__all__ = [
    "ATTENTIONS",
    "POSITIONS",
    "AttendingCell",
    "Attention",
    "Decoder",
    "alibi_slopes",
    "attention",
    "attention_weights",
    "chunked_attention",
    "rotate",
    "sinusoidal",
    "weighted_sum",
]
