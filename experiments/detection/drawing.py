"""Draws detections on copies of the pictures and writes them as COCO JSON."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, ImageDraw

from dlcore import launch
from dlcore.data.pictures import StoredImage, opened, pixels
from dlcore.files import write_whole
from dlcore.train.logs import writing

# Of Okabe and Ito (2008), as the pictures of reports have them.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")


def write_folder(
    folder: pathlib.Path,
    rows: Iterator[dict[str, Any]],
    category_ids: Mapping[str, int],
    shown_score: float,
) -> None:
    """Draws what was found on copies of pictures, and writes it as COCO JSON.

    The folder gets detections.json, with the pictures, the annotations (with their scores) and the
    categories, as COCO's files of objects have them, and a PNG of each picture.

    Args:
        folder: to write into.
        rows: the answers of `Detection`, with "input", the path of the picture.
        category_ids: of each class.
        shown_score: the score from which a detection is drawn.

    Raises:
        InputError: when it cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    classes = [*category_ids]
    for number, row in enumerate(rows, 1):
        source = pathlib.Path(row["input"])
        size = {"height": row["height"], "width": row["width"]}
        images.append({"id": number, "file_name": source.name, **size})
        detections = row.get("detections", [])
        for found in detections:
            x, y, width, height = found["box"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category_ids[found["class"]],
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": found["score"],
                }
            )
        if "landmarks" in row:
            annotations.append(_key_points(row["landmarks"], number, len(annotations) + 1))
        with opened(StoredImage(source, 0, str(source))) as image:
            picture = Image.fromarray(pixels(image, channels=3))
        shown = [found for found in detections if found["score"] >= shown_score]
        draw(picture, shown, row.get("landmarks", []), classes)
        with writing(folder):
            picture.save(folder / f"{number:04d}_{source.stem}.png")
    categories = [{"id": value, "name": name} for name, value in category_ids.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    with writing(folder):
        write_whole(folder / "detections.json", json.dumps(document), errors="backslashreplace")
    launch.say(f"{len(annotations):,} detections in {len(images):,} pictures: {folder}")


def draw(
    picture: Image.Image,
    detections: list[dict[str, Any]],
    landmarks: list[dict[str, Any]],
    classes: list[str],
) -> None:
    """Draws boxes with their classes and scores, and landmarks, onto a picture."""
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    for found in detections:
        x, y, wide, high = found["box"]
        colour = COLOURS[classes.index(found["class"]) % len(COLOURS)]
        right, bottom = max(x, x + wide - 1), max(y, y + high - 1)
        pen.rectangle((x, y, right, bottom), outline=colour, width=width)
        # The built-in font has no other letters.
        label = f"{found['class']} {found['score']:.2f}".encode("ascii", "replace").decode()
        box = pen.textbbox((x, y), label)
        up = min(y, box[3] - box[1] + 2)
        pen.rectangle(
            (x, y - up, x + box[2] - box[0] + 2, y - up + box[3] - box[1] + 2), fill=colour
        )
        pen.text((x + 1, y - up - (box[1] - y)), label, fill="black")
    radius = max(1, round(max(picture.size) / 150))
    for number, point in enumerate(landmarks):
        x, y, colour = point["x"], point["y"], COLOURS[number % len(COLOURS)]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)


def _key_points(landmarks: list[dict[str, Any]], picture: int, number: int) -> dict[str, Any]:
    """Returns the landmarks of a picture as COCO's key points, which are the indices of pixels."""
    flat = [value for one in landmarks for value in (one["x"] - 0.5, one["y"] - 0.5, 2)]
    xs, ys = flat[::3], flat[1::3]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {
        "id": number,
        "image_id": picture,
        "category_id": 1,
        "keypoints": flat,
        "num_keypoints": len(landmarks),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }
