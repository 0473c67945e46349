"""Loss spikes: which finite losses are so far out of line that their step should not count.

A loss is a spike when it lies more than 6 standard deviations above the mean of the last W = 128
accepted losses. Only the loss counts: norms of gradients have heavy tails and change with the
learning rate, and a large finite gradient of an ordinary loss is what clipping is for.

- No loss is judged before W losses are known: at the start of a run the loss falls so fast that
  its deviation says little.
- A spike is not remembered: a spike that lies d above the others would lift the bound by about
  d / 2 for the next W steps.
- Training must go on when the loss has moved up for good, whether because other data came or
  because the parameters got worse, which no skipping repairs. By Cantelli's inequality at most 1
  in 1 + 6^2 = 37 values of any distribution lies that far above its mean. So each 36 accepted
  steps allow for one spike, and up to 10 allowances accumulate; a spike beyond that is accepted
  and remembered, and after about four of these the bound has followed.
- Losses that are equal up to rounding have no deviation to measure a spike by; none is a spike.

This is not for a classifier that has memorised its data: its losses are nearly 0 except for rare
large ones, which are not spikes but what is left to learn.
"""

import flax.struct
import jax
import jax.numpy as jnp

from dlcore.types import TrainState

WINDOW = 128
SIGMAS = 6.0
# By Cantelli's inequality; see above.
STEPS_PER_SPIKE = 36
# As many as end a run when they are not finite: bad luck is rarer, and a change for good costs no
# more steps than that.
IN_A_ROW = 10


class RecentLosses(flax.struct.PyTreeNode):
    """The losses of the latest accepted steps, and how many spikes may be skipped.

    Attributes:
        losses: [W], the newest last, float32; those before the first are 0.
        count: how many of them there are, at most W, int32.
        allowance: accepted steps not yet used up by a spike, each of which uses up
            `STEPS_PER_SPIKE`, int32.
    """

    losses: jax.Array
    count: jax.Array
    allowance: jax.Array

    @classmethod
    def create(cls) -> "RecentLosses":
        """Returns a memory without losses and with the full allowance."""
        return cls(
            jnp.zeros(WINDOW, jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.full((), IN_A_ROW * STEPS_PER_SPIKE, jnp.int32),
        )

    def is_spike(self, loss: jax.Array) -> jax.Array:
        """Returns whether to skip a step with this loss, a bool; False if it is not finite."""
        # Differences of neighbouring losses are exact, so neither sum below cancels.
        newest = self.losses[-1]
        offsets = self.losses - newest
        mean = jnp.mean(offsets)
        deviation = jnp.sqrt(jnp.sum((offsets - mean) ** 2) / (WINDOW - 1))
        rounding = jnp.finfo(jnp.float32).eps * jnp.abs(newest + mean)
        return (
            (self.count == WINDOW)
            & (deviation > rounding)
            & (loss - newest - mean > SIGMAS * deviation)
            & jnp.isfinite(loss)
            & (self.allowance >= STEPS_PER_SPIKE)
        )

    def accept(self, loss: jax.Array) -> "RecentLosses":
        """Returns the memory after an accepted step; it leaves out a loss that is not finite."""
        finite = jnp.isfinite(loss)
        shifted = jnp.concatenate([self.losses[1:], loss[None]])
        return RecentLosses(
            jnp.where(finite, shifted, self.losses),
            jnp.minimum(self.count + finite.astype(jnp.int32), WINDOW),
            jnp.minimum(self.allowance + finite.astype(jnp.int32), IN_A_ROW * STEPS_PER_SPIKE),
        )

    def skip(self) -> "RecentLosses":
        """Returns the memory after a skipped spike."""
        return self.replace(allowance=self.allowance - STEPS_PER_SPIKE)


class SpikeGuardedState(TrainState):
    """A training state that makes the health guard skip loss spikes.

    It is a class of its own because Orbax cannot restore a checkpoint into a state that has one
    more field, not even one that is None.

    Attributes:
        recent: the recent losses, by which the guard recognises a spike.
    """

    recent: RecentLosses = flax.struct.field(default_factory=RecentLosses.create)

    __repr__ = TrainState.__repr__
