"""Linen layers and the pure functions under them; nothing here knows of models or losses."""

from dlcore.nn.activations import ACTIVATIONS, LEARNED, PReLU, activation, softmax
from dlcore.nn.convolution import Conv, ConvTranspose
from dlcore.nn.dense import Dense
from dlcore.nn.dropout import Dropout
from dlcore.nn.initialisers import INITIALISERS, initialiser
from dlcore.nn.maxout import Maxout
from dlcore.nn.normalisation import BatchNorm, InstanceNorm, LayerNorm
from dlcore.nn.pooling import average_pool, max_pool, space_to_depth
from dlcore.nn.spectral import SpectralNorm
from dlcore.nn.windows import output_size, pad_sizes

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "LEARNED",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "InstanceNorm",
    "LayerNorm",
    "Maxout",
    "PReLU",
    "SpectralNorm",
    "activation",
    "average_pool",
    "initialiser",
    "max_pool",
    "output_size",
    "pad_sizes",
    "softmax",
    "space_to_depth",
]
