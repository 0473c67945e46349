"""Pairs of sentences with scores: files, their faults, and the batches of a split."""

import numpy as np
import pytest

from dlcore.data import Loader, evaluation_batches
from dlcore.data.text import PairSplit, load_scored_pairs, word_overlap
from dlcore.data.text.scored_pairs import read_scored
from dlcore.errors import InputError


def written(folder, text, name="pairs.tsv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_with_and_without_a_header(tmp_path):
    rows = "A cat.\tA dog.\t2.5\nOne.\tTwo.\t0\n"
    plain, notes = read_scored(written(tmp_path, rows))
    assert plain == [("A cat.", "A dog.", 2.5), ("One.", "Two.", 0.0)] and notes == ()
    header = "score\tsentence2\tsentence1\n2.5\tA dog.\tA cat.\n0\tTwo.\tOne.\n"
    named, notes = read_scored(written(tmp_path, header))
    assert named == plain and "names the columns" in notes[0]


def test_csv_with_quotes_and_columns_by_number_or_name(tmp_path):
    path = written(tmp_path, 'id,a,b,mark\n1,"A, b.","C ""d"".",3\n', "pairs.csv")
    found, _ = read_scored(path, first_column="a", second_column=3, score_column="MARK")
    assert found == [("A, b.", 'C "d".', 3.0)]
    wide = written(tmp_path, "main\t2012\t0001\t5\tA.\tB.\n")
    found, _ = read_scored(wide, first_column=5, second_column=6, score_column=4)
    assert found == [("A.", "B.", 5.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("One sentence.\nAnother.\n", "line 1 of .* has 1 column; it needs two sentences and"),
        ("A.\tB.\nC.\tD.\n", "has 2 columns; it needs two sentences"),
        ("A.\tB.\t1\nC.\tD.\n", "line 2 of .* has 2 columns, the first line 3"),
        ("A.\tB.\t1\nC.\tD.\t\n", "line 2 of .* has no score"),
        ("A.\tB.\t1\nC.\tD.\thigh\n", "the score 'high' of line 2 of .* is not a number"),
        ("A.\tB.\tnan\n", "the score 'nan' of line 1 .* is not a number; give one from 0 to 5"),
        ("A.\tB.\tinf\n", "is not a number"),
        ("A.\tB.\t5.1\n", "the score 5.1 of line 1 .* is not from 0 to 5; .* --lowest"),
        ("A.\tB.\t-1\n", "is not from 0 to 5"),
        ("A.\tB.\t1\n  \tD.\t1\n", "line 2 of .* has no first sentence"),
        ("A.\t\t1\n", "line 1 of .* has no second sentence"),
        ("sentence1\tsentence2\tscore\n", "has a header and no pairs"),
        ("", "holds no text"),
    ],
)
def test_faults_are_one_line_that_names_the_place(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_scored(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_columns_that_cannot_be(tmp_path):
    path = written(tmp_path, "A.\tB.\t1\n")
    with pytest.raises(InputError, match="no column 4"):
        read_scored(path, score_column=4)
    with pytest.raises(InputError, match="three different ones"):
        read_scored(path, first_column=2)
    with pytest.raises(InputError, match="no column 'gold'"):
        read_scored(path, score_column="gold")


def test_parts_of_a_file_and_of_a_folder(tmp_path):
    rows = [f"Number {n}.\tNumber {n + 1}.\t{n % 6}\n" for n in range(10)]
    one = written(tmp_path, "".join(rows))
    found = load_scored_pairs(data_path=one)
    assert len(found.train) == 8 and [pair.score for pair in found.test] == [4, 3]
    folder = tmp_path / "parts"
    folder.mkdir()
    written(folder, "".join(rows[:6]), "train.tsv")
    written(folder, "".join(rows[6:8]), "dev.tsv")
    found = load_scored_pairs(data_path=folder)
    assert (len(found.train), len(found.test), found.valid) == (6, 2, None)
    written(folder, "".join(rows[8:]), "test.tsv")
    found = load_scored_pairs(data_path=folder)
    assert (len(found.test), len(found.valid)) == (2, 2)
    assert found.test[0].first == "Number 8." and found.valid[0].first == "Number 6."
    with pytest.raises(InputError, match="has one pair"):
        load_scored_pairs(data_path=written(tmp_path, rows[0], "one.tsv"))
    with pytest.raises(InputError, match="have no range"):
        load_scored_pairs(data_path=one, lowest=5, highest=5)
    with pytest.raises(InputError, match="does not exist"):
        load_scored_pairs(data_path=tmp_path / "nowhere")


def test_overlap_at_numbers_worked_by_hand():
    pairs = [("a b c", "b c d"), ("a a", "a"), ("a", "b"), ("", "")]
    got = word_overlap([(first.split(), second.split()) for first, second in pairs])
    assert got.tolist() == [0.5, 1.0, 0.0, 1.0]


def split_of(count=13, **options):
    rng = np.random.default_rng(0)
    first, second = (
        [rng.integers(2, 9, rng.integers(1, 12)) for _ in range(count)] for _ in range(2)
    )
    rows = np.arange(2 * count).reshape(-1, 2)
    split = PairSplit(first, second, np.linspace(0, 1, count), further={"rows": rows}, **options)
    return split, first, second


def test_batches_are_the_pairs_padded():
    split, first, second = split_of()
    (batch,) = evaluation_batches(split, 16)
    for row in range(13):
        for side, ids in enumerate((first[row], second[row])):
            assert batch["length"][row, side] == len(ids)
            assert batch["tokens"][row, side, : len(ids)].tolist() == ids.tolist()
            assert not batch["tokens"][row, side, len(ids) :].any()
        assert batch["rows"][row].tolist() == [2 * row, 2 * row + 1]
    assert batch["weight"].tolist() == [1] * 13 + [0] * 3
    np.testing.assert_allclose(batch["score"][:13], np.linspace(0, 1, 13), rtol=1e-6)


def test_two_processes_feed_the_batch_of_one_and_subsets_keep_their_pairs():
    split, *_ = split_of()
    whole = Loader(split, 8, seed=3).batch(5)
    parts = [
        Loader(split, 8, seed=3, process_index=index, process_count=2).batch(5) for index in (0, 1)
    ]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]))
    some = split.subset(np.array([7, 2])).subset(np.array([1]))
    batch = some.gather(np.array([0]))
    assert batch["rows"].tolist() == [[4, 5]] and len(some) == 1


def test_long_sentences_are_cut_and_counted():
    split, first, second = split_of(limit=5)
    assert split.cut == sum(len(ids) > 5 for ids in (*first, *second))
    assert split.gather(np.arange(13))["tokens"].shape[2] <= 5
    with pytest.raises(ValueError, match="expected scores"):
        PairSplit([[1]], [[2]], [1.0, 2.0])
