"""Training steps of recurrent language models: ours, of Flax's own layers, and of PyTorch's."""

import functools
import os

import numpy as np
from contenders import Step

VOCABULARY, BATCH, WINDOW, CLIP = 10_000, 20, 35, 5.0


def words(shape: tuple[int, int], vocabulary: int = VOCABULARY) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, drawn with the frequencies of words: 1 / (rank + 10)."""
    random = np.random.default_rng(0)
    shares = 1 / (np.arange(vocabulary) + 10)
    drawn = random.choice(vocabulary, (2, *shape), p=shares / shares.sum())
    return drawn[0].astype(np.int32), drawn[1].astype(np.int32)


def ours(cell: str, width: int, *, window: int = WINDOW, vocabulary: int = VOCABULARY,
         softmax: str = "full", samples: int = 1024) -> Step:  # fmt: skip
    """A training step of the language model of the job language_model."""
    from our_step import training_step

    from dlcore import optim, runtime
    from dlcore.losses.output import output_layer
    from dlcore.models.text import LanguageModel
    from dlcore.nn import recurrent

    runtime.configure()
    inputs, targets = words((BATCH, window), vocabulary)
    counts = 1e6 / (np.arange(vocabulary) + 10)
    body = recurrent.RecurrentStack(tuple(recurrent.cell(cell, width) for _ in range(2)))
    model = LanguageModel(output_layer(softmax, counts, samples=samples), body, width)

    tx = optim.optimizer("sgd", 1.0, clip=optim.clip_by_global_norm(CLIP))
    return training_step(model, tx, inputs, targets)


def flax_rnn(cell: str, width: int) -> Step:
    """The same model of Flax's own layers and Optax, compiled, as its users write it."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    make = {"lstm": nn.OptimizedLSTMCell, "gru_after": nn.GRUCell}[cell]

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens, carries):
            x, new = nn.Embed(VOCABULARY, width)(tokens), []
            for carry in carries:
                carry, x = nn.RNN(make(width), return_carry=True)(x, initial_carry=carry)
                new.append(carry)
            return new, nn.Dense(VOCABULARY)(x)

    inputs, targets = words((BATCH, WINDOW))
    zeros = jnp.zeros((BATCH, width))
    carries = [(zeros, zeros) if cell == "lstm" else zeros for _ in range(2)]
    params = jax.jit(Model().init)(jax.random.key(0), inputs, carries)
    tx = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(1.0))

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, opt_state, carries):
        def loss(params):
            new, logits = Model().apply(params, inputs, carries)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return losses.mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, new, value

    # Buffers that are given away must not be one and the same.
    state = [params, tx.init(params), jax.tree.map(jnp.copy, carries)]

    def run() -> None:
        *state[:], value = step(*state)
        value.block_until_ready()

    return run


def pytorch(cell: str, width: int, *, compiled: bool) -> Step:
    """The same model of PyTorch's own layers."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, width)
            layer = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
            self.recurrent = layer(width, width, num_layers=2)
            self.output = torch.nn.Linear(width, VOCABULARY)

        def forward(self, tokens, carry):
            y, carry = self.recurrent(self.embedding(tokens), carry)
            return self.output(y), carry

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs, targets = (torch.from_numpy(part.T.astype(np.int64).copy()) for part in
                       words((BATCH, WINDOW)))  # fmt: skip
    zeros = torch.zeros(2, BATCH, width)
    carry = (zeros, zeros.clone()) if cell == "lstm" else zeros
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        nonlocal carry
        optimizer.zero_grad()
        logits, new = forward(inputs, carry)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        carry = tuple(part.detach() for part in new) if cell == "lstm" else new.detach()

    return run
