"""TensorFlow Datasets (TFDS) without TensorFlow: the one module that imports TFDS.

Reading needs only ArrayRecord files. Preparing calls a handful of TensorFlow's functions for files
and images, and some builders need one of its types to be constructed at all;
`stand_in_for_tensorflow` provides plain replacements of the same names to TFDS alone.
`dlcore.data.catalogue` finds a data set by its name.
"""

import contextlib
import functools
import resource
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core.utils import lazy_imports_utils

from dlcore.data.pictures import StoredImage
from dlcore.data.stand_in import STAND_IN
from dlcore.errors import InputError

# The classes of features that come with TFDS, by the names that they have in its files.
_FEATURES: dict[str, type[tfds.features.FeatureConnector]] = {
    f"{feature.__module__}.{feature.__name__}": feature
    for feature in vars(tfds.features).values()
    if isinstance(feature, type) and issubclass(feature, tfds.features.FeatureConnector)
}
# Records that are read by one call; reading them one by one takes three times as long.
_CHUNK = 1024


def import_texts() -> None:
    """Makes TFDS find its data sets of texts, such as glue and WMT, by their names.

    It does not find some of them until these modules are imported, which takes 0.1 s.
    """
    import tensorflow_datasets.text
    import tensorflow_datasets.translate  # noqa: F401


@contextlib.contextmanager
def stand_in_for_tensorflow() -> Iterator[None]:
    """Gives TFDS the plain functions and types that its builders take from TensorFlow."""
    # TFDS reaches TensorFlow through this one lazy module, which caches the real module here.
    resolved = vars(lazy_imports_utils.tensorflow)
    before = resolved.get("_module")
    resolved["_module"] = STAND_IN
    try:
        yield
    finally:
        if before is None:
            del resolved["_module"]
        else:
            resolved["_module"] = before


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Makes TFDS builders prepare a data set without TensorFlow while open."""
    # Splits over 1 GB are sorted in 1,000 files that are open at once.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    try:
        with stand_in_for_tensorflow():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def own_features_only(name: str) -> Iterator[None]:
    """Keeps TFDS from importing the modules that the files of a data set name.

    A prepared data set names the Python class of each of its features, in features.json or in
    dataset_info.json and at any depth, and TFDS imports the module of a class that it does not
    know. All of these names go through the one function that is replaced here.

    Args:
        name: the name of the data set in error messages.

    Raises:
        InputError: inside the `with` block, for a class that is not one of TFDS's own.
    """

    def own(class_name: str) -> type[tfds.features.FeatureConnector]:
        if not class_name:
            raise ValueError("a feature has no class")
        if class_name not in _FEATURES:
            raise InputError(
                f"data set {name!r} has a feature of the class {class_name!r}, which is not "
                "TFDS's own and could run any code; prepare it again with features "
                "of tfds.features"
            )
        return _FEATURES[class_name]

    with mock.patch.object(tfds.features.FeatureConnector, "cls_from_name", own):
        yield


class StoredImages(Sequence[StoredImage]):
    """A sequence of the images of one split of a prepared data set, not decoded yet.

    Args:
        builder: the builder of the data set.
        split: the name of the split.
        labelled: whether images have a class; if not, all labels are 0.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, *, labelled: bool = True):
        self._name = f"of split {split!r} of {builder.info.full_name}"
        names = ("image", "label") if labelled else ("image",)
        self._source, self._read = _open_source(builder, split, names)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> StoredImage:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = self._read(self._source[index])
        return StoredImage(record["image"], int(record.get("label", 0)), f"{index} {self._name}")


def image_features(
    builder: tfds.core.DatasetBuilder,
) -> tuple[tuple[int | None, int | None, int], tuple[str, ...]]:
    """Returns the shape (H, W, C) of a data set's images and the names of its classes.

    Raises:
        InputError: when the data set has no 8-bit `image` or no `label` that is a class.
    """
    features = dict(builder.info.features.items())
    image, label = (features.get(name) for name in ("image", "label"))
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and isinstance(label, tfds.features.ClassLabel)
    ):
        raise InputError(
            f"data set {builder.info.full_name!r} has no 8-bit 'image' with a class 'label'; its "
            f"features are {', '.join(sorted(features))}; choose a data set of images by class"
        )
    return image.shape, tuple(label.names)


