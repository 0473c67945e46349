"""The evaluation of word vectors: files of questions, scores, the picture, the report."""

import math

import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.evaluation.word_questions import read_analogies, read_similarities
from dlcore.evaluation.word_vectors import Accuracy, evaluate_analogies, evaluate_similarities
from dlcore.launch import jobs
from dlcore.models.embedding import WordSpace
from dlcore.report.plots import scatter

report = jobs.module("word_vectors").report


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "questions.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def planted(case="exact", noise=1.0):
    """40 pairs of words with a common difference under noise; every fifth also in capitals."""
    random = np.random.default_rng(0)
    base, step = random.normal(size=(40, 12)), 2 * random.normal(size=12)
    words = [f"{part}{number}" for part in ("x", "y") for number in range(40)]
    matrix = np.concatenate([base, base + step])
    words += [word.upper() for word in words[::5]]
    matrix = np.concatenate([matrix, matrix[::5] + 0.3 * random.normal(size=(16, 12))])
    matrix += noise * random.normal(size=matrix.shape)
    return WordSpace(words, matrix.astype(np.float32), case=case)


def some_questions():
    """Two sections, some with words that are unknown, in changing case."""
    pairs = np.random.default_rng(1).integers(0, 44, (120, 2)).tolist()
    questions = [(f"x{a}", f"Y{a}", f"X{b}", f"y{b}") for a, b in pairs if a != b]
    return {"family": questions[:50], "gram1-plural": questions[50:], "empty": []}


def cosine(first, second):
    x, y = first.astype(np.float64), second.astype(np.float64)
    return x @ y / math.sqrt((x @ x) * (y @ y))


def loop_accuracy(space, questions):
    """The definition, case ignored: (right, known)."""
    rows = {word.upper(): row for row, word in reversed([*enumerate(space.words)])}
    right = known = 0
    for question in questions:
        a, b, c, d = (word.upper() for word in question)
        if not {a, b, c, d} <= set(rows):
            continue
        known += 1
        scores = {}
        for row, word in enumerate(space.words):
            if word.upper() not in (a, b, c):
                to = [cosine(space.matrix[row], space.matrix[rows[other]]) for other in (a, b, c)]
                scores[row] = to[1] - to[0] + to[2]
        right += space.words[max(scores, key=scores.__getitem__)].upper() == d
    return right, known


def written(questions):
    return "".join(
        f": {name}\n" + "".join(" ".join(question) + "\n" for question in section)
        for name, section in questions.items()
    )


def test_analogies_against_a_loop() -> None:
    space, questions = planted("ignored"), some_questions()
    scores = evaluate_analogies(space, questions)
    for section in scores.sections:
        right, known = loop_accuracy(space, questions[section.name])
        total = len(questions[section.name])
        assert section == Accuracy(section.name, right, known, known, total)
    assert 10 < scores.total.right < scores.total.known < scores.total.total
    assert scores.semantic[1:] == scores.sections[0][1:]  # the empty one adds nothing
    assert scores.syntactic[1:] == scores.sections[1][1:]
    everything = [question for section in questions.values() for question in section]
    assert scores.total[1:4:2] == loop_accuracy(space, everything)
    wrong = evaluate_analogies(space, questions, unknown="wrong").total
    assert wrong.right == scores.total.right and wrong.counted == wrong.total == scores.total.total
    assert wrong.coverage == scores.total.coverage == scores.total.known / len(everything)


@pytest.mark.parametrize("method, exclude", [("3cosadd", ()), ("3cosmul", (2,))])
def test_analogies_are_asked_as_wanted(method, exclude) -> None:
    space, questions = planted("ignored"), some_questions()["family"]
    known = [question for question in questions if all(word in space for word in question)]
    asked = space.analogies([q[:3] for q in known], method=method, exclude=exclude)
    right = sum(space.same(d, question[3]) for [(d, _)], question in zip(asked, known, strict=True))
    scores = evaluate_analogies(space, {"x": questions}, method=method, exclude=exclude)
    assert scores.total == Accuracy("total", right, len(known), len(known), len(questions))
    assert right != evaluate_analogies(space, {"x": questions}).total.right


def test_analogies_equal_gensims(file) -> None:
    keyedvectors = pytest.importorskip("gensim.models.keyedvectors")
    for case in ("exact", "ignored"):
        for unknown in ("skip", "wrong"):
            space, questions = planted(case), some_questions()
            theirs = keyedvectors.KeyedVectors(12)
            theirs.add_vectors(space.words, space.matrix)
            path = file(written(questions))
            accuracy, sections = theirs.evaluate_word_analogies(
                path, case_insensitive=case == "ignored", dummy4unknown=unknown == "wrong"
            )
            scores = evaluate_analogies(space, read_analogies(path), unknown=unknown)
            expected = [(len(s["correct"]), len(s["incorrect"])) for s in sections]
            ours = [(s.right, s.counted - s.right) for s in (*scores.sections, scores.total)]
            assert ours == expected
            assert scores.total.accuracy == accuracy


