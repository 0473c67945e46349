"""A fix for JAX's compilation cache on a disk that several processes share."""

import contextlib
import functools
import os
import uuid
from typing import Any


def write_whole_entries() -> None:
    """Makes JAX write each entry of its compilation cache as a whole or not at all.

    JAX writes an entry in place, so that another process may read half of an entry, and a process
    that is killed leaves half an entry for good: the readers warn and compile. If a version of JAX
    stores its cache in another way than 0.10, this changes nothing.
    """
    try:
        from jax._src import lru_cache

        cache, suffixes = lru_cache.LRUCache, (lru_cache._CACHE_SUFFIX, lru_cache._ATIME_SUFFIX)
        put = cache.put
    except (ImportError, AttributeError):
        return
    if hasattr(put, "whole"):
        return

    @functools.wraps(put)
    def put_whole(self: Any, key: str, value: bytes) -> None:
        folder = getattr(self, "path", None)
        if folder is None or "://" in str(folder):  # object stores have no half-written files
            return put(self, key, value)
        entry, atime = (os.path.join(folder, key + suffix) for suffix in suffixes)
        if not key or os.path.exists(entry):
            return None
        # Under another name until it is whole; JAX's own lock, where it has one, lets a thread in
        # that holds it.
        partial = f"partial-{uuid.uuid4().hex}"
        locked: Any = contextlib.nullcontext()
        if hasattr(self, "lock"):
            locked = self.lock.acquire(timeout=self.lock_timeout_secs)
        with locked:
            put(self, partial, value)
            for suffix, target in zip(suffixes[::-1], (atime, entry), strict=True):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(os.path.join(folder, partial + suffix), target)
        return None

    put_whole.whole = True  # type: ignore[attr-defined]
    cache.put = put_whole  # type: ignore[method-assign]