def identity_features(
    builder: tfds.core.DatasetBuilder,
) -> tuple[int | None, int | None, int]:
    """Returns the shape (H, W, C) of a data set's images of identities.

    Raises:
        InputError: when the data set has no 8-bit `image`, or no `label` that is a class or a text.
    """
    features = dict(builder.info.features.items())
    image, label = (features.get(name) for name in ("image", "label"))
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and isinstance(label, (tfds.features.ClassLabel, tfds.features.Text))
    ):
        raise InputError(
            f"data set {builder.info.full_name!r} has no 8-bit 'image' with a class or a text "
            f"'label'; its features are {', '.join(sorted(features))}; choose a data set of images "
            "by identity"
        )
    return image.shape


def captioned_features(
    builder: tfds.core.DatasetBuilder,
) -> tuple[int | None, int | None, int]:
    """Returns the shape (H, W, C) of a data set's images with texts.

    Raises:
        InputError: when the data set has no 8-bit `image`.
    """
    image = dict(builder.info.features.items()).get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise InputError(
            f"data set {builder.info.full_name!r} has no 8-bit 'image' with a text; its features "
            f"are {', '.join(sorted(builder.info.features))}; choose a data set of captions"
        )
    shape: tuple[int | None, int | None, int] = image.shape
    return shape


def read_identities(builder: tfds.core.DatasetBuilder, split: str) -> list[tuple[str, str]]:
    """Returns group and name of the identity of each image of a split.

    The group is the example's class `alphabet`, and empty where the data set has none.

    Raises:
        InputError: when an image has no label.
    """
    grouped = "alphabet" in builder.info.features
    names = ("alphabet", "label") if grouped else ("label",)
    features = [builder.info.features[name] for name in names]
    found = []
    for row, values in enumerate(read_examples(builder, split, names)):
        if -1 in values:
            raise InputError(
                f"image {row} of split {split!r} of {builder.info.full_name} has no label; choose "
                "a data set of images by identity"
            )
        texts = [
            value if isinstance(value, str) else feature.int2str(value)
            for feature, value in zip(features, values, strict=True)
        ]
        found.append((texts[0] if grouped else "", texts[-1]))
    return found


def _is_tags(feature: tfds.features.FeatureConnector) -> bool:
    """Returns whether a feature is a sequence of classes."""
    return isinstance(feature, tfds.features.Sequence) and isinstance(
        feature.feature, tfds.features.ClassLabel
    )


def _is_chords(feature: tfds.features.FeatureConnector) -> bool:
    """Returns whether a feature is an array int [steps, voices]."""
    return (
        type(feature) is tfds.features.Tensor
        and len(feature.shape) == 2
        and np.issubdtype(feature.np_dtype, np.integer)
    )


# The kinds of features by the words that errors use, each with the test for it.
_KINDS: dict[str, Callable[[tfds.features.FeatureConnector], bool]] = {
    "text": lambda feature: isinstance(feature, tfds.features.Text),
    "class": lambda feature: isinstance(feature, tfds.features.ClassLabel),
    "tokens": lambda feature: isinstance(_element(feature), tfds.features.Text),
    "tags": _is_tags,
    "chords": _is_chords,
}


def features_of(builder: tfds.core.DatasetBuilder, *kinds: str) -> tuple[str, ...]:
    """Finds the features of a data set by their kinds; returns their names in the order of kinds.

    Args:
        builder: the builder of the data set.
        kinds: "text", "class", "tokens" (a sequence of texts, or one text of characters), "tags"
            (a sequence of classes) or "chords" (an array int [steps, voices]).

    Raises:
        InputError: when the data set does not have exactly one feature of each kind.
    """
    features = dict(builder.info.features.items())
    matches = [[name for name in features if _KINDS[kind](features[name])] for kind in kinds]
    if any(len(names) != 1 for names in matches):
        raise InputError(
            f"data set {builder.info.full_name!r} has not exactly one feature of each kind that is "
            f"needed ({', '.join(kinds)}); its features are {_listed(features)}; choose another "
            "data set"
        )
    return tuple(name for (name,) in matches)


def class_names(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, ...]:
    """Returns the names of the classes of a feature of the kind "class" or "tags"."""
    return tuple(_element(builder.info.features[name]).names)


