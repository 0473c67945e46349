"""A gallery of persons, or of what else identities are, beside a trained run.

The file gallery.json in the run's folder has the embedding of each enrolled picture and the
fingerprint of the encoder that made it. Persons come and go without training.

Two pictures are of one person where their distance is at most the threshold of --false_accept_rate,
which the run found on pairs of its validation part and keeps in summary.json. The distance to a
person is that to the nearest of his or her pictures.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlcore import launch
from dlcore.data.identities import list_pictures
from dlcore.errors import InputError, choose
from dlcore.files import read_json, write_whole
from dlcore.launch.fields import choice, names, path, text
from dlcore.launch.loading import Trained
from dlcore.launch.predictions import input_images
from dlcore.metrics import distance_matrix, threshold_at
from dlcore.train.logs import writing
from dlcore.types import Variables

RATES = ("0.1", "0.01", "0.001", "0.0001")
ASKS = ("enrol", "remove", "verify", "identify")
_FILE = "gallery.json"
_LISTED = 5  # persons that are nearest to a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class GalleryGroup(launch.Group):
    """The options by which a command asks a trained run about persons."""

    title = "Gallery"

    enrol: str | None = path(
        None, "add this folder, with a folder of pictures per person, to the gallery", free=True
    )
    remove: tuple[str, ...] = names("persons to remove from the gallery", free=True)
    verify: tuple[str, ...] = names(
        "A,B are two pictures, or a picture and an enrolled person: say whether they "
        "are one person",
        free=True,
    )
    identify: str | None = text(
        None,
        "name the person of the gallery in a picture, in those of a folder, or in those that "
        "standard input (-) lists",
        free=True,
    )
    false_accept_rate: str = choice(
        "0.01", RATES, "share of pairs of two persons that may be accepted as one", free=True
    )


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Enrolled pictures. Shapes: G pictures, D numbers of an embedding.

    Attributes:
        encoder: the fingerprint of what made the embeddings.
        persons: the person on each of the G pictures.
        files: where each picture came from.
        embeddings: float32 [G, D].
    """

    encoder: str
    persons: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    embeddings: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @classmethod
    def read(cls, folder: pathlib.Path, encoder: str) -> "Gallery":
        """Returns the gallery of a run, empty where nobody was enrolled.

        Raises:
            InputError: when it is damaged, or another encoder made it.
        """
        file = folder / _FILE
        try:
            found = read_json(file)
            pictures = found["pictures"]
            embeddings = np.array([one["embedding"] for one in pictures], np.float32)
            gallery = cls(
                str(found["encoder"]),
                tuple(str(one["person"]) for one in pictures),
                tuple(str(one["file"]) for one in pictures),
                embeddings if pictures else embeddings.reshape(0, 0),
            )
        except FileNotFoundError:
            return cls(encoder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} is not a gallery that can be read ({type(error).__name__}: {error}); "
                "restore it, or remove it and enrol again"
            ) from error
        if gallery.encoder != encoder:
            raise InputError(
                f"{file} was made by another encoder than that of this run, whose distances mean "
                "something else; remove it and enrol again"
            )
        return gallery

    def write(self, folder: pathlib.Path) -> None:
        """Writes the gallery beside the run, whole or not at all."""
        pictures = [
            {"person": person, "file": file, "embedding": embedding.tolist()}
            for person, file, embedding in zip(
                self.persons, self.files, self.embeddings, strict=True
            )
        ]
        content = {"encoder": self.encoder, "pictures": pictures}
        with writing(folder):
            write_whole(folder / _FILE, json.dumps(content), errors="backslashreplace")

    def having(self, kept: Sequence[bool] | np.ndarray) -> "Gallery":
        """Returns the gallery of some of its pictures."""
        rows = np.flatnonzero(kept)
        return Gallery(
            self.encoder,
            tuple(self.persons[row] for row in rows),
            tuple(self.files[row] for row in rows),
            self.embeddings[rows],
        )

    def without(self, persons: Collection[str]) -> "Gallery":
        """Returns the gallery without some persons.

        Raises:
            InputError: for one who is not in it.
        """
        for person in persons:
            if person not in self.persons:
                raise choose("person in the gallery", person, {*self.persons})
        return self.having([person not in persons for person in self.persons])

    def extended(
        self, persons: Sequence[str], files: Sequence[str], embeddings: np.ndarray
    ) -> "Gallery":
        """Returns the gallery with further pictures; one that is there already is replaced."""
        new = {*zip(persons, files, strict=True)}
        old = self.having([key not in new for key in zip(self.persons, self.files, strict=True)])
        parts = [part for part in (old.embeddings, embeddings) if len(part)]
        return Gallery(
            self.encoder,
            (*old.persons, *persons),
            (*old.files, *files),
            np.concatenate(parts) if parts else old.embeddings,
        )

    def of(self, person: str) -> np.ndarray:
        """Returns the embeddings of a person's pictures."""
        return self.embeddings[[own == person for own in self.persons]]

    def nearest(
        self, embedding: np.ndarray, distance: str, count: int = _LISTED
    ) -> list[tuple[str, float]]:
        """Returns the persons nearest to an embedding [D], with their distances, nearest first."""
        distances = distance_matrix(distance, embedding[None], self.embeddings)[0]
        of_person: dict[str, float] = {}
        for person, found in zip(self.persons, distances.tolist(), strict=True):
            of_person[person] = min(found, of_person.get(person, math.inf))
        return sorted(of_person.items(), key=lambda item: (item[1], item[0]))[:count]


