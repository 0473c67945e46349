"""JSON files that are damaged, or hold something else than what was written there."""

import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.numpy

from dlcore.data.text import Vocabulary
from dlcore.data.text.cooccurrence import open_cooccurrences
from dlcore.data.text.token_file import open_token_file
from dlcore.errors import InputError
from dlcore.files import read_json, read_json_lines
from dlcore.launch import info, jobs
from dlcore.launch.loading import read_summary
from dlcore.launch.workdir import read_config
from dlcore.models.text.gpt2 import load_gpt2
from dlcore.report import write_report

DAMAGE = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "text": b'"run"',
    "cut": b'{"step": 1',
    "no text": b"\xff\xfe\x00{",
    "deep": b"[" * 100_000,
    "digits": b'{"step": ' + b"9" * 5000 + b"}",
}
READERS: dict[str, tuple[str, Callable[[pathlib.Path], Any]]] = {
    "config": ("config.json", read_config),
    "info": ("run.json", info.read_job),
    "summary": ("summary.json", read_summary),
    "vocabulary": ("words.json", lambda folder: Vocabulary.load(folder / "words.json")),
    "counts": ("cooccurrences/meta.json", open_cooccurrences),
    "tokens": ("meta.json", open_token_file),
    "gpt2": ("config.json", lambda folder: load_gpt2(folder / "gpt2.safetensors")),
    "report's metrics": ("metrics.jsonl", write_report),
    "report's summary": ("summary.json", write_report),
    "report's configuration": ("config.json", write_report),
    "comparison's metrics": ("metrics.jsonl", jobs.module("comparison").read),
    "comparison's summary": ("summary.json", jobs.module("comparison").read),
}


def whole(folder: pathlib.Path) -> None:
    (folder / "cooccurrences").mkdir()
    for name in ("metrics.jsonl", "summary.json", "config.json"):
        (folder / name).write_text("{}\n" * (name != "metrics.jsonl"))
    safetensors.numpy.save_file({}, folder / "gpt2.safetensors")


@pytest.mark.parametrize(
    ("reader", "damage"),
    # Metrics without a line are those of a run that has none yet.
    sorted(
        set(itertools.product(READERS, DAMAGE))
        - {(f"{whose} metrics", "empty") for whose in ("report's", "comparison's")}
    ),
)
def test_damaged_files_are_one_line(tmp_path: pathlib.Path, reader: str, damage: str) -> None:
    whole(tmp_path)
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(DAMAGE[damage])
    with pytest.raises(InputError, match=str(tmp_path)) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_devices_are_refused(tmp_path: pathlib.Path, reader: str) -> None:
    whole(tmp_path)
    name, read = READERS[reader]
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match=str(tmp_path)):
        read(tmp_path)


@pytest.mark.parametrize(
    "values",
    [{"job": "a"}, {"data": {}}, {"job": "a", "data": []}, {"job": "a", "data": None}],
)
def test_what_a_run_remembers_has_its_parts(tmp_path: pathlib.Path, values: Any) -> None:
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="run.json is not what a run wrote"):
        info.read_job(tmp_path)


def test_whole_files_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    rows = [{"step": 1, "split": "é", "loss": None}, {"step": 2, "split": "test", "loss": 0.1}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_json_lines(path) == rows
    path.write_text(json.dumps(rows[0]))
    assert read_json(path) == rows[0]
