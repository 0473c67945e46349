"""The contenders of the benchmarks of attention: steps of training, decoding and attention.

Shapes: B batch, T time, H heads, C channels, D features of a head, V vocabulary, W width of a beam.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from contenders import Step

# nanoGPT's character model for a CPU, and its optimizer.
LAYERS, HEADS, CHANNELS, CONTEXT, BATCH, VOCABULARY = 4, 4, 128, 64, 12, 65
RATE, BETA_2, DECAY, CLIP = 1e-3, 0.99, 0.1, 1.0
DECODED = 256  # tokens that the sections cache and attention decode
_PIECE = 32  # lengths of which decoding without a cache compiles a program
TRANSLATED, WORDS = (32, 32), 1000  # sentences and their tokens, and different ones


def _batch() -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(0).integers(0, VOCABULARY, (2, BATCH, CONTEXT))
    return drawn[0].astype(np.int32), drawn[1].astype(np.int32)


def _language_model(config: dict[str, Any]) -> Any:
    from dlcore.losses.output import output_layer
    from dlcore.models.text import LanguageModel
    from dlcore.nn.transformer import Transformer, TransformerConfig

    output = output_layer("full", np.ones(VOCABULARY))
    body = Transformer(TransformerConfig(**config))
    return LanguageModel(output, body, body.config.features, tie=True)


def ours() -> Step:
    """A training step of the language model of the job language_model."""
    from our_step import training_step

    from dlcore import optim, runtime

    runtime.configure()
    inputs, targets = _batch()
    model = _language_model(
        {"features": CHANNELS, "layers": LAYERS, "heads": HEADS, "norm": "layer",
         "activation": "gelu", "position": "learned", "context": CONTEXT, "epsilon": 1e-5}
    )  # fmt: skip

    clip = optim.clip_by_global_norm(CLIP)
    tx = optim.optimizer("adamw", RATE, b2=BETA_2, weight_decay=DECAY, clip=clip)
    return training_step(model, tx, inputs, targets)


def _nanogpt() -> tuple[Any, Any]:
    """nanoGPT's model for a CPU in PyTorch, without biases, initialised as its authors have it, and
    its optimizer."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm = nn.LayerNorm(CHANNELS, bias=False)
            self.query_key_value = nn.Linear(CHANNELS, 3 * CHANNELS, bias=False)
            self.output = nn.Linear(CHANNELS, CHANNELS, bias=False)
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(CHANNELS, bias=False),
                nn.Linear(CHANNELS, 4 * CHANNELS, bias=False),
                nn.GELU(approximate="tanh"),
                nn.Linear(4 * CHANNELS, CHANNELS, bias=False),
            )

        def forward(self, x):
            split = self.query_key_value(self.attention_norm(x)).split(CHANNELS, dim=2)
            heads = (part.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for part in split)
            y = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.output(y.transpose(1, 2).reshape(x.shape))
            return x + self.feed_forward(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, CHANNELS)
            self.positions = nn.Embedding(CONTEXT, CHANNELS)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm = nn.LayerNorm(CHANNELS, bias=False)

        def forward(self, tokens):
            x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
            return functional.linear(self.norm(self.blocks(x)), self.embedding.weight)

    model = Model()
    for name, leaf in model.named_parameters():
        if leaf.dim() >= 2:
            into_stream = name.endswith(("output.weight", "feed_forward.3.weight"))
            nn.init.normal_(leaf, std=0.02 / ((2 * LAYERS) ** 0.5 if into_stream else 1))
    matrices = [leaf for leaf in model.parameters() if leaf.dim() >= 2]
    vectors = [leaf for leaf in model.parameters() if leaf.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=RATE, betas=(0.9, BETA_2), fused=True,
    )  # fmt: skip
    return model, optimizer


def _nanogpt_step(model: Any, optimizer: Any, inputs: Any, targets: Any) -> None:
    from torch import nn
    from torch.nn import functional

    loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss.item()


def pytorch() -> Step:
    """The same model in PyTorch, eager, as nanoGPT has it: no bias, of the output layer either."""
    import torch

    model, optimizer = _nanogpt()
    inputs, targets = (torch.from_numpy(part.astype(np.int64)) for part in _batch())
    return lambda: _nanogpt_step(model, optimizer, inputs, targets)


def train_nanogpt(text: str, steps: int = 2000, warmup: int = 100) -> float:
    """Trains nanoGPT's model as its authors do on a CPU, with a cosine to a tenth of the rate.

    Args:
        text: the file; its last tenth tests.
        steps: of 12 windows of 64 characters.
        warmup: of these, those in which the rate grows.

    Returns:
        The mean loss of a character of the test part, in nats.
    """
    import torch
    from torch.nn import functional

    model, optimizer = _nanogpt()
    characters = pathlib.Path(text).read_text(encoding="utf-8")
    numbers = {character: number for number, character in enumerate(sorted(set(characters)))}
    data = torch.tensor([numbers[character] for character in characters])
    cut = int(0.9 * len(data))
    train, test = data[:cut], data[cut:]
    for step in range(steps):
        decay = (step - warmup) / (steps - warmup)
        share = step / warmup if step < warmup else 0.55 + 0.45 * np.cos(np.pi * decay)
        for group in optimizer.param_groups:
            group["lr"] = RATE * share
        windows = torch.randint(len(train) - CONTEXT, (BATCH, 1)) + torch.arange(CONTEXT + 1)
        rows = train[windows]
        _nanogpt_step(model, optimizer, rows[:, :-1], rows[:, 1:])
    count = (len(test) - 1) // CONTEXT
    inputs, targets = (test[o : o + count * CONTEXT].view(count, CONTEXT) for o in (0, 1))
    with torch.no_grad():
        losses = [
            functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
            for x, y in zip(inputs.split(256), targets.split(256), strict=True)
        ]
    return sum(losses) / targets.numel()


