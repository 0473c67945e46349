"""What the tests of experiments look at after a run."""

import json


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def assert_fails(process, *words):
    """Status 2, one line that begins with "error:" and holds all the words, no traceback."""
    assert process.returncode == 2, process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in process.stderr, process.stderr
    for word in words:
        assert word in errors[0]
