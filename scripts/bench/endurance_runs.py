"""Runs under the supervisor, and the faults that `endurance.py` makes strike them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).parents[2]
JOB = "image_classification"
EVERY = 10  # steps between checkpoints
STEPS = 60
STRIKE = 25  # the step at which a fault strikes
LIMIT = 600  # seconds after which a run counts as hung


@dataclasses.dataclass
class Run:
    """One run, which may start several times, in a folder of its own."""

    workdir: pathlib.Path
    processes: int = 1
    steps: int = STEPS
    healthy: int = 3600  # seconds after which a start's failure counts as the first one again
    stall: int = 600

    def start(self, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Starts it under the supervisor; its lines come from stderr, and must be read there."""
        job = [
            "--model=resnet20", "--batch_size=32", f"--workdir={self.workdir}", "--log_every=1",
            f"--steps={self.steps}", "--schedule=constant", f"--checkpoint_every={EVERY}",
            "--eval_every=0", f"--stall_seconds={self.stall}",
        ]  # fmt: skip
        supervise = str(ROOT / "scripts/launch/supervise")
        command = [supervise, "--tries=3", "--pause=0.1", f"--healthy={self.healthy}"]
        if self.processes == 1:
            command += [sys.executable, "-m", f"experiments.{JOB}", *job]
        else:
            local = str(ROOT / "scripts/launch/local.sh")
            command += [local, str(self.processes), JOB, "--layout=mesh", *job]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, text=True
        )

    def step(self) -> int:
        """The last step that was reported."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(json.loads(self._lines()[-1])["step"])
        return 0

    def saved(self) -> int:
        """The step of the newest checkpoint that is whole."""
        names = [path.name for path in (self.workdir / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def steps_since(self, moment: float) -> bool:
        """Returns whether steps were reported since a moment that no checkpoint has."""
        with contextlib.suppress(OSError):
            reported = (self.workdir / "metrics.jsonl").stat().st_mtime
            return reported > moment and self.step() > self.saved()
        return False

    def _lines(self) -> list[str]:
        return (self.workdir / "metrics.jsonl").read_text().splitlines()

    def pid(self, process: int) -> int | None:
        """The process of that number, if it runs."""
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")
                mine = f"--workdir={self.workdir}" in words and "-m" in words[:4]
                if mine and (self.processes == 1 or f"--process_id={process}" in words):
                    if "python" in pathlib.Path(words[0]).name:
                        return int(folder.name)
        return None

    def end(self) -> tuple[object, object]:
        """Returns all that must be equal to an undisturbed run: reports and fingerprints."""
        last = self.workdir / "checkpoints" / str(self.steps) / "run" / "metadata"
        return self._lines(), json.loads(last.read_text())["fingerprints"]


@dataclasses.dataclass
class Story:
    """The events of a run: the supervisor's and the job's lines, each with its moment."""

    struck: float = 0.0
    struck_at: int = 0
    lines: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    status: int | None = None

    def after(self, text: str) -> tuple[float, str] | None:
        """The first line after the fault that holds the text, and its moment."""
        return next((one for one in self.lines if one[0] > self.struck and text in one[1]), None)


def live(run: Run, strike: Callable[[Run], None] | None, *, at: int = STRIKE) -> Story:
    """Runs to the end, with a fault at a step."""
    story = Story()
    started = time.monotonic()
    process = run.start()
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    rest = ""
    while process.poll() is None or rest:
        with contextlib.suppress(TypeError):
            rest += process.stderr.read() or ""
        *whole, rest = rest.replace("\r", "\n").split("\n")
        story.lines += [(time.monotonic(), line) for line in whole if line]
        if strike and not story.struck and run.step() >= at:
            story.struck, story.struck_at = time.monotonic(), run.step()
            strike(run)
        if time.monotonic() - started > LIMIT:
            process.kill()
            story.lines.append((time.monotonic(), "hung"))
            break
        time.sleep(0.02)
        if process.poll() is not None and not whole:
            break
    story.status = process.wait()
    return story


def kill(process: int, number: int) -> Callable[[Run], None]:
    """Sends a signal to one process."""

    def strike(run: Run) -> None:
        pid = run.pid(process)
        assert pid is not None, "the process to strike is not there"
        os.kill(pid, number)

    return strike


def damage(run: Run, how: str) -> None:
    """Damages the newest checkpoint: "flip" bits, "truncate", or "remove" a file of its arrays."""
    folder = run.workdir / "checkpoints" / str(run.steps)
    files = [path for path in folder.rglob("*") if path.is_file()]
    data = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 0xFF
    data.write_bytes(content if how == "flip" else content[: len(content) // 2])
    if how == "remove":
        data.unlink()


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[bool]:
    """A file system of 24 MB on the folder, if this user may make one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    folder.mkdir(parents=True)
    made = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(folder)], check=False)
