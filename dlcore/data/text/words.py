"""The definition of a word in the scripts of all languages.

A letter may carry marks that are characters of their own: the vowel signs of Devanagari, the tones
of decomposed Vietnamese, the dot that lower-casing leaves on a Turkish i. Python's `\\w` knows
letters, digits and "_" only, so that words would be cut at every mark, and at the characters
without a width that choose a letter's form (ZWJ, ZWNJ) or hide in the middle of a word (soft
hyphens, marks of direction). Here they belong to the word around them, as in Unicode's word
boundaries (Unicode Standard Annex 29, rule WB4). Text without them is split as by `\\w`.
"""

import re
from collections.abc import Callable

import regex

_LETTER = r"\p{L}\p{N}_"  # what Python's \w matches
_ALPHABETIC = r"\p{L}\p{Nl}\p{No}"  # what Python's [^\W\d_] matches
_EXTENDERS = r"\p{M}\u200c\u200d"
_HIDDEN = r"\u00ad\u061c\u200e\u200f\u2060\ufeff"


def _runs(letters: str, between: str) -> str:
    """Returns the pattern of letters with their marks; `between` matches only inside a word."""
    run = f"[{letters}][{letters}{_EXTENDERS}]*"
    return f"{run}(?:(?:[{_HIDDEN}]+{between}){run})*"


def _finder(plain: str, full: str) -> Callable[[str], list[str]]:
    """Returns a function that finds the matches of a rule in a line, from left to right.

    Args:
        plain: the rule for lines in ASCII, which is quicker.
        full: the rule for all lines.
    """
    ascii_only, everything = re.compile(plain), regex.compile(full)
    if not ascii_only.groups:
        return lambda line: (ascii_only if line.isascii() else everything).findall(line)
    return lambda line: [
        match[0] for match in (ascii_only if line.isascii() else everything).finditer(line)
    ]


find_words = _finder(r"\w+(?:['’]\w+)*", _runs(_LETTER, "|['’]"))
"""Finds letters, digits and "_", with apostrophes inside."""

find_letters = _finder(r"[^\W\d_]+", _runs(_ALPHABETIC, ""))
"""Finds letters."""

# A special token of vocabularies that the text spells out | a word | a clitic that stands alone | a
# run of one and the same other character.
find_tokens = _finder(
    r"<(?:unk|eos)>|\w+(?:'\w+)*|'(?:s|re|ve|ll|d|m)\b|(?P<other>[^\w\s])(?P=other)*",
    r"<(?:unk|eos)>|"
    + _runs(_LETTER, "|'")
    + rf"|'(?:s|re|ve|ll|d|m)(?![{_LETTER}{_EXTENDERS}])"
    + rf"|(?P<other>[^{_LETTER}\s\x1c-\x1f][{_EXTENDERS}]*)(?P=other)*",
)
"""Finds words, and runs of one and the same punctuation mark or symbol."""
