"""Text classification and tagging as a user runs them."""

import csv
import io
import itertools
import json
import random
import types

import numpy as np
import pytest
from outcomes import assert_fails, summary

import dlcore
from dlcore import launch
from dlcore.data.builders import installed
from dlcore.data.text.vectors import Vectors, write_vectors
from dlcore.errors import InputError
from dlcore.launch import jobs

GOOD, BAD = ("fine", "lovely", "warm"), ("dull", "dreary", "cold")
SMALL = {
    "hidden": 12, "embedding_size": 8, "batch_size": 16, "learning_rate": 0.02, "warmup_steps": 5,
}  # fmt: skip
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
def common_flags(data_dir, files, job):
    given = SMALL | {"data_dir": data_dir, "data_path": files[job]}
    return [f"--{name}={value}" for name, value in given.items()]


@pytest.fixture(scope="module")
def trained(data_dir, files, tmp_path_factory):
    """Gives the outcome and the folder of a run of a job that was launched in this process."""
    runs = {}

    def trained(name):
        if name not in runs:
            task = jobs.task_class(name)
            folder = tmp_path_factory.mktemp(name)
            config = task.parts()[0](
                **SMALL, data_dir=str(data_dir), data_path=str(files[name]), steps=120, limit=12,
                workdir=str(folder), report=True,
            )  # fmt: skip
            runs[name] = launch.run(task(config)), folder
        return runs[name]

    return trained


each_job = pytest.mark.parametrize("job", ["text_classification", "tagging"])


@each_job
def test_a_run_learns_and_leaves_its_files(trained, job):
    _, folder = trained(job)
    found = summary(folder)
    assert found["metrics"]["accuracy"] > 0.97 and found["experiment"] == job
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "confusion.png" in page
    assert json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))["level"] == "word"


@pytest.mark.slow
@each_job
def test_a_run_repeats(run, tmp_path, job):
    process = run("--steps=120", f"--workdir={tmp_path / 'a'}")
    assert process.returncode == 0, process.stderr
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
        pytest.param(
            "text_classification",
            ("--pooling=attention", "--cell=lstm_batch_norm", "--level=char"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "text_classification", ("--pooling=mean", "--nobidirectional", "--precision=bfloat16"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "text_classification",
            ("--cell=lstm_batch_norm", "--precision=bfloat16", "--merge=product"),
            marks=pytest.mark.slow,
        ),
        pytest.param("tagging", ("--crf",), marks=pytest.mark.slow),
        pytest.param(
            "tagging", ("--crf", "--cell=lstm_peephole", "--variational", "--state_dropout=0.1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "tagging", ("--crf", "--cell=lstm_batch_norm", "--precision=bfloat16"),
            marks=pytest.mark.slow,
        ),
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
    assert "vectors for 7 of the" in process.stderr
    path.rename(tmp_path / "elsewhere.txt")  # what was learned is loaded without the vectors
    loaded = dlcore.load(tmp_path / "run")
    tokens = loaded.info.vocabulary.tokens
    learned = loaded.params["encoder"]["embedding"]["embedding"]
    rows = np.array([tokens.index(word) for word in words])
    np.testing.assert_array_equal(np.asarray(learned)[rows], table)
    (tmp_path / "elsewhere.txt").rename(path)
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


@each_job
def test_all_parts_of_a_folder_are_used_and_what_is_unusual_is_said(capfd, tmp_path, files, job):
    """A label of the test alone is an error of the model; a dev file chooses it."""
    lines = {
        "text_classification": "label\ttext\n" + "ugly\twas it so fine so fine\n" * 3,
        "tagging": "a DET\ncat NOUNS\nsees VERB\na DET\ndog NOUN\n\n",
    }
    suffix = files[job].suffix
    (tmp_path / f"train{suffix}").write_bytes(files[job].read_bytes())
    (tmp_path / f"dev{suffix}").write_text(lines[job])
    (tmp_path / f"test{suffix}").write_text(lines[job])
    (tmp_path / "notes.md").write_text("something else")
    task_class = jobs.task_class(job)
    config = task_class.parts()[0](data_path=str(tmp_path), limit=4, workdir=str(tmp_path / "run"))
    data = task_class(config).data()
    said = capfd.readouterr().err
    lacking = {"tagging": "NOUNS (2)"}.get(job, "ugly (6)")
    for words in (
        f"s that the training part lacks count as errors: {lacking}",
        "not read: notes.md",
        f"{1 if job == 'tagging' else 3} to validate with",
        "; cut to --limit=4 tokens: ",
    ):
        assert said.count(words) == 1, words
    (batch,) = data.validation()
    name = {"tagging": "tags"}.get(job, "label")
    labels = data.info.tag_names if job == "tagging" else data.info.class_names
    given = {labels[number] for number in batch[name][batch["weight"] > 0].ravel()}
    assert lacking.split()[0] in given


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--cell=elman", ("elman", "lstm")),
        ("--freeze_embeddings", ("--freeze_embeddings is for --embeddings, which is not given",)),
        ("--embeddings=/nowhere.txt", ("/nowhere.txt",)),
        ("--dataset=no_such_set --data_path=", ("data path",)),
    ],
)
def test_bad_flags(run, tmp_path, flag, words):
    assert_fails(run(*flag.split(), f"--workdir={tmp_path}"), *words)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["text_classification", "tagging"])
def test_the_checks_pass(run, job):
    process = run("--check", "--dropout=0")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout


