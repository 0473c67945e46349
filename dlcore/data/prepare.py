"""Preparing the classic data sets without TensorFlow, from the network or from archives."""

import atexit
import contextlib
import dataclasses
import hashlib
import itertools
import logging
import pathlib
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from unittest import mock

from dlcore.data.catalogue import (
    PREPARABLE,
    PathLike,
    is_preparable,
    is_prepared,
    open_builder,
)
from dlcore.data.tfds import tfds, without_tensorflow
from dlcore.errors import InputError, choose

# The archives of the data sets that nobody may download without an account.
_BY_HAND = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}
_ORIGINS = {"imagenet2012": "https://image-net.org/download-images, after registering"}

UrlInfo: TypeAlias = tfds.core.download.checksums.UrlInfo


def prepare(
    name: str, *, data_dir: PathLike | None = None, archives: PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """Prepares a data set for the functions that load it; does nothing if it is prepared already.

    Args:
        name: one of `PREPARABLE`, with a version (:VERSION) or without.
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.
        archives: a folder that holds the data set's archives under their published names; None
            downloads them into `data_dir`. An archive that differs from the published one is used
            as it is, with a warning in the log.

    Returns:
        The TFDS builder of the prepared data set.

    Raises:
        InputError: when the data set is not one of these, archives are missing or damaged, or the
            network cannot be reached; the message names the archives and the folder to put them in.
    """
    if not is_preparable(name):
        raise choose("data set", name, PREPARABLE)
    title = name.partition(":")[0]
    builder = open_builder(name, data_dir)
    if is_prepared(builder):
        return builder
    folder = pathlib.Path(archives).expanduser() if archives is not None else None
    published = _published(builder)
    files = _BY_HAND.get(title) or [info.filename for info in published.values()]
    if folder is None:
        _assert_reachable(title, published, files)
    elif missing := [file for file in files if not (folder / file).is_file()]:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}; {title} needs {', '.join(files)} there, "
            f"from {_ORIGINS.get(title) or ', '.join(published)}"
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(without_tensorflow())
        data_root = pathlib.Path(builder.data_dir_root)
        try:
            data_root.mkdir(parents=True, exist_ok=True)
            # Archives of different data sets have the same names, and TFDS would take the files
            # that an earlier archive of the name was extracted to. When an archive cannot be
            # read, other threads of TFDS may still be extracting while the folder is removed;
            # the files that they leave are removed when the process ends.
            extracted = stack.enter_context(
                tempfile.TemporaryDirectory(dir=data_root, ignore_cleanup_errors=True)
            )
            atexit.register(shutil.rmtree, extracted, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {data_root}: {error}; give a folder that can be written with "
                "--data_dir"
            ) from error
        if folder is not None:
            # TFDS refuses archives that differ from the published ones.
            measured = {url: _measure(folder, info) for url, info in published.items()}
            stack.enter_context(mock.patch.dict(builder.url_infos or {}, measured))
        config = tfds.download.DownloadConfig(
            try_download_gcs=False, extract_dir=extracted, manual_dir=folder
        )
        try:
            builder.download_and_prepare(download_config=config, file_format="array_record")
        # The stock builders raise every kind of error on damaged input.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"cannot prepare {title} from {folder or 'the network'}: {reason}; "
                + (
                    "check that its archives are whole and the disk has room"
                    if folder
                    else f"try again, or place {', '.join(files)} in a folder and give it with "
                    "--archives"
                )
            ) from error
    return open_builder(name, data_dir)


def _published(builder: tfds.core.DatasetBuilder) -> dict[str, UrlInfo]:
    """Returns name, size and checksum of the archives that a builder downloads, by URL."""
    if builder.name in _BY_HAND:
        return {}
    # A builder whose configurations name their archives lists those of all configurations.
    own = getattr(builder.builder_config, "data_url", None)
    urls = _wmt_archives(builder) or builder.url_infos if own is None else [own]
    files = _detection_archives(builder)
    return {
        url: info
        for url, info in builder.url_infos.items()
        if url in urls and (not files or url.rpartition("/")[2] in files)
    }


def _detection_archives(builder: tfds.core.DatasetBuilder) -> set[str]:
    """Returns the names of the archives of VOC or COCO, none for another data set."""
    config = builder.builder_config
    match builder.name:
        case "voc":
            return {*config.filenames.values()}
        case "coco":
            names = [(split.images, split.annotations) for split in config.splits]
            return {f"{name}.zip" for name in itertools.chain.from_iterable(names)}
    return set()


def _wmt_archives(builder: tfds.core.DatasetBuilder) -> set[str]:
    """Returns the URLs of the archives of a WMT data set, none for another data set."""
    if not isinstance(builder, tfds.translate.wmt.WmtTranslate):
        return set()
    source, _ = builder.builder_config.language_pair
    corpora = itertools.chain.from_iterable(builder.subsets.values())
    known = tfds.translate.wmt.DATASET_MAP
    return {url for corpus in corpora for url in known[corpus].get_url(source)}


def _assert_reachable(name: str, published: Mapping[str, UrlInfo], files: Iterable[str]) -> None:
    """Raises InputError at once where TFDS would retry for minutes."""
    if not published:
        raise InputError(
            f"{name} cannot be downloaded without an account; get {', '.join(files)} from "
            f"{_ORIGINS[name]}, place them in a folder and give it with --archives"
        )
    url = next(iter(published))
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"cannot download {name}: {url} is out of reach ({error}); place {', '.join(files)} "
            "in a folder and give it with --archives"
        ) from error


def _measure(folder: pathlib.Path, published: UrlInfo) -> UrlInfo:
    """Returns size and checksum of an archive that was placed by hand, in the form of TFDS."""
    path = folder / published.filename
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != published.checksum:
        logging.getLogger(__name__).warning(
            "%s is not the published archive (sha256 %s, published %s); preparing it as it is",
            path,
            checksum,
            published.checksum,
        )
    return dataclasses.replace(
        published, checksum=checksum, size=type(published.size)(path.stat().st_size)
    )
