"""One script per job, launched by flags; `common` holds what they share."""

import os
import sys
import time

START = time.perf_counter()  # before the heavy imports, which are part of what a user waits for

# XLA's CPU backend allocates the buffers of a step anew at each step, and the kernel clears their
# pages: up to a third of a step where these are small. The C library asks for large ones, and keeps
# what was freed, only when it was told so before the process started, so a script starts once more,
# before its imports.
TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=2147483647:glibc.malloc.top_pad=67108864"
)
if "GLIBC_TUNABLES" not in os.environ and any(
    option == "-m" and module.startswith("experiments.")
    for option, module in zip(sys.orig_argv[1:], sys.orig_argv[2:], strict=False)
):
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
