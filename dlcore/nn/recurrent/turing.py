"""The neural Turing machine (Graves, Wayne & Danihelka 2014): a controller beside a memory.

At each step the controller sees the input and the last reads, and moves its heads: each head
addresses the rows of the memory by content and by location, softly, so that all rows have a
gradient. All heads address the memory as it was, then the writing heads change it, and then the
reading heads read the new content. All values are finite by construction, whatever the inputs.

Shapes: B batch, T time, D inputs, H controller features, N rows of the memory, W width of a row,
R reading heads, K heads in all, the reading ones first, S shifts.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params
from dlcore.nn.recurrent.initial import input_kernel
from dlcore.types import PyTree, at_least_float32

# The rows of a memory to which nothing was written hold this number.
_START = 1e-6
# The initial biases of the gate and of a shift by one row.
_GATE, _ONWARDS = -1.0, 2.0
# Keeps the norm of a row of zeros, and the logarithm of a weight of 0, from being infinite.
_NORM_EPS, _LOG_EPS = 1e-8, 1e-12


class Heads(NamedTuple):
    """The commands of the controller to the heads, after the squashing functions.

    Attributes:
        key: (B, K, W), the content to search for.
        strength: (B, K) above 0, the sharpness of the search.
        gate: (B, K) in 0..1, the share of the search in the address; the rest is the last address.
        shift: (B, K, S), a distribution over shifts.
        sharpening: (B, K), powers of 1 or more.
        erase: (B, K - R, W) in 0..1, the shares that the writing heads erase.
        add: (B, K - R, W), the values that they add.
    """

    key: jax.Array
    strength: jax.Array
    gate: jax.Array
    shift: jax.Array
    sharpening: jax.Array
    erase: jax.Array
    add: jax.Array


def cosine_similarity(key: jax.Array, memory: jax.Array) -> jax.Array:
    """Returns the cosine of each key (B, K, W) with each row of (B, W, N), (B, K, N); eq. 6."""
    return jnp.einsum("bkw,bwn->bkn", key * _inverse_norm(key, 2), memory) * _inverse_norm(
        memory, 1
    )


def _inverse_norm(vectors: jax.Array, axis: int) -> jax.Array:
    return jax.lax.rsqrt(jnp.sum(vectors * vectors, axis, keepdims=True) + _NORM_EPS)


def circular_convolution(weights: jax.Array, shift: jax.Array) -> jax.Array:
    """Moves weights (B, K, N) by distributions (B, K, S) over -(S - 1) / 2 ... (S - 1) / 2; eq. 8.

    >>> circular_convolution(jnp.array([[[1.0, 0, 0]]]), jnp.array([[[0.0, 0.25, 0.75]]])).tolist()
    [[[0.25, 0.75, 0.0]]]
    """
    reach = shift.shape[-1] // 2
    total = jnp.zeros_like(weights)
    for place, step in enumerate(range(-reach, reach + 1)):
        total = total + shift[..., place, None] * jnp.roll(weights, step, axis=-1)
    return total


def sharpen(weights: jax.Array, sharpening: jax.Array) -> jax.Array:
    """Returns w^g / sum(w^g) of weights (B, K, N) and powers (B, K); eq. 9.

    It is computed as the softmax of g log(w + 1e-12), which avoids 0 / 0.
    """
    return jax.nn.softmax(sharpening[..., None] * jnp.log(weights + _LOG_EPS))


def address(
    cosines: jax.Array,
    before: jax.Array,
    strength: jax.Array,
    gate: jax.Array,
    shift: jax.Array,
    sharpening: jax.Array,
) -> jax.Array:
    """Returns the weights of the rows by head, (B, K, N): eqs. 5 and 7 to 9.

    Args:
        cosines: the cosines of the keys with the rows, (B, K, N).
        before: the weights of the step before, (B, K, N).
        strength: as in `Heads`, like the following arguments.
        gate: (B, K).
        shift: (B, K, S).
        sharpening: (B, K).
    """
    found = jax.nn.softmax(strength[..., None] * cosines)
    gated = gate[..., None] * found + (1 - gate[..., None]) * before
    return sharpen(circular_convolution(gated, shift), sharpening)


def write(memory: jax.Array, weights: jax.Array, erase: jax.Array, add: jax.Array) -> jax.Array:
    """Returns the memory (B, W, N) after all heads erased and then all added; eqs. 3 and 4.

    Args:
        memory: (B, W, N).
        weights: the weights of the writing heads, (B, K, N).
        erase: (B, K, W).
        add: (B, K, W).
    """
    kept = jnp.prod(_kept(weights, erase), axis=1)
    return memory * kept + jnp.einsum("bkw,bkn->bwn", add, weights)


def _kept(weights: jax.Array, erase: jax.Array) -> jax.Array:
    """Returns the share of each number that each head leaves, (B, K, W, N)."""
    return 1 - erase[..., None] * weights[:, :, None]


def read(memory: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns what heads with weights (B, R, N) read from a memory (B, W, N), (B, R, W); eq. 2."""
    return jnp.einsum("brn,bwn->brw", weights, memory)


