"""JAX's own initialisers by name.

Each keeps the variance of a signal about the same through many layers, on its own assumption:
- Xavier (Glorot & Bengio 2010), linear units, forwards and backwards: variance 2 / (in + out);
- He (He et al. 2015), ReLU: variance 2 / in;
- LeCun (LeCun et al. 1998, Efficient BackProp), linear units, forwards: variance 1 / in;
- orthogonal (Saxe et al. 2013), linear units: every length is kept exactly.
"""

import jax
from flax.typing import Initializer

from dlcore import errors

# The initialisers of kernels, by name.
INITIALISERS: dict[str, Initializer] = {
    "xavier_uniform": jax.nn.initializers.xavier_uniform(),
    "xavier_normal": jax.nn.initializers.xavier_normal(),
    "he_uniform": jax.nn.initializers.he_uniform(),
    "he_normal": jax.nn.initializers.he_normal(),
    "lecun_uniform": jax.nn.initializers.lecun_uniform(),
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "orthogonal": jax.nn.initializers.orthogonal(),
}


def initialiser(name: str) -> Initializer:
    """Returns the named initialiser, a function (key, shape, dtype) -> array.

    Raises:
        InputError: for a name that is not in `INITIALISERS`.

    >>> initialiser("orthogonal")(jax.random.key(0), (3, 5)).shape
    (3, 5)
    """
    return errors.pick("initialiser", name, INITIALISERS)
