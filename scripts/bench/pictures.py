"""Benchmarks of pictures and styles: `.venv/bin/python scripts/bench/pictures.py [style] [fast]`.

They keep to two cores; the peer is PyTorch with torchvision's network. Sections:

    style    a step of style transfer, 256x256, SqueezeNet 1.1 of random weights and the default
             layers, by L-BFGS with a line search (ours by Optax, the peer's with strong Wolfe
             conditions, both with ten pairs) and by Adam; wanted: no slower than PyTorch
    fast     a training step of fast style transfer, batches of 4 crops of 256x256 and the paper's
             network (width 1), and one styled picture of 256x256; wanted: no slower than PyTorch
    texture  how many times 200 steps of L-BFGS bring down the style cost of a texture, from noise;
             wanted: 100
"""

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags
from contenders import Contender, Step, job_step, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "turns of each contender", 1)

CORES = 2
SIDE = 256
STEPS = 200
BATCH = 4
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
        config = Config(
            optimizer=optimizer, content=paths[0], style=(paths[1],), size=SIDE,
            average_pool=False, variation_weight=0.0,
        )  # fmt: skip
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


def _their_network() -> tuple[Callable[[Any], dict[int, Any]], Callable[[Any], Any]]:
    """Returns functions to PyTorch's activations by number, and from these to style matrices."""
    import torch
    import torchvision

    torch.set_num_threads(CORES)
    features = torchvision.models.squeezenet1_1(weights=None).features.eval()
    features.requires_grad_(False)
    mean, deviation = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, DEVIATION))

    def activations(pictures: Any) -> dict[int, Any]:
        x, found = (pictures - mean) / deviation, {}
        for number, module in enumerate(features[: max(STYLE) + 1]):
            found[number] = x = module(x)
        return found

    def grams(x: Any) -> Any:
        flat = x.flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]

    return activations, grams


def _their_pictures() -> list[Any]:
    """Returns content and style as PyTorch takes them, float32 [1, 3, 256, 256] of 0 to 1."""
    import torch

    arrays = (np.float32(picture / 255).transpose(2, 0, 1)[None].copy() for picture in _pictures())
    return [torch.from_numpy(array) for array in arrays]


def their_style(*, optimizer: str) -> Step:
    """The same by PyTorch."""
    import torch

    activations, gram = _their_network()
    content, style = _their_pictures()
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
            cost = cost + 100 / len(STYLE) * (difference**2).sum() / (4 * target.shape[-1] ** 2)
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


def our_fast(*, train: bool) -> Step:
    """A step of the job, or one picture that a trained run styles."""
    import jax
    from dlcore.experiments.fast_style_transfer import Config, FastStyleTransfer

    from dlcore import runtime
    from dlcore.launch.task import make_state

    runtime.configure()
    task = FastStyleTransfer(Config(size=SIDE, width=1.0, batch_size=BATCH, average_pool=False))
    with tempfile.TemporaryDirectory() as folder:
        task.workdir = pathlib.Path(folder)
        data = task.data()
        state = task.adopt(jax.jit(lambda: make_state(task))())
    if not train:
        picture = _pictures()[0]
        variables = {"params": state.params}
        return lambda: task.predict(variables, [picture])[0]
    return job_step(task, state, next(data.train(0)))


def their_fast(*, train: bool) -> Step:
    """The same by PyTorch."""
    import torch
    from torch import nn

    activations, gram = _their_network()

    def unit(into: int, out: int, window: int, stride: int = 1) -> list[nn.Module]:
        pad = window // 2
        conv = nn.Conv2d(into, out, window, stride, pad, padding_mode="reflect", bias=False)
        return [conv, nn.InstanceNorm2d(out, affine=True)]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(*unit(128, 128, 3), nn.ReLU(), *unit(128, 128, 3))

        def forward(self, x: Any) -> Any:
            return x + self.branch(x)

    layers = [*unit(3, 32, 9), nn.ReLU(), *unit(32, 64, 3, 2), nn.ReLU(), *unit(64, 128, 3, 2)]
    layers += [nn.ReLU(), *[Block() for _ in range(5)]]
    layers += [nn.Upsample(scale_factor=2), *unit(128, 64, 3), nn.ReLU()]
    layers += [nn.Upsample(scale_factor=2), *unit(64, 32, 3), nn.ReLU()]
    layers += [nn.Conv2d(32, 3, 9, 1, 4, padding_mode="reflect"), nn.Sigmoid()]
    network = nn.Sequential(*layers)
    content, style = _their_pictures()
    if not train:

        def styled() -> None:
            with torch.inference_mode():
                network(content)

        return styled

    grams = {number: gram(activations(style)[number]) for number in STYLE}
    batch = content.repeat(BATCH, 1, 1, 1)
    tx = torch.optim.Adam(network.parameters(), 1e-3)

    def once() -> None:
        tx.zero_grad()
        with torch.no_grad():
            wanted = activations(batch)[CONTENT]
        found = activations(network(batch))
        cost = ((found[CONTENT] - wanted) ** 2).sum() / (4 * wanted[0].numel())
        for number, target in grams.items():
            difference = ((gram(found[number]) - target) ** 2).sum()
            cost = cost + 100 / len(STYLE) * difference / (4 * target.shape[-1] ** 2)
        (cost / BATCH).backward()
        tx.step()

    return once


def fast() -> None:
    """Milliseconds of a step and of a styled picture, and PyTorch's time as a multiple of ours."""
    rows = [("what", "ours, ms", "PyTorch, ms", "ratio (wanted 1)")]
    for what, train in ((f"step of {BATCH} crops", True), ("one picture", False)):
        contenders = {
            "ours": Contender(our_fast, train=train),
            "PyTorch": Contender(their_fast, train=train),
        }
        times = take_turns(contenders, rounds=FLAGS.rounds, seconds=10)
        ours, theirs = (f"{1000 * float(np.median(times[name])):.1f}" for name in contenders)
        rows.append((what, ours, theirs, f"{ratio(times, 'PyTorch'):.2f}"))
    table(rows)


def texture() -> None:
    """The style cost of noise and after 200 steps of L-BFGS, the default network and style."""
    from dlcore.experiments.style_transfer import Config, StyleTransfer

    from dlcore import launch

    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            texture=True, size=SIDE, steps=STEPS, log_every=1, workdir=folder, variation_weight=0.0
        )
        outcome = launch.run(StyleTransfer(config))
        lines = (pathlib.Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    # The loss of a step is that of the picture before it.
    first = json.loads(lines[0])["loss"] / config.style_weight
    last = outcome.metrics["style_cost"]
    rows = [("noise", "200 steps", "ratio (wanted 100)")]
    rows.append((f"{first:.4g}", f"{last:.4g}", f"{first / last:.0f}"))
    table(rows)


if __name__ == "__main__":
    run(style, fast, texture)
