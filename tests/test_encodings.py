"""Files, arguments and standard input are UTF-8 whatever the locale says."""

import ast
import io
import os
import pathlib
import sys

import pytest

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch import flags, process
from dlcore.launch.fields import path, paths, text, texts
from dlcore.launch.predictions import input_lines
from dlcore.launch.workdir import record
from dlcore.report.write import write_report
from dlcore.train.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("dlcore/**/*.py"), *ROOT.glob("experiments/**/*.py")])
ODD = os.fsdecode(b"data-\xff-\xd0\xba")  # as Python has what is not UTF-8


def without_encoding(source: str) -> list[str]:
    """Returns the calls that open text in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        named = {keyword.arg for keyword in node.keywords}
        constants = [one.value for one in node.args if isinstance(one, ast.Constant)]
        modes = [one for one in constants if isinstance(one, str) and {*one} <= {*"rwxab+t"}]
        # The encoding is the argument after these.
        first = {"read_text": 0, "write_text": 1}.get(name, -1)
        if (
            len(node.args) <= first
            or (name in ("open", "fdopen") and modes and "b" not in modes[0])
            or (name == "TextIOWrapper")
            or (name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & named)
        ) and "encoding" not in named:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_is_opened_in_a_named_encoding(path: pathlib.Path) -> None:
    assert without_encoding(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text('a')",
        "open(path, 'w')",
        "path.open('r')",
        "io.TextIOWrapper(file)",
        "subprocess.run(command, text=True)",
    ],
)
def test_calls_without_an_encoding_are_found(call: str) -> None:
    assert len(without_encoding(call)) == 1
    named = ast.parse(call).body[0].value
    named.keywords.append(ast.keyword("encoding", ast.Constant("utf-8")))
    assert without_encoding(ast.unparse(named)) == []


class Config(launch.Config):
    pass


@pytest.mark.parametrize("field", [text("", "a text"), texts("texts")])
def test_texts_are_utf_8(field) -> None:
    kind = field.metadata["spec"].kind
    kind.check("prompt", ("кот",) if kind.several else "кот")
    with pytest.raises(InputError, match="is not a text in UTF-8 without NUL characters") as error:
        kind.check("prompt", (ODD,) if kind.several else ODD)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", [path(None, "a path"), paths("paths")])
def test_paths_are_what_the_system_has(field) -> None:
    kind = field.metadata["spec"].kind
    for possible in (ODD, "данные"):
        kind.check("data_path", (possible,) if kind.several else possible)
    for wrong in ("a\0b", ODD * 400, "n" * 256, f"{'d/' * 3000}x"):
        assert not kind.allows((wrong,) if kind.several else wrong)


def test_a_run_with_a_path_that_is_not_utf_8_is_repeated_and_reported(tmp_path) -> None:
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    config = Config(data_path=ODD, workdir=str(tmp_path))
    record(tmp_path, "job", config)
    assert b"--data_path=data-\xff-\xd0\xba\n" in (tmp_path / "flags.txt").read_bytes()
    again, _ = flags.parse(Config, [f"--flagfile={tmp_path / 'flags.txt'}"])
    assert again.data_path == ODD
    page = write_report(tmp_path)
    assert "--data_path=data-\\xff-к" in page.read_text(encoding="utf-8")


def test_a_flag_file_that_is_no_text_is_one_line(tmp_path) -> None:
    (tmp_path / "f").write_bytes("--seed=1\n".encode("utf-16"))
    with pytest.raises(InputError, match="is not text in UTF-8; give a file of flags"):
        flags.parse(Config, [f"--flagfile={tmp_path / 'f'}"])


def test_checkpoints_have_names_in_utf_8(tmp_path) -> None:
    with pytest.raises(InputError, match="names in UTF-8 only; choose another --workdir") as error:
        Checkpoints(tmp_path / ODD, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_standard_input_is_utf_8(monkeypatch, encoding: str) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding=encoding))

    given("\ufeffкот\r\n\nü\n".encode())
    assert input_lines("-") == ["кот", "", "ü"]
    given(b"")
    assert input_lines("-") == []
    given(b"a\xff\n")
    with pytest.raises(InputError, match="standard input is not UTF-8; convert it to UTF-8"):
        input_lines("-")


@pytest.mark.parametrize(
    ("encoding", "options", "again"),
    [
        ("ascii", {}, True),
        ("iso8859-1", {}, True),
        ("utf-8", {}, False),
        ("ascii", {"utf8": "0"}, False),  # told on Python's own command line
    ],
)
def test_a_command_starts_again_in_utf_8(monkeypatch, encoding, options, again) -> None:
    started = []
    monkeypatch.setattr(os, "environ", {"GLIBC_TUNABLES": "mine", "PYTHONUTF8": "0"})
    monkeypatch.setattr(os, "execv", lambda path, command: started.append(command))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.setattr(sys, "_xoptions", options)
    process.settle_environment()
    assert started == ([[sys.executable, *sys.orig_argv[1:]]] if again else [])
    assert os.environ["PYTHONUTF8"] == ("1" if again else "0")
