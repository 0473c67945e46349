"""The contenders of the benchmark of accelerators: steps of our jobs, and of PyTorch.

Both train on one batch of drawn data, as many steps as fit into the time. A workload is a name of
`UNITS` with its settings, as keyword arguments; its batch is that of one device.

Shapes: B rows, T tokens of a row, V vocabulary.
"""

import importlib.util
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from contenders import Failed, megabytes

# What the speed of a workload counts.
UNITS = {
    "resnet": "images",
    "gpt2": "tokens",
    "lstm": "tokens",
    "translation": "target tokens",
    "word2vec": "words",
}
RATES = {"resnet": 0.1, "gpt2": 3e-4, "lstm": 1.0, "translation": 3e-4}
MOMENTUM, BETA_2, DECAY, SMOOTHING = 0.9, 0.95, 0.1, 0.1
CLIP = {"gpt2": 1.0, "lstm": 5.0, "translation": 1.0}
LSTM_DROPOUT, TRANSLATION_DROPOUT = 0.5, 0.1
WINDOW, NEGATIVES, SAMPLE = 5, 5, 1e-3  # of word2vec
_SENTENCE = 20  # words
_WARM_UP = 3  # steps of PyTorch between the first one and those that are timed


class Figures(NamedTuple):
    """Holds the measurements of a contender.

    Attributes:
        device: what JAX or PyTorch calls the devices.
        devices: how many of them it used.
        steps: how many were timed.
        seconds: that these took.
        per_step: how many units of `UNITS` a step takes in.
        first_step: seconds from an empty process, but for the import of NumPy, to the end of the
            first step, all compilations included.
        memory: the most bytes that a device held; on a CPU the most that the process did.
        flops: of the model in a step, on all devices together; None where they are not counted.
        peak_flops: per second of one device; None where it is not known.
    """

    device: str
    devices: int
    steps: int
    seconds: float
    per_step: float
    first_step: float
    memory: float
    flops: float | None = None
    peak_flops: float | None = None

    @property
    def rate(self) -> float:
        """Units per second of each device."""
        return self.per_step * self.steps / self.seconds / self.devices


def drawn_words(shape: tuple[int, ...], vocabulary: int) -> np.ndarray:
    """Words with the frequencies of a text, 1 / (rank + 10), int32."""
    sums = np.cumsum(1 / (np.arange(vocabulary) + 10))
    draws = np.random.default_rng(0).random(shape) * sums[-1]
    return np.searchsorted(sums, draws).astype(np.int32)


