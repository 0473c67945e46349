"""TensorFlow Datasets without TensorFlow: the one place that imports it.

Reading needs ArrayRecord files only. Preparing calls a handful of TensorFlow's functions for files
and images; `without_tensorflow` lends TFDS, and nobody else, plain ones of the same names.
"""

import contextlib
import difflib
import io
import itertools
import os
import pathlib
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

# Make glue and WMT known, which are not found by their names alone.
import tensorflow_datasets.text
import tensorflow_datasets.translate
import tqdm
from tensorflow_datasets.core.utils import lazy_imports_utils

from dlcore.data.pictures import StoredImage
from dlcore.data.stand_in import STAND_IN
from dlcore.errors import InputError, choose

# Those that scripts/prepare_data.py is tested on.
_IMAGES = ("cifar10", "cifar100", "fashion_mnist", "imagenet2012", "mnist")
_TEXTS = ("glue/sst2", "imdb_reviews", "lm1b")
_TRANSLATIONS = ("ted_hrlr_translate", "wmt14_translate/de-en")
PREPARABLE = _IMAGES + _TEXTS + _TRANSLATIONS

# Reading one record at a time takes three times as long.
_CHUNK = 1024
# Enough for every pair of languages.
_LISTED = 100
_NAME = re.compile(r"(\w+)(/[\w.\-]+)?(:[\d.*]+)?")


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Lets TFDS builders prepare a data set without TensorFlow."""
    # TFDS reaches TensorFlow through this one lazy module, which keeps what it resolved to here.
    resolved = vars(lazy_imports_utils.tensorflow)
    before = resolved.get("_module")
    resolved["_module"] = STAND_IN
    # Splits over 1 GB are sorted in 1,000 files that are open at once.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if before is None:
            del resolved["_module"]
        else:
            resolved["_module"] = before


def open_builder(name: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """The TFDS builder of a data set, prepared or not.

    Args:
        name: NAME, NAME/CONFIG or either with :VERSION.
        data_dir: where prepared data sets lie; None is TFDS' own place.

    Raises:
        InputError: when there is no such data set.
    """
    from dlcore.data import builders  # Defining a builder registers its name with TFDS.

    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError(
            f"data set {name!r} is not a name; give NAME, NAME/CONFIG or NAME:VERSION, such as "
            "mnist or mnist:3.0.1"
        )
    if data_dir is not None:
        data_dir = pathlib.Path(data_dir).expanduser()
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        likely = difflib.get_close_matches(parts[1], known, n=3)
        raise choose("data set", name, {*likely, *builders.EMBEDDED, *PREPARABLE}) from None
    except (ValueError, AssertionError):
        kind = tfds.builder_cls(parts[1])
        configs = ", ".join([*kind.builder_configs][:_LISTED]) or "none"
        of_configs = {config.version for config in kind.builder_configs.values()}
        found = {kind.VERSION, *kind.SUPPORTED_VERSIONS, *of_configs} - {None}
        versions = ", ".join(sorted(map(str, found)))
        raise InputError(
            f"data set {name!r} does not exist in this form; configurations of {parts[1]}: "
            f"{configs}; versions: {versions}"
        ) from None


def wmt_archives(builder: Any) -> set[str]:
    """The URLs of the archives of a WMT data set; none for another."""
    if not isinstance(builder, tfds.translate.wmt.WmtTranslate):
        return set()
    source, _ = builder.builder_config.language_pair
    corpora = itertools.chain.from_iterable(builder.subsets.values())
    known = tfds.translate.wmt.DATASET_MAP
    return {url for corpus in corpora for url in known[corpus].get_url(source)}


def is_preparable(name: str) -> bool:
    """Whether scripts/prepare_data.py is tested on a data set of this name, version or not."""
    name = name.partition(":")[0]
    return name in PREPARABLE or name.partition("/")[0] in PREPARABLE


def is_prepared(builder: Any) -> bool:
    """Whether a builder's data lies on the disk, complete."""
    # TFDS logs a warning about a folder that is not there.
    return builder.data_path.exists() and builder.is_prepared()


