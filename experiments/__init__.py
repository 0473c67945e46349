"""One script per job, launched by flags; `common` holds what they share."""

import time

START = time.perf_counter()  # before the heavy imports, which are part of what a user waits for
