"""Translation as a user runs it: results, files, resuming."""

import random
import signal
import sys
import time

import jax
import numpy as np
import pytest
from outcomes import summary
from processes import finished

from dlcore.train.checkpoint import load_variables

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


def command_on(corpus):
    return [
        sys.executable, "-m", "experiments.translation", f"--data_path={corpus}", "--level=word",
        "--hidden=16", "--batch_size=16", "--limit=8", "--learning_rate=0.03", "--warmup_steps=5",
        "--beam=3",
    ]  # fmt: skip


@pytest.fixture
def command(corpus):
    return command_on(corpus)


# Further flags of the run that most tests look at, which therefore has many of the choices.
TRAINED = (
    "--steps=50", "--eval_every=25", "--checkpoint_every=6", "--log_every=5",
    "--attention=additive", "--coverage", "--input_feeding", "--coverage_penalty=0.1",
    "--batch_tokens=96", "--accumulate=2", "--scheduled_sampling=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The folder of a finished run, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    process = finished([*command_on(corpus), *TRAINED, f"--workdir={folder}", "--report"])
    return folder, process.stderr


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
    page = (folder / "report" / "index.html").read_text()
    for title in ("Translation scores", "BLEU by length", "Error analysis", "Samples", "Attention"):
        assert title in page
    pictures = {path.name for path in (folder / "report").glob("*.png")}
    assert {"curves.png", "bleu_by_length.png", "attention_1.png", "attention_4.png"} <= pictures
    assert all(name in page for name in pictures)


def test_kill_9_and_resume_is_bit_for_bit(run, start, trained, tmp_path):
    process = start(*TRAINED, f"--workdir={tmp_path}")
    # A second one begins when the first is whole.
    while process.poll() is None and len(list(tmp_path.glob("checkpoints/[0-9]*"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "summary.json").exists()
    again = run(*TRAINED, f"--workdir={tmp_path}")
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


@pytest.fixture(scope="module")
def translate(trained, corpus, tmp_path_factory):
    """Translates a text with the finished run and further flags; gives what was written and said.

    An ordinary line, an empty one, one of unknown words and one longer than --limit.
    """
    folder, _ = trained
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the cat sees a dog\n\nzebra likes \u2028 the bird\n" + "a dog " * 9 + "\n \n")

    def translate(*flags):
        process = finished(
            [*command_on(corpus), *TRAINED, f"--workdir={folder}", f"--translate={path}", *flags]
        )
        return (folder / "translated.txt").read_text(), process.stderr

    return translate


def test_a_finished_run_translates_a_file_and_with_itself_the_same(translate, trained):
    folder, _ = trained
    before = (folder / "summary.json").read_bytes()
    text, said = translate()
    lines = text.split("\n")
    assert len(lines) == 6 and lines[1] == lines[4] == lines[5] == ""
    assert lines[0] == "le chat voit un chien" and lines[2] and lines[3]
    assert len(lines[3].split()) < 8
    assert "3 of 5 lines" in said and "1 lines longer than --limit=8" in said
    assert "1 tokens were unknown" in said

    several, _ = translate("--n_best=3", f"--ensemble={folder}")
    rows = [line.split("\t") for line in several.splitlines() if line]
    assert [row[0] for row in rows] == [*"111333444"]
    assert several.splitlines()[3] == ""
    assert [row[2] for row in rows[::3]] == [lines[0], lines[2], lines[3]]
    for best in (rows[:3], rows[3:6], rows[6:]):
        scores = [float(score) for _, score, _ in best]
        assert scores == sorted(scores, reverse=True) and scores[0] <= 0
        assert len({text for *_, text in best}) == 3
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    "flags",
    [
        (
            "--model=transformer", "--heads=2", "--norm=layer", "--position=learned", "--bias",
            "--average=2", "--precision=bfloat16", "--ensemble={trained}",
        ),
        pytest.param(
            (
                "--copy", "--shared", "--level=bpe", "--limit=20", "--label_smoothing=0.1",
                "--reverse_source", "--normalise=gnmt", "--alpha=0.8", "--no_repeat=2",
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
        ("--dropout=0",),
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
