"""A model's variables and activations by tracing alone: nothing is computed, at any size."""

import jax
import jax.numpy as jnp


def trace(model, size, channels=3, train=False):
    """(variables, shapes of one image's activations in their order) at size x size pixels."""
    order = []

    def initialise(images):
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
        (_, a), variables = model.init_with_output(rngs, images, train=train)
        order.extend(a)  # here, because what leaves a traced function is sorted by name
        return a, variables

    a, variables = jax.eval_shape(initialise, jnp.ones((1, size, size, channels)))
    return variables, {name: a[name].shape[1:] for name in order}


def size_of(tree):
    """The number of values in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
