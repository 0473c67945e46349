"""Tables of labelled texts, and CoNLL columns of many origins."""

import gzip
import pathlib
from typing import Any

import pytest

from dlcore.data.text import load_labelled_text
from dlcore.data.text.column_files import read_tagged
from dlcore.data.text.labelled_files import read_labelled
from dlcore.errors import InputError


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EXAMPLES = [("A good film", "pos"), ("Bad one", "neg"), ("ok it is", "pos")]


@pytest.mark.parametrize(
    ("name", "content", "first_line"),
    [
        ("a.tsv", "review\tsentiment\nA good film\tpos\nBad one\tneg\nok it is\tpos\n", 2),
        ("a.tsv", "polarity\tphrase text\npos\tA good film\nneg\tBad one\npos\tok it is\n", 2),
        ("a.tsv", "A good film\tpos\nBad one\tneg\nok it is\tpos\n", 1),
        ("a.csv", "A good film,pos\nBad one,neg\n\nok it is,pos\n", 1),
        ("a.csv", "Text;Label\nA good film;pos\nBad one;neg\nok it is;pos\n", 2),
        ("a.CSV", '"review","sentiment"\r\n"A good film","pos"\r\nBad one,neg\r\nok it is,pos', 2),
        ("a.tsv", "id\ttext\tlabel\n7\tA good film\tpos\n8\tBad one\tneg\n9\tok it is\tpos\n", 2),
        ("a.csv", "rating,id,review\npos,1,A good film\nneg,2,Bad one\npos,3,ok it is\n", 2),
    ],
)
def test_headers_are_no_examples(
    tmp_path: pathlib.Path, name: str, content: str, first_line: int
) -> None:
    for data, path in ((content.encode(), name), (gzip.compress(content.encode()), f"{name}.gz")):
        ((found,), notes) = read_labelled([write(tmp_path / path, data)])
        assert [example[:2] for example in found] == EXAMPLES
        assert found[0].line.number == first_line
        assert len(notes) == first_line - 1
        assert all("the first line names the columns " in note for note in notes)


@pytest.mark.parametrize(
    "content",
    [
        # Nothing tells this first line from the others.
        "good\tpos\nbad\tneg\nfine\tpos\nwell\tneg\n",
        # A label of its own, but a text like others.
        "a film of more words\tmeh\nbad\tneg\nfine\tneg\n",
    ],
)
def test_examples_are_no_headers(tmp_path: pathlib.Path, content: str) -> None:
    ((found,), notes) = read_labelled([write(tmp_path / "a", content)])
    assert len(found) == content.count("\n") and notes == ()


def test_other_files_have_the_header_of_the_first_or_none(tmp_path: pathlib.Path) -> None:
    train = write(tmp_path / "train", "review\tsentiment\na\tx\nb\tx\nc\ty\n")
    same = write(tmp_path / "dev", "review\tsentiment\nd\tx\n")
    none = write(tmp_path / "test", "d\tz\ne\tx\nf\tx\n")
    (_, dev, test), notes = read_labelled([train, same, none])
    assert [one.label for one in dev] == ["x"] and [one.label for one in test] == ["z", "x", "x"]
    assert len(notes) == 2


