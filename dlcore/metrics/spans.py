"""Precision and recall of tagged spans, such as names. Shapes: B batch, T time, C tags.

The usual schemes differ in what a tag says about the token's position in its span:

    IOB     B begins a span, I continues it (IOB2); or B only begins a span right after another of
            its type, and I begins any other (IOB1)
    IOE     the mirror image: E ends a span, I comes before (IOE2), or E only before another (IOE1)
    BIOES   as IOB2, but E ends a span, and S is one of a single token; also called IOBES
    BILOU   the same with L (last) and U (unit) for E and S
    BMES    the same with M (middle) for I, and S or W (whole) for single tokens; also BMEWO

One reading serves them all: B, S, U and W begin a span, and any other tag does where the token
before is outside, of another type, or the end of its span; E, L, S, U and W end one.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import Mean, Metrics

# The letters of each scheme; O, outside of all spans, belongs to each.
SPAN_SCHEMES = {"IOB": "BI", "IOE": "IE", "BIOES": "BIES", "BILOU": "BILU", "BMES": "BMESW"}

# The forms that tags can be written in, see `convert_spans`, with the scheme of each.
SPAN_FORMS = {
    "IOB1": "IOB",
    "IOB2": "IOB",
    "IOE1": "IOE",
    "IOE2": "IOE",
    "BIOES": "BIOES",
    "BILOU": "BILOU",
    "BMES": "BMES",
}

_BEGINS, _ENDS = "BSUW", "ELSUW"
# The letters of each form's tokens: alone in their span, first, within and last.
_LETTERS = {
    "IOB1": "IIII",
    "IOB2": "BBII",
    "IOE1": "IIII",
    "IOE2": "EIIE",
    "BIOES": "SBIE",
    "BILOU": "UBIL",
    "BMES": "SBME",
}


def span_scheme(tag_names: Iterable[str]) -> str | None:
    """Returns the scheme by which tags mark spans, or None where they mark none.

    Tags mark spans when each is O, or a letter of one scheme, a dash and a type, as in B-PER; or
    when all are bare letters, such as B, M, E and S in word segmentation. With tags that begin
    spans by B-TYPE, names that belong to no scheme are allowed beside those of IOB.

    >>> span_scheme(["O", "B-PER", "I-PER"]), span_scheme(["O", "B-LOC", "L-LOC", "U-LOC"])
    ('IOB', 'BILOU')
    >>> span_scheme(["B", "M", "E", "S"]), span_scheme(["NOUN", "VERB"])
    ('BMES', None)
    """
    names = set(tag_names)
    inside = names - {"O"}
    letters = {name.partition("-")[0] for name in inside}
    typed = all(name[1:2] == "-" for name in inside)
    bare = inside == letters and {"B"} < names
    if inside and ((typed and names != inside) or (typed and "B" in letters) or bare):
        for scheme, known in SPAN_SCHEMES.items():
            if letters <= set(known):
                return scheme
    return "IOB" if any(name.startswith("B-") for name in names) else None


def span_scores(
    predicted: jax.Array,
    tags: jax.Array,
    mask: jax.Array,
    tag_names: Sequence[str],
    scheme: str = "IOB",
) -> Metrics:
    """Returns precision and recall of whole spans of the right type.

    Spans that break the rules of their scheme are read as the module's docstring says, like in the
    program of CoNLL-2000; so a span always ends before the next beginning, another type or O.

    Args:
        predicted: the model's tags, int [B, T].
        tags: the true tags, int [B, T].
        mask: bool [B, T], true for the tokens that count.
        tag_names: C names: O, or a letter of the scheme with "-TYPE" or alone; any other name is
            its own type and a span at each token.
        scheme: one of `SPAN_SCHEMES`, see `span_scheme`.

    Returns:
        "span_precision", weighted by the predicted spans, and "span_recall", by the true ones.

    >>> names = ["O", "B-PER", "I-PER"]
    >>> predicted, tags = jnp.array([[1, 0, 1]]), jnp.array([[1, 2, 1]])
    >>> scores = span_scores(predicted, tags, jnp.ones((1, 3), bool), names)
    >>> float(scores["span_recall"].compute())
    0.5
    """
    marks = [_letter_and_type(name, SPAN_SCHEMES[scheme]) for name in tag_names]
    types = ["O", *sorted({kind for _, kind in marks} - {"O"})]  # O has the number 0
    type_of = jnp.asarray([types.index(kind) for _, kind in marks])
    begin = jnp.asarray([letter in _BEGINS for letter, _ in marks])
    end = jnp.asarray([letter in _ENDS and letter != "" for letter, _ in marks])

    def read(tags: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns for each token whether a span begins, its type, and the end of its span."""
        kinds = jnp.where(mask, type_of[tags], 0)
        before = jnp.pad(jnp.where(end[tags], 0, kinds), ((0, 0), (1, 0)))[:, :-1]
        continues = ~begin[tags] & (kinds == before) & (kinds > 0)
        last = ~jnp.pad(continues, ((0, 0), (0, 1)))[:, 1:]
        index = jnp.arange(tags.shape[1])[None]
        ends = jax.lax.cummin(jnp.where(last, index, tags.shape[1]), axis=1, reverse=True)
        return (kinds > 0) & ~continues, kinds, ends

    begins, kinds, ends = read(tags)
    predicted_begins, predicted_kinds, predicted_ends = read(predicted)
    same = (kinds == predicted_kinds) & (ends == predicted_ends)
    right = jnp.sum(begins & predicted_begins & same, dtype=jnp.float32)
    return {
        "span_precision": Mean(right, jnp.sum(predicted_begins, dtype=jnp.float32)),
        "span_recall": Mean(right, jnp.sum(begins, dtype=jnp.float32)),
    }