def test_similarities_equal_scipys_and_gensims(file, random) -> None:
    stats = pytest.importorskip("scipy.stats")
    keyedvectors = pytest.importorskip("gensim.models.keyedvectors")
    space = planted("ignored")
    theirs = keyedvectors.KeyedVectors(12)
    theirs.add_vectors(space.words, space.matrix)
    pairs = [
        (f"X{a}", f"y{b}", round(random.normal(), 1))
        for a, b in random.integers(0, 44, (90, 2)).tolist()
    ]
    path = file("# comment\n" + "".join(f"{a}\t{b}\t{number}\n" for a, b, number in pairs))
    assert read_similarities(path) == pairs
    for unknown in ("skip", "wrong"):
        score = evaluate_similarities(space, pairs, unknown=unknown)
        _, expected, oov = theirs.evaluate_word_pairs(path, dummy4unknown=unknown == "wrong")
        assert score.spearman == pytest.approx(expected[0], abs=1e-9)
        assert 100 * (1 - score.coverage) == pytest.approx(oov)
        assert score.counted == (score.known if unknown == "skip" else 90) and score.known < 90
    known = [pair for pair in pairs if pair[0] in space and pair[1] in space]
    rows = {word.upper(): row for row, word in reversed([*enumerate(space.words)])}
    cosines = [cosine(*space.matrix[[rows[a.upper()], rows[b.upper()]]]) for a, b, _ in known]
    expected = stats.spearmanr([number for *_, number in known], cosines).statistic
    assert evaluate_similarities(space, pairs).spearman == pytest.approx(expected, abs=1e-9)


def test_analogy_files(file) -> None:
    text = "\ufeff: one two \r\na b c d\r\n\n: gram\nä\tb  c d\n: one two\ne f g h\n"
    assert read_analogies(file(text)) == {
        "one two": [("a", "b", "c", "d"), ("e", "f", "g", "h")],
        "gram": [("ä", "b", "c", "d")],
    }


@pytest.mark.parametrize(
    "text",
    [
        "tiger\tcat\t7.35\nbook\tpaper\t5\n",
        "# WordSim\nWord 1\tWord 2\tHuman (mean)\ntiger\tcat\t7.35\n#\nbook\tpaper\t5\n",
        "Word 1\tWord 2\tHuman (mean)\t1\t2\ntiger\tcat\t7.35\t1\t2\nbook\tpaper\t5\t1\t2\n",
        "Word 1,Word 2,Human (mean)\ntiger,cat,7.35\nbook,paper,5\n",
        "word1\tword2\tPOS\tSimLex999\tSD\ntiger\tcat\tN\t7.35\t1\nbook\tpaper\tN\t5.00\t2\n",
        "tiger cat 7.35\r\n\r\nbook paper 5",
        "\ufeffword1 word2 similarity\ntiger  cat 7.35\nbook paper 5",
    ],
)
def test_similarity_files(file, text) -> None:
    assert read_similarities(file(text)) == [("tiger", "cat", 7.35), ("book", "paper", 5.0)]