def test_cells_in_quotes(tmp_path: pathlib.Path) -> None:
    long = "word " * 40_000
    rows = f'"a, b\nsecond ""line""",x\n"{long}",y\nc,x\nd,y\n'
    ((found,), _) = read_labelled([write(tmp_path / "a.csv", "\ufeff" + rows)])
    assert [example[:2] for example in found] == [
        ('a, b\nsecond "line"', "x"),
        (long.strip(), "y"),
        ("c", "x"),
        ("d", "y"),
    ]
    assert [example.line.number for example in found] == [1, 3, 4, 5]
    # In a file with tabs quotes are what people said.
    ((found,), _) = read_labelled([write(tmp_path / "a.tsv", '"a\tx\nb"\tx\nc\tx\n')])
    assert [example.text for example in found] == ['"a', 'b"', "c"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text_column": 4, "label_column": 2}, [("a b", "1"), ("c d", "0"), ("e", "1")]),
        ({"text_column": "Sentence", "label_column": "LABEL"}, [("a b", "1"), ("c d", "0")]),
        ({"text_column": "sentence"}, [("a b", "1"), ("c d", "0"), ("e", "1")]),
    ],
)
def test_columns_that_are_named(
    tmp_path: pathlib.Path, columns: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    named = any(isinstance(column, str) for column in columns.values())
    header = "source\tlabel\tmark\tsentence\n" if named else ""
    path = write(tmp_path / "a", f"{header}x\t1\t\ta b\nx\t0\t*\tc d\nx\t1\t\te\n")
    ((found,), _) = read_labelled([path], **columns)
    assert [example[:2] for example in found][: len(expected)] == expected and len(found) == 3


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        (
            "a.csv",
            'a,x\n"b,y\nc,x\n',
            {},
            "line 2 of .* does not begin a row of CSV .unexpected end",
        ),
        ("a.csv", 'a,x\n"b" c,y\n', {}, "line 2 of .* does not begin a row of CSV"),
        (
            "a",
            "1\ta\tx\n2\tb\ty\n",
            {},
            "has 3 columns; it needs a text, a tab and a label, or say",
        ),
        ("a", "a\tx\nb\tx\n", {"text_column": 3}, "line 1 of .* has 2 columns, no column 3"),
        ("a", "a\tx\nb\tx\n", {"label_column": "y"}, "names no columns; there is no column 'y'"),
        (
            "a",
            "text\tlabel\nb\tx\n",
            {"label_column": "y"},
            "names its columns text, label; there is no column 'y'",
        ),
    ],
)
def test_tables_that_cannot_be_read(
    tmp_path: pathlib.Path, name: str, content: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_labelled_text(data_path=write(tmp_path / name, content), **columns)
    assert "\n" not in str(error.value)


GERMEVAL = """#\thttp://de.wikipedia.org/wiki/Manfred [2009-10-17]
1\tAufgrund\tO\tO
2\t#\tB-OTH\tO

#\thttp://de.wikipedia.org/wiki/Wurst [2009-10-17]
1\tBayern\tB-LOC\tB-ORG
"""
PLUS = """# global.columns = ID FORM UPOS PARSEME:MWE
# text = a b
1\ta\tDET\t*
2-3\tbc\t_\t*
2\tb\tNOUN\t1:LVC
"""
CONLL_X = "1\tDas\tdas\tD\tART\t_\t2\tDET\t_\t_\n2\tHaus\thaus\tN\tNN\t_\t0\tROOT\t_\t_\n"
CONLL_2009 = "\n".join(
    f"{i}\t{w}\tl\tp\tT{i}" + "\t_" * 8 + f"\tA{i}" for i, w in ((1, "a"), (2, "b"))
)


@pytest.mark.parametrize(
    ("content", "columns", "expected", "left_out"),
    [
        ("# O\nb X\nc O\n", {}, ["#/O b/X c/O"], ""),
        ("# #\nb X\n", {}, ["#/# b/X"], ""),
        ("# id 1\n# O\nb O\n\n# newdoc\nc O\n", {}, ["#/O b/O", "c/O"], "2 comments"),
        ("# text = a\na N B O\n# $ B O\n", {}, ["a/O #/O"], "1 comments"),
        ("#tag\tO\n#user\tO\n", {}, ["#tag/O #user/O"], ""),
        (GERMEVAL, {}, ["Aufgrund/O #/O", "Bayern/B-ORG"], "2 comments"),
        (GERMEVAL, {"tag_column": 3}, ["Aufgrund/O #/B-OTH", "Bayern/B-LOC"], "2 comments"),
        (PLUS, {}, ["a/DET b/NOUN"], "2 comments, 1 ranges and empty nodes"),
        (PLUS, {"tag_column": "parseme:mwe"}, ["a/* b/1:LVC"], "2 comments, 1 ranges"),
        (CONLL_X, {"tag_column": "XPOS"}, ["Das/ART Haus/NN"], ""),
        (CONLL_X, {"token_column": "lemma", "tag_column": 8}, ["das/DET haus/ROOT"], ""),
        (CONLL_2009, {}, ["a/A1 b/A2"], ""),
        (CONLL_2009, {"tag_column": 5}, ["a/T1 b/T2"], ""),
        (
            "-DOCSTART- -X- O\na N X\n-DOCSTART- -X- O\nb N X\n",
            {},
            ["a/X", "b/X"],
            "2 marks of doc",
        ),
        ("-DOCSTART-\na X\n\nb Y\n", {}, ["a/X", "b/Y"], "1 marks of documents"),
        ("Token\tPOS\tNER\na\tN\tO\n\nb\tV\tO\n", {"tag_column": "pos"}, ["a/N", "b/V"], "1 line"),
        ("NER Word\nX a\nY b\n", {"tag_column": "ner"}, ["a/X b/Y"], "1 line that names"),
        ("X a\nY b\n", {"token_column": 2, "tag_column": 1}, ["a/X b/Y"], ""),
        ("2023 CD\n1 CD\n", {}, ["2023/CD 1/CD"], ""),
    ],
)
def test_columns_of_many_origins(
    tmp_path: pathlib.Path, content: str, columns: dict[str, Any], expected: list[str], left_out
) -> None:
    for end in ("\n", "\r\n"):
        path = write(tmp_path / "a", "\ufeff" + content.replace("\n", end))
        found, notes = read_tagged(path, **columns)
        pairs = [zip(one.tokens, one.tags, strict=True) for one in found]
        assert [" ".join(f"{token}/{tag}" for token, tag in one) for one in pairs] == expected
        assert ("".join(notes) == "") if not left_out else (f": left out {left_out}" in notes[0])


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (
            "1\ta\tX\n2\tb\tX\nc\td\tX\n",
            {},
            "line 3 of .* begins with 'c' where most lines have the",
        ),
        ("a X\n", {"tag_column": "ner"}, "names no columns; there is no column 'ner'"),
        (PLUS, {"tag_column": "XPOS"}, "columns ID, FORM, UPOS, PARSEME:MWE; there is no column"),
        (PLUS, {"token_column": 5}, "line 3 of .* has 4 columns, no column 5"),
    ],
)
def test_columns_that_cannot_be_read(
    tmp_path: pathlib.Path, content: str, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_tagged(write(tmp_path / "a", content), **columns)
    assert "\n" not in str(error.value)
