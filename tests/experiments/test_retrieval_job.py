"""The job retrieval: runs on pictures with captions, its metrics, its uses, and what it refuses."""

import csv
import dataclasses
import json

import jax
import networks
import numpy as np
import pytest
from in_process import run_here
from outcomes import assert_fails
from PIL import Image

import dlcore
from dlcore import launch, runtime
from dlcore.data.captions import Captioned
from dlcore.data.sources import Arrays
from dlcore.data.text import Vocabulary
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.launch.task import make_state
from dlcore.train import guard
from experiments.retrieval.pairs import Pairs, Setting, padded, scores_of

JOB = jobs.task_class("retrieval")
CONFIG, _ = JOB.parts()
SIDE = 6
PLACES = {(y, x): f"{row} {column}" for y, row in enumerate(("top", "bottom"))
          for x, column in enumerate(("left", "right"))}  # fmt: skip
SHADES = ("black", "dark", "grey", "light", "white")
SMALL = {"model": "mlp", "option": ("features=[64]",), "embedding": 16, "hidden": 16}
SMALL |= {"embedding_size": 8, "batch_size": 16, "warmup_steps": 0, "augment": "none"}
FLAGS = ["--model=mlp", "--option=features=[64]", "--embedding=16", "--hidden=16",
         "--embedding_size=8", "--batch_size=16", "--warmup_steps=0", "--augment=none"]  # fmt: skip


