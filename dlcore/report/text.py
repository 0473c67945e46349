"""The report sections of text classifiers and taggers.

Shapes: N examples, K classes, T tokens.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dlcore.report import markup
from dlcore.report.classes import confusion_section, worst_mistakes
from dlcore.report.markup import Html
from dlcore.report.sections import Section

_MOST_MISTAKES = 20
_MOST_CHARACTERS = 400
_CONTEXT = 40  # characters to either side


def text_sections(
    texts: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    class_names: Sequence[str],
) -> list[Section]:
    """Shows the confusion matrix of a text classifier and its worst mistakes.

    Args:
        texts: N test texts.
        labels: (N,) their classes.
        probabilities: (N, K) the model's predictions.
        class_names: K names.
    """
    predictions = probabilities.argmax(axis=1)
    rows = []
    for index in worst_mistakes(labels, probabilities)[:_MOST_MISTAKES].tolist():
        predicted = int(predictions[index])
        text = texts[index]
        short = text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"
        share = f"{probabilities[index, predicted]:.1%}"
        rows.append([class_names[int(labels[index])], class_names[predicted], share, short])
    header = ["is", "taken for", "sure", "text"]
    return [
        confusion_section(labels, predictions, class_names),
        _table_section("Worst mistakes", rows, header, none="No mistakes."),
    ]


def tagging_sections(
    tokens: Sequence[Sequence[str]],
    tags: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    *,
    tag_names: Sequence[str],
    separator: str = " ",
) -> list[Section]:
    """Shows the confusion matrix of a tagger's tags and its most frequent errors.

    Args:
        tokens: N test sequences of T tokens, each of its own length.
        tags: their tags, integers (T,).
        predictions: the model's tags, integers (T,).
        tag_names: K names.
        separator: the text between two tokens; "" where they are characters.

    Raises:
        ValueError: when the lengths differ.
    """
    errors: Counter[tuple[str, int, int]] = Counter()
    contexts: dict[tuple[str, int, int], Html] = {}
    for words, true, predicted in zip(tokens, tags, predictions, strict=True):
        if not len(words) == len(true) == len(predicted):
            raise ValueError(
                f"{len(words)} tokens have {len(true)} tags and {len(predicted)} predictions"
            )
        for place in np.flatnonzero(np.asarray(true) != np.asarray(predicted)).tolist():
            error = (words[place], int(true[place]), int(predicted[place]))
            errors[error] += 1
            if error not in contexts:
                contexts[error] = _context(words, place, separator)
    rows = [
        [count, token, tag_names[true], tag_names[predicted], contexts[token, true, predicted]]
        for (token, true, predicted), count in errors.most_common(_MOST_MISTAKES)
    ]
    header = ["times", "token", "is", "taken for", "for example"]
    return [
        confusion_section(np.concatenate(tags), np.concatenate(predictions), tag_names),
        _table_section("Most frequent errors", rows, header, none="No errors."),
    ]


def heat_section(
    title: str,
    examples: Sequence[tuple[str, Sequence[str], np.ndarray]],
    *,
    text: str = "",
    separator: str = " ",
) -> Section:
    """Shows texts with a bar under each token, such as attention weights or the loss of tokens.

    Args:
        title: the heading.
        examples: for each a heading, T tokens and their weights (T,), at least 0.
        text: an explanation of the weights.
        separator: the text between two tokens.
    """
    parts = [markup.paragraph(text)] if text else []
    for name, tokens, weights in examples:
        parts += [markup.heading(name), markup.heat(tokens, weights, separator=separator)]
    return Section(title, lambda _: markup.join(parts))


def _context(tokens: Sequence[str], place: int, separator: str) -> Html:
    """Returns the text around a token, which is marked."""
    before = separator.join(tokens[:place]) + separator * (place > 0)
    after = separator * (place + 1 < len(tokens)) + separator.join(tokens[place + 1 :])
    left = before if len(before) <= _CONTEXT else "… " + before[-_CONTEXT:]
    right = after if len(after) <= _CONTEXT else after[:_CONTEXT] + " …"
    marked = Html(f"<mark>{markup.escape(tokens[place])}</mark>")
    return markup.join([markup.escape(left), marked, markup.escape(right)])


def _table_section(
    title: str, rows: Sequence[Sequence[object]], header: Sequence[str], *, none: str
) -> Section:
    content = markup.table(rows, header=header) if rows else markup.paragraph(none)
    return Section(title, lambda _: content)
