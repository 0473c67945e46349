"""Language models as a user runs them: results, files, resuming, and clear lines for bad input."""

import json
import random
import signal
import sys
import time

import numpy as np
import pytest
from in_process import run_here
from outcomes import assert_fails, summary

import dlcore
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.launch.running import prepare
from dlcore.losses import balanced_tree, huffman
from dlcore.models.text import read_arpa
from dlcore.train.checkpoint import load_variables

SUBJECTS, VERBS = ("the cat", "a dog", "my aunt", "the old man"), ("sees", "hears", "likes")


def lines(count, seed=0):
    draw = random.Random(seed)
    choices = ((draw.choice(SUBJECTS), draw.choice(VERBS)) for _ in range(count))
    return "".join(f"{one} {verb} {draw.choice(SUBJECTS)} .\n" for one, verb in choices)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(lines(1500))
    return path


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def kind():
    """The flags that only one kind of model reads; recurrent ones by default."""
    return ["--embedding_size=16"]


@pytest.fixture
def job():
    return "language_model"


@pytest.fixture
def common_flags(data_dir, corpus, kind):
    return [
        f"--data_dir={data_dir}",
        f"--data_path={corpus}",
        "--hidden=32",
        *kind,
        "--layers=1",
        "--batch_size=8",
        "--window=12",
        "--warmup_steps=5",
        "--learning_rate=0.02",
        "--generate=12",
        "--vocab_size=100",
    ]


def test_a_run_learns_beside_the_ngrams_and_leaves_its_files(run, tmp_path):
    process = run("--steps=120", "--eval_every=60", f"--workdir={tmp_path}", "--report")
    assert process.returncode == 0, process.stderr
    assert "kneser_ney 5-gram: test loss" in process.stderr
    found = summary(tmp_path)
    metrics, counted = found["metrics"], found["ngram"]
    assert metrics["perplexity_per_token"] == pytest.approx(np.exp(metrics["loss"]))
    assert 1 < counted["perplexity_per_token"] < metrics["perplexity_per_token"] < 3.5
    assert "bits_per_character" not in metrics and found["tokens_per_second"] > 0
    names = [path.name for path in sorted((tmp_path / "samples").iterdir())]
    assert names == ["00000060.txt", "00000120.txt"]
    sample = (tmp_path / "samples" / names[-1]).read_text()
    assert set(sample.split()) <= set(lines(200).split())
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert {"gates.png", "distance.png"} <= pictures
    assert all(name in page for name in pictures) and "curve_loss.svg" in page
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    tags = ["command/text_summary", "sample/text_summary", "_hparams_/session_start_info"]
    tags += [name.removesuffix(".png") for name in pictures]
    assert [tag for tag in tags if tag.encode() not in events] == []
    assert sample.strip().splitlines()[0].encode() in events and b"--steps=120" in events


@pytest.mark.parametrize(
    "flags",
    [
        ("--model=gru", "--softmax=sampled", "--level=bpe", "--vocab_size=300"),
        *(
            pytest.param(flags, marks=pytest.mark.slow)
            for flags in (
                (
                    "--model=gru_after", "--accumulate=2", "--optimizer=muon", "--validation=0",
                    "--z_loss=1",
                ),
                ("--model=rnn", "--softmax=nce", "--samples=8", "--detach=4"),
                ("--model=highway", "--softmax=hierarchical", "--notie", "--level=char"),
                ("--model=irnn", "--layers=2", "--residual", "--variational"),
                ("--model=lstm_layer_norm", "--precision=bfloat16", "--candidate_dropout=0.1"),
            )
        ),
    ],
    ids=lambda flags: flags[0].removeprefix("--model="),
)  # fmt: skip
def test_every_choice_passes_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "report" / "index.html").exists()
    assert np.isfinite(summary(tmp_path)["metrics"]["loss"])


transformer = pytest.mark.parametrize(
    "kind", [["--model=transformer", "--heads=2"]], ids=["transformer"]
)


