"""Linen layers and the pure functions under them; nothing here knows of models or losses.

`Dense` is Flax's own: y = x W + b, with the parameters `kernel` (C, K) and `bias` (K,).
"""

from flax.linen import Dense as Dense

from dlcore.nn.activations import ACTIVATIONS as ACTIVATIONS
from dlcore.nn.activations import PReLU as PReLU
from dlcore.nn.activations import activation as activation
from dlcore.nn.activations import softmax as softmax
from dlcore.nn.convolution import Conv as Conv
from dlcore.nn.dropout import Dropout as Dropout
from dlcore.nn.initialisers import INITIALISERS as INITIALISERS
from dlcore.nn.initialisers import initialiser as initialiser
from dlcore.nn.maxout import Maxout as Maxout
from dlcore.nn.normalisation import BatchNorm as BatchNorm
from dlcore.nn.pooling import average_pool as average_pool
from dlcore.nn.pooling import max_pool as max_pool
from dlcore.nn.windows import output_size as output_size
from dlcore.nn.windows import pad_sizes as pad_sizes
