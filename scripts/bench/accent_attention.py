"""Tells whether a captioner of characters looks at an accent while it says the accent's name.

    python scripts/bench/accent_attention.py WORKDIR

WORKDIR is a finished run of captioning with attention on glyph_names. Of each test character that
Unicode decomposes into another one and a mark, such as e with circumflex and acute, the accent is
where its picture has ink that the picture of the other one has not. For each word of the caption
that names the mark ("acute", but neither "and" nor "above" and "below", which say where it is), the
place of the most attention counts as on the accent when the square of pixels that it stands for,
with half a place around it, has some of that ink. Beside the share of such words stands that of a
place drawn at random.
"""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import dlcore
from dlcore.data import load_captions
from dlcore.data.builders import glyphs
from dlcore.data.builders.glyph_names import BASELINE, FONTS

_FARTHEST = 6  # pixels that a wide accent moves the letter aside
_INK = 64  # of 255
_OTHER_WORDS = {"and", "above", "below"}  # of a mark, that do not name it


class Accented(NamedTuple):
    """A character with a mark.

    Attributes:
        name: of the character, in lower case.
        picture: uint8 [H, W, 1].
        words: of its name, that name the mark.
        accent: bool [H, W], where it has ink that the character without the mark has not.
    """

    name: str
    picture: np.ndarray
    words: tuple[str, ...]
    accent: np.ndarray


def accented(names: Sequence[str]) -> Iterator[Accented]:
    """Yields the characters of some names that are another one and a mark."""
    fonts = [glyphs.open_font(name) for name in FONTS]
    charmaps = [set(font.get_charmap()) for font in fonts]
    for name in names:
        try:
            character = unicodedata.lookup(name.upper())
        except KeyError:  # the name of a pattern, whose digits are words
            continue
        parts = unicodedata.decomposition(character).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        base = chr(int(parts[0], 16))
        before = unicodedata.name(base).lower()
        words = name.removeprefix(before).split()
        number = next((n for n, codes in enumerate(charmaps) if ord(character) in codes), None)
        if not name.startswith(before) or number is None or ord(base) not in charmaps[number]:
            continue
        whole, plain = (glyphs.draw(fonts[number], one, BASELINE) for one in (character, base))
        if whole is None or plain is None or words[:1] not in (["with"], ["and"]):
            continue
        moved = [np.roll(plain, by, 1) for by in range(-_FARTHEST, _FARTHEST + 1)]
        extra = [whole.astype(int) - letter for letter in moved]
        least = min(extra, key=lambda difference: np.abs(difference).sum())
        if (least > _INK).any():
            named = tuple(word for word in words[1:] if word not in _OTHER_WORDS)
            yield Accented(name, whole[..., None], named, least > _INK)


def around(accent: np.ndarray, places: tuple[int, int]) -> np.ndarray:
    """Returns which places see the accent, bool [h, w], with half a place around each."""
    height, width = (side // count for side, count in zip(accent.shape, places, strict=True))
    found = np.zeros(places, bool)
    for row, column in np.ndindex(*places):
        top, left = row * height - height // 2, column * width - width // 2
        part = accent[max(top, 0) : top + 2 * height, max(left, 0) : left + 2 * width]
        found[row, column] = part.any()
    return found


def main(workdir: str) -> None:
    run = dlcore.load(workdir)
    task = run.task
    config = task.config
    data = load_captions(config.dataset, data_dir=config.data_dir)
    characters = list(accented([caption for (caption,) in data.test.captions]))
    looks = task.looks(run.variables, np.stack([one.picture for one in characters]))
    hits, chances, unsaid = [], [], 0
    for one, look in zip(characters, looks, strict=True):
        sees = around(one.accent, look.weights.shape[1:])
        for word in one.words:
            if word not in look.words:
                unsaid += 1
                continue
            of_word = look.weights[look.words.index(word)]
            hits.append(sees[np.unravel_index(of_word.argmax(), sees.shape)])
            chances.append(sees.mean())
    print(
        f"{len(characters)} unseen characters with a mark; {len(hits)} words of it said, "
        f"{unsaid} not; the most attention is on the accent in {np.mean(hits):.1%}, that of a "
        f"random place in {np.mean(chances):.1%}"
    )


if __name__ == "__main__":
    main(sys.argv[1])