def drawn_images(batch: int, side: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [B, side, side, 3], and their classes, int32 [B]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    return images, rng.integers(0, classes, batch).astype(np.int32)


# Ours.


class Work(NamedTuple):
    """A job and one of its batches.

    Attributes:
        task: the job, which knows what it must of its data.
        batch: of a step, on all devices together.
        per_step: how many units it has.
    """

    task: Any
    batch: dict[str, np.ndarray]
    per_step: float


def resnet(*, model: str, side: int, batch: int, classes: int, devices: int, **common: Any) -> Work:
    """A residual network of the job image_classification."""
    from dlcore.experiments.image_classification import Config, ImageClassification, Info

    images, labels = drawn_images(batch * devices, side, classes)
    config = Config(
        model=model, batch_size=len(images), optimizer="momentum", learning_rate=RATES["resnet"],
        weight_decay=1e-4, augment="none", precision="bfloat16", **common,
    )  # fmt: skip
    task = ImageClassification(config)
    names = tuple(map(str, range(classes)))
    task.info = Info(names, images.shape[1:], np.full(3, 127.5), np.full(3, 64.0))
    task.augment = lambda key, batch: batch
    weight = np.ones(len(images), np.float32)
    return Work(task, {"image": images, "label": labels, "weight": weight}, len(images))


def gpt2(*, layers: int, heads: int, width: int, **others: Any) -> Work:
    """A transformer of the job language_model, in the form of GPT-2."""
    return _language_model(
        model="transformer", layers=layers, heads=heads, hidden=width, norm="layer", bias=True,
        position="learned", dropout=0.0, optimizer="adamw", learning_rate=RATES["gpt2"],
        weight_decay=DECAY, hyper=(f"b2={BETA_2}",), clip_norm=CLIP["gpt2"], **others,
    )  # fmt: skip


def lstm(*, layers: int, width: int, **others: Any) -> Work:
    """A recurrent network of the job language_model."""
    return _language_model(
        model="lstm", layers=layers, hidden=width, embedding_size=width, tie=False,
        dropout=LSTM_DROPOUT, optimizer="sgd", learning_rate=RATES["lstm"], weight_decay=0.0,
        clip_norm=CLIP["lstm"], **others,
    )  # fmt: skip


def _language_model(
    *, vocabulary: int, window: int, batch: int, devices: int, **options: Any
) -> Work:
    from dlcore.experiments.language_model import Config, Info, LanguageModelling

    from dlcore.data.text import Vocabulary

    rows = batch * devices
    config = Config(window=window, batch_size=rows, precision="bfloat16", **options)
    task = LanguageModelling(config)
    # The network reads nothing of the vocabulary but its counts.
    task.info = Info(Vocabulary.build(""), 1e6 / (np.arange(vocabulary) + 10))
    words = drawn_words((rows, window + 1), vocabulary)
    found = {
        "inputs": words[:, :-1],
        "targets": words[:, 1:],
        "weight": np.ones((rows, window), np.float32),
        "reset": np.zeros(rows, bool),
    }
    return Work(task, found, rows * window)


def translation(
    *, layers: int, heads: int, width: int, vocabulary: int, length: int, batch: int, devices: int,
    **common: Any,
) -> Work:  # fmt: skip
    """The base transformer of the job translation (Vaswani et al. 2017)."""
    from dlcore.experiments.translation import Config, Info, Translation

    from dlcore.data.text import Vocabulary

    rows = batch * devices
    config = Config(
        model="transformer", shared=True, level="word", limit=length, batch_size=rows,
        layers=layers, heads=heads, hidden=width, norm="layer", norm_first=False, bias=True,
        activation="relu", position="sinusoidal", dropout=TRANSLATION_DROPOUT,
        label_smoothing=SMOOTHING, optimizer="adam", learning_rate=RATES["translation"],
        clip_norm=CLIP["translation"], precision="bfloat16", **common,
    )  # fmt: skip
    task = Translation(config)
    task.info = Info(Vocabulary("word", tuple(map(str, range(vocabulary)))), longest=length)
    source, target = drawn_words((2, rows, length), vocabulary)
    found = {
        "source": source,
        "source_length": np.full(rows, length, np.int32),
        "inputs": np.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=1),
        "targets": target,
        "target_length": np.full(rows, length, np.int32),
        "weight": np.ones(rows, np.float32),
    }
    return Work(task, found, rows * length)


def word2vec(*, vocabulary: int, features: int, batch: int, devices: int, **common: Any) -> Work:
    """Skip-gram with negative sampling, of the job word_vectors.

    Devices share the tables, so that all of them together have the batch of one.
    """
    from dlcore.experiments.word_vectors import Config, Info, WordVectors

    from dlcore.data.text.token_file import TokenFile

    if devices > 1:
        common["mesh"] = f"model={devices}"
    config = Config(
        model="skip_gram", features=features, window=WINDOW, negatives=NEGATIVES, subsample=SAMPLE,
        batch_size=batch, **common,
    )  # fmt: skip
    task = WordVectors(config)
    words = drawn_words((16 * batch,), vocabulary)
    counts = np.bincount(words, minlength=vocabulary)
    task.info = Info(len(words), tuple(map(str, range(vocabulary))), counts)
    tokens = np.insert(words, np.arange(_SENTENCE, len(words), _SENTENCE), -1)
    corpus = TokenFile(task.info.words, counts, tokens, len(words))
    feed = task.learner.feed(task.config, corpus, pathlib.Path())
    found = next(feed.train(0))
    return Work(task, found, int((found["sentences"] >= 0).sum()))


WORKS = {
    "resnet": resnet, "gpt2": gpt2, "lstm": lstm, "translation": translation, "word2vec": word2vec
}  # fmt: skip


