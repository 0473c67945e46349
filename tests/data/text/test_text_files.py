import gzip
import pathlib

import pytest

from dlcore.data.text import files
from dlcore.data.text.column_files import read_tagged
from dlcore.data.text.labelled_files import read_labelled
from dlcore.errors import InputError


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "anything"])
@pytest.mark.parametrize("content", ["é\nb", "é\nb\n\n", "é\r\nb\r\n", "\ufeffé\rb"])
def test_text_in_every_form(tmp_path: pathlib.Path, name: str, content: str) -> None:
    assert files.read_text(write(tmp_path / name, content)) == "é\nb\n"


def test_a_folder_is_read_in_the_order_of_names(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "b.txt", "2")
    write(tmp_path / "a.txt.gz", "1\n")
    write(tmp_path / ".hidden", "x")
    (tmp_path / "folder").mkdir()
    assert files.read_text(tmp_path) == "1\n2\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", b"", "empty holds no text; give a file with some"),
        ("blank", b" \n\n\t", "blank holds no text"),
        ("latin", b"a\nb\nna\xefve\n", r"line 3 of .*latin is not UTF-8 \(byte 0xef\); convert"),
        ("utf16", "ab".encode("utf-16"), r"line 1 of .*utf16 is not UTF-8 \(byte 0xff\)"),
    ],
)
def test_files_without_text(
    tmp_path: pathlib.Path, name: str, content: bytes, message: str
) -> None:
    for suffix in ("", ".gz"):
        with pytest.raises(InputError, match=message.replace(name, name + suffix)) as error:
            files.read_text(write(tmp_path / (name + suffix), content))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [3, 20, 40])
def test_a_damaged_archive(tmp_path: pathlib.Path, cut: int) -> None:
    path = write(tmp_path / "a.gz", "some text that is long enough to be compressed")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="cannot read .*a.gz: .*; give a file or folder of text"):
        files.read_text(path)


def test_a_missing_file_and_an_empty_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="cannot read .*none: No such file or directory"):
        files.read_text(tmp_path / "none")
    with pytest.raises(InputError, match="has no files; add some"):
        files.read_text(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.tsv", "dev.tsv"], {"train": "train.tsv", "dev": "dev.tsv"}),
        (["wiki.train.tokens", "wiki.valid.tokens"], {"train", "valid"}),
        (["en_ewt-ud-train.conllu", "en_ewt-ud-test.conllu"], {"train", "test"}),
        (["training.txt", "latest.txt"], set()),
    ],
)
def test_files_belong_to_splits_by_their_names(
    tmp_path: pathlib.Path, names: list[str], expected: set[str]
) -> None:
    for name in names:
        write(tmp_path / name, "x")
    assert {*files.splits(tmp_path)} == {*expected}
    assert {path.name for path in files.splits(tmp_path).values()} <= {*names}


def test_splits_that_are_unclear_or_missing(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "train.a", "x")
    with pytest.raises(InputError, match="has train.a; it needs a file named train and one named"):
        files.find_parts(tmp_path)
    write(tmp_path / "train.b", "x")
    with pytest.raises(InputError, match="has train.a and train.b; keep one of them"):
        files.splits(tmp_path)


def labelled(path: pathlib.Path) -> list[tuple[str, str, int]]:
    ((found,), _) = read_labelled([path])
    return [(text, label, line.number) for text, label, line in found]


@pytest.mark.parametrize(
    ("content", "first_line"),
    [
        ("good film\t1\nbad\t0\nwell\t1\n", 1),
        ("1\tgood film\n0\tbad\n1\twell\n", 1),
        ("sentence\tLabel\ngood film\t1\nbad\t0\nwell\t1\n", 2),
        # The header decides, whatever the columns hold.
        ("class\ttext\n1\tgood film\n0\tbad\n1\twell", 2),
    ],
)
def test_tsv_in_either_order(tmp_path: pathlib.Path, content: str, first_line: int) -> None:
    expected = [("good film", "1"), ("bad", "0"), ("well", "1")]
    found = labelled(write(tmp_path / "a.tsv", content))
    assert found == [(*pair, first_line + place) for place, pair in enumerate(expected)]


