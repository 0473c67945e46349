"""Joining a run, feeding one's part of the batches, and ending together."""

import subprocess
import sys
import textwrap
import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from dlcore.errors import InputError
from dlcore.runtime import processes, sharding


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, 0), "belong together"),
        ((None, 2, None), "belong together"),
        (("localhost", 2, 0), "--coordinator=localhost is not HOST:PORT"),
        (("localhost:1", 2, 2), "--process_id=2 is not one of --num_processes=2"),
    ],
)
def test_flags_that_do_not_fit_together(given, message):
    with pytest.raises(InputError, match=message):
        processes.initialize(*given)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}, "slurm"),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a script of sbatch, before srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_cluster_is_told_by_its_environment(environment, found):
    assert processes.cluster(environment) == found


def test_kubernetes_needs_its_package(monkeypatch):
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    for spec, found in ((None, None), (object(), "kubernetes")):
        monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name, spec=spec: spec)
        assert processes.cluster(environment) == found


def mesh_of(owners, shape):
    """A mesh of made-up devices that belong to these processes."""
    devices = [types.SimpleNamespace(process_index=owner) for owner in owners]
    grid = np.empty(len(devices), object)
    grid[:] = devices
    return types.SimpleNamespace(
        devices=grid.reshape(shape), shape=dict(zip(sharding.AXES, shape, strict=True))
    )


@pytest.mark.parametrize(
    ("shape", "owners", "parts"),
    [
        ((4, 1, 1), (0, 0, 1, 1), [(0, 2), (1, 2)]),
        ((2, 2, 2), (0, 0, 0, 0, 1, 1, 1, 1), [(0, 2), (1, 2)]),
        ((1, 1, 4), (0, 0, 1, 1), [(0, 1), (0, 1)]),  # model over the processes: the same rows
        ((2, 1, 2), (0, 1, 2, 3), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ((4, 1, 1), (1, 1, 0, 0), [(1, 2), (0, 2)]),  # the mesh orders devices as it likes
    ],
)
def test_each_process_feeds_the_rows_of_its_devices(monkeypatch, shape, owners, parts):
    mesh = mesh_of(owners, shape)
    for process, part in enumerate(parts):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert sharding.rows_of_process(mesh) == part


@pytest.mark.parametrize("owners", [(0, 0, 0, 1), (0, 1, 0, 1)])
def test_parts_that_are_uneven_or_scattered_are_refused(owners):
    with pytest.raises(InputError, match="uneven parts of a batch"):
        sharding.rows_of_process(mesh_of(owners, (4, 1, 1)))


def test_one_process_is_everything():
    processes.initialize()
    assert not processes.is_distributed() and processes.is_primary() and processes.all_agree(True)
    assert not processes.all_agree(False)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 1, 1), sharding.AXES)
    assert sharding.rows_of_process(mesh) == (0, 1)


def test_a_process_that_hangs_leaves_with_its_tracebacks():
    code = """
        import time
        from dlcore.runtime import processes

        processes.set_watchdog(1)
        for _ in range(30):
            time.sleep(0.05)
            processes.heartbeat()
        print("alive", flush=True)

        def hangs():
            time.sleep(60)

        hangs()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1
    assert "alive" in done.stdout and "in hangs" in done.stderr and "Timeout" in done.stderr


def test_without_a_limit_nobody_watches():
    processes.set_watchdog(0)
    processes.heartbeat()
