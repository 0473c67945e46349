"""Adversarial and ladder networks, ours and PyTorch's, as steps for `contenders`."""

from typing import Any

import numpy as np
from contenders import Step, job_step

CORES = 2
SIDE = 28
WIDTHS = (SIDE * SIDE, 1000, 500, 250, 250, 250, 10)
COSTS = (1000, 10, 0.1, 0.1, 0.1, 0.1, 0.1)


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)


def _our_step(task: Any, info: Any, batch: dict[str, np.ndarray]) -> Step:
    """A step of a job on one batch, as a run takes it."""
    import jax

    from dlcore import runtime
    from dlcore.launch.task import make_state

    runtime.configure()
    task.info = info
    state = jax.jit(lambda: make_state(task))()
    return job_step(task, state, batch)


def our_gan(*, batch: int) -> Step:
    from dlcore.experiments.gan import GAN, Config, Info

    labels = np.arange(batch, dtype=np.int32) % 10
    rows = {"image": _images(batch), "label": labels, "weight": np.ones(batch, np.float32)}
    info = Info((SIDE, SIDE, 1), tuple("0123456789"))
    return _our_step(GAN(Config(batch_size=batch)), info, rows)


def their_gan(*, batch: int) -> Step:
    """The same two networks and steps by PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)
    generator = nn.Sequential(
        nn.Linear(64, 7 * 7 * 64, bias=False),
        nn.Unflatten(1, (64, 7, 7)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1),
    )
    optimizers = [
        torch.optim.Adam(net.parameters(), 5e-4, betas=(0.5, 0.999))
        for net in (discriminator, generator)
    ]
    pixels = torch.from_numpy(_images(batch)).permute(0, 3, 1, 2).contiguous()
    softplus = nn.functional.softplus

    def once() -> None:
        real = pixels.float() / 127.5 - 1
        with torch.no_grad():
            drawn = generator(torch.randn(batch, 64))
        optimizers[0].zero_grad()
        loss = (softplus(-discriminator(real)) + softplus(discriminator(drawn))).mean()
        loss.backward()
        optimizers[0].step()
        discriminator.requires_grad_(False)
        optimizers[1].zero_grad()
        softplus(-discriminator(generator(torch.randn(batch, 64)))).mean().backward()
        optimizers[1].step()
        discriminator.requires_grad_(True)

    return once


def our_ladder(*, batch: int) -> Step:
    from dlcore.experiments.semi_supervised import Config, Info, SemiSupervised

    rows = {
        "labelled": _images(batch),
        "label": np.arange(batch, dtype=np.int32) % 10,
        "image": _images(2 * batch)[batch:],
        "weight": np.ones(batch, np.float32),
        "factor": np.ones(batch, np.float32),
    }
    info = Info(tuple("0123456789"), (SIDE, SIDE, 1))
    return _our_step(SemiSupervised(Config(batch_size=batch)), info, rows)


def their_ladder(*, batch: int) -> Step:
    """The same by PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)
    top = len(WIDTHS) - 1

    def made(*shape: int, value: float | None = None) -> Any:
        if value is not None:
            return nn.Parameter(torch.full(shape, value))
        return nn.Parameter(torch.randn(*shape) / shape[0] ** 0.5)

    up = [made(*pair) for pair in zip(WIDTHS, WIDTHS[1:], strict=False)]
    down = [made(*pair) for pair in zip(WIDTHS[1:], WIDTHS, strict=False)]
    bias = [made(width, value=0.0) for width in WIDTHS[1:]]
    scale = made(WIDTHS[-1], value=1.0)
    start = (0, 1, 0, 0, 0, 0, 1, 0, 0, 1)
    tables = [[made(width, value=float(a)) for a in start] for width in WIDTHS]
    running = [[torch.zeros(width), torch.ones(width)] for width in WIDTHS[1:]]
    everything = [*up, *down, *bias, scale, *(a for one in tables for a in one)]
    optimizer = torch.optim.Adam(everything, 2e-3)
    few, many = (torch.from_numpy(_images(batch).reshape(batch, -1)) for _ in range(2))
    labels = torch.arange(batch) % 10

    def whitened(x: Any) -> Any:
        mean, variance = x.mean(0), x.var(0, correction=0)
        deviation = (variance + 1e-5).sqrt()
        return (x - mean) / deviation, mean, deviation

    def encode(x: Any, noise: float) -> Any:
        h = z = x + noise * torch.randn_like(x) if noise else x
        layers, moments = [z], [(0.0, 1.0)]
        for number in range(top):
            z, mean, deviation = whitened(h @ up[number])
            if noise:
                z = z + noise * torch.randn_like(z)
            else:
                for old, new in zip(running[number], (mean, deviation**2), strict=True):
                    old.mul_(0.9).add_(0.1 * new.detach())
            y = z + bias[number]
            h = torch.relu(y) if number < top - 1 else scale * y
            layers.append(z)
            moments.append((mean, deviation))
        return layers, moments, h

    def once() -> None:
        x, images = few.float() / 255, many.float() / 255
        _, _, logits = encode(x, 0.3)
        clean, moments, _ = encode(images, 0.0)
        noisy, _, above = encode(images, 0.3)
        loss = nn.functional.cross_entropy(logits, labels)
        estimate = above.softmax(1)
        for layer in range(top, -1, -1):
            u, _, _ = whitened(estimate if layer == top else estimate @ down[layer])
            a = tables[layer]
            mu = a[0] * torch.sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
            v = a[5] * torch.sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
            estimate = (noisy[layer] - mu) * v + mu
            mean, deviation = moments[layer]
            again = (estimate - mean) / deviation
            loss = loss + COSTS[layer] * ((clean[layer] - again) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return once
