"""Turns text into token ids and back by a vocabulary of words, characters or byte pairs.

Shapes: N tokens of a text, V tokens of the vocabulary.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tqdm

from dlcore.data.text.words import find_tokens
from dlcore.errors import InputError, choose
from dlcore.files import read_json, write_whole

if TYPE_CHECKING:
    import tokenizers

LEVELS = ("word", "space", "char", "bpe")
UNKNOWN, END = 0, 1
_SPECIAL = ("<unk>", "<eos>")
_BPE_SIZE = 10_000
_BYTES = 256
_PIECE = 1 << 20  # characters of a text that become tokens at once
_FINDERS = {"word": find_tokens, "space": str.split}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a level; the id of a token is its index among them.

    Id 0 is "<unk>", which represents every token that is not listed, and id 1 is "<eos>", the end
    of a line or sequence. The others follow by falling frequency in the training text, ties in the
    order of their code points. Vocabularies are equal when they encode every text alike.

    The levels are:

    - word: words and runs of punctuation; a line end is "<eos>", other white space is dropped.
    - space: the strings between white space, for text that was split into tokens before, such
      as WikiText or the Penn Treebank; a line end is "<eos>".
    - char: characters, including line ends and spaces.
    - bpe: byte pairs (Sennrich et al. 2016, on bytes); decoding restores every text, and no
      token is unknown. Lines are encoded one by one.

    Attributes:
        level: one of `LEVELS`.
        tokens: V distinct strings, the two special ones first. At the level "bpe" they are spelt
            with one printable character for each byte.
        lower: whether text is lower-cased before it is split.
        merges: at the level "bpe", the pairs that merge into one token, in this order.

    >>> vocabulary = Vocabulary.build("the cat and the dog\\n")
    >>> vocabulary.tokens
    ('<unk>', '<eos>', 'the', 'and', 'cat', 'dog')
    >>> ids = vocabulary.encode("the red cat\\n")
    >>> ids.tolist(), vocabulary.decode(ids)
    ([2, 0, 4, 1], 'the <unk> cat\\n')
    """

    level: str
    tokens: tuple[str, ...]
    lower: bool = False
    merges: tuple[tuple[str, str], ...] = ()

    @classmethod
    def build(
        cls,
        text: str | Iterable[str],
        *,
        level: str = "word",
        size: int | None = None,
        min_count: int = 1,
        lower: bool = False,
    ) -> "Vocabulary":
        """Builds the vocabulary of a text, which should be the training text alone.

        Args:
            text: one text or several.
            level: one of `LEVELS`.
            size: the most tokens, V, the special ones included; None lists all words or characters,
                or 10,000 byte pairs.
            min_count: the smallest count of a listed token, or of a pair that is merged.
            lower: whether to lower-case the text, now and when it is encoded.

        Raises:
            InputError: for another level, or a size that has no room for the level's tokens.
        """
        if level not in LEVELS:
            raise choose("vocabulary level", level, LEVELS)
        texts = [text] if isinstance(text, str) else text
        if level == "bpe":
            return _byte_pairs(list(texts), size or _BPE_SIZE, min_count, lower)
        splitter = cls(level, _SPECIAL, lower)
        pieces = (piece for text in texts for piece in _pieces(text))
        counts: collections.Counter[str] = collections.Counter()
        if level == "char":
            occurrences = np.zeros(sys.maxunicode + 1, int)
            for piece in pieces:
                found = np.bincount(splitter._codes(piece))
                occurrences[: len(found)] += found
            counts.update({chr(code): int(occurrences[code]) for code in occurrences.nonzero()[0]})
        else:
            for piece in pieces:
                counts.update(splitter.split(piece))
        return cls(level, _most_frequent(counts, level, size, min_count), lower)

    @classmethod
    def of_tokens(
        cls,
        tokens: Iterable[str],
        *,
        size: int | None = None,
        min_count: int = 1,
        lower: bool = False,
    ) -> "Vocabulary":
        """Builds a vocabulary of level "word" from text that is split already; see `build`."""
        counts = collections.Counter(token.lower() if lower else token for token in tokens)
        return cls("word", _most_frequent(counts, "word", size, min_count), lower)

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """Splits a text into tokens, listed or not; a line end may be "\\n"."""
        text = text.lower() if self.lower else text
        if self.level == "char":
            return list(text)
        if self.level in _FINDERS:
            find = _FINDERS[self.level]
            return [token for line in text.split("\n") for token in (*find(line), "\n")][:-1]
        return [self.tokens[token] for token in self.encode(text).tolist()]

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of a text, int32 [N]."""
        encode = {"bpe": self._merged, "char": self._spelt}.get(self.level, self._found)
        pieces = [encode(piece) for piece in _pieces(text, whole_lines=self.level == "bpe")]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def encode_tokens(self, tokens: Sequence[str]) -> np.ndarray:
        """Returns the ids of N tokens, int32 [N], for text that is split already."""
        return self._look_up([token.lower() for token in tokens] if self.lower else tokens)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids: words with spaces between them, other tokens without.

        "<eos>" becomes a line end; bytes that do not form a character become U+FFFD.
        """
        lines: list[list[int]] = [[]]
        for token in ids:
            if token == END:
                lines.append([])
            else:
                lines[-1].append(int(token))
        if self.level == "bpe":
            return "\n".join(self._tokenizer.decode(line) for line in lines)
        return "\n".join(
            self.separator.join(self.tokens[token] for token in line) for line in lines
        )

    @property
    def separator(self) -> str:
        """The text between the tokens of a line: a space, or nothing at levels that spell words."""
        return " " if self.level in _FINDERS else ""

    @functools.cached_property
    def fingerprint(self) -> str:
        """A text of 16 hexadecimal digits that is the same for equal vocabularies."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()[:16]

    def check(self, fingerprint: str, *, owner: str) -> None:
        """Checks that a model was trained with this vocabulary.

        Args:
            fingerprint: the fingerprint of the vocabulary that the model was trained with.
            owner: the model in words, such as "the checkpoint in runs/lm".

        Raises:
            InputError: when the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"this {self.level} vocabulary of {len(self):,} tokens ({self.fingerprint}) is not "
                f"the one of {owner} ({fingerprint}); give the same data and vocabulary flags, or "
                "another workdir"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary as JSON, one token per line."""
        content = {"fingerprint": self.fingerprint, **dataclasses.asdict(self)}
        write_whole(pathlib.Path(path), json.dumps(content, indent=0) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Reads a vocabulary that `save` wrote.

        Raises:
            InputError: when the file is missing, or is not a complete vocabulary.
        """
        try:
            content = read_json(path)
            fingerprint = content.pop("fingerprint")
            content["tokens"] = tuple(content["tokens"])
            content["merges"] = tuple((first, second) for first, second in content["merges"])
            vocabulary = cls(**content)
            whole = vocabulary.fingerprint == fingerprint
        except OSError as error:
            raise InputError(f"cannot read vocabulary {path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise InputError(
                f"{path} is not a whole vocabulary file; restore it, or delete it and build the "
                "vocabulary again"
            )
        return vocabulary

    def _look_up(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self._ids.__getitem__, tokens), np.int32, len(tokens))

    def _found(self, text: str) -> np.ndarray:
        return self._look_up(self.split(text))

    def _spelt(self, text: str) -> np.ndarray:
        return self._ids_of_codes[self._codes(text)]

    def _codes(self, text: str) -> np.ndarray:
        """Returns the code points of a text's characters, uint32 [N]."""
        text = text.lower() if self.lower else text
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")

    def _merged(self, text: str) -> np.ndarray:
        lines = (text.lower() if self.lower else text).splitlines(keepends=True)
        encoded = self._tokenizer.encode_batch_fast(lines)
        return np.array([token for line in encoded for token in line.ids], np.int32)

    @functools.cached_property
    def _ids(self) -> "_Ids":
        ids = _Ids((token, number) for number, token in enumerate(self.tokens))
        if self.level != "char":
            ids["\n"] = END
        return ids

    @functools.cached_property
    def _ids_of_codes(self) -> np.ndarray:
        """The id of each code point, int32."""
        ids = np.full(sys.maxunicode + 1, UNKNOWN, np.int32)
        characters = [(number, ord(one)) for number, one in enumerate(self.tokens) if len(one) == 1]
        numbers, codes = np.array(characters, int).reshape(-1, 2).T
        ids[codes] = numbers
        return ids

    @functools.cached_property
    def _tokenizer(self) -> "tokenizers.Tokenizer":
        ids = {token: number for number, token in enumerate(self.tokens)}
        return byte_pair_tokenizer(ids, self.merges)


