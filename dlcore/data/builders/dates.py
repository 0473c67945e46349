"""The data set of dates as ten languages write them, by Unicode's locale data from Babel."""

import datetime
import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds

if TYPE_CHECKING:
    import babel
    import babel.dates

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv", "tr")
# Three styles, and two sets of fields that each language arranges in its own way: yMMMEd is year,
# month in letters, weekday and day; yMd is year, month in digits and day. All write the whole year.
FORMATS = ("full", "long", "medium", "yMMMEd", "yMd")
WRITTEN, ISO = "written", "iso"
SIZES = {"test": 1_000, "validation": 1_000, "train": 30_000}
_DAYS = np.arange("1900-01-01", "2100-01-01", dtype="datetime64[D]")


# The key and the features of an example.
Example: TypeAlias = tuple[int, dict[str, str]]


class DatesConfig(tfds.core.BuilderConfig):
    """The pair of languages that a configuration translates between.

    Args:
        source: a language, or "written" for all of them.
        target: a language, or "iso" for ISO 8601.
    """

    def __init__(self, source: str, target: str):
        super().__init__(name=ISO if target == ISO else f"{source}_{target}")
        self.pair = source, target


class Dates(tfds.core.GeneratorBasedBuilder):
    """Days of the years 1900 to 2099, each at most once, so that no test day is in training.

    `dates/iso`, the default, goes from ten languages and five formats to ISO 8601; `dates/en_de`
    goes from English to the same format in German, and so on for every pair. A text that can mean
    two days is left out: 7/10/1969 is in July in English, but in October in Spanish.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        DatesConfig(WRITTEN, ISO),
        *itertools.starmap(DatesConfig, itertools.permutations(LANGUAGES, 2)),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.Translation(self.builder_config.pair),
            supervised_keys=self.builder_config.pair,
            metadata=tfds.core.MetadataDict(versions=installed.versions(["babel"])),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        pairs = translations(*self.builder_config.pair)
        return {
            split: self._generate_examples([*itertools.islice(pairs, size)])
            for split, size in SIZES.items()
        }

    def _generate_examples(self, pairs: list[tuple[str, str]]) -> Iterator[Example]:
        for key, pair in enumerate(pairs):
            yield key, dict(zip(self.builder_config.pair, pair, strict=True))


def translations(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Yields the days of all years in a random but fixed order as `source` and `target` write them.

    Each day appears in one format, or not at all if its text could mean another day.
    """
    languages = LANGUAGES if source == WRITTEN else (source,)
    rng = np.random.default_rng(0)
    for day in rng.permutation(_DAYS).tolist():
        language = languages[rng.integers(len(languages))]
        text = write(day, language, FORMATS[rng.integers(len(FORMATS))])
        if is_ambiguous(text, day, languages):
            continue
        if target == ISO:
            yield text, day.isoformat()
        else:
            # Formats that look alike in the source share the translation of the first of them.
            alike = (form for form in FORMATS if write(day, language, form) == text)
            yield text, write(day, target, next(alike))


def write(day: datetime.date, language: str, form: str) -> str:
    """Writes a day in a language and one of `FORMATS`.

    >>> write(datetime.date(1969, 10, 7), "de", "long")
    '7. Oktober 1969'
    """
    locale, pattern = _pattern(language, form)
    return pattern.apply(day, locale)


def is_ambiguous(text: str, day: datetime.date, languages: tuple[str, ...]) -> bool:
    """Returns whether `text`, which means `day`, means another day in one of the languages."""
    if day.day > 12 or day.day == day.month:
        return False
    # Only a day and a month that are both written in digits can be taken for one another.
    exchanged = day.replace(month=day.day, day=day.month)
    return any(
        text == write(exchanged, language, form)
        for language, form in itertools.product(languages, FORMATS)
        if "MMM" not in _pattern(language, form)[1].pattern
    )


@functools.cache
def _pattern(language: str, form: str) -> tuple["babel.Locale", "babel.dates.DateTimePattern"]:
    """Returns the locale of a language and the pattern of a format in it."""
    # Only the first use of this data set needs it.
    import babel

    locale = babel.Locale(language)
    return locale, locale.date_formats.get(form) or locale.datetime_skeletons[form]