def ours(
    *,
    workload: str,
    settings: Mapping[str, Any],
    layout: str,
    seconds: float,
    chip: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Figures:
    """Trains as a run of the job does, by the loop of all runs, from an empty compilation cache.

    Args:
        workload: a name of `UNITS`.
        settings: of the workload.
        layout: "jit", which is one device, or "mesh", which is all that there are.
        seconds: the time that steps are taken for.
        chip: the devices as --chip has them; by default what JAX calls them.
        environment: what is set before JAX starts, such as flags of XLA.
    """
    started = time.perf_counter()
    for name, value in (environment or {}).items():
        os.environ[name] = f"{os.environ.get(name, '')} {value}".strip()
    import jax

    from dlcore import runtime

    with tempfile.TemporaryDirectory() as cache:
        runtime.configure(compilation_cache=cache)
        devices = jax.device_count() if layout == "mesh" else 1
        work = WORKS[workload](devices=devices, layout=layout, steps=10**6, **settings)
        return train(work, started=started, seconds=seconds, chip=chip)


def train(work: Work, *, started: float, seconds: float, chip: str | None) -> Figures:
    """Takes steps for so long, after a first one.

    Args:
        work: what to train on.
        started: when the process did, by `time.perf_counter`.
        seconds: the time.
        chip: as of `ours`.
    """
    import jax

    from dlcore import runtime
    from dlcore.launch import accounting
    from dlcore.launch.task import make_state
    from dlcore.plan.cost import model_flops
    from dlcore.train import Accounting, Hook, fit

    class Until(Hook):
        """Ends the loop so long after the first step, but not before another one."""

        def after_step(self, loop: Any) -> None:
            if loop.taken == 1:
                self.end = time.perf_counter() + seconds
            elif time.perf_counter() >= self.end:
                loop.stop("time")

    layout = work.task.layout()
    state = layout.initialise(lambda: make_state(work.task))
    leaf = jax.tree.leaves(state)[0]
    devices = len(leaf.sharding.device_set)
    peak = accounting.peak_flops(state, chip)
    result = fit(
        work.task.step(),
        state,
        lambda start: itertools.repeat(work.batch),
        steps=work.task.config.steps,
        layout=layout,
        precision=runtime.precision(work.task.config.precision),
        hooks=[Until(), Accounting(model_flops, peak)],
    )
    assert result.first_step is not None, "a step was taken"
    timed = result.steps - 1
    return Figures(
        device=jax.devices()[0].device_kind,
        devices=devices,
        steps=timed,
        seconds=result.seconds,
        per_step=work.per_step,
        first_step=result.first_step - started,
        memory=float(accounting.memory_peak() or megabytes(kind="VmHWM") * 2**20),
        flops=result.flops / timed,
        peak_flops=peak and peak / devices,
    )


# PyTorch.


class Peer(NamedTuple):
    """A model of PyTorch.

    Attributes:
        loss: returns the loss of the batch, and is compiled.
        optimizer: of the model.
        per_step: how many units the batch has.
        clip: the largest norm of the gradient.
        half: whether it computes in bfloat16, on an accelerator; PyTorch's LSTM on a CPU cannot.
    """

    loss: Callable[[], Any]
    optimizer: Any
    per_step: float
    clip: float | None = None
    half: bool = True


def torch_resnet(device: str, *, model: str, side: int, batch: int, classes: int) -> Peer:
    """ResNet-50 of PyTorch's layers, channels-last; for any other name a net of one block."""
    import torch
    from torch import nn

    def unit(into: int, out: int, window: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(into, out, window, stride, window // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, into: int, width: int, stride: int):
            super().__init__()
            self.branch = nn.Sequential(
                unit(into, width, 1), nn.ReLU(), unit(width, width, 3, stride), nn.ReLU(),
                unit(width, 4 * width, 1),
            )  # fmt: skip
            same = into == 4 * width and stride == 1
            self.short = nn.Identity() if same else unit(into, 4 * width, 1, stride)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.short(x) + self.branch(x))

    stages = {"resnet50": (3, 4, 6, 3)}.get(model, (1,))
    layers: list[nn.Module] = [unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            width = 64 << stage
            layers.append(Block(into, width, 2 if stage and not block else 1))
            into = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, classes)]
    network = nn.Sequential(*layers).to(device, memory_format=torch.channels_last)
    images, labels = drawn_images(batch, side, classes)
    # A step takes its images from the host, as ours does.
    host = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(
        memory_format=torch.channels_last
    )
    host = host.pin_memory() if device == "cuda" else host
    target = torch.from_numpy(labels).long().to(device)

    def loss() -> Any:
        x = (host.to(device, non_blocking=True).float() - 127.5) / 64
        return nn.functional.cross_entropy(network(x), target)

    optimizer = torch.optim.SGD(
        network.parameters(), RATES["resnet"], momentum=MOMENTUM, weight_decay=1e-4
    )
    return Peer(loss, optimizer, batch)


def torch_gpt2(
    device: str, *, layers: int, heads: int, width: int, vocabulary: int, window: int, batch: int
) -> Peer:
    """The same network by PyTorch's fused attention, its table tied to the output."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.heads, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.feed_forward = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"),
                nn.Linear(4 * width, width),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            parts = self.heads(self.first(x)).chunk(3, dim=-1)
            query, key, value = (
                part.unflatten(-1, (heads, width // heads)).transpose(1, 2) for part in parts
            )
            y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.output(y.transpose(1, 2).flatten(2))
            return x + self.feed_forward(self.second(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.positions = nn.Parameter(torch.zeros(window, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm = nn.LayerNorm(width)
            nn.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, tokens: Any) -> Any:
            x = self.blocks(self.embedding(tokens) + self.positions)
            return functional.linear(self.norm(x), self.embedding.weight)

    network = Model().to(device)
    inputs, targets = _torch_words(device, (batch, window + 1), vocabulary)

    def loss() -> Any:
        return functional.cross_entropy(network(inputs).flatten(0, 1), targets.flatten())

    optimizer = torch.optim.AdamW(
        network.parameters(), RATES["gpt2"], betas=(0.9, BETA_2), weight_decay=DECAY, fused=True
    )
    return Peer(loss, optimizer, batch * window, CLIP["gpt2"])


def torch_lstm(
    device: str, *, layers: int, width: int, vocabulary: int, window: int, batch: int
) -> Peer:
    """The same network by PyTorch's LSTM, which is cuDNN's on NVIDIA's devices."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.recurrent = nn.LSTM(width, width, layers, dropout=LSTM_DROPOUT, batch_first=True)
            self.output = nn.Linear(width, vocabulary)
            self.dropout = nn.Dropout(LSTM_DROPOUT)

        def forward(self, tokens: Any, carry: Any) -> tuple[Any, Any]:
            y, carry = self.recurrent(self.dropout(self.embedding(tokens)), carry)
            return self.output(self.dropout(y)), carry

    network = Model().to(device)
    inputs, targets = _torch_words(device, (batch, window + 1), vocabulary)
    carry: Any = None

    def loss() -> Any:
        nonlocal carry
        logits, new = network(inputs, carry)
        carry = tuple(part.detach() for part in new)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    optimizer = torch.optim.SGD(network.parameters(), RATES["lstm"])
    return Peer(loss, optimizer, batch * window, CLIP["lstm"])


def torch_translation(
    device: str, *, layers: int, heads: int, width: int, vocabulary: int, length: int, batch: int
) -> Peer:
    """The same network by `torch.nn.Transformer`, with one table for all."""
    import torch
    from torch import nn
    from torch.nn import functional

    network = nn.Transformer(
        width, heads, layers, layers, 4 * width, TRANSLATION_DROPOUT, batch_first=True
    ).to(device)
    table = nn.Embedding(vocabulary, width, device=device)
    nn.init.normal_(table.weight, std=width**-0.5)
    place = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    positions = torch.stack([place.sin(), place.cos()], -1).flatten(1).to(device)
    mask = nn.Transformer.generate_square_subsequent_mask(length, device=device)
    rows = (batch, length)
    source, target = (
        torch.from_numpy(words).long().to(device) for words in drawn_words((2, *rows), vocabulary)
    )
    inputs = functional.pad(target[:, :-1], (1, 0), value=1)

    def embedded(tokens: Any) -> Any:
        return functional.dropout(table(tokens) * width**0.5 + positions, TRANSLATION_DROPOUT)

    def loss() -> Any:
        y = network(embedded(source), embedded(inputs), tgt_mask=mask, tgt_is_causal=True)
        logits = functional.linear(y, table.weight)
        return functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=SMOOTHING
        )

    leaves = [*network.parameters(), *table.parameters()]
    optimizer = torch.optim.Adam(leaves, RATES["translation"], fused=True)
    return Peer(loss, optimizer, batch * length, CLIP["translation"])