@jax.custom_vjp
def access(
    memory: jax.Array, before: jax.Array, heads: Heads
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes one step of all heads, with a gradient that passes over the memory few times.

    Automatic differentiation would keep several arrays as large as the memory at each step; the
    gradient here needs the memory alone, and takes a quarter of the time.

    Args:
        memory: (B, W, N).
        before: the weights of the step before, (B, K, N).
        heads: the commands of the controller.

    Returns:
        The memory after writing, the weights (B, K, N), and the reads (B, R, W).
    """
    return _access(memory, before, heads)[0]


def _address_of(heads: Heads) -> tuple[jax.Array, ...]:
    return heads.strength, heads.gate, heads.shift, heads.sharpening


def _access(
    memory: jax.Array, before: jax.Array, heads: Heads
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[PyTree, ...]]:
    cosines = cosine_similarity(heads.key, memory)
    weights = address(cosines, before, *_address_of(heads))
    reading, writing = jnp.split(weights, [weights.shape[1] - heads.erase.shape[1]], axis=1)
    new = write(memory, writing, heads.erase, heads.add)
    return (new, weights, read(new, reading)), (memory, before, heads, cosines, weights)


def _access_backward(
    residuals: tuple[PyTree, ...], cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, Heads]:
    memory, before, heads, cosines, weights = residuals
    d_new, d_weights, d_reads = cotangents
    reading, writing = jnp.split(weights, [weights.shape[1] - heads.erase.shape[1]], axis=1)
    # Reading, of the memory that was written.
    d_new = d_new + jnp.einsum("brw,brn->bwn", d_reads, reading)
    d_reading = jnp.einsum("brw,bwn->brn", d_reads, write(memory, writing, heads.erase, heads.add))
    # Writing: each head erased of what the others had left.
    kept = _kept(writing, heads.erase)
    left = jnp.stack(
        [
            jnp.prod(jnp.delete(kept, head, axis=1, assume_unique_indices=True), axis=1)
            for head in range(kept.shape[1])
        ],
        axis=1,
    )
    erased = (d_new * memory)[:, None] * left
    d_erase = -jnp.einsum("bkwn,bkn->bkw", erased, writing)
    d_add = jnp.einsum("bwn,bkn->bkw", d_new, writing)
    d_writing = jnp.einsum("bkw,bwn->bkn", heads.add, d_new) - jnp.einsum(
        "bkw,bkwn->bkn", heads.erase, erased
    )
    # Addressing: d cos = d(key / |key|) . m / |m|, and the same of the rows.
    d_weights = d_weights + jnp.concatenate([d_reading, d_writing], axis=1)
    _, pull = jax.vjp(address, cosines, before, *_address_of(heads))
    d_cosines, d_before, *d_told = pull(d_weights)
    d_strength, d_gate, d_shift, d_sharpening = d_told
    of_rows, of_keys = _inverse_norm(memory, 1), _inverse_norm(heads.key, 2)
    unit, scaled = heads.key * of_keys, d_cosines * of_rows
    d_unit = jnp.einsum("bkn,bwn->bkw", scaled, memory)
    d_key = of_keys * (d_unit - unit * jnp.sum(unit * d_unit, -1, keepdims=True))
    shrink = of_rows**2 * jnp.sum(d_cosines * cosines, axis=1, keepdims=True)
    d_memory = d_new * jnp.prod(kept, axis=1) - memory * shrink
    d_memory = d_memory + jnp.einsum("bkw,bkn->bwn", unit, scaled)
    d_heads = Heads(d_key, d_strength, d_gate, d_shift, d_sharpening, d_erase, d_add)
    return d_memory, d_before, d_heads


access.defvjp(_access, _access_backward)


@dataclasses.dataclass(frozen=True)
class TuringMachine(Cell):
    """A neural Turing machine as a recurrent cell, whose output is the controller's and all reads.

    Parameters: `input_kernel` (D, G) and `bias` (G,) of the controller, whose pre-activation has G
    numbers, and its recurrent kernels; `read_kernel` (R W, G) for the last reads; `head_kernel`
    (H, P) and `head_bias` (P,) for the commands to the heads. The memory starts with the same
    small number everywhere, and all heads start on row 0. The biases start so that each head moves
    on by one row at a time and searches little: then each write has a row of its own from the first
    step of training, and most runs learn to use the memory. With biases of 0 all heads blur, and in
    more runs the controller learns to do without the memory.

    The carry has, beside the controller's own: `memory` (B, W, N), whose columns are the rows of
    the paper, so that the long axis is contiguous, `weights` (B, K, N) and `reads` (B, R W).

    Attributes:
        features: H.
        controller: a recurrent cell of H features whose step adds up its projected input, such as
            an LSTM; None takes a layer of tanh without a state.
        rows: N.
        width: W.
        read_heads: R.
        write_heads: K - R.
        reach: the farthest shift; there are S = 2 * reach + 1 of them.

    Raises:
        InputError: for fewer than one row, number or head, and for shifts that wrap around.
    """

    controller: Cell | None = None
    rows: int = 128
    width: int = 20
    read_heads: int = 1
    write_heads: int = 1
    reach: int = 1

    def __post_init__(self) -> None:
        for name in ("features", "rows", "width", "read_heads", "write_heads"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name}={getattr(self, name)} of a Turing machine is not possible; give 1 or "
                    "more"
                )
        if not 0 <= self.reach <= (self.rows - 1) // 2:
            raise InputError(
                f"reach={self.reach}: shifts of a memory of {self.rows} rows go from 0 to "
                f"{(self.rows - 1) // 2} rows; choose one of them"
            )
        if self.controller is not None and self.controller.output_features != self.features:
            raise InputError(
                f"the controller outputs {self.controller.output_features} features, not "
                f"{self.features}; make both the same"
            )

    @property
    def recurrent(self) -> tuple[str, ...]:
        own = () if self.controller is None else self.controller.recurrent
        return (*own, "read_kernel", "head_kernel")

    @property
    def output_features(self) -> int:
        return self.features + self.read_heads * self.width

    @property
    def heads(self) -> int:
        """K, the number of heads."""
        return self.read_heads + self.write_heads

    @property
    def told(self) -> tuple[int, ...]:
        """The number of values in each field of `Heads`, in its order."""
        k, w = self.heads, self.width
        return k * w, k, k, k * (2 * self.reach + 1), k, self.write_heads * w, self.write_heads * w

    def init(self, key: jax.Array, inputs: int) -> dict[str, PyTree]:
        controller_key, read_key, head_key = jax.random.split(key, 3)
        if self.controller is None:
            params: dict[str, PyTree] = {
                "input_kernel": input_kernel(controller_key, inputs, self.features),
                "bias": jnp.zeros(self.features),
            }
        else:
            params = self.controller.init(controller_key, inputs)
        pre = params["input_kernel"].shape[1]
        biases = Heads(*map(jnp.zeros, self.told))
        # A head that cannot move has the one shift that it has.
        moves = jnp.zeros((self.heads, 2 * self.reach + 1))
        moves = moves.at[:, min(self.reach + 1, 2 * self.reach)].set(_ONWARDS)
        biases = biases._replace(gate=biases.gate + _GATE, shift=moves.reshape(-1))
        return params | {
            "read_kernel": input_kernel(read_key, self.read_heads * self.width, pre),
            "head_kernel": input_kernel(head_key, self.features, sum(self.told)),
            "head_bias": jnp.concatenate(biases),
        }

    def initial_carry(self, batch: int) -> Carry:
        own = {} if self.controller is None else self.controller.initial_carry(batch)
        return own | {
            "memory": jnp.full((batch, self.width, self.rows), _START),
            "weights": jnp.zeros((batch, self.heads, self.rows)).at[:, :, 0].set(1),
            "reads": jnp.full((batch, self.read_heads * self.width), _START),
        }

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        own = {
            name: leaf for name, leaf in carry.items() if name not in ("memory", "weights", "reads")
        }
        projected = projected + hooks.product("read_kernel", carry["reads"])
        if self.controller is None:
            h = jnp.tanh(projected)
        else:
            own, h = self.controller.step(params, own, projected, hooks)
        heads = self._tell(hooks.product("head_kernel", h) + params["head_bias"][None])
        memory, weights, reads = access(carry["memory"], carry["weights"], heads)
        reads = reads.reshape(len(memory), -1)
        new = {**own, "memory": memory, "weights": weights, "reads": reads}
        return new, jnp.concatenate([h, reads.astype(h.dtype)], axis=-1)

    def _tell(self, pre: jax.Array) -> Heads:
        """Returns the commands to the heads, given their pre-activations (B, P)."""
        pre = pre.astype(at_least_float32(pre.dtype))
        ends = [sum(self.told[: n + 1]) for n in range(len(self.told) - 1)]
        key, strength, gate, shift, sharpening, erase, add = jnp.split(pre, ends, axis=-1)
        batch, k, w = len(pre), self.heads, self.width
        return Heads(
            jnp.tanh(key).reshape(batch, k, w),
            jax.nn.softplus(strength),
            jax.nn.sigmoid(gate),
            jax.nn.softmax(shift.reshape(batch, k, -1)),
            1 + jax.nn.softplus(sharpening),
            jax.nn.sigmoid(erase).reshape(batch, -1, w),
            jnp.tanh(add).reshape(batch, -1, w),
        )


def trace(cell: TuringMachine, params: Params, x: jax.Array) -> Carry:
    """Returns the carry after each step of x (B, T, D), each leaf (B, T, ...), for inspection."""

    def body(carry: Carry, now: jax.Array) -> tuple[Carry, Carry]:
        after, _ = cell(params, carry, now)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
        return after, after

    _, states = jax.lax.scan(body, cell.initial_carry(len(x)), x.swapaxes(0, 1))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), states)
