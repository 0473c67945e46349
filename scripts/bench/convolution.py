"""Benchmarks of convolutions: `.venv/bin/python scripts/bench/convolution.py [steps ...]`.

They keep to two cores; the peer is PyTorch, whose images lie channels-last. Contenders take turns,
and ratios are medians over neighbouring ones. Steps by oneDNN need the extra `onednn`. Sections:

    operations  forward, gradient by the input and gradient by the kernel of single convolutions
    steps       whole training steps: a net like LeNet's (3x3 convolutions of 32 and 64 filters,
                pools and 256 dense units, batch 128 of 32x32x3) and ResNet-20 (batch 64), SGD with
                momentum, by XLA's convolutions and by oneDNN's; wanted: 0.8 and 0.5 of PyTorch's
                speed
    xla_flags   the same steps of ours under each flag of XLA that may change convolutions, by
                the jaxlib of the environment
    compilation seconds to compile the gradient of ResNet-20 and of ResNet-110; wanted: < 1.5 times
"""

import os
import time
from typing import Any

import numpy as np
from absl import flags
from contenders import Contender, Step, race, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "turns of each contender", 1)

CORES = 2
# (batch, side, channels, filters) of 3x3 convolutions of ResNet-20 and of the net like LeNet's.
SHAPES = (
    (64, 32, 3, 16), (64, 32, 16, 16), (64, 16, 32, 32), (64, 8, 64, 64), (128, 32, 3, 32),
    (128, 16, 32, 64),
)  # fmt: skip
OPERATIONS = ("forward", "input gradient", "kernel gradient")
STEPS = {"like LeNet": (128, "0.8"), "ResNet-20": (64, "0.5")}
# A jaxlib ends the process of a contender whose flag it does not know.
XLA_FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_use_xnnpack=true",
    "--xla_cpu_use_onednn=true",
    "--xla_cpu_prefer_vector_width=128",
    "--xla_cpu_prefer_vector_width=512",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_enable_fast_math=true",
)


def our_operation(*, shape: tuple[int, ...], operation: str) -> Step:
    """One of `OPERATIONS` by `dlcore.nn.Conv`."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.nn import Conv

    runtime.configure()
    batch, side, channels, filters = shape
    conv = Conv(filters, (3, 3), padding="same", use_bias=False)
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    params = conv.init(jax.random.key(1), x)
    g = jax.random.normal(jax.random.key(2), (batch, side, side, filters))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.asarray(conv.apply(params, x))

    def by_input(params: Any, x: jax.Array, g: jax.Array) -> Any:
        return jax.vjp(lambda x: apply(params, x), x)[1](g)

    def by_kernel(params: Any, x: jax.Array, g: jax.Array) -> Any:
        return jax.vjp(lambda params: apply(params, x), params)[1](g)

    work: Any = {
        "forward": lambda params, x, g: apply(params, x),
        "input gradient": by_input,
        "kernel gradient": by_kernel,
    }[operation]
    compiled = jax.jit(work)
    return lambda: jax.block_until_ready(compiled(params, x, g))


def their_operation(*, shape: tuple[int, ...], operation: str) -> Step:
    """The same by PyTorch."""
    import torch

    torch.set_num_threads(CORES)
    batch, side, channels, filters = shape
    x, kernel, g = (
        torch.randn(sizes).to(memory_format=torch.channels_last)
        for sizes in (
            (batch, channels, side, side), (filters, channels, 3, 3), (batch, filters, side, side)
        )
    )  # fmt: skip
    if operation == "forward":
        return lambda: torch.conv2d(x, kernel, padding=1)
    wanted = [operation == "input gradient", operation == "kernel gradient", False]
    arguments = (g, x, kernel, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, wanted)
    return lambda: torch.ops.aten.convolution_backward(*arguments)


def our_step(*, net: str, by: str = "XLA", flag: str = "") -> Step:
    """A training step of one of `STEPS`, as `fit` compiles it; convolutions by XLA or oneDNN."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    from dlcore import runtime
    from dlcore.metrics import classification
    from dlcore.models import image_model
    from dlcore.nn import Conv, Dense, max_pool, onednn
    from dlcore.train import gradient_step
    from dlcore.train.health import guard
    from dlcore.types import Aux, TrainState

    class LikeLeNet(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, Any]]:
            for features in (32, 64):
                x = max_pool(nn.relu(Conv(features, (3, 3), padding="same")(x)), 2)
            x = nn.relu(Dense(256)(x.reshape(len(x), -1)))
            return Dense(10)(x), {}

    runtime.configure()
    if by == "XLA":
        onednn.available = lambda: False
    elif not onednn.available():
        raise ModuleNotFoundError("the extra onednn")
    model = LikeLeNet() if net == "like LeNet" else image_model("resnet20", num_classes=10)
    tx = optax.sgd(0.01, momentum=0.9)
    batch = _batch(STEPS[net][0])

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Any:
        (logits, _), new = model.apply(
            {"params": params, **model_state}, batch["image"], train=True,
            mutable=list(model_state),
        )  # fmt: skip
        metrics = classification(logits, batch["label"], jnp.ones(len(batch["label"])))
        return metrics.pop("loss"), Aux(dict(new), metrics)

    layout = runtime.layout("jit")
    state = layout.initialise(
        lambda: TrainState.create(
            model.init(jax.random.key(0), batch["image"][:1]), tx, jax.random.key(1)
        )
    )
    step = runtime.compile_step(guard(gradient_step(loss_fn, tx)), layout)

    def once() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state.params)

    return once


