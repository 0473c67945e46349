"""The data set of printed characters: each is an identity, and each font that draws it an example.

The fonts are those that matplotlib ships: DejaVu Sans, DejaVu Sans Mono, DejaVu Serif and STIX
General, each regular, bold, oblique and bold oblique. Matplotlib's other fonts are not used: they
have TeX's encodings instead of Unicode (Computer Modern), characters for private use or of other
sizes (the other STIX fonts), display forms of few characters, or a box for everything (Last
Resort).

A character is drawn by matplotlib's own rasteriser without hinting, four times as large, and made
smaller by means of whole numbers; so its pixels are the same on all machines that have the same
version of matplotlib. Which characters are there is decided by pixels too (`distinct_characters`).
"""

import functools
import io
import itertools
import pathlib
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tqdm
from PIL import Image

from dlcore.data.tfds import tfds

SIDE = 32
FONTS = tuple(
    family + face
    for family, faces in (
        ("DejaVuSans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSerif", ("", "-Bold", "-Italic", "-BoldItalic")),
        ("STIXGeneral", ("", "Bol", "Italic", "BolIta")),
    )
    for face in faces
)
FEWEST_FONTS = 12  # that have a character
FEWEST_PICTURES = 6  # of a character that differ
UNSEEN_SCRIPTS = ("Armenian", "Cyrillic", "Georgian")

_EM = 22  # pixels
_FINE = 4  # points of the drawing for each pixel
_MARGIN = 1  # pixels without ink around every character, at the least
_TEST = 5  # one of so many characters is held out
_ALIKE = 100  # pictures look alike when they differ by less than one part of so many
_SCRIPTS = ("Armenian", "Cyrillic", "Georgian", "Greek", "Latin")
_OTHER = "Symbol"

# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, Any]]


class Character(NamedTuple):
    """A character and its pictures.

    Attributes:
        code: its number in Unicode.
        pictures: uint8 [n, 32, 32], 255 for ink, all different.
        fonts: the numbers of the n fonts that draw them, the first one of those that draw the same.
    """

    code: int
    pictures: np.ndarray
    fonts: tuple[int, ...]

    @classmethod
    def of_fonts(cls, code: int, drawn: Mapping[int, np.ndarray]) -> "Character":
        """Returns a character with the different ones of its pictures, given by font in order."""
        different = {picture.tobytes(): font for font, picture in reversed([*drawn.items()])}
        fonts = tuple(sorted(different.values()))
        return cls(code, np.stack([drawn[font] for font in fonts]), fonts)

    @property
    def name(self) -> str:
        """The character's number and its name in Unicode, such as "U+0041 LATIN CAPITAL ..."."""
        return f"U+{self.code:04X} {unicodedata.name(chr(self.code))}"

    @property
    def script(self) -> str:
        """The script of a letter, and "Symbol" for all other characters."""
        word = unicodedata.name(chr(self.code)).partition(" ")[0].capitalize()
        is_letter = unicodedata.category(chr(self.code)).startswith("L")
        return word if is_letter and word in _SCRIPTS else _OTHER


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Characters by at least 12 fonts of matplotlib, 32 x 32 pixels, white on black.

    All are drawn at one scale, 22 pixels for the em, and centred. "train" and "test" share no
    character: one in five Latin and Greek letters and symbols is held out. "unseen_scripts" has the
    Armenian, Cyrillic and Georgian letters, which are in neither of these parts. "label" is the
    character, "alphabet" its script.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                    "alphabet": tfds.features.ClassLabel(names=sorted((*_SCRIPTS, _OTHER))),
                    # The names are known only once the characters are drawn.
                    "label": tfds.features.ClassLabel(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        characters, _ = distinct_characters()
        self.info.features["label"].names = [character.name for character in characters]
        return {
            split: self._generate_examples(part)
            for split, part in split_scripts(characters).items()
        }

    def _generate_examples(self, characters: Sequence[Character]) -> Iterator[Example]:
        for character in characters:
            for picture, font in zip(character.pictures, character.fonts, strict=True):
                png = io.BytesIO()
                Image.fromarray(picture).save(png, "png", compress_level=1)
                yield (
                    f"{character.code}_{font}",
                    {
                        "image": png.getvalue(),
                        "alphabet": character.script,
                        "label": character.name,
                    },
                )


def split_scripts(characters: Sequence[Character]) -> dict[str, list[Character]]:
    """Returns the characters of "train", "test" and "unseen_scripts"."""
    parts: dict[str, list[Character]] = {"train": [], "test": [], "unseen_scripts": []}
    count = dict.fromkeys((*_SCRIPTS, _OTHER), 0)
    for character in characters:
        script = character.script
        held_out = count[script] % _TEST == _TEST // 2
        count[script] += 1
        parts[
            "unseen_scripts" if script in UNSEEN_SCRIPTS else "test" if held_out else "train"
        ].append(character)
    return parts


def distinct_characters(
    among: Collection[int] | None = None,
) -> tuple[list[Character], dict[str, int]]:
    """Draws the characters that can be told apart, in the order of their numbers.

    Left out are, in this order: characters that fewer than 12 of the `FONTS` have; marks, spaces
    and controls, which show nothing by themselves; those that are too large for the picture in any
    font; those with fewer than 6 different pictures, since fonts that draw the same picture count
    once; and those that look like an earlier character in any font, such as the Greek and the
    Cyrillic A, or a full stop, which is a middle dot once it is centred. Two pictures look alike
    when the squared differences sum up to less than a hundredth of the squares of their ink.

    Args:
        among: the numbers of the characters to choose from; None means all.

    Returns:
        The characters, and the number left out for each of these reasons except the first.
    """
    drawn: dict[int, dict[int, np.ndarray]] = {}
    left_out = dict.fromkeys(("marks and spaces", "too large", "too few pictures", "look alike"), 0)
    too_large: set[int] = set()
    charmaps = [set(open_font(name).get_charmap()) for name in FONTS]
    if among is not None:
        charmaps = [charmap.intersection(among) for charmap in charmaps]
    every = itertools.chain.from_iterable(charmaps)
    codes = np.unique(np.fromiter(every, int), return_counts=True)
    wanted = [int(code) for code, count in zip(*codes, strict=True) if count >= FEWEST_FONTS]
    visible = [code for code in wanted if unicodedata.category(chr(code))[0] not in "CMZ"]
    left_out["marks and spaces"] = len(wanted) - len(visible)
    for number, (name, charmap) in enumerate(zip(FONTS, charmaps, strict=True)):
        font = open_font(name)
        own = [code for code in visible if code in charmap]
        for code in progress(own, f"drawing {name} ({number + 1} of {len(FONTS)})"):
            picture = draw(font, chr(code))
            if picture is None:
                too_large.add(code)
            else:
                drawn.setdefault(code, {})[number] = picture
    left_out["too large"] = len(too_large)
    characters = []
    for code in sorted(drawn.keys() - too_large):
        character = Character.of_fonts(code, drawn[code])
        if len(character.fonts) < FEWEST_PICTURES:
            left_out["too few pictures"] += 1
        else:
            characters.append(character)
    kept = unlike(characters, {c.code: drawn[c.code] for c in characters})
    left_out["look alike"] = len(characters) - len(kept)
    return kept, left_out


def unlike(
    characters: Sequence[Character], drawn: dict[int, dict[int, np.ndarray]]
) -> list[Character]:
    """Returns the characters without those that look like an earlier one that is kept."""
    alike: dict[int, set[int]] = {character.code: set() for character in characters}
    for number in sorted({font for pictures in drawn.values() for font in pictures}):
        codes = [code for code, pictures in drawn.items() if number in pictures]
        pictures = np.stack([drawn[code][number] for code in codes]).astype(np.int64)
        ink = (pictures**2).sum((1, 2))
        # Means of 2 x 2 pixels are never farther apart than the pixels, and quickly compared.
        halves = (
            pictures.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).sum((2, 4)).reshape(len(codes), -1)
        )
        means = halves.astype(np.float32) / 2
        squares = (means**2).sum(1)
        least = squares[:, None] + squares - 2 * (means @ means.T)
        near = least < np.minimum(ink[:, None], ink) * (2.0 / _ALIKE)
        for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True):
            difference = ((pictures[a] - pictures[b]) ** 2).sum()
            if _ALIKE * difference < min(ink[a], ink[b]):
                alike[codes[b]].add(codes[a])
    # Different fonts may draw two characters the same too.
    first: dict[bytes, set[int]] = {}
    for character in characters:
        for picture in character.pictures:
            same = first.setdefault(picture.tobytes(), set())
            alike[character.code] |= same
            same.add(character.code)
    kept: dict[int, Character] = {}
    for character in characters:
        if not alike[character.code] & kept.keys():
            kept[character.code] = character
    return list(kept.values())


