"""The process of a command: its start time, its messages, and how its C library keeps memory.

Nothing heavy is imported here, because a command that restarts itself does so before its imports.
"""

import gc
import os
import sys
import time

START = time.perf_counter()  # before the heavy imports, which are part of what a user waits for

# XLA's CPU backend allocates the buffers of a step anew at each step, and the kernel clears their
# pages: up to a third of a step where these are small. The C library asks for large ones, and keeps
# what was freed, only when it was told so before the process started.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=2147483647:glibc.malloc.top_pad=67108864"
)


# How many new objects the garbage collector lets come, and how many of its rounds, before it looks
# at all older ones. To import and to trace makes millions of objects that stay: with Python's
# numbers, 700 and 10, the collector takes a tenth of a command's time to the first step.
COLLECTOR = (200_000, 20, 100)


def settle_environment() -> None:
    """Sets what libraries read from the environment, for which a command restarts itself.

    It also sets how often the garbage collector runs (`COLLECTOR`), and makes tqdm draw its bars on
    a terminal only: in a file they would be one endless line. Arguments and file names are UTF-8,
    whatever the locale.
    """
    if not os.isatty(2):
        os.environ.setdefault("TQDM_DISABLE", "1")
    settled = {"GLIBC_TUNABLES": TUNABLES}
    is_told = sys.flags.ignore_environment or "utf8" in sys._xoptions
    if sys.getfilesystemencoding() != "utf-8" and not is_told:
        os.environ.pop("PYTHONUTF8", None)
        settled["PYTHONUTF8"] = "1"
    missing = settled.keys() - os.environ.keys()
    os.environ.update({name: settled[name] for name in missing})
    if missing:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    gc.set_threshold(*COLLECTOR)


def is_command(package: str) -> bool:
    """Returns whether this process was started as `python -m PACKAGE...`."""
    return any(
        option == "-m" and (module == package or module.startswith(f"{package}."))
        for option, module in zip(sys.orig_argv[1:], sys.orig_argv[2:], strict=False)
    )


def say(line: str) -> None:
    """Prints a line about the run for the person at the terminal; of several processes one prints.

    Standard output is for results.
    """
    from dlcore.runtime import processes
    from dlcore.runtime.output import unfailing

    if processes.is_primary():
        print(line, file=unfailing(sys.stderr))
