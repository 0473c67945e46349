"""Captions of tiny pictures of squares: results, files, refusals, resuming."""

import contextlib
import io
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from in_process import run_here
from PIL import Image

import dlcore
from dlcore import launch, runtime
from dlcore.check.layers import layer_table
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.launch.task import make_state
from dlcore.losses import doubly_stochastic
from dlcore.models.text.prediction import nats
from dlcore.train import guard

captioning = jobs.module("captioning")


def write_squares(folder: pathlib.Path) -> pathlib.Path:
    """Writes pictures of a bright or dim square somewhere, with two captions each, in two parts."""
    draw = np.random.default_rng(0)
    for part, numbers in (("train", range(40)), ("test", range(40, 56))):
        lines = []
        for number in numbers:
            up, left, bright = (bool(bit) for bit in draw.integers(0, 2, 3))
            picture = np.zeros((16, 16), np.uint8)
            top, start = draw.integers(0, 4, 2) + (0 if up else 8, 0 if left else 8)
            picture[top : top + 5, start : start + 5] = 230 if bright else 90
            Image.fromarray(picture).save(folder / f"{number}.png")
            place = f"square {'top' if up else 'bottom'} {'left' if left else 'right'}"
            caption = f"{'bright' if bright else 'dim'} {place}"
            lines += [f"{number}.png#0\t{caption}", f"{number}.png#1\t{place}"]
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


def options(table: pathlib.Path, **more: Any) -> dict[str, Any]:
    return {
        "data_path": str(table), "body": "strided_cnn", "option": ("filters=[8,16]",),
        "hidden": 16, "embedding_size": 16, "batch_size": 16, "dropout": 0.0, "beam": 2,
        "augment": "none", "warmup_steps": 2, "learning_rate": 0.02, **more,
    }  # fmt: skip


def task_of(table: pathlib.Path, **more: Any) -> tuple[Any, Any]:
    task = captioning.Captioning(captioning.Config(**options(table, **more)))
    return task, task.data()


@pytest.fixture(scope="module")
def trained(
    squares: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, str]:
    """The folder of a finished run, and what it said."""
    folder, said = tmp_path_factory.mktemp("trained"), io.StringIO()
    config = captioning.Config(
        **options(squares, steps=60, eval_every=30, workdir=str(folder), report=True, n_best=2)
    )
    with contextlib.redirect_stderr(said):
        launch.run(captioning.Captioning(config))
    return folder, said.getvalue()


def test_a_run_learns_and_leaves_its_files(trained: tuple[pathlib.Path, str]) -> None:
    folder, said = trained
    metrics = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
    assert metrics["loss"] < 1.2  # The order of two captions is no better than a guess.
    assert metrics["exact_match"] > 0.5 and metrics["nearest_chrf"] > 30
    header, *rows = (folder / "test.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "references\toutput\tnearest picture's"
    exact = np.mean([output in references.split(" | ") for references, output, _ in map(
        lambda row: row.split("\t"), rows)])  # fmt: skip
    assert metrics["exact_match"] == exact
    assert "beam 2:\nBLEU" in said and "nearest picture:\nBLEU" in said
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("captions.png", "worst_captions.png", "look_1.png"):
        assert name in page and (folder / "report" / name).stat().st_size > 1000


def test_a_trained_run_writes_captions_of_files(
    trained: tuple[pathlib.Path, str],
    squares: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    found = run_here(capfd, "captioning", [f"--workdir={folder}", f"--predict={squares / '0.png'}"])
    assert found.returncode == 0, found.stderr
    (row,) = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(row["n_best"]) == 2 and row["caption"] == row["n_best"][0]["caption"]
    run = dlcore.load(folder)
    files = [squares / f"{number}.png" for number in range(3)]
    together = run.predict(files)
    alone = [run.predict([file])[0] for file in files]
    for some, other in zip(together, alone, strict=True):
        assert [caption.text for caption in some] == [caption.text for caption in other]
        np.testing.assert_allclose([c.score for c in some], [c.score for c in other], atol=1e-5)
    assert [c.text for c in together[0]] == [best["caption"] for best in row["n_best"]]
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("model", ["attention", "transformer"])
def test_a_killed_run_goes_on_bit_for_bit(
    squares: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    model: str,
) -> None:
    config = captioning.Config(**options(squares, model=model, embedding_size=128, dropout=0.1)
                               | {"augment": "crop:1"})  # fmt: skip
    flags = [*config.lines(), "--schedule=constant", "--eval_every=0"]
    for folder, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        at = f"--workdir={tmp_path / folder}"
        found = run_here(capfd, "captioning", [*flags, f"--steps={steps}", at])
        assert found.returncode == 0, found.stderr
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


@pytest.mark.slow
def test_layouts_and_accumulation_agree(squares: pathlib.Path) -> None:
    found = {}
    for name, accumulate in (("jit", 1), ("pmap", 1), ("jit", 2)):
        task, data = task_of(
            squares, accumulate=accumulate, dropout=0.2, augment="crop:1", doubly_stochastic=0.1
        )
        layout = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), layout)
        state = layout.initialise(lambda task=task: make_state(task))
        state, metrics = compiled(state, next(data.train(0)))
        found[name, accumulate] = float(metrics["loss"].compute())
    assert found["pmap", 1] == pytest.approx(found["jit", 1], rel=1e-5)
    assert found["jit", 2] == pytest.approx(found["jit", 1], rel=1e-5)


