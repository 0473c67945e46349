"""The multi-layer perceptron. Shapes: B batch, K classes, `...` the axes of one example."""

import flax.linen as nn
import jax

from dlcore.nn import Dense, Dropout, activation, initialiser
from dlcore.types import Activations


class MLP(nn.Module):
    """Dense hidden layers, each with an activation and dropout, and a linear output.

    Attributes:
        num_classes: K.
        features: the width of each hidden layer.
        activation: the name of the activation of the hidden layers.
        dropout: the share of hidden values that is dropped in training.
        initialiser: the name of the initialiser of the hidden layers' kernels.
    """

    num_classes: int
    features: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    dropout: float = 0.0
    initialiser: str = "lecun_normal"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, ...) to logits (B, K) and the activations by name.

        Raises:
            InputError: for an unknown activation or initialiser, or an invalid dropout rate.
        """
        draw = initialiser(self.initialiser)
        activations = {}
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            activations[f"dense_{i}"] = x = Dense(width, kernel_init=draw, name=f"dense_{i}")(x)
            act = activation(self.activation, layer=f"activation_{i}")
            activations[f"activation_{i}"] = x = act(x)
            x = Dropout(self.dropout)(x, train)
        activations["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, activations
