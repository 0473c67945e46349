"""Pictures of layers, their arithmetic and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dlcore import nn
from dlcore.nn.stochastic_depth import survival_probabilities
from pictures.drawing import COLOURS, axes, numbers, picture, pictures
from pictures.samples import photograph


@picture(
    "Fully connected layer",
    alt="Four inputs and three outputs; a line from each input to each output stands for a weight.",
)
def dense() -> Figure:
    figure, (ax,) = axes(height=2.2, bare=True)
    for i, o in np.ndindex(4, 3):
        ax.plot([0, 2], [i, o + 0.5], color="#999999", linewidth=0.8, zorder=1)
    ax.scatter([0] * 4, range(4), s=260, color="#dcefe6", edgecolor="#555555", zorder=2)
    ax.scatter([2] * 3, np.arange(3) + 0.5, s=260, color="#fde6d8", edgecolor="#555555", zorder=2)
    ax.text(0, -0.75, "4 inputs", ha="center")
    ax.text(2, -0.75, "3 outputs", ha="center")
    ax.text(1, 3.35, "4 x 3 weights + 3 biases = 15 parameters", ha="center")
    ax.set(xlim=(-0.6, 2.6), ylim=(-1, 3.7))
    return figure


def _convolved(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    params = {"kernel": jnp.asarray(kernel)[:, :, None, None], "bias": jnp.zeros(1)}
    layer = nn.Conv(1, kernel.shape, padding="valid")
    return np.asarray(layer.apply({"params": params}, jnp.asarray(x)[None, :, :, None]))[0, :, :, 0]


@picture(
    "Convolution",
    alt="A table of 4 x 4 numbers, a filter of 2 x 2 numbers, and the 3 x 3 results; the window "
    "of the first result is marked in the input.",
)
def convolution() -> Figure:
    figure, found = axes(3, height=2.1)
    x = np.array([[1, 0, 2, 1], [0, 3, 1, 0], [2, 1, 0, 1], [1, 0, 1, 2]], float)
    kernel = np.array([[1, 0], [0, -1]], float)
    marked = np.full((4, 4), "#ffffff", object)
    marked[:2, :2] = "#fde6d8"
    first = np.full((3, 3), "#ffffff", object)
    first[0, 0] = "#fde6d8"
    numbers(found[0], x, "input", colours=marked)
    numbers(found[1], kernel, "filter", colours=[["#fde6d8"] * 2] * 2)
    numbers(found[2], _convolved(kernel, x), "output", colours=first)
    found[1].set(xlim=(-1.05, 3.05), ylim=(3.05, -1.05))
    return figure


@picture(
    "Kernel",
    alt="A photograph in grey and the answers of three kernels: a blur, one that finds "
    "horizontal edges and one that finds vertical edges.",
)
def kernels() -> Figure:
    grey = photograph(160).mean(-1)
    sobel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]], float)
    found = [grey, *(_convolved(k, grey) for k in (np.ones((7, 7)) / 49, sobel, sobel.T))]
    titles = ["picture", "7 x 7 mean", "horizontal edges", "vertical edges"]
    return pictures(found, titles, columns=4, cmap="gray")


@picture(
    "Stride",
    "Padding",
    "Output size",
    alt="Windows of three places over a row of seven: with valid padding and strides 1 and 2, "
    "with same padding and stride 2, and with full padding. Added zeros are hatched.",
)
def windows() -> Figure:
    cases = [("valid", 1), ("valid", 2), ("same", 2), ("full", 1)]
    figure, found = axes(2, 2, height=4.4, bare=True)
    for ax, (padding, stride) in zip(found, cases, strict=True):
        ((before, after),) = nn.pad_sizes(
            (7,), (3,), stride=(stride,), padding=padding, dilation=(1,)
        )
        for place in range(-before, 7 + after):
            inside = 0 <= place < 7
            ax.add_patch(
                Rectangle((place, 0), 1, 1, facecolor="#dcefe6" if inside else "white",
                          edgecolor="#555555", hatch="" if inside else "////")
            )  # fmt: skip
        count = nn.output_size(7 + before + after, 3, stride=stride)
        for number in range(count):
            left = -before + number * stride
            ax.plot([left + 0.1, left + 2.9], [-0.6 - 0.5 * number] * 2, linewidth=3,
                    color=COLOURS[number % 6], solid_capstyle="butt")  # fmt: skip
        ax.set(xlim=(-2.3, 9.3), ylim=(-5.2, 1.2))
        ax.set_title(f"{padding}, stride {stride}: {count} outputs", fontsize=9)
    return figure


@picture(
    "Max pooling",
    "Average pooling",
    alt="A table of 4 x 4 numbers in four coloured windows, the largest number of each window, "
    "and the mean of each, of which the first is 36.5.",
)
def pooling() -> Figure:
    x = np.array([[31, 15, 28, 184], [0, 100, 70, 38], [12, 12, 7, 2], [12, 12, 45, 6]], float)
    fills = np.array([["#dcefe6", "#fde6d8"], ["#fff3cc", "#eef2f7"]], object)
    figure, found = axes(3, height=2.1)
    batch = jnp.asarray(x)[None, :, :, None]
    numbers(found[0], x, "input", colours=fills.repeat(2, 0).repeat(2, 1))
    numbers(found[1], nn.max_pool(batch, 2)[0, :, :, 0], "max", colours=fills)
    numbers(found[2], nn.average_pool(batch, 2)[0, :, :, 0], "average", colours=fills)
    for ax in found[1:]:
        ax.set(xlim=(-1.05, 3.05), ylim=(3.05, -1.05))
    return figure


@picture(
    "1x1 convolution",
    alt="A stack of three maps; the numbers of one place in all maps are multiplied by a matrix "
    "and give the numbers of the same place in two maps.",
)
def pointwise() -> Figure:
    figure, (ax,) = axes(height=2.3, bare=True)
    for base, count, name in ((0.0, 3, "3 channels"), (5.5, 2, "2 channels")):
        for layer in reversed(range(count)):
            x, y = base + 0.35 * layer, 0.35 * layer
            for row, column in np.ndindex(4, 4):
                corner = x + 0.6 * column, y + 0.6 * (3 - row)
                fill = "#d55e00" if (row, column) == (1, 2) else "white"
                ax.add_patch(Rectangle(corner, 0.6, 0.6, edgecolor="#888888", facecolor=fill))
        ax.text(base + 1.4, -0.5, name, ha="center")
    ax.annotate("", (5.4, 1.6), (3.4, 1.6), arrowprops={"arrowstyle": "-|>", "color": "#333333"})
    ax.text(4.4, 1.8, "3 x 2 matrix,\nthe same at\nall places", ha="center", fontsize=9)
    ax.set(xlim=(-0.2, 8.7), ylim=(-0.8, 3.3), aspect="equal")
    return figure


@picture(
    "Channel",
    alt="A photograph of a flower and its red, green and blue channels in grey.",
)
def channels() -> Figure:
    image = photograph(160, "flower.jpg")
    shown = [image, *(np.repeat(image[..., c : c + 1], 3, -1) for c in range(3))]
    return pictures(shown, ["picture", "red", "green", "blue"], columns=4)


@picture(
    "Batch normalisation",
    alt="Histograms of three channels of a batch, of different means and widths before, and all "
    "of mean 0 and deviation 1 after batch normalisation.",
)
def batch_normalisation() -> Figure:
    figure, found = axes(2, height=2.3)
    x = jax.random.normal(jax.random.key(0), (2000, 3)) * jnp.array([0.5, 1.5, 3.0])
    x += jnp.array([2.0, -1.0, 5.0])
    y, _ = nn.BatchNorm().init_with_output(jax.random.key(0), x, train=True)
    for ax, values, title in ((found[0], x, "before"), (found[1], y, "after")):
        for channel in range(3):
            ax.hist(np.asarray(values[:, channel]), 40, alpha=0.6)
        ax.set(title=title, yticks=[])
    return figure


@picture(
    "Recurrent batch normalisation",
    alt="Two tables of examples by features. Batch normalisation takes its mean over a column, "
    "one feature of all examples; layer normalisation over a row, all features of one "
    "example.",
)
def normalised_axes() -> Figure:
    figure, found = axes(2, height=2.3)
    for ax, title in zip(found, ("batch normalisation", "layer normalisation"), strict=True):
        fills = np.full((4, 6), "#ffffff", object)
        fills[(slice(None), 2) if title.startswith("batch") else (1, slice(None))] = "#fde6d8"
        numbers(ax, np.full((4, 6), " ", object), title, form="s", colours=fills)
        ax.text(3, 4.5, "features", ha="center", fontsize=9)
        ax.text(-0.3, 2, "examples", va="center", rotation=90, fontsize=9, ha="center")
        ax.set(ylim=(4.8, -0.1), xlim=(-0.6, 6.1))
    return figure


@picture(
    "Dropout",
    alt="Activations of 16 steps by 24 units under dropout of a quarter: with a mask for each "
    "step, and with one mask for all steps; dropped units are white.",
)
def dropout() -> Figure:
    ones = jnp.ones((1, 16, 24))
    key = {"dropout": jax.random.key(1)}
    each = nn.Dropout(0.25).apply({}, ones, train=True, rngs=key)[0]
    same = jnp.broadcast_to(
        nn.Dropout(0.25).apply({}, ones[:, :1], train=True, rngs=key)[0], each.shape
    )
    figure, found = axes(2, height=2.4)
    for ax, values, title in zip(
        found, (each, same), ("each number", "one mask for all steps"), strict=True
    ):
        ax.imshow(np.asarray(values), cmap="Blues", vmin=0, vmax=2)
        ax.set(title=title, xlabel="unit", xticks=[], yticks=[])
    found[0].set_ylabel("step")
    return figure


@picture(
    "Stochastic depth",
    alt="Bars of the probability that each of twelve blocks survives, from nearly 1 down to 0.5.",
)
def stochastic_depth() -> Figure:
    figure, (ax,) = axes(height=2.1)
    ax.bar(range(1, 13), survival_probabilities(12, 0.5))
    ax.set(xlabel="block", ylabel="survives with probability", ylim=(0, 1))
    return figure


@picture(
    "Embedding",
    "One-hot encoding",
    "Pretrained embeddings",
    alt="A one-hot row with a 1 at the third of five words, the matrix of five rows whose third "
    "is marked, and that row as the result.",
)
def embedding() -> Figure:
    figure, found = axes(3, height=2.2)
    table = np.array(
        [[0.2, -1, 0.5], [1, 0.3, -0.7], [-0.4, 0.8, 0.1], [0, -0.6, 1.2], [0.9, 0.1, 0]]
    )
    word = np.eye(5)[[2]]
    marked = np.full((5, 3), "#ffffff", object)
    marked[2] = "#fde6d8"
    numbers(found[0], word.T, "one-hot", colours=[[fill[0]] for fill in marked])
    numbers(found[1], table, "matrix", colours=marked)
    numbers(found[2], (word @ table).T, "vector", colours=[["#fde6d8"]] * 3)
    for ax in (found[0], found[2]):
        ax.set(xlim=(-1.05, 2.05), ylim=(5.05, -0.05))
    return figure
