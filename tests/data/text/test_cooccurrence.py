import errno
import fractions
import itertools

import numpy as np
import pytest

from dlcore.data.text import cooccurrence as module
from dlcore.data.text.cooccurrence import count_cooccurrences, open_cooccurrences
from dlcore.errors import InputError


def corpus(length: int = 400, words: int = 13, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.geometric(0.25, length) - 1, words - 1).astype(np.int32)
    tokens[rng.random(length) < 0.08] = -1
    return tokens


def plain(tokens: np.ndarray, *, window: int, weighting: str, symmetric: bool) -> dict:
    """Counts in exact fractions, by a loop over the pairs."""
    counts: dict[tuple[int, int], fractions.Fraction] = {}

    def add(row: int, column: int, distance: int) -> None:
        weight = fractions.Fraction(1, distance if weighting == "harmonic" else 1)
        counts[row, column] = counts.get((row, column), fractions.Fraction(0)) + weight

    for here, word in enumerate(tokens.tolist()):
        for distance in range(1, window + 1):
            before = here - distance
            if before < 0 or -1 in tokens[before : here + 1]:
                break
            add(word, int(tokens[before]), distance)
            if symmetric:
                add(int(tokens[before]), word, distance)
    return counts


def assert_equal(got, counts: dict) -> None:
    cells = sorted(counts)
    assert [*zip(got.rows.tolist(), got.columns.tolist(), strict=True)] == cells
    assert (got.rows.dtype, got.columns.dtype, got.values.dtype) == (np.int32, np.int32, np.float32)
    expected = np.array([float(counts[cell]) for cell in cells], np.float32)
    assert got.values.tobytes() == expected.tobytes()


@pytest.mark.parametrize("limit", [1, 20_000, 1 << 20])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weighting", ["harmonic", "flat"])
@pytest.mark.parametrize(
    "window",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 5, 16],
)
def test_counts_are_exact_at_any_memory_limit(
    tmp_path, window: int, weighting: str, symmetric: bool, limit: int
) -> None:
    tokens = corpus(80 if limit == 1 else 400)
    options = {"window": window, "weighting": weighting, "symmetric": symmetric}
    got = count_cooccurrences(
        tokens, vocabulary_size=13, directory=tmp_path, memory_limit=limit, **options
    )
    assert got.vocabulary_size == 13
    assert_equal(got, plain(tokens, **options))
    assert [path.name for path in tmp_path.iterdir()] == ["cooccurrences"]
    assert not [*tmp_path.glob("*/run*")]


def test_far_words_are_counted_closely(tmp_path) -> None:
    tokens = corpus(300)
    got = count_cooccurrences(tokens, vocabulary_size=13, directory=tmp_path, window=40)
    counts = plain(tokens, window=40, weighting="harmonic", symmetric=True)
    np.testing.assert_allclose(got.values, [float(counts[c]) for c in sorted(counts)], rtol=1e-6)


def test_sentences_end_where_they_say(tmp_path) -> None:
    tokens = np.array([0, -1, 1, 2, -1, -1, 1, -1], np.int32)
    got = count_cooccurrences(tokens, vocabulary_size=3, directory=tmp_path, window=9)
    assert_equal(got, {(1, 2): fractions.Fraction(1), (2, 1): fractions.Fraction(1)})


def test_a_memory_map_and_a_corpus_that_chunks_cut_in_sentences(tmp_path) -> None:
    tokens = np.tile(np.array([0, 1, 2, 0, 3], np.int32), 40)
    tokens.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", np.int32, "r")
    options = {"window": 3, "weighting": "harmonic", "symmetric": True}
    got = count_cooccurrences(
        mapped, vocabulary_size=4, directory=tmp_path / "new", memory_limit=3000, **options
    )
    assert_equal(got, plain(tokens, **options))


def test_what_was_counted_can_be_opened_and_replaced(tmp_path) -> None:
    for seed in (0, 1):
        tokens = corpus(seed=seed)
        got = count_cooccurrences(tokens, vocabulary_size=13, directory=tmp_path, window=2)
        again = open_cooccurrences(tmp_path)
        assert all(np.array_equal(a, b) for a, b in zip(got, again, strict=True))
        assert_equal(again, plain(tokens, window=2, weighting="harmonic", symmetric=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0"),
        ({"memory_limit": 0}, "limit of 0 bytes"),
        ({"weighting": "cubic"}, "choose one of: flat, harmonic"),
        ({"vocabulary_size": 5}, "holds the id .*; words are 0 to 4"),
        ({"tokens": np.array([0, -1, 1, -1, -2], np.int32)}, "holds the id -2"),
        ({"tokens": np.array([0, -1, 1, -1], np.int32)}, "no two words .* within 15"),
        ({"tokens": np.array([], np.int32)}, "no two words"),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(tmp_path, options: dict, message: str) -> None:
    arguments = {"tokens": corpus(), "vocabulary_size": 13, "directory": tmp_path, **options}
    with pytest.raises(InputError, match=message):
        count_cooccurrences(arguments.pop("tokens"), **arguments)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("failing", ["run2.bin", "values.bin"])
def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch, failing: str) -> None:
    old = count_cooccurrences(corpus(), vocabulary_size=13, directory=tmp_path, window=2)
    counts = itertools.count()

    def full(path, mode="r", *rest):
        if str(path).endswith(failing):
            next(counts)
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode, *rest)

    monkeypatch.setattr(module, "open", full, raising=False)
    with pytest.raises(InputError, match="No space left on device; free space"):
        count_cooccurrences(
            corpus(seed=1), vocabulary_size=13, directory=tmp_path, memory_limit=20_000
        )
    assert next(counts) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cooccurrences"]
    assert np.array_equal(open_cooccurrences(tmp_path).values, old.values)


@pytest.mark.parametrize("damage", ["short", "missing", "no meta", "nothing"])
def test_damaged_counts_are_refused(tmp_path, damage: str) -> None:
    count_cooccurrences(corpus(), vocabulary_size=13, directory=tmp_path / "a", window=2)
    folder = tmp_path / "a" / "cooccurrences"
    if damage == "short":
        content = (folder / "values.bin").read_bytes()
        (folder / "values.bin").write_bytes(content[:-4])
    elif damage == "missing":
        (folder / "rows.bin").unlink()
    elif damage == "no meta":
        (folder / "meta.json").write_text("{}")
    with pytest.raises(InputError, match="no whole co-occurrence counts; count them again"):
        open_cooccurrences(tmp_path / ("b" if damage == "nothing" else "a"))
