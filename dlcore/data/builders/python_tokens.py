"""The data set of Python source in which each character is tagged with the class of its token.

The classes come from the standard library's tokenizer.
"""

import io
import itertools
import keyword
import token as token_types
import tokenize
from collections.abc import Iterator
from typing import TypeAlias

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

CLASSES = ("space", "name", "keyword", "number", "operator", "string", "comment")
_SPACE, _NAME, _KEYWORD, _NUMBER, _OPERATOR, _STRING, _COMMENT = range(len(CLASSES))
_KINDS = {
    token_types.NAME: _NAME,
    token_types.NUMBER: _NUMBER,
    token_types.OP: _OPERATOR,
    token_types.STRING: _STRING,
    token_types.COMMENT: _COMMENT,
}
_OPEN, _CLOSE = {"(", "[", "{"}, {")", "]", "}"}
# The most and the fewest characters of a window, and the most windows that are taken from a file,
# so that windows come from the whole library.
_LONGEST, _SHORTEST, _PER_FILE = 200, 100, 16


# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, str | list[int]]]


class PythonTokens(tfds.core.GeneratorBasedBuilder):
    """Windows of at most 200 characters of the standard library's source, a tag per character.

    A window is a run of whole statements and comments, so that no string or bracket is cut and the
    text alone decides every tag. Soft keywords (`match`) are names, a formatted string is one
    string. Files are split 90 : 10 by their names; no window occurs twice.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
                }
            ),
            metadata=tfds.core.MetadataDict(versions=installed.versions([installed.PYTHON])),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        splits: dict[str, list[tuple[str, str, list[int]]]] = {"train": [], "test": []}
        seen: set[str] = set()
        for source in installed.progress(
            [*installed.sources(installed.PYTHON)], name="python_tokens"
        ):
            split = "test" if installed.position(source.name) < 0.1 else "train"
            for number, (text, tags) in enumerate(_evenly_spaced(windows(source.text))):
                if text not in seen:
                    seen.add(text)
                    splits[split].append((f"{source.name}/{number}", text, tags))
        return {name: self._generate_examples(examples) for name, examples in splits.items()}

    def _generate_examples(self, examples: list[tuple[str, str, list[int]]]) -> Iterator[Example]:
        for key, text, tags in examples:
            yield key, {"text": text, "tags": tags}


def windows(source: str) -> list[tuple[str, list[int]]]:
    """Cuts source into windows of 100 to 200 characters, each with the class of its characters.

    Longer statements are left out, and so are short runs of statements before them. Source that
    the tokenizer refuses has no windows.

    >>> ((text, tags),) = windows(2 * ("value = 1  # " + 90 * "x" + "\\n"))
    >>> [CLASSES[tag] for tag in tags[:11:2]]
    ['name', 'name', 'name', 'operator', 'number', 'space']
    """
    try:
        tags, ends = _tag(source)
    except (tokenize.TokenError, SyntaxError):
        return []
    cut = []
    start = end = 0
    for next_end in ends:
        if next_end - start > _LONGEST:
            if end - start >= _SHORTEST:
                cut.append((source[start:end], tags[start:end]))
            start = end if next_end - end <= _LONGEST else next_end
        end = next_end
    return cut


def _tag(source: str) -> tuple[list[int], list[int]]:
    """Returns the class of each character and the ends of the lines that leave nothing open."""
    starts = [0, *itertools.accumulate(map(len, io.StringIO(source)))]
    tags = [_SPACE] * len(source)
    ends = []
    formatted = brackets = 0
    begin = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = token_types.tok_name[token.type]
        first, last = (starts[row - 1] + column for row, column in (token.start, token.end))
        # From Python 3.12 on, a formatted string is many tokens, which may be strings again.
        if name in ("FSTRING_START", "TSTRING_START"):
            begin = begin if formatted else first
            formatted += 1
        elif name in ("FSTRING_END", "TSTRING_END"):
            formatted -= 1
            tags[begin:last] = [_STRING] * (last - begin)
        elif formatted:
            continue
        elif token.type in _KINDS:
            kind = _KEYWORD if keyword.iskeyword(token.string) else _KINDS[token.type]
            tags[first:last] = [kind] * (last - first)
            brackets += (token.string in _OPEN) - (token.string in _CLOSE)
        elif name in ("NEWLINE", "NL") and not brackets:
            ends.append(last)
    return tags, ends


def _evenly_spaced(cut: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """Chooses at most `_PER_FILE` windows of a file at even distances."""
    if len(cut) <= _PER_FILE:
        return cut
    return [cut[index * len(cut) // _PER_FILE] for index in range(_PER_FILE)]
