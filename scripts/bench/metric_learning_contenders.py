"""Training steps and triplet losses of embeddings, ours and PyTorch's, each as a step for
`contenders`.
"""

from typing import Any

import numpy as np
from contenders import Step

CORES = 2
SIDE, IDENTITIES, PICTURES = 32, 32, 4
NUMBERS = 64  # of an embedding
MARGIN, TEMPERATURE = 0.2, 0.1
_NEAR, _FAR = 0.5, 1.4  # of distance-weighted mining


def our_step(*, augment: str) -> Step:
    """A step of the default job, as a run takes it."""
    import jax

    from dlcore import runtime
    from dlcore.launch import jobs
    from dlcore.launch.task import make_state
    from dlcore.train import guard

    runtime.configure()
    kind = jobs.task_class("metric_learning")
    task = kind(kind.parts()[0](augment=augment))
    data = task.data()
    task.info = data.info
    state = jax.jit(lambda: make_state(task))()
    batch = next(data.train(0))
    step = runtime.compile_step(guard(task.step()), task.layout())

    def once() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].total.block_until_ready()

    return once


def their_step() -> Step:
    """The same by PyTorch, on pictures of the same size."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)
    blocks: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        blocks += [
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4 * 64, NUMBERS))
    tx = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    rng = np.random.default_rng(0)
    shape = (IDENTITIES * PICTURES, 1, SIDE, SIDE)
    images = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    labels = torch.arange(len(images)) // PICTURES

    def once() -> None:
        tx.zero_grad()
        x = nn.functional.normalize(net((images.float() - 30) / 75))
        scores = (x @ x.T - 1) / TEMPERATURE
        same = labels[:, None] == labels[None]
        positive = same & ~torch.eye(len(x), dtype=torch.bool)
        against = scores.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
        loss = nn.functional.softplus(against - scores)[positive].mean()
        loss.backward()
        tx.step()
        loss.item()

    return once


def embeddings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, 64) on the unit sphere, closer to those of their own identity, and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) // PICTURES
    x = rng.normal(size=(count // PICTURES, NUMBERS))[labels] + rng.normal(size=(count, NUMBERS))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), labels.astype(np.int32)


def our_mining(*, mining: str, count: int) -> Step:
    """The triplet loss and its gradient."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.losses import DISTANCES, batch_pairs, margin_penalty, miner, triplet
    from dlcore.types import Mean

    runtime.configure()
    x, labels = map(jnp.asarray, embeddings(count))
    weights = jnp.ones(count)
    mine = miner(mining, dimensions=NUMBERS)

    @jax.jit
    def function(x: jax.Array, key: jax.Array) -> Any:
        def loss(x: jax.Array) -> jax.Array:
            pairs = batch_pairs(x, labels, weights, distance=DISTANCES["l2"])
            return Mean.of(*triplet(pairs, margin_penalty(MARGIN), mine=mine, key=key)).compute()

        return jax.value_and_grad(loss)(x)

    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        jax.block_until_ready(function(x, jax.random.key(number)))

    return step


def their_mining(*, mining: str, count: int) -> Step:
    """The same by PyTorch: indices of triplets from the matrix of all distances, then the loss."""
    import torch

    torch.set_num_threads(CORES)
    data, labels = map(torch.from_numpy, embeddings(count))
    x = data.requires_grad_()

    def indices(d: Any, positive: Any, negative: Any) -> tuple[Any, Any, Any]:
        if mining == "all":
            return torch.where(positive[:, :, None] & negative[:, None])
        if mining == "hard":
            farthest = d.masked_fill(~positive, -torch.inf).argmax(1)
            nearest = d.masked_fill(~negative, torch.inf).argmin(1)
            return torch.arange(len(d)), farthest, nearest
        anchors, positives = torch.where(positive)
        own, others = d[anchors], negative[anchors]
        if mining == "semi_hard":
            farther = others & (own > d[anchors, positives][:, None])
            nearest = own.masked_fill(~farther, torch.inf).argmin(1)
            farthest = own.masked_fill(~others, -torch.inf).argmax(1)
            return anchors, positives, torch.where(farther.any(1), nearest, farthest)
        near = d.clamp(min=_NEAR, max=1.99)
        chances = (2 - NUMBERS) * near.log() - (NUMBERS - 3) / 2 * torch.log1p(-near.square() / 4)
        chances = chances.masked_fill(~(negative & (d < _FAR)), -torch.inf)
        weights = chances.softmax(1).nan_to_num(1.0) * negative
        drawn = torch.multinomial(weights[anchors], 1)[:, 0]
        return anchors, positives, drawn

    def step() -> None:
        x.grad = None
        d = torch.cdist(x, x)
        with torch.no_grad():
            same = labels[:, None] == labels[None]
            positive = same & ~torch.eye(count, dtype=torch.bool)
            anchors, positives, negatives = indices(d, positive, ~same)
        gaps = d[anchors, positives] - d[anchors, negatives]
        loss = torch.relu(gaps + MARGIN).mean()
        loss.backward()
        loss.item()

    return step
