"""The byte pairs of published models such as GPT-2, with the token ids that their weights need.

`Vocabulary` learns its own byte pairs and has its own special tokens, but published weights need
the tokens that they were trained with.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from dlcore.data.text.vocabulary import byte_alphabet, byte_pair_tokenizer
from dlcore.errors import InputError
from dlcore.files import read_json, read_text

END = "<|endoftext|>"
# The files of a tokenizer: the ids of the tokens, and the merges in their order.
_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_WHOLE = "tokenizer.json"


class BytePairs:
    """A byte-level tokenizer whose tokens and merges are given (Radford et al. 2019, section 2.2).

    Every text can be encoded and is restored exactly by decoding; the text "<|endoftext|>" is the
    token of that name.

    Args:
        ids: the id of each token, which is spelt with one printable character for each byte.
        merges: the pairs of tokens that merge into one, in their order.

    Attributes:
        end: the id of "<|endoftext|>", which separates the texts in training; None where there is
            no such token.

    Raises:
        InputError: when the result of a merge is not a token, or tokens for single bytes are
            missing.
    """

    def __init__(self, ids: dict[str, int], merges: Iterable[tuple[str, str]]):
        pairs = list(merges)
        missing = [
            token
            for token in (
                *byte_alphabet(),
                *(part for pair in pairs for part in (*pair, "".join(pair))),
            )
            if token not in ids
        ]
        if missing:
            raise InputError(
                f"the tokens lack {missing[0]!r}, a byte or a part of a merge; give the tokens and "
                "the merges of one and the same model"
            )
        self.end = ids.get(END)
        self._size = max(ids.values()) + 1
        self._tokenizer = byte_pair_tokenizer(ids, pairs)
        if self.end is not None:
            self._tokenizer.add_special_tokens([END])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BytePairs":
        """Reads a tokenizer in the form of Hugging Face or of OpenAI.

        Args:
            path: a folder with vocab.json and merges.txt, with encoder.json and vocab.bpe, or with
                tokenizer.json, as published beside the weights.

        Raises:
            InputError: when the folder has none of these files, or they do not describe such a
                tokenizer.
        """
        folder = pathlib.Path(path)
        for names in _FILES:
            vocabulary, merges = (folder / name for name in names)
            if vocabulary.is_file() and merges.is_file():
                lines = read_text(merges).replace("\r\n", "\n").split("\n")
                rows = [line for line in lines if line and not line.startswith("#version")]
                return cls(_ids(_object(vocabulary), vocabulary), _pairs(rows, merges))
        whole = folder / _WHOLE
        if not whole.is_file():
            listed = ", ".join(" and ".join(names) for names in _FILES)
            raise InputError(f"{folder} has no tokenizer; it needs {listed}, or {_WHOLE}")
        content = _object(whole)
        model = content.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
            raise InputError(f"{whole} is not a tokenizer of byte pairs; give one of GPT-2")
        ids = _ids(model.get("vocab"), whole)
        for added in content.get("added_tokens") or ():
            ids[str(added["content"])] = int(added["id"])
        return cls(ids, _pairs(model["merges"], whole))

    def __len__(self) -> int:
        """Returns the number of ids, V."""
        return self._size

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of a text, int32 [N]."""
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; bytes that do not form a character become U+FFFD."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)


def _object(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; give the tokenizer's own") from None


def _ids(content: Any, path: pathlib.Path) -> dict[str, int]:
    """Checks the ids of tokens."""
    if not isinstance(content, dict) or sorted(map(str, content.values())) != sorted(
        map(str, range(len(content)))
    ):
        raise InputError(f"{path} does not number its tokens from 0 on; give the tokenizer's own")
    return dict(content)


def _pairs(rows: list[Any], path: pathlib.Path) -> list[tuple[str, str]]:
    """Reads merges: two tokens each, with a space between or as a list."""
    pairs = [row.split(" ") if isinstance(row, str) else row for row in rows]
    for row, pair in zip(rows, pairs, strict=True):
        if not isinstance(pair, list) or len(pair) != 2 or not all(pair):
            raise InputError(f"{path} has the merge {row!r}; a merge is two tokens")
    return [(str(first), str(second)) for first, second in pairs]
