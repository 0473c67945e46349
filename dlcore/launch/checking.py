"""--check: the checks of good practice to make before any long run."""

import dataclasses
import pathlib
import tempfile
from typing import Any

from dlcore import runtime
from dlcore.check import check_model, verdict
from dlcore.launch.running import prepare
from dlcore.launch.task import Task, make_state


def check(task: Task[Any, Any]) -> bool:
    """Checks a task on one small batch, and prints the findings; returns whether all are well."""
    runtime.configure()
    task.config = dataclasses.replace(task.config.for_check(), workdir=None)
    is_ordinary = type(task).loss is not Task.loss and type(task).step is Task.step
    with tempfile.TemporaryDirectory(prefix="dlcore-check-") as folder:
        # What jobs write before they train.
        task.workdir = pathlib.Path(folder)
        data = prepare(task, remember=False)
        needs = task.checks(data)
        findings = check_model(
            needs.forward,
            task.loss if is_ordinary and not task.phases() else None,
            make_state(task),
            dict(next(data.train(0))),
            step=task.step(),
            inputs=needs.inputs,
            chance=needs.chance,
            overfit_share=needs.overfit_share,
            watch=task.watch,
        )
    print(verdict(findings))
    return all(finding.passed for finding in findings)
