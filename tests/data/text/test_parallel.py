import gzip
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from dlcore.data.text import load_copied_text, load_parallel_text
from dlcore.errors import InputError

ROWS = [(f"source {number:02}", f"target {number:02}") for number in range(50)]


def write(path: pathlib.Path, content: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def table(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in rows)


def write_folder(folder: pathlib.Path, contents: dict[str, str]) -> pathlib.Path:
    for name, content in contents.items():
        write(folder / name, content)
    return folder


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.tsv.gz"])
def test_a_fixed_share_of_a_table_is_held_out(tmp_path: pathlib.Path, name: str) -> None:
    path = write(tmp_path / name, table(ROWS))
    data = load_parallel_text(data_path=path)
    assert data.name == str(path) and data.languages == ("source", "target")
    assert (len(data.train), len(data.valid), len(data.test), data.skipped) == (45, 0, 5, 0)
    assert sorted(data.train + data.test) == sorted(ROWS)
    # What stays keeps its order, and the test is no run of lines.
    assert data.train == [row for row in ROWS if row in data.train]
    places = [ROWS.index(row) for row in data.test]
    assert places == sorted(places) and places[-1] - places[0] > 10


def test_shares_of_the_parts(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tsv", table(ROWS))
    data = load_parallel_text(data_path=path, valid_share=0.25, test_share=0.2)
    assert [len(part) for part in data[2:5]] == [30, 10, 10]
    assert sorted(sum(data[2:5], [])) == sorted(ROWS)
    data = load_parallel_text(data_path=path, test_share=0)
    assert data.train == ROWS and data.test == []


def test_pairs_of_one_source_stay_together(tmp_path: pathlib.Path) -> None:
    rows = [(source, f"{target} {form}") for source, target in ROWS for form in "abc"]
    data = load_parallel_text(data_path=write(tmp_path / "a.tsv", table(rows)))
    assert (len(data.train), len(data.test)) == (135, 15)
    assert not {source for source, _ in data.train} & {source for source, _ in data.test}


def test_the_test_does_not_change_when_other_pairs_are_added(tmp_path: pathlib.Path) -> None:
    first = load_parallel_text(data_path=write(tmp_path / "a", table(ROWS[:40])))
    # Those that are held out stay so; some of the new ones join them.
    again = load_parallel_text(data_path=write(tmp_path / "b", table(ROWS[::-1])))
    assert len({*first.test} & {*again.test}) >= 3


ALIGNED = {
    "train.en.gz": "one\ntwo\n",
    "train.de.gz": "eins\nzwei\n",
    "val.en": "three",
    "val.de": "drei\r\n",
    "README": "what this is",
}


def test_aligned_files_in_both_directions(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path, ALIGNED)
    data = load_parallel_text(data_path=folder, languages=["en", "de"])
    assert data == (
        *(str(folder), ("en", "de")),
        *([("one", "eins"), ("two", "zwei")], [], [("three", "drei")], 0),
        (f"{folder}: not read: README",),
    )
    back = load_parallel_text(data_path=folder, languages=("de", "en"))
    assert back.languages == ("de", "en") and back.test == [("drei", "three")]


@pytest.mark.parametrize(
    "names",
    [
        ["train_en.txt", "train_de.txt"],
        ["news.train.de-en.en", "news.train.de-en.de"],
        ["europarl-v7.de-en.en", "europarl-v7.de-en.de"],
    ],
)
def test_the_language_is_the_last_part_of_a_name(tmp_path: pathlib.Path, names: list[str]) -> None:
    sides = ["".join(f"{row[side]}\n" for row in ROWS) for side in (0, 1)]
    folder = write_folder(tmp_path, dict(zip(names, sides, strict=True)))
    data = load_parallel_text(data_path=folder, languages=("en", "de"))
    assert sorted(data.train + data.test) == sorted(ROWS)


@pytest.mark.parametrize("languages", [(), ("src", "tgt"), ("tgt", "src")])
@pytest.mark.parametrize("form", ["{}-{}.txt", "{1}.{0}.tok.txt", "corpus_{}_{}.gz"])
def test_sides_are_named_before_or_after_the_part(
    tmp_path: pathlib.Path, languages: tuple[str, ...], form: str
) -> None:
    """As in OpenNMT's examples: src-train.txt, tgt-train.txt, src-val.txt ..."""
    if form.startswith("{1}") and not languages:
        languages = ("src", "tgt")
    for part, word in (("train", "a"), ("val", "b"), ("test", "c")):
        for side in ("src", "tgt"):
            write(tmp_path / form.format(side, part), f"{word} {side}\n")
    data = load_parallel_text(data_path=tmp_path, languages=languages)
    first, second = data.languages
    assert data.languages == (languages or ("src", "tgt")) and data.notes == ()
    for pairs, word in zip(data[2:5], "abc", strict=True):
        assert pairs == [(f"{word} {first}", f"{word} {second}")]


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("a", "Go.\tGeh.\tCC-BY 2.0 (France) #1\nHi.\tHallo!\tCC-BY 2.0\n", ["columns .* 3$"]),
        ("a", "17\tGo.\t33\tGeh.\n18\tHi.\t34\tHallo!\n", ["4 columns .* out are 1, 3$"]),
        ("a", "1\tGo.\tGeh.\n2\tHi.\tHallo!\n", ["of 3 columns those left out are 1$"]),
        ("a", "source\ttarget\nGo.\tGeh.\nHi.\tHallo!\n", ["first line names .* source, target"]),
        ("a.csv", 'Src,Tgt\nGo.,Geh.\n"Hi.",Hallo!\n', ["first line names .* src, tgt"]),
        ("a.csv", "Go.;Geh.;x\nHi.;Hallo!;y\n", ["of 3 columns"]),
        ("a", "Go.\tGeh.\nHi.\tHallo!", []),
    ],
)
def test_columns_beside_the_pairs_are_left_out(
    tmp_path: pathlib.Path, name: str, content: str, notes: list[str]
) -> None:
    data = load_parallel_text(data_path=write(tmp_path / name, content), test_share=0)
    assert data.train == [("Go.", "Geh."), ("Hi.", "Hallo!")]
    assert len(data.notes) == len(notes)
    for note, words in zip(data.notes, notes, strict=True):
        assert re.search(words, note)