def open_font(name: str) -> Any:
    """Opens a font of matplotlib at the size of the drawing."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")))
    font.set_size(_EM * _FINE, 72)  # at 72 dots per inch a point is a dot
    return font


def draw(font: Any, character: str, baseline: int | None = None) -> np.ndarray | None:
    """Draws a character, uint8 [32, 32]; returns None where it does not fit into the picture.

    Args:
        font: a font of `open_font`.
        character: the character to draw.
        baseline: the row that the character stands on, so that its height can be seen; None
            centres its ink. From left to right the ink is always centred.
    """
    from matplotlib.ft2font import LoadFlags

    font.set_text(character, 0.0, flags=LoadFlags.NO_HINTING)
    font.draw_glyphs_to_bitmap(antialiased=True)
    fine = np.asarray(font.get_image())
    rows, columns = (np.flatnonzero(fine.any(axis)) for axis in (1, 0))
    if not len(rows):  # a font may have an empty drawing
        return np.zeros((SIDE, SIDE), np.uint8)
    # The last row of the bitmap lies so far below the baseline.
    below = round(font.get_descent() / 64)
    first = rows[0] - (len(fine) - below)
    fine = fine[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = fine.shape
    side, margin = SIDE * _FINE, _MARGIN * _FINE
    top = (side - height) // 2 if baseline is None else baseline * _FINE + first
    left = (side - width) // 2
    if min(top, left) < margin or max(top + height, left + width) > side - margin:
        return None
    square = np.zeros((side, side), np.uint16)
    square[top : top + height, left : left + width] = fine
    # Adding slices is four times as fast as one sum over two axes of blocks.
    rows_of = [square[part::_FINE] for part in range(_FINE)]
    high = functools.reduce(np.add, rows_of)
    total = functools.reduce(np.add, [high[:, part::_FINE] for part in range(_FINE)])
    return ((total + _FINE**2 // 2) // _FINE**2).astype(np.uint8)


def progress(codes: Sequence[int], what: str) -> Iterator[int]:
    """Yields the numbers of characters and shows the progress of drawing them."""
    # The caller silences TFDS, which would tell of each of its steps.
    return iter(
        tqdm.tqdm(
            codes,
            desc=what,
            file=sys.__stderr__,
            disable=None if sys.__stderr__ else True,
            leave=False,
        )
    )