@pytest.mark.parametrize(
    "read, text, message",
    [
        (read_analogies, "a b c d\n", "line 1 of .*: no section before it"),
        (read_analogies, ": one\na b c d\n\na b c\n", "line 4 of .*: 3 words; .* has 4"),
        (read_analogies, ": one\na b c d e\n", "line 2 of .*: 5 words; .* has 4"),
        (read_analogies, ":\na b c d\n", "line 1 of .*: a section without a name"),
        (read_analogies, ": one\n: two\n", "has no questions"),
        (read_analogies, "", "has no questions"),
        (read_analogies, b": one\na b \xff d\n", "line 2 of .* is not UTF-8"),
        (read_similarities, "", "has no pairs"),
        (read_similarities, "# a b 1\n", "has no pairs"),
        (read_similarities, "a b 1\nc d x\ne f 3\n", "line 2 of .* column 3, found 'c | d | x'"),
        (read_similarities, "a b 1\nc d x 4\ne f 3\n", "line 2 of .* column 3"),
        (read_similarities, "a b 1\nc 2\n", "line 2 of .*: expected two words"),
        (read_similarities, "a\tb\t1\nc\t\t2\n", "line 2 of .*: expected two words"),
        (read_similarities, "a b nan\na b 1\n", "line 1 of .* a finite number"),
        (read_similarities, "a\tb\t7,5\na\tb\t1\n", "line 1 of .* a finite number"),
        (read_similarities, "a b c\n", "line 1 of .* a finite number"),
    ],
)
def test_bad_lines_are_named(file, read, text, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(file(text))
    assert "\n" not in str(error.value) and "questions.txt" in str(error.value)


def test_what_cannot_be_evaluated(tmp_path) -> None:
    for read in (read_analogies, read_similarities):
        with pytest.raises(InputError, match="cannot read .*missing.*; give a file"):
            read(tmp_path / "missing")
    with pytest.raises(InputError, match="no pairs of words"):
        evaluate_similarities(planted(), [])
    with pytest.raises(InputError, match="rule for unknown words 'drop'; .* skip, wrong"):
        evaluate_similarities(planted(), [("x1", "y1", 1.0)], unknown="drop")
    with pytest.raises(InputError, match="rule for unknown words 'drop'"):
        evaluate_analogies(planted(), {}, unknown="drop")


def test_the_tables_of_the_terminal() -> None:
    space = planted(noise=0)
    questions = {"capital": [("x1", "y1", "x2", "y2"), ("x1", "y1", "x2", "z")], "gram": []}
    lines = evaluate_analogies(space, questions).describe().splitlines()
    assert lines == [
        "section    right  counted  accuracy    95 % interval  coverage",
        "capital        1        1    100.0%  20.7% to 100.0%     50.0%",
        "gram           0        0         -                -         -",
        "semantic       1        1    100.0%  20.7% to 100.0%     50.0%",
        "syntactic      0        0         -                -         -",
        "total          1        1    100.0%  20.7% to 100.0%     50.0%",
        "a : b :: c : ? by 3cosadd, a, b, c of a question excluded from its answers; "
        "questions with words without a vector are left out",
    ]
    free = evaluate_analogies(space, questions, method="3cosmul", exclude=(), unknown="wrong")
    assert free.rule.startswith("a : b :: c : ? by 3cosmul, no word of a question excluded")
    assert free.rule.endswith("count as wrong (a similarity as 0)")
    score = evaluate_similarities(space, [("x1", "y1", 1.0), ("x1", "z", 2.0)])
    assert score.describe() == (
        "Spearman undefined (95 % interval -1.000 to 1.000) of 1 pairs, coverage 50.0%; "
        "pairs with words without a vector are left out"
    )


def test_vectors_of_a_group_are_beside_each_other(random) -> None:
    centres = 10 * random.normal(size=(5, 20))
    vectors = np.repeat(centres, 8, axis=0) + random.normal(size=(40, 20))
    points = scatter.tsne(vectors, perplexity=5, steps=500)
    assert points.shape == (40, 2)
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(40, np.inf))
    own = distances.argmin(axis=1) // 8 == np.arange(40) // 8
    assert own.mean() > 0.9  # by chance 7 / 39
    np.testing.assert_array_equal(scatter.tsne(vectors, perplexity=5, steps=500), points)


@pytest.mark.parametrize("shape", [(3, 5), (10, 1), (10,)])
def test_what_cannot_be_placed(shape) -> None:
    with pytest.raises(ValueError, match="at least 4 of 2 features"):
        scatter.tsne(np.ones(shape))


def test_names_do_not_cover_each_other(tmp_path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(
        scatter, "save", lambda figure, path: (figures.append(figure), figure.savefig(path))
    )
    points = np.array([[0, 0], [0.02, 0], [0.02, 0.01], [1, 1]])
    names = ["neighbour", "beside", "$above$", "far"]
    scatter.plot_names(names, points, tmp_path / "words.png", title="Words")
    assert (tmp_path / "words.png").read_bytes()[:4] == b"\x89PNG"
    texts = figures[0].axes[0].texts
    assert [text.get_text().replace("\\", "") for text in texts] == names
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    with pytest.raises(ValueError, match=r"must be \(3, 2\)"):
        scatter.plot_names(names[:3], points, tmp_path / "words.png")


def test_the_sections_of_a_report(tmp_path) -> None:
    space = planted(noise=0)
    scores = evaluate_analogies(space, {"<capital>": [("x1", "y1", "x2", "y2")]})
    score = evaluate_similarities(space, [("x1", f"y{i}", float(i)) for i in range(1, 9)])
    sections = report.word_vector_sections(
        words=space.words[:9],
        vectors=space.matrix[:9],
        neighbours=[report.Neighbours("x1", space.neighbours(["x1"], count=2)[0])],
        analogies={"3CosAdd": scores},
        similarities={"WordSim": score},
    )
    titles = ["Analogies", "Word similarity", "Neighbours", "Map of words"]
    assert [section.title for section in sections] == titles
    analogies, similarity, near, picture = (section.content(tmp_path) for section in sections)
    assert "<h3>3CosAdd</h3>" in analogies and "<th>&lt;capital&gt;</th><td>1</td>" in analogies
    assert scores.rule in analogies and score.rule in similarity
    assert f"<th>WordSim</th><td>{score.spearman:.4f}</td>" in similarity
    assert f"<th>x1</th><td>{space.neighbours(['x1'])[0][0].word} " in near
    assert '<img src="words.png" alt="words">' in picture
    assert (tmp_path / "words.png").stat().st_size > 1000


def test_a_report_of_few_words_has_no_map() -> None:
    assert report.word_vector_sections(words=["a", "b", "c"], vectors=np.ones((3, 4))) == []
    assert report.word_vector_sections(words=list("abcd"), vectors=np.ones((4, 1))) == []
