"""A variational autoencoder, ours and PyTorch's, as a step for `contenders` and as a whole run.

Two hidden layers of 200 rectifiers on each side, 50 latent units, bits of 784 pixels, Adam.
"""

import math
from typing import Any

import numpy as np
from contenders import Step

PIXELS, HIDDEN, LATENT, BATCH = 784, 200, 50, 100
RATE = 1e-3
_ROUND = 50  # samples of the log-likelihood at once


def bits_of(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the static bits of a file of arrays to train on and to test, float32 [N, 784]."""
    from dlcore.data import load_images
    from dlcore.data.bits import static_bits

    data = load_images(data_path=path)
    train, test = static_bits(data.train, 0), static_bits(data.test, 1)
    found = [
        part.arrays["image"].reshape(len(part), -1) / np.float32(255) for part in (train, test)
    ]
    return found[0], found[1]


def our_step() -> Step:
    """A step on one batch, as `fit` compiles it."""
    import jax
    import jax.numpy as jnp

    from dlcore import optim, runtime
    from dlcore.losses import evidence_bound
    from dlcore.models.autoencoder import make_variational
    from dlcore.train import gradient_step
    from dlcore.train.health import guard
    from dlcore.types import Aux, Mean, TrainState

    runtime.configure()
    net = make_variational("dense", (28, 28, 1), LATENT, (HIDDEN, HIDDEN))

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[Mean, Aux]:
        terms = net.apply({"params": params}, batch["image"], rng, method="terms")
        bound = evidence_bound(terms.log_likelihood[0], terms.kl.sum(-1))
        return Mean.of(-bound, batch["weight"]), Aux(model_state, {})

    tx = optim.optimizer("adam", RATE)
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    state = TrainState.create(variables, tx, jax.random.key(1))
    step = runtime.compile_step(guard(gradient_step(loss_fn, tx)), runtime.layout("jit"))
    image = (np.random.default_rng(0).random((BATCH, 28, 28, 1)) < 0.3).astype(np.float32)
    batch = {"image": image, "weight": np.ones(BATCH, np.float32)}

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].total.block_until_ready()

    return run


def _network() -> Any:
    import torch
    from torch import nn

    def layers(*widths: int) -> Any:
        parts: list[Any] = []
        for before, after in zip(widths, widths[1:], strict=False):
            linear = nn.Linear(before, after)
            # As ours: normal, cut at two deviations, of the variance 1 / inputs.
            deviation = before**-0.5 / 0.87962566103423978
            nn.init.trunc_normal_(linear.weight, 0, deviation, -2 * deviation, 2 * deviation)
            nn.init.zeros_(linear.bias)
            parts += [linear, nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = layers(PIXELS, HIDDEN, HIDDEN, 2 * LATENT)
            self.decoder = layers(LATENT, HIDDEN, HIDDEN, PIXELS)

        def terms(self, x: Any, samples: int = 1) -> tuple[Any, Any, Any]:
            mean, log_variance = self.encoder(x).chunk(2, -1)
            noise = torch.randn(samples, *mean.shape)
            z = mean + (0.5 * log_variance).exp() * noise
            logits = self.decoder(z)
            wide = x.expand(samples, *x.shape)
            log_p = -nn.functional.binary_cross_entropy_with_logits(
                logits, wide, reduction="none"
            ).sum(-1)
            ratio = (0.5 * (noise**2 + log_variance - z**2)).sum(-1)
            kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
            return log_p, ratio, kl

    return Network()


def their_step() -> Step:
    """The same in PyTorch's eager mode."""
    import torch

    net = _network()
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    x = torch.tensor(np.random.default_rng(0).random((BATCH, PIXELS)) < 0.3).float()

    def run() -> None:
        log_p, _, kl = net.terms(x)
        loss = (kl - log_p[0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return run


def their_run(path: str, seed: int, steps: int, samples: int) -> tuple[float, float]:
    """Trains PyTorch's network on the bits of a file; returns test bound and log-likelihood.

    The rate falls to 0 by half a cosine, and batches go through permutations of the data, as ours.
    """
    import torch

    train, test = (torch.tensor(part) for part in bits_of(path))
    torch.manual_seed(seed)
    net = _network()
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(train))])
        rows, order = order[:BATCH], order[BATCH:]
        log_p, _, kl = net.terms(train[rows])
        optimizer.zero_grad()
        (kl - log_p[0]).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        log_p, _, kl = net.terms(test)
        bound = float((log_p[0] - kl).mean())
        total = torch.full((len(test),), -math.inf, dtype=torch.float64)
        for start in range(0, samples, _ROUND):
            log_p, ratio, _ = net.terms(test, min(_ROUND, samples - start))
            total = torch.logaddexp(total, torch.logsumexp((log_p + ratio).double(), 0))
    return bound, float((total - math.log(samples)).mean())