class _Ids(dict[str, int]):
    """The ids of tokens; all other tokens have the id `UNKNOWN`."""

    def __missing__(self, token: str) -> int:
        return UNKNOWN


def _pieces(text: str, *, whole_lines: bool = False) -> Iterator[str]:
    """Yields a text, at least once, in pieces whose tokens are those of the text.

    So the results of a piece take little memory, whatever the size of the text. A piece ends at a
    line end, or at a space where a line is longer, unless lines have to stay whole.
    """
    start = 0
    while len(text) - start > _PIECE:
        stop = start + _PIECE
        end = text.rfind("\n", start, stop) + 1
        if not end and not whole_lines:
            end = text.rfind(" ", start, stop) + 1
        end = end or text.find("\n", stop) + 1 or len(text)
        yield text[start:end]
        start = end
    if start < len(text) or not start:
        yield text[start:]


def _most_frequent(
    counts: dict[str, int], level: str, size: int | None, min_count: int
) -> tuple[str, ...]:
    """Returns the special tokens and the most frequent others."""
    least = len(_SPECIAL) + 1
    if size is not None and size < least:
        raise InputError(f"vocabulary size {size} is too small; give {least} or more")
    specials = {*_SPECIAL} if level == "char" else {*_SPECIAL, "\n"}
    listed = {token: count for token, count in counts.items() if token not in specials}
    if listed and min_count > (most := max(listed.values())):
        raise InputError(
            f"no token occurs {min_count:,} times, the most frequent {most:,} times; lower the "
            "smallest count (min_count)"
        )
    listed = {token: count for token, count in listed.items() if count >= min_count}
    return (*_SPECIAL, *_ranked(listed)[: size and size - len(_SPECIAL)])


