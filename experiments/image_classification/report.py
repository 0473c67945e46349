"""The report sections of an image classifier. Shapes: N examples, K classes, H W C of an image."""

from collections.abc import Mapping

import numpy as np

from dlcore.report.plots import plot_filters, plot_lines, plot_mistakes
from dlcore.report.sections import Section, picture_section

from .labelling import Labelling

_MOST_MISTAKES = 20


def image_sections(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    labelling: Labelling,
    filters: np.ndarray | None = None,
    layers: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Section]:
    """Shows the classes, calibration, worst mistakes, filters and layers.

    Args:
        images: (N, H, W, C) uint8, the test images.
        labels: (N,) their classes, or (N, K) of several labels.
        probabilities: (N, K) the model's predictions.
        labelling: their kind.
        filters: (h, w, C, filters) of the first layer, see `first_filters`.
        layers: standard deviations of the activations for each state of the model by its name, see
            `dlcore.check.activation_deviations`.
    """
    worst = labelling.mistakes(labels, probabilities)[:_MOST_MISTAKES]
    sections = [
        *labelling.sections(labels, probabilities),
        picture_section(
            "Worst mistakes",
            "mistakes",
            lambda path: plot_mistakes(
                images[[index for index, _ in worst]], [caption for _, caption in worst], path
            ),
        ),
    ]
    if filters is not None:
        sections.append(
            picture_section(
                "First-layer filters", "filters", lambda path: plot_filters(filters, path)
            )
        )
    if layers is not None:
        curves = {name: (range(len(x)), list(x.values())) for name, x in layers.items()}
        sections.append(
            picture_section(
                "Activations by layer",
                "layers",
                lambda path: plot_lines(
                    curves,
                    path,
                    title="Activations by layer",
                    x="layer, in order of execution",
                    y="standard deviation",
                ),
            )
        )
    return sections
