"""Forecasters map a window of a series to the steps that come after it, all at once.

A body reads the context, and one linear layer computes every step of the horizon directly, so that
no error is fed back. Bodies of `ACROSS` read all columns together; those of `EACH` map each column
separately, with the same weights (Nie et al. 2023, section 3.1).

Shapes: B batch, C steps of the context, H steps of the horizon, D columns, Q outputs of each step
(quantiles, or one mean), F features, P patches.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

from dlcore import errors
from dlcore.errors import InputError
from dlcore.nn import Conv, Dense, Dropout
from dlcore.nn.recurrent import cell
from dlcore.nn.recurrent.layers import RecurrentStack
from dlcore.nn.reversible import ReversibleNorm
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Activations


class RecurrentBody(nn.Module):
    """Recurrent layers, whose last output is the summary of a context.

    Attributes:
        cell: one of `dlcore.nn.recurrent.CELLS`.
        features: F, the width of each layer.
        layers: the number of layers.
        dropout: the share of values dropped between the layers and of the summary.
    """

    cell: str
    features: int = 32
    layers: int = 1
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps [B, C, D] to a summary [B, F] and the outputs of each layer."""
        cells = (cell(self.cell, self.features),) * self.layers
        stack = RecurrentStack(cells, dropout=self.dropout, name="stack")
        _, y, activations = stack(x, train=train)
        return Dropout(self.dropout)(y[:, -1], train), activations


class ConvolutionBody(nn.Module):
    """Residual blocks of causal convolutions, with a dilation that doubles from block to block.

    As in Bai et al. (2018, section 3) a block has two convolutions, each followed by a rectifier;
    the summary is the last step, whose receptive field is 1 + 2 (k - 1) (2^layers - 1).

    Attributes:
        features: F, the channels of each layer.
        layers: the number of blocks.
        kernel: k, the number of steps that a convolution sees.
        dropout: the share of values dropped after each convolution.
    """

    features: int = 32
    layers: int = 4
    kernel: int = 3
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps [B, C, D] to a summary [B, F] and the outputs of each block [B, C, F]."""
        activations = {}
        x = Dense(self.features, name="inputs")(x)
        for number in range(self.layers):
            y, dilation = x, 2**number
            for place in range(2):
                y = Conv(
                    self.features,
                    (self.kernel,),
                    padding=(((self.kernel - 1) * dilation, 0),),
                    dilation=dilation,
                    name=f"block_{number}_{place}",
                )(y)
                y = Dropout(self.dropout)(nn.relu(y), train)
            x = activations[f"block_{number}"] = x + y
        return x[:, -1], activations


class PatchBody(nn.Module):
    """A transformer whose tokens are patches of one column: PatchTST (Nie et al. 2023).

    The last value is repeated `stride` times after the context, as in the paper. Norms are layer
    norms where the paper has batch norms, so that windows do not affect each other.

    Attributes:
        features: F, the width of a token.
        layers: the number of blocks.
        heads: the number of attention heads, which divides F.
        hidden: the inner width of the feed-forward nets; None takes 2 F, as in the paper.
        patch: the number of steps of a patch.
        stride: the number of steps from one patch to the next.
        dropout: the share of values dropped from each branch and from the tokens.
    """

    features: int = 16
    layers: int = 3
    heads: int = 4
    hidden: int | None = None
    patch: int = 16
    stride: int = 8
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps [B, C, 1] to a summary [B, P F], the encoded patches side by side."""
        x = jnp.concatenate([x[..., 0], jnp.repeat(x[:, -1:, 0], self.stride, 1)], axis=1)
        count = (x.shape[1] - self.patch) // max(1, self.stride) + 1
        if count < 1 or self.stride < 1 or self.patch < 1:
            raise InputError(
                f"patches of {self.patch} steps at a distance of {self.stride} do not fit into a "
                f"context of {x.shape[1] - self.stride}; give shorter ones or a longer --context"
            )
        places = jnp.arange(count)[:, None] * self.stride + jnp.arange(self.patch)[None]
        config = TransformerConfig(
            self.features,
            self.layers,
            self.heads,
            hidden=self.hidden or 2 * self.features,
            norm="layer",
            position="learned",
            context=count,
            bias=True,
            dropout=self.dropout,
        )
        tokens = Dense(self.features, name="patches")(x[:, places])
        _, y, activations = Transformer(config, causal=False, name="transformer")(
            Dropout(self.dropout)(tokens, train), train=train
        )
        return y.reshape(len(y), -1), activations


