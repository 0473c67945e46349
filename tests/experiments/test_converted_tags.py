"""Taggers that are trained in another form of spans than the files have."""

import jax
import numpy as np
import pytest
from in_process import run_here

import dlcore
from dlcore.errors import InputError
from dlcore.launch import jobs

TASK = jobs.task_class("tagging")
CONFIG, _ = TASK.parts()
# In IOB1 B parts spans that touch.
SENTENCES = ["Ann I-PER\nsees O\n", "Ann I-PER\nLee I-PER\nBob B-PER\n", "Rome I-LOC\nBob I-PER\n"]
SMALL = {"hidden": 8, "embedding_size": 8, "batch_size": 4, "limit": 5}


@pytest.fixture
def files(tmp_path):
    for name, count in (("train", 4), ("dev", 2), ("test", 2)):
        (tmp_path / f"{name}.conll").write_text("\n".join(SENTENCES * count))
    return tmp_path


@pytest.mark.slow
def test_training_and_predictions_are_in_the_form(files, capfd):
    workdir = files / "run"
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    process = run_here(
        capfd,
        "tagging",
        [*flags, f"--data_path={files}", f"--workdir={workdir}", "--steps=100",
         "--learning_rate=0.05", "--warmup_steps=1", "--convert_tags=BIOES"],
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    # Of the 7 tokens of the three sentences 6 have another tag; O stays.
    line = (
        "converted the tags of the scheme IOB to BIOES: 48 of 56 tokens have a new tag, and 4 tags"
    )
    assert process.stderr.count(line) == 1 and f"{line} became 5" in process.stderr
    trained = dlcore.load(workdir)
    assert trained.info.tag_names == ("B-PER", "E-PER", "O", "S-LOC", "S-PER")
    assert trained.answers(["Ann Lee Bob", "Rome Bob"])[0]["tags"] == ["B-PER", "E-PER", "S-PER"]
    assert trained.summary["metrics"]["span_f1"] == 1


def test_scores_are_those_of_the_form(files):
    """All spans of one token are S; read as IOB they would be other types."""
    task = TASK(CONFIG(**SMALL, data_path=str(files), convert_tags="BILOU"))
    data = task.data()
    task.info = data.info
    assert task.metric == ("span_f1", "max") and "U-LOC" in data.info.tag_names
    batch = next(iter(data.test()))
    variables = task.init(jax.random.key(0))
    tags = np.asarray(batch["tags"])
    emissions = np.eye(len(data.info.tag_names), dtype=np.float32)[tags] * 9
    assert float(task.measure(variables, emissions, batch)["span_recall"].compute()) == 1


@pytest.mark.parametrize(("scheme", "tags"), [("none", "I-PER"), ("auto", "NOUN")])
def test_tags_that_mark_no_spans_are_not_converted(files, scheme, tags):
    (files / "train.conll").write_text(f"a {tags}\n\nb {tags}\n")
    for name in ("test", "dev"):
        (files / f"{name}.conll").write_text(f"a {tags}\n\n")
    config = CONFIG(**SMALL, data_path=str(files), tag_scheme=scheme, convert_tags="IOB2")
    with pytest.raises(InputError, match="--convert_tags=IOB2: the tags of .* mark no spans"):
        TASK(config).data()