def draw(folder, parts):
    """Writes squares in corners of striped pictures, and a table of two captions of each."""
    rng, folder = np.random.default_rng(0), folder / "squares"
    folder.mkdir()
    for part, count in parts.items():
        rows = []
        for number in range(count):
            (y, x), shade = [*PLACES][number % 4], number // 4 % len(SHADES)
            pixels = rng.integers(85, 100, (SIDE, SIDE))
            pixels[3 * y : 3 * y + 3, 3 * x : 3 * x + 3] = 60 * shade
            name = f"{part}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.append((name, f"a {SHADES[shade]} square at the {PLACES[y, x]}"))
            rows.append((name, f"{PLACES[y, x]} {SHADES[shade]}"))
        lines = "".join(f"{name}\t{caption}\n" for name, caption in rows)
        (folder / f"{part}.tsv").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"), {"train": 120, "test": 20})


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """The outcome and the folder of a run."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=300, log_every=50, eval_every=150, learning_rate=1e-2, dropout=0.0, report=True,
        data_path=str(squares), workdir=str(folder), **SMALL,
    )  # fmt: skip
    return launch.run(JOB(config)), folder


def task_of(squares, **options):
    task = JOB(CONFIG(**{"data_path": str(squares), **SMALL, **options}))
    return task, task.data()


def test_what_it_reports(trained):
    outcome, folder = trained
    names = {"recall_sum"} | {
        f"{way}_{name}"
        for way in ("image_to_text", "text_to_image")
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
    }
    assert {*outcome.metrics} == names | {f"baseline_{name}" for name in names}
    assert outcome.metrics["image_to_text_recall_at_1"] >= 0.8
    assert outcome.metrics["text_to_image_recall_at_1"] >= 0.8
    lines = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    train = [line for line in lines if line["split"] == "train"]
    assert train[-1]["loss"] < train[0]["loss"]
    assert train[-1]["similarity"] > train[-1]["negative_similarity"] + 0.3
    assert 1 < train[-1]["scale"] <= 100
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("recall", "texts", "last_texts", "pictures", "last_pictures"):
        assert f"{name}.png" in page and (folder / "report" / f"{name}.png").stat().st_size > 1000


def test_its_metrics_are_those_of_all_pairs_by_brute_force(trained, squares):
    outcome, folder = trained
    run = dlcore.load(folder)
    with (squares / "test.tsv").open(encoding="utf-8") as file:
        rows = [*csv.reader(file, delimiter="\t")]
    names, texts = (sorted({row[column] for row in rows}) for column in (0, 1))
    pictures = run.predict([str(squares / name) for name in names])
    assert pictures.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(pictures, axis=1), 1, rtol=1e-5)
    captions = run.task.embed_texts(run.variables, texts)
    cosines = pictures.astype(float) @ captions.T
    own = {(names.index(name), texts.index(caption)) for name, caption in rows}
    is_own = np.array([[(p, c) in own for c in range(len(texts))] for p in range(len(names))])
    assert outcome.metrics["image_to_text_recall_at_1"] == pytest.approx(
        np.mean([is_own[p, cosines[p].argmax()] for p in range(len(names))])
    )
    assert outcome.metrics["text_to_image_recall_at_1"] == pytest.approx(
        np.mean([is_own[cosines[:, c].argmax(), c] for c in range(len(texts))])
    )


def test_a_text_has_one_embedding_alone_in_company_and_padded(trained):
    run = dlcore.load(trained[1])
    texts = ["white", "a white square at the top left", "unheard of"]
    together = run.task.embed_texts(run.variables, texts)
    for text, found in zip(texts, together, strict=True):
        alone = run.task.embed_texts(run.variables, [text])[0]
        np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-6)
    tokens, lengths = padded(["white"], run.info.vocabulary, 32)
    wide = np.pad(tokens, ((0, 0), (0, 9)))
    apply = jax.jit(lambda *text: run.task.net.apply(run.variables, *text, method="of_texts")[0])
    np.testing.assert_allclose(apply(wide, lengths), apply(tokens, lengths), rtol=1e-4, atol=1e-6)


TOWERS = [("recurrent", "last"), ("transformer", "attention"), ("bag", "mean"), ("bag", "max")]
MORE = [("recurrent", "mean"), ("recurrent", "max"), ("recurrent", "attention")]
MORE += [("transformer", "last"), ("transformer", "mean"), ("transformer", "max")]
MORE += [("bag", "attention")]


@pytest.mark.parametrize(
    ("tower", "pooling"),
    [*TOWERS, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE)],
)
def test_padding_changes_no_text_in_any_tower(squares, tower, pooling):
    given = {"text_tower": tower, "pooling": pooling}
    if tower == "bag":
        given["hidden"] = CONFIG().hidden
    if tower == "transformer":
        given |= {"embedding_size": CONFIG().embedding_size}
    task, data = task_of(squares, **given)
    variables = jax.jit(task.init)(jax.random.key(0))
    batch = next(data.train(0))
    apply = jax.jit(lambda *text: task.net.apply(variables, *text, method="of_texts")[0])
    found = apply(batch["tokens"], batch["length"])
    wide = np.pad(batch["tokens"], ((0, 0), (0, 5)), constant_values=7)
    np.testing.assert_allclose(apply(wide, batch["length"]), found, rtol=1e-4, atol=1e-5)


# The losses of pairs alone agree in tests/losses/test_matching.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "layout"),
    [("infonce", "pmap"), ("infonce", "mesh"), ("vse++", "pmap"), ("vse++", "mesh")],
)
def test_layouts_agree(squares, loss, layout):
    found = {}
    for name in ("jit", layout):
        task, data = task_of(squares, loss=loss, text_tower="bag", hidden=128)
        where = runtime.layout(name)
        compiled = runtime.compile_step(guard(task.step()), where)
        state = where.initialise(lambda task=task: make_state(task))
        state, metrics = compiled(state, next(data.train(0)))
        found[name] = state, {key: float(mean.compute()) for key, mean in metrics.items()}
    assert found[layout][1] == pytest.approx(found["jit"][1], rel=1e-4)
    networks.assert_close(found[layout][0].params, found["jit"][0].params, tolerance=1e-4)


def test_pairs_that_share_a_picture_or_a_caption_are_no_negatives(squares):
    """The batch says so by the numbers of both."""
    task, _ = task_of(squares)
    pairs = task.splits["train"]
    assert len(pairs) == 240
    batch = pairs.gather(np.arange(240))
    texts = [task.info.vocabulary.decode(row[row > 0].tolist()) for row in batch["tokens"]]
    same = np.array(texts)[:, None] == np.array(texts)[None]
    np.testing.assert_array_equal(same, batch["caption"][:, None] == batch["caption"][None])
    np.testing.assert_array_equal(batch["picture"], np.repeat(np.arange(120), 2))
    some = pairs.subset(np.array([5, 2]))
    np.testing.assert_array_equal(some.gather(np.array([1]))["image"], batch["image"][2:3])


@pytest.mark.slow
def test_four_steps_and_four_more_are_eight_at_once(squares, tmp_path):
    for folder, steps in (("whole", 8), ("parts", 4), ("parts", 8)):
        launch.run(
            JOB(
                CONFIG(
                    steps=steps, log_every=4, schedule="constant", dropout=0.3,
                    data_path=str(squares), workdir=str(tmp_path / folder), **SMALL,
                )
            )
        )  # fmt: skip
    whole, parts = (dlcore.load(tmp_path / folder) for folder in ("whole", "parts"))
    networks.assert_equal(whole.variables, parts.variables)


def test_the_temperature_stops_at_one_hundredth(squares):
    task, data = task_of(squares, learning_rate=3.0, schedule="constant", optimizer="sgd")
    state = jax.jit(lambda: make_state(task))()
    step = jax.jit(task.step())
    params = {**state.params, "log_scale": np.float32(np.log(99.9))}
    # Towers that are right already want it higher and higher.
    state, _ = step(state.replace(params=params), next(data.train(0)))
    assert np.exp(state.params["log_scale"]) <= 100.0001
    scale = task.net.apply({"params": {**params, "log_scale": np.float32(9)}}, method="scale")
    assert float(scale) == pytest.approx(100, rel=1e-5)


def test_the_alarm(squares):
    """Towers whose embeddings are all equal have a loss that is known beforehand."""
    for loss, collapsed in (("infonce", np.log(16)), ("vse++", 0.4), ("vse0", 0.4 * 15)):
        task = JOB(CONFIG(**{**SMALL, "loss": loss}))
        planted = {"loss": collapsed, "similarity": 0.39, "negative_similarity": 0.3895}
        assert "no more similar to their own texts" in task.watch(planted)
        assert task.watch(planted | {"negative_similarity": 0.3}) is None
        assert task.watch(planted | {"loss": 0.1 * collapsed}) is None
        assert task.watch(planted | {"loss": np.nan}) is None


def test_a_run_starts_from_the_towers_of_another_of_the_same_words(trained, squares, tmp_path):
    _, folder = trained
    start = dlcore.load(folder).variables["params"]
    options = {"loss": "vse++", "init_from": str(folder)}
    task, _ = task_of(squares, **options)
    adopted = task.adopt(make_state(task)).params
    assert "log_scale" not in adopted and {*adopted} == {"pictures", "texts"}
    networks.assert_equal(adopted, {name: start[name] for name in adopted})
    other = draw(tmp_path, {"train": 9, "test": 4})
    task, _ = task_of(other, **options)
    with pytest.raises(InputError, match="is not the one of the run in"):
        task.adopt(make_state(task))


# The baseline.


def captioned(values, captions):
    images = np.array(values, np.uint8)[:, None, None, None]
    return Captioned(Arrays({"image": images}), tuple(captions))


def test_the_baseline_names_a_picture_as_its_nearest_one():
    task = JOB(CONFIG())
    train = captioned([0, 100, 200], [("black cat",), ("grey dog", "no"), ("white sheep",)])
    test = captioned([10, 90, 210], [("black dog",), ("grey dog",), ("white cat",)])
    task.captioned, task.settings = (
        {"train": train, "test": test},
        {"test": Setting.of(test, "test")},
    )
    # "black cat" shares a word with "black dog" and with "white cat", among which chance decides.
    ranks = task.baseline
    assert ranks["image_to_text"][1] == 1 and ranks["image_to_text"][2] == 1
    assert ranks["image_to_text"][0] in (1, 2)


def test_ties_of_the_baseline_are_broken_by_chance():
    test = captioned(range(64), [(f"letter {n}",) for n in range(64)])
    setting = Setting.of(test, "test")
    ranks = np.concatenate(
        [setting.ranks_by_words([["letter"]] * 64, seed)["image_to_text"] for seed in range(20)]
    )
    assert {*ranks.tolist()} <= {*range(1, 65)}
    assert ranks.mean() == pytest.approx(32.5, abs=2)  # three standard errors are 1.5


def test_several_captions_of_a_picture_and_several_pictures_of_a_caption():
    test = captioned([0, 1, 2], [("a", "b"), ("b",), ("c", "c")])
    setting = Setting.of(test, "test")
    assert setting.texts == ("a", "b", "c")
    assert {*map(tuple, setting.relevant.tolist())} == {(0, 0), (0, 1), (1, 1), (2, 2)}
    # Each picture finds "b" first, then "c".
    texts = np.array([[0.1], [0.9], [0.5]])
    found = setting.ranks(np.ones((3, 1)), texts)
    assert found["image_to_text"].tolist() == [1, 1, 2]
    # All pictures are equal: ties count against all but the own ones.
    assert found["text_to_image"].tolist() == [3, 2, 3]
    assert scores_of(found)["recall_sum"] == pytest.approx(2 / 3 + 1 + 1 + 0 + 1 + 1)


def test_texts_are_cut_and_counted():
    vocabulary = Vocabulary.build(["one two three"])
    data = captioned([0, 1], [("one two three",), ("one two",)])
    pairs = Pairs.of(data, vocabulary, 2)
    assert pairs.tokens.shape == (2, 2) and pairs.captions.tolist() == [0, 0]


# Uses.


def test_predict_lists_the_best_captions_of_a_file(trained, squares, tmp_path, capfd):
    _, folder = trained
    file = tmp_path / "captions.txt"
    file.write_text("top left white\n\ntop left white\nbottom right black\n", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    flags = [f"--workdir={folder}", f"--captions={file}", "--top=2"]
    done = run_here(
        capfd, "retrieval", [*flags, f"--predict={squares / 'test_16.png'}"]
    )  # a white one
    assert done.returncode == 0, done.stderr
    assert "2 empty or repeated lines are left out" in done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["caption"] == "top left white" and len(row["captions"]) == 2
    assert row["similarity"] == row["captions"][0]["similarity"] > row["captions"][1]["similarity"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_predict_without_captions_gives_embeddings(trained, squares, capfd):
    _, folder = trained
    done = run_here(
        capfd, "retrieval", [f"--workdir={folder}", f"--predict={squares / 'test_0.png'}"]
    )
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert len(row["embedding"]) == 16


def test_search_lists_the_best_pictures_of_a_folder(trained, squares, capfd):
    _, folder = trained
    flags = [f"--workdir={folder}", f"--pictures={squares}", "--top=3"]
    flags += ["--search=bottom right black", "--search=a white squircle at the top left"]
    done = run_here(capfd, "retrieval", flags)
    assert done.returncode == 0, done.stderr
    assert "1 of 10 tokens unknown" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["input"] for row in rows] == ["bottom right black", flags[-1].partition("=")[2]]
    assert all(len(row["pictures"]) == 3 for row in rows)
    for row, corner, shade in ((rows[0], 3, 0), (rows[1], 0, 4)):
        assert row["picture"] == row["pictures"][0]["picture"]
        number = int(row["picture"].rpartition("_")[2].removesuffix(".png"))
        assert (number % 4, number // 4 % 5) == (corner, shade)


@pytest.mark.slow
def test_the_check_passes(squares, capfd):
    flags = [f"--data_path={squares}", *FLAGS, "--check", "--dropout=0"]
    done = run_here(capfd, "retrieval", flags)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["infonce", "vse++"])
def test_the_smoke_test_of_the_default(capfd, data_dir, tmp_path, loss):
    flags = ["--smoke", f"--data_dir={data_dir}", f"--workdir={tmp_path / 'run'}", f"--loss={loss}"]
    done = run_here(capfd, "retrieval", flags)
    assert done.returncode == 0, done.stderr


# What it refuses.


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--batch_size=1"], ["--batch_size=1", "give 2 or more"]),
        (["--accumulate=2"], ["--accumulate"]),
        (["--augment=mixup"], ["mixup", "leave it out"]),
        (["--loss=triplet"], ["triplet", "vse++"]),
        (["--loss=infonce", "--margin=0.3"], ["--margin", "--loss=infonce"]),
        (["--text_tower=bag", "--pooling=last"], ["--text_tower=bag", "--pooling=mean"]),
        (["--text_tower=bag", "--cell=lstm"], ["--cell", "bag"]),
        (["--pooling=last", "--merge=sum"], ["concat"]),
        (["--captions=x.txt"], ["--captions", "--predict"]),
        (["--pictures=x"], ["--pictures"]),
        (["--option=depth=3"], ["depth"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_flags_are_refused(squares, tmp_path, capfd, flags, words):
    given = [f"--data_path={squares}", f"--workdir={tmp_path / 'run'}", *FLAGS, *flags]
    if "--text_tower=bag" in flags:
        given = [flag for flag in given if not flag.startswith("--hidden")]
    if "--option=depth=3" in flags:
        given.remove("--option=features=[64]")
    assert_fails(run_here(capfd, "retrieval", [*given, "--steps=2"]), *words)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_captions_that_are_missing_empty_or_of_no_picture(tmp_path, capfd):
    folder = draw(tmp_path, {"train": 8, "test": 4})

    def fails(row, *words):
        table = folder / "train.tsv"
        kept = table.read_text(encoding="utf-8")
        table.write_text(kept + row, encoding="utf-8")
        flags = [f"--data_path={folder}", f"--workdir={tmp_path / 'run'}", *FLAGS, "--steps=2"]
        assert_fails(run_here(capfd, "retrieval", flags), *words)
        table.write_text(kept, encoding="utf-8")

    fails("nowhere.png\ta square\n", "train.tsv", "17", "nowhere.png")
    fails("train_1.png\t\n", "train.tsv", "17", "no caption")
    fails("train_1.png\n", "train.tsv", "17")


def test_a_test_part_or_a_gallery_of_one_is_refused(trained, squares, tmp_path, capfd):
    folder = draw(tmp_path, {"train": 8, "test": 1})
    (folder / "test.tsv").write_text("test_0.png\tone square\n", encoding="utf-8")
    flags = [f"--data_path={folder}", f"--workdir={tmp_path / 'run'}", *FLAGS, "--steps=2"]
    assert_fails(run_here(capfd, "retrieval", flags), "test part", "two of each")
    of_run = f"--workdir={trained[1]}"
    file = tmp_path / "one.txt"
    for content, word in (("a square\na square\n", "two or more"), ("\n\n", "no text")):
        file.write_text(content, encoding="utf-8")
        asked = [of_run, f"--predict={squares / 'test_0.png'}", f"--captions={file}"]
        assert_fails(run_here(capfd, "retrieval", asked), "one.txt", word)
    asked = [of_run, f"--predict={squares / 'test_0.png'}", f"--captions={tmp_path / 'no.txt'}"]
    assert_fails(run_here(capfd, "retrieval", asked), "no.txt")
    for given, words in (
        ([f"--pictures={squares / 'test_0.png'}", "--search=white"], ["two or more"]),
        (["--search=white"], ["--pictures"]),
        ([f"--pictures={squares}", "--search= "], ["empty"]),
        ([f"--pictures={tmp_path / 'none'}", "--search=white"], ["none"]),
    ):
        assert_fails(run_here(capfd, "retrieval", [of_run, *given]), *words)


def test_a_search_needs_a_run_and_fixed_options_stay(trained, squares, capfd):
    asked = [f"--pictures={squares}", "--search=white"]
    assert_fails(run_here(capfd, "retrieval", asked), "--workdir")
    asked.append(f"--workdir={trained[1]}")
    assert_fails(run_here(capfd, "retrieval", [*asked, "--embedding=9"]), "embedding")


def test_loading_refuses_other_options_than_free_ones(trained):
    with pytest.raises(InputError, match="embedding"):
        dlcore.load(trained[1], embedding=8)
    assert dataclasses.asdict(dlcore.load(trained[1], top=3).config)["top"] == 3
