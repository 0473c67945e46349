"""Benchmarks of pictures that are optimised: `.venv/bin/python scripts/bench/pictures.py [style]`.

They keep to two cores; the peer is PyTorch with torchvision's network. Sections:

    style    a step of style transfer, 256x256, SqueezeNet 1.1 of random weights and the default
             layers, by L-BFGS with a line search (ours by Optax, the peer's with strong Wolfe
             conditions, both with ten pairs) and by Adam; wanted: no slower than PyTorch
    texture  how many times 200 steps of L-BFGS bring down the style cost of a texture, from noise;
             wanted: 100
"""

import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from absl import flags
from contenders import Contender, Step, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "turns of each contender", 1)

CORES = 2
SIDE = 256
STEPS = 200
# Of torchvision's SqueezeNet 1.1, by number: conv1 with its rectifier, fire2, fire4, fire6, fire7.
STYLE, CONTENT = (1, 3, 6, 9, 10), 6
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pictures() -> tuple[np.ndarray, np.ndarray]:
    """Content and style, uint8 [256, 256, 3]."""
    from dlcore.data.pictures import PHOTOGRAPHS, photograph, resized

    content, style = (resized(photograph(name), SIDE, SIDE) for name in PHOTOGRAPHS)
    return content, style


def our_style(*, optimizer: str) -> Step:
    """A step of the job, as a run takes it."""
    import jax
    from dlcore.experiments.style_transfer import Config, StyleTransfer
    from PIL import Image

    from dlcore import runtime
    from dlcore.launch.task import make_state
    from dlcore.train import guard

    runtime.configure()
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}.png" for name in ("content", "style")]
        for picture, path in zip(_pictures(), paths, strict=True):
            Image.fromarray(picture).save(path)
        config = Config(optimizer=optimizer, content=paths[0], style=(paths[1],), size=SIDE)
        task = StyleTransfer(config)
        task.workdir = pathlib.Path(folder)
        task.data()
        state = task.adopt(jax.jit(lambda: make_state(task))())
    batch = next(task.batches(0))
    step = runtime.compile_step(guard(task.step()), task.layout())

    def once() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state.params)

    return once


def their_style(*, optimizer: str) -> Step:
    """The same by PyTorch."""
    import torch
    import torchvision

    torch.set_num_threads(CORES)
    features = torchvision.models.squeezenet1_1(weights=None).features.eval()
    features.requires_grad_(False)
    mean, deviation = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, DEVIATION))

    def activations(picture: Any) -> dict[int, Any]:
        x, found = (picture - mean) / deviation, {}
        for number, module in enumerate(features[: max(STYLE) + 1]):
            found[number] = x = module(x)
        return found

    def gram(x: Any) -> Any:
        flat = x.reshape(x.shape[1], -1)
        return flat @ flat.T / flat.shape[1]

    content, style = (
        torch.from_numpy(np.float32(picture / 255).transpose(2, 0, 1)[None].copy())
        for picture in _pictures()
    )
    wanted = activations(content)[CONTENT]
    grams = {number: gram(activations(style)[number]) for number in STYLE}
    picture = content.clone().requires_grad_()
    if optimizer == "lbfgs":
        tx: Any = torch.optim.LBFGS(
            [picture], max_iter=1, history_size=10, line_search_fn="strong_wolfe",
            tolerance_grad=0, tolerance_change=0,
        )  # fmt: skip
    else:
        tx = torch.optim.Adam([picture], 0.02)

    def closure() -> Any:
        tx.zero_grad()
        found = activations(picture)
        cost = ((found[CONTENT] - wanted) ** 2).sum() / (4 * wanted.numel())
        for number, target in grams.items():
            difference = gram(found[number]) - target
            cost = cost + 100 / len(STYLE) * (difference**2).sum() / (4 * len(target) ** 2)
        cost.backward()
        return cost

    return lambda: tx.step(closure)


def style() -> None:
    """Milliseconds of a step, and PyTorch's time as a multiple of ours."""
    rows = [("optimizer", "ours, ms", "PyTorch, ms", "ratio (wanted 1)")]
    for optimizer in ("lbfgs", "adam"):
        contenders = {
            "ours": Contender(our_style, optimizer=optimizer),
            "PyTorch": Contender(their_style, optimizer=optimizer),
        }
        times = take_turns(contenders, rounds=FLAGS.rounds, seconds=10)
        ours, theirs = (f"{1000 * float(np.median(times[name])):.1f}" for name in contenders)
        rows.append((optimizer, ours, theirs, f"{ratio(times, 'PyTorch'):.2f}"))
    table(rows)


def texture() -> None:
    """The style cost of noise and after 200 steps of L-BFGS, the default network and style."""
    from dlcore.experiments.style_transfer import Config, StyleTransfer

    from dlcore import launch

    with tempfile.TemporaryDirectory() as folder:
        config = Config(texture=True, size=SIDE, steps=STEPS, log_every=1, workdir=folder)
        outcome = launch.run(StyleTransfer(config))
        lines = (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()
    # The loss of a step is that of the picture before it.
    first = json.loads(lines[0])["loss"] / config.style_weight
    last = outcome.metrics["style_cost"]
    rows = [("noise", "200 steps", "ratio (wanted 100)")]
    rows.append((f"{first:.4g}", f"{last:.4g}", f"{first / last:.0f}"))
    table(rows)


if __name__ == "__main__":
    run(style, texture)
