"""Every command of a job that the documentation shows can be given: job and flags exist."""

import pathlib

import pytest
from documented_commands import commands, parse

from dlcore.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# The glossary and the reference are made from the code, whose own tests look at them.
PAGES = [
    path
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    if not {"_build", "glossary", "api"} & {*path.relative_to(ROOT).parts}
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_parse(page):
    wrong = []
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            parse(command)
        except InputError as error:
            wrong.append(f"{command}: {error}")
    assert not wrong, "\n".join(wrong)


def test_commands_are_found():
    page = """
Write `dlcore gan
--steps=3` or `dlcore JOB --help`, not `dlcore prepare mnist`.

    scripts/run translation --autoencode  # says more

```sh
JAX_NUM_CPU_DEVICES=4 dlcore tagging \\
    --workdir=a | sort
~/dlcore/scripts/launch/local.sh 2 gan --label=";"
```
"""
    assert [*commands(page)] == [
        "tagging --workdir=a",
        "gan '--label=;'",
        "translation --autoencode",
        "gan --steps=3",
    ]


@pytest.mark.parametrize("command", ["gan --stepz=3", "gann", "gan --steps=0"])
def test_a_wrong_command_is_seen(command):
    with pytest.raises(InputError):
        parse(command)
