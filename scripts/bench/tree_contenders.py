"""A binary Tree-LSTM on a batch of trees, ours and PyTorch's, as a step for `contenders`.

64 trees of 4 to 40 words, of random shapes, 5 classes at all nodes, 10,000 words of 300 numbers,
nodes of 150, Adam.
"""

from typing import Any

import numpy as np
from contenders import Step, job_step

BATCH, WORDS, EMBEDDING, HIDDEN, CLASSES, RATE = 64, 10_000, 300, 150, 5, 1e-3


def trees(seed: int = 0) -> list[str]:
    """Returns random binary trees in brackets: neighbours are joined at random places."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(BATCH):
        nodes = [
            f"({rng.integers(CLASSES)} w{rng.integers(WORDS - 2)})"
            for _ in range(rng.integers(4, 41))
        ]
        while len(nodes) > 1:
            at = int(rng.integers(len(nodes) - 1))
            nodes[at : at + 2] = [f"({rng.integers(CLASSES)} {nodes[at]} {nodes[at + 1]})"]
        found.append(nodes[0])
    return found


def _task(batch_size: int) -> Any:
    from dlcore import launch
    from dlcore.data.text import Vocabulary
    from dlcore.launch import jobs

    task_class = jobs.task_class("trees")
    config, info = task_class.parts()
    task = task_class(
        config(
            model="nary",
            hidden=HIDDEN,
            embedding_size=EMBEDDING,
            batch_size=batch_size,
            optimizer="adam",
            learning_rate=RATE,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            dropout=0.0,
        )
    )
    tokens = ("<unk>", "<eos>", *(f"w{number}" for number in range(WORDS - 2)))
    task.info = info(tuple(map(str, range(CLASSES))), Vocabulary("word", tokens))
    assert isinstance(task, launch.Task)
    return task


def _split(task: Any) -> Any:
    from dlcore.data.trees import parse_brackets

    return task.split([tree for text in trees() for tree in parse_brackets(text)])[0]


def our_step() -> Step:
    """A step on the batch, as a run takes it."""
    from dlcore.launch.task import make_state

    task = _task(BATCH)
    batch = _split(task).gather(np.arange(BATCH)) | {"weight": np.ones(BATCH, np.float32)}
    return job_step(task, make_state(task), batch)


def our_single_steps() -> Step:
    """The gradients of the same trees one at a time, padded to few lengths, and one update."""
    import jax

    from dlcore.launch.task import make_state

    task = _task(BATCH)
    split, state = _split(task), make_state(_task(BATCH))
    tx = task.optimizer()
    one = {"weight": np.ones(1, np.float32)}
    batches = [split.gather(np.array([row])) | one for row in range(BATCH)]

    def total(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        loss, _ = task.loss(params, {}, batch, jax.random.key(0))
        return loss.total, loss.weight

    @jax.jit
    def add(params: Any, sums: Any, batch: Any) -> Any:
        (_, weight), gradient = jax.value_and_grad(total, has_aux=True)(params, batch)
        return jax.tree.map(jax.numpy.add, sums, (gradient, weight))

    @jax.jit
    def update(params: Any, opt_state: Any, sums: Any) -> Any:
        gradient = jax.tree.map(lambda leaf: leaf / sums[1], sums[0])
        updates, opt_state = tx.update(gradient, opt_state, params)
        return jax.tree.map(jax.numpy.add, params, updates), opt_state

    params, opt_state = state.params, state.opt_state
    zeros = (jax.tree.map(np.zeros_like, params), np.float32(0))

    def run() -> None:
        nonlocal params, opt_state
        sums = zeros
        for batch in batches:
            sums = add(params, sums, batch)
        params, opt_state = update(params, opt_state, sums)
        jax.block_until_ready(params)

    return run


def their_step() -> Step:
    """The same in PyTorch, which goes from node to node, and classifies all of them at once."""
    import torch

    from dlcore.data.trees import parse_brackets

    torch.manual_seed(0)
    embedding = torch.nn.Embedding(WORDS, EMBEDDING)
    reads = torch.nn.Linear(EMBEDDING, 3 * HIDDEN)
    joins = torch.nn.Linear(2 * HIDDEN, 5 * HIDDEN)
    output = torch.nn.Linear(HIDDEN, CLASSES)
    parts = (embedding, reads, joins, output)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], RATE)
    batch = []
    for text in trees():
        (tree,) = parse_brackets(text)
        words = [None if word is None else torch.tensor([int(word[1:])]) for word in tree.words]
        batch.append((words, tree.children(), torch.tensor([int(str(x)) for x in tree.labels])))

    def states(words: Any, children: Any) -> Any:
        found: list[Any] = [None] * len(words)
        # Nodes are numbered from the root on, so that children stand behind their parents.
        for node in range(len(words) - 1, -1, -1):
            if not children[node]:
                i, o, u = reads(embedding(words[node])).chunk(3, -1)
                c = torch.sigmoid(i) * torch.tanh(u)
            else:
                (h1, c1), (h2, c2) = (found[child] for child in children[node])
                i, o, u, f1, f2 = joins(torch.cat([h1, h2], -1)).chunk(5, -1)
                c = torch.sigmoid(i) * torch.tanh(u)
                c = c + torch.sigmoid(f1) * c1 + torch.sigmoid(f2) * c2
            found[node] = (torch.sigmoid(o) * torch.tanh(c), c)
        return torch.cat([h for h, _ in found])

    labels = torch.cat([one for _, _, one in batch])

    def run() -> None:
        vectors = torch.cat([states(words, children) for words, children, _ in batch])
        loss = torch.nn.functional.cross_entropy(output(vectors), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return run
