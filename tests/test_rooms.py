"""The import table of the house: which room may know which."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOP = {"__init__", "__main__"}
EVERYWHERE = {"boxes", "errors", "files", "native", "parallel", "paths", "patterns", "types"}
# Rooms of dlcore that each room may import, beside itself.
ROOMS = {
    "nn": set(),
    "losses": {"metrics"},
    "metrics": set(),
    "decode": {"metrics"},
    "optim": {"metrics"},
    "models": {"nn", "losses", "metrics"},
    "data": set(),
    "runtime": set(),
    "train": {"runtime", "optim", "metrics"},
    "check": {"nn", "plan"},
    "plan": {"nn"},
    "report": {"metrics", "evaluation"},
    "evaluation": {"nn", "metrics"},
    "glossary": set(),
}
ROOMS["launch"] = set(ROOMS)
# Libraries that are imported in these places only.
ALONE = {
    "orbax": {"dlcore/train/checkpoint.py"},
    "tensorflow_datasets": {"dlcore/data/tfds.py"},
    "grain": {"dlcore/data/loader.py"},
    "tensorboardX": {"dlcore/train/board.py"},
    "tokenizers": {"dlcore/data/text/vocabulary.py"},
    "skimage": {"dlcore/models/detection/selective_search.py"},
    "sacrebleu": {"dlcore/metrics/translation.py"},
    "pycocotools": {"dlcore/metrics/detection.py"},
    "babel": {"dlcore/data/builders/dates.py"},
    "mido": {"dlcore/data/music/midi.py"},
    "safetensors": {"dlcore/models/text/gpt2.py", "dlcore/models/torch_files.py"},
}
FILES = sorted(ROOT.glob("dlcore/**/*.py"))
JOBS = sorted(ROOT.glob("experiments/**/*.py"))


def imports(path: pathlib.Path) -> set[str]:
    """The dotted names of all modules that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def name_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_only_what_the_table_allows(path):
    parts = path.relative_to(ROOT / "dlcore").parts
    if len(parts) == 1:
        # The package itself opens the top floor: `dlcore.load` and the command `dlcore`.
        allowed, room = EVERYWHERE | ({"launch"} if path.stem in TOP else set()), ""
    else:
        room = parts[0]
        allowed = EVERYWHERE | ROOMS[room] | {room}
    for module in imports(path):
        if module.startswith("dlcore.") and module != "dlcore.__version__":
            inside = module.removeprefix("dlcore.")
            assert any(re.match(rf"{re.escape(ok)}(\.|$)", inside) for ok in allowed) or any(
                ok.startswith(f"{inside}.") for ok in allowed
            ), f"{room} must not import {module}"
        assert not module.startswith("experiments"), f"{path} imports an experiment"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_stay_in_their_places(path):
    for module in imports(path):
        library = module.split(".")[0]
        assert name_of(path) in ALONE.get(library, {name_of(path)}), f"{library} in {path}"
        assert library not in ("tensorflow", "torch", "clu"), f"{library} in {path}"
        assert library != "absl" or "launch" in path.parts, f"absl in {path}"
        assert "data" != path.relative_to(ROOT).parts[1] or library != "jax", f"jax in {path}"


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_jobs_know_dlcore_and_no_other_job(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            # Within the folder of a job, whatever the package around it is called.
            assert node.level == 1 and path.parent != ROOT / "experiments", f"{path}: {node.level}"
            continue
        for module in (alias.name for alias in getattr(node, "names", [])):
            assert not module.startswith(("experiments", "dlcore.experiments")), module
        assert not str(getattr(node, "module", "")).startswith(
            ("experiments", "dlcore.experiments")
        )


@pytest.mark.parametrize("path", [*FILES, *JOBS], ids=name_of)
def test_nobody_reads_global_flags(path):
    assert not re.search(
        r"\bFLAGS\.[a-z]|flags\.FLAGS|DEFINE_(string|integer|float|bool)", path.read_text()
    )
