"""Pictures with captions from tables, COCO's JSON and a prepared data set."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlcore.data import load_captions
from dlcore.data.captions import CaptionData
from dlcore.errors import InputError


def draw(folder: pathlib.Path, *names: str, side: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("L", (side, side), number + 1).save(folder / name)


def write_table(path: pathlib.Path, *rows: str) -> None:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_coco(path: pathlib.Path, pictures: dict[int, str], captions: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name} for number, name in pictures.items()]
    annotations = [
        caption if isinstance(caption, dict) else {"id": 10 + at, **dict([caption])}
        for at, caption in enumerate(captions)
    ]
    table = {"images": images, "annotations": annotations}
    path.write_text(json.dumps(table), encoding="utf-8")


def of(number: int, caption: Any) -> dict[str, Any]:
    return {"id": 10, "image_id": number, "caption": caption}


def whole(data: CaptionData) -> dict[int, tuple[str, ...]]:
    """Returns the captions by the brightness of the picture, over all parts."""
    parts = [part for part in (data.train, data.valid, data.test) if part is not None]
    found = {}
    for part in parts:
        images = part.images.gather(np.arange(len(part)))["image"]
        found |= dict(zip(images[:, 0, 0, 0].tolist(), part.captions, strict=True))
    return found


def test_a_table_of_pictures_with_several_captions(tmp_path: pathlib.Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png")
    draw(tmp_path / "images", "none.png", "none.png", "none.png", "d.png")
    write_table(
        tmp_path / "all.tsv",
        "image\tcaption",
        "a.png#0\tone dark square",
        "a.png#1\t a dark one ",
        "b.png\tanother",
        "",
        "c.png\tthe third",
        "d.png\tin images",
    )
    data = load_captions(data_path=tmp_path / "all.tsv")
    assert data.image_shape == (8, 8, 1)
    assert whole(data) == {
        1: ("one dark square", "a dark one"),
        2: ("another",),
        3: ("the third",),
        4: ("in images",),
    }
    assert len(data.test) == 1 and data.valid is None
    assert data.notes == (f"{tmp_path / 'all.tsv'}: the first line names the columns",)
    # A folder with this one table is the same.
    assert whole(load_captions(data_path=tmp_path)) == whole(data)
    parts = load_captions(data_path=tmp_path, valid_share=0.3)
    assert parts.valid is not None and len(parts.valid) == 1 and whole(parts) == whole(data)
    numbers, texts = data.train.subset(np.array([0])).pairs
    assert numbers.tolist() == [0] * len(texts)


def test_a_folder_of_parts(tmp_path: pathlib.Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png")
    for part, name in (("train", "a"), ("dev", "b"), ("test", "c")):
        write_table(tmp_path / f"flickr.{part}.csv", f'{name}.png,"a caption, of {name}"')
    write_table(tmp_path / "readme.txt", "nothing")
    data = load_captions(data_path=tmp_path)
    assert data.valid is not None
    parts = [data.train.captions, data.valid.captions, data.test.captions]
    assert parts == [((f"a caption, of {name}",),) for name in "abc"]
    assert data.notes == (f"{tmp_path}: not read, neither of train nor held out: 1 (readme.txt)",)
    (tmp_path / "flickr.test.csv").unlink()
    assert load_captions(data_path=tmp_path).test.captions == (("a caption, of b",),)


def test_cocos_files(tmp_path: pathlib.Path) -> None:
    draw(tmp_path / "train2017", "a.png", "b.png")
    draw(tmp_path / "val2017", "c.png")
    annotations = tmp_path / "annotations"
    write_coco(
        annotations / "captions_train2017.json",
        {1: "a.png", 2: "b.png", 3: "gone.png", 4: "b2.png"},
        [of(1, "first of\na"), of(2, "of b"), of(1, "second"), of(9, "of none"), of(3, "gone")],
    )
    write_coco(annotations / "captions_val2017.json", {7: "c.png"}, [of(7, "of c")])
    (annotations / "instances_train2017.json").write_text("{}", encoding="utf-8")
    data = load_captions(data_path=tmp_path)
    assert data.train.captions == (("first of a", "second"), ("of b",))
    assert data.test.captions == (("of c",),)
    notes = "; ".join(data.notes)
    assert "left out, captions of pictures that are not listed: 1 (9)" in notes
    assert "left out, no file: 2 (" in notes
    # One file alone is cut.
    alone = load_captions(data_path=annotations / "captions_train2017.json")
    assert len(alone.train) == len(alone.test) == 1


def test_pictures_of_one_text_stay_together(tmp_path: pathlib.Path) -> None:
    names = [f"{number}.png" for number in range(30)]
    draw(tmp_path, *names)
    write_table(tmp_path / "t.tsv", *(f"{n}\tname {i // 3}" for i, n in enumerate(names)))
    data = load_captions(data_path=tmp_path / "t.tsv", valid_share=0.2)
    assert data.valid is not None
    parts = [{*part.captions} for part in (data.train, data.valid, data.test)]
    assert [*map(len, parts)] == [6, 2, 2]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_pictures_of_other_sizes_are_fitted(tmp_path: pathlib.Path) -> None:
    draw(tmp_path, "a.png")
    draw(tmp_path, "none.png", "b.png", side=5)
    write_table(tmp_path / "t.tsv", "a.png\tone", "b.png\tother")
    with pytest.raises(InputError, match="give --image_size"):
        load_captions(data_path=tmp_path)
    assert load_captions(data_path=tmp_path, image_size=6).image_shape == (6, 6, 1)
    assert load_captions(data_path=tmp_path, size_of_mixed=6).image_shape == (6, 6, 1)
    assert load_captions(data_path=tmp_path, image_size=5, size_of_mixed=6).image_shape[0] == 5


BAD: dict[str, tuple[Callable[[pathlib.Path], Any], str]] = {
    "missing picture": (
        lambda folder: write_table(folder / "t.tsv", "a.png\tgood", "b.png\tgone"),
        r"line 2 of .*t\.tsv names the picture 'b.png', which is neither in .* nor in images/",
    ),
    "no picture": (
        lambda folder: write_table(folder / "t.tsv", "a.png\tgood", "\tgone"),
        r"line 2 of .*t\.tsv names the picture ''",
    ),
    "empty caption": (
        lambda folder: write_table(folder / "t.tsv", "a.png\tgood", "a.png\t "),
        r"line 2 of .*t\.tsv has no caption for a\.png; add one, or remove the line",
    ),
    "one column": (
        lambda folder: write_table(folder / "t.tsv", "a.png good"),
        r"line 1 of .*t\.tsv has 1 column; it needs a picture, a tab and a caption",
    ),
    "three columns": (
        lambda folder: write_table(folder / "t.tsv", "a.png\tgood\tbetter"),
        r"line 1 of .*t\.tsv has 3 columns",
    ),
    "one picture": (
        lambda folder: write_table(folder / "t.tsv", "a.png\tgood"),
        r"has too few pictures of different captions \(1\) to hold 0.2 of them out",
    ),
    "only a header": (
        lambda folder: write_table(folder / "t.tsv", "image\tcaption"),
        r"t\.tsv has no captions; each line is PICTURE, a tab and CAPTION",
    ),
    "empty file": (
        lambda folder: (folder / "t.tsv").write_text("", encoding="utf-8"),
        r"t\.tsv",
    ),
    "not UTF-8": (
        lambda folder: (folder / "t.tsv").write_bytes(b"a.png\tgood\na.png\t\xff\n"),
        r"line 2 of .*t\.tsv is not UTF-8",
    ),
    "damaged picture": (
        lambda folder: (
            (folder / "b.png").write_bytes(b"no picture"),
            write_table(folder / "t.tsv", "a.png\tgood", "b.png\tbad"),
        ),
        r"cannot read image .*b\.png",
    ),
    "nothing": (lambda folder: None, r"has no file of captions; give a table of PICTURE"),
    "two of a part": (
        lambda folder: [
            write_table(folder / name, "a.png\tgood") for name in ("train.tsv", "b_train.tsv")
        ],
        r"has b_train\.tsv and train\.tsv; keep one of them",
    ),
    "no training part": (
        lambda folder: [
            write_table(folder / name, "a.png\tgood") for name in ("test.tsv", "dev.tsv")
        ],
        r"has dev\.tsv, test\.tsv; give a table",
    ),
    "bad JSON": (
        lambda folder: (folder / "captions_train.json").write_text(
            '{"images": [],\n"annotations": [}', encoding="utf-8"
        ),
        r"line 2 of .*captions_train\.json is not JSON in COCO's form",
    ),
    "JSON of boxes": (
        lambda folder: (folder / "captions_train.json").write_text(
            '{"images": []}', encoding="utf-8"
        ),
        r"has no list 'annotations'; COCO's files of this kind have images and annotations",
    ),
    "no caption": (
        lambda folder: write_coco(
            folder / "captions_train.json", {1: "a.png"}, [of(1, "good"), of(1, " ")]
        ),
        r"annotation 1 \(id 10\) of .*captions_train\.json has no text as its caption",
    ),
    "caption of another kind": (
        lambda folder: write_coco(folder / "captions_train.json", {1: "a.png"}, [of(1, 5)]),
        r"annotation 0 \(id 10\) of .* has no text as its caption",
    ),
    "no id": (
        lambda folder: write_coco(
            folder / "captions_train.json", {1: "a.png"}, [{"caption": "good"}]
        ),
        r"annotation 0 of .*captions_train\.json has no 'image_id'; add it",
    ),
    "id of another kind": (
        lambda folder: write_coco(folder / "captions_train.json", {1: "a.png"}, [of([], "x")]),  # type: ignore[arg-type]
        r"annotation 0 \(id 10\) of .* has the image_id \[\], which is not a number",
    ),
    "no picture of a JSON file": (
        lambda folder: write_coco(folder / "captions_train.json", {1: "z.png"}, [of(1, "good")]),
        r"has no picture with a caption among the files in",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path: pathlib.Path, case: str) -> None:
    draw(tmp_path, "a.png")
    make, message = BAD[case]
    make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_captions(data_path=tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_captions(data_path=tmp_path / "none")
    with pytest.raises(InputError, match=r"validation share 1 is not possible"):
        load_captions(data_path=tmp_path, valid_share=1)
    with pytest.raises(InputError, match="image size 0 is not possible"):
        load_captions(data_path=tmp_path, image_size=0)
    with pytest.raises(InputError, match="no 8-bit 'image' with a text"):
        load_captions("dates", data_dir=tmp_path)