def _awake(variables: Any) -> Any:
    """Variables of which none is 0, as the branches of a fresh transformer are."""
    import jax

    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf if leaf.any() else random.normal(0, 0.05, leaf.shape).astype(np.float32),
        variables,
    )


def decoder(position: str) -> tuple[Any, Any]:
    """A language model that knows positions in that way, and its variables."""
    import jax
    import jax.numpy as jnp

    model = _language_model(
        {"features": CHANNELS, "layers": LAYERS, "heads": HEADS, "position": position,
         "context": DECODED if position == "learned" else None}
    )  # fmt: skip
    return model, _awake(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))


def decode(position: str, *, cached: bool) -> Step:
    """Greedy decoding of one text, with a cache of keys and values or by reading all again at each
    step, and little more than all."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.decode import greedy

    runtime.configure()
    model, variables = decoder(position)

    def with_cache(variables: Any) -> jax.Array:
        return greedy(
            lambda *step: model.apply(variables, *step, method="next_token"),
            model.initial_carry(1, DECODED), jnp.zeros(1, jnp.int32),
            end=1, steps=DECODED, min_length=DECODED,
        )[0]  # fmt: skip

    def without(variables: Any) -> jax.Array:
        tokens = jnp.zeros((1, DECODED + 1), jnp.int32)
        for read in range(_PIECE, DECODED + 1, _PIECE):

            def step(tokens: jax.Array, t: jax.Array, read: int = read) -> tuple[jax.Array, None]:
                _, readout, _ = model.apply(variables, tokens[:, :read])
                last = jax.lax.dynamic_index_in_dim(readout.hidden, t, 1, keepdims=False)
                log_probs = model.output.log_probs(readout._replace(hidden=last))
                return tokens.at[:, t + 1].set(log_probs.argmax(-1)), None

            tokens, _ = jax.lax.scan(step, tokens, jnp.arange(read - _PIECE, read))
        return tokens

    return _compiled(with_cache if cached else without, variables)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Step:
    import jax

    call = jax.jit(function)
    return lambda: jax.block_until_ready(call(*arguments))


def attend(length: int, chunk: int | None, *, megabytes: int | None = None) -> Step:
    """Causal attention, B = 1, H = 4, D = 64, and its gradients.

    Args:
        length: T.
        chunk: of the chunked form; None for the full one.
        megabytes: of address space that the process may have; None for all there are.
    """
    import resource

    import jax

    from dlcore import runtime
    from dlcore.nn.attention import attention

    runtime.configure()
    query, key, value = jax.random.normal(jax.random.key(0), (3, 1, length, 4, 64))
    if megabytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    def total(*heads: jax.Array) -> jax.Array:
        return (attention(*heads, causal=True, chunk=chunk) ** 2).sum()

    return _compiled(jax.value_and_grad(total, argnums=(0, 1, 2)), query, key, value)


def search(width: int, *, searched: bool) -> Step:
    """Translation of a batch: beam search, or only the steps of its model, with as many rows."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.decode import beam_search
    from dlcore.models.text import TransformerTranslator
    from dlcore.nn.transformer import TransformerConfig

    runtime.configure()
    batch, steps = TRANSLATED
    model = TransformerTranslator(TransformerConfig(128, layers=2, heads=4), WORDS, WORDS)
    source = jnp.asarray(np.random.default_rng(0).integers(2, WORDS, TRANSLATED, np.int32))
    lengths, first = jnp.full(batch, steps), jnp.ones(batch, jnp.int32)
    variables = _awake(jax.jit(model.init)(jax.random.key(0), source, lengths, source))

    def translate(variables: Any) -> Any:
        memory = model.apply(variables, source, lengths, method="encode")
        carry = model.apply(variables, memory, steps, method="initial_carry")

        def next_token(carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
            return model.apply(variables, carry, token, memory, method="next_token")

        if searched:
            return beam_search(
                next_token, carry, first, end=1, width=width, steps=steps, min_length=steps
            )
        carry, token = jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), (carry, first))

        def step(state: tuple[Any, jax.Array], _: None) -> tuple[tuple[Any, jax.Array], None]:
            carry, log_probs = next_token(*state)
            return (carry, log_probs.argmax(-1).astype(jnp.int32)), None

        return jax.lax.scan(step, (carry, token), None, steps)[0][1]

    return _compiled(translate, variables)
