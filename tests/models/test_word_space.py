"""Word vectors: neighbours and analogies against plain loops, and gensim's where it is."""

import math

import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.embedding import WordSpace
from dlcore.models.embedding import vectors as module

WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture
def random():
    return np.random.default_rng(0)


def random_matrix(count=60, dimension=8):
    return np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)


def small_blocks(monkeypatch):
    """So many blocks that each question meets several, and one that is not full."""
    monkeypatch.setattr(module, "_QUERIES", 4)
    monkeypatch.setattr(module, "_CANDIDATES", 7)


def cosine(matrix, first, second):
    x, y = (matrix[row].astype(np.float64) for row in (first, second))
    lengths = math.sqrt(x @ x) * math.sqrt(y @ y)
    return x @ y / lengths if lengths else 0.0


def add(matrix, a, b, c, d):
    return cosine(matrix, d, b) - cosine(matrix, d, a) + cosine(matrix, d, c)


def mul(matrix, a, b, c, d):
    to_a, to_b, to_c = ((cosine(matrix, d, word) + 1) / 2 for word in (a, b, c))
    return to_b * to_c / (to_a + 0.001)


def best(score, rows, count):
    """The rows of the greatest scores, of equal ones the first."""
    return sorted(rows, key=lambda row: (-score(row), row))[:count]


def names(answers):
    return [[word for word, _ in found] for found in answers]


@pytest.mark.parametrize("count", [1, 3, 100])
def test_neighbours_against_a_loop(monkeypatch, count) -> None:
    small_blocks(monkeypatch)
    matrix = random_matrix()
    found = WordSpace(WORDS, matrix).neighbours(WORDS, count=count, exclude=["w5", "w59"])
    for row, neighbours in enumerate(found):
        others = {*range(60)} - {row, 5, 59}
        expected = best(lambda other, row=row: cosine(matrix, row, other), others, count)
        assert [word for word, _ in neighbours] == [WORDS[other] for other in expected]
        cosines = [cosine(matrix, row, other) for other in expected]
        np.testing.assert_allclose([score for _, score in neighbours], cosines, atol=1e-6)


@pytest.mark.parametrize("exclude", [(0, 1, 2), (2,), ()])
@pytest.mark.parametrize("method, score", [("3cosadd", add), ("3cosmul", mul)])
def test_analogies_against_a_loop(monkeypatch, method, score, exclude, random) -> None:
    small_blocks(monkeypatch)
    matrix = random_matrix()
    rows = random.integers(0, 60, (30, 3))
    questions = [tuple(WORDS[row] for row in question) for question in rows]
    space = WordSpace(WORDS, matrix)
    for count in (1, 5):
        found = space.analogies(questions, method=method, exclude=exclude, count=count)
        for (a, b, c), answers in zip(rows, found, strict=True):
            others = {*range(60)} - {int((a, b, c)[place]) for place in exclude}
            expected = best(lambda d, q=(a, b, c): score(matrix, *q, d), others, count)
            assert [word for word, _ in answers] == [WORDS[row] for row in expected]
            scores = [score(matrix, a, b, c, row) for row in expected]
            np.testing.assert_allclose([s for _, s in answers], scores, rtol=1e-4, atol=1e-6)


def test_blocks_change_nothing(monkeypatch) -> None:
    space = WordSpace(WORDS, random_matrix())
    questions = [(WORDS[i], WORDS[i + 1], WORDS[i + 2]) for i in range(50)]
    whole = space.neighbours(WORDS), space.analogies(questions, count=4)
    small_blocks(monkeypatch)
    again = space.neighbours(WORDS), space.analogies(questions, count=4)
    assert [names(answers) for answers in whole] == [names(answers) for answers in again]


def test_planted_analogies_are_solved(random) -> None:
    """Vectors that are sums of a country's and a role's part."""
    parts = random.normal(size=(22, 40)).astype(np.float32)
    words = [f"{role}{land}" for role in ("capital", "country") for land in range(20)]
    matrix = np.concatenate([parts[:20] + parts[20], parts[:20] + parts[21]])
    space = WordSpace(words, matrix)
    questions = [(f"country{i}", f"capital{i}", f"country{j}") for i in range(20) for j in range(i)]
    expected = [[f"capital{j}"] for i in range(20) for j in range(i)]
    for method in module.ANALOGIES:
        assert names(space.analogies(questions, method=method)) == expected


def test_equal_scores_stand_in_the_order_of_the_words(monkeypatch) -> None:
    small_blocks(monkeypatch)
    matrix = np.ones((60, 4), np.float32)
    space = WordSpace(WORDS, matrix)
    assert names(space.neighbours(["w3"], count=5)) == [["w0", "w1", "w2", "w4", "w5"]]
    assert names(space.neighbours(["w0"], count=1)) == [["w1"]]
    assert names(space.neighbours(["w30"], count=59)) == [WORDS[:30] + WORDS[31:]]


def test_a_vector_of_zeros_has_cosine_0_with_everything() -> None:
    matrix = random_matrix(4)
    matrix[1] = 0
    space = WordSpace(WORDS[:4], matrix)
    assert [space.similarity("w1", word) for word in WORDS[:4]] == [0] * 4
    assert [score for _, score in space.neighbours(["w1"])[0]] == [0] * 3
    assert space.similarity("w0", "w0") == pytest.approx(1)