def _ranked(counts: dict[str, int]) -> list[str]:
    """Sorts the tokens by falling count, then by code points."""
    return sorted(counts, key=lambda token: (-counts[token], token))


def byte_alphabet() -> list[str]:
    """Returns the printable characters that stand for the 256 bytes, sorted."""
    import tokenizers

    return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def byte_pair_tokenizer(
    vocab: dict[str, int] | None = None, merges: Sequence[tuple[str, str]] | None = None
) -> "tokenizers.Tokenizer":
    """Makes a byte-level tokenizer that neither adds nor loses anything."""
    # Only the level "bpe" needs the library.
    import tokenizers

    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab, None if merges is None else list(merges))
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _byte_pairs(texts: list[str], size: int, min_count: int, lower: bool) -> Vocabulary:
    """Learns which byte pairs to merge, then ranks the tokens by their use."""
    import tokenizers

    least = len(_SPECIAL) + _BYTES
    if size < least:
        raise InputError(
            f"vocabulary size {size} is too small for byte pairs; give {least} or more"
        )
    pieces = (piece for text in texts for piece in _pieces(text, whole_lines=True))
    lines = (line for piece in pieces for line in piece.splitlines(keepends=True))
    total = sum(text.count("\n") for text in texts)
    progress = tqdm.tqdm(lines, desc="learning byte pairs", total=total, delay=2, leave=False)
    tokenizer = byte_pair_tokenizer()
    tokenizer.train_from_iterator(
        (line.lower() for line in progress) if lower else progress,
        tokenizers.trainers.BpeTrainer(
            vocab_size=size - len(_SPECIAL),
            min_frequency=min_count,
            initial_alphabet=byte_alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    merges = tuple((first, second) for first, second in model["merges"])
    if min_count > 1 and size > least and not merges:
        raise InputError(
            f"no pair of bytes occurs {min_count:,} times; lower the smallest count (min_count)"
        )
    learnt = Vocabulary("bpe", (*_SPECIAL, *sorted(model["vocab"])), lower, merges)
    counts = sum(
        (np.bincount(learnt.encode(text), minlength=len(learnt)) for text in texts),
        np.zeros(len(learnt), int),
    )
    used = dict(zip(learnt.tokens[2:], counts[2:].tolist(), strict=True))
    return dataclasses.replace(learnt, tokens=(*_SPECIAL, *_ranked(used)))