def their_step(*, net: str) -> Step:
    """The same by PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)

    class Block(nn.Module):
        def __init__(self, before: int, features: int, stride: int):
            super().__init__()
            self.convolutions = nn.Sequential(
                nn.Conv2d(before, features, 3, stride, 1, bias=False), nn.BatchNorm2d(features),
                nn.ReLU(), nn.Conv2d(features, features, 3, 1, 1, bias=False),
                nn.BatchNorm2d(features),
            )  # fmt: skip
            self.stride, self.new = stride, features - before

        def forward(self, x: Any) -> Any:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            if self.new:
                shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new))
            return torch.relu(self.convolutions(x) + shortcut)

    if net == "like LeNet":
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10),
        )  # fmt: skip
    else:
        widths = (16, *(16,) * 3, *(32,) * 3, *(64,) * 3)
        blocks = [
            Block(before, after, 1 + (before < after))
            for before, after in zip(widths, widths[1:], strict=False)
        ]
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip
    model = model.to(memory_format=torch.channels_last)
    tx = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    batch = _batch(STEPS[net][0])
    image = torch.tensor(batch["image"]).permute(0, 3, 1, 2)
    label = torch.tensor(batch["label"], dtype=torch.long)

    def once() -> None:
        tx.zero_grad()
        nn.functional.cross_entropy(model(image), label).backward()
        tx.step()

    return once


def _batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(size, 32, 32, 3)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, 10, size).astype(np.int32)}


def operations() -> None:
    """Milliseconds of ours, and PyTorch's as a share of them."""
    rows = [("batch, side, channels, filters", *(f"{name}, ms (share)" for name in OPERATIONS))]
    for shape in SHAPES:
        cells = []
        for operation in OPERATIONS:
            options = {"shape": shape, "operation": operation}
            times = take_turns(
                {
                    "ours": Contender(our_operation, **options),
                    "PyTorch": Contender(their_operation, **options),
                },
                rounds=FLAGS.rounds, seconds=0.3,
            )  # fmt: skip
            cells.append(f"{1e3 * np.median(times['ours']):.2f} ({ratio(times, 'PyTorch'):.2f})")
        rows.append((", ".join(map(str, shape)), *cells))
    table(rows)


def steps() -> None:
    """Milliseconds of a step, and PyTorch's by them, which is our speed as a share of its own."""
    for net, (size, asked) in STEPS.items():
        print(f"  {net}, batch {size}, asked: PyTorch's time at least {asked} of ours")
        race(
            {
                "ours": lambda net=net: Contender(our_step, net=net),
                "ours by oneDNN": lambda net=net: Contender(our_step, net=net, by="oneDNN"),
                "PyTorch": lambda net=net: Contender(their_step, net=net),
            },
            FLAGS.rounds,
        )


def xla_flags() -> None:
    """Milliseconds of a step of ours under each flag, by those without any."""
    import jaxlib

    print(f"  jaxlib {jaxlib.__version__}")
    for net, (size, _) in STEPS.items():
        print(f"  {net}, batch {size}")
        makers = {"ours": lambda net=net: Contender(our_step, net=net)}
        for flag in XLA_FLAGS:
            makers[flag] = lambda net=net, flag=flag: Contender(our_step, net=net, flag=flag)
        race(makers, FLAGS.rounds)


def compilation() -> None:
    """Seconds to trace and compile the gradient of the loss, batch 32."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.models import image_model

    runtime.configure()
    jax.config.update("jax_enable_compilation_cache", False)
    images = jax.ShapeDtypeStruct((32, 32, 32, 3), jnp.float32)
    seconds: dict[str, list[float]] = {"resnet20": [], "resnet110": []}
    for _ in range(FLAGS.rounds):
        for name, found in seconds.items():
            model = image_model(name, num_classes=10)
            variables = jax.eval_shape(model.init, jax.random.key(0), images)

            def loss(variables: Any, images: jax.Array, model: Any = model) -> jax.Array:
                (logits, _), _ = model.apply(variables, images, train=True, mutable="batch_stats")
                return jnp.sum(logits**2)

            start = time.perf_counter()
            jax.jit(jax.grad(loss)).lower(variables, images).compile()
            found.append(time.perf_counter() - start)
    medians = {name: float(np.median(found)) for name, found in seconds.items()}
    rows = [("net", "seconds", "asked")]
    rows += [(name, f"{median:.2f}", "") for name, median in medians.items()]
    rows.append(("ratio", f"{medians['resnet110'] / medians['resnet20']:.2f}", "< 1.5"))
    table(rows)


if __name__ == "__main__":
    run(operations, steps, xla_flags, compilation)
