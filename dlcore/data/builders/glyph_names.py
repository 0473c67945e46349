"""The data set of printed characters and their names in Unicode, for captions.

A name such as "latin small letter e with circumflex and acute" says what the picture shows: script,
size, letter and marks. All names are English words that Unicode's authors gave, and those that stay
are made of the same few hundred ones, so that a character can be named that was never seen. Numbers
are said digit by digit: "BRAILLE PATTERN DOTS-125" is "braille pattern dots 1 2 5".

The fonts are the twelve of DejaVu that matplotlib ships. A character stands on the line, unlike
those of `glyphs`, since names tell superscripts and marks above from those below.
"""

import io
import itertools
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from dlcore.data.builders import glyphs
from dlcore.data.builders.glyphs import SIDE, Character
from dlcore.data.tfds import tfds

FONTS = tuple(name for name in glyphs.FONTS if name.startswith("DejaVu"))
BASELINE = 25  # the row that characters stand on
FEWEST_NAMES = 10  # that have a word

_PARTS = 20  # of which two are the test and one is for validation

# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, Any]]


class Named(NamedTuple):
    """The characters that have pictures and names, and the number of those left out by reason."""

    characters: list[Character]
    left_out: dict[str, int]


class GlyphNames(tfds.core.GeneratorBasedBuilder):
    """Characters by up to twelve fonts of DejaVu, 32 x 32 pixels, white on black, and their names.

    "train" has all different pictures of each of its characters. "validation" and "test" have one
    picture of each of theirs, by the first font that has the character. No character is in two
    parts, and the name of a character alone decides its part.
    """

    VERSION = tfds.core.Version("2.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                    "caption": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "caption"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        characters, left_out = named_characters()
        self.info.metadata.update(left_out=left_out)
        return {
            part: self._generate_examples(own, every_font=part == "train")
            for part, own in parts(characters).items()
        }

    def _generate_examples(
        self, characters: Sequence[Character], *, every_font: bool
    ) -> Iterator[Example]:
        for character in characters:
            for picture, font in zip(character.pictures, character.fonts, strict=True):
                png = io.BytesIO()
                Image.fromarray(picture).save(png, "png", compress_level=1)
                yield (
                    f"{character.code}_{font}",
                    {"image": png.getvalue(), "caption": name_of(character.code)},
                )
                if not every_font:
                    break


def name_of(code: int) -> str:
    """Returns the name of a character in lower case, with each digit as a word.

    >>> name_of(0xE9), name_of(0x2813)
    ('latin small letter e with acute', 'braille pattern dots 1 2 5')
    """
    return re.sub(r"[ -]?([0-9])", r" \1", unicodedata.name(chr(code)).lower())


def parts(characters: Sequence[Character]) -> dict[str, list[Character]]:
    """Returns the characters of "train", "validation" (one in 20) and "test" (one in 10)."""
    found: dict[str, list[Character]] = {"train": [], "validation": [], "test": []}
    for character in characters:
        place = zlib.crc32(name_of(character.code).encode()) % _PARTS
        found[("test", "test", "validation")[place] if place < 3 else "train"].append(character)
    return found


def named_characters(among: Collection[int] | None = None) -> Named:
    """Draws the characters whose names can be learnt, in the order of their numbers.

    Left out are, in this order: marks, spaces and controls, which show nothing by themselves;
    characters too large for the picture in any font; those that look like an earlier character in
    any font, as the Greek and the Cyrillic A do (`glyphs.unlike`); and those whose name has a word
    that occurs in fewer than ten of the remaining names, such as most syllables.

    Args:
        among: the numbers of the characters to choose from; None means all.
    """
    fonts = [glyphs.open_font(name) for name in FONTS]
    charmaps = [set(font.get_charmap()) for font in fonts]
    every = set(itertools.chain.from_iterable(charmaps))
    codes = sorted(every if among is None else every.intersection(among))
    visible = [code for code in codes if unicodedata.category(chr(code))[0] not in "CMZ"]
    left_out = {"marks and spaces": len(codes) - len(visible)}
    drawn: dict[int, dict[int, Any]] = {code: {} for code in visible}
    too_large: set[int] = set()
    for number, (name, font, charmap) in enumerate(zip(FONTS, fonts, charmaps, strict=True)):
        own = [code for code in visible if code in charmap]
        for code in glyphs.progress(own, f"drawing {name} ({number + 1} of {len(FONTS)})"):
            picture = glyphs.draw(font, chr(code), BASELINE)
            if picture is None:
                too_large.add(code)
            elif picture.any():
                drawn[code][number] = picture
    left_out["too large"] = len(too_large)
    drawn = {code: of for code, of in drawn.items() if of and code not in too_large}
    characters = [Character.of_fonts(code, pictures) for code, pictures in drawn.items()]
    kept = glyphs.unlike(characters, drawn)
    left_out["look alike"] = len(characters) - len(kept)
    frequent = _of_frequent_words(kept)
    left_out["words of few names"] = len(kept) - len(frequent)
    return Named(frequent, left_out)


def _of_frequent_words(characters: Sequence[Character]) -> list[Character]:
    """Returns the largest set of characters in whose names each word occurs ten times or more."""
    kept = list(characters)
    while True:
        words = {character.code: {*name_of(character.code).split()} for character in kept}
        count = Counter(itertools.chain.from_iterable(words.values()))
        frequent = [
            character
            for character in kept
            if all(count[word] >= FEWEST_NAMES for word in words[character.code])
        ]
        if len(frequent) == len(kept):
            return kept
        kept = frequent
