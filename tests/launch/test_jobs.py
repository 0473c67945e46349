"""Jobs and recipes by name."""

import dataclasses
import re
import subprocess
import sys

import jax
import pytest

import dlcore
from dlcore.errors import InputError
from dlcore.launch import command, flags, jobs
from dlcore.launch.fields import Spec

TASKS = [name for name in jobs.names() if name != "comparison"]


def test_the_overview_lists_every_job_with_a_line():
    shown = command.overview()
    for name in jobs.names():
        line = next(line for line in shown.splitlines() if line.strip().startswith(f"{name} "))
        assert len(line.split(maxsplit=1)[1]) > 10
    assert "dlcore prepare NAME" in shown


def test_no_job_imports_what_only_some_runs_need():
    """Their import takes seconds together; whoever needs one of them imports it when it is used."""
    late = (
        "babel", "grain", "matplotlib", "mido", "orbax", "pycocotools", "sacrebleu", "scipy",
        "skimage", "sklearn", "tensorboardX", "tensorflow_datasets", "tokenizers",
    )  # fmt: skip
    program = f"""
import sys
from dlcore.launch import command, flags, jobs
command.overview()
for name in jobs.names():
    module = jobs.module(name)
    if name != "comparison":
        config, _ = jobs.task_class(name).parts()
        flags.parse(config, [])
        flags.help_text(config)
    if found := [name for name in {late} if name in sys.modules]:
        sys.exit(f"{{name}} imports {{found}}")
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("name", TASKS)
def test_every_job_is_a_task_with_a_configuration_of_documented_fields(name):
    task = jobs.task_class(name)
    config, info = task.parts()
    assert task.name() == name
    for field in dataclasses.fields(config):
        spec = field.metadata["spec"]
        assert isinstance(spec, Spec) and len(spec.help) > 5, field.name
        assert not spec.help.startswith(("of ", "whether of ")), f"--{field.name}: {spec.help}"
    assert config() == config.from_json(config().json())
    assert config().lines() == []
    assert flags.parse(config, [])[0] == config()


@pytest.mark.parametrize(
    ("job", "recipe"),
    [(job, path.stem) for job in TASKS for path in sorted(jobs.recipes(job).glob("*.flags"))],
)
def test_every_recipe_parses_by_its_name(job, recipe):
    config, _ = jobs.task_class(job).parts()
    parsed, given = flags.parse(config, [f"--recipe={recipe}"], recipes=jobs.recipes(job))
    assert given and set(parsed.json()) == set(config().json())


def test_an_unknown_job_is_one_line():
    with pytest.raises(InputError, match="unknown job 'speech'; choose one of: .*word_vectors"):
        jobs.module("speech")


def test_the_command(tmp_path, capsys):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "dlcore", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )

    # A folder of that name of somebody else's is not taken for ours.
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('not ours')\n")
    process = run("image_classification", "--help")
    assert process.returncode == 0 and "--learning_rate" in process.stdout, process.stderr
    version, packages, devices = run("--version").stdout.splitlines()
    assert version.split(" (commit ")[0] == f"dlcore {dlcore.__version__}"
    assert f"jax {jax.__version__}" in packages.split(", ")
    assert re.fullmatch(r"devices: \d+ x \w+:.+", devices)
    for arguments, status, error in (
        (["imagee"], 2, "error: unknown job 'imagee'"),
        (["prepare", "mnistt"], 2, "error: unknown data set 'mnistt'"),
        (["prepare", "--help"], 0, ""),
    ):
        with pytest.raises(SystemExit) as ended:
            command.command(arguments)
        assert ended.value.code == status
        out, err = capsys.readouterr()
        assert err.startswith(error)
    assert "mnist" in out
