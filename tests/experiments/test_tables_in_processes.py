"""Jobs that learn tables of words in two processes, and one run that is killed and goes on."""

import os
import random
import signal

import pytest
from runs_in_processes import fingerprints, finished, reports, same, start, wait_for, worker

LINES, EACH = 2000, 8  # sentences, and words of each
COMMON = ("--features=8", "--window=3", "--log_every=1", "--checkpoint_every=2", "--layout=mesh")
# 518 words with their margins, which four devices do not divide, in micro-batches of 256.
WORD2VEC = (
    "--batch_size=512", "--micro_batch=256", "--subsample=0", "--validation=0.1", "--steps=12",
    "--eval_every=6",
)  # fmt: skip
KINDS = {"word2vec": WORD2VEC, "glove": ("--model=glove", "--steps=40", "--eval_every=20")}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of words that follow one another by chance, the first ones often."""
    draw, words = random.Random(0), [f"word{number}" for number in range(300)]
    weights = [1 / (1 + number) for number in range(len(words))]
    lines = (" ".join(draw.choices(words, weights, k=EACH)) for _ in range(LINES))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(kind, text, tmp_path):
    flags = (*COMMON, *KINDS[kind], f"--data_path={text}")
    two, one = tmp_path / "two", tmp_path / "one"
    finished("word_vectors", *flags, f"--workdir={one}", devices=2)
    output = finished("word_vectors", *flags, f"--workdir={two}", processes=2, devices=1)
    assert output.count("word_vectors: test") == 1
    steps = reports(one)[-1]["step"]
    assert fingerprints(two, steps) == fingerprints(one, steps)  # the same tables bit for bit
    same(reports(two), reports(one))
    # The same command in one process writes what several do not.
    finished("word_vectors", *flags, f"--workdir={two}", devices=2)
    assert (two / "vectors.txt").read_bytes() == (one / "vectors.txt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_of_two_processes_goes_on_bit_for_bit(kind, text, tmp_path):
    steps = 400
    flags = (*COMMON, *KINDS[kind], f"--data_path={text}", f"--steps={steps}", "--log_every=10")
    flags = (*flags, "--checkpoint_every=20", "--eval_every=200")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished("word_vectors", *flags, f"--workdir={whole}", processes=2, devices=1)
    process = start("word_vectors", *flags, f"--workdir={killed}", processes=2, devices=1)
    wait_for(killed, 40)
    os.kill(worker(killed, 1), signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode != 0
    assert not (killed / "summary.json").exists()
    finished("word_vectors", *flags, f"--workdir={killed}", processes=2, devices=1)
    assert fingerprints(killed, steps) == fingerprints(whole, steps)
    assert reports(killed) == reports(whole)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pv_dm", "sif"])
def test_vectors_of_sentences_are_learnt_in_two_processes(model, tmp_path):
    flags = (f"--model={model}", "--smoke", "--layout=mesh")
    finished("sentence_vectors", *flags, f"--workdir={tmp_path / 'one'}", devices=2)
    finished("sentence_vectors", *flags, f"--workdir={tmp_path / 'two'}", processes=2, devices=1)
    same(reports(tmp_path / "two"), reports(tmp_path / "one"))
