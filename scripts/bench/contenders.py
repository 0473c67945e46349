"""The parts that benchmarks share: contenders that take turns, runs of experiments, and tables."""

import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from absl import app, flags, logging

from dlcore.launch.process import TUNABLES

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# The contenders' memory, as scripts have it.
os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
Step = Callable[[], None]
Times = dict[str, list[float]]  # seconds per step of each contender in each round
_WARM_UP = 3  # steps before the first turn
# How each library is told to do without vectors wider than those of AVX2.
_AVX2 = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}

FLAGS = flags.FLAGS
flags.DEFINE_enum("isa", None, ["avx2"], "widest vectors of all contenders, by default any")
flags.DEFINE_string(
    "write", None, "file of Markdown for what is printed, such as docs/benchmarks/written/core.md"
)
# Whose versions a written page names, where they are installed.
_LIBRARIES = ("jax", "flax", "torch", "torchvision", "transformers", "gensim", "scikit-learn")


class Failed(Exception):
    """A contender could not go on; says why."""


class Contender:
    """A process of its own that takes turns of so many steps.

    What the machine does beside hits neighbouring turns alike, so that ratios of them are steadier
    than times. And nothing that one contender sets, such as XLA's flags, changes another. One that
    waits uses no processor, but a virtual machine gives its freed pages back to the host within a
    second, and its next step must fetch them: each turn begins with a step that is not timed. With
    it a step takes as long beside others that wait as alone, which `core.py waiting` shows.
    """

    def __init__(self, make: Callable[..., Step], **options: Any):
        """Starts it.

        Args:
            make: makes the step in the new process, a function of a module.
            **options: its arguments.

        Raises:
            Failed: when the step cannot be made or taken.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, options), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def turn(self, steps: int) -> float:
        """Seconds per step."""
        self._pipe.send(steps)
        return self._answer() / steps

    def memory(self, kind: str = "VmRSS") -> float:
        """Megabytes: those that are resident, or the most that ever were, "VmHWM"."""
        return megabytes(self._process.pid, kind)

    def all_memory(self) -> float:
        """Megabytes that it and its own processes hold; what they share counts once."""
        return sum(_proportional(one) for one in _family(self._process.pid)) / 1024

    def end(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> float:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            answer = f"a contender ended with status {self._process.exitcode}"
        if isinstance(answer, str):
            raise Failed(answer)
        return answer


def megabytes(process: int | str | None = "self", kind: str = "VmRSS") -> float:
    """Returns the memory of a process: what is resident, or the most that ever was, "VmHWM"."""
    status = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


def _family(process: int | None) -> list[int]:
    """A process and those that it started, and these."""
    tasks = pathlib.Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]
    return [int(process or 0), *(one for child in children for one in _family(child))]


def _proportional(process: int) -> int:
    """Kilobytes of a process, where a page of several processes counts as its share."""
    text = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def _serve(
    pipe: multiprocessing.connection.Connection, make: Callable[..., Step], options: dict[str, Any]
) -> None:
    """A contender: seconds for each number of steps; the traceback where it fails."""
    logging.set_verbosity(logging.ERROR)
    try:
        step, steps = make(**options), _WARM_UP
        while True:
            step()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            pipe.send(time.perf_counter() - start)
            steps = pipe.recv()
    except (EOFError, BrokenPipeError):
        return  # Nobody wants another turn.
    except Exception:
        pipe.send(traceback.format_exc())


def alone(function: Callable[..., Any], **options: Any) -> Any:
    """Returns the result of a function of a module, called in a new process that then ends."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, **options).result()


def job_step(task: Any, state: Any, batch: Any) -> Step:
    """Returns a step of a job on one batch, as a run takes it."""
    # Contenders of other libraries do without JAX.
    import jax

    from dlcore import runtime
    from dlcore.train import guard

    step = runtime.compile_step(guard(task.step()), task.layout())

    def once() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state.params)

    return once


def take_turns(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    seconds: float = 1.0,
    steps: int | None = None,
    memory: dict[str, float] | None = None,
) -> Times:
    """Lets contenders take turns of about so many seconds, and ends them.

    Args:
        contenders: by name.
        rounds: turns of each.
        seconds: of a turn.
        steps: of a turn instead, where what was read ahead makes the first ones too quick.
        memory: gets the megabytes that each holds with its own processes after the last turn.
    """
    counts = {name: steps or max(1, int(seconds / one.turn(2))) for name, one in contenders.items()}
    times: Times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, one in contenders.items():
            times[name].append(one.turn(counts[name]))
    if memory is not None:
        memory.update({name: one.all_memory() for name, one in contenders.items()})
    for one in contenders.values():
        one.end()
    return times


