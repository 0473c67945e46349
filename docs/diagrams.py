"""Draws the diagrams of the pages: boxes in rows, and arrows between them, as SVG in the page.

An SVG that is part of the page has the colours of the page, so it is readable in light and in dark
mode. Its width is that of a phone, and it does not grow on larger screens.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

_WIDTH, _GAP, _BETWEEN = 420, 12, 44  # of a diagram, between two boxes, and between two rows
_LINE, _PADDING = 18, 9


class Diagram(NamedTuple):
    """The content of a diagram.

    Attributes:
        text: says what it shows to those who do not see it.
        rows: the boxes of each row, each as lines of text; the first line is set in bold.
        arrows: from which box to which, as (row, place in the row), with what stands beside it.
    """

    text: str
    rows: Sequence[Sequence[str]]
    arrows: Sequence[tuple[tuple[int, int], tuple[int, int], str]]


class _Box(NamedTuple):
    left: float
    top: float
    width: float
    height: float
    lines: list[str]


def _placed(rows: Sequence[Sequence[str]]) -> list[list[_Box]]:
    placed, top = [], 1.0
    for row in rows:
        lines = [text.split("\n") for text in row]
        height = max(map(len, lines)) * _LINE + 2 * _PADDING
        width = (_WIDTH - 2 - _GAP * (len(row) - 1)) / len(row)
        lefts = [1 + place * (width + _GAP) for place in range(len(row))]
        placed.append(
            [_Box(left, top, width, height, own) for left, own in zip(lefts, lines, strict=True)]
        )
        top += height + _BETWEEN
    return placed


def svg(diagram: Diagram) -> str:
    """Returns a diagram as SVG."""
    placed = _placed(diagram.rows)
    parts = []
    for box in (box for row in placed for box in row):
        parts.append(
            f'<rect x="{box.left:g}" y="{box.top:g}" width="{box.width:g}" '
            f'height="{box.height:g}" rx="6"/>'
        )
        first = box.top + (box.height - len(box.lines) * _LINE) / 2 + 13
        for number, line in enumerate(box.lines):
            kind = ' class="name"' if number == 0 else ""
            middle = box.left + box.width / 2
            y = first + number * _LINE
            parts.append(f'<text x="{middle:g}" y="{y:g}"{kind}>{html.escape(line)}</text>')
    for (row, place), (to_row, to_place), label in diagram.arrows:
        start, end = placed[row][place], placed[to_row][to_place]
        x, to_x = start.left + start.width / 2, end.left + end.width / 2
        # Where one of both is wider, the arrow is vertical in the middle of the other.
        if start.width > end.width:
            x = to_x
        elif end.width > start.width:
            to_x = x
        y, to_y = start.top + start.height, end.top
        parts.append(f'<path class="line" d="M{x:g} {y:g}L{to_x:g} {to_y - 7:g}"/>')
        parts.append(f'<path class="head" d="M{to_x:g} {to_y - 1:g}l-5 -8h10z"/>')
        if label:
            parts.append(
                f'<text class="label" x="{(x + to_x) / 2 + 8:g}" y="{(y + to_y) / 2 + 2:g}">'
                f"{html.escape(label)}</text>"
            )
    height = placed[-1][0].top + placed[-1][0].height + 1
    text = html.escape(diagram.text, quote=True)
    return (
        f'<svg class="diagram" role="img" aria-label="{text}" viewBox="0 0 {_WIDTH} {height:g}">'
        f"<title>{text}</title>{''.join(parts)}</svg>"
    )


DIAGRAMS = {
    "mean": Diagram(
        "Two micro-batches give Mean(4, 2) and Mean(8, 1); they merge into Mean(12, 3), which is "
        "divided once and gives 4.",
        [
            [
                "micro-batch 1\nlosses 1 and 3\nweights 1 and 1",
                "micro-batch 2\nlosses 8 and 5\nweights 1 and 0 (padding)",
            ],
            ["Mean(total=4, weight=2)", "Mean(total=8, weight=1)"],
            ["Mean(total=12, weight=3)"],
            ["4.0"],
        ],
        [
            ((0, 0), (1, 0), "Mean.of"),
            ((0, 1), (1, 1), "Mean.of"),
            ((1, 0), (2, 0), "merge"),
            ((1, 1), (2, 0), "merge"),
            ((2, 0), (3, 0), "compute: the only division"),
        ],
    ),
    "step": Diagram(
        "A step takes a TrainState and a batch and returns the next TrainState and means by name; "
        "the new state goes into the next step.",
        [
            [
                "TrainState\nstep, params, model_state,\nopt_state, rng, carry",
                "Batch\nimage, label, weight\nwith B rows each",
            ],
            ["Step\n(state, batch) -> (state, metrics)"],
            ["TrainState\nwith step + 1", "metrics\nname: Mean, ..."],
        ],
        [
            ((0, 0), (1, 0), ""),
            ((0, 1), (1, 0), ""),
            ((1, 0), (2, 0), "into the next step"),
            ((1, 0), (2, 1), "into the log"),
        ],
    ),
    "batches": Diagram(
        "The seed and the epoch give an order of the examples; the number of the step gives the "
        "places of a batch in it; the number of the process gives its rows.",
        [
            ["seed, epoch\norder of all N examples", "step n\nplaces n B to (n + 1) B - 1"],
            ["global batch n\nthe same B examples for any number of processes"],
            ["process 0 of 2\nrows 0 to B / 2 - 1", "process 1 of 2\nrows B / 2 to B - 1"],
        ],
        [
            ((0, 0), (1, 0), "Philox"),
            ((0, 1), (1, 0), "divmod by N"),
            ((1, 0), (2, 0), ""),
            ((1, 0), (2, 1), ""),
        ],
    ),
    "rules": Diagram(
        "The rules are tried in order on the path of a leaf; the first that is found gives the "
        "value, and a leaf that no rule matches has the default.",
        [
            ["leaves of a tree\nbody/dense_0/kernel\nbody/dense_0/bias\nhead/kernel"],
            ["rule 1\nbias$: 0", "rule 2\n^body: 0.1", "default\n1"],
            ["body/dense_0\nbias: 0", "body/dense_0\nkernel: 0.1", "head\nkernel: 1"],
        ],
        [
            ((0, 0), (1, 0), "first"),
            ((0, 0), (1, 1), "then"),
            ((0, 0), (1, 2), "else"),
            ((1, 0), (2, 0), ""),
            ((1, 1), (2, 1), ""),
            ((1, 2), (2, 2), ""),
        ],
    ),
    "layouts": Diagram(
        "compile_step is told the layout, and the step asks for the sum over the devices by one "
        "function: on one device it does nothing, under pmap and on a mesh it is an all-reduce.",
        [
            ["Step\nhas no argument for its layout"],
            ["compile_step(step, layout)\nfit does it for you"],
            [
                "jit\none device\nsees all rows",
                "pmap\neach device sees\nits rows",
                "mesh\ndata, fsdp, model\nany product",
            ],
            ["the same loss and the same parameters\nbut for the order of additions"],
        ],
        [
            ((0, 0), (1, 0), ""),
            ((1, 0), (2, 0), ""),
            ((1, 0), (2, 1), ""),
            ((1, 0), (2, 2), ""),
            ((2, 0), (3, 0), ""),
            ((2, 1), (3, 0), ""),
            ((2, 2), (3, 0), ""),
        ],
    ),
    "checkpoint": Diagram(
        "A checkpoint of step n has the arrays of the state and a JSON item; restoring compares "
        "the configuration and the fingerprints, and goes back one checkpoint where they differ.",
        [
            ["checkpoints/600"],
            [
                "state\nthe arrays of TrainState,\nwritten by Orbax",
                "run, as JSON\nstep, config, loop, leaves,\nfingerprints, own fingerprint",
            ],
            ["restore\nof this run? whole? of this step?"],
            ["yes\ncontinue with batch 600", "damaged\nset aside, take the one before"],
        ],
        [
            ((0, 0), (1, 0), ""),
            ((0, 0), (1, 1), ""),
            ((1, 0), (2, 0), ""),
            ((1, 1), (2, 0), ""),
            ((2, 0), (3, 0), ""),
            ((2, 0), (3, 1), ""),
        ],
    ),
    "training-step": Diagram(
        "A training step from the loader through the loop, the compiled step, the guard, the "
        "gradient, the loss and the optimizer back to the loop and its hooks.",
        [
            ["data/loader.py\nLoader.batches gives batch n"],
            ["train/loop.py\nLoop._train calls the compiled step"],
            ["runtime/mesh.py, pmap.py or layout.py\nputs the rows on the devices"],
            ["train/packed.py, train/health.py\npacks the metrics, guards the step"],
            ["train/gradient.py\nfold_in(rng, step), sum of gradients / sum of weights"],
            [
                "loss: models/, nn/, losses/\n(Mean, Aux)",
                "optim/optimizers.py\nupdate of the parameters",
            ],
            ["train/loop.py\nreads the metrics of step n - 2, calls the hooks"],
        ],
        [
            ((0, 0), (1, 0), "rows as NumPy arrays"),
            ((1, 0), (2, 0), "state, batch"),
            ((2, 0), (3, 0), "traced once"),
            ((3, 0), (4, 0), ""),
            ((4, 0), (5, 0), "parameters"),
            ((4, 0), (5, 1), "mean gradient"),
            ((5, 0), (6, 0), ""),
            ((5, 1), (6, 0), "new state"),
        ],
    ),
}  # fmt: skip
