"""The environment that a command starts in."""

import os
import subprocess
import sys

import pytest

from dlcore.launch import process


@pytest.fixture
def started(monkeypatch):
    """Settles an environment; returns it, and whether the command starts once more with it."""

    def settle(terminal, **environment):
        again = []
        monkeypatch.setattr(os, "environ", dict(environment))
        monkeypatch.setattr(os, "isatty", lambda descriptor: terminal and descriptor == 2)
        monkeypatch.setattr(os, "execv", lambda path, command: again.append(command))
        process.settle_environment()
        return os.environ, again

    return settle


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_drawn_on_terminals_alone(started, terminal):
    environment, again = started(terminal)
    assert ("TQDM_DISABLE" in environment) == (not terminal)
    assert environment["GLIBC_TUNABLES"] == process.TUNABLES
    assert again == [[sys.executable, *sys.orig_argv[1:]]]


def test_what_the_environment_says_already_stays(started):
    given = {"TQDM_DISABLE": "", "GLIBC_TUNABLES": "mine"}
    assert started(False, **given) == (given, [])


def test_a_bar_that_is_off_writes_nothing():
    code = "import tqdm, sys; [*tqdm.tqdm(range(3))]; tqdm.tqdm.write('a line', sys.stderr)"
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ended.stderr == "a line\n"
