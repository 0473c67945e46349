"""The job of sentence vectors: learning, resuming, predicting, and bad input."""

import itertools
import json
import random

import networks
import numpy as np
import pytest
from dlcore.experiments.sentence_vectors import Config, SentenceVectors
from in_process import run_here

import dlcore
from dlcore import runtime
from dlcore.data.builders import installed
from dlcore.data.text import read_vectors
from dlcore.errors import InputError
from dlcore.launch.task import make_state
from dlcore.train import guard

THINGS = {"fruit": "apple pear plum cherry fig", "metal": "iron zinc lead copper tin"}
FRAMES = {"fruit": "we eat a sweet {} now", "metal": "they melt the heavy {} bar"}


def pairs(count, seed):
    """Sentences of two kinds: those of one kind are similar, and most with the same thing."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        kinds = [draw.choice([*THINGS]) for _ in range(2)]
        things = [draw.choice(THINGS[kind].split()) for kind in kinds]
        score = 3 * (kinds[0] == kinds[1]) + 2 * (things[0] == things[1])
        texts = [FRAMES[kind].format(thing) for kind, thing in zip(kinds, things, strict=True)]
        rows.append("\t".join([*texts, str(score)]) + "\n")
    return "".join(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("pairs")
    (found / "train.tsv").write_text(pairs(200, 0), encoding="utf-8")
    (found / "test.tsv").write_text(pairs(40, 1), encoding="utf-8")
    return found


@pytest.fixture
def flags(folder):
    return [f"--data_path={folder}", "--embedding_size=12", "--corpus=none"]


SIAMESE = ["--model=siamese", "--hidden=6", "--batch_size=16"]


def run_job(capfd, flags, *more):
    process = run_here(capfd, "sentence_vectors", [*flags, *more])
    assert process.returncode == 0, process.stderr
    return process


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "model",
    ["sif", "pv_dbow", *(pytest.param(n, marks=pytest.mark.slow) for n in ("average", "pv_dm"))],
)
def test_models_of_text_tell_topics_apart(capfd, flags, tmp_path, model):
    more = ["--words=512", "--micro_batch=128", "--epochs=30", f"--workdir={tmp_path / 'run'}"]
    if model.startswith("pv"):
        more.append("--test_sentences")
    process = run_job(capfd, flags, f"--model={model}", "--report", *more)
    metrics = summary_of(tmp_path / "run")["metrics"]
    assert metrics["spearman"] > 0.6
    assert "overlap_spearman" in metrics and ("learnt_spearman" in metrics) == (model[:2] == "pv")
    assert "known words" in process.stderr
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "scores.png" in page and "Neighbours" in page
    trained = dlcore.load(tmp_path / "run")
    lines = (tmp_path / "run" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    written = read_vectors(tmp_path / "run" / "sentence_vectors.txt")
    assert written.words == [str(1 + n) for n in range(len(lines))]
    found, unknown = trained.predict([lines[0], "xyzzy"])
    np.testing.assert_allclose(found.vector, written.matrix[0], rtol=1e-4, atol=1e-5)
    assert found.nearest[0][1] == pytest.approx(1, abs=1e-4)
    kind = "eat" if "eat" in lines[0] else "melt"
    assert all(kind in other for other, _ in found.nearest)
    assert not unknown.vector.any() and unknown.nearest == []
    (row,) = trained.answers([lines[0]])
    assert {"neighbour", "similarity", "neighbours", "vector"} == set(row)


# Which the encoder learns by in a few steps.
LEARNING = [*SIAMESE, "--schedule=constant", "--log_every=1", "--learning_rate=0.01"]


def test_the_encoder_learns_from_the_scores(capfd, flags, tmp_path):
    run_job(capfd, flags[:2], *LEARNING, "--steps=30", f"--workdir={tmp_path}")
    trained = dlcore.load(tmp_path)
    assert trained.summary["metrics"]["spearman"] > 0.6
    found = trained.predict(["we eat a sweet fig now"])[0]
    assert "eat" in found.nearest[0][0]


@pytest.mark.slow
def test_the_encoder_resumes_bit_for_bit(capfd, flags, tmp_path):
    for name, steps in (("whole", 30), ("parts", 15), ("parts", 30)):
        run_job(capfd, flags[:2], *LEARNING, f"--steps={steps}", f"--workdir={tmp_path / name}")
    whole, parts = (dlcore.load(tmp_path / name) for name in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


@pytest.mark.slow
def test_text_learners_resume_bit_for_bit(capfd, flags, tmp_path):
    more = ["--model=pv_dm", "--words=512", "--micro_batch=128", "--schedule=constant"]
    for name, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        run_job(capfd, flags, *more, f"--steps={steps}", f"--workdir={tmp_path / name}")
    whole, parts = (dlcore.load(tmp_path / name) for name in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


@pytest.mark.slow
def test_word_vectors_are_taken_over_and_frozen(capfd, flags, tmp_path):
    words = ["--model=average", "--words=512", "--micro_batch=128", "--steps=5"]
    run_job(capfd, flags, *words, f"--workdir={tmp_path / 'words'}")
    file = tmp_path / "words" / "vectors.txt"
    given = read_vectors(file)
    start = [f"--embeddings={file}", "--freeze_embeddings"]
    run_job(capfd, flags, "--model=sif", *start, f"--workdir={tmp_path / 'sif'}")
    again = read_vectors(tmp_path / "sif" / "vectors.txt")
    assert again.words == given.words and summary_of(tmp_path / "sif")["step"] == 1
    np.testing.assert_array_equal(again.matrix, given.matrix)
    more = [*flags[:2], *SIAMESE, *start, "--steps=2", f"--workdir={tmp_path / 'siamese'}"]
    run_job(capfd, more)
    again = read_vectors(tmp_path / "siamese" / "vectors.txt")
    rows = [again.words.index(word) for word in given.words]
    np.testing.assert_array_equal(again.matrix[rows], given.matrix)


def test_predictions_are_written(capfd, flags, tmp_path):
    run_job(capfd, flags, "--words=512", "--steps=2", f"--workdir={tmp_path / 'run'}")
    (tmp_path / "asked.txt").write_text("we eat a sweet fig now\nnothing known\n", encoding="utf-8")
    asked = [f"--predict={tmp_path / 'asked.txt'}", f"--workdir={tmp_path / 'run'}", "--top=2"]
    answers = [f"--predict_to={tmp_path / 'answers.jsonl'}"]
    process = run_here(capfd, "sentence_vectors", [*asked, *answers])
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows[0]["neighbours"]) == 2 and len(rows[0]["vector"]) == 12
    assert rows[1]["neighbour"] is None and "unknown" in process.stderr


@pytest.mark.slow
def test_layouts_and_accumulation_agree(folder):
    found = {}
    for name, accumulate in (("jit", 1), ("pmap", 1), ("jit", 2)):
        config = Config(
            model="siamese", data_path=str(folder), hidden=6, embedding_size=12, batch_size=16,
            accumulate=accumulate, optimizer="sgd",
        )  # fmt: skip
        task = SentenceVectors(config)
        data = task.data()
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state = layout.initialise(lambda task=task: make_state(task))
        state, metrics = compiled(state, next(data.train(0)))
        found[name, accumulate] = state.params, float(metrics["loss"].compute())
    for params, loss in found.values():
        assert loss == pytest.approx(found["jit", 1][1], rel=1e-5)
        networks.assert_close(params, found["jit", 1][0], tolerance=1e-5)


@pytest.mark.parametrize(
    "model", [pytest.param("siamese", marks=pytest.mark.slow), "sif", "pv_dbow"]
)
def test_the_checks_pass(capfd, flags, model):
    more = SIAMESE if model == "siamese" else [f"--model={model}", "--words=512"]
    used = flags[:2] if model == "siamese" else flags
    process = run_here(capfd, "sentence_vectors", [*used, *more, "--check"])
    assert process.returncode == 0, process.stdout + process.stderr


def test_sentences_of_unknown_words_are_counted(capfd, flags, folder, tmp_path):
    own = tmp_path / "pairs"
    own.mkdir()
    (own / "train.tsv").write_text(pairs(50, 0), encoding="utf-8")
    (own / "test.tsv").write_text("xyzzy\tplugh\t1\n" + pairs(5, 1), encoding="utf-8")
    more = [f"--data_path={own}", *flags[1:], "--words=512", "--steps=1"]
    process = run_job(capfd, more, f"--workdir={tmp_path / 'run'}")
    assert "2 of " in process.stderr and "unknown words only: their vector is 0" in process.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A.\tB.\tgood\n", "the score 'good' of line 201"),
        ("A.\tB.\t7\n", "the score 7 of line 201"),
        ("A.\t\t1\n", "line 201 .* has no second sentence"),
        ("A.\n", "line 201 .* has 1 column"),
    ],
)
def test_bad_lines_are_one_line(capfd, folder, tmp_path, row, message):
    (tmp_path / "train.tsv").write_text(pairs(200, 0) + row, encoding="utf-8")
    (tmp_path / "test.tsv").write_text(pairs(9, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        SentenceVectors(Config(data_path=str(tmp_path), corpus="none")).data()
    assert "\n" not in str(error.value)


def test_flags_of_other_models_are_refused():
    for options in (
        {"model": "sif", "hidden": 7},
        {"model": "sif", "optimizer": "sgd"},
        {"model": "siamese", "window": 3},
        {"model": "siamese", "corpus": "none"},
        {"model": "pv_dbow", "window": 3},
        {"model": "pv_dbow", "embeddings": "vectors.txt"},
        {"model": "average", "sif_a": 0.1},
        {"model": "average", "passes": 3},
    ):
        with pytest.raises(InputError, match="does not read"):
            Config(**options)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["average", "pv_dm", "siamese"])
def test_the_smoke_test_of_each_model_on_the_embedded_pairs(capfd, data_dir, model):
    process = run_here(
        capfd, "sentence_vectors", ["--smoke", f"--model={model}", f"--data_dir={data_dir}"]
    )
    assert process.returncode == 0, process.stderr
    assert "nobody has scored these pairs" in process.stderr


def test_the_smoke_test_of_the_default(capfd, monkeypatch, tmp_path):
    sources = installed.sources  # of which some are enough
    monkeypatch.setattr(installed, "sources", lambda name: itertools.islice(sources(name), 60))
    process = run_here(capfd, "sentence_vectors", ["--smoke", f"--data_dir={tmp_path}"])
    assert process.returncode == 0, process.stderr
