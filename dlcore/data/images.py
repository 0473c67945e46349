"""Loads data sets of images by class from any source as one kind of object.

Shapes: H W C the height, width and channels of an image.
"""

import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from dlcore.data import pictures
from dlcore.data.image_arrays import SUFFIX, read_arrays
from dlcore.data.image_folder import read_folder
from dlcore.data.image_table import read_table
from dlcore.data.pictures import StoredImage
from dlcore.data.sources import ImageData, Records, Split
from dlcore.data.statistics import evenly_spaced
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]
# Images of a data set that is not decoded into memory that are looked at for the log.
_SAMPLE = 256


def load_images(
    dataset: str = "digits",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    image_size: int | None = None,
    allow_empty: bool = False,
    label_separator: str | None = None,
    in_memory_bytes: int = 2 << 30,
) -> ImageData:
    """Loads a data set of images by class and decodes it into memory if it fits there.

    Args:
        dataset: "digits", which is always available, or a prepared TFDS data set (NAME,
            NAME/CONFIG, NAME:VERSION). Its test split is "test", or "validation" where the data set
            has no test split or one without labels. ("glyphs" is always available too, but no
            character is in both of its parts: it is for jobs that take no labels.)
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.
        data_path: a folder of images by class (`dlcore.data.image_folder`), a table of images and
            their classes (`dlcore.data.image_table`) or a file of arrays whose name ends in .npz
            (`dlcore.data.image_arrays`), instead of `dataset`.
        image_size: the side in pixels of the square that every image is fitted into
            (`pictures.fit_square`); None keeps the images, which must then be of one size.
        allow_empty: whether a class of `data_path` may have no images.
        label_separator: the text between the labels of an image in a table. Each image may then
            have any number of labels, and "label" is float32 [K], 1 for each of its classes.
        in_memory_bytes: the most memory that decoded images may take. A larger data set is read and
            decoded batch by batch.

    Raises:
        InputError: for data that is missing, not prepared, unreadable, of differing sizes or
            without classes, for a label that is not the number of a class, and for a separator of
            labels where there is no table.
    """
    check_image_size(image_size)
    train: Sequence[StoredImage]
    test: Sequence[StoredImage]
    shape: tuple[int | None, int | None, int | None]
    if data_path == "":
        raise InputError(
            "the data path is empty; give a folder of images by class, a table or a file of arrays"
        )
    notes: tuple[str, ...] = ()
    bits = 16
    if data_path is not None:
        path = pathlib.Path(data_path).expanduser()
        name, shape = str(path), (None, None, None)
        is_arrays = path.is_file() and path.suffix.lower() == SUFFIX
        if path.is_file() and not is_arrays:
            class_names, train, test, notes = read_table(path, label_separator)
        elif label_separator is not None and path.exists():
            raise InputError(
                f"{path} is a {'file of arrays' if is_arrays else 'folder'}, whose images have one "
                "class each; several labels (--label_separator) are read from a CSV table"
            )
        elif is_arrays:
            class_names, train, test, notes = read_arrays(path)
            shape = np.shape(np.asarray(train[0].file))
        else:
            class_names, train, test, notes = read_folder(path, allow_empty=allow_empty)
        bits = pictures.bits_of(train)
    else:
        name, shape, class_names, train, test = _read_prepared(dataset, data_dir)

    image_shape, splits, seen = decoded_parts(
        name,
        [train, test],
        shape,
        num_labels=len(class_names),
        image_size=image_size,
        bits=bits,
        in_memory_bytes=in_memory_bytes,
    )
    notes += seen
    return ImageData(name, splits[0], splits[1], class_names, image_shape, bits, notes)


def check_image_size(image_size: int | None) -> None:
    """Raises InputError for an impossible side of images."""
    if image_size is not None and image_size < 1:
        raise InputError(f"image size {image_size} is not possible; give 1 pixel or more")


