"""The table and the report sections of captions. Shapes: N test pictures."""

import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data import Captioned
from dlcore.metrics import TranslationScores, sentence_scores
from dlcore.report import Section, markup, picture_section
from dlcore.report.markup import Html
from dlcore.report.plots import plot_captions, plot_look
from dlcore.report.translation import scores_section
from dlcore.train.logs import write_table

SHOWN = 8  # pictures whose captions and attention are shown
_WORDS = 20  # that are missed most, in the table


class Look(NamedTuple):
    """Where a captioner looked at each word of a caption.

    Attributes:
        image: uint8 [H, W, C].
        words: T of them.
        weights: [T, h, w], of the places of its map.
    """

    image: np.ndarray
    words: tuple[str, ...]
    weights: np.ndarray


def write_captions(
    path: pathlib.Path,
    references: Sequence[Sequence[str]],
    outputs: Sequence[str],
    nearest: Sequence[str],
) -> None:
    """Writes a table of N pictures with a line for each."""
    rows = zip((" | ".join(of) for of in references), outputs, nearest, strict=True)
    write_table(path, ("references", "output", "nearest picture's"), rows)


def sections(
    test: Captioned,
    outputs: Sequence[str],
    nearest: Sequence[str],
    *,
    scores: Mapping[str, TranslationScores],
    log_probs: np.ndarray,
    looks: Sequence[Look],
    tokenizer: str,
    lower: bool,
) -> list[Section]:
    """Shows the scores, some captions, the worst ones, words that are missed, and where it looked.

    Args:
        test: the test pictures with their captions.
        outputs: N captions.
        nearest: the captions of the nearest training pictures.
        scores: by the name of what wrote the captions.
        log_probs: log P of each output, [N].
        looks: at some pictures, none without attention.
        tokenizer: BLEU's, see `sentence_scores`.
        lower: whether captions are compared in lower case.
    """
    by_chrf = sentence_scores(outputs, test.captions, tokenizer=tokenizer, lower=lower).chrf
    worst = np.argsort(by_chrf, kind="stable")[:SHOWN]

    def shown(rows: np.ndarray, title: str) -> Callable[[pathlib.Path], None]:
        images = [*test.images.gather(rows)["image"]]
        lines = [
            [
                *(f"is: {caption}" for caption in test.captions[row]),
                f"said: {outputs[row]}   (P {np.exp(log_probs[row]):.2f})",
                f"nearest: {nearest[row]}",
            ]
            for row in rows
        ]
        return lambda path: plot_captions(images, lines, path, title=title)

    first = np.arange(min(SHOWN, len(test)))
    found = [
        scores_section("Scores", scores),
        picture_section("Captions", "captions", shown(first, "First test pictures")),
        picture_section("Worst captions", "worst_captions", shown(worst, "Lowest chrF")),
        _words_section(test.captions, outputs, lower),
    ]
    if looks:
        found.append(Section("Where it looked", lambda folder: _looks(folder, looks)))
    return found


def _words_section(
    references: Sequence[Sequence[str]], outputs: Sequence[str], lower: bool
) -> Section:
    """Lists the words that are missed most often, by the first reference of each picture."""

    def words(text: str) -> Counter[str]:
        return Counter((text.lower() if lower else text).split())

    there: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for (reference, *_), output in zip(references, outputs, strict=True):
        there += words(reference)
        missed += words(reference) - words(output)
    rows = [
        [word, f"{count:,}", f"{there[word]:,}", f"{count / there[word]:.0%}"]
        for word, count in missed.most_common(_WORDS)
    ]
    table = markup.table(rows, header=["word", "missed", "of", "share"])
    return Section("Words that are missed", lambda _: markup.join([table]))


def _looks(folder: pathlib.Path, looks: Sequence[Look]) -> Html:
    parts = [
        markup.paragraph(
            "For each word the places of the picture that were attended to, the brightest most; "
            "each map has its own scale."
        )
    ]
    for number, (image, words, weights) in enumerate(looks, 1):
        name = f"look_{number}.png"
        plot_look(image, words, weights, folder / name)
        parts.append(markup.picture(name))
    return markup.join(parts)