def torch_word2vec(device: str, *, vocabulary: int, features: int, batch: int) -> Peer:
    """Skip-gram, each pair with noise of its own, and sparse gradients."""
    import torch
    from torch import nn
    from torch.nn import functional

    tables = [nn.Embedding(vocabulary, features, sparse=True, device=device) for _ in range(2)]
    words = drawn_words((batch,), vocabulary)
    # Windows of 1 to 5 words, as drawn as ours.
    reach = np.random.default_rng(1).integers(1, WINDOW + 1, batch)
    offsets = [offset for offset in range(-WINDOW, WINDOW + 1) if offset]
    pairs = [(words[reach >= abs(by)], np.roll(words, by)[reach >= abs(by)]) for by in offsets]
    query, context = (
        torch.from_numpy(np.concatenate(part)).long().to(device)
        for part in zip(*pairs, strict=True)
    )

    def loss() -> Any:
        noise = torch.randint(0, vocabulary, (len(query), NEGATIVES), device=device)
        x = tables[0](query)
        positive = (x * tables[1](context)).sum(-1)
        negative = torch.einsum("pd,pkd->pk", x, tables[1](noise))
        return functional.softplus(-positive).sum() + functional.softplus(negative).sum()

    leaves = [leaf for table in tables for leaf in table.parameters()]
    return Peer(loss, torch.optim.SGD(leaves, 0.025), batch, half=False)