def test_the_penalty_is_a_share_of_each_captions_loss(squares: pathlib.Path) -> None:
    task, data = task_of(squares, doubly_stochastic=0.5, label_smoothing=0.0)
    variables = jax.jit(task.init)(jax.random.key(0))
    batch = next(data.train(0))
    total, _ = jax.jit(task.loss)(variables["params"], {}, batch, jax.random.key(1))
    prediction, activations = jax.jit(
        lambda: task.model.apply(variables, task.scaled(variables, batch["image"]), batch["inputs"])
    )()
    real = np.arange(batch["targets"].shape[1]) < batch["target_length"][:, None]
    penalty = doubly_stochastic(activations["attention"][:, 0], jnp.asarray(real))
    losses = np.where(real, nats(prediction, batch["targets"]), 0).sum(1) + 0.5 * penalty
    assert float(total.compute()) == pytest.approx(float(losses.sum()) / real.sum(), rel=1e-5)


def test_long_captions_are_counted(
    squares: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, data = task_of(squares, limit=4)
    assert task.info.longest == 4  # three words and the end
    said = capsys.readouterr().err
    assert "longer than --limit=4 tokens: 40 left out of training and 16 cut for the test" in said
    assert max(batch["targets"].shape[1] for batch in data.test()) == 4


def test_batches_of_training_mix_short_and_long_captions(squares: pathlib.Path) -> None:
    # Else the statistics of a batch, by which the body normalises, would tell the length.
    _, data = task_of(squares)
    stream = data.train(0)
    for _ in range(10):
        assert {*next(stream)["target_length"].tolist()} == {4, 5}


def test_nearest_captions() -> None:
    def part(*values: int) -> Any:
        images = np.stack([np.full((2, 2, 1), value, np.uint8) for value in values])
        names = tuple((f"of {value}", "another") for value in values)
        return captioning.Captioned(captioning.Arrays({"image": images}), names)

    data = captioning.CaptionData("squares", part(0, 200, 90), None, part(95, 255, 10), (2, 2, 1))
    assert captioning.nearest_captions(data) == ["of 90", "of 200", "of 0"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stride": 8}, "strided_cnn has no map of stride 8 .* it has maps of stride 2, 4"),
        ({"body": "mlp", "option": ()}, "mlp has no map of stride 4 .* choose a convolutional net"),
        ({"option": ("filter=1",)}, "unknown option of strided_cnn 'filter'"),
        ({"limit": 2}, "all 80 captions are longer than --limit=2 tokens; raise it"),
        ({"max_length": 99}, "--max_length=99 is more than --limit=40"),
        ({"augment": "mixup:0.2"}, "augmentation 'mixup:0.2': mixup mixes several pictures"),
        ({"n_best": 3}, "3 hypotheses cannot come out of a beam of width 2"),
        ({"model": "lstm", "gate": False}, "--model=lstm does not read --gate"),
        ({"heads": 2}, "--model=attention does not read --heads"),
        ({"data_path": "nowhere.tsv"}, "nowhere.tsv' does not exist"),
    ],
)
def test_refusals(squares: pathlib.Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        task_of(squares, **given)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["attention", "lstm", "transformer"])
def test_smoke(
    squares: pathlib.Path, capfd: pytest.CaptureFixture[str], tmp_path: pathlib.Path, model: str
) -> None:
    size = {"embedding_size": 128} if model == "transformer" else {}
    given = captioning.Config(**options(squares, model=model, **size)).lines()
    found = run_here(capfd, "captioning", [*given, "--smoke", f"--workdir={tmp_path}"])
    assert found.returncode == 0, found.stderr
    looked = (tmp_path / "report" / "look_1.png").exists()
    assert looked == (model != "lstm")


@pytest.mark.parametrize("model", captioning.MODELS)
def test_the_check_finds_every_parameter(squares: pathlib.Path, model: str) -> None:
    size = {"embedding_size": 128} if model == "transformer" else {}
    task, data = task_of(squares, model=model, **size)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
    rows = layer_table(task.checks(data).forward, variables, image)
    assert [row.path for row in rows if row.operation == "unused"] == []