def languages_of(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Returns the languages of a data set of translations, the source by its own choice first.

    Raises:
        InputError: when the examples are not translations.
    """
    features = builder.info.features
    if not isinstance(features, tfds.features.Translation):
        raise InputError(
            f"data set {builder.info.full_name!r} is not one of translations; its features are "
            f"{_listed(features)}; choose another data set"
        )
    return tuple(builder.info.supervised_keys or features.languages)


def filled_splits(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns the sorted names of the splits that have examples."""
    return sorted(name for name, info in builder.info.splits.items() if info.num_examples)


def read_examples(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yields the named features of each example of a split.

    A text is a string, a class is an integer and a sequence is a list of these; an array is nested
    lists.
    """
    for record in _read_records(builder, split, names):
        yield tuple(_plain(record[name]) for name in names)


def object_features(
    builder: tfds.core.DatasetBuilder,
) -> tuple[tuple[int | None, int | None, int], tuple[str, ...], tuple[str, ...]]:
    """Returns the shape of a data set's images, the names of its classes and of its landmarks.

    Raises:
        InputError: when the data set has no 8-bit `image`, or no `objects` with a box `bbox` and a
            class `label` each.
    """
    features = dict(builder.info.features.items())
    image, objects = (features.get(name) for name in ("image", "objects"))
    parts: dict[str, Any] = {}
    if isinstance(objects, tfds.features.Sequence) and isinstance(
        objects.feature, tfds.features.FeaturesDict
    ):
        parts = dict(objects.feature.items())
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and isinstance(parts.get("bbox"), tfds.features.BBoxFeature)
        and isinstance(parts.get("label"), tfds.features.ClassLabel)
    ):
        raise InputError(
            f"data set {builder.info.full_name!r} has no 8-bit 'image' with 'objects' that have a "
            f"box 'bbox' and a class 'label'; its features are {', '.join(sorted(features))}; "
            "choose a data set for detection"
        )
    landmarks = parts["landmarks"].shape[0] if "landmarks" in parts else 0
    names = (builder.info.metadata or {}).get("landmark_names", range(landmarks))
    return image.shape, tuple(parts["label"].names), tuple(map(str, names))


def read_objects(
    builder: tfds.core.DatasetBuilder, split: str
) -> Iterator[tuple[int | str | None, str | None, dict[str, np.ndarray]]]:
    """Yields id and file name of each picture of a split, where it has them, and its objects.

    The objects are arrays by the names of their features, such as "bbox" and "label".
    """
    names = [name for name in ("image/id", "image/filename") if name in builder.info.features]
    for record in _read_records(builder, split, (*names, "objects")):
        number, file_name = (record.get(name) for name in ("image/id", "image/filename"))
        yield (
            number.decode()
            if isinstance(number, bytes)
            else None
            if number is None
            else int(number),
            file_name and file_name.decode(),
            record["objects"],
        )


def _read_records(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields the named features of each record of a split, and shows the progress."""
    source, read = _open_source(builder, split, names)
    with tqdm.tqdm(total=len(source), desc=f"reading {split}", delay=2, leave=False) as progress:
        for start in range(0, len(source), _CHUNK):
            records = source.__getitems__(range(start, min(start + _CHUNK, len(source))))
            yield from map(read, records)
            progress.update(len(records))


def _open_source(
    builder: tfds.core.DatasetBuilder, split: str, names: Sequence[str]
) -> tuple[Any, Callable[[bytes], dict[str, Any]]]:
    """Opens the records of a split; returns them and a reader of a record's named features.

    The other features are not decoded, and images never are: TFDS would open them in any format.
    """
    features = {name: builder.info.features[name] for name in names}
    raw = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return (
        builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES),
        functools.partial(
            tfds.features.FeaturesDict(features).deserialize_example_np, decoders=raw
        ),
    )


def _listed(features: tfds.features.FeaturesDict) -> str:
    return ", ".join(f"{name} ({type(features[name]).__name__})" for name in sorted(features))


def _element(feature: tfds.features.FeatureConnector) -> tfds.features.FeatureConnector:
    """Returns the feature of the items of a sequence, or another feature itself."""
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _plain(value: bytes | np.integer | np.ndarray | list[Any]) -> str | int | list[Any]:
    """Turns a value that TFDS decoded into plain Python."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else int(value)
