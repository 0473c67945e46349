"""Runs the blocks of a tutorial in an empty folder, and compares what they print with the page.

Of a page in MyST Markdown

- a block `python` is executed, all of a page in one namespace; a block `text` after it shows what
  it printed;
- a block `console` has commands after `$ ` (a line that ends in a backslash goes on in the next
  one), and under each command what it printed;
- a `code-block` with a `:caption:` is a file of that name.

Of a notebook, cells and their outputs are such blocks. A line `...` in what is shown stands for any
lines.

    python tests/docs/tutorial_pages.py PAGE...

runs pages and writes what their blocks print into them.
"""

import ast
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import jax

from dlcore.launch import entry, jobs

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
_FENCE = re.compile(r"^```(\{?[\w-]+\}?) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CAPTION = re.compile(r"\A:caption: (\S+)\n\n?")
# Progress bars, which users see on a terminal alone.
_BAR = re.compile(r"\r[^\n]*\n?")
# What depends on the clock.
_TIMES = re.compile(
    r"\d+:\d\d:\d\d left|[\d.e+]+ steps/s|[\d.]+ [kMGT]?FLOP/s|waits for data \d+%|[\d.]+ s\b"
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Block:
    """Something on a page that can be run.

    Attributes:
        kind: "python", "command", or the name of a "file" to be written.
        text: the source, the command or what the file holds.
        shown: the lines that the page shows as its output; None where it shows none, since the
            output is a picture or nothing.
        at: the offset of these lines on the page, for a page in Markdown.
    """

    kind: str
    text: str
    shown: tuple[str, ...] | None
    at: int = 0


def blocks(page: pathlib.Path) -> list[Block]:
    """Returns the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return [
            Block("python", "".join(cell["source"]), tuple(_printed(cell)) or None)
            for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "code"
        ]
    found: list[Block] = []
    for fence in _FENCE.finditer(text):
        language, argument, body = fence.groups()
        at = fence.start(3)
        if language == "{code-block}":
            caption = _CAPTION.match(body)
            if caption:
                found.append(Block(caption[1], body[caption.end() :], None))
        elif language == "python":
            found.append(Block("python", body, None))
        elif language == "text" and found and found[-1].kind == "python":
            found[-1] = dataclasses.replace(found[-1], shown=tuple(body.splitlines()), at=at)
        elif language == "console":
            found += _commands(body, at)
    return found


def _printed(cell: dict) -> Iterator[str]:
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield from "".join(output["text"]).splitlines()
        elif output["output_type"] == "execute_result":
            yield from "".join(output["data"]["text/plain"]).splitlines()


def _commands(body: str, at: int) -> Iterator[Block]:
    lines = body.splitlines(keepends=True)
    while lines:
        command = lines.pop(0)
        assert command.startswith("$ "), f"no command: {command}"
        at += len(command)
        while command.endswith("\\\n"):
            at += len(lines[0])
            command = command[:-2].rstrip() + " " + lines.pop(0).lstrip()
        shown = []
        while lines and not lines[0].startswith("$ "):
            shown.append(lines.pop(0))
        yield Block("command", command[2:].strip(), tuple(map(str.rstrip, shown)), at)
        at += sum(map(len, shown))


def run(page: pathlib.Path, folder: pathlib.Path) -> Iterator[tuple[Block, list[str]]]:
    """Runs a page in a folder, the current one; yields each block with the lines that it printed.

    Jobs run in this process, which has imported everything.
    """
    names: dict = {"__name__": "page"}
    execute = _execute_cell if page.suffix == ".ipynb" else exec
    with _importable(folder):
        for block in blocks(page):
            if block.kind == "python":
                yield block, _output(lambda source=block.text: execute(source, names))
            elif block.kind == "command":
                yield block, _output(lambda command=block.text: _command(command, folder))
            else:
                (folder / block.kind).write_text(block.text, encoding="utf-8")


@contextlib.contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Lets the files of a page be imported, and forgets them afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in [*sys.modules.items()]:
            if str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def _output(work: Callable[[], None]) -> list[str]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        # As users have it: tests make JAX stricter.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            work()
    printed = _BAR.sub("", stream.getvalue())
    return [line.rstrip() for line in printed.splitlines()]


def _execute_cell(source: str, names: dict) -> None:
    """Executes a cell, and prints the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if value is not None and not source.rstrip().endswith(";"):
            print(repr(value))


def _command(command: str, folder: pathlib.Path) -> None:
    program, *arguments = shlex.split(command)
    # A plan makes the devices that it is for, which must be done before JAX starts.
    plain = not re.search(r"[|<>;&*]|--plan", command)
    if program == "dlcore" and arguments[0] in jobs.names() and plain:
        _end(command, lambda: entry.main(jobs.task_class(arguments[0]), arguments[1:]))
    elif program == "python" and arguments[0].endswith(".py") and plain:
        argv, sys.argv = sys.argv, arguments
        try:
            _end(command, lambda: runpy.run_path(arguments[0], run_name="__main__"))
        finally:
            sys.argv = argv
    else:
        print(_in_bash(command, folder), end="")


def _in_bash(command: str, folder: pathlib.Path) -> str:
    """Runs a command, by which the checkout is ~/dlcore; returns what it printed."""
    home = folder / ".home"
    home.mkdir(exist_ok=True)
    if not (home / "dlcore").exists():
        (home / "dlcore").symlink_to(ROOT)
    settings = {"HOME": str(home), "LC_ALL": "C.UTF-8", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        ["bash", "-c", f"{_PROGRAMS}\n{command}"],
        cwd=folder,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=600)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


# The programs that a page names are those of this environment.
_PROGRAMS = f"""
python() {{ {shlex.quote(sys.executable)} "$@"; }}
dlcore() {{ {shlex.quote(sys.executable)} -m dlcore "$@"; }}
"""


def _end(command: str, work: Callable[[], object]) -> None:
    entry.START = time.perf_counter()
    try:
        work()
    except SystemExit as ended:
        assert ended.code in (None, 0, 1, 2), f"{command} ended with {ended.code}"


def differences(shown: tuple[str, ...], printed: list[str]) -> list[str]:
    """Returns what is different in the lines that a page shows, and in those that were printed."""
    found, at = [], 0
    skipping = False
    for line in shown:
        if line == "...":
            skipping = True
            continue
        while skipping and at < len(printed) and not alike(line, printed[at]):
            at += 1
        skipping = False
        if at >= len(printed) or not alike(line, printed[at]):
            found.append(f"shown: {line}\n  printed: {''.join(printed[at : at + 1])}")
        at += 1
    if not skipping and at < len(printed):
        found.append("printed but not shown: " + "\n".join(printed[at:]))
    return found


def alike(shown: str, printed: str) -> bool:
    """Returns whether two lines differ in no more than what is measured.

    Words, and numbers without a decimal point, are the same. Numbers with one come from training,
    which differs between processors: they agree to a quarter of their size, or to 0.05.

    >>> alike("step 250: test accuracy 0.98, 3.1 s", "step 250: test accuracy 0.97, 20 s")
    True
    >>> alike("step 250: test accuracy 0.98", "step 300: test accuracy 0.98")
    False
    >>> alike("test accuracy 0.98", "test accuracy 0.7")
    False
    """
    shown, printed = (_TIMES.sub("#", line) for line in (shown, printed))
    if _NUMBER.sub("#", shown) != _NUMBER.sub("#", printed):
        return False
    for one, other in zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True):
        if "." in one + other or "e" in one + other:
            left, right = (float(text.replace(",", "")) for text in (one, other))
            if abs(left - right) > max(0.05, 0.25 * max(abs(left), abs(right))):
                return False
        elif one != other:
            return False
    return True


def filled(shown: tuple[str, ...], printed: list[str]) -> list[str]:
    """Returns what a page should show: what was printed, but for what `...` stands for."""
    if "..." not in shown:
        return printed
    lines = []
    for line in shown:
        kind = _NUMBER.sub("#", _TIMES.sub("#", line))
        same = [new for new in printed if _NUMBER.sub("#", _TIMES.sub("#", new)) == kind]
        best = next((new for new in same if alike(new, line)), same[0] if same else line)
        lines.append(line if line == "..." else best)
    return lines


def write(page: pathlib.Path) -> None:
    """Runs a page and writes what its blocks print into it."""
    if page.suffix == ".ipynb":
        return _write_notebook(page)
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        results = [*run(page, pathlib.Path(folder))]
    for block, printed in reversed(results):
        if block.shown is None:
            assert not printed, f"the page does not show what\n{block.text}prints:\n{printed}"
            continue
        before = sum(len(line) + 1 for line in text[block.at :].splitlines()[: len(block.shown)])
        new = "".join(line + "\n" for line in filled(block.shown, printed))
        text = text[: block.at] + new + text[block.at + before :]
    page.write_text(text, encoding="utf-8")


def _write_notebook(page: pathlib.Path) -> None:
    """Runs a notebook as Jupyter does; myst-nb, of the extra `docs`, brings what that needs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(page, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which would change in each commit
    nbformat.write(notebook, page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(pathlib.Path(name).resolve())
