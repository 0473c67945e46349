"""Translation as a user runs it: results, files, resuming."""

import contextlib
import csv
import io
import json
import random
import signal
import sys
import time
import types

import jax
import numpy as np
import pytest
from outcomes import assert_fails, summary

import dlcore
from dlcore import launch
from dlcore.data.text import ParallelText
from dlcore.launch import jobs
from dlcore.train.checkpoint import average_params, load_variables

translation = jobs.module("translation")

# Sentences of one length, so that a step is compiled for one shape.
WORDS = {
    "the": "le", "a": "un", "cat": "chat", "dog": "chien", "bird": "oiseau", "sees": "voit",
    "hears": "entend", "likes": "aime",
}  # fmt: skip


def pairs(count, seed=0):
    draw = random.Random(seed)
    kinds = (("the", "a"), ("cat", "dog", "bird"), ("sees", "hears", "likes"))
    for _ in range(count):
        words = [draw.choice(kinds[kind]) for kind in (0, 1, 2, 0, 1)]
        yield " ".join(words), " ".join(WORDS[word] for word in words)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs(300)))
    return path


# The options of the run that most tests look at, which therefore has many of the choices.
TRAINED = {
    "steps": 50, "eval_every": 25, "checkpoint_every": 6, "log_every": 5, "attention": "additive",
    "coverage": True, "input_feeding": True, "coverage_penalty": 0.1, "batch_tokens": 96,
    "accumulate": 2, "scheduled_sampling": 0.1, "z_loss": 1e-4,
}  # fmt: skip


def config(corpus, **options):
    """The configuration that the runs of this module have in common, and more."""
    return translation.Config(
        data_path=str(corpus), level="word", hidden=16, batch_size=16, limit=8, learning_rate=0.03,
        warmup_steps=5, beam=3, **options,
    )  # fmt: skip


@pytest.fixture
def job():
    return "translation"


@pytest.fixture
def common_flags(corpus):
    return config(corpus).lines()


@pytest.fixture
def trained_flags(corpus):
    """The flags of the run that most tests look at, beside the common ones."""
    return sorted({*config(corpus, **TRAINED).lines()} - {*config(corpus).lines()})