def prepared_builder(name: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """The TFDS builder of a prepared data set; the embedded ones are prepared on first use.

    Never touches the network.

    Raises:
        InputError: when there is no such data set, or it is not prepared (the message holds the
            command that prepares it), or it was prepared in a format that needs TensorFlow.
    """
    from dlcore.data import builders

    builder = open_builder(name, data_dir)
    if not is_prepared(builder):
        if builder.name not in builders.EMBEDDED:
            command = (
                "python scripts/prepare_data.py"
                if is_preparable(name)
                else "tfds build --file_format=array_record"
            )
            raise InputError(
                f"data set {name!r} is not prepared in {builder.data_dir_root}; prepare it with: "
                f"{command} {name} --data_dir={builder.data_dir_root}"
            )
        _prepare_embedded(builder)
        # A builder reads its files when it is made.
        builder = open_builder(name, data_dir)
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise InputError(
            f"data set {name!r} in {builder.data_dir} is stored as {file_format}, which needs "
            "TensorFlow; prepare it in another data_dir as array_record"
        )
    return builder


def _prepare_embedded(builder: Any) -> None:
    """Writes an embedded data set; whoever is first among several processes wins."""
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except OSError as error:
        # TFDS renames a finished folder into place, which fails when another did it before.
        if not is_prepared(builder):
            raise InputError(
                f"cannot write data set {builder.name!r} to {builder.data_dir}: {error}; give a "
                "folder that can be written with --data_dir"
            ) from error


class StoredImages(Sequence[StoredImage]):
    """The images of one split of a prepared data set, not decoded yet."""

    def __init__(self, builder: Any, split: str):
        self._name = f"of split {split!r} of {builder.info.full_name}"
        self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> StoredImage:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = self._source[index]
        return StoredImage(record["image"], int(record["label"]), f"{index} {self._name}")


def image_features(builder: Any) -> tuple[tuple[int | None, int | None, int], tuple[str, ...]]:
    """The shape (H, W, C) of a data set's images and the names of its classes.

    Raises:
        InputError: when it has no 8-bit `image` or no `label` that is a class.
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


# What examples may hold, by the words that errors use.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda feature: isinstance(feature, tfds.features.Text),
    "class": lambda feature: isinstance(feature, tfds.features.ClassLabel),
    "tokens": lambda feature: isinstance(_element(feature), tfds.features.Text),
    "tags": lambda feature: (
        isinstance(feature, tfds.features.Sequence) and _KINDS["class"](feature.feature)
    ),
}


def features_of(builder: Any, *kinds: str) -> tuple[str, ...]:
    """The names of the features of a data set that are of these kinds, in the kinds' order.

    Args:
        builder: of the data set.
        kinds: "text", "class", "tokens" (a sequence of texts, or one text of characters) or "tags"
            (a sequence of classes).

    Raises:
        InputError: when it has not exactly one feature of each kind.
    """
    features = dict(builder.info.features.items())
    found = [[name for name in features if _KINDS[kind](features[name])] for kind in kinds]
    if any(len(names) != 1 for names in found):
        raise InputError(
            f"data set {builder.info.full_name!r} has not exactly one feature of each kind that is "
            f"needed ({', '.join(kinds)}); its features are {_listed(features)}; choose another "
            "data set"
        )
    return tuple(name for (name,) in found)


def class_names(builder: Any, name: str) -> tuple[str, ...]:
    """The names of the classes of a feature of the kind "class" or "tags"."""
    return tuple(_element(builder.info.features[name]).names)


def languages_of(builder: Any) -> tuple[str, ...]:
    """The languages of a data set of translations, the one it takes for the source first.

    Raises:
        InputError: when its examples are not translations.
    """
    features = builder.info.features
    if not isinstance(features, tfds.features.Translation):
        raise InputError(
            f"data set {builder.info.full_name!r} is not one of translations; its features are "
            f"{_listed(features)}; choose another data set"
        )
    return tuple(builder.info.supervised_keys or features.languages)


def filled_splits(builder: Any) -> list[str]:
    """The names of the splits that have examples, sorted."""
    return sorted(name for name, info in builder.info.splits.items() if info.num_examples)


def read_examples(builder: Any, split: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The named features of each example of a split, texts as strings."""
    source = builder.as_data_source(split)
    with tqdm.tqdm(total=len(source), desc=f"reading {split}", delay=2, leave=False) as progress:
        for start in range(0, len(source), _CHUNK):
            records = source.__getitems__(range(start, min(start + _CHUNK, len(source))))
            for record in records:
                yield tuple(_plain(record[name]) for name in names)
            progress.update(len(records))


def _listed(features: Any) -> str:
    return ", ".join(f"{name} ({type(features[name]).__name__})" for name in sorted(features))


def _element(feature: Any) -> Any:
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(item) for item in value] if isinstance(value, list) else int(value)
