"""Sequences out of a model: decoders over one pure next-token function, see `NextToken`."""

from dlcore.decode.sampling import NextToken as NextToken
from dlcore.decode.sampling import filter_logits as filter_logits
from dlcore.decode.sampling import generate as generate
from dlcore.decode.sampling import sample as sample
