"""Sets of processes that run many cases, for start-up and compilation are what costs."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent


def losses_of(
    cases: list[tuple[str, str]], *, processes: int, devices: int, steps: int, runs: int = 1,
    features: int = 32,
) -> list[list[dict[str, Any]]]:  # fmt: skip
    """Trains each case (net, layout) on so many devices in each of so many processes.

    Returns:
        For each case the runs: "losses", equal in all processes, and "bits", that of each process.

    Raises:
        RuntimeError: when a process fails, with what it said.
    """
    found = _run(processes, devices, task="losses", cases=cases, steps=steps, runs=runs,
                 features=features)  # fmt: skip
    merged = []
    for one in zip(*found, strict=True):  # the same case in each process
        merged.append([])
        for run in zip(*one, strict=True):
            assert all(part["losses"] == run[0]["losses"] for part in run), "processes disagree"
            merged[-1].append({"losses": run[0]["losses"], "bits": [part["bits"] for part in run]})
    return merged


def costs_of(cases: list[tuple[Any, ...]], *, devices: int = 8) -> list[dict[str, Any]]:
    """What `layout_costs.cost` finds for each case."""
    return _run(1, devices, task="costs", cases=cases)[0]


def _run(processes: int, devices: int, **spec: Any) -> list[Any]:
    """What each process found."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    spec |= {"processes": processes, "devices": devices, "coordinator": coordinator}
    path = [str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(path)}
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for process in range(processes):
            own = spec | {"process": process, "result": f"{folder}/{process}.json"}
            command = [sys.executable, str(HERE / "layout_worker.py"), json.dumps(own)]
            with open(f"{folder}/{process}.txt", "w") as out:
                started.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
        try:
            statuses = [one.wait(timeout=1800) for one in started]
        finally:
            for one in started:
                one.kill()
        if any(statuses):
            texts = [pathlib.Path(f"{folder}/{i}.txt").read_text() for i in range(processes)]
            raise RuntimeError("\n---\n".join(text[-3000:] for text in texts))
        return [
            json.loads(pathlib.Path(f"{folder}/{i}.json").read_text()) for i in range(processes)
        ]
