"""The job of trees: runs, what it says, files of its own, and bad input."""

import json

import numpy as np
import pytest
from in_process import run_here

import dlcore

SMALL = ["--hidden=8", "--batch_size=8", "--warmup_steps=0", "--checkpoint_every=4"]
WORDS = {"good": 2, "fine": 2, "so": 1, "bad": 0, "poor": 0}


def treebank(path, count=60, seed=0):
    """Trees whose label is the mean of their words' labels, rounded down."""
    rng = np.random.default_rng(seed)

    def node(depth):
        if depth == 0 or rng.random() < 0.2:
            word = str(rng.choice([*WORDS]))
            return f"({WORDS[word]} {word})", WORDS[word]
        (left, a), (right, b) = node(depth - 1), node(depth - 1)
        return f"({(a + b) // 2} {left} {right})", (a + b) // 2

    lines = [node(1 + n % 4)[0] for n in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    treebank(folder / "train.txt")
    treebank(folder / "dev.txt", 20, seed=1)
    return folder


def trees(capfd, *arguments):
    process = run_here(capfd, "trees", arguments)
    assert process.returncode == 0, process.stderr
    return process


def refused(capfd, *arguments):
    process = run_here(capfd, "trees", arguments)
    assert process.returncode == 2, process.stderr
    line = process.stderr.strip().split("\n")[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nary", "rntn", "greedy_autoencoder", "recursive", "child_sum"])
def test_each_model_passes_the_smoke_test(capfd, bank, tmp_path, model):
    run = trees(
        capfd,
        f"--data_path={bank}",
        f"--model={model}",
        "--smoke",
        f"--workdir={tmp_path}",
        "--groups=0,2",
        *SMALL,
    )
    assert "a bag of words has" in run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert {"accuracy", "group_accuracy", "loss"} <= summary["metrics"].keys()
    assert 0 <= summary["bag_of_words_accuracy"] <= 1
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert {"confusion.png", "heights.png", "tree_1.png"} <= pictures
    if model == "greedy_autoencoder":
        assert run.stderr.count("found: (") == 3


@pytest.mark.slow  # its first use reads the standard library
def test_the_embedded_default_passes_the_smoke_test(capfd, data_dir, tmp_path):
    trees(capfd, "--smoke", f"--data_dir={data_dir}", f"--workdir={tmp_path}")


@pytest.fixture(scope="module")
def trained(bank, tmp_path_factory):
    from dlcore import launch
    from experiments.trees import Config, TreeNetworks

    workdir = tmp_path_factory.mktemp("run")
    config = Config(
        data_path=str(bank),
        workdir=str(workdir),
        steps=120,
        hidden=16,
        embedding_size=16,
        batch_size=16,
        learning_rate=0.02,
        eval_every=0,
        dropout=0.0,
    )
    outcome = launch.run(TreeNetworks(config))
    return workdir, outcome


def test_it_learns_and_answers(capfd, trained, tmp_path):
    workdir, outcome = trained
    assert outcome.metrics["node_accuracy"] > 0.9
    file = tmp_path / "new.txt"
    file.write_text("(_ (good) (_ (bad) (poor)))\n(2 fine)\n(_ so so so)\n", encoding="utf-8")
    run = trees(capfd, f"--workdir={workdir}", f"--predict={file}", "--nodes", "--top=2")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [len(row["top"]) for row in rows] == [2, 2, 2] and rows[1]["class"] == "2"
    assert rows[0]["tree"].split()[1:] == ["(2", "good)", "(0", "(0", "bad)", "(0", "poor)))"]
    assert rows[2]["tree"].startswith(f"({rows[2]['class']} (")
    found = dlcore.load(str(workdir)).predict(["(_ (good) (_ (bad) (poor)))", "(2 fine)"])
    np.testing.assert_allclose(found[0].probabilities[0].max(), rows[0]["probability"], atol=1e-6)
    for line, message in (
        ("(2 fine", "column 1 opens a bracket"),
        ("(2 a) (2 b)", "has 2 trees"),
        ("", "has 0 trees"),
    ):
        file.write_text(f"(2 so)\n{line}\n(2 so)\n", encoding="utf-8")
        assert message in refused(capfd, f"--workdir={workdir}", f"--predict={file}")


def test_a_very_deep_tree_is_answered(capfd, trained, tmp_path):
    workdir, _ = trained
    (tmp_path / "deep.txt").write_text("(_ " * 2_000 + "good" + " bad)" * 2_000, encoding="utf-8")
    run = trees(capfd, f"--workdir={workdir}", f"--predict={tmp_path / 'deep.txt'}")
    assert json.loads(run.stdout)["class"] in "012"


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(capfd, bank, tmp_path):
    options = [f"--data_path={bank}", *SMALL, "--embedding_dropout=0.2", "--schedule=constant"]
    trees(capfd, *options, "--steps=8", f"--workdir={tmp_path / 'once'}")
    trees(capfd, *options, "--steps=4", f"--workdir={tmp_path / 'twice'}")
    trees(capfd, *options, "--steps=8", f"--workdir={tmp_path / 'twice'}", "--resume=must")
    once, twice = (
        json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8"))["metrics"]
        for name in ("once", "twice")
    )
    assert once == twice


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--accumulate=4"], marks=pytest.mark.slow),
        pytest.param(["--layout=mesh"], marks=pytest.mark.slow),
        pytest.param(["--layout=pmap"], marks=pytest.mark.slow),
    ],
)
def test_layouts_and_accumulation_change_nothing(capfd, bank, tmp_path, options):
    common = [f"--data_path={bank}", *SMALL, "--steps=3", "--dropout=0.3", "--groups=0,2"]
    results = []
    for name, more in (("plain", []), ("other", options)):
        trees(capfd, *common, *more, f"--workdir={tmp_path / name}")
        text = (tmp_path / name / "summary.json").read_text(encoding="utf-8")
        results.append(json.loads(text)["metrics"])
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert value == pytest.approx(results[1][name], abs=1e-5), name