def fingerprint(variables: Variables) -> str:
    """Returns a text that differs between encoders: a hash of all names and numbers of theirs."""
    digest = hashlib.sha256()
    for where, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(where)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def thresholds(distances: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """Returns the threshold of each of the `RATES` that there are enough pairs for.

    Args:
        distances: of pairs, (M,).
        same: (M,), true for pairs of one identity.

    Returns:
        A rate is left out where it is less than one of the pairs of two identities, and where any
        distance would do.
    """
    different = int(np.count_nonzero(~np.asarray(same, bool)))
    found = {
        rate: threshold_at(distances, same, float(rate))
        for rate in RATES
        if float(rate) * different >= 1
    }
    return {rate: value for rate, value in found.items() if math.isfinite(value)}


def threshold_of(summary: Mapping[str, Any], rate: str) -> float:
    """Returns the threshold that a run keeps for a false-accept rate.

    Raises:
        InputError: when the run has none.
    """
    kept = summary.get("thresholds", {})
    if rate not in kept:
        raise InputError(
            f"the run has no threshold at --false_accept_rate={rate}; it has "
            + (", ".join(kept) or "none, for it has not ended or has too few validation pairs")
        )
    return float(kept[rate])


def ask(trained: Trained[Any, Any], distance: str) -> Iterator[dict[str, Any]]:
    """Does what a command asks of a run and its gallery; yields the answers.

    Persons are removed first and enrolled next, so that one command can replace a person.

    Args:
        trained: the run, with the `GalleryGroup` of the command in its configuration.
        distance: of `metrics.embeddings`, between the embeddings that the run predicts.

    Raises:
        InputError: for pictures that cannot be read, persons who are not there, and a gallery that
            is empty, damaged or of another encoder.
    """
    config, folder = trained.config, trained.task.workdir
    gallery = Gallery.read(folder, fingerprint(trained.variables))
    if config.remove or config.enrol is not None:
        gallery = gallery.without(config.remove)
        if config.enrol is not None:
            gallery = _enrolled(trained, gallery, pathlib.Path(config.enrol).expanduser())
        gallery.write(folder)
        launch.say(
            f"{len({*gallery.persons}):,} persons with {len(gallery.persons):,} pictures: "
            f"{folder / _FILE}"
        )
    if config.verify:
        yield _verified(trained, gallery, distance)
    if config.identify is not None:
        if not gallery.persons:
            raise InputError(
                f"nobody is enrolled in {folder / _FILE}; add a folder of persons with --enrol"
            )
        threshold = threshold_of(trained.summary, config.false_accept_rate)
        files = input_images(config.identify)
        for file, embedding in zip(files, trained.predict(files), strict=True):
            near = gallery.nearest(embedding, distance)
            person, found = near[0]
            yield {
                "input": file,
                "verdict": person if found <= threshold else "unknown",
                "person": person,
                "distance": found,
                "threshold": threshold,
                "nearest": [{"person": name, "distance": value} for name, value in near],
            }


def _enrolled(trained: Trained[Any, Any], gallery: Gallery, folder: pathlib.Path) -> Gallery:
    pictures, notes = list_pictures(folder)
    for note in notes:
        launch.say(note)
    persons = [person for person, files in pictures.items() for _ in files]
    files = [str(file.resolve()) for files in pictures.values() for file in files]
    return gallery.extended(persons, files, trained.predict(files))


def _verified(trained: Trained[Any, Any], gallery: Gallery, distance: str) -> dict[str, Any]:
    config = trained.config
    if len(config.verify) != 2:
        raise InputError(
            f"--verify={','.join(config.verify)} names {len(config.verify)}; give two pictures, or "
            "a picture and a person: --verify=A,B"
        )
    threshold = threshold_of(trained.summary, config.false_accept_rate)
    sides = []
    for side in config.verify:
        is_person = side in gallery.persons and not pathlib.Path(side).is_file()
        sides.append(gallery.of(side) if is_person else trained.predict([side]))
    found = float(distance_matrix(distance, *sides).min())
    first, second = config.verify
    return {
        "first": first,
        "second": second,
        "verdict": "same" if found <= threshold else "different",
        "distance": found,
        "threshold": threshold,
    }
