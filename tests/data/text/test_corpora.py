import pathlib
from typing import Any

import pytest

from dlcore.data.text import load_corpus, load_labelled_text, load_tagged_text
from dlcore.errors import InputError

LINES = "".join(f"line {number:02}\n" for number in range(100))


def write(path: pathlib.Path, content: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_text_is_cut_by_shares_at_line_ends(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.txt", LINES)
    corpus = load_corpus(data_path=path)
    assert corpus.name == str(path)
    assert [part.count("\n") for part in corpus[1:4]] == [81, 9, 10]
    assert corpus.train + corpus.valid + corpus.test == LINES
    corpus = load_corpus(data_path=path, valid_share=0, test_share=0.255)
    assert [part.count("\n") for part in corpus[1:4]] == [74, 0, 26]
    assert load_corpus(data_path=path, valid_share=0, test_share=0)[1:4] == (LINES, "", "")


def test_a_long_first_line_stays_whole(tmp_path: pathlib.Path) -> None:
    text = "x " * 25 + "\n" + "b\nc\n" * 6
    corpus = load_corpus(data_path=write(tmp_path / "a", text), valid_share=0, test_share=0.5)
    assert corpus[1:] == ("x " * 25 + "\n", "", "b\nc\n" * 6, ())


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("one two three four five six seven\n", [24, 28]),
        ("Title\n" + "word " * 40 + "\n", [166, 186]),
        ("word " * 40 + "\nend\n", [160, 180]),
        ("語" * 100 + "\n", [82, 91]),
        ("a\u3000" * 50, [80, 90]),
    ],
    ids=["one line", "a title first", "a short last line", "no white space", "wide spaces"],
)
def test_lines_that_are_too_long_are_cut_inside(
    tmp_path: pathlib.Path, text: str, cuts: list[int]
) -> None:
    first, second = cuts
    corpus = load_corpus(data_path=write(tmp_path / "a", text))
    text = text.rstrip("\n") + "\n"
    assert corpus[1:4] == (text[:first], text[first:second], text[second:])
    assert corpus.notes == (
        f"{tmp_path / 'a'}: its lines are so long that it is cut inside of one",
    )
    limited = load_corpus(data_path=tmp_path / "a", limit=20, valid_share=0, test_share=0)
    assert 10 <= len(limited.train) <= 20 and text.startswith(limited.train)


