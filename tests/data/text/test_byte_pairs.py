"""The tokenizer of GPT-2 against its published program, written again."""

import json
import pathlib

import pytest
import regex

from dlcore.data.text import BytePairs
from dlcore.errors import InputError

TEXT = (
    "the cat's hat, and the cat  sat\n\n on   the mat.\tThey'll see: 2023 cats! "
    "Zürich naïve 東京 🙂 ... \n the  hats \r\n"
)
MERGES = ["t h", "th e", "Ġ the", "a t", "c at", "Ġ cat", "h at", "' s", "2 0", "Ċ Ċ", "Ã ¼", "Ġ Ġ"]
RULE = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def byte_names() -> dict[int, str]:
    """The printable character of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {
        **{byte: chr(byte) for byte in plain},
        **{byte: chr(256 + place) for place, byte in enumerate(others)},
    }


NAMES = byte_names()
TOKENS = [*NAMES.values(), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
IDS = {token: number for number, token in enumerate(TOKENS)}


def by_hand(text: str) -> list[int]:
    """Merges the best pair of each word until there is none."""
    rank = {tuple(merge.split(" ")): place for place, merge in enumerate(MERGES)}
    ids = []
    for match in RULE.finditer(text):
        word = [NAMES[byte] for byte in match[0].encode()]
        while pairs := [pair for pair in zip(word, word[1:], strict=False) if pair in rank]:
            best, merged = min(pairs, key=rank.__getitem__), []
            for token in word:
                if merged and (merged[-1], token) == best and not merged[-1].endswith("\0"):
                    merged[-1] += token + "\0"
                else:
                    merged.append(token)
            word = [token.rstrip("\0") for token in merged]
        ids += [IDS[token] for token in word]
    return ids


def write(folder: pathlib.Path, form: str) -> pathlib.Path:
    if form == "tokenizer.json":
        merges = [merge.split(" ") for merge in MERGES]
        last = IDS["<|endoftext|>"]
        vocab = {token: number for token, number in IDS.items() if number != last}
        added = [{"id": last, "content": "<|endoftext|>", "special": True}]
        content = {"model": {"type": "BPE", "vocab": vocab, "merges": merges}}
        (folder / form).write_text(json.dumps({**content, "added_tokens": added}), encoding="utf-8")
    else:
        vocabulary, merges = form.split("+")
        (folder / vocabulary).write_text(json.dumps(IDS), encoding="utf-8")
        lines = "".join(f"{merge}\n" for merge in MERGES)
        (folder / merges).write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "form", ["vocab.json+merges.txt", "encoder.json+vocab.bpe", "tokenizer.json"]
)
def test_the_tokens_of_a_model(tmp_path: pathlib.Path, form: str) -> None:
    pairs = BytePairs.load(write(tmp_path, form))
    assert len(pairs) == len(TOKENS) and pairs.end == len(TOKENS) - 1
    for text in (TEXT, TEXT[3:], "", " ", "\n \n"):
        assert pairs.encode(text).tolist() == by_hand(text)
        assert pairs.decode(pairs.encode(text)) == text
    both = pairs.encode("the<|endoftext|> cat").tolist()
    assert both == [IDS["the"], pairs.end, IDS["Ġcat"]]
    assert pairs.decode(both) == "the<|endoftext|> cat"
    assert pairs.decode(pairs.encode("🙂")[:2]) == "\ufffd"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            "has no tokenizer; it needs vocab.json and merges.txt, encoder.json and vocab.bpe, or",
        ),
        ({"vocab.json": "{}"}, "has no tokenizer"),
        ({"vocab.json": "[", "merges.txt": ""}, "cannot read .*vocab.json"),
        ({"vocab.json": '{"a": 5}', "merges.txt": ""}, "does not number its tokens from 0 on"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b c\n"}, "has the merge 'a b c'; a merge is"),
        ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "the tokens lack '.*', a byte or a part"),
        (
            {"vocab.json": json.dumps(IDS), "merges.txt": "h e\n"},
            "the tokens lack 'he', a byte or a part of a merge",
        ),
        (
            {"tokenizer.json": '{"model": {"type": "WordLevel"}}'},
            "is not a tokenizer of byte pairs",
        ),
        ({"tokenizer.json": '{"model": {"vocab": 1, "merges": []}}'}, "does not number its tokens"),
    ],
)
def test_folders_without_a_tokenizer(
    tmp_path: pathlib.Path, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        BytePairs.load(tmp_path)
    assert "\n" not in str(error.value)