class LinearBody(nn.Module):
    """An identity body, so that the forecast is a linear map of the context (Zeng et al. 2023)."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps [B, C, 1] to the summary [B, C], its values."""
        del train
        return x[..., 0], {}


# Bodies that read all columns together, and those that read each alone.
ACROSS: dict[str, Callable[..., nn.Module]] = {
    "rnn": functools.partial(RecurrentBody, "rnn"),
    "lstm": functools.partial(RecurrentBody, "lstm"),
    "gru": functools.partial(RecurrentBody, "gru"),
    "convolution": ConvolutionBody,
}
EACH: dict[str, Callable[..., nn.Module]] = {"transformer": PatchBody, "linear": LinearBody}
FORECASTERS = (*ACROSS, *EACH)


def body(name: str) -> Callable[..., nn.Module]:
    """Returns the builder of a body, which takes options by keyword.

    Raises:
        InputError: for a name that is not in `FORECASTERS`.
    """
    return errors.pick("forecaster", name, {**ACROSS, **EACH})


class _Headed(nn.Module):
    """A body and a linear layer from its summary to forecasts, [B, H, D', Q] for D' columns."""

    body: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, Activations]:
        summary, activations = self.body()(x, train)
        horizon, columns, outputs = self.shape
        y = Dense(horizon * columns * outputs, kernel_init=self.kernel_init, name="head")(summary)
        return y.reshape(-1, *self.shape), activations


class Forecaster(nn.Module):
    """A network that forecasts the next steps of a series directly.

    Attributes:
        body: one of `FORECASTERS`.
        columns: D.
        horizon: H.
        outputs: Q.
        reversible: whether windows are normalised and forecasts restored, by `ReversibleNorm`.
        residual: whether the network forecasts the residual of a linear map of the context that all
            columns share. The map is not a parameter but the collection "linear", `kernel` (C, H)
            and `bias` (H,), which stays as given. The network starts at 0.
        options: the options of the body, (name, value) each.
    """

    body: str
    columns: int
    horizon: int
    outputs: int = 1
    reversible: bool = False
    residual: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    @nn.compact
    def __call__(self, context: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps a context [B, C, D] to forecasts [B, H, D, Q], with quantiles in any order.

        Draws from the stream "dropout".

        Raises:
            InputError: for an unknown body.
        """
        build = functools.partial(body(self.body), **dict(self.options))
        x = context
        if self.reversible:
            norm = ReversibleNorm(self.columns, name="norm")
            x, moments = norm(context)
        init = nn.initializers
        start = init.zeros_init() if self.residual else init.lecun_normal()
        if self.body in ACROSS:
            sizes = self.horizon, self.columns, self.outputs
            y, activations = _Headed(build, sizes, start, name="network")(x, train)
        else:
            sizes = self.horizon, 1, self.outputs
            network = _alone(_Headed)(build, sizes, start, name="network")
            y, activations = network(x[..., None], train)
            y = y[..., 0, :]
        if self.residual:
            shape = x.shape[1], self.horizon
            kernel = self.variable("linear", "kernel", jnp.zeros, shape).value.astype(x.dtype)
            bias = self.variable("linear", "bias", jnp.zeros, shape[1:]).value.astype(x.dtype)
            straight = jnp.einsum("bcd,ch->bhd", x, kernel) + bias[None, :, None]
            y = y + straight[..., None]
        if self.reversible:
            rows = [norm.restore(y[..., place], moments) for place in range(self.outputs)]
            y = jnp.stack(rows, axis=-1)
        return y, activations


def _alone(module: Any) -> Any:
    """Maps a module over the columns of [B, C, D, 1], with its weights shared.

    This is a map over columns, not a larger batch, because dropout draws by the positions of rows
    in the global batch.
    """
    return nn.vmap(
        module,
        in_axes=(2, None),
        out_axes=(2, 1),
        variable_axes={"params": None},
        split_rngs={"params": False, "dropout": True},
    )