def decoded_parts(
    name: str,
    parts: Sequence[Sequence[StoredImage]],
    shape: tuple[int | None, int | None, int | None],
    *,
    num_labels: int,
    image_size: int | None,
    bits: int,
    in_memory_bytes: int,
) -> tuple[tuple[int, int, int], Sequence[Split], tuple[str, ...]]:
    """Decodes the parts of a data set, into memory if they fit there, else batch by batch.

    Args:
        name: the name of the data set.
        parts: the images of each part, none of them empty.
        shape: (H, W, C), with None for each size that is to be read from the images.
        num_labels: the number of labels; labels are numbers below it, unless images may have
            several.
        image_size: the side in pixels of the square that every image is fitted into, or None.
        bits: the bits of values in files with more than 8.
        in_memory_bytes: the most memory that decoded images may take.

    Returns:
        The shape of every image, the parts as splits of {"image", "label"}, and lines for the log.

    Raises:
        InputError: for an unreadable image, sizes that differ, and a label that is out of range.
    """
    if image_size is not None:
        shape = (image_size, image_size, shape[2])
    image_shape = _complete(shape, chain.from_iterable(parts))

    def decode(stored: StoredImage, notes: list[str] | None = None) -> dict[str, np.ndarray]:
        several = isinstance(stored.label, np.ndarray)
        if not several and not 0 <= stored.label < num_labels:
            raise InputError(
                f"label {stored.label} of image {stored.name} is outside the classes "
                f"0..{num_labels - 1}; correct it or choose another data set"
            )
        if image_size is None and isinstance(stored.file, np.ndarray):
            array = stored.file
        else:
            with pictures.opened(stored) as image:
                array = pictures.pixels(
                    image, channels=image_shape[2], size=image_size, bits=bits, notes=notes
                )
        if array.shape != image_shape:
            raise _size_error(array.shape[:2], stored, image_shape[:2])
        return {
            "image": array,
            "label": np.asarray(stored.label, np.float32 if several else np.int32),
        }

    seen: set[tuple[str, str]] = set()  # notes of images by their names

    def decode_and_note(stored: StoredImage) -> dict[str, np.ndarray]:
        of_this: list[str] = []
        example = decode(stored, of_this)
        seen.update((note, stored.name) for note in of_this)
        return example

    records = [Records(part, decode_and_note) for part in parts]
    for split in records:
        # A fault that all images share should show now, not with the first batch.
        split.gather(np.zeros(1, int))
    count = sum(map(len, records))
    splits: Sequence[Split]
    if count * int(np.prod(image_shape)) <= in_memory_bytes:
        splits = [split.load() for split in records]
        among = f"{count:,} images"
    else:
        splits = [Records(part, decode) for part in parts]
        sample = evenly_spaced(records[0], _SAMPLE)
        sample.gather(np.arange(len(sample)))
        among = f"{len(sample):,} images that were looked at"
    counts = Counter(note for note, _ in sorted(seen))
    notes = tuple(f"{name}: {n:,} of {among} {note}" for note, n in counts.items())
    return image_shape, splits, notes


def _read_prepared(
    dataset: str, data_dir: PathLike | None
) -> tuple[
    str,
    tuple[int | None, int | None, int],
    tuple[str, ...],
    Sequence[StoredImage],
    Sequence[StoredImage],
]:
    """Returns name, image shape, class names, training and test images of a TFDS data set."""
    # A folder of images needs no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    shape, class_names = tfds.image_features(builder)
    splits = {
        name: tfds.StoredImages(builder, name)
        for name, info in builder.info.splits.items()
        if name in ("train", "test", "validation") and info.num_examples
    }
    held_out = [name for name in ("test", "validation") if name in splits]
    if "train" not in splits or not held_out:
        raise InputError(
            f"data set {builder.info.full_name!r} has the splits "
            f"{', '.join(sorted(builder.info.splits)) or 'none'}; it needs train, and test or "
            "validation"
        )
    labelled = [name for name in held_out if splits[name][0].label != -1]
    return (
        builder.info.full_name,
        shape,
        class_names,
        splits["train"],
        splits[(labelled or held_out)[0]],
    )


def _complete(
    shape: tuple[int | None, int | None, int | None], images: Iterable[StoredImage]
) -> tuple[int, int, int]:
    """Completes an image shape: reads an unknown size or number of channels from the images."""
    height, width, channels = shape
    common_size: tuple[int, int] | None = None
    colour = False
    if None in shape:
        for stored in images:
            with pictures.opened(stored) as image:
                size = pictures.upright_size(image)
                colour = colour or not pictures.is_gray(image)
            if height is None or width is None:
                common_size = common_size or size
                if size != common_size:
                    raise _size_error(size, stored, common_size)
            elif colour:
                break
    height, width = common_size or (height, width)
    assert height is not None and width is not None
    channels = channels or (3 if colour else 1)
    if channels not in pictures.MODES:
        raise InputError(f"images of {channels} channels are not supported; 1, 3 and 4 are")
    return height, width, channels


def _size_error(size: Sequence[int], stored: StoredImage, expected: Sequence[int]) -> InputError:
    return InputError(
        f"image {stored.name} is {size[0]} x {size[1]} where others are {expected[0]} x "
        f"{expected[1]}; give --image_size to fit all into squares of one size"
    )
