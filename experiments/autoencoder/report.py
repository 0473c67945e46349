"""The report sections of an autoencoder.

Shapes: N images, H W C the height, width and channels of an image, K numbers of a code.
"""

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import evenly_spaced
from dlcore.evaluation import latent_use
from dlcore.launch.stages import strip_sections, write_row
from dlcore.report import Section, picture_section, plots
from dlcore.report.filters import first_filters
from dlcore.report.plots.scatter import LEAST_POINTS, plot_thumbnails, tsne
from dlcore.types import Variables

from . import evaluators

if TYPE_CHECKING:
    from . import Autoencoder

_SHOWN = 10  # images in a row
_PAIRS = 5
_TRAVERSED = 8  # latent units
_SPAN = 3.0  # standard deviations of the prior on either side
_MAPPED = 300


def sections(task: "Autoencoder", outcome: launch.Outcome) -> Iterator[Section]:
    """Yields what there is to see of a trained autoencoder."""
    variables = task.computing(outcome.variables)
    given = task.some_of_test(_SHOWN)
    yield _reconstructions(task, variables, given)
    if task.config.variational:
        text = "Means of p(x | z) for the same z of the prior at every step."
        yield from strip_sections(task.workdir, _SHOWN, text=text)
    kernel = first_filters(outcome.variables["params"]["encoder"], task.info.image_shape)
    if kernel is not None:
        yield picture_section("Filters", "filters", lambda path: plots.plot_filters(kernel, path))
    if len(given) > 1:
        yield _interpolations(task, variables, given)
    if task.config.variational:
        yield from _latents(task, variables, given)
    sample = evenly_spaced(task.test, 30 if task.config.smoke else _MAPPED)
    codes = evaluators.points_of(task, variables, sample)
    if len(codes) >= LEAST_POINTS and codes.shape[1] > 1:
        images = sample.gather(np.arange(len(sample)))["image"]
        flat = codes.shape[1] == 2
        title = f"{len(codes)} images by their code" + ("" if flat else ", by t-SNE")

        def draw(path: pathlib.Path) -> None:
            plot_thumbnails(images, codes if flat else tsne(codes), path, title=title)

        yield picture_section("Map of codes", "map", draw)


def _pixels(images: np.ndarray) -> np.ndarray:
    from . import to_pixels

    return to_pixels(images)


def _reconstructions(task: "Autoencoder", variables: Variables, given: np.ndarray) -> Section:
    rows, config = {"given": given}, task.config
    if config.corruption is not None:
        x = task.scaled(variables["params"], given).astype(jnp.float32)
        rows["with noise"] = _pixels(jax.jit(task.noisy)(jax.random.key(0), x))
    rows["drawn again"] = _pixels(task.drawing(variables, rows.get("with noise", given)))
    text = (
        ""
        if config.corruption is None
        else f"Noise: {config.corruption}, {config.noise:g}; drawn "
        "pixels are cut to 0..255 before the net sees them."
    )
    return picture_section("Images", "images", lambda path: plots.plot_rows(rows, path), text=text)


def write_samples(task: "Autoencoder", variables: Variables, step: int) -> None:
    """Writes a row of samples, of the same latent values at every step, as a PNG of the run."""
    images = evaluators.samples_of(task, task.computing(variables), _SHOWN)
    write_row(task.workdir, _pixels(images), step)


def _interpolations(task: "Autoencoder", variables: Variables, given: np.ndarray) -> Section:
    """Shows what lies between the codes of pairs of images, on straight lines."""
    pairs = min(_PAIRS, len(given) // 2)
    codes = task.encoding(variables, given)
    points = np.asarray(codes.mean if task.config.variational else codes)
    share = np.linspace(0, 1, _SHOWN, dtype=np.float32)[:, None]
    rows = {}
    for pair in range(pairs):
        one, other = points[2 * pair], points[2 * pair + 1]
        drawn = task.decoding(variables, (1 - share) * one + share * other)
        rows[f"pair {pair + 1}"] = _pixels(drawn)
    return picture_section(
        "Interpolations",
        "interpolations",
        lambda path: plots.plot_rows(rows, path),
        text="Between the codes of two test images, on a straight line.",
    )


def _latents(task: "Autoencoder", variables: Variables, given: np.ndarray) -> Iterator[Section]:
    """Yields traversals of the units of the most KL, and the KL of each."""
    use = latent_use(*evaluators.codes_of(task, variables, evenly_spaced(task.test, _MAPPED)))
    order = np.argsort(-use.kl)
    mean = np.asarray(task.encoding(variables, given[:1]).mean)
    rows = {}
    for unit in order[:_TRAVERSED]:
        codes = np.repeat(mean, _SHOWN, axis=0)
        codes[:, unit] = np.linspace(-_SPAN, _SPAN, _SHOWN)
        rows[f"unit {unit}, {use.kl[unit]:.2g} nats"] = _pixels(task.decoding(variables, codes))
    yield picture_section(
        "Latent traversals",
        "traversals",
        lambda path: plots.plot_rows(rows, path),
        text=f"One unit of a test image's code from -{_SPAN:g} to {_SPAN:g}, the others as they "
        "are; units of the most KL first.",
    )
    places = np.arange(1, len(order) + 1)
    curves = {"KL": (places, use.kl[order]), "mutual information": (places, use.information[order])}
    yield picture_section(
        "Latent units",
        "units",
        lambda path: plots.plot_lines(
            curves, path, title="Information of each latent unit", x="unit, most first", y="nats"
        ),
        text=f"{use.active.sum()} of {len(order)} units are active: the variance of their mean is "
        "above 0.01.",
    )
