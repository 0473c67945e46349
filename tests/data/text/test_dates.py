import collections
import contextlib
import datetime
import itertools
import pathlib

import pytest

from dlcore.data.builders import dates
from dlcore.data.catalogue import prepared_builder
from dlcore.data.text import load_parallel_text
from dlcore.errors import InputError

DAY = datetime.date(1969, 7, 20)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("dates")


@pytest.mark.parametrize(
    ("language", "form", "expected"),
    [
        ("en", "full", "Sunday, July 20, 1969"),
        ("en", "yMd", "7/20/1969"),
        ("de", "medium", "20.07.1969"),
        ("es", "long", "20 de julio de 1969"),
        ("sv", "yMd", "1969-07-20"),
        ("tr", "full", "20 Temmuz 1969 Pazar"),
    ],
)
def test_days_are_written_as_languages_do(language: str, form: str, expected: str) -> None:
    assert dates.write(DAY, language, form) == expected


@pytest.mark.parametrize(
    ("text", "day", "languages", "expected"),
    [
        ("7/10/1969", datetime.date(1969, 7, 10), ("en", "es"), True),
        ("7/10/1969", datetime.date(1969, 7, 10), ("en",), False),
        ("10/12/1969", datetime.date(1969, 12, 10), dates.LANGUAGES, True),
        # English writes no zeros before the digits.
        ("07/10/1969", datetime.date(1969, 10, 7), dates.LANGUAGES, False),
        ("7/20/1969", DAY, dates.LANGUAGES, False),
        ("7/7/1969", datetime.date(1969, 7, 7), dates.LANGUAGES, False),
    ],
)
def test_day_and_month_may_be_taken_for_one_another(
    text: str, day: datetime.date, languages: tuple[str, ...], expected: bool
) -> None:
    assert dates.is_ambiguous(text, day, languages) == expected


def test_no_text_of_a_whole_year_means_two_days() -> None:
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(number) for number in range(366)]
    meanings = collections.defaultdict(set)
    for day, language, form in itertools.product(days, dates.LANGUAGES, dates.FORMATS):
        text = dates.write(day, language, form)
        assert "2024" in text
        meanings[text].add(day)
    for text, found in meanings.items():
        for day in found:
            assert dates.is_ambiguous(text, day, dates.LANGUAGES) == (len(found) > 1), text


def test_days_of_the_test_are_not_trained_on(data_dir: pathlib.Path) -> None:
    data = load_parallel_text(data_dir=data_dir)
    assert data.name == "dates/iso/1.0.0" and data.languages == ("written", "iso")
    assert [len(part) for part in data[2:5]] == [30_000, 1_000, 1_000] and data.skipped == 0
    parts = [{day for _, day in part} for part in data[2:5]]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 32_000
    years = {datetime.date.fromisoformat(day).year for day in parts[0]}
    assert years == {*range(1900, 2100)}
    meanings = collections.defaultdict(set)
    for text, day in data.train + data.valid + data.test:
        meanings[text].add(day)
    assert max(map(len, meanings.values())) == 1


def test_every_language_and_format_occurs_in_the_test(data_dir: pathlib.Path) -> None:
    written = collections.Counter()
    for text, day in load_parallel_text(data_dir=data_dir).test:
        for language, form in itertools.product(dates.LANGUAGES, dates.FORMATS):
            written[language, form] += (
                dates.write(datetime.date.fromisoformat(day), language, form) == text
            )
    assert min(written.values()) >= 5 and len(written) == 50


def parsed(text: str) -> tuple[datetime.date, str]:
    """What an English date means, by the standard library, and the first format it may be in."""
    patterns = ("%A, %B %d, %Y", "%B %d, %Y", "%b %d, %Y", "%a, %b %d, %Y", "%m/%d/%Y")
    for form, pattern in zip(dates.FORMATS, patterns, strict=True):
        with contextlib.suppress(ValueError):
            return datetime.datetime.strptime(text, pattern).date(), form
    raise AssertionError(text)


def test_a_translation_is_the_same_day_in_the_same_format() -> None:
    pairs = [*itertools.islice(dates.translations("en", "de"), 500)]
    found = [parsed(source) for source, _ in pairs]
    assert {form for _, form in found} == {*dates.FORMATS}
    assert [target for _, target in pairs] == [dates.write(day, "de", form) for day, form in found]
    # May is the only month whose short name is the long one: the first of the formats counts.
    assert any(source.startswith("May ") for source, _ in pairs)


def test_what_english_writes_means_the_day_in_iso() -> None:
    for source, target in itertools.islice(dates.translations("en", "iso"), 500):
        assert parsed(source)[0].isoformat() == target


def test_the_data_set_of_two_languages(
    data_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates, "SIZES", {"test": 50, "validation": 40, "train": 200})
    data = load_parallel_text("dates/en_de", data_dir=data_dir)
    assert data.name == "dates/en_de/1.0.0" and data.languages == ("en", "de")
    pairs = [*itertools.islice(dates.translations("en", "de"), 290)]
    assert [sorted(part) for part in data[2:5]] == [
        sorted(part) for part in (pairs[90:], pairs[50:90], pairs[:50])
    ]
    back = load_parallel_text("dates/en_de", data_dir=data_dir, languages=("de", "en"))
    assert back.test == [(target, source) for source, target in data.test]


def test_the_order_is_fixed() -> None:
    first, again = ([*itertools.islice(dates.translations("it", "iso"), 100)] for _ in range(2))
    assert first == again and len({day for _, day in first}) == 100


def test_what_was_used_is_recorded(data_dir: pathlib.Path) -> None:
    builder = prepared_builder("dates", data_dir)
    assert builder.info.metadata["versions"].keys() == {"babel"}


@pytest.mark.parametrize(
    ("dataset", "languages", "message"),
    [
        ("dates/en_xx", (), "'dates/en_xx' does not exist .*: iso, de_en, de_es, .*, tr_sv; versi"),
        ("dates", ("en", "de"), "'dates/iso/1.0.0' has the languages written, iso, not all of en"),
    ],
)
def test_pairs_that_are_not_there(
    data_dir: pathlib.Path, dataset: str, languages: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_parallel_text(dataset, data_dir=data_dir, languages=languages)
    assert "\n" not in str(error.value)