def _torch_words(device: str, shape: tuple[int, int], vocabulary: int) -> tuple[Any, Any]:
    import torch

    words = torch.from_numpy(drawn_words(shape, vocabulary)).long().to(device)
    return words[:, :-1].contiguous(), words[:, 1:].contiguous()


PEERS = {
    "resnet": torch_resnet, "gpt2": torch_gpt2, "lstm": torch_lstm,
    "translation": torch_translation, "word2vec": torch_word2vec,
}  # fmt: skip


def pytorch(*, workload: str, settings: Mapping[str, Any], seconds: float) -> Figures:
    """Trains by PyTorch, compiled from an empty cache, on one device.

    Args:
        workload: a name of `UNITS`.
        settings: of the workload.
        seconds: the time that steps are taken for.

    Raises:
        Failed: when PyTorch is not installed.
    """
    started = time.perf_counter()
    if importlib.util.find_spec("torch") is None:
        raise Failed("PyTorch is not installed")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        import torch

        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high")
        on_gpu = torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        peer = PEERS[workload](device, **settings)
        compiled = torch.compile(peer.loss)
        leaves = [leaf for group in peer.optimizer.param_groups for leaf in group["params"]]

        def step() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=peer.half and on_gpu):
                loss = compiled()
            loss.backward()
            if peer.clip is not None:
                torch.nn.utils.clip_grad_norm_(leaves, peer.clip)
            peer.optimizer.step()
            peer.optimizer.zero_grad(set_to_none=True)

        def wait() -> float:
            if on_gpu:
                torch.cuda.synchronize()
            return time.perf_counter()

        step()
        first_step = wait() - started
        for _ in range(_WARM_UP):
            step()
        start, steps = wait(), 0
        while steps == 0 or time.perf_counter() < start + seconds:
            step()
            steps += 1
        return Figures(
            device=torch.cuda.get_device_name() if on_gpu else "cpu",
            devices=1,
            steps=steps,
            seconds=wait() - start,
            per_step=peer.per_step,
            first_step=first_step,
            memory=float(
                torch.cuda.max_memory_allocated() if on_gpu else megabytes(kind="VmHWM") * 2**20
            ),
        )
