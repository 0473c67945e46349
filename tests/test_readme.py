"""README and the pages of the jobs tell the truth: code runs, commands parse, flags exist."""

import pathlib
import re
import shlex

import pytest

from dlcore.launch import config, flags, jobs

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs" / "jobs").glob("*.md"))
LINKING = [README, ROOT / "CONTRIBUTING.md", *PAGES]


def read(path):
    return path.read_text(encoding="utf-8")


def name_of(path):
    return str(path.relative_to(ROOT))


def config_of(job):
    return jobs.module(job).Config if job == "comparison" else jobs.task_class(job).parts()[0]


def commands(text):
    """Returns the words of each command in a page, from the name of the job on."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^    (.+)$", text, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    found = [
        re.search(r"(?:scripts/run|dlcore) ([a-z_]+ ?.*)", line.split(" #")[0])
        for line in [*lines, *spans]
    ]
    words = [shlex.split(match[1]) for match in found if match]
    return [one for one in words if one[0] in jobs.names() and one[1:2] not in (["--help"],)]


def test_the_example_trains(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", read(README), re.DOTALL)
    exec(code, {})
    assert float(capsys.readouterr().out.split()[-1]) > 0.95


def test_the_readme_has_every_job_with_the_figure_of_its_page():
    row = r"^\| \[(\w+)\]\(docs/jobs/(\w+)\.md\) \|.*\|.*\| (.*) \|(.*)\|$"
    rows = re.findall(row, read(README), re.MULTILINE)
    assert sorted(job for job, *_ in rows) == jobs.names()
    index = read(ROOT / "docs" / "jobs" / "index.md").splitlines()
    for job, page, result, seconds in rows:
        assert page == job and job in index
        told = read(ROOT / "docs" / "jobs" / f"{job}.md")
        for figure in re.findall(r"-?\d+\.\d+", result) + re.findall(r"(\d+) s", seconds):
            assert re.search(rf"(?<![\d.]){figure}(?![\d.]\d)", told), f"{job}: {figure}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_the_commands_of_a_page_parse(page):
    for job, *given in commands(read(page)):
        flags.parse(config_of(job), given, recipes=jobs.recipes(job))


def test_commands_are_found_wherever_they_stand():
    page = "`scripts/run gan --ema=0.9` or\n\n    A=b dlcore music \\\n      --seed=1  # twice\n"
    assert commands(page) == [["music", "--seed=1"], ["gan", "--ema=0.9"]]
    assert commands("`scripts/run JOB --help` and `dlcore gan --help`") == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem in jobs.names()], ids=name_of)
def test_the_flags_of_a_page_exist_with_the_values_named(page):
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", read(page))]
    specs = {name: spec for name, _, spec, _ in config.specs(config_of(page.stem))}
    for span in spans:
        # Commands are parsed above, and may be those of another job.
        for name, values in re.findall(r"(?<!\S)--(\w+)(?:=(\S+))?", span):
            if span.startswith("scripts/"):
                continue
            assert name in specs or name == "recipe", f"--{name}"
            if "|" in values:
                kind = specs[name].kind
                wrong = [one for one in values.split("|") if not kind.allows(kind.parse(one))]
                assert not wrong, f"--{name}: {wrong}"


def test_the_examples_of_style_are_those_of_the_code():
    function, test = re.findall(r"```python\n(.*?)```", read(ROOT / "CONTRIBUTING.md"), re.DOTALL)
    assert function in read(ROOT / "dlcore" / "boxes.py")
    assert test in read(ROOT / "tests" / "test_boxes.py")


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_picture_has_a_text_instead(page):
    assert all(len(text) > 20 for text in re.findall(r"!\[([^\]]*)\]", read(page)))
