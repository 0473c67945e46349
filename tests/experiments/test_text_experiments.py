"""Text classification and tagging as a user runs them."""

import json
import random
import sys

import numpy as np
import pytest
from outcomes import assert_fails, summary

from dlcore.data.text.vectors import Vectors, write_vectors

GOOD, BAD = ("fine", "lovely", "warm"), ("dull", "dreary", "cold")
TAGS = {"a": "DET", "the": "DET", "dog": "NOUN", "cat": "NOUN", "sees": "VERB", "hears": "VERB"}


def review(draw):
    good = draw.random() < 0.5
    words = [draw.choice(GOOD if good else BAD), *("it was".split() * draw.randint(1, 4))]
    draw.shuffle(words)
    return f"{'good' if good else 'bad'}\t{' '.join(words)}\n"


def sentence(draw):
    words = [draw.choice(list(TAGS)) for _ in range(draw.randint(1, 9))]
    return "".join(f"{word} {TAGS[word]}\n" for word in words) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A TSV file of reviews, and a file of tagged sentences."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    reviews, tagged = folder / "reviews.tsv", folder / "sentences.conll"
    reviews.write_text("label\ttext\n" + "".join(review(draw) for _ in range(300)))
    tagged.write_text("".join(sentence(draw) for _ in range(300)))
    return {"text_classification": reviews, "tagging": tagged}


@pytest.fixture
def job():
    return "text_classification"


@pytest.fixture
def command(data_dir, files, job):
    return [
        sys.executable, "-m", f"experiments.{job}", f"--data_dir={data_dir}",
        f"--data_path={files[job]}", "--hidden=12", "--embedding_size=8", "--batch_size=16",
        "--learning_rate=0.02", "--warmup_steps=5",
    ]  # fmt: skip


each_job = pytest.mark.parametrize("job", ["text_classification", "tagging"])


@each_job
def test_a_run_learns_leaves_its_files_and_repeats(run, tmp_path, job):
    process = run("--steps=120", f"--workdir={tmp_path / 'a'}", "--report")
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path / "a")
    assert found["metrics"]["accuracy"] > 0.97 and found["experiment"] == job
    page = (tmp_path / "a" / "report" / "index.html").read_text()
    assert "confusion.png" in page
    assert json.loads((tmp_path / "a" / "vocabulary.json").read_text())["level"] == "word"
    again = run(f"--flagfile={tmp_path / 'a' / 'flags.txt'}", f"--workdir={tmp_path / 'b'}")
    assert again.returncode == 0, again.stderr
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("job", "flags"),
    [
        pytest.param(
            "text_classification", ("--pooling=last", "--cell=gru", "--layers=2", "--residual"),
            marks=pytest.mark.slow,
        ),
        ("text_classification", ("--pooling=attention", "--cell=lstm_batch_norm", "--level=char")),
        pytest.param(
            "text_classification", ("--pooling=mean", "--nobidirectional", "--precision=bfloat16"),
            marks=pytest.mark.slow,
        ),
        ("tagging", ("--crf", "--cell=lstm_peephole", "--variational", "--state_dropout=0.1")),
        pytest.param(
            "tagging", ("--cell=highway", "--embedding_dropout=0.1", "--limit=5"),
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_every_choice_passes_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "report" / "index.html").exists()


def test_pretrained_vectors_are_used_and_stay_frozen(run, tmp_path):
    words = [*GOOD, *BAD, "it"]
    table = np.random.default_rng(0).normal(size=(len(words), 8)).astype(np.float32)
    path = tmp_path / "vectors.txt"
    write_vectors(path, Vectors(words, table), format="glove")
    flags = (f"--embeddings={path}", "--freeze_embeddings", "--steps=60")
    process = run(*flags, f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    assert "vectors of 7 of the" in process.stderr
    from dlcore.train.checkpoint import load_variables

    params = load_variables(tmp_path / "run" / "checkpoints")["params"]
    tokens = json.loads((tmp_path / "run" / "vocabulary.json").read_text())["tokens"]
    learned = params["encoder"]["embedding"]["embedding"]
    rows = np.array([tokens.index(word) for word in words])
    np.testing.assert_array_equal(np.asarray(learned)[rows], table)
    flags = (f"--embeddings={path}", "--embedding_size=9", f"--workdir={tmp_path / 'other'}")
    assert_fails(run(*flags), "8 numbers", "--embedding_size")


@pytest.mark.parametrize(
    ("job", "content", "words"),
    [
        ("text_classification", b"", ("holds no text",)),
        ("text_classification", b"good\tfine\n", ("1",)),
        ("text_classification", b"good\tfine\nbad\t\xff\n", ("UTF-8", "line 2")),
        ("text_classification", b"good\tfine\nbad\n", ("line 2", "column")),
        ("text_classification", b"good\tfine\nbad\tawful\nbad\t\n", ("line 3",)),
        ("tagging", b"", ("holds no text",)),
        ("tagging", b"a DET\n\nthe\n", ("line 3", "column")),
        ("tagging", b"a DET\xff\n", ("UTF-8", "line 1")),
    ],
)
def test_bad_files(run, tmp_path, content, words):
    path = tmp_path / "bad.tsv"
    path.write_bytes(content)
    assert_fails(run(f"--data_path={path}", f"--workdir={tmp_path / 'run'}"), *words)


@pytest.mark.parametrize(
    ("job", "line", "name"),
    [("text_classification", "ugly\tfine it was\n", "ugly"), ("tagging", "cat NOUNS\n\n", "NOUNS")],
)
def test_a_class_that_training_lacks_is_named(run, tmp_path, files, job, line, name):
    suffix = files[job].suffix
    (tmp_path / f"train{suffix}").write_bytes(files[job].read_bytes())
    (tmp_path / f"test{suffix}").write_text(line if job == "tagging" else "label\ttext\n" + line)
    process = run(f"--data_path={tmp_path}", f"--workdir={tmp_path / 'run'}")
    assert_fails(process, name, f"test{suffix}", "line")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--cell=elman", ("elman", "lstm")),
        ("--freeze_embeddings", ("--embeddings",)),
        ("--embeddings=/nowhere.txt", ("/nowhere.txt",)),
        ("--dataset=no_such_set --data_path=", ("data path",)),
    ],
)
def test_bad_flags(run, tmp_path, flag, words):
    assert_fails(run(*flag.split(), f"--workdir={tmp_path}"), *words)


@each_job
def test_the_checks_pass(run, job):
    process = run("--check", "--dropout=0")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout
