"""A run remembers facts about its data, and refuses other data when it continues."""

import dataclasses

import numpy as np
import pytest

from dlcore.data.text import Vocabulary
from dlcore.errors import InputError
from dlcore.launch import info


@dataclasses.dataclass(frozen=True)
class Info:
    class_names: tuple[str, ...]
    vocabulary: Vocabulary
    scale: np.ndarray = dataclasses.field(compare=False)
    other: Vocabulary | None = None


WORDS = Vocabulary.build("the cat and the dog\n")


def made(classes=("cat", "dog"), vocabulary=WORDS, scale=0.1):
    return Info(classes, vocabulary, np.array([scale, 2.0]))


def test_it_comes_back_as_it_was(tmp_path):
    info.write(tmp_path, "some_job", made())
    found = info.read(tmp_path, Info)
    assert found.class_names == ("cat", "dog") and found.vocabulary == WORDS
    assert found.scale.tolist() == [0.1, 2.0] and found.other is None
    assert info.read_job(tmp_path) == "some_job"
    assert (tmp_path / "vocabulary.json").exists() and not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("dog", "cat"), "class names.*in another order"),
        (("cat", "hound"), "without dog and with hound now"),
        (("cat", "dog", "eel"), "with eel now"),
    ],
)
def test_other_classes_are_refused(tmp_path, classes, words):
    info.write(tmp_path, "job", made())
    with pytest.raises(InputError, match=words):
        info.settle(tmp_path, made(classes))


def test_another_vocabulary_is_refused_and_scaling_stays(tmp_path):
    info.write(tmp_path, "job", made())
    with pytest.raises(InputError, match="vocabulary"):
        info.settle(tmp_path, made(vocabulary=Vocabulary.build("other words\n")))
    assert info.settle(tmp_path, made(scale=7.0)).scale.tolist() == [0.1, 2.0]


def test_damaged_files_are_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no run in"):
        info.read(tmp_path, Info)
    info.write(tmp_path, "job", made())
    (tmp_path / "vocabulary.json").unlink()
    with pytest.raises(InputError, match="vocabulary.json is missing"):
        info.read(tmp_path, Info)
    (tmp_path / "run.json").write_bytes(b"{\xff")
    with pytest.raises(InputError, match="run.json"):
        info.read_job(tmp_path)
