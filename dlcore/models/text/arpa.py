"""Reads and writes n-gram models in the ARPA format of other toolkits for n-grams.

    \\data\\
    ngram 1=4                     how many there are of each order
    \\1-grams:
    -0.5 the -0.3                 log10 p(w | h), the words h w, log10 of the back-off of h w
    ...
    \\end\\

An m-gram that is not listed has the probability back_off(h) p(w | h'), where h' is h without its
first word; the back-off is 1 where none is listed. A logarithm of -99 or less means a probability
of 0. (See ngram-format of the SRI Language Modeling Toolkit.)

Shapes: V words, G m-grams of an order.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from dlcore.errors import InputError
from dlcore.files import read_text, write_whole
from dlcore.models.text.ngram import NGram, Order, probabilities

_ZERO = -99.0
_BLANK = re.compile(r"[ \t\r]+")  # and no other white space, which may be part of a word
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")


def write_arpa(model: NGram, words: Sequence[str], path: pathlib.Path) -> None:
    """Writes a model; the file lists all V words, so that no word is unknown to its reader.

    Args:
        model: a model with any smoothing except add_k, whose back-off skips the orders in between.
        words: the V words, by their ids.
        path: the file.

    Raises:
        InputError: for add_k, and for words that are empty or hold white space, at which a reader
            would split them.
        OSError: when the file cannot be written.
    """
    if model.smoothing == "add_k":
        raise InputError(
            "the ARPA format backs off from order to order, which add_k does not; choose another "
            "smoothing"
        )
    for word in words:
        if not word or _BLANK.search(word) or "\n" in word:
            raise InputError(
                f"{word!r} cannot be a word of an ARPA file, whose words stand between white "
                "space; make the model of words"
            )
    size = model.vocab_size
    contents: list[list[str]] = []
    grams = np.zeros((1, 0), np.int64)
    for m, order in enumerate(model.orders, start=1):
        keys = order.keys if m > 1 else np.arange(size)
        context, last = np.divmod(keys, size)
        grams = np.column_stack([grams[context], last])
        lines = [
            f"{log:.9g}\t{' '.join(words[token] for token in gram)}"
            for log, gram in zip(
                _log10(probabilities(model.orders, grams, size)), grams.tolist(), strict=True
            )
        ]
        if m < len(model.orders):
            # The m-gram's place as a history, which words that were never seen do not have.
            places = order.find(keys)
            back_offs = _log10(model.orders[m].back_off[places])
            lines = [f"{line}\t{log:.9g}" for line, log in zip(lines, back_offs, strict=True)]
            if m == 1:
                grams = grams[places >= 0]
        contents.append(lines)
    head = ["\\data\\", *(f"ngram {m}={len(lines)}" for m, lines in enumerate(contents, 1)), ""]
    body = [line for m, lines in enumerate(contents, 1) for line in (f"\\{m}-grams:", *lines, "")]
    write_whole(path, "\n".join([*head, *body, "\\end\\", ""]))


def read_arpa(path: str | os.PathLike[str]) -> tuple[NGram, tuple[str, ...]]:
    """Reads a model from a file, which may be packed by gzip.

    Returns:
        The model, and the words of its 1-grams, whose indices are their ids.

    Raises:
        InputError: when the file cannot be read or is damaged; the message names the line.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    counts = _head(lines, path)
    number = 0
    ids: dict[str, int] = {}
    orders: list[Order] = []
    back_offs = np.zeros(1)  # of the empty history: all words that have a probability are listed
    for m, count in enumerate(counts, start=1):
        rows: list[list[int]] = []
        values: list[tuple[float, float]] = []
        for number, line in lines:
            fields = _BLANK.split(line.strip(" \t\r"))
            if fields == [""]:
                continue
            if line.startswith("\\") and len(fields) == 1:
                break
            log, *rest = fields
            if m == 1 and rest:
                ids.setdefault(rest[0], len(ids))
            try:
                if len(rows) == count or len(rest) not in (m, m + 1):
                    raise ValueError
                rows.append([ids[word] for word in rest[:m]])
                values.append((float(log), float(rest[m]) if len(rest) > m else 0.0))
                if not all(value < -_ZERO for value in values[-1]):
                    raise ValueError
            except (KeyError, ValueError):
                raise _damage(
                    path, number, f"{line.strip()[:60]!r} is not one of its {count} {m}-grams"
                ) from None
        if len(rows) < count:
            raise _damage(path, number, f"only {len(rows)} of its {count} {m}-grams are there")
        grams, logs = np.array(rows, np.int64), np.array(values)
        places = np.zeros(count, np.int64)
        for order, column in zip(orders, range(m - 1), strict=True):
            places = order.find(places * len(ids) + grams[:, column])
        keys = places * len(ids) + grams[:, -1]
        by_key = np.argsort(keys)
        if keys[by_key[0]] < 0 or (np.diff(keys[by_key]) == 0).any():
            raise _damage(
                path, number, f"a {m}-gram before is there twice or begins with none that is listed"
            )
        below = probabilities(orders, grams[:, 1:], len(ids))
        own = _power(logs[:, 0]) - back_offs[places] * below
        orders.append(Order(keys[by_key], np.append(own[by_key], 0.0), np.append(back_offs, 1.0)))
        back_offs = _power(logs[by_key, 1])
    return NGram(len(ids), "arpa", tuple(orders)), tuple(ids)


def _head(lines: Iterator[tuple[int, str]], path: str | os.PathLike[str]) -> list[int]:
    """Reads up to the 1-grams; returns the number of m-grams of each order."""
    counts: list[int] = []
    number = 1
    for number, line in lines:  # noqa: B007 (the error after the loop names the last one)
        if line.strip() == "\\1-grams:" and counts:
            return counts
        if match := _COUNT.fullmatch(line.strip()):
            if int(match[1]) != len(counts) + 1 or int(match[2]) < 1:
                break
            counts.append(int(match[2]))
    raise _damage(path, number, "it does not say how many m-grams of each order there are")


def _damage(path: str | os.PathLike[str], number: int, fault: str) -> InputError:
    return InputError(
        f"{os.fspath(path)} is not a whole ARPA file: at line {number} {fault}; write it anew"
    )


def _log10(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log10(np.maximum(values, 0.0)), _ZERO)


def _power(logs: np.ndarray) -> np.ndarray:
    return np.where(logs <= _ZERO, 0.0, 10.0**logs)