def ratio(times: Times, peer: str, base: str = "ours") -> float:
    """Returns how many times as long the peer takes: the median over the rounds."""
    pairs = zip(times[peer], times[base], strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def race(makers: Mapping[str, Callable[[], Contender]], rounds: int) -> None:
    """Prints the milliseconds of a step of each contender, and its time by that of "ours".

    A peer that cannot be made, such as one whose library is not installed, is said and left out.

    Args:
        makers: start the contenders, by name.
        rounds: turns of each.
    """
    contenders = {}
    for name, make in makers.items():
        try:
            contenders[name] = make()
        except Failed as failure:
            if name == "ours":
                raise
            print(f"  no {name}: {str(failure).strip().splitlines()[-1]}")
    times = take_turns(contenders, rounds=rounds)
    rows = [("contender", "ms a step", "times ours")]
    for name in contenders:
        milliseconds = 1000 * statistics.median(times[name])
        rows.append((name, f"{milliseconds:.2f}", f"{ratio(times, name):.2f}"))
    table(rows)


def beside_torch(
    ours: Callable[..., Step], theirs: Callable[..., Step], rounds: int, **options: Any
) -> None:
    """Prints the race of a step of ours and of PyTorch's.

    Args:
        ours: makes our step.
        theirs: makes PyTorch's.
        rounds: turns of each.
        **options: the arguments of both.
    """
    race(
        {
            "ours": lambda: Contender(ours, **options),
            "PyTorch": lambda: Contender(theirs, **options),
        },
        rounds,
    )


def experiment(job: str, *arguments: str, cache: str | None = None) -> dict[str, Any]:
    """Runs an experiment as a command, in a folder that goes again.

    Args:
        job: the name of its script.
        *arguments: its flags.
        cache: the folder of compilations; by default that of the user.

    Returns:
        Its summary, with the seconds of wall time of the command, `wall_seconds`.
    """
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", f"experiments.{job}", f"--workdir={folder}", *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        summary = json.loads((pathlib.Path(folder) / "summary.json").read_text())
    return summary | {"wall_seconds": seconds}


def table(rows: list[tuple[str, ...]]) -> None:
    """Prints rows of strings as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  " + "  ".join(cell.ljust(width) for cell, width in cells).rstrip(), flush=True)


def processor() -> str:
    """Returns the name of the processor, how many of its cores there are, and its vectors."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    pairs = [line.split(":", 1) for line in text.splitlines()]
    facts = {key.strip(): value.strip() for key, *rest in pairs for value in rest}
    known = facts.get("flags", facts.get("Features", "")).split()
    widths = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "asimd": 128}
    width = next(
        (f"{bits} bits ({isa})" for isa, bits in widths.items() if isa in known), "unknown"
    )
    name = facts.get("model name", os.uname().machine)
    return f"{name}, {len(os.sched_getaffinity(0))} cores, vectors of {width}"


def run(*sections: Callable[[], None]) -> None:
    """Runs the sections that the command line names, by default all, each under its docstring."""
    by_name = {section.__name__: section for section in sections}

    def main(arguments: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        names = arguments[1:] or list(by_name)
        for name in names:
            if name not in by_name:
                raise app.UsageError(f"unknown section {name!r}; choose of: {', '.join(by_name)}")
        limit = ""
        if FLAGS.isa:
            others = os.environ.get("XLA_FLAGS", "")
            os.environ.update(_AVX2, XLA_FLAGS=f"{others} {_AVX2['XLA_FLAGS']}".strip())
            limit = ", of which all contenders use AVX2 at most"
        start = provenance()
        print(machine := processor() + limit, flush=True)
        printed = {}
        for name in names:
            print(f"\n{name}: {by_name[name].__doc__}", flush=True)
            copy = Copied(sys.stdout)
            with contextlib.redirect_stdout(copy):
                by_name[name]()
            printed[name] = f"{by_name[name].__doc__}\n\n```text\n{copy.getvalue().rstrip()}\n```\n"
            if FLAGS.write:  # after each section: a later one may fail
                page(pathlib.Path(FLAGS.write), f"{machine}. {start}", printed)

    app.run(main)


class Copied(io.StringIO):
    """A copy of what is printed, which goes on to where it was printed."""

    def __init__(self, there: TextIO):
        super().__init__()
        self._there = there

    def write(self, text: str) -> int:
        self._there.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._there.flush()


def provenance() -> str:
    """Returns the date, the load of the machine before anything is measured, and the versions."""
    versions = [f"Python {sys.version.split()[0]}"]
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{library} {importlib.metadata.version(library)}")
    load = os.getloadavg()[0]
    return f"{datetime.date.today()}, load average {load:.1f} at the start; {', '.join(versions)}."


def page(path: pathlib.Path, where: str, printed: Mapping[str, str]) -> None:
    """Writes what sections printed as a page of the site.

    Args:
        path: the file.
        where: the machine and the versions.
        printed: Markdown by section.
    """
    script = pathlib.Path(sys.argv[0])
    options = [argument for argument in sys.argv[1:] if not argument.startswith("--write")]
    title = " ".join([script.name, *printed])
    parts = [f"# `{title}`", f"`{shlex.join(['scripts/bench/' + script.name, *options])}`"]
    parts += [where, *(f"## {name}\n\n{text}" for name, text in printed.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts), encoding="utf-8")
