"""Files that would never end, or unpack without end."""

import gzip
import os
import pathlib
import socket
import tracemalloc

import numpy as np
import pytest

from dlcore import files, launch
from dlcore.data.pictures import StoredImage, opened
from dlcore.data.text.files import read_lines, read_text
from dlcore.data.text.splitting import sentences
from dlcore.data.text.vectors import Vectors, read_vectors, write_vectors
from dlcore.data.text.vocabulary import Vocabulary
from dlcore.errors import InputError
from dlcore.evaluation.word_questions import read_analogies
from dlcore.files import open_file, read_whole, unpacked, write_whole
from dlcore.launch.workdir import claimed, record
from dlcore.models.torch_files import read_torch_file
from dlcore.report import write_page
from dlcore.report.plots import plot_bars
from dlcore.train.logs import RunLog, write_json

READERS = {
    "text": read_text,
    "lines": read_lines,
    "vectors": read_vectors,
    "analogies": read_analogies,
    "words": lambda path: [*sentences(path, splitter="space")],
    "weights": read_torch_file,
    "image": lambda path: opened(StoredImage(path, 0, str(path))).__enter__(),
}
PACKED = ("text", "lines", "vectors", "analogies", "words")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/full"])
def test_devices_are_refused(reader: str, device: str) -> None:
    with pytest.raises(InputError, match="device or a socket|there is no file") as error:
        READERS[reader](pathlib.Path(device))
    assert device in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_links_to_devices_and_sockets_are_refused(reader: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "link.txt").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tmp_path)
        listener.bind("socket")
        for name in ("link.txt", "socket"):
            with pytest.raises(InputError, match="device or a socket|there is no file"):
                READERS[reader](tmp_path / name)


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_without_a_writer_is_empty(reader: str, tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError):
        READERS[reader](tmp_path / "pipe")


def test_a_pipe_with_a_writer_is_read() -> None:
    out, into = os.pipe()
    try:
        os.write(into, b"one\ntwo\n")
        os.close(into)
        assert read_lines(pathlib.Path(f"/dev/fd/{out}")) == ["one", "two"]
    finally:
        os.close(out)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Small files that unpack to 8 MB, as one piece, in many, and within one another."""
    folder = tmp_path_factory.mktemp("bombs")
    line = b"cat " + b"1 " * 500 + b"\n"
    contents = {
        "lines": gzip.compress(line * 8000),
        "one line": gzip.compress(b"a" * 8_000_000),
        "members": gzip.compress(line * 800) * 10,
        "header": gzip.compress(b"8000 500\n" + line * 8000),
    }
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(content)
    return {name: folder / f"{name}.gz" for name in contents}


@pytest.mark.parametrize("reader", PACKED)
@pytest.mark.parametrize("bomb", ["lines", "one line", "members", "header"])
def test_files_that_unpack_without_end_stop_early(
    reader: str, bomb: str, bombs: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SMALL", 1 << 18)
    monkeypatch.setattr(files, "_BLOCK", 1 << 16)
    path = bombs[bomb]
    assert 8_000_000 > 100 * path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="unpacks to more than 100 times its size") as error:
            READERS[reader](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value) and peak < 200 * path.stat().st_size + (40 << 20)


def test_small_files_may_unpack_to_anything(bombs: dict[str, pathlib.Path]) -> None:
    assert len(read_whole(bombs["one line"])) == 8_000_000


def test_packed_files_are_read_as_plain_ones(tmp_path: pathlib.Path) -> None:
    """Whatever their names, with seeking, at every size of a read."""
    text = "".join(f"word{number} é\n" for number in range(3000)).encode()
    for name, content in (("a", gzip.compress(text)), ("b.gz", text), ("c", text)):
        (tmp_path / name).write_bytes(content)
        assert read_whole(tmp_path / name) == text
        with open_file(tmp_path / name) as file:
            reader = unpacked(file)
            assert reader.read(7) == text[:7]
            reader.seek(20_000)
            assert reader.readline() == text[20_000 : text.index(b"\n", 20_000) + 1]
            reader.seek(0)
            assert reader.read() == text
    vectors = Vectors(["a", "b"], np.ones((2, 3), np.float32))
    write_vectors(tmp_path / "v.gz", vectors)
    os.rename(tmp_path / "v.gz", tmp_path / "v")
    assert read_vectors(tmp_path / "v").words == ["a", "b"]


def test_what_is_larger_than_memory_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file with holes, whose size is no measure of its disk."""
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    with (tmp_path / "holes.txt").open("wb") as file:
        file.truncate(1 << 40)
    for reader in ("text", "lines", "analogies"):
        with pytest.raises(InputError, match="holes.txt: it is larger than 1,024,000 bytes"):
            READERS[reader](tmp_path / "holes.txt")


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("linked", ["file.json", "file.json.partial"])
def test_what_a_link_leads_to_is_not_written(
    tmp_path: pathlib.Path, dangling: bool, linked: str
) -> None:
    target = tmp_path / "precious"
    if not dangling:
        target.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / linked).symlink_to(target)
    write_whole(tmp_path / "run" / "file.json", "text é\n")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["file.json"]
    assert not (tmp_path / "run" / "file.json").is_symlink()
    assert (tmp_path / "run" / "file.json").read_text(encoding="utf-8") == "text é\n"
    assert not target.exists() if dangling else target.read_text() == "precious"


def test_a_failed_write_keeps_the_old_file(tmp_path: pathlib.Path) -> None:
    write_whole(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "file", "new \ud800")
    assert (tmp_path / "file").read_text() == "old"
    write_whole(tmp_path / "file", "new \ud800", errors="backslashreplace")
    assert (tmp_path / "file").read_text() == "new \\ud800"


# Each file that a run writes by itself, by what writes it.
WRITERS = {
    ".lock": lambda folder: claimed(folder, launch.Config()).__enter__(),
    "flags.txt": lambda folder: record(folder, "job", launch.Config()),
    "config.json": lambda folder: record(folder, "job", launch.Config()),
    "metrics.jsonl": lambda folder: RunLog(folder, progress=False).close(),
    "summary.json": lambda folder: write_json(folder / "summary.json", {}),
    "index.html": lambda folder: write_page(folder, "page", []),
    "picture.png": lambda folder: plot_bars(
        {"a": 1.0}, folder / "picture.png", title="", x="", y=""
    ),
    "vocabulary.json": lambda folder: Vocabulary.build(["a b"], level="word").save(
        folder / "vocabulary.json"
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dangling", [False, True])
def test_no_file_of_a_run_is_written_through_a_link(
    name: str, dangling: bool, tmp_path: pathlib.Path
) -> None:
    """It is replaced by a file of the run, or named as a link that should go."""
    target = tmp_path / "precious"
    if not dangling:
        target.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(target)
    try:
        WRITERS[name](folder)
        assert not (folder / name).is_symlink()
    except InputError as error:
        assert f"{name} is a link; remove it" in str(error) or "no run wrote" in str(error)
    assert not target.exists() if dangling else target.read_text() == "precious"


def test_a_lock_that_is_no_file_stops_nobody_for_ever(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with claimed(tmp_path, launch.Config()):
        with pytest.raises(InputError, match="another process is running in"):
            claimed(tmp_path, launch.Config()).__enter__()
    with claimed(tmp_path, launch.Config()):
        pass
