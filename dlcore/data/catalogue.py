"""The data sets that a name can refer to: the embedded ones and those of TensorFlow Datasets."""

import contextlib
import difflib
import io
import os
import pathlib
import re

# Importing the embedded builders makes TFDS find them by their names.
from dlcore.data.builders import EMBEDDED
from dlcore.data.tfds import import_texts, own_features_only, stand_in_for_tensorflow, tfds
from dlcore.errors import InputError, choose

PathLike = str | os.PathLike[str]

_DETECTION = ("coco", "voc")
_IDENTITIES = ("lfw", "omniglot")
_IMAGES = ("cifar10", "cifar100", "fashion_mnist", "imagenet2012", "mnist")
_TEXTS = ("glue/sst2", "imdb_reviews", "lm1b")
_TRANSLATIONS = ("ted_hrlr_translate", "wmt14_translate/de-en")
# The data sets that `dlcore prepare` is tested on.
PREPARABLE = _DETECTION + _IDENTITIES + _IMAGES + _TEXTS + _TRANSLATIONS

# The most configurations that an error lists: enough for every pair of languages of WMT.
_LISTED = 100
_NAME = re.compile(r"(\w+)(/[\w.\-]+)?(:[\d.*]+)?")


def open_builder(name: str, data_dir: PathLike | None = None) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a data set, which need not be prepared.

    Args:
        name: NAME, NAME/CONFIG or either with :VERSION.
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.

    Raises:
        InputError: when there is no such data set.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError(
            f"data set {name!r} is not a name; give NAME, NAME/CONFIG or NAME:VERSION, such as "
            "mnist or mnist:3.0.1"
        )
    if data_dir is not None:
        data_dir = pathlib.Path(data_dir).expanduser()
    if parts[1] not in EMBEDDED:
        import_texts()
    try:
        with own_features_only(name), stand_in_for_tensorflow():
            return tfds.builder(name, data_dir=data_dir)
    except InputError:
        raise
    except tfds.core.DatasetNotFoundError:
        names = tfds.list_builders(with_community_datasets=False)
        likely = difflib.get_close_matches(parts[1], names, n=3)
        raise choose("data set", name, {*likely, *EMBEDDED, *PREPARABLE}) from None
    except Exception as error:  # whatever TFDS raises on damaged files
        raise _other_form(parts) or _damaged(name, data_dir, error) from error


def _other_form(parts: re.Match[str]) -> InputError | None:
    """Returns the error for a data set that does not exist in the requested form."""
    try:
        builder_class = tfds.builder_cls(parts[1])
    except tfds.core.DatasetNotFoundError:
        return None
    known = {builder_class.VERSION, *builder_class.SUPPORTED_VERSIONS} | {
        config.version for config in builder_class.builder_configs.values()
    }
    versions = {*map(str, known - {None})}
    config, version = ((part or "")[1:] for part in parts.group(2, 3))
    pattern = re.compile(re.escape(version).replace(r"\*", r"\d+"))
    if (not config or config in builder_class.builder_configs) and (
        not version or any(map(pattern.fullmatch, versions))
    ):
        return None
    configs = ", ".join([*builder_class.builder_configs][:_LISTED]) or "none"
    return InputError(
        f"data set {parts[0]!r} does not exist in this form; configurations of {parts[1]}: "
        f"{configs}; versions: {', '.join(sorted(versions))}"
    )


def _damaged(name: str, data_dir: PathLike | None, error: Exception) -> InputError:
    """Returns the error for a prepared data set that TFDS cannot read."""
    reason = " ".join(str(error).split())[:300]
    return InputError(
        f"data set {name!r} in {data_dir or '~/tensorflow_datasets'} is damaged "
        f"({type(error).__name__}: {reason}); prepare it again"
    )


def is_preparable(name: str) -> bool:
    """Returns whether `dlcore prepare` is tested on a data set, whose name may have a version."""
    name = name.partition(":")[0]
    return name in PREPARABLE or name.partition("/")[0] in PREPARABLE


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Returns whether the disk holds the complete data of a builder."""
    # TFDS logs a warning when it is asked about a folder that is not there.
    return builder.data_path.exists() and builder.is_prepared()


def prepared_builder(name: str, data_dir: PathLike | None = None) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a prepared data set; never touches the network.

    An embedded data set is prepared on its first use.

    Args:
        name: NAME, NAME/CONFIG or either with :VERSION.
        data_dir: the folder of prepared data sets; None stands for TFDS' own,
            ~/tensorflow_datasets.

    Raises:
        InputError: when there is no such data set, or it is not prepared (the message holds the
            command that prepares it), or it was prepared in a format that needs TensorFlow.
    """
    builder = open_builder(name, data_dir)
    if not is_prepared(builder):
        if builder.name not in EMBEDDED:
            command = (
                "dlcore prepare" if is_preparable(name) else "tfds build --file_format=array_record"
            )
            raise InputError(
                f"data set {name!r} is not prepared in {builder.data_dir_root}; prepare it with: "
                f"{command} {name} --data_dir={builder.data_dir_root}"
            )
        _prepare_embedded(builder)
        # A builder looks for its files when it is created, so the first one knows of none.
        builder = open_builder(name, data_dir)
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise InputError(
            f"data set {name!r} in {builder.data_dir} is stored as {file_format}, which needs "
            "TensorFlow; prepare it in another data_dir as array_record"
        )
    return builder


def _prepare_embedded(builder: tfds.core.DatasetBuilder) -> None:
    """Writes an embedded data set; of several processes the first one to finish wins."""
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
