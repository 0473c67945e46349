"""The launch scripts, with stand-ins for the job and for what belongs to a cluster."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from stand_ins import CLUSTER, JOB, assert_gone, end, starting, wait_for

from dlcore.launch import jobs

LAUNCH = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts" / "launch"
JOB_COMMAND = ["python", "-m", "experiments.standin", "--workdir=../w", "--x=a b"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder dlcore with the scripts and the stand-ins, and beside it a workdir."""
    checkout = tmp_path / "dlcore"
    shutil.copytree(LAUNCH, checkout / "scripts" / "launch")
    for folder in (checkout / "experiments", checkout / "bin", tmp_path / "logs", tmp_path / "w"):
        folder.mkdir()
    shutil.copy(LAUNCH.parent / "run", checkout / "scripts")
    (checkout / "experiments" / "standin.py").write_text(JOB)
    (checkout / "experiments" / "_private.py").touch()
    for file in ("common/flags.py", "recipes/flags.py", "larger/__main__.py"):
        (checkout / "experiments" / file).parent.mkdir()
        (checkout / "experiments" / file).touch()
    for name, script in CLUSTER.items():
        (checkout / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (checkout / "bin" / name).chmod(0o755)
    python = pathlib.Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{checkout / 'bin'}:{python}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "logs"))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("JAX_LOCAL_DEVICE_IDS", raising=False)
    return checkout


@pytest.fixture
def start(checkout):
    """Starts a command in the checkout; kills it at the test's end."""
    with starting(checkout) as start:
        yield start


def started(workdir, count):
    """The arguments and the device of each process; asserts that nothing of them is left."""
    wait_for(*(workdir / f"started{i}" for i in range(count)))
    found = [(workdir / f"started{i}").read_text().split("\n") for i in range(count)]
    for _, _, group in found:
        assert_gone(group)
    return [(arguments, device) for arguments, device, _ in found]


def local(count, *flags):
    return ["scripts/launch/local.sh", str(count), "standin", "--workdir=../w", *flags]


def test_local_starts_each_process_with_its_number(start, tmp_path):
    status, _, errors = end(start(*local(3, "--x=a b")))
    assert status == 0, errors
    found = started(tmp_path / "w", 3)
    port = re.match("--coordinator=localhost:([0-9]+) ", found[0][0])[1]
    for i, (arguments, device) in enumerate(found):
        shared = f"--coordinator=localhost:{port} --num_processes=3 --process_id={i}"
        assert arguments == f"{shared} --workdir=../w --x=a b" and device == str(i)
    assert not list((tmp_path / "logs").iterdir())  # nothing went wrong, nothing to read


@pytest.mark.parametrize("deaf", ["", "--deaf=0"])
def test_local_ends_all_when_one_fails(start, tmp_path, deaf):
    process = start(*local(3, "--fail=2", "--sleep=100", *filter(None, [deaf])))
    status, _, errors = end(process)
    assert status == 7
    assert "process 2 ended with status 7\nout of luck\n" in errors
    assert (tmp_path / "w" / "signals1").read_text() == "SIGTERM\n"  # before it comes to kill -9
    started(tmp_path / "w", 3)
    assert len(list((tmp_path / "logs").glob("*/2.log"))) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("leave", [0, 130])
def test_local_passes_signals_on_and_waits(start, tmp_path, name, leave):
    workdir = tmp_path / "w"
    process = start(*local(2, "--sleep=100", "--save=0.3", f"--leave={leave}"))
    wait_for(workdir / "started0", workdir / "started1")
    process.send_signal(signal.Signals[name])
    assert end(process)[0] == leave
    for i in range(2):  # one signal, although the other process left first, with an error or not
        assert (workdir / f"signals{i}").read_text().split() == [name]
        assert (workdir / f"saved{i}").exists()
    started(workdir, 2)


def test_local_sees_a_process_that_is_killed_with_its_group(start, tmp_path):
    workdir = tmp_path / "w"
    process = start(*local(2, "--sleep=100"))
    wait_for(workdir / "started0", workdir / "started1")
    os.killpg(int((workdir / "started1").read_text().split("\n")[2]), signal.SIGKILL)
    assert end(process)[0] == 137
    started(workdir, 2)


def test_local_leaves_nothing_behind_when_it_must_quit(start, tmp_path):
    process = start(*local(2, "--sleep=100", "--deaf=1"))
    wait_for(tmp_path / "w" / "started0", tmp_path / "w" / "started1")
    process.send_signal(signal.SIGQUIT)
    assert end(process)[0] == 131
    started(tmp_path / "w", 2)