@transformer
def test_a_transformer_learns_writes_from_its_cache_and_shows_its_attention(run, tmp_path):
    process = run("--steps=80", "--layers=2", f"--workdir={tmp_path}", "--report")
    assert process.returncode == 0, process.stderr
    assert "kneser_ney 5-gram: test loss" in process.stderr
    found = summary(tmp_path)
    assert 1 < found["metrics"]["perplexity_per_token"] < 3.5
    sample = (tmp_path / "samples" / "00000080.txt").read_text()
    assert set(sample.split()) <= set(lines(200).split())
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    # Of two passages and two blocks, the mean of the heads and each of them.
    maps = {f"attention_{number}{kind}.png" for number in range(1, 5) for kind in ("", "_heads")}
    assert maps == pictures and all(name in page for name in pictures)

    again = run(
        "--steps=80", "--layers=2", f"--workdir={tmp_path}", "--prompt=my aunt", "--generate=40"
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("my aunt") and len(again.stdout.split()) > 30


@transformer
def test_a_line_of_as_many_tokens_as_learned_positions_is_scored(run, tmp_path):
    learned = ("--position=learned", "--generate=0", "--steps=2", "--warmup_steps=0")
    assert run(*learned, f"--workdir={tmp_path}").returncode == 0
    trained = dlcore.load(tmp_path)
    line = "the cat sees a dog . the cat sees a dog ."  # and its end: one more than the window
    with pytest.raises(InputError, match="a line of 13 tokens is longer than the --window=12"):
        trained.predict([line])
    scored = trained.predict([line[:-2], line[:-6]])
    assert [len(nats) for nats in scored] == [12, 11]
    # What comes after a token does not change it, so neither does padding.
    np.testing.assert_allclose(scored[0][:10], scored[1][:10], rtol=1e-5)


@transformer
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(
            (
                "--position=learned", "--generate=11", "--softmax=sampled", "--samples=8",
                "--norm=layer", "--bias", "--precision=bfloat16", "--min_p=0.1",
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "--position=alibi", "--kv_heads=1", "--chunk=5", "--nonorm_first",
                "--activation=swiglu", "--qk_norm", "--notie", "--softmax=hierarchical",
                "--level=char", "--order=0",
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["learned", "alibi"],
)  # fmt: skip
def test_transformers_pass_the_smoke_test(run, tmp_path, flags):
    process = run("--smoke", f"--workdir={tmp_path}", *flags)
    assert process.returncode == 0, process.stderr
    assert np.isfinite(summary(tmp_path)["metrics"]["loss"])
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    # In chunks the weights are never there at once.
    assert ("attention_1.png" in page) == ("--chunk=5" not in flags)


@pytest.fixture
def count(capfd, data_dir, corpus, tmp_path):
    """Runs an n-gram model, which reads few of the flags."""

    def count(*flags):
        common = [f"--data_dir={data_dir}", f"--data_path={corpus}", "--generate=12"]
        return run_here(capfd, "language_model", ["--model=ngram", *common, *flags])

    return count


def test_the_counted_model_alone(count, tmp_path):
    process = count("--order=3", "--level=char", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert "kneser_ney 3-gram" in process.stdout
    assert 0.2 < summary(tmp_path)["metrics"]["bits_per_character"] < 2
    assert (tmp_path / "samples").exists()
    assert count("--smoke", f"--workdir={tmp_path / 'smoke'}").returncode == 0


def test_the_counted_model_is_written_for_other_programs(count, tmp_path):
    path = tmp_path / "model.arpa"
    flags = ("--order=3", "--smoothing=katz", f"--arpa={path}")
    process = count(*flags, f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    model, words = read_arpa(path)
    assert len(model.orders) == 3 and words[:2] == ("<unk>", "<eos>") and "aunt" in words
    for flag, message in [
        ("--level=char", "cannot be a word of an ARPA file"),
        (f"--arpa={tmp_path / 'nowhere' / 'x'}", "cannot write --arpa="),
    ]:
        assert_fails(count(*flags, flag, f"--workdir={tmp_path / 'bad'}"), message)


def test_maximum_likelihood_of_an_impossible_text_is_infinite(count, tmp_path):
    process = count("--smoothing=mle", "--level=char", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["metrics"].keys() >= {"loss", "bits_per_character"}


@pytest.mark.parametrize(
    "flag",
    [
        "--layers=7",
        "--hidden=3",
        "--embedding_size=4",
        "--dropout=0.2",
        "--optimizer=sgd",
        "--learning_rate=1",
        "--schedule=cosine",
        "--warmup_steps=3",
        "--clip_norm=1",
        "--ema=0.9",
        "--softmax=nce",
        "--samples=3",
        "--notie",
        "--window=9",
        "--detach=2",
        "--batch_size=4",
        "--steps=9",
        "--eval_every=3",
        "--heads=2",
        "--residual",
        "--precision=bfloat16",
        "--check",
        "--plan",
        "--layout=mesh",
        "--mesh=data=2",
        "--report",
        "--patience=2",
        "--add_k=1",
    ],
)
def test_an_ngram_model_refuses_what_it_does_not_read(count, tmp_path, flag):
    name = flag.partition("=")[0].replace("--no", "--")
    assert_fails(count(flag, f"--workdir={tmp_path / 'run'}"), f"does not read {name}", "leave it")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("chosen", "flags"),
    [
        ("model=lstm", ("--heads=2", "--kv_heads=1", "--feed_forward=8", "--norm=layer")),
        ("model=lstm", ("--nonorm_first", "--activation=relu", "--position=alibi", "--qk_norm")),
        ("model=gru", ("--bias", "--chunk=4", "--remat=full")),
        (
            "model=transformer",
            ("--embedding_size=4", "--residual", "--variational", "--state_dropout=0.1"),
        ),
        ("model=transformer", ("--candidate_dropout=0.1", "--detach=4")),
        ("softmax=full", ("--samples=8",)),
        ("softmax=hierarchical", ("--samples=8", "--z_loss=1e-4")),
        ("order=0", ("--smoothing=mle",)),
        ("smoothing=kneser_ney", ("--add_k=1",)),
    ],
)
def test_a_flag_that_the_chosen_value_does_not_read_is_refused(capfd, tmp_path, chosen, flags):
    for flag in flags:
        process = run_here(
            capfd, "language_model", [f"--{chosen}", flag, f"--workdir={tmp_path / 'run'}"]
        )
        name = flag.partition("=")[0].replace("--nonorm_first", "--norm_first")
        assert_fails(process, f"--{chosen} does not read {name}; leave it out")
    assert not (tmp_path / "run").exists()


def test_a_counted_model_cannot_be_loaded_and_says_so(capfd, count, tmp_path):
    assert count("--order=2", f"--workdir={tmp_path}").returncode == 0
    with pytest.raises(InputError, match="counts are not kept"):
        dlcore.load(tmp_path)
    before = files(tmp_path)
    assert_fails(
        run_here(capfd, "language_model", [f"--workdir={tmp_path}", "--prompt=the"]),
        "counts are not kept; count again by the same command",
    )
    assert files(tmp_path) == before
    again = count("--order=2", f"--workdir={tmp_path}", "--prompt=my aunt")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "samples" / "00000000.txt").read_text().startswith("my aunt")


@pytest.mark.parametrize(
    ("devices", "layout"),
    [
        pytest.param(1, (), id="jit", marks=pytest.mark.slow),
        pytest.param(4, ("--layout=mesh", "--mesh=fsdp=4"), id="fsdp"),
        pytest.param(4, ("--layout=pmap",), id="pmap", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_continues_bit_for_bit(run, start, tmp_path, devices, layout):
    """The carry of the streams is in the checkpoint with all the rest."""
    flags = ("--steps=60", "--eval_every=20", "--checkpoint_every=7", "--log_every=5", *layout)
    # This process has four devices.
    whole = run(*flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    killed = tmp_path / "killed"
    process = start(*flags, f"--workdir={killed}", devices=devices)
    while process.poll() is None and not list(killed.glob("checkpoints/[0-9]*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(*flags, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    for name in ("metrics.jsonl", "samples/00000060.txt", "vocabulary.json"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = (
        load_variables(folder / "checkpoints")["params"] for folder in (killed, tmp_path / "whole")
    )
    assert ours.keys() == theirs.keys()


def test_a_finished_run_is_used_without_its_flags_and_left_alone(capfd, run, tmp_path):
    workdir = tmp_path / "run"
    assert run("--steps=20", f"--workdir={workdir}").returncode == 0
    before = files(workdir)

    def use(*flags):
        return run_here(capfd, "language_model", [f"--workdir={workdir}", *flags])

    process = use("--prompt=my aunt", "--generate=3")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("my aunt") and len(process.stdout.split()) <= 6
    alone = use("--generate=3", "--temperature=0")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith("\n") and len(alone.stdout.split()) <= 3
    assert_fails(use("--prompt=my aunt", "--hidden=33"), "hidden: 32 then, 33 now")

    (tmp_path / "lines.txt").write_text("the cat sees a dog .\n\n. . sees sees the the\n")
    process = use(f"--predict={tmp_path / 'lines.txt'}")
    assert process.returncode == 0, process.stderr
    likely, empty, unlikely = map(json.loads, process.stdout.splitlines())
    assert likely["perplexity"] < unlikely["perplexity"] and likely["tokens"] == 7
    assert empty["tokens"] == 1 and likely["log_probability"] < 0
    assert files(workdir) == before

    process = use("--prompt=my aunt", "--generate=3", "--report")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("my aunt") and summary(workdir)["step"] == 20
    assert (workdir / "report" / "index.html").exists()

    trained = dlcore.load(workdir)
    (nats,) = trained.predict(["the cat sees a dog ."])
    assert nats.sum() == pytest.approx(-likely["log_probability"], rel=1e-5)
    more = run("--steps=21", f"--workdir={workdir}", "--prompt=my aunt")
    assert "from step 20" in more.stderr and summary(workdir)["step"] == 21


def test_another_vocabulary_than_the_checkpoints_is_refused(run, tmp_path):
    assert run("--steps=2", f"--workdir={tmp_path}", "--warmup_steps=0").returncode == 0
    path = tmp_path / "vocabulary.json"
    content = path.read_text()
    path.write_text(content.replace('"cat"', '"cow"'))
    flags = ("--steps=2", f"--workdir={tmp_path}", "--warmup_steps=0")
    assert_fails(run(*flags), "not a whole vocabulary")
    path.unlink()
    assert_fails(run(*flags), "vocabulary.json is missing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ("holds no text",)),
        (b"one line alone", ("1 tokens are too few",)),
        (b"good\nbad \xff\nline\n", ("UTF-8", "line 2")),
        (b"a b\n" * 20, ("6 tokens", "batch size")),
    ],
    ids=["empty", "one line", "not UTF-8", "short"],
)
def test_bad_texts(run, tmp_path, text, words):
    path = tmp_path / "bad.txt"
    path.write_bytes(text)
    assert_fails(run(f"--data_path={path}", f"--workdir={tmp_path / 'run'}", "--steps=9"), *words)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--model=elman", ("elman", "lstm", "ngram")),
        ("--detach=50", ("detach", "window")),
        ("--softmax=hierarchical", ("--notie",)),
        ("--model=lstm_batch_norm", ("lstm_batch_norm", "stream")),
        ("--patience=3 --validation=0", ("--validation",)),
        ("--prompt=", ("--prompt",)),
        ("--top_p=2", ("--top_p=2.0 is not a number from 1e-06 to 1",)),
        ("--min_p=1.5", ("--min_p=1.5 is not a number from 1e-06 to 1",)),
        ("--top_p=0", ("--top_p=0.0 is not a number",)),
        ("--min_count=9999999", ("no token occurs 9,999,999 times",)),
        ("--heads=2", ("--model=lstm", "--heads")),
        ("--model=transformer", ("--model=transformer", "--embedding_size")),
    ],
)
def test_bad_flags(run, tmp_path, flag, words):
    assert_fails(run(*flag.split(), f"--workdir={tmp_path}", "--steps=9"), *words)


@transformer
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--detach=4", ("--model=transformer", "--detach")),
        ("--position=learned", ("--generate=12", "--window=12", "--position")),
        ("--position=absolute", ("'absolute'", "rotary")),
        ("--heads=5", ("5 heads", "32 features")),
    ],
)
def test_bad_flags_of_transformers(run, tmp_path, flag, words):
    assert_fails(run(flag, f"--workdir={tmp_path}", "--steps=9"), *words)


def test_the_checks_pass(run):
    process = run("--check", "--window=5")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout


def test_a_run_keeps_the_tree_that_it_began_with(run, tmp_path, monkeypatch):
    """Its rows mean nothing in another, which another machine, or other sums, may find."""
    flags = ("--softmax=hierarchical", "--notie", "--order=0", "--steps=6", f"--workdir={tmp_path}")
    process = run(*flags)
    assert process.returncode == 0, process.stderr
    path = tmp_path / "run.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    counts, order = (np.array(found["data"][name]) for name in ("counts", "order"))
    module = sys.modules[jobs.task_class("language_model").__module__]
    monkeypatch.delattr(module, "order_by_likeness")  # which takes long, and is not needed again
    # Runs of earlier versions have no order, but Huffman's tree.
    for kept, tree in (
        (order, balanced_tree(counts, order)),
        (order[::-1], balanced_tree(counts, order[::-1])),
        (None, huffman(counts)),
    ):
        found["data"]["order"] = None if kept is None else kept.tolist()
        path.write_text(json.dumps(found), encoding="utf-8")
        loaded = dlcore.load(tmp_path).task
        continued = type(loaded)(loaded.config)
        continued.workdir = tmp_path
        prepare(continued)
        for task in (loaded, continued):
            np.testing.assert_array_equal(task.model.output.tree.nodes, tree.nodes)
            np.testing.assert_array_equal(task.model.output.tree.codes, tree.codes)