def _letter_and_type(name: str, letters: str) -> tuple[str, str]:
    """Returns the letter of a tag, "" (which begins a span) where it has none, and its type."""
    letter, _, kind = name.partition("-")
    if len(letter) == 1 and letter in letters:
        return letter, kind
    return "", name


def convert_spans(tags: Sequence[str], scheme: str, form: str) -> list[str]:
    """Writes the spans of a sentence in another form.

    The spans are those that `span_scores` reads, even if they break the rules of their scheme.

    Args:
        tags: the tag of each token.
        scheme: the scheme of the tags, one of `SPAN_SCHEMES`.
        form: one of `SPAN_FORMS`. Tags without a letter of the scheme stay as they are.

    >>> convert_spans(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"], "IOB", "BIOES")
    ['B-PER', 'E-PER', 'O', 'S-LOC', 'S-LOC']
    """
    marks = [_letter_and_type(name, SPAN_SCHEMES[scheme]) for name in tags]
    starts = [
        place == 0
        or letter in _BEGINS
        or marks[place - 1][1] != kind
        or (marks[place - 1][0] in _ENDS and marks[place - 1][0] != "")
        for place, (letter, kind) in enumerate(marks)
    ]
    alone, first, within, last = [*_LETTERS[form]]
    written = []
    for place, (letter, kind) in enumerate(marks):
        begins, ends = starts[place], place + 1 == len(marks) or starts[place + 1]
        new = (alone if ends else first) if begins else (last if ends else within)
        if form == "IOB1" and begins and place and marks[place - 1][1] == kind:
            new = "B"
        if form == "IOE1" and ends and place + 1 < len(marks) and marks[place + 1][1] == kind:
            new = "E"
        if letter == "":
            new, kind = kind, ""
        written.append(f"{new}-{kind}" if kind else new)
    return written


def f1(precision: float, recall: float) -> float:
    """Returns the harmonic mean of precision and recall, or 0 where one of them is 0 or NaN.

    >>> f1(0.5, 1.0), f1(float("nan"), 1.0)
    (0.6666666666666666, 0.0)
    """
    if np.isnan(precision) or np.isnan(recall) or precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)
