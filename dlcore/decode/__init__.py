"""Decoders, which draw or search sequences by a model's pure next-token function (`NextToken`)."""

from dlcore.decode.beam import Hypotheses as Hypotheses
from dlcore.decode.beam import beam_search as beam_search
from dlcore.decode.constraints import Constraints as Constraints
from dlcore.decode.forced import scheduled_inputs as scheduled_inputs
from dlcore.decode.forced import score_sequences as score_sequences
from dlcore.decode.greedy import greedy as greedy
from dlcore.decode.next_token import NextToken as NextToken
from dlcore.decode.next_token import ensemble as ensemble
from dlcore.decode.objective import NORMALISATIONS as NORMALISATIONS
from dlcore.decode.objective import Objective as Objective
from dlcore.decode.sampling import filter_logits as filter_logits
from dlcore.decode.sampling import generate as generate
from dlcore.decode.sampling import sample as sample
