"""Word vectors as a user makes them: learning, files, resuming, evaluation, and bad input."""

import json
import random
import signal
import sys
import time

import numpy as np
import pytest
from outcomes import assert_fails, summary

from dlcore.data.text import Vectors, read_vectors, write_vectors

KINDS = {"fruit": "apple pear plum cherry fig", "metal": "iron zinc lead copper tin"}
FRAMES = {"fruit": "eat a sweet {} now please", "metal": "melt the heavy {} bar here"}


def lines(count, seed=0):
    draw = random.Random(seed)
    kinds = (draw.choice([*KINDS]) for _ in range(count))
    return "".join(f"{FRAMES[kind].format(draw.choice(KINDS[kind].split()))}\n" for kind in kinds)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text(lines(4000))
    (folder / "similar.tsv").write_text(
        "word1\tword2\tscore\napple\tpear\t9\niron\tzinc\t8\napple\tzinc\t1\npear\tlead\t2\n"
    )
    (folder / "questions.txt").write_text(": things\napple pear iron zinc\nApple Pear Tin Gold\n")
    write_vectors(folder / "vectors", Vectors(["a", "b"], np.eye(2, dtype=np.float32)))
    (folder / "cut").write_bytes(b"2 3\na 1 2 3\nb 1 2\n")
    (folder / "empty.txt").write_text("")
    return folder


WORD2VEC = ["--batch_size=1024", "--subsample=0", "--validation=0.1"]
GLOVE = ["--model=glove"]


@pytest.fixture
def kind():
    return WORD2VEC


@pytest.fixture
def command(files, kind):
    return [
        sys.executable, "-m", "experiments.word_vectors", f"--data_path={files / 'text.txt'}",
        "--features=16", "--window=3", *kind,
    ]  # fmt: skip


def test_a_run_learns_and_leaves_its_files(run, files, tmp_path):
    process = run(
        "--epochs=8", "--eval_every=10", f"--workdir={tmp_path}", "--report", "--neighbours=fig",
        f"--similarities={files / 'similar.tsv'}", f"--analogies={files / 'questions.txt'}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = summary(tmp_path)
    # Those of one kind are more similar than a fruit and a metal, in whatever order else.
    assert found["metrics"]["similarity_similar"] > 0.59 and found["words_per_second"] > 0
    nearest = process.stdout.split("fig: ")[1].split("\n")[0]
    assert {word.split()[0] for word in nearest.split(", ")[:4]} == {*KINDS["fruit"].split()[:4]}
    vectors = read_vectors(tmp_path / "vectors.txt")
    assert len(vectors.words) == 20 and vectors.matrix.shape[1] == 16
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(word in page for word in ("Analogies", "Word similarity", "Neighbours"))
    losses = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) >= 8


@pytest.mark.parametrize(
    "flags",
    [
        ("--model=cbow_mean", "--original_gradient", "--format=word2vec_binary"),
        ("--model=skip_gram", "--objective=hierarchical", "--fixed_window"),
        ("--model=cbow_sum", "--objective=nce", "--phrases=1", "--phrase_threshold=1"),
        pytest.param(
            ("--objective=full", "--subsampling=paper", "--subsample=0.01"), marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_every_choice_passes_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    assert np.isfinite(list(summary(tmp_path)["metrics"].values())).all()


@pytest.mark.parametrize("kind", [GLOVE], ids=["glove"])
def test_glove_learns_from_counts(run, tmp_path):
    process = run(
        "--epochs=60", f"--workdir={tmp_path}", "--neighbours=fig", "--x_max=1000",
        "--combine=average",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["metrics"]["loss"] < 0.01
    assert "cells_per_second" in summary(tmp_path)
    nearest = process.stdout.split("fig: ")[1].split("\n")[0].split(", ")
    assert {word.split()[0] for word in nearest[:4]} == {*KINDS["fruit"].split()[:4]}


def test_unseen_words_are_made_of_their_parts(run, tmp_path):
    process = run(
        "--epochs=4", "--subwords", "--buckets=500", "--neighbours=apples", f"--workdir={tmp_path}"
    )
    assert process.returncode == 0, process.stderr
    nearest = process.stdout.split("apples: ")[1].split("\n")[0].split(", ")
    assert {word.split()[0] for word in nearest[:5]} == {*KINDS["fruit"].split()}
    assert "apples" not in read_vectors(tmp_path / "vectors.txt").words
    again = run("--epochs=4", "--neighbours=apples", f"--workdir={tmp_path / 'plain'}")
    assert_fails(again, "'apples'", "apple")


@pytest.mark.parametrize("kind", [WORD2VEC, GLOVE], ids=["word2vec", "glove"])
def test_a_killed_run_continues_bit_for_bit(run, start, tmp_path):
    flags = ("--steps=300", "--eval_every=50", "--checkpoint_every=20", "--log_every=10")
    whole = run(*flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    process = start(*flags, f"--workdir={killed}")
    while process.poll() is None and not list(killed.glob("checkpoints/[0-9]*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(*flags, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    for name in ("vectors.txt", "metrics.jsonl"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_tables_over_four_devices_learn_the_same(run, tmp_path):
    flags = ("--steps=6", "--log_every=1", "--checkpoint_every=0")
    layout = ("--layout=mesh", "--mesh=data=1,model=4", "--shard=input|output:model,-")
    losses = []
    for name, devices, more in (("one", 1, ()), ("four", 4, layout)):
        process = run(*flags, *more, f"--workdir={tmp_path / name}", devices=devices)
        assert process.returncode == 0, process.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == 7
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_any_file_is_evaluated_alone(run, files, tmp_path):
    process = run(f"--vectors={files / 'vectors'}", "--neighbours=a", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert "a: b 0.00" in process.stdout and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data_path={}/nowhere"], ("nowhere",)),
        (["--data_path={}/empty.txt"], ("empty.txt",)),
        (["--min_count=100000"], ("100000",)),
        (["--batch_size=100000"], ("hold out", "smaller batches")),
        (["--splitter=regex:("], ("regex:(",)),
        (["--optimizer=adam"], ("--optimizer",)),
        (["--model=glove"], ("--model=glove", "--subsample")),
        (["--x_max=10"], ("--model=skip_gram", "--x_max")),
        (["--model=skip_gram", "--original_gradient"], ("cbow_mean",)),
        (["--vectors={}/cut"], ("line 3", "expected 3 values")),
        (["--vectors={}/vectors", "--neighbours=c"], ("'c'",)),
        (["--analogies={}/nothing"], ("nothing",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line(run, files, tmp_path, flags, words):
    process = run(*(flag.format(files) for flag in flags), f"--workdir={tmp_path / 'run'}")
    assert_fails(process, *words)
    assert not (tmp_path / "run" / "vectors.txt").exists()
