"""Training steps of two towers, ours and PyTorch's, each as a step for `contenders`.

The default job: a convolutional net of four blocks for pictures of 32 x 32 pixels, a bidirectional
GRU with max-pooling for their names, and the cross-entropy over the batch. Without augmentation and
dropout, so that both do the same.
"""

import math

import numpy as np
from contenders import Step, job_step

CORES = 2
BATCH, SIDE, WORDS, TOKENS = 128, 32, 333, 12
NUMBERS, HIDDEN = 128, 128


def our_step(*, loss: str = "infonce") -> Step:
    """A step of the default job, as a run takes it, by one of its losses."""
    import jax

    from dlcore import runtime
    from dlcore.launch import jobs
    from dlcore.launch.task import make_state

    runtime.configure()
    kind = jobs.task_class("retrieval")
    task = kind(kind.parts()[0](augment="none", dropout=0.0, loss=loss))
    data = task.data()
    task.info = data.info
    return job_step(task, jax.jit(lambda: make_state(task))(), next(data.train(0)))


def their_step(*, loss: str = "infonce") -> Step:
    """The same by PyTorch, on pictures and names of the same size."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(CORES)
    blocks: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        blocks += [
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    pictures = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4 * 64, NUMBERS))
    table = nn.Embedding(WORDS, HIDDEN, padding_idx=0)
    reader = nn.GRU(HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
    output = nn.Linear(2 * HIDDEN, NUMBERS)
    scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    parts = [*pictures.parameters(), *table.parameters(), *reader.parameters()]
    tx = torch.optim.AdamW([*parts, *output.parameters(), scale], lr=2e-3, weight_decay=0.05)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, 1, SIDE, SIDE), dtype=np.uint8))
    tokens = torch.from_numpy(rng.integers(1, WORDS, (BATCH, TOKENS)))
    lengths = torch.from_numpy(rng.integers(2, TOKENS + 1, BATCH))
    own = torch.arange(BATCH)

    def once() -> None:
        tx.zero_grad()
        x = nn.functional.normalize(pictures((images.float() - 30) / 75))
        packed = pack_padded_sequence(
            table(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(
            reader(packed)[0], batch_first=True, padding_value=-math.inf, total_length=TOKENS
        )
        scores = x @ nn.functional.normalize(output(y.amax(1))).T
        if loss == "infonce":
            scores = scale.clamp(max=math.log(100)).exp() * scores
            cost = (
                nn.functional.cross_entropy(scores, own)
                + nn.functional.cross_entropy(scores.T, own)
            ) / 2
        else:
            hinges = [
                (0.2 + s - s.diagonal()[:, None]).masked_fill(torch.eye(BATCH, dtype=bool), 0)
                for s in (scores, scores.T)
            ]
            hinges = [hinge.clamp(min=0) for hinge in hinges]
            picked = [h.amax(1) if loss == "vse++" else h.sum(1) for h in hinges]
            cost = sum(picked).mean()
        cost.backward()
        tx.step()
        cost.item()

    return once