def test_folders_of_tables_in_three_parts(tmp_path: pathlib.Path) -> None:
    folder = write_folder(
        tmp_path,
        {"train.tsv": "a\tb\n", "valid.tsv.gz": "c\td\n", "test.tsv": "e\tf\n", ".hidden": "x"},
    )
    assert load_parallel_text(data_path=folder)[2:] == (
        *([("a", "b")], [("c", "d")], [("e", "f")]),
        *(0, ()),
    )
    # A part that is there is not cut; held-out pairs of one kind are the test.
    (folder / "test.tsv").unlink()
    data = load_parallel_text(data_path=folder, test_share=0.5)
    assert data[2:5] == ([("a", "b")], [], [("c", "d")])


def test_pairs_with_an_empty_side_are_skipped_and_counted(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tsv", " a \tb\n\tc\nd\t \n\n\t\ne f\tg\n\n")
    data = load_parallel_text(data_path=path, test_share=0)
    assert data.train == [("a", "b"), ("e f", "g")] and data.skipped == 5


def test_aligned_files_stay_aligned_around_empty_lines(tmp_path: pathlib.Path) -> None:
    # The last target is empty, one source has no text, and another holds odd line ends.
    contents = {"train.en": "a\u2028\x85b\rc\n\nd\ne\n", "train.de": "A\nB\nD\n\n"}
    folder = write_folder(tmp_path, contents)
    data = load_parallel_text(data_path=folder, languages=("en", "de"), test_share=0)
    assert data.train == [("a\u2028\x85b\rc", "A"), ("d", "D")] and data.skipped == 2


@pytest.mark.parametrize(
    ("contents", "options", "message"),
    [
        (
            {**ALIGNED, "train.de.gz": "eins\n\ndrei\n"},
            {"languages": ("en", "de")},
            r"train.en.gz has 2 lines but .*train.de.gz has 3; each line needs its translation",
        ),
        (ALIGNED, {}, "has train files in de, en; say which .* such as --languages=de,en"),
        (
            ALIGNED,
            {"languages": ("en", "fr")},
            "has train files in de, en, none in fr; choose two of them",
        ),
        (
            {**ALIGNED, "train.fr": "un\ndeux\n"},
            {"languages": ("en", "fr")},
            "has valid files in de, en, none in fr",
        ),
        (
            {**ALIGNED, "train.en": "x"},
            {"languages": ("en", "de")},
            "has train.en and train.en.gz; keep one",
        ),
        ({"test.tsv": "a\tb\n"}, {}, "has test.tsv but no file named train; add it or rename"),
        ({"a.tsv": "a\tb\nc\n"}, {}, "line 2 of .*a.tsv has 1 column; it needs a source, a tab a"),
        ({"a.tsv": "a\tb\nc\td\te\n"}, {}, "line 2 of .*a.tsv has 3 columns; it needs a source,"),
        ({"train.tsv": "a\tb\n", "test.tsv": "\td\n"}, {}, "no test pair with text on both sides"),
        ({"a.tsv": "a\tb\n"}, {}, r"has too few sources \(1\) to hold 0.1 of them out; give more"),
        ({"a.tsv": "a\tb\na\tc\n"}, {"valid_share": 0.5, "test_share": 0}, "too few sources"),
        ({"a.tsv": table(ROWS)}, {"test_share": 1}, r"test share 1 is not possible; choose it in"),
        ({"a.tsv": table(ROWS)}, {"valid_share": -1}, "validation share -1 is not possible"),
        ({"a.tsv": ""}, {}, "a.tsv holds no text; give a file with some"),
        ({}, {}, "has no files; add some"),
        (ALIGNED, {"languages": ("en",)}, "languages 'en' are not two; give a source and a target"),
        (ALIGNED, {"languages": ("en", "en")}, "languages 'en,en' are not two"),
        (ALIGNED, {"languages": ("en", "")}, "languages 'en,' are not two"),
    ],
)
def test_files_that_are_no_pairs(
    tmp_path: pathlib.Path, contents: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_parallel_text(data_path=write_folder(tmp_path, contents), **options)
    assert "\n" not in str(error.value)


def test_a_table_has_no_languages(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tsv", table(ROWS))
    with pytest.raises(InputError, match="a.tsv is one file, in which sources come first; leave"):
        load_parallel_text(data_path=path, languages=("en", "de"))


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_a_path_that_is_not_there(path: str) -> None:
    with pytest.raises(InputError, match=f"the data path '{path}' does not exist; give a file or"):
        load_parallel_text(data_path=path)


def test_files_are_read_without_jax_and_tfds(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tsv", table(ROWS))
    code = (
        "import sys\nfrom dlcore.data.text import Pairs, TokenLoader, load_parallel_text\n"
        f"load_parallel_text(data_path={str(path)!r})\n"
        "assert not {'jax', 'tensorflow_datasets', 'babel', 'tokenizers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_texts_that_are_their_own_targets_are_tested_with_unseen_ones(tmp_path):
    (tmp_path / "train.txt").write_text("one\n\n two \nthree\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("four\none\n", encoding="utf-8")
    text = load_copied_text(data_path=tmp_path)
    assert text.train == [(word, word) for word in ("one", "two", "three")]
    assert text.test == [("four", "four")]
    assert text.skipped == 1
    assert "1 held-out texts" in " ".join(text.notes)
    (tmp_path / "test.txt").write_text("two\none\n", encoding="utf-8")
    with pytest.raises(InputError, match="none to test with"):
        load_copied_text(data_path=tmp_path)
