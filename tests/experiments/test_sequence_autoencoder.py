"""Sequence autoencoders: what they learn, and the classifiers that start from them."""

import random

import jax
import numpy as np
import pytest

import dlcore
from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch import jobs

translation = jobs.module("translation")
text_classification = jobs.module("text_classification")
SIZES = {"hidden": 24, "embedding_size": 12, "layers": 1}
GOOD, BAD = ("fine", "lovely", "warm"), ("dull", "dreary", "cold")


def lines(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(GOOD + BAD, k=draw.randint(2, 3))) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder and the task of a sequence autoencoder of short texts, and its result."""
    texts = tmp_path_factory.mktemp("texts") / "texts.txt"
    texts.write_text("".join(f"{line}\n" for line in lines(600, 0)), encoding="utf-8")
    folder = tmp_path_factory.mktemp("autoencoder")
    task = translation.Translation(
        translation.Config(
            autoencode=True, data_path=str(texts), level="word", model="lstm", limit=6, steps=120,
            batch_size=32, learning_rate=0.03, warmup_steps=5, workdir=str(folder), **SIZES,
        )
    )  # fmt: skip
    return folder, task, launch.run(task).result


def test_the_state_alone_draws_unseen_texts_again(trained):
    folder, task, _ = trained
    assert all(source == target for source, target in task.texts.train)
    assert task.model.attention is None
    assert not {*task.texts.test} & {*task.texts.train}
    metrics = dlcore.load(folder).summary["metrics"]
    # A decoder that knew nothing of a text would guess one of hundreds.
    assert metrics["exact_match"] > 0.5


def classifier(tmp_path, source, **options):
    reviews = tmp_path / "reviews.tsv"
    rows = lines(60, 1)
    reviews.write_text(
        "".join(f"{'good' if row.split()[0] in GOOD else 'bad'}\t{row}\n" for row in rows),
        encoding="utf-8",
    )
    config = text_classification.Config(
        init_from=str(source), data_path=str(reviews), steps=1, batch_size=8, learning_rate=1e-9,
        weight_decay=0.0, warmup_steps=0, workdir=str(tmp_path / "run"), **SIZES | options,
    )  # fmt: skip
    return text_classification.TextClassification(config)


@pytest.fixture(scope="module")
def classified(trained, tmp_path_factory):
    """The folder of a classifier that has started from the sequence autoencoder, and its result."""
    path = tmp_path_factory.mktemp("classifier")
    return path / "run", launch.run(classifier(path, trained[0]))


def test_a_classifier_starts_from_its_vocabulary_and_encoder(trained, classified):
    (folder, *_), (classifier_folder, outcome) = trained, classified
    theirs, ours = dlcore.load(folder), outcome.variables["params"]["encoder"]
    assert dlcore.load(classifier_folder).info.vocabulary.tokens == theirs.info.vocabulary.tokens
    params = theirs.variables["params"]
    for taken, given in ((ours["embedding"], params["source_embedding"]),
                         (ours["stack"], params["encoder"])):  # fmt: skip
        assert jax.tree.structure(taken) == jax.tree.structure(given)
        for one, other in zip(jax.tree.leaves(taken), jax.tree.leaves(given), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_other_sizes_and_other_runs_are_one_line(trained, classified, tmp_path):
    folder, _, _ = trained
    with pytest.raises(InputError, match="--hidden=24") as error:
        launch.run(classifier(tmp_path, folder, hidden=16))
    assert "choose these" in str(error.value)
    with pytest.raises(InputError, match="no sequence autoencoder"):
        launch.run(classifier(tmp_path, classified[0]))
