"""Stand-ins for a job and for the programs of a cluster, and how their processes end."""

import contextlib
import pathlib
import subprocess
import time

# A job that says in its workdir how it was started and which signals came. Process --fail ends with
# status 7, process --deaf cannot be told to end. After a signal, process 0 saves for --save seconds
# and the others end with status --leave at once.
JOB = """
import os, pathlib, signal, subprocess, sys, time
flags = dict(flag[2:].split("=") for flag in sys.argv[1:])
me, workdir = flags.get("process_id", "0"), pathlib.Path(flags["workdir"])

def save(number, frame):
    with (workdir / f"signals{me}").open("a") as file:
        print(signal.Signals(number).name, file=file)
    time.sleep(float(flags.get("save", 0)) if me == "0" else 0)
    (workdir / f"saved{me}").touch()
    sys.exit(0 if me == "0" else int(flags.get("leave", 0)))

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN if flags.get("deaf") == me else save)
subprocess.Popen(["sleep", "100"])
started = (" ".join(sys.argv[1:]), os.environ.get("JAX_LOCAL_DEVICE_IDS"), os.getpgrp())
(workdir / f"starting{me}").write_text("\\n".join(map(str, started)))
(workdir / f"starting{me}").rename(workdir / f"started{me}")
if flags.get("fail") == me:
    while len(list(workdir.glob("started*"))) < int(flags["num_processes"]):
        time.sleep(0.01)
    print("out of luck")
    sys.exit(7)
time.sleep(float(flags.get("sleep", 0)))
"""
# A cluster of one process, which a signal reaches alone, and of one machine.
CLUSTER = {
    "srun": 'echo $$ >srun.pid; while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "scancel": 'echo "scancel $*" >>calls; kill -TERM "$(cat srun.pid)"',
    "scontrol": 'echo "scontrol $*" >>calls',
    "gcloud": 'for last; do true; done; cd ..; exec bash -c "${last#--command=}"',
}


def end(process):
    """Status, output and errors of a process at its end."""
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


def wait_for(*paths):
    """Waits until all the files are there."""
    _until(lambda: all(path.exists() for path in paths), paths)


@contextlib.contextmanager
def starting(folder):
    """Starts commands in a folder, and kills those that are left at the end."""
    started = []

    def start(*command):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=folder, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def assert_gone(group):
    """Asserts that no process of a group is left, or only until its parent has asked for it."""

    def left():
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):  # ended in the meantime
                continue
            if its_group == group.strip() and state != "Z":
                yield path.parent.name

    _until(lambda: not list(left()), f"process group {group} to end")


def _until(condition, what):
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, f"waited for {what}"
        time.sleep(0.01)
