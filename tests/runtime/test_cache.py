"""JAX's compilation cache, shared by processes that write and read the same entries at once."""

import os
import subprocess
import sys

import jax
import pytest

lru_cache = pytest.importorskip("jax._src.lru_cache")

SIZE, KEYS = 4_000_000, 20
# Each process writes every entry and looks for those that the other one is about to write.
CODE = f"""
import sys
from jax._src.lru_cache import LRUCache
from dlcore.runtime.cache import write_whole_entries
write_whole_entries()
folder, me, maximum = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache, seen = LRUCache(folder, max_size=maximum), set()
for i in range({KEYS}):
    if i % 2 == me:
        cache.put(f"key{{i}}", bytes([i]) * {SIZE})
    else:
        while (found := cache.get(f"key{{i}}")) is None:
            pass
        seen.add(found == bytes([i]) * {SIZE})
print(seen)
"""


@pytest.mark.parametrize(
    "maximum",
    [-1, pytest.param(4 * SIZE * KEYS, marks=pytest.mark.slow)],
    ids=["without lock", "with lock"],
)
def test_no_process_reads_half_an_entry(tmp_path, maximum):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path), str(me), str(maximum)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for me in (0, 1)
    ]  # fmt: skip
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["{True}"] * 2
    names = {path.name for path in tmp_path.glob("*-cache")}
    assert names == {f"key{i}-cache" for i in range(KEYS)}


def test_an_entry_that_is_there_stays_and_one_too_large_is_left_out(tmp_path):
    cache = lru_cache.LRUCache(str(tmp_path), max_size=100)
    cache.put("a", b"first")
    cache.put("a", b"second")
    with pytest.warns(UserWarning, match="exceeds"):
        cache.put("b", bytes(200))
    assert cache.get("a") == b"first" and cache.get("b") is None
    cache.put("c", bytes(98))  # evicts the first
    assert cache.get("a") is None and cache.get("c") == bytes(98)
    assert not list(tmp_path.glob("partial-*"))


def test_the_suite_writes_whole_entries():
    assert lru_cache.LRUCache.put.whole and jax.config.jax_compilation_cache_dir
