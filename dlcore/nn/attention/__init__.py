"""Attention: the pure functions, full and chunked, and the encodings of positions."""

from dlcore.nn.attention.chunked import chunked_attention as chunked_attention
from dlcore.nn.attention.decoder import Decoder as Decoder
from dlcore.nn.attention.functions import attention as attention
from dlcore.nn.attention.functions import attention_weights as attention_weights
from dlcore.nn.attention.functions import weighted_sum as weighted_sum
from dlcore.nn.attention.positions import POSITIONS as POSITIONS
from dlcore.nn.attention.positions import alibi_slopes as alibi_slopes
from dlcore.nn.attention.positions import rotate as rotate
from dlcore.nn.attention.positions import sinusoidal as sinusoidal
from dlcore.nn.attention.registry import ATTENTIONS as ATTENTIONS
from dlcore.nn.attention.scores import Attention as Attention
