"""Pictures: what is drawn, on which scale, and that the files are pictures."""

import struct

import numpy as np
import pytest

from dlcore.check.recurrent import Saturation
from dlcore.report import plots
from dlcore.report.plots import lines

RANDOM = np.random.default_rng(0)


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws, and returns the axes that were written."""
    figures = []
    monkeypatch.setattr(
        lines, "save", lambda figure, path: (figures.append(figure), figure.savefig(path))
    )

    def draw(plot, *args, **kwargs):
        plot(*args, tmp_path / "picture.png", **kwargs)
        png_size(tmp_path / "picture.png")
        return [axis for axis in figures[-1].axes if axis.axison]

    return draw


def rows(**metrics):
    """A run of two reports: metrics as (train, test), None where a split does not report it."""
    return [
        {"step": step, "split": split}
        | {name: pair[i] / step for name, pair in metrics.items() if pair[i] is not None}
        for step in (1, 2)
        for i, split in enumerate(("train", "test"))
    ]


LANGUAGE = rows(
    loss=(2.0, 3.0),
    grad_norm=(40.0, None),
    learning_rate=(1.0, None),
    clipped=(0.5, None),
    perplexity_per_token=(None, 900.0),
    bits_per_character=(None, 2.0),
)


@pytest.mark.parametrize(
    "log, titles",
    [
        (rows(loss=(2, 3), accuracy=(0.5, 0.4)), ["Loss", "Accuracy"]),
        (rows(loss=(2, 3)), ["Loss"]),
        (rows(loss=(2, None)), ["Loss"]),
        (rows(loss=(2, 3), span_f1=(None, 0.5)), ["Loss", "Span f1"]),
        (
            LANGUAGE,
            "Loss,Perplexity per token,Bits per character,Gradient norm,Gradients clipped".split(
                ","
            ),
        ),
    ],
)
def test_curves_show_what_is_evaluated_and_the_gradient(drawn, log, titles):
    names = lines.curves_of(log)
    assert [drawn(plots.plot_metric, log, name)[0].get_title() for name in names] == titles


def test_curves_have_units_and_lines_by_split(drawn):
    loss, perplexity, clipped = (
        drawn(plots.plot_metric, LANGUAGE, name)[0]
        for name in ("loss", "perplexity_per_token", "clipped")
    )
    assert loss.get_ylabel() == "loss (nats)" and clipped.get_ylabel() == "gradients clipped (%)"
    assert [line.get_label() for line in loss.lines] == ["train", "test"]
    assert [line.get_label() for line in perplexity.lines] == ["test"]
    assert clipped.lines[0].get_ydata().tolist() == [50, 25]
    assert loss.lines[1].get_xydata().tolist() == [[1, 3], [2, 1.5]]
    # Whatever else is drawn: the held-out data has the same colour in every picture.
    assert perplexity.lines[0].get_color() == loss.lines[1].get_color()
    assert loss.lines[0].get_color() == clipped.lines[0].get_color() != loss.lines[1].get_color()


@pytest.mark.parametrize(
    "values, scale",
    [
        ([1, 5, 9], "linear"),
        ([1, 5, 20], "log"),
        ([0, 1, 20], "log"),
        ([-1, 1, 20], "linear"),
        ([0, 0, 0], "linear"),
        ([np.nan, np.inf, 3], "linear"),
        ([], "linear"),
    ],
)
def test_lines_are_logarithmic_where_they_span_decades(drawn, values, scale):
    curves = {"a": (range(len(values)), values)}
    [axis] = drawn(plots.plot_lines, curves, title="t", x="x", y="y")
    assert axis.get_yscale() == scale


def test_shares_stay_on_a_straight_scale(drawn):
    [accuracy] = drawn(plots.plot_metric, rows(accuracy=(0.9, 0.01)), "accuracy")
    assert accuracy.get_yscale() == "linear"


def test_levels_are_dashed_lines_with_names(drawn):
    curves = {"lstm": (range(3), [0.2, 0.1, 0.01])}
    [axis] = drawn(
        plots.plot_lines, curves, title="Adding problem", x="step", y="y", levels={"guess": 0.1767}
    )
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["lstm", "guess"]
    assert axis.lines[1].get_ydata() == [0.1767, 0.1767]


def test_gradient_norms_before_and_after_clipping(drawn):
    [axis] = drawn(_norms, [0.5, 2.0, 30.0, 1.0])
    assert axis.get_title() == "Gradient norm: 50% of the steps are clipped"
    before, after, threshold = axis.lines
    assert before.get_ydata().tolist() == [0.5, 2, 30, 1]
    assert after.get_ydata().tolist() == [0.5, 1, 1, 1]
    assert threshold.get_label() == "threshold 1"


def _norms(norms, path):
    plots.plot_gradient_norms(range(len(norms)), norms, path, threshold=1.0)


def test_gradient_by_distance(drawn):
    curves = {"tanh": 0.5 ** np.arange(9.0), "lstm": 0.9 ** np.arange(9.0)}
    [axis] = drawn(plots.plot_gradient_by_distance, curves)
    assert axis.get_yscale() == "log"
    assert axis.lines[0].get_xydata()[3].tolist() == [3, 0.125]


def test_gates(tmp_path):
    gates = {name: Saturation(*RANDOM.random((2, 50)) / 2) for name in ("forget", "input")}
    plots.plot_gates(gates, tmp_path / "two.png")
    plots.plot_gates({"forget": gates["forget"]}, tmp_path / "one.png")
    assert png_size(tmp_path / "two.png")[0] > 1.5 * png_size(tmp_path / "one.png")[0]


def test_confusion_with_large_counts_and_names_that_the_font_lacks(tmp_path):
    matrix = np.diag([3, 12_345_678, 0]) + 1
    plots.plot_confusion(
        matrix,
        ["数据", "a name of more than twenty-four characters", r"$\frac$"],
        tmp_path / "c.png",
    )
    png_size(tmp_path / "c.png")


@pytest.mark.parametrize(
    "number, text", [(0, "0"), (9_999, "9999"), (10_000, "10k"), (12_345_678, "12M")]
)
def test_large_counts_are_short(number, text):
    from dlcore.report.plots.classes import _compact

    assert _compact(number) == text


def test_images_without_mistakes_and_with_colour(tmp_path):
    images = RANDOM.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for count in (0, 2):
        path = tmp_path / f"{count}.png"
        plots.plot_mistakes(images[:count], ["is a\ntaken for b (60%)", "$"][:count], path)
        png_size(path)
    plots.plot_filters(RANDOM.normal(size=(3, 3, 3, 70)), tmp_path / "colour.png")
    png_size(tmp_path / "colour.png")
