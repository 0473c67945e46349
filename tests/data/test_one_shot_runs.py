"""Omniglot's official one-shot tests, from folders and archives in the authors' layout."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence

import pytest
from PIL import Image

from dlcore.data import read_one_shot_runs
from dlcore.errors import InputError


def write_runs(root: pathlib.Path, runs: Mapping[str, Sequence[int]]) -> pathlib.Path:
    """Writes runs of two known pictures; says of each test picture which of them is its own."""
    for run, answers in runs.items():
        lines = []
        for part in ("training", "test"):
            (root / run / part).mkdir(parents=True)
        for number in (1, 2):
            Image.new("1", (5, 5)).save(root / run / "training" / f"class{number:02}.png")
        for number, answer in enumerate(answers, 1):
            item = f"{run}/test/item{number:02}.png"
            Image.new("1", (5, 5), 1).save(root / item)
            lines.append(f"{item} {run}/training/class{answer + 1:02}.png\n")
        (root / run / "class_labels.txt").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.mark.parametrize("form", ["folder", "around", "zip", "zip around"])
def test_runs_from_a_folder_and_from_the_archive(tmp_path: pathlib.Path, form: str) -> None:
    top = tmp_path / "unpacked"
    write_runs(top / "all_runs" if "around" in form else top, {"run01": [1, 0], "run02": [0, 1, 1]})
    path = pathlib.Path(shutil.make_archive(str(top), "zip", top)) if "zip" in form else top
    first, second = read_one_shot_runs(path)
    assert (first.name, second.name) == ("run01", "run02")
    assert first.answers.tolist() == [1, 0] and second.answers.tolist() == [0, 1, 1]
    assert len(second.known) == 2 and len(second.queries) == 3
    # The authors' lines are by test picture, the known pictures by name.
    assert [picture.name[-11:] for picture in first.known] == ["class01.png", "class02.png"]
    assert first.queries[0].name.endswith("run01/test/item01.png")
    assert all(isinstance(picture.file, bytes) for picture in first.known + first.queries)


def test_other_layouts_are_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    def refused(path: pathlib.Path, text: str) -> None:
        with pytest.raises(InputError, match=text) as error:
            read_one_shot_runs(path)
        assert "\n" not in str(error.value)

    refused(tmp_path, r"has no folders run01, run02, ...; give Omniglot's all_runs.zip")
    refused(tmp_path / "none", r"cannot read .*none: No such file")
    (tmp_path / "torn.zip").write_bytes(b"PK")
    refused(tmp_path / "torn.zip", "torn.zip is not a whole zip archive")
    runs = write_runs(tmp_path / "runs", {"run01": [1, 0]})
    labels = runs / "run01" / "class_labels.txt"
    whole = labels.read_text(encoding="utf-8")
    (runs / "run01" / "test" / "item02.png").unlink()
    refused(runs, "class_labels.txt names run01/test/item02.png, which is not there")
    labels.write_text("run01/test/item01.png\n", encoding="utf-8")
    refused(runs, "has the line 'run01/test/item01.png'; expected two paths")
    labels.write_text(whole.splitlines()[0], encoding="utf-8")
    refused(runs, "names 1 training pictures; expected 2 or more")
    labels.unlink()
    refused(runs, "class_labels.txt is not there")