def conllu(path, label=True):
    rows = []
    for n in range(12):
        head = f"# label = {'good' if n % 2 else 'bad'}\n" if label else ""
        rows.append(
            head
            + f"1\t{'fine' if n % 2 else 'poor'}\t_\t_\t_\t_\t2\tamod\t_\t_\n"
            + "2\tfilm\t_\t_\t_\t_\t0\troot\t_\t_\n"
            + "3\tso\t_\t_\t_\t_\t2\tadvmod\t_\t_\n"
            + "4\t.\t_\t_\t_\t_\t2\tpunct\t_\t_\n"
        )
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_dependency_trees(capfd, tmp_path):
    file = conllu(tmp_path / "trees.conllu")
    options = [f"--data_path={file}", *SMALL, "--steps=20", "--learning_rate=0.05"]
    trees(capfd, *options, "--model=child_sum", f"--workdir={tmp_path / 'run'}", "--report")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["accuracy"] == 1
    run = trees(
        capfd, f"--workdir={tmp_path / 'run'}", f"--predict={conllu(file, False)}", "--nodes"
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["class"] for row in rows] == 6 * ["bad", "good"]
    assert rows[0]["tree"].startswith("poor/")
    message = refused(capfd, *options, "--model=rntn", f"--workdir={tmp_path / 'no'}")
    assert "choose --model=child_sum or --model=nary" in message


@pytest.mark.slow
def test_dependency_trees_become_binary_ones(capfd, tmp_path):
    file = conllu(tmp_path / "trees.conllu")
    options = [f"--data_path={file}", *SMALL, "--steps=2", "--model=nary"]
    trees(capfd, *options, f"--workdir={tmp_path / 'run'}")


def test_bad_input_is_one_clear_line(capfd, bank, tmp_path):
    data, work = f"--data_path={bank}", f"--workdir={tmp_path / 'run'}"
    assert "unknown label in --groups '7'" in refused(capfd, data, work, "--groups=0,7")
    assert "are not two groups" in refused(capfd, data, work, "--groups=0+1")
    assert "are not two groups" in refused(capfd, data, work, "--groups=0+1,1+2")
    assert "does not read --supervise" in refused(
        capfd, data, work, "--model=greedy_autoencoder", "--supervise=root"
    )
    assert "does not read --embedding_size" in refused(
        capfd, data, work, "--model=rntn", "--embedding_size=8"
    )
    file = tmp_path / "bad.txt"
    file.write_text("(1 (0 a) (1 b)\n(0 c)\n", encoding="utf-8")
    assert "line 1, column 1, of" in refused(capfd, f"--data_path={file}", work)
    file.write_text("", encoding="utf-8")
    assert "holds no text" in refused(capfd, f"--data_path={file}", work)
    assert "does not exist" in refused(capfd, f"--data_path={tmp_path / 'none'}", work)
