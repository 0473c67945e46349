"""The cells that the tests run over, and a net without a scan to compare the scan with.

Shapes: T time, B batch, D inputs, H features, F outputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.nn.recurrent import CELLS, Noise, cell, reverse_by_length, scan
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks

T, B, D, H = 3, 2, 2, 3
LENGTHS = np.array([3, 1], np.int32)
MASK = np.arange(T)[:, None] < LENGTHS[None]
ALL = {name: cell(name, H, **({"steps": 2} if "batch" in name else {})) for name in CELLS}


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn(seed: int, tree: Any) -> Any:
    """Fills a tree with normal noise, so that nothing is 0, 1 or orthogonal as initially."""
    leaves, shape = jax.tree.flatten(tree)
    return jax.tree.unflatten(shape, [normal(seed + i, *x.shape) for i, x in enumerate(leaves)])


def params_of(cell: Cell) -> dict[str, jax.Array]:
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs=D))
    return jax.tree.map(lambda leaf: 0.6 * leaf, drawn(10, shapes))


def state_of(cell: Cell) -> dict[str, Any]:
    """Draws running statistics with positive variances."""
    return jax.tree.map(lambda leaf: 1 + 0.3 * jnp.tanh(leaf), drawn(30, cell.init_state()))


def carry_of(cell: Cell, batch: int = B) -> Carry:
    return drawn(40, cell.initial_carry(batch))


def random_noise(cell: Cell, rows: int = B) -> Noise:
    """Draws masks of both kinds, at rates 0.5 and 0.25."""
    width = cell.initial_carry(rows)["h"].shape[-1]
    state = jax.random.bernoulli(jax.random.key(4), 0.5, (rows, width))
    candidate = jax.random.bernoulli(jax.random.key(5), 0.75, (T + 2, rows, cell.features))
    return Noise(2.0 * state.astype(jnp.float32), candidate.astype(jnp.float32) / 0.75)


def run(cell, params, carry, x, *, lengths=LENGTHS, reverse=False, **options):
    """Runs the cell over x (T, B, D) in evaluation; returns the last carry and y (T, B, F)."""
    mask = jnp.arange(len(x))[:, None] < lengths[None]
    flipped = reverse and cell.init_state()
    if flipped:
        x = reverse_by_length(x, lengths)
    state = state_of(cell)
    carry, outputs = scan(
        cell,
        params,
        carry,
        cell.prepare(params, state, x, mask, False),
        mask=mask,
        reverse=reverse and not flipped,
        **options,
    )
    y, _ = cell.finish(state, outputs, False)
    return carry, reverse_by_length(y, lengths) if flipped else y


def one_by_one(cell, params, carry, x, *, lengths=(3, 1), reverse=False, detach=None, noise=None):
    """Does the same as `run` without scan, mask or padding: each sequence alone, step by step."""
    noise = noise or Noise()
    carries, outputs = [], []
    state = state_of(cell)
    for row, length in enumerate(lengths):
        now = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], carry)
        times = range(length)[::-1] if reverse else range(length)
        ys = {}
        order = jnp.array(times)
        prepared = cell.prepare(params, state, x[order, row][:, None], None, False)
        for position, t in enumerate(times):
            if detach and position % detach == 0:
                now = jax.lax.stop_gradient(now)

            def product(name, h, row=row):
                masked = h if noise.state is None else h * noise.state[row : row + 1]
                return masked @ params[name]

            hooks = Hooks(product)
            if noise.candidate is not None:
                mask = noise.candidate[t, row : row + 1]
                hooks = Hooks(product, lambda update, mask=mask: update * mask)
            projected = jax.tree.map(lambda leaf, p=position: leaf[p], prepared)
            now, y = cell.step(params, now, projected, hooks)
            ys[t] = y[0] if isinstance(y, tuple) else y
        carries.append(now)
        nothing = jnp.zeros_like(ys[0])
        outputs.append(jnp.stack([ys.get(t, nothing)[0] for t in range(len(x))]))
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *carries), jnp.stack(outputs, axis=1)


def loss_and_gradients(net, cell, params, carry, x, **options):
    """Returns the outputs of a net and its gradients of parameters, carry and input."""
    # All steps have the same weight, so that the loss does not depend on the direction.
    weights = normal(6, 1, B, cell.output_features)

    def loss(params, carry, x):
        last, y = net(cell, params, carry, x, **options)
        rest = sum(jnp.sum(leaf * jnp.cos(leaf)) for leaf in jax.tree.leaves(last))
        return jnp.sum(weights * jnp.sin(3 * y)) + rest, (last, y)

    both = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, outputs), gradients = jax.jit(both)(params, carry, x)
    return outputs, gradients
