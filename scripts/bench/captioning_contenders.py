"""A step of a captioner with soft attention, ours and PyTorch's, as a step for `contenders`.

The body of a residual network of 8 layers on 32 x 32 pictures and an LSTM of 128 units that attends
to 8 x 8 places (Xu et al. 2015), captions of 9 tokens of a vocabulary of 336.
"""

import numpy as np
from contenders import Step, job_step

CORES = 2
SIDE, TOKENS, VOCABULARY, WIDTH, CHANNELS = 32, 9, 336, 128, 64


def _batch(count: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    targets = draw.integers(2, VOCABULARY, (count, TOKENS)).astype(np.int32)
    targets[:, -1] = 1
    inputs = np.concatenate([np.ones((count, 1), np.int32), targets[:, :-1]], 1)
    return {
        "image": draw.integers(0, 256, (count, SIDE, SIDE, 1), np.uint8),
        "inputs": inputs,
        "targets": targets,
        "target_length": np.full(count, TOKENS, np.int32),
        "weight": np.ones(count, np.float32),
    }


def our_captioner(*, batch: int) -> Step:
    """A step of the job, without augmentation and dropout."""
    import jax
    from dlcore.experiments.captioning import Captioning, Config, Info

    from dlcore import runtime
    from dlcore.data.text import Vocabulary
    from dlcore.launch.task import make_state
    from dlcore.nn.augment import augmentation

    runtime.configure()
    task = Captioning(
        Config(
            batch_size=batch,
            body="resnet8",
            augment="none",
            dropout=0.0,
            label_smoothing=0.0,
            learning_rate=2e-3,
            weight_decay=0.0,
        )
    )
    words = ("<unk>", "<eos>", *(f"word{number}" for number in range(VOCABULARY - 2)))
    vocabulary = Vocabulary("space", words)
    task.info = Info(vocabulary, (SIDE, SIDE, 1), np.full(1, 30.0), np.full(1, 70.0), TOKENS)
    task.augment = augmentation("none")
    state = jax.jit(lambda: make_state(task))()
    return job_step(task, state, _batch(batch))


def their_captioner(*, batch: int) -> Step:
    """The same network and step by PyTorch, whose LSTM goes step by step, as attention needs."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)

    class Block(nn.Module):
        def __init__(self, before: int, after: int):
            super().__init__()
            stride = 1 if before == after else 2
            self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
            self.stride, self.more = stride, after - before

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norms[0](self.first(x)).relu()
            y = self.norms[1](self.second(y))
            short = nn.functional.pad(
                x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
            )
            return (y + short).relu()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, 1, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                Block(16, 16),
                Block(16, 32),
                Block(32, CHANNELS),
            )
            self.places = nn.Parameter(torch.randn((SIDE // 4) ** 2, CHANNELS) * 0.02)
            self.words = nn.Embedding(VOCABULARY, WIDTH)
            self.start = nn.Linear(CHANNELS, 2 * WIDTH)
            self.cell = nn.LSTMCell(WIDTH + CHANNELS, WIDTH)
            self.keys = nn.Linear(CHANNELS, WIDTH)
            self.query = nn.Linear(WIDTH, WIDTH, bias=False)
            self.score = nn.Linear(WIDTH, 1, bias=False)
            self.gate = nn.Linear(WIDTH, 1)
            self.of_state = nn.Linear(WIDTH, WIDTH)
            self.of_context = nn.Linear(CHANNELS, WIDTH, bias=False)
            self.output = nn.Linear(WIDTH, VOCABULARY)

        def forward(self, images: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            seen = self.body(images).flatten(2).transpose(1, 2)
            h, c = self.start(seen.mean(1)).tanh().chunk(2, 1)
            seen = seen + self.places
            keys, embedded = self.keys(seen), self.words(inputs)
            states, contexts = [], []
            for step in range(inputs.shape[1]):
                scores = self.score((self.query(h)[:, None] + keys).tanh())
                context = (scores.softmax(1) * seen).sum(1) * self.gate(h).sigmoid()
                h, c = self.cell(torch.cat([embedded[:, step], context], 1), (h, c))
                states.append(h)
                contexts.append(context)
            hidden = self.of_state(torch.stack(states, 1))
            hidden = hidden + self.of_context(torch.stack(contexts, 1)) + embedded
            return self.output(hidden)

    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.0)
    rows = _batch(batch)
    pixels = torch.from_numpy(rows["image"]).permute(0, 3, 1, 2).contiguous()
    inputs, targets = (torch.from_numpy(rows[name]).long() for name in ("inputs", "targets"))

    def once() -> None:
        optimizer.zero_grad()
        logits = network((pixels.float() - 30) / 70, inputs)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return once