def test_lengths_that_overflow_or_vanish_in_float32() -> None:
    matrix = np.array([[3e38, 3e38], [1e-45, 0], [1, 1], [0, -2]], np.float32)
    space = WordSpace("abcd", matrix)
    pairs = [("a", "c"), ("b", "c"), ("a", "d")]
    np.testing.assert_allclose(space.similarities(pairs), [1, 0.5**0.5, -(0.5**0.5)], rtol=1e-6)


def test_of_a_repeated_word_the_first_counts_and_the_others_are_no_answers() -> None:
    matrix = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0.1]], np.float32)
    space = WordSpace(["a", "b", "a", "c"], matrix)
    assert len(space) == 4 and space.matrix is matrix
    assert space.similarity("a", "b") == 0
    assert names(space.neighbours(["b", "c"])) == [["c", "a"], ["a", "b"]]


def test_case_that_is_ignored() -> None:
    """The first spelling stands for all; all may be answers; one that is excluded excludes all."""
    words = ["paris", "france", "Paris", "Rome", "ROME", "italy", "rome"]
    matrix = np.array([[1, 0], [0.9, 0.3], [1, 0.05], [0, 1], [0.5, 0.5], [0.1, 1], [0.2, 1]])
    exact, ignored = (WordSpace(words, matrix, case=case) for case in ("exact", "ignored"))
    assert "PARIS" not in exact and "PARIS" in ignored and "Berlin" not in ignored
    assert ignored.same("Straße", "STRASSE") and not exact.same("a", "A")
    assert ignored.similarity("PARIS", "roMe") == 0  # of "paris" and "Rome"
    assert exact.similarity("Paris", "rome") == pytest.approx(cosine(matrix, 2, 6))
    assert names(exact.neighbours(["paris"], count=2)) == [["Paris", "france"]]
    assert names(ignored.neighbours(["Paris"], count=2)) == [["france", "ROME"]]
    assert names(ignored.neighbours(["italy"], exclude=["paris"], count=9)) == [
        ["rome", "Rome", "ROME", "france"]
    ]
    question = [("france", "paris", "ITALY")]
    assert names(ignored.analogies(question, count=9)) == [["rome", "Rome", "ROME"]]


def test_the_most_frequent_words_alone() -> None:
    space = WordSpace(["a", "b", "A", "c"], random_matrix(4), case="ignored").restrict(3)
    assert space.words == ["a", "b", "A"] and space.matrix.shape == (3, 8)
    assert "B" in space and "c" not in space
    assert len(space.restrict(99)) == 3
    with pytest.raises(InputError, match="0 words make no word space"):
        space.restrict(0)


def test_no_questions_have_no_answers() -> None:
    space = WordSpace(WORDS, random_matrix())
    assert space.analogies([]) == space.neighbours([]) == []
    assert space.similarities([]).shape == (0,)
    assert WordSpace(["a"], np.ones((1, 2))).neighbours(["a"]) == [[]]


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda s: s.similarity("queen", "kings"), "'kings' .* 4 with vectors; .* 'king'"),
        (lambda s: s.neighbours(["LONDON"]), "'LONDON' .*; did you mean 'London'"),
        (lambda s: s.neighbours(["king"], exclude=["xyz"]), "'xyz' .*; choose others"),
        (lambda s: s.analogies([("king", "queen", "quen")]), "'quen' .* 'queen'"),
        (lambda s: s.analogies([], method="cos"), "method of analogies 'cos'; .* 3cosadd, 3cosmul"),
        (lambda s: s.analogies([], exclude=(1, 3)), "unknown place in an analogy '3'"),
        (lambda s: s.neighbours(["king"], count=0), "0 answers are not possible"),
        (lambda s: WordSpace(s.words, s.matrix, case="lower"), "case 'lower'.* exact, ignored"),
        (lambda s: WordSpace([], s.matrix[:0]), "there are no word vectors"),
        (lambda s: WordSpace(s.words, s.matrix * np.nan), "the vector of 'king' is not finite"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_line(ask, message) -> None:
    space = WordSpace(["king", "queen", "London", "of"], random_matrix(4))
    with pytest.raises(InputError, match=message) as error:
        ask(space)
    assert "\n" not in str(error.value)


def test_a_matrix_that_does_not_fit_its_words() -> None:
    with pytest.raises(ValueError, match=r"\(60, 8\) has not 59 word vectors"):
        WordSpace(WORDS[:59], random_matrix())


@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning:gensim")
def test_answers_equal_gensims(monkeypatch, random) -> None:
    keyedvectors = pytest.importorskip("gensim.models.keyedvectors")
    matrix = random_matrix()
    theirs = keyedvectors.KeyedVectors(8)
    theirs.add_vectors(WORDS, matrix)
    ours = WordSpace(WORDS, matrix)
    monkeypatch.setattr(module, "_EPSILON", 0.000001)  # gensim's
    for a, b, c in random.permuted(np.tile(WORDS, (20, 1)), axis=1)[:, :3].tolist():
        [neighbours] = ours.neighbours([a], count=7)
        expected = theirs.most_similar(a, topn=7)
        assert [word for word, _ in neighbours] == [word for word, _ in expected]
        np.testing.assert_allclose([s for _, s in neighbours], [s for _, s in expected], rtol=1e-5)
        for method, ask in (
            ("3cosadd", theirs.most_similar),
            ("3cosmul", theirs.most_similar_cosmul),
        ):
            expected = [word for word, _ in ask(positive=[b, c], negative=[a], topn=5)]
            assert names(ours.analogies([(a, b, c)], method=method, count=5)) == [expected]
