"""Restricted Boltzmann machines, their training and likelihood, and deep belief networks."""

from dlcore.models.boltzmann.belief import DeepBelief, Stack, bound, layer_name
from dlcore.models.boltzmann.contrastive import SPARSITIES, Contrast, contrastive_loss
from dlcore.models.boltzmann.partition import (
    MOST_EXACT,
    LogPartition,
    ais,
    enumerated,
    log_likelihood,
    log_partition,
    require_enumerable,
    reverse_ais,
    row_log_partitions,
    row_log_partitions_above,
)
from dlcore.models.boltzmann.rbm import RBM, Machine, gibbs, pseudo_log_likelihood
from dlcore.models.boltzmann.units import Binary, Gaussian, Softmax, Units

__all__ = [
    "MOST_EXACT",
    "RBM",
    "SPARSITIES",
    "Binary",
    "Contrast",
    "DeepBelief",
    "Gaussian",
    "LogPartition",
    "Machine",
    "Softmax",
    "Stack",
    "Units",
    "ais",
    "bound",
    "contrastive_loss",
    "enumerated",
    "gibbs",
    "layer_name",
    "log_likelihood",
    "log_partition",
    "pseudo_log_likelihood",
    "require_enumerable",
    "reverse_ais",
    "row_log_partitions",
    "row_log_partitions_above",
]
