"""Image classifiers that start from the weights of another run, and the options of models."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from outcomes import assert_fails, summary

from dlcore.train.checkpoint import load_variables

DEEPER = "--option=features=[16,16,16,16]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("source")


@pytest.fixture
def source(run, folder):
    """A trained run to start from, made once."""
    if not (folder / "summary.json").exists():
        assert run(DEEPER, "--steps=60", f"--workdir={folder}").returncode == 0
    return folder


def optimizer_arrays(folder, step):
    path = folder / "checkpoints" / str(step) / "state"
    with ocp.StandardCheckpointer() as checkpointer:
        return [leaf.shape for leaf in jax.tree.leaves(
            checkpointer.metadata(path).item_metadata.tree["opt_state"]
        )]  # fmt: skip


TRAINED = {
    "head": {"output"},
    "top": {"output", "dense_2", "dense_3"},
    "all": {"output", "dense_0", "dense_1", "dense_2", "dense_3"},
}


@pytest.mark.parametrize("level", TRAINED)
def test_frozen_weights_keep_their_bits_and_have_no_optimizer_state(run, source, tmp_path, level):
    flags = [DEEPER, f"--init_from={source}", f"--transfer={level}", "--weight_decay=0.1"]
    process = run(*flags, "--steps=5", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert f"{source}: restored 8 leaves, kept 2" in process.stderr
    before, after = (load_variables(d / "checkpoints")["params"] for d in (source, tmp_path))
    for module, weights in after.items():
        same = [weights[name].tobytes() == before[module][name].tobytes() for name in weights]
        assert same == [module not in TRAINED[level]] * 2, module
    kernels = [shape for shape in optimizer_arrays(tmp_path, 5) if len(shape) == 2]
    assert len(kernels) == 2 * len(TRAINED[level])  # Adam's two moments


def test_without_transfer_a_run_starts_where_the_other_ended(run, source, tmp_path):
    flags = [DEEPER, "--optimizer=sgd", "--learning_rate=0", "--weight_decay=0", "--steps=1"]
    process = run(*flags, f"--init_from={source}", f"--workdir={tmp_path}")
    assert process.returncode == 0 and "restored 10 leaves, kept 0" in process.stderr
    assert summary(tmp_path)["metrics"] == summary(source)["metrics"]


def test_a_continued_run_goes_on_from_its_own_weights(run, source, tmp_path):
    flags = [DEEPER, f"--init_from={source}", "--schedule=constant", f"--workdir={tmp_path}"]
    assert run(*flags, "--steps=2").returncode == 0
    process = run(*flags, "--steps=3")
    assert process.returncode == 0 and "from step 2" in process.stderr
    assert "restored" not in process.stderr


def test_shapes_that_differ_are_reported_and_start_anew(run, source, tmp_path):
    flags = ["--option=features=[16,16,16,8]", f"--init_from={source}", "--steps=1"]
    process = run(*flags, f"--workdir={tmp_path}")
    assert process.returncode == 0
    assert "mismatched: params/dense_3/kernel ((16, 16) there, (16, 8) here)" in process.stderr
    assert "restored 7 leaves" in process.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--transfer=head"], ["--transfer without --init_from", "give both"]),
        (["--init_from=SOURCE", "--init_prefix=ema"], ["--init_prefix is for files of weights"]),
        (["--moments=imagenet"], ["are of 3 channels, the images of digits", "have 1"]),
        (["--init_from=/nowhere"], ["there is neither a file nor a folder /nowhere"]),
        (["--model=lenet5", "--init_from=SOURCE"], ["no weight of", "fits lenet5", "dense_0"]),
        (["--transfer=top", "--init_from=SOURCE"], ["mlp has only 2 modules", "--transfer=all"]),
        (["--option=width=2"], ["unknown option of mlp 'width'", "dropout, features"]),
        (["--option=dropout=much"], ["--option=dropout=much", "such as 0.0, its default"]),
        (["--option=dropout=true"], ["such as 0.0, its default"]),
        (["--option=features=16"], ["such as [128, 128], its default"]),
        (["--model=lenet5", "--option=width=2"], ["of lenet5 'width'; choose one of: none"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_bad_flags_are_one_line(run, source, tmp_path, flags, words):
    flags = [flag.replace("SOURCE", str(source)) for flag in flags]
    assert_fails(run("--steps=2", f"--workdir={tmp_path / 'run'}", *flags), *words)


def test_views_and_average_are_what_is_evaluated(run, source, tmp_path):
    """At a rate of 0 the average is the weights; two views answer another way than one."""
    still = [DEEPER, f"--init_from={source}", "--learning_rate=0", "--steps=2"]
    flip = f"--workdir={tmp_path / 'flip'}"
    assert run(*still, "--views=flip", "--report", flip).returncode == 0
    assert run(*still, "--ema=0.99", f"--workdir={tmp_path / 'ema'}").returncode == 0
    losses = [summary(folder)["metrics"]["loss"] for folder in (
        source, tmp_path / "ema", tmp_path / "flip"
    )]  # fmt: skip
    assert losses[1] == losses[0]
    assert losses[2] > losses[0]
    assert np.isfinite(losses).all()


def test_weights_go_out_and_come_back(run, tmp_path):
    """Through a file by torchvision's names: the same network, and one of other classes."""
    tiny = [
        "--model=alexnet_one_tower", "--option=width=0.05", "--option=hidden=16",
        "--image_size=64", "--batch_size=8", "--steps=1", "--augment=none",
    ]  # fmt: skip
    file = tmp_path / "alexnet.safetensors"
    process = run(*tiny, f"--export={file}", f"--workdir={tmp_path / 'out'}")
    assert process.returncode == 0 and f"weights: {file}" in process.stderr
    still = ["--optimizer=sgd", "--learning_rate=0", "--weight_decay=0"]
    process = run(*tiny, *still, f"--init_from={file}", f"--workdir={tmp_path / 'back'}")
    assert process.returncode == 0 and "restored 16 leaves, kept 0" in process.stderr
    assert summary(tmp_path / "back")["metrics"] == summary(tmp_path / "out")["metrics"]
    file.write_bytes(file.read_bytes()[:-1])
    assert_fails(run(*tiny, f"--init_from={file}", f"--workdir={tmp_path / 'no'}"), str(file))
    process = run("--steps=1", f"--export={file}", f"--workdir={tmp_path / 'mlp'}")
    assert_fails(process, "MLP")
    assert not (tmp_path / "mlp" / "checkpoints").exists()
