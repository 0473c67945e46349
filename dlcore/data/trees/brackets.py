"""Reads trees in brackets, such as those of the Stanford Sentiment Treebank."""

import re
from collections.abc import Callable, Iterator

from dlcore.data.trees.tree import BRACKETS, NO_LABEL, Tree
from dlcore.errors import InputError

_TOKEN = re.compile(r"[()]|[^\s()]+")
_WORDS = {written: sign for sign, written in BRACKETS.items()}


def parse_brackets(
    text: str, place: Callable[[int], str] = lambda at: f"column {at + 1}"
) -> Iterator[Tree]:
    """Yields the trees of a text: `(3 (2 It) (4 works))`.

    A bracket opens a node, whose label comes first, "_" for none; a node that starts with another
    bracket has no label either. Its children follow, which are nodes or words: a leaf with a word
    is `(2 It)`, or a word alone, which has no label. A word alone in brackets is a leaf without a
    label, and so `(It)` is a tree. -LRB- and -RRB- are the words "(" and ")".

    Args:
        text: trees, on one line or on several.
        place: returns in words the place of a character, given its index from 0 on.

    Raises:
        InputError: for brackets that do not match, a word outside of them, or an empty node.
    """
    parents: list[int] = []
    words: list[str | None] = []
    labels: list[str | None] = []
    opened: list[tuple[int, int]] = []  # the number of each open node, and where it was opened
    last = ""  # what the last token was: "(", ")", a "label" or a "word"
    for token in _TOKEN.finditer(text):
        sign, at = token[0], token.start()
        if sign != "(" and not opened:
            what = "closes a bracket that is not open"
            if sign != ")":
                what = f"has {sign[:40]!r} outside of brackets"
            raise InputError(f"{place(at)} {what}; write each tree as (LABEL (LABEL WORD) ...)")
        node = opened[-1][0] if opened else -1
        if sign == ")":
            _, start = opened.pop()
            if last == "(" or (last == "label" and labels[node] == NO_LABEL):
                raise InputError(f"{place(at)} closes a node without a word; write (LABEL WORD)")
            if last == "label":  # a word alone
                words[node], labels[node] = _word(labels[node]), None
            elif last == "word" and node == len(parents) - 2 and labels[node] is not None:
                words[node] = words.pop()  # a label and a word are a leaf
                parents.pop()
                labels.pop()
            if labels[node] == NO_LABEL:
                labels[node] = None
            if not opened:
                yield Tree(tuple(parents), tuple(words), tuple(labels), place(start))
                parents, words, labels = [], [], []
        elif last == "(" and sign != "(":
            labels[node] = sign
            last = "label"
            continue
        else:
            parents.append(node)
            words.append(None if sign == "(" else _word(sign))
            labels.append(None)
            if sign == "(":
                opened.append((len(parents) - 1, at))
        last = sign if sign in "()" else "word"
    if opened:
        raise InputError(
            f"{place(opened[-1][1])} opens a bracket that is never closed; close it by )"
        )


def _word(written: str | None) -> str:
    return _WORDS.get(written or "", written or "")
