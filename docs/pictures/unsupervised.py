"""Pictures of learning without labels: small models, trained on the digits as the site is built."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dlcore import optim
from dlcore.losses import ADVERSARIAL, r1_penalty
from dlcore.models.autoencoder import (
    Autoencoder,
    DenseDecoder,
    DenseEncoder,
    VariationalAutoencoder,
)
from dlcore.models.boltzmann import RBM, Binary, gibbs
from dlcore.models.generative import DenseDiscriminator, DenseGenerator
from dlcore.nn.corruption import corrupt
from dlcore.report.plots.scatter import tsne
from pictures.drawing import COLOURS, axes, picture, pictures
from pictures.samples import digits

_SHAPE = (8, 8, 1)


def _images() -> jax.Array:
    return jnp.asarray(digits()[0])[..., None]


def _trained(loss: Callable[..., jax.Array], params: Any, steps: int, rate: float = 2e-3) -> Any:
    """Returns parameters after steps of Adam on batches of 128 digits: loss(params, x, key)."""
    images, tx = _images()[:1500], optim.optimizer("adam", rate)

    def step(carry: tuple, key: jax.Array) -> tuple:
        params, state = carry
        x = images[jax.random.randint(key, (128,), 0, len(images))]
        update, state = tx.update(jax.grad(loss)(params, x, key), state, params)
        return (jax.tree.map(jnp.add, params, update), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.jit(lambda start: jax.lax.scan(step, start, keys)[0])((params, tx.init(params)))[0]


@functools.cache
def _autoencoder(noise: float) -> Callable[[jax.Array], jax.Array]:
    model = Autoencoder(DenseEncoder(8, (128,)), DenseDecoder(_SHAPE, (128,)))
    params = model.init(jax.random.key(0), _images()[:1])["params"]

    def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        seen = corrupt("gaussian", key, x, noise) if noise else x
        return jnp.square(model.apply({"params": params}, seen)[0] - x).mean()

    params = _trained(loss, params, 1500)
    return lambda x: model.apply({"params": params}, x)[0]


@picture(
    "Autoencoder",
    "Linear autoencoder",
    alt="Eight held-out digits; below, each drawn again from 8 numbers by an autoencoder, and "
    "from 8 principal components, which blur more.",
)
def redrawn() -> Figure:
    held = _images()[1500:1508]
    flat = np.asarray(_images()[:1500]).reshape(1500, -1)
    mean = flat.mean(0)
    axes_ = np.linalg.svd(flat - mean, full_matrices=False)[2][:8]
    linear = (np.asarray(held).reshape(8, -1) - mean) @ axes_.T @ axes_ + mean
    rows = (held, _autoencoder(0.0)(held), linear.reshape(8, 8, 8))
    names = ("digit", "net, 8 numbers", "8 components")
    return _rows(rows, names)


def _rows(rows: Any, names: Any) -> Figure:
    """Rows of small pictures, each after its name."""
    figure, found = axes(1, len(rows), height=0.25 + 0.62 * len(rows))
    for ax, images, name in zip(found, rows, names, strict=True):
        images = np.asarray(images).reshape(-1, 8, 8)
        ax.imshow(np.concatenate(np.pad(images, ((0, 0), (0, 0), (0, 1))), 1), vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
    return figure


@picture(
    "Denoising autoencoder",
    alt="Eight held-out digits, the same with much noise, and what a denoising autoencoder "
    "makes of the noisy ones: digits without noise.",
)
def denoised() -> Figure:
    held = _images()[1500:1508]
    noisy = corrupt("gaussian", jax.random.key(5), held, 0.4)
    return _rows((held, noisy, _autoencoder(0.4)(noisy)), ("digit", "with noise", "denoised"))


@picture(
    "Variational autoencoder",
    alt="A table of digits decoded from a plane of two latent numbers: neighbours are alike, "
    "and kinds of digits pass into each other.",
)
def latent_plane() -> Figure:
    model = VariationalAutoencoder(DenseEncoder(4, (128,)), DenseDecoder(_SHAPE, (128,)))
    params = model.init(jax.random.key(0), _images()[:1])["params"]

    def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        terms = model.apply({"params": params}, x, key, method="terms")
        return -(terms.log_likelihood.mean(0) - terms.kl.sum(-1)).mean()

    params = _trained(loss, params, 2500)
    line = jax.scipy.stats.norm.ppf(jnp.linspace(0.04, 0.96, 12))
    z = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    drawn = np.asarray(model.apply({"params": params}, z, method="decode"))[..., 0]
    sheet = drawn.reshape(12, 12, 8, 8).swapaxes(1, 2).reshape(96, 96)
    figure, (ax,) = axes(height=3.4)
    ax.imshow(sheet)
    ax.set(xlabel="first latent number", ylabel="second", xticks=[], yticks=[])
    return figure


@functools.cache
def _machine() -> tuple[RBM, Any]:
    rbm = RBM(Binary(), visible=64, hidden=48)

    def loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        draw, chain = jax.random.split(key)
        bits = jax.random.bernoulli(draw, x.reshape(len(x), -1)).astype(jnp.float32)
        v = jax.lax.stop_gradient(bits)
        ends, _ = gibbs(rbm.machine(params), v, chain, steps=1)
        machine = rbm.machine(params)
        return (machine.free_energy(v) - machine.free_energy(jax.lax.stop_gradient(ends))).mean()

    return rbm, _trained(loss, rbm.init(jax.random.key(0)), 3000, 5e-3)


@picture(
    "Restricted Boltzmann machine",
    alt="The weights of 24 hidden units of a machine that was trained on digits, as pictures: "
    "strokes and spots.",
)
def machine_weights() -> Figure:
    _, params = _machine()
    kernel = np.asarray(params["kernel"]).T.reshape(-1, 8, 8)
    strongest = np.argsort(-np.square(kernel).sum((1, 2)))[:24]
    most = float(np.abs(kernel).max()) * 0.8
    return pictures(kernel[strongest], [""] * 24, columns=8, cmap="RdBu", vmin=-most, vmax=most)


@picture(
    "Contrastive divergence",
    alt="Eight digits as bits, and what 1, 10 and 200 steps of Gibbs sampling make of each: the "
    "chains start at the data and move away from it.",
)
def chains() -> Figure:
    rbm, params = _machine()
    draw, chain = jax.random.split(jax.random.key(2))
    v = jax.random.bernoulli(draw, _images()[1500:1508].reshape(8, -1)).astype(jnp.float32)
    rows = [v]
    for steps in (1, 10, 200):
        rows.append(gibbs(rbm.machine(params), v, chain, steps=steps)[0])
    return _rows(rows, ("data", "1 step", "10 steps", "200 steps"))


@picture(
    "Generative adversarial network",
    alt="Points of a ring of eight clusters in grey, and points that a generator draws before "
    "training, after 300 and after 3,000 steps: first one heap, then all over the ring.",
)
def ring() -> Figure:
    generator, discriminator = (
        DenseGenerator((2,), (64, 64), bounded=False),
        DenseDiscriminator((64, 64)),
    )
    keys = jax.random.split(jax.random.key(0), 4)
    g = generator.init(keys[0], jnp.zeros((1, 2)))
    d = discriminator.init(keys[1], jnp.zeros((1, 2)))
    head = jax.random.normal(keys[2], (64,)) / 8
    params, losses = {"g": g, "d": d, "head": head}, ADVERSARIAL["non_saturating"]
    tx = {name: optim.optimizer("adam", 2e-3, b1=0.5) for name in ("g", "d")}

    def data(key: jax.Array) -> jax.Array:
        mode, noise = jax.random.split(key)
        angle = jax.random.randint(mode, (256,), 0, 8) * jnp.pi / 4
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1) + 0.02 * jax.random.normal(
            noise, (256, 2)
        )

    def score(d: Any, x: jax.Array) -> jax.Array:
        return discriminator.apply(d["net"], x) @ d["head"]

    def step(carry: tuple, key: jax.Array) -> tuple:
        g, d, states = carry
        a, b = jax.random.split(key)
        real, noise = data(a), jax.random.normal(b, (256, 2))

        def d_loss(d: Any) -> jax.Array:
            drawn = jax.lax.stop_gradient(generator.apply(g, noise))
            penalty = r1_penalty(lambda x: score(d, x), real).mean()
            return losses.discriminator(score(d, real), score(d, drawn)).mean() + 0.1 * penalty

        update, d_state = tx["d"].update(jax.grad(d_loss)(d), states["d"], d)
        d = jax.tree.map(jnp.add, d, update)
        gradient = jax.grad(lambda g: losses.generator(score(d, generator.apply(g, noise))).mean())(
            g
        )
        update, g_state = tx["g"].update(gradient, states["g"], g)
        return (jax.tree.map(jnp.add, g, update), d, {"g": g_state, "d": d_state}), None

    players = {"net": d, "head": params["head"]}
    carry = (g, players, {"g": tx["g"].init(g), "d": tx["d"].init(players)})
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0])
    noise, real = jax.random.normal(keys[3], (500, 2)), np.asarray(data(keys[3]))
    figure, found = axes(3, height=2.1)
    for ax, (steps, title) in zip(
        found, ((0, "before"), (300, "300 steps"), (2700, "3,000 steps")), strict=True
    ):
        carry = run(carry, jax.random.split(jax.random.key(steps), steps)) if steps else carry
        drawn = np.asarray(generator.apply(carry[0], noise))
        ax.plot(*real.T, ".", color="#bbbbbb", markersize=4)
        ax.plot(*drawn.T, ".", color=COLOURS[0], markersize=2)
        ax.set(
            xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", title=title, xticks=[], yticks=[]
        )
    return figure


@picture(
    "t-SNE",
    alt="Four hundred digits placed in the plane by t-SNE, coloured by class: each class is a "
    "heap of its own.",
)
def neighbours() -> Figure:
    images, labels = digits()
    points = tsne(images[:400].reshape(400, -1), steps=500)
    figure, (ax,) = axes(height=3.2)
    for k in range(10):
        own = points[labels[:400] == k]
        ax.plot(*own.T, ".", color=COLOURS[k % 7], alpha=0.5, markersize=5)
        ax.text(*np.median(own, 0), str(k), fontsize=13, weight="bold", ha="center", va="center")
    ax.set(xticks=[], yticks=[])
    return figure