LINES = {
    "text_classification": ["fine it was", "it was dull", "", "was warm " * 9, "it was nameless"],
    "tagging": ["the dog sees a cat", "  ", "a dog " * 9, "the unicorn hears"],
}
REMARKS = {
    "text_classification": "1 of 5 lines cut to --limit=12 tokens, 1 of 27 tokens unknown",
    "tagging": "1 of 4 lines cut to --limit=12 tokens, 1 of 26 tokens unknown",
}


@each_job
def test_a_run_comes_back_and_answers_lines(trained, job):
    outcome, folder = trained(job)
    loaded = dlcore.load(folder)
    assert loaded.summary["metrics"] == outcome.metrics
    lines = LINES[job]
    outputs = loaded.predict(lines)
    assert len(outputs) == len(lines)
    # What stands beside a line changes nothing.
    for line, output in zip(lines, outputs, strict=True):
        np.testing.assert_allclose(loaded.predict([line])[0], output, rtol=1e-5, atol=1e-6)
    assert len(loaded.predict([])) == 0 and loaded.answers([]) == []
    rows = loaded.answers(lines)
    if job == "tagging":
        assert rows[0]["tokens"] == lines[0].split()
        assert rows[0]["tags"] == [TAGS[token] for token in rows[0]["tokens"]]
        assert rows[1] == {"tags": [], "tokens": []} and len(rows[2]["tags"]) == 12
    else:
        np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-5)
        assert [row["class"] for row in rows[:2]] == ["good", "bad"]
        assert len(dlcore.load(folder, top=1).answers(lines)[0]["top"]) == 1


def test_dropout_samples_of_a_text(run, trained, tmp_path):
    _, folder = trained("text_classification")
    (tmp_path / "lines.txt").write_text("\n".join(LINES["text_classification"]) + "\n")
    flags = (f"--predict={tmp_path / 'lines.txt'}", "--dropout_samples=3", f"--workdir={folder}")
    process = run(*flags)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert all(0 < row["mutual_information"] < row["entropy"] for row in rows)
    assert run(*flags).stdout == process.stdout


@each_job
def test_predictions_of_a_file_and_of_standard_input(run, trained, tmp_path, monkeypatch, job):
    _, folder = trained(job)
    lines = LINES[job]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    flags = ("--limit=12", f"--workdir={folder}")
    process = run(f"--predict={tmp_path / 'lines.txt'}", *flags)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count(REMARKS[job]) == 1
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    expected = dlcore.load(folder).answers(lines)
    assert rows == [
        {"input": line, **row} for line, row in zip(lines, expected, strict=True)
    ]  # fmt: skip

    stdin = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert run("--predict=-", *flags).stdout == process.stdout

    table = tmp_path / "answers.csv"
    process = run(f"--predict={tmp_path / 'lines.txt'}", *flags, f"--predict_to={table}")
    assert process.returncode == 0, process.stderr
    with table.open(newline="") as file:
        cells = [*csv.DictReader(file)]
    assert [row["input"] for row in cells] == lines
    if job == "tagging":
        assert cells[0]["tags"] == " ".join(expected[0]["tags"]) and cells[1]["tags"] == ""
    else:
        assert [row["class"] for row in cells] == [row["class"] for row in expected]
        assert float(cells[0]["probability_2"]) == expected[0]["top"][1]["probability"]


@pytest.mark.slow
def test_a_tagger_of_characters_reads_characters(monkeypatch, tmp_path):
    sources = installed.sources  # of which some are enough
    monkeypatch.setattr(installed, "sources", lambda name: itertools.islice(sources(name), 40))
    task = jobs.task_class("tagging")
    folders = {"data_dir": str(tmp_path / "data"), "workdir": str(tmp_path / "run")}
    config = task.parts()[0](smoke=True, hidden=8, embedding_size=8, **folders)
    launch.run(task(config))
    loaded = dlcore.load(tmp_path / "run")
    assert loaded.info.characters
    (row,) = loaded.answers(["if x: y"])
    assert row["tokens"] == list("if x: y") and {*row["tags"]} <= {*loaded.info.tag_names}


def test_lines_of_characters_are_tagged_together(monkeypatch):
    """As in training: with their line ends, and with the lines around them."""
    task = jobs.task_class("tagging")
    tagger = task(task.parts()[0](limit=9))
    tagger.info = types.SimpleNamespace(characters=True, longest=9)
    seen = []

    def tags_of(variables, texts):
        seen.extend(texts)
        return [np.array([*map(ord, text[:9])]) for text in texts]

    monkeypatch.setattr(tagger, "predict_tokens", tags_of)
    lines = ["ab", "", "cd", "a line that is too long", "e"]
    found = tagger.predict({}, lines)
    assert seen == ["ab\n\ncd\n", "a line that is too long\n", "e\n"]
    assert ["".join(map(chr, tags)) for tags in found] == [line[:9] for line in lines]


@pytest.mark.parametrize("name", ["tag_column", "token_column"])
def test_columns_are_for_files(name):
    config, _ = jobs.task_class("tagging").parts()
    for value in (2, "UPOS"):
        with pytest.raises(InputError, match=f"--{name} is for --data_path, which is not given"):
            config(**{name: value})
        assert getattr(config(data_path="x", **{name: value}), name) == value
    for value in (0, "", 1.5):
        with pytest.raises(InputError, match=f"--{name}=.* is not the number of a column from 1"):
            config(data_path="x", **{name: value})