# A command that has no flags but its own.
alone = pytest.mark.parametrize("common_flags", [()], ids=["alone"])


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The folder of a finished run, and what it said."""
    folder, said = tmp_path_factory.mktemp("trained"), io.StringIO()
    task = translation.Translation(config(corpus, **TRAINED, workdir=str(folder), report=True))
    with contextlib.redirect_stderr(said):
        launch.run(task)
    return folder, said.getvalue()


def table(folder):
    """The rows of test.tsv."""
    header, *rows = (folder / "test.tsv").read_text().splitlines()
    assert header == "source\treference\toutput"
    return [row.split("\t") for row in rows]


def test_a_run_learns_and_leaves_its_files(trained):
    folder, said = trained
    found = summary(folder)
    metrics, errors = found["metrics"], found["search_errors"]
    assert metrics["bleu"] > 60 and metrics["chrf"] > 60 and metrics["loss"] < 0.5
    assert found["target_tokens_per_second"] > 0 and found["greedy_bleu"] > 60
    rows = table(folder)
    assert all(WORDS[a] == b for row in rows for a, b in zip(*map(str.split, row[:2]), strict=True))
    exact = np.mean([reference == output for _, reference, output in rows])
    assert metrics["exact_match"] == exact == errors["right"]
    assert sum(errors.values()) == pytest.approx(1)
    for words in (
        "greedy:\nBLEU",
        "beam 3:\nBLEU",
        "nrefs:1|case:mixed",
        "what helps",
        "267 pairs",
    ):
        assert words in said
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        "00000025.txt", "00000050.txt",
    ]  # fmt: skip
    assert set((folder / "samples" / "00000050.txt").read_text().split()) <= {*WORDS.values()}


def test_the_report_shows_scores_errors_samples_and_attention(trained):
    folder, _ = trained
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for title in ("Translation scores", "BLEU by length", "Error analysis", "Samples", "Attention"):
        assert title in page
    pictures = {path.name for path in (folder / "report").glob("*.png")}
    assert {"bleu_by_length.png", "attention_1.png", "attention_4.png"} <= pictures
    assert all(name in page for name in pictures)


@pytest.mark.slow
def test_kill_9_and_resume_is_bit_for_bit(run, start, trained, trained_flags, tmp_path):
    process = start(*trained_flags, f"--workdir={tmp_path}")
    # A second one begins when the first is whole.
    while process.poll() is None and len(list(tmp_path.glob("checkpoints/[0-9]*"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "summary.json").exists()
    again = run(*trained_flags, f"--workdir={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert f"continuing {tmp_path} from step " in again.stderr
    whole, _ = trained
    for name in ("metrics.jsonl", "samples/00000050.txt", "test.tsv", "source.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert summary(tmp_path)["metrics"] == summary(whole)["metrics"]
    ours, theirs = (
        load_variables(folder / "checkpoints")["params"] for folder in (tmp_path, whole)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# An ordinary line, an empty one, one of unknown words and one longer than --limit.
TEXT = "the cat sees a dog\n\nzebra likes \u2028 the bird\n" + "a dog " * 9 + "\n \n"


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@alone
def test_a_finished_run_translates_a_file_and_changes_nothing_else(run, trained, tmp_path):
    folder, _ = trained
    (tmp_path / "text.txt").write_text(TEXT)
    (folder / "translated.txt").unlink(missing_ok=True)
    before = files(folder)
    process = run(f"--workdir={folder}", f"--translate={tmp_path / 'text.txt'}")
    assert process.returncode == 0, process.stderr
    text = (folder / "translated.txt").read_text()
    lines = text.split("\n")
    assert len(lines) == 6 and lines[1] == lines[4] == lines[5] == ""
    assert lines[0] == "le chat voit un chien" and lines[2] and lines[3]
    assert len(lines[3].split()) < 8
    assert process.stdout == text
    for words in ("3 of 5 lines", "1 lines longer than --limit=8", "1 tokens were unknown"):
        assert process.stderr.count(words) == 1
    after = files(folder)
    del after[folder / "translated.txt"]
    assert after == before


@alone
def test_several_outputs_of_several_models_from_standard_input(run, trained, monkeypatch):
    folder, _ = trained
    stdin = io.TextIOWrapper(io.BytesIO(b"the cat sees a dog\n\na bird likes the cat\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    process = run(f"--workdir={folder}", "--translate=-", "--n_best=3", f"--ensemble={folder}")
    assert process.returncode == 0, process.stderr
    rows = [line.split("\t") for line in process.stdout.splitlines() if line]
    assert [row[0] for row in rows] == [*"111333"] and process.stdout.splitlines()[3] == ""
    assert [row[2] for row in rows[::3]] == ["le chat voit un chien", "un oiseau aime le chat"]
    for best in (rows[:3], rows[3:]):
        scores = [float(score) for _, score, _ in best]
        assert scores == sorted(scores, reverse=True) and scores[0] <= 0
        assert len({text for *_, text in best}) == 3


@alone
def test_translating_needs_a_finished_run_and_keeps_its_options(run, trained, tmp_path):
    folder, _ = trained
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    for workdir in ((), (f"--workdir={tmp_path}",)):
        assert_fails(run(f"--translate={text}", *workdir), "finished translation run", "train")
    other = run(f"--translate={text}", f"--workdir={folder}", "--hidden=32")
    assert_fails(other, "hidden", "cannot be changed")


@alone
def test_predict_answers_lines_with_translations_and_scores(run, trained, tmp_path):
    folder, _ = trained
    text, rows = tmp_path / "text.txt", tmp_path / "rows.csv"
    text.write_text(TEXT)
    process = run(f"--workdir={folder}", f"--predict={text}")
    found = [json.loads(line) for line in process.stdout.removesuffix("\n").split("\n")]
    assert [*found[0]] == ["input", "translation", "score"] and len(found) == 5
    assert found[0]["translation"] == "le chat voit un chien" and found[0]["score"] < 0
    assert found[1] == {"input": "", "translation": "", "score": 0}
    run(f"--workdir={folder}", f"--predict={text}", f"--predict_to={rows}", "--n_best=2")
    with rows.open(newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["input", "translation", "score", "translation_2", "score_2"]
    assert first[1] == "le chat voit un chien" and float(first[2]) >= float(first[4])


def test_a_loaded_run_translates_with_what_it_reported_or_the_mean_of_checkpoints(trained):
    folder, _ = trained
    loaded = dlcore.load(folder)
    assert loaded.step == 50 and loaded.info.longest == 6
    ((best,),) = loaded.predict(["the cat sees a dog"])
    assert best.text == "le chat voit un chien" and best.score < 0
    last = load_variables(folder / "checkpoints")["params"]
    jax.tree.map(np.testing.assert_array_equal, loaded.params, last)
    mean, steps = average_params(folder / "checkpoints", 2)
    assert len(steps) == 2
    averaged = dlcore.load(folder, average=2)
    jax.tree.map(np.testing.assert_array_equal, averaged.params, jax.device_get(mean))


def test_options_that_a_search_leaves_unread_are_set_back(corpus):
    before = config(corpus, normalise="gnmt", alpha=0.8)
    assert before.changed(normalise="none") == config(corpus, normalise="none")


def test_outputs_in_lower_case_are_right_where_the_references_are_in_title_case():
    """Neither the score nor the error analysis blames the model for the case."""
    outputs = ["the old man", "a cat"]
    found = types.SimpleNamespace(
        texts=[[text] for text in outputs], scores=np.zeros((2, 1)), log_probs=np.zeros((2, 1))
    )
    translator = types.SimpleNamespace(
        find=lambda *_: found, score=lambda *_: (-np.ones(2), -np.ones(2))
    )
    references, shares = ["The Old Man", "A dog"], {}
    for lower in (True, False):
        tested = translation.search.test(
            {"greedy": translator}, [], None, references, tokenizer="13a", lower=lower
        )
        shares[lower] = tested.metrics["exact_match"], tested.errors.shares["right"]
    assert shares == {True: (0.5, 0.5), False: (0, 0)}


@pytest.mark.parametrize(
    ("options", "tokenizer"),
    [({}, "zh"), ({"bleu_tokenizer": "char"}, "char"), ({"lower": True}, "zh")],
)
def test_bleu_counts_the_tokens_of_the_target_language(corpus, options, tokenizer):
    task = translation.Translation(config(corpus, **options))
    pairs = [("hello", "你好吗")]
    task.texts = ParallelText("pairs", ("source", "target"), pairs, [], pairs, 0)
    assert task.scoring() == {"tokenizer": tokenizer, "lower": options.get("lower", False)}


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(
            (
                "--model=transformer", "--heads=2", "--norm=layer", "--position=learned", "--bias",
                "--average=2", "--precision=bfloat16", "--ensemble={trained}",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "--copy", "--shared", "--level=bpe", "--limit=20", "--label_smoothing=0.1",
                "--reverse_source", "--normalise=gnmt", "--alpha=0.8", "--no_repeat=2",
                "--groups=3", "--diversity=0.3",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "--model=lstm", "--attention=none", "--bridge=copy", "--nobidirectional", "--notie",
                "--layers=2",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--attention=local_predictive", "--attention_window=2", "--validation=0.2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "--model=transformer", "--heads=2", "--kv_heads=1", "--position=alibi", "--qk_norm",
                "--nonorm_first", "--activation=swiglu", "--feed_forward=24", "--chunk=4",
            ),
            marks=pytest.mark.slow,
        ),
        # No output is possible: as many different tokens do not exist.
        pytest.param(
            ("--vocab_size=4", "--no_repeat=1", "--min_length=6"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_every_choice_passes_the_smoke_test(run, tmp_path, trained, flags):
    flags = [flag.format(trained=trained[0]) for flag in flags]
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path)
    assert np.isfinite(found["metrics"]["loss"])
    assert (tmp_path / "report" / "index.html").exists()
    assert ("mean of the parameters at the steps 1, 2" in process.stderr) == (
        "--average=2" in flags
    )


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--dropout=0",), marks=pytest.mark.slow),
        pytest.param(
            ("--model=transformer", "--heads=2", "--dropout=0"), marks=pytest.mark.slow
        ),
    ],
    ids=["gru", "transformer"],
)  # fmt: skip
def test_the_checks_pass(run, tmp_path, flags):
    process = run("--check", f"--workdir={tmp_path / 'run'}", *flags)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout
