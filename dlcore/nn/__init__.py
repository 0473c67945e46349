"""Linen layers and the pure functions under them; nothing here knows of models or losses.

Layers that look across examples or draw noise for each of them (batch normalisation, dropout) ask
`dlcore.parallel` which part of the batch they see, so no layer has an argument for a layout. Cells,
attention, augmentation and trees have packages of their own.

>>> import jax.numpy as jnp
>>> from dlcore.nn import max_pool, output_size
>>> output_size(227, 11, stride=4)  # the first layer of AlexNet
55
>>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), (2, 2))[0, :, :, 0].tolist()
[[5.0, 7.0], [13.0, 15.0]]
"""

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