def test_the_first_file_says_which_column_is_the_label(tmp_path: pathlib.Path) -> None:
    train = write(tmp_path / "train", "a\tx\nb\tx\n")
    test = write(tmp_path / "test", "same\tx\nsame\ty\n")
    ((_, found), _) = read_labelled([train, test])
    assert [example[:2] for example in found] == [("same", "x"), ("same", "y")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\t0\nb\t0\nc\n", "line 3 of .* has 1 column; it needs a text, a tab and a label"),
        ("a\t0\nb\tc\t0\n", "line 2 of .* has 3 columns; it needs"),
        ("a\t0\n\nb\t0\n", "line 2 of .* has 1 column"),
        ("a\t0\n \t0\nc\t0\n", "line 2 of .* has no text; fill it in or remove the line"),
        ("label\ttext\n0\ta\n\tb\n", "line 3 of .* has no label; fill it in"),
        ("a\t0\nb\t1\n", "both columns of .* have 2 different values; say which one is the label"),
        ("label\ttext\n", "has a header and no examples"),
    ],
)
def test_tsv_errors_name_the_line(tmp_path: pathlib.Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        labelled(write(tmp_path / "a.tsv", content))
    assert "\n" not in str(error.value)


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
# # B-NP O

Peter NNP B-NP B-PER
"""
TREEBANK = """#newdoc
# text = I haven't
1\tI\tI\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\thaven't\t_\t_\t_\t_\t_\t_\t_\t_
2\thave\thave\tAUX\tVBP\t_\t0\troot\t_\t_
2.1\tgone\t_\tVERB\t_\t_\t_\t_\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_

# text = Go
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize(
    ("content", "tag_column", "expected"),
    [
        ("a X\nb Y\n\n\nc X\n", None, [("a b", "X Y"), ("c", "X")]),
        (CONLL_2003, None, [("EU rejects #", "B-ORG O O"), ("Peter", "B-PER")]),
        (CONLL_2003, 2, [("EU rejects #", "NNP VBZ #"), ("Peter", "NNP")]),
        (TREEBANK, None, [("I have n't", "PRON AUX PART"), ("Go", "VERB")]),
        (TREEBANK, 5, [("I have n't", "PRP VBP RB"), ("Go", "VB")]),
        ("# id 1\n#tag\tO\nnew\tB\n#\tO\n", None, [("#tag new #", "O B O")]),
        ("# id 1\n#tag O\n", None, [("#tag", "O")]),
        ("New York\tLOC\n", None, [("New York", "LOC")]),
    ],
)
def test_columns(
    tmp_path: pathlib.Path, content: str, tag_column: int | None, expected: list[tuple[str, str]]
) -> None:
    found, _ = read_tagged(write(tmp_path / "a", content), tag_column=tag_column)
    assert [(" ".join(tokens), " ".join(tags)) for tokens, tags, _ in found] == expected


def test_every_token_knows_its_line(tmp_path: pathlib.Path) -> None:
    found, _ = read_tagged(write(tmp_path / "a", TREEBANK))
    assert [[line.number for line in sentence.lines] for sentence in found] == [[3, 5, 7], [10]]


@pytest.mark.parametrize(
    ("content", "tag_column", "message"),
    [
        ("a X\nb\n", None, "line 2 of .* has 1 column where most lines have 2; correct it, or"),
        ("a X\n\nb X Y\n", None, "line 3 of .* has 3 columns where most lines have 2"),
        ("a\nb\n", None, "line 1 of .* has 1 column; it needs a token and a tag"),
        ("a X\n", 3, "line 1 of .* has 2 columns, no column 3; give another"),
        ("a X\n", 0, "line 1 of .* has 2 columns, no column 0"),
        ("a\tX\nb\t\n", None, "line 2 of .* has an empty token or tag"),
        ("# nothing\n", None, "has no sentences; give lines of a token, a tab and a tag"),
    ],
)
def test_column_errors_name_the_line(
    tmp_path: pathlib.Path, content: str, tag_column: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_tagged(write(tmp_path / "a", content), tag_column=tag_column)
    assert "\n" not in str(error.value)
