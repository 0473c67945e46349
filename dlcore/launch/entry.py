"""The entry of a job: from command-line arguments to an exit status."""

import contextlib
import errno
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO, cast

from absl import logging

from dlcore.errors import InputError
from dlcore.launch import flags, info, jobs, planning
from dlcore.launch import workdir as folders
from dlcore.launch.checking import check
from dlcore.launch.loading import trained_by
from dlcore.launch.predictions import predict
from dlcore.launch.process import START, say
from dlcore.launch.rates import find_rate
from dlcore.launch.running import Interrupted, run
from dlcore.launch.task import Task
from dlcore.runtime import processes
from dlcore.runtime.output import unfailing


def main(task: type[Task[Any, Any]], arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a job's command and ends the process.

    The exit status is 0 for success, 1 when a check fails or a plan does not fit, 2 for an error in
    the input (one line, no traceback) and 130 after Ctrl-C.

    Args:
        task: the class of the job's task.
        arguments: the command-line arguments, by default those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # Orbax logs the life of each checkpoint and the traceback of each failure that it also raises.
    # When one of its writes fails, it closes the event loop under the others, which complain.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _without_leftovers
    guarded(lambda: _command(task, arguments))


def guarded(command: Any) -> NoReturn:
    """Runs a command that returns its exit status, and ends the process with it.

    Bad input leads to one line on standard error and status 2. Any other failure leads to a
    traceback and status 1, which ends the other processes of a run too. Output that cannot be
    written does not end a command before its work is done; the command reports it at the end, with
    status 2.
    """
    # Descriptors that were closed before the start would be given to files, into which libraries
    # that write to standard error by number would then write.
    while (free := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(free)
    out, errors = unfailing(sys.stdout), unfailing(sys.stderr)
    with (
        contextlib.redirect_stdout(cast(TextIO, out)),
        contextlib.redirect_stderr(cast(TextIO, errors)),
    ):
        try:
            status = _status(command)
        finally:
            out.flush()
            if out.error is not None:
                # What is left in the buffer goes nowhere, or the interpreter's own exit would fail.
                with contextlib.suppress(OSError, ValueError):  # a stream that is no file
                    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if out.error is not None and out.error.errno != errno.EPIPE:  # no reader who has gone
            print(f"error: cannot write to standard output: {out.error.strerror}", file=errors)
            status = status or 2
        if status:
            processes.exit_process(status)
    sys.exit(0)


def _status(command: Any) -> int:
    try:
        return command()
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        say(str(interrupted))
        # The other processes may still be writing their parts of the checkpoint.
        sys.exit(130 if interrupted.signal == "SIGINT" else 0)
    except KeyboardInterrupt:  # before training, or the second one during it
        print("interrupted; what was saved before is kept", file=sys.stderr)
        return 130
    except SystemExit:
        raise
    except BaseException as error:
        processes.fail(error)


def _command(task: type[Task[Any, Any]], arguments: Sequence[str]) -> int:
    config_class, _ = task.parts()
    name = task.name()
    if flags.wants_help(arguments):
        text = (sys.modules[task.__module__].__doc__ or task.__doc__ or name).strip()
        print(f"{text}\n\nFlags of {name}:\n\n{flags.help_text(config_class)}")
        return 0
    recipes = jobs.recipes(name)
    config, given = flags.parse(
        config_class,
        arguments,
        recipes=recipes if recipes.is_dir() else None,
        base=_run_asked(task, arguments),
    )
    config = planning.settle(config)
    if config.plan:
        return 0 if planning.print_plan(task(config)) else 1
    processes.initialize(config.coordinator, config.num_processes, config.process_id)
    if config.check:
        if processes.is_distributed():
            raise InputError("--check runs in one process only")
        return 0 if check(task(config)) else 1
    if getattr(config, "find_rate", None) is not None:
        return 0 if find_rate(task(config)) else 1
    if config.predict is not None:
        predict(trained_by(task, config, given), config.predict, config.predict_to)
        return 0
    if task.use(config, given):
        return 0
    run(task(config), started=START)
    return 0


def _run_asked(task: type[Task[Any, Any]], arguments: Sequence[str]) -> Any:
    """Returns the configuration of the run in --workdir, if a command asks that run for something.

    So the other flags of the command are checked together with the run's own options.

    Raises:
        InputError: when the folder holds a run of another job.
    """
    workdir = flags.value_of(arguments, "workdir")
    if workdir is None or not any(flags.value_of(arguments, name) for name in task.asks):
        return None
    folder = pathlib.Path(workdir)
    if not folders.holds_run(folder):
        return None
    info.require_job(folder, task.name())
    config_class, _ = task.parts()
    return config_class.from_json(folders.read_config(folder)).for_use()


def _without_leftovers(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
