"""Neural Turing machines, ours and the same by PyTorch, as steps for `contenders`."""

from typing import Any

import numpy as np
from contenders import Step, job_step

CORES = 2
BITS, HIDDEN, ROWS, WIDTH = 8, 100, 128, 20


def our_machine(*, batch: int, length: int) -> Step:
    """A step of the job `algorithms` on the copy task, as a run takes it."""
    import jax
    from dlcore.experiments.algorithms import Algorithms, Config

    from dlcore import runtime
    from dlcore.launch.task import make_state

    runtime.configure()
    config = Config(
        batch_size=batch,
        longest=length,
        controller="lstm",
        hidden=HIDDEN,
        rows=ROWS,
        width=WIDTH,
    )
    task = Algorithms(config)
    rows = next(task.data().train(0))
    state = jax.jit(lambda: make_state(task))()
    return job_step(task, state, rows)


def their_machine(*, batch: int, length: int) -> Step:
    """The same machine, with an LSTM that moves one reading and one writing head, by PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(CORES)
    steps = 2 * length + 1
    controller = nn.LSTMCell(BITS + 1 + WIDTH, HIDDEN)
    told = [2 * WIDTH, 2, 2, 2 * 3, 2, WIDTH, WIDTH]
    heads, output = nn.Linear(HIDDEN, sum(told)), nn.Linear(HIDDEN + WIDTH, BITS)
    parameters = [p for net in (controller, heads, output) for p in net.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3)
    generator = np.random.default_rng(0)
    bits = torch.from_numpy(generator.integers(0, 2, (batch, length, BITS)).astype(np.float32))
    inputs = torch.zeros(steps, batch, BITS + 1)
    inputs[:length, :, :BITS] = bits.transpose(0, 1)
    inputs[length, :, BITS] = 1
    targets = bits.transpose(0, 1)

    def access(memory: Any, before: Any, pre: Any) -> tuple[Any, Any, Any]:
        key, strength, gate, shift, sharpening, erase, add = pre.split(told, dim=1)
        key = torch.tanh(key).view(batch, 2, 1, WIDTH)
        cosines = functional.cosine_similarity(key, memory[:, None], dim=-1)
        found = torch.softmax(functional.softplus(strength)[..., None] * cosines, -1)
        gate = torch.sigmoid(gate)[..., None]
        gated = gate * found + (1 - gate) * before
        shift = torch.softmax(shift.view(batch, 2, 3), -1)
        moved = sum(
            shift[..., place, None] * torch.roll(gated, place - 1, -1) for place in range(3)
        )
        power = 1 + functional.softplus(sharpening)[..., None]
        weights = torch.softmax(power * torch.log(moved + 1e-12), -1)
        reading, writing = weights[:, 0, :, None], weights[:, 1, :, None]
        memory = memory * (1 - writing * torch.sigmoid(erase)[:, None])
        memory = memory + writing * torch.tanh(add)[:, None]
        return memory, weights, (reading * memory).sum(1)

    def once() -> None:
        memory = torch.full((batch, ROWS, WIDTH), 1e-6)
        weights = torch.zeros(batch, 2, ROWS)
        weights[:, :, 0] = 1
        reads, state, outputs = torch.full((batch, WIDTH), 1e-6), None, []
        for x in inputs:
            state = controller(torch.cat([x, reads], 1), state)
            memory, weights, reads = access(memory, weights, heads(state[0]))
            outputs.append(output(torch.cat([state[0], reads], 1)))
        logits = torch.stack(outputs[length + 1 :])
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10)
        optimizer.step()

    return once
