"""Pictures of losses, optimizers, regularisation and practice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

from dlcore import nn, optim
from dlcore.data import Arrays, Loader
from dlcore.losses import binary_cross_entropy
from dlcore.nn.augment import augmentation
from dlcore.report import confusion_matrix
from pictures.drawing import COLOURS, add, axes, curves, numbers, picture, pictures
from pictures.samples import digits, photograph


@picture(
    "Cross-entropy",
    "Binary cross-entropy",
    alt="On the left -log p, which grows without bound as the probability of the truth falls to "
    "0; on the right binary cross-entropy by the logit, for a positive and a negative "
    "example.",
)
def cross_entropy() -> Figure:
    figure, found = axes(2)
    p = np.linspace(0.005, 1, 300)
    curves(found[0], p, {"": -np.log(p)}, xlabel="probability of the truth", ylabel="loss")
    z = jnp.linspace(-5, 5, 201)
    both = {f"y = {y}": binary_cross_entropy(z, jnp.full_like(z, y)) for y in (1, 0)}
    curves(found[1], z, both, xlabel="logit")
    return figure


@picture(
    "Mean squared error",
    alt="The squared error by the error, a parabola, beside the absolute error.",
)
def squared_error() -> Figure:
    figure, (ax,) = axes(height=2.1)
    error = np.linspace(-2.5, 2.5, 201)
    curves(ax, error, {"squared": error**2, "absolute": np.abs(error)}, xlabel="error")
    return figure


def _valley(w: jax.Array) -> jax.Array:
    """A long bent valley: steep across, flat along."""
    x, y = w
    return 2.0 * (y - 0.25 * x**2) ** 2 + 0.08 * (x - 2.0) ** 2


@functools.cache
def _path(name: str, rate: float, steps: int = 120) -> np.ndarray:
    tx = optim.optimizer(name, rate)

    def step(carry: tuple, _: None) -> tuple:
        w, state = carry
        update, state = tx.update(jax.grad(_valley)(w), state, w)
        return (w + update, state), w

    w = jnp.array([-2.6, 2.6])
    return np.asarray(jax.lax.scan(step, (w, tx.init(w)), None, length=steps)[1])


_RATES = {
    "sgd": 0.1,
    "momentum": 0.02,
    "adagrad": 0.5,
    "adadelta": 20.0,
    "rmsprop": 0.05,
    "adam": 0.15,
}


def _optimizer(name: str) -> Figure:
    figure, (ax,) = axes(height=3.0)
    x, y = np.meshgrid(np.linspace(-3.2, 3.2, 120), np.linspace(-1.2, 3.2, 100))
    ax.contour(
        x, y, np.log(np.asarray(_valley((x, y))) + 0.02), 14, colors="#cccccc", linewidths=0.7
    )
    for other, rate in _RATES.items():
        path = _path(other, rate)
        if other != name:
            ax.plot(*path.T, color="#999999", linewidth=0.6)
    path = _path(name, _RATES[name])
    ax.plot(*path.T, "-o", markersize=2.5, color=COLOURS[1], label=f"{name}, rate {_RATES[name]:g}")
    ax.plot(2, 1, "*", color="black", markersize=10)
    ax.set(xlim=(-3.2, 3.2), ylim=(-1.2, 3.2), xticks=[], yticks=[])
    ax.legend(loc="lower left")
    return figure


for _term, _name in {
    "Gradient descent": "sgd",
    "Momentum": "momentum",
    "AdaGrad": "adagrad",
    "Adadelta": "adadelta",
    "RMSProp": "rmsprop",
    "Adam": "adam",
}.items():
    add(
        f"optimizer_{_name}",
        (_term,),
        f"The way of {_term} over 120 steps in a long bent valley, from the upper left to the star "
        "at its lowest point; the ways of the other optimizers are grey.",
        functools.partial(_optimizer, _name),
    )


@picture(
    "Learning rate",
    alt="Learning rates over a run of 1,000 steps: constant, cosine, linear, steps down by ten, "
    "and constant with a decay at the end, all after a warm-up of 50 steps.",
)
def schedules() -> Figure:
    figure, (ax,) = axes(height=2.4)
    steps = np.arange(0, 1001, 5)
    shown = {}
    for name in ("constant", "cosine", "linear", "step", "wsd"):
        at = (400, 800) if name == "step" else ()
        rate = optim.schedule(name, 1.0, steps=1000, warmup_steps=50, boundaries=at)
        shown[name] = [float(rate(step)) for step in steps]
    curves(ax, steps, shown, xlabel="step", ylabel="rate")
    return figure


@picture(
    "Epoch",
    alt="The order in which a loader gives twelve examples in three epochs: each row has all of "
    "them once, in another order; colours show the three batches.",
)
def epochs() -> Figure:
    figure, (ax,) = axes(height=1.6)
    batches = Loader(Arrays({"x": np.arange(12)}), 4, seed=0).batches()
    order = np.concatenate([next(batches)["x"] for _ in range(9)]).reshape(3, 12)
    fills = [["#dcefe6"] * 4 + ["#fde6d8"] * 4 + ["#fff3cc"] * 4] * 3
    numbers(ax, order, form="d", colours=fills)
    for epoch in range(3):
        ax.text(-0.2, epoch + 0.5, f"epoch {epoch + 1}", ha="right", va="center", fontsize=9)
    ax.set_xlim(-2.2, 12.1)
    return figure


@picture(
    "Xavier initialisation",
    alt="The deviation of the signals through 20 layers of width 256 with ReLUs: with He's "
    "weights it stays near 1, with Xavier's it falls to a thousandth.",
)
def initialisers() -> Figure:
    figure, (ax,) = axes(height=2.3)
    shown = {}
    for name in ("he_normal", "xavier_normal"):
        x, sizes = jax.random.normal(jax.random.key(0), (64, 256)), []
        for layer in range(20):
            w = nn.initialiser(name)(jax.random.key(layer), (256, 256), jnp.float32)
            x = jax.nn.relu(x @ w)
            sizes.append(float(jnp.sqrt((x**2).mean())))
        shown[name] = sizes
    curves(ax, range(1, 21), shown, xlabel="layer", ylabel="size of signals")
    ax.set_yscale("log")
    return figure


@picture(
    "Gradient clipping",
    alt="Arrows of five gradients before and after clipping: by the norm long arrows are "
    "shortened and keep their direction; by value they are bent into a square.",
)
def clipping() -> Figure:
    figure, found = axes(2, height=2.7)
    angles = np.linspace(0.2, 2.9, 5)
    gradients = np.array([0.6, 1.8, 2.2, 0.8, 1.9])[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], 1
    )
    for ax, tx, title in (
        (found[0], optim.clip_by_global_norm(1.0), "by norm"),
        (found[1], optim.clip_by_value(1.0), "by value"),
    ):
        for gradient in jnp.asarray(gradients):
            clipped, _ = tx.update(gradient, tx.init(gradient))
            for end, colour, width in ((gradient, "#bbbbbb", 1.0), (clipped, COLOURS[0], 2.0)):
                arrow = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0}
                ax.annotate("", np.asarray(end), (0, 0), arrowprops=arrow)
        ax.set(
            xlim=(-2.3, 2.3),
            ylim=(-0.3, 2.3),
            aspect="equal",
            title=title,
            xticks=[-1, 0, 1],
            yticks=[0, 1],
        )
    return figure


@picture(
    "LASSO",
    "Ridge",
    "Elastic net",
    alt="The curves on which each penalty is 1: a square on its corner for LASSO, a circle for "
    "ridge, and between them the elastic net.",
)
def penalties() -> Figure:
    figure, (ax,) = axes(height=2.8)
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 41), np.linspace(-1.2, 1.2, 41))
    points = jnp.stack([x.ravel(), y.ravel()], -1)[..., None]
    named = {
        "LASSO": optim.lasso(1.0),
        "ridge": optim.ridge(1.0),
        "elastic net, a = 0.5": optim.elastic_net(1.0, mix=0.5),
    }
    for colour, (name, penalty) in zip(COLOURS, named.items(), strict=False):
        values = [float(penalty({"kernel": point})) for point in points]
        ax.contour(x, y, np.reshape(values, x.shape), [1.0], colors=colour)
        ax.plot([], [], color=colour, label=name)
    ax.set(aspect="equal", xlabel="first weight", ylabel="second weight")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@functools.cache
def _fits() -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Polynomials of degree 12 through 14 noisy points, with and without a penalty."""
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(-1, 1, 14))
    y = np.sin(2.5 * x) + rng.normal(0, 0.25, 14)
    line = np.linspace(-1, 1, 200)
    basis, wide = np.vander(x, 13), np.vander(line, 13)
    found = {}
    for name, strength in (("no penalty", 0.0), ("ridge", 0.05)):
        weights = np.linalg.lstsq(
            np.concatenate([basis, np.sqrt(strength) * np.eye(13)]),
            np.concatenate([y, np.zeros(13)]),
        )[0]
        found[name] = wide @ weights
    return x, y, line, found


