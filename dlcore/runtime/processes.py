"""Several processes as one run: how they connect, which one writes, and how they end together.

Every process runs the same program on its own devices and feeds its own rows; collectives among the
devices keep them in step. A process that fails must end all, else the others wait for minutes.
"""

import faulthandler
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dlcore.errors import InputError

# A process is given up after so many seconds without a sign of life, and the ends of all processes
# may lie so many seconds apart; JAX's own limits are minutes.
_HEARTBEAT, _SHUTDOWN = 30, 60

T = TypeVar("T")
_joined = False
_limit, _since = 0.0, 0.0


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of a run, before anything touches a device.

    Without arguments the number of the process comes from the cluster: Slurm (`srun`), OpenMPI
    (`mpirun`), Cloud TPUs, or Kubernetes if the package `kubernetes` is installed. Without a
    cluster the process is the only one.

    Args:
        coordinator: the host:port at which process 0 listens.
        num_processes: the number of processes.
        process_id: the number of this process, from 0 on.

    Raises:
        InputError: when only some of the three are given, they contradict each other, or the
            processes did not connect in time.
    """
    global _joined
    given = coordinator, num_processes, process_id
    if given == (None, None, None) and not cluster(os.environ):
        return
    if given != (None, None, None):
        if coordinator is None or num_processes is None or process_id is None:
            raise InputError(
                "--coordinator, --num_processes and --process_id belong together: give all three, "
                "or none where the cluster provides them"
            )
        if ":" not in coordinator:
            raise InputError(f"--coordinator={coordinator} is not HOST:PORT")
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"--process_id={process_id} is not one of --num_processes={num_processes}; they "
                "count from 0"
            )
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=None if given == (None, None, None) else "deactivate",
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_SHUTDOWN,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes did not meet: {' '.join(str(error).split())}") from error
    _joined = True


def cluster(environment: Mapping[str, str]) -> str | None:
    """Returns the cluster that started this process as one of several or on a TPU, or None.

    Args:
        environment: the environment variables of the process.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        return "slurm"
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "ompi"
    if "TPU_WORKER_HOSTNAMES" in environment or "TPU_ACCELERATOR_TYPE" in environment:
        return "tpu"
    installed = importlib.util.find_spec("kubernetes") is not None
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "kubernetes" if installed else None
    return None


def is_distributed() -> bool:
    """Returns whether the run has more than one process."""
    return _joined and jax.process_count() > 1


def is_primary() -> bool:
    """Returns whether this is process 0, which writes and prints for all."""
    return not _joined or jax.process_index() == 0


def all_agree(ok: bool) -> bool:
    """Returns whether `ok` is true in all processes; each must call it, and it waits for all."""
    if not is_distributed():
        return ok
    return bool(np.all(multihost_utils.process_allgather(np.asarray(ok))))


def of_primary(array: np.ndarray) -> np.ndarray:
    """Returns the array of process 0; all must call it, with arrays of one shape and type.

    It is for values that depend on the last bits of sums, which may differ between machines.
    """
    if not is_distributed():
        return array
    return np.asarray(multihost_utils.broadcast_one_to_all(array))


def made_once(make: Callable[[], T], read: Callable[[], T]) -> T:
    """Returns what process 0 makes in a shared folder; the other processes wait and read it.

    All must call it.
    """
    made = make() if is_primary() else None
    all_agree(True)
    return read() if made is None else made


def whole(tree: Any) -> Any:
    """Returns the arrays of a tree as whole NumPy arrays in each process; all must call it.

    A device holds only one whole array at a time.
    """
    if not is_distributed():
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def exit_process(status: int) -> NoReturn:
    """Ends the process and so the whole run: the other processes notice within seconds.

    Args:
        status: the exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if _joined:
        # An ordinary exit would wait for processes that wait for this one.
        os._exit(status)
    sys.exit(status)


def fail(error: BaseException) -> NoReturn:
    """Prints the traceback of an error and exits with status 1."""
    traceback.print_exception(error)
    exit_process(1)


def set_watchdog(seconds: float) -> None:
    """Makes the process exit, with all its tracebacks, when it shows no sign of life for a time.

    A process that hangs makes all others wait in a collective, so that all of them exit.

    Args:
        seconds: the time; with 0 the process never exits.
    """
    global _limit
    _limit = seconds
    faulthandler.cancel_dump_traceback_later()
    heartbeat(now=True)


def heartbeat(*, now: bool = False) -> None:
    """Records a sign of life; it costs almost nothing, so call it at every step."""
    global _since
    if _limit and (now or time.monotonic() - _since > _limit / 100):
        _since = time.monotonic()
        # In a notebook sys.stderr is no file; Python has none where it was closed before the start.
        faulthandler.dump_traceback_later(_limit, exit=True, file=sys.__stderr__ or 2)
