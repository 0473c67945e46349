"""Writers of the layouts of users' files, with the boxes that they hold."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

# Columns and rows of the pictures that are written.
WIDTH, HEIGHT = 40, 20


def write_picture(
    path: pathlib.Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "blue").save(path, exif=exif)


def voc_object(name: str, box: Sequence[Any], difficult: int = 0) -> str:
    """An object as Pascal VOC writes it: xmin, ymin, xmax, ymax count pixels from 1."""
    sides = "".join(
        f"<{tag}>{value}</{tag}>\n"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object>\n<name>{name}</name>\n<difficult>{difficult}</difficult>\n"
        f"<bndbox>\n{sides}</bndbox>\n<part><name>head</name><bndbox/></part>\n</object>\n"
    )


def write_voc(
    root: pathlib.Path,
    objects: Mapping[str, str],
    lists: Mapping[str, Sequence[str]] | None = None,
    size: str = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>",
) -> None:
    """A folder of pictures with these objects in XML, and lists of their names by part."""
    for name, text in objects.items():
        write_picture(root / "JPEGImages" / f"{name}.jpg")
        write(root / "Annotations" / f"{name}.xml", f"<annotation>\n{size}\n{text}</annotation>")
    for part, names in (lists or {}).items():
        write(root / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{n}\n" for n in names))


def coco_table(**changes: Any) -> dict[str, Any]:
    """Two pictures of 40 x 20, three objects of them, and two categories with a gap."""
    table: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
            {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [10, 5, 20.5, 10], "iscrowd": 0},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 0, 40, 20],
                "iscrowd": 1,
                "segmentation": {"size": [20, 40], "counts": [0, 800]},
            },
        ],
        "categories": [
            {"id": 9, "name": "dog"},
            {"id": 2, "name": "cat"},
        ],
    }
    return table | changes


def write_coco(
    root: pathlib.Path, parts: Mapping[str, Mapping[str, Any]], kind: str = "instances"
) -> None:
    """COCO's own layout, with a file and a folder of pictures for each part."""
    for part, table in parts.items():
        write(root / "annotations" / f"{kind}_{part}.json", json.dumps(table))
        for image in table["images"]:
            write_picture(root / part / image["file_name"])


def write_yolo(root: pathlib.Path, lines: Mapping[str, str], **files: str) -> None:
    """Pictures at images/NAME.png with these lines in labels/NAME.txt, and files at the top."""
    for name, text in lines.items():
        write_picture(root / "images" / f"{name}.png")
        write(root / "labels" / f"{name}.txt", text)
    for name, text in files.items():
        write(root / name.replace("_", "."), text)


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def in_pictures(objects: Any) -> list[list[float]]:
    """Boxes of one picture in its own pixels, of 40 x 20, rounded."""
    sides = np.array([HEIGHT, WIDTH, HEIGHT, WIDTH])
    return (objects.boxes * sides).round(6).tolist()