@picture(
    "Regularisation",
    alt="Fourteen noisy points and two polynomials of degree 12: without a penalty it swings "
    "through the points, with ridge it follows their trend.",
)
def regularisation() -> Figure:
    figure, (ax,) = axes(height=2.3)
    x, y, line, found = _fits()
    ax.plot(x, y, "o", color="black", markersize=4)
    curves(ax, line, found)
    ax.set_ylim(-2, 2)
    return figure


@picture(
    "Early stopping",
    "Overfitting a small batch",
    alt="Loss of a network on 60 digits: on the training digits it falls to 0, on others it "
    "falls, turns and rises; a line marks the best step.",
)
def early_stopping() -> Figure:
    images, labels = digits()
    x, y = jnp.asarray(images.reshape(-1, 64)), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(0))
    params = [
        nn.initialiser("he_normal")(key, shape, jnp.float32)
        for key, shape in zip(keys, ((64, 256), (256, 10)), strict=True)
    ]
    tx = optim.optimizer("adam", 0.01)

    def loss(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = jax.nn.relu(x @ params[0]) @ params[1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        train, gradient = jax.value_and_grad(loss)(params, x[:60], y[:60])
        update, state = tx.update(gradient, state, params)
        held = loss(params, x[1000:], y[1000:])
        return (jax.tree.map(jnp.add, params, update), state), (train, held)

    _, (train, held) = jax.lax.scan(step, (params, tx.init(params)), None, length=200)
    figure, (ax,) = axes(height=2.3)
    curves(ax, range(200), {"training": train, "held out": held}, xlabel="step", ylabel="loss")
    ax.axvline(int(held.argmin()), color="#888888", linestyle=":")
    ax.set_ylim(0, 2.4)
    return figure


@picture(
    "Data augmentation",
    alt="A photograph and seven random changes of it: flip, turn and shift, crop, brightness, "
    "contrast, hue, noise, and a hole.",
)
def augmentations() -> Figure:
    batch = {
        "image": jnp.asarray(photograph(96), jnp.float32)[None],
        "label": jnp.zeros(1, jnp.int32),
    }
    batch |= {"weight": jnp.ones(1), "row": jnp.arange(1)}
    steps = {
        "flip": "flip:1",
        "turn, shift": "affine:20",
        "crop": "crop:24",
        "brightness": "brightness:0.6",
        "contrast": "contrast:0.8",
        "hue": "hue:0.3",
        "noise, hole": "noise:25,cutout:36",
    }
    shown = [batch["image"][0]]
    for number, text in enumerate(steps.values()):
        shown.append(augmentation(text)(jax.random.key(number), batch)["image"][0])
    images = [np.asarray(one).clip(0, 255).astype(np.uint8) for one in shown]
    return pictures(images, ["picture", *steps], columns=4)


@picture(
    "Covariate shift",
    alt="Two histograms of the brightness of pictures: that of training and, shifted to the "
    "right, that of use.",
)
def covariate_shift() -> Figure:
    figure, (ax,) = axes(height=2.1)
    images, _ = digits()
    means = images.mean((1, 2))
    for values, name in (
        (means, "training"),
        (np.clip(images * 1.4, 0, 1).mean((1, 2)), "in use, brighter"),
    ):
        ax.hist(values, 50, alpha=0.6, label=name)
    ax.set(xlabel="mean of a digit's pixels", yticks=[])
    ax.legend()
    return figure


@picture(
    "Gradient checking",
    alt="Error of central differences by the step h, both axes logarithmic, in single and "
    "double precision: it falls with h until rounding takes over, and then rises.",
)
def gradient_checking() -> Figure:
    figure, (ax,) = axes(height=2.5)
    h = 10.0 ** np.arange(-9, 0, 0.25)
    for dtype in (np.float32, np.float64):
        steps, x = h.astype(dtype), dtype(1.0)
        slope = (np.tanh(x + steps) - np.tanh(x - steps)) / (2 * steps)
        ax.loglog(h, np.abs(slope - (1 - np.tanh(1.0) ** 2)) + 1e-17, label=np.dtype(dtype).name)
    ax.set(xlabel="h", ylabel="error of the slope of tanh at 1")
    ax.legend()
    return figure


@functools.cache
def guesses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns held-out digits, their classes, and the probabilities of the five nearest of 300."""
    images, labels = digits()
    flat = images.reshape(len(images), -1)
    model = KNeighborsClassifier(5, weights="distance").fit(flat[:300], labels[:300])
    return images[300:], labels[300:], model.predict_proba(flat[300:])


@picture(
    "Error analysis",
    alt="A confusion matrix of ten digits: nearly all counts lie on the diagonal; the others "
    "show which digits are taken for which.",
)
def confusion() -> Figure:
    _, labels, probabilities = guesses()
    matrix = np.asarray(confusion_matrix(labels, probabilities.argmax(-1), num_classes=10))
    figure, (ax,) = axes(height=3.6)
    ax.imshow(np.sqrt(matrix), cmap="Blues")
    for (row, column), value in np.ndenumerate(matrix):
        if value:
            ax.text(column, row, int(value), ha="center", va="center", fontsize=8,
                    color="white" if row == column else "black")  # fmt: skip
    ax.set(xlabel="said", ylabel="true", xticks=range(10), yticks=range(10))
    return figure


@picture(
    "Image classification",
    "ILSVRC",
    alt="Three handwritten digits and, below each, bars of the probability of the ten classes: "
    "two are certain, one is divided between two classes.",
)
def classification() -> Figure:
    images, labels, probabilities = guesses()
    order = np.argsort(probabilities.max(-1))
    figure, found = axes(3, 2, height=2.9)
    for column, place in enumerate((order[-1], order[-2], order[20])):
        found[column].imshow(images[place])
        found[column].set_axis_off()
        found[column].set_title(f"true: {labels[place]}", fontsize=9)
        found[3 + column].bar(range(10), probabilities[place])
        found[3 + column].set(ylim=(0, 1), xticks=range(0, 10, 3), yticks=[0, 1])
    return figure