def test_a_limit_holds_for_the_text_that_is_cut(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.txt", LINES)
    corpus = load_corpus(data_path=path, valid_share=0, limit=165)
    assert corpus.train + corpus.test == LINES[:160] and corpus.test == LINES[144:160]
    assert load_corpus(data_path=path, limit=10**9) == load_corpus(data_path=path)


def test_files_that_are_named_after_parts(tmp_path: pathlib.Path) -> None:
    for name in ("train", "valid", "test"):
        write(tmp_path / "all" / f"ptb.{name}.txt", name)
    assert load_corpus(data_path=tmp_path / "all")[1:4] == ("train\n", "valid\n", "test\n")
    write(tmp_path / "two" / "train.txt", LINES)
    write(tmp_path / "two" / "test.txt", "test")
    corpus = load_corpus(data_path=tmp_path / "two")
    assert corpus.train + corpus.valid == LINES and corpus.test == "test\n"
    assert corpus.valid.count("\n") == 10
    write(tmp_path / "books" / "b", LINES[400:])
    write(tmp_path / "books" / "a", LINES[:400])
    assert "".join(load_corpus(data_path=tmp_path / "books")[1:4]) == LINES


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("line\n", {}, "is too short to hold 0.1 of its text out; give more, or a folder"),
        ("one\ntwo\n", {}, "is too short to hold 0.1"),
        ("", {}, "holds no text"),
        (LINES, {"test_share": 1}, r"test share 1 is not possible; choose it in \[0, 1\)"),
        (LINES, {"valid_share": -0.1}, "validation share -0.1 is not possible"),
        (LINES, {"limit": 0}, "a limit of 0 characters leaves no text; give 1 or more"),
    ],
)
def test_corpora_that_cannot_be_cut(
    tmp_path: pathlib.Path, content: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_corpus(data_path=write(tmp_path / "a.txt", content), **options)
    assert "\n" not in str(error.value)


def test_a_folder_with_a_test_but_nothing_to_train_on(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "test.txt", LINES)
    with pytest.raises(InputError, match="has test.txt but no file named train; add it or rename"):
        load_corpus(data_path=tmp_path)


@pytest.mark.parametrize("load", [load_corpus, load_labelled_text, load_tagged_text])
@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_a_path_that_is_not_there(load: Any, path: str) -> None:
    with pytest.raises(InputError, match=f"the data path '{path}' does not exist; give a file or"):
        load(data_path=path)


def test_a_fixed_fifth_of_every_class_is_held_out(tmp_path: pathlib.Path) -> None:
    rows = [f"text {number}\t{'ab'[number % 4 == 0]}\n" for number in range(40)]
    path = write(tmp_path / "a.tsv", "".join(rows))
    data = load_labelled_text(data_path=path)
    assert data.class_names == ("a", "b") and data == load_labelled_text(data_path=path)
    assert [sum(label for _, label in part) for part in (data.train, data.test)] == [8, 2]
    assert len(data.test) == 8 and len({*data.train, *data.test}) == 40
    assert all(label == (int(text.split()[1]) % 4 == 0) for text, label in data.train + data.test)


def test_labels_that_are_numbers_are_in_their_order(tmp_path: pathlib.Path) -> None:
    rows = [f"text {number}\t{(10, 9, 2)[number % 3]}\n" for number in range(9)]
    data = load_labelled_text(data_path=write(tmp_path / "a.tsv", "".join(rows)))
    assert data.class_names == ("2", "9", "10")


def test_a_folder_of_labelled_files(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "train.tsv", "good\tpos\nbad\tneg\nfine\tpos\n")
    write(tmp_path / "dev.tsv", "so so\tneg\n")
    data = load_labelled_text(data_path=tmp_path)
    assert data.train == [("good", 1), ("bad", 0), ("fine", 1)] and data.test == [("so so", 0)]
    assert data.valid is None and data.notes == ()


@pytest.mark.parametrize("dev", ["dev", "valid", "validation", "val"])
def test_a_dev_file_beside_train_and_test_is_for_validation(tmp_path: pathlib.Path, dev) -> None:
    for load in (load_labelled_text, load_tagged_text):
        folder = tmp_path / load.__name__
        for name, labels in (("train", "yxyx"), (dev, "x"), ("test", "y")):
            rows = (f"a{place}\t{label}\n" for place, label in enumerate(labels))
            write(folder / f"{name}.tsv", "".join(rows))
        write(folder / "unlabelled.tsv", "c\n")
        write(folder / "README", "c\n")
        data = load(data_path=folder)
        held_out = [[one for _, one in part] for part in (data.train, data.test, data.valid or [])]
        if load is load_labelled_text:
            assert held_out == [[1, 0, 1, 0], [1], [0]]
        else:
            assert held_out == [[[1, 0, 1, 0]], [[1]], [[0]]]
        assert data.notes == (f"{folder}: not read: README, unlabelled.tsv",)
        # A corpus has had its validation part always.
        corpus = load_corpus(data_path=folder)
        assert (corpus.valid, corpus.notes) == ("a0\tx\n", data.notes)


def test_labels_of_the_test_alone_are_classes_like_others(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "train.tsv", "good\tpos\nbad\tneg\nfine\tpos\n")
    write(tmp_path / "test.tsv", "x\tpos\ny\tmeh\nz\tmeh\n")
    write(tmp_path / "dev.tsv", "x\tother\n")
    data = load_labelled_text(data_path=tmp_path)
    assert data.class_names == ("meh", "neg", "other", "pos")
    assert data.test == [("x", 3), ("y", 0), ("z", 0)] and data.valid == [("x", 2)]
    assert data.notes == (
        f"{tmp_path}: labels that the training part lacks count as errors: meh (2), other (1)",
    )


def test_a_class_of_one_text_cannot_be_held_out(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tx\nb\ty\nc\tx\n")
    with pytest.raises(InputError, match="line 2 of .* is the only text with label 'y'; a class"):
        load_labelled_text(data_path=path)


def test_every_fifth_sentence_is_held_out(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.conll", "\n".join(f"w{i} {'AB'[i % 2]}\n" for i in range(11)))
    data = load_tagged_text(data_path=path)
    assert data.tag_names == ("A", "B")
    assert data.test == [(("w0",), [0]), (("w5",), [1]), (("w10",), [0])]
    assert [tokens[0] for tokens, _ in data.train] == [f"w{i}" for i in (1, 2, 3, 4, 6, 7, 8, 9)]


def test_a_sentence_with_a_tag_of_its_own_is_trained_on(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a.conll", "\n".join(f"w {'RX'[i == 5]}\n" for i in range(11)))
    data = load_tagged_text(data_path=path)
    assert (len(data.train), len(data.test)) == (9, 2) and data.tag_names == ("R", "X")
    assert sum(tags == [1] for _, tags in data.train) == 1


def test_one_sentence_cannot_be_split(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"has too few sentences \(1\) to hold some out"):
        load_tagged_text(data_path=write(tmp_path / "a", "w X\nv Y\n"))


def test_a_folder_of_tagged_files(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "xx-ud-train.conll", "a N X\nb V Y\n")
    write(tmp_path / "xx-ud-test.conll", "c N Y\n\nd Q X\n")
    data = load_tagged_text(data_path=tmp_path)
    assert data.train == [(("a", "b"), [0, 1])] and data.test == [(("c",), [1]), (("d",), [0])]
    data = load_tagged_text(data_path=tmp_path, tag_column=2)
    assert data.tag_names == ("N", "Q", "V") and data.test == [(("c",), [0]), (("d",), [1])]
    assert data.notes == (f"{tmp_path}: tags that the training part lacks count as errors: Q (1)",)