def test_dry_runs_print_the_commands_and_run_nothing(start, checkout, tmp_path):
    def lines(*command):
        status, out, errors = end(start(*command))
        assert (status, errors) == (0, "")
        return [shlex.split(line) for line in out.splitlines()]

    found = lines("scripts/launch/local.sh", "--print", "2", "standin", *JOB_COMMAND[3:])
    for i, line in enumerate(found):
        assert line[:4] == [f"JAX_LOCAL_DEVICE_IDS={i}", *JOB_COMMAND[:3]]
        assert line[4].startswith("--coordinator=localhost:") and line[4] == found[0][4]
        assert line[5:] == ["--num_processes=2", f"--process_id={i}", *JOB_COMMAND[3:]]
    assert len(found) == 2
    command = ["scripts/launch/supervise", "srun", "--wait=300", *JOB_COMMAND]
    assert lines("bash", "scripts/launch/slurm.sbatch", "--print", "standin", *JOB_COMMAND[3:]) == [
        command
    ]
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "my-tpu", "--zone=z", "--worker=all"]
    ((*head, tail),) = lines(
        "scripts/launch/tpu_vm.sh", "--print", "my-tpu", "z", "standin", *JOB_COMMAND[3:]
    )
    assert head == ssh and "scripts/launch/supervise " + shlex.join(JOB_COMMAND[:4]) in tail
    ((*head, tail),) = lines("scripts/launch/tpu_vm.sh", "--print", "my-tpu", "z", "--stop")
    assert head == ssh and tail.startswith("--command=kill -TERM")
    assert not (checkout / "calls").exists() and not list((tmp_path / "w").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "local.sh 0 standin",
        "local.sh 2 no",
        "tpu_vm.sh t z no",
        "slurm.sbatch no",
        "local.sh",
        "local.sh 2 ../experiments/standin",
        "local.sh 2 common/flags",
        "local.sh 2 recipes",
        "tpu_vm.sh t z ../experiments/standin",
        "slurm.sbatch common/flags",
        "../run ../experiments/standin",
        "../run common/flags",
        "../run recipes",
        "../run _private",
        "../run",
    ],
)
def test_a_wrong_job_or_number_is_one_line_and_status_2(start, command):
    status, _, errors = end(start("bash", *f"scripts/launch/{command}".split()))
    assert status == 2 and errors.startswith("error: ") and errors.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", ["local.sh", "slurm.sbatch", "tpu_vm.sh", "supervise"])
def test_help_is_the_usage_and_no_error(tmp_path, name, flag):
    shell = sys.executable if name == "supervise" else "bash"
    process = subprocess.run(
        [shell, str(LAUNCH / name), flag], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0 and process.stderr == ""
    lines = process.stdout.splitlines()
    assert name in lines[0] and len(lines) > 5 and not any(line[:1] == "#" for line in lines)


@pytest.mark.parametrize(
    "command", ["--help", "-h", "--version", "prepare --help", "standin --help", "standin -h"]
)
def test_run_hands_all_requests_for_help_to_the_command(tmp_path, command):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(LAUNCH.parent / "run", tmp_path / "scripts")
    (tmp_path / "scripts" / "environment.sh").touch()
    (tmp_path / "experiments" / "standin.py").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    process = subprocess.run(
        ["sh", str(tmp_path / "scripts" / "run"), *command.split()], capture_output=True, text=True
    )
    assert process.returncode == 0 and process.stderr == ""
    assert process.stdout == f"-m dlcore {command}\n"


def test_slurm_saves_and_queues_again_when_the_time_is_up(start, checkout, tmp_path):
    process = start(
        "bash", "scripts/launch/slurm.sbatch", "standin", "--workdir=../w", "--sleep=100"
    )
    wait_for(tmp_path / "w" / "started0")
    process.send_signal(signal.SIGUSR1)
    status, _, errors = end(process)
    assert status == 0 and "SIGUSR1" in errors  # what is told to the supervisor
    assert (tmp_path / "w" / "saved0").exists()
    calls = (checkout / "calls").read_text().splitlines()
    assert calls == ["scancel --signal=TERM 12", "scontrol requeue 12"]


def test_slurm_ends_with_the_status_of_the_run(start, checkout):
    flags = ["--workdir=../w", "--fail=0", "--num_processes=1"]
    (checkout / "bin" / "sleep").symlink_to("/bin/true")
    script = checkout / "scripts" / "launch" / "slurm.sbatch"
    script.write_text(script.read_text().replace("supervise srun", "supervise --tries=1 srun"))
    assert end(start("bash", str(script), "standin", *flags))[0] == 7
    assert not (checkout / "calls").exists()


def test_tpu_vm_starts_a_run_that_outlives_the_connection_and_stops_it(start, tmp_path):
    command = ["scripts/launch/tpu_vm.sh", "my-tpu", "z"]
    assert end(start(*command, "standin", "--workdir=../w", "--sleep=100", "--x=a b"))[0] == 0
    workdir = tmp_path / "w"
    wait_for(workdir / "started0")
    assert (workdir / "started0").read_text().startswith("--workdir=../w --sleep=100 --x=a b\n")
    assert end(start(*command, "--stop"))[0] == 0
    wait_for(workdir / "saved0")


def test_kubernetes_names_job_coordinator_and_index_consistently():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name, pods = job["metadata"]["name"], spec["completions"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (spec["completionMode"], spec["parallelism"]) == ("Indexed", pods)
    args = container["args"]
    assert args[0] == "dlcore" and args[1] in jobs.names()
    flags = dict(flag[2:].split("=") for flag in args[2:])
    assert re.fullmatch(rf"{name}-0\.{pod['subdomain']}:\d+", flags["coordinator"])
    assert int(flags["num_processes"]) == pods
    assert flags["process_id"] == "$(JOB_COMPLETION_INDEX)"
    program, *options = container["command"]
    image = (LAUNCH.parent.parent / "Dockerfile").read_text(encoding="utf-8")
    assert f"COPY scripts/launch/{program} /usr/local/bin/{program}" in image
    user = pod["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in image
    assert f"--done={flags['workdir']}/summary.json" in options
    mount = container["volumeMounts"][0]
    assert flags["workdir"].startswith(mount["mountPath"] + "/")
    assert mount["name"] == pod["volumes"][0]["name"]
    wrong_input, evicted = spec["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert wrong_input == {"action": "FailJob", "onExitCodes": codes}
    assert evicted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 120


def test_the_scripts_are_short_and_read_by_their_shells():
    for name in ("local.sh", "slurm.sbatch", "tpu_vm.sh"):
        subprocess.run(["bash", "-n", str(LAUNCH / name)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", str(LAUNCH / name)], check=True)
    for name in ("slurm.sbatch", "tpu_vm.sh", "kubernetes.yaml"):
        assert len((LAUNCH / name).read_text().splitlines()) < 60
