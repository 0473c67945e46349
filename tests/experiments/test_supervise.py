"""The supervisor, with shell scripts as the commands it runs."""

import pathlib
import signal
import sys

import pytest
from stand_ins import assert_gone, end, starting, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SUPERVISE = str(ROOT / "scripts" / "launch" / "supervise")


@pytest.fixture
def start(tmp_path):
    """Starts a command in an empty folder; kills it at the test's end."""
    with starting(tmp_path) as start:
        yield start


def supervised(start, script, *options):
    """Runs a shell script under the supervisor; it counts its starts in starts."""
    command = ["sh", "-c", f"echo >>starts; n=$(wc -l <starts); {script}"]
    return start(SUPERVISE, "--pause=0.01", *options, *command)


def starts(tmp_path):
    return len((tmp_path / "starts").read_text())


@pytest.mark.parametrize("tries", [1, 3])
def test_supervise_gives_up_after_so_many_failures(start, tmp_path, tries):
    status, _, errors = end(supervised(start, "exit $((10 + n))", f"--tries={tries}"))
    assert (status, starts(tmp_path)) == (10 + tries, tries)  # the last status
    lines = errors.splitlines()
    assert len(lines) == tries and all(line.startswith("supervise: ") for line in lines)
    assert "giving up" in lines[-1]
    assert [line.split("again in ")[1] for line in lines[:-1]] == ["0.01 s", "0.02 s"][: tries - 1]


@pytest.mark.parametrize("status", [2, 130])
def test_supervise_never_repeats_what_cannot_be_mended(start, tmp_path, status):
    assert end(supervised(start, f"exit {status}"))[0] == status
    assert starts(tmp_path) == 1


def test_supervise_stops_on_success(start, tmp_path):
    script = "[ $n = 1 ] && exit 1; [ $n = 2 ] && kill -KILL $$; exit 0"
    status, _, errors = end(supervised(start, script))
    assert (status, starts(tmp_path)) == (0, 3)
    assert "status 1 " in errors and "status 137 " in errors


def test_supervise_counts_anew_after_a_start_that_lived(start, tmp_path):
    script = "sleep 0.1; [ $n -lt 5 ]"  # succeeds in failing four times
    assert end(supervised(start, f"! {{ {script}; }}", "--tries=2", "--healthy=0.05"))[0] == 0
    assert starts(tmp_path) == 5


@pytest.mark.parametrize(
    "name, got, status", [("SIGTERM", "TERM", 5), ("SIGINT", "INT", 5), ("SIGHUP", "TERM", 5)]
)
def test_supervise_passes_a_signal_on_and_starts_nothing_after(start, tmp_path, name, got, status):
    traps = "".join(f"trap 'echo {s} >>got' {s}; " for s in ("TERM", "INT", "HUP"))
    script = f"{traps} touch ready; until [ -e got ]; do sleep 0.02; done; exit {status}"
    process = supervised(start, script)
    wait_for(tmp_path / "ready")
    process.send_signal(signal.Signals[name])
    assert end(process)[0] == status
    assert (tmp_path / "got").read_text().split() == [got] and starts(tmp_path) == 1


def test_supervise_waits_for_a_command_that_was_told_by_others(start, tmp_path):
    process = supervised(start, "touch ready; until [ -e go ]; do sleep 0.02; done; exit 4")
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)  # would kill the shell, which has no trap
    assert "SIGUSR1" in process.stderr.readline()
    (tmp_path / "go").touch()
    assert end(process)[0] == 4 and starts(tmp_path) == 1


def test_supervise_can_be_stopped_while_it_waits(start, tmp_path):
    process = supervised(start, "exit 6", "--pause=1000")
    assert process.stderr.readline().endswith("again in 60 s\n")  # the longest
    process.terminate()
    assert end(process)[0] == 6 and starts(tmp_path) == 1


def test_supervise_takes_success_for_the_end_only_with_the_file(start, tmp_path):
    script = "if [ $n = 3 ]; then touch done; fi"
    assert end(supervised(start, script, "--done=done"))[0] == 0
    assert starts(tmp_path) == 3
    status, _, errors = end(supervised(start, "exit 0", "--done=never", "--tries=2"))
    assert status == 1 and starts(tmp_path) == 5 and "without never" in errors
    script = "trap 'exit 0' TERM; touch ready; while :; do sleep 0.02; done"
    process = supervised(start, script, "--done=never")
    wait_for(tmp_path / "ready")
    process.terminate()
    assert end(process)[0] == 128 + signal.SIGTERM


def test_supervise_kills_what_the_command_leaves_behind(start, tmp_path):
    assert end(supervised(start, "sleep 100 & echo $$ >group"))[0] == 0
    assert_gone((tmp_path / "group").read_text())


def test_supervise_needs_the_standard_library_only_and_refuses_nonsense(start):
    assert end(start(sys.executable, "-IS", SUPERVISE, "true"))[0] == 0
    for arguments in (["--tries=x", "true"], ["--what=1", "true"], ["--tries=0", "true"], []):
        status, _, errors = end(start(SUPERVISE, *arguments))
        assert status == 2 and errors.count("\n") == 1 and "usage" in errors
    assert end(start(SUPERVISE, "no-such-command"))[0] == 127
