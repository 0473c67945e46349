"""Translation with bad input: one clear line before training."""

import json
import subprocess
import sys

import pytest
from outcomes import assert_fails
from processes import finished

from dlcore.data.text import Vocabulary

# Runs the job many times in one process that has imported it once: a list of flags on each line of
# the input, the status and what was written to standard error on each line of the output.
MANY = """
import json, os, sys
from experiments import common, translation
for line in sys.stdin:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.dup2(writer, 2)
        os.close(reader)
        sys.argv[1:] = json.loads(line)
        common.launch(translation.main)
    os.close(writer)
    errors = os.fdopen(reader).read()
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print(json.dumps([status, errors]), flush=True)
"""

# Files in folders, all but the first with something wrong.
FILES = {
    "good": {"a.tsv": "".join(f"{a} {b} c\tx {b} {a}\n" for a in "abcde" for b in "vwxyz")},
    "columns": {"a.tsv": "a\tb\nalone\n"},
    "nothing": {"a.tsv": ""},
    "sides": {"a.tsv": "\tb\na\t\n"},
    "one": {"a.tsv": "a\tb\n"},
    "lengths": {"train.en": "a\nb\nc\n", "train.de": "a\nb\n"},
    "aligned": {"train.en": "a\n", "train.de": "a\n"},
}
BAD_INPUT = [
    ("--data_path={tmp}/columns", ("line 2", "1 column", "a tab")),
    ("--data_path={tmp}/nothing", ("a.tsv", "holds no text")),
    ("--data_path={tmp}/sides", ("both sides",)),
    ("--data_path={tmp}/one", ("too few sources (1)",)),
    ("--data_path={tmp}/lengths --languages=en,de", ("en has 3 lines", "de has 2")),
    ("--data_path={tmp}/aligned", ("de, en", "--languages=")),
    ("--data_path={tmp}/aligned --languages=en,fr", ("de, en", "none in fr")),
    ("--model=elman", ("'elman'", "gru", "transformer")),
    ("--attention=bahdanau", ("'bahdanau'", "additive", "local_monotonic")),
    ("--bridge=narrow", ("'narrow'", "dense")),
    ("--model=transformer --norm=batch", ("'batch'", "layer, rms")),
    ("--model=transformer --position=absolute", ("'absolute'", "learned", "rotary")),
    ("--model=transformer --activation=maxout", ("'maxout'", "swiglu")),
    ("--model=transformer --heads=3", ("3 heads", "16 features")),
    ("--model=transformer --attention=dot", ("--model=transformer", "--attention")),
    ("--model=transformer --embedding_size=8", ("--model=transformer", "--embedding_size")),
    ("--heads=2", ("--model=gru", "--heads")),
    ("--attention_window=3", ("--attention=general", "--attention_window")),
    ("--attention=none --coverage", ("--attention=none", "--coverage")),
    ("--attention=none --coverage_penalty=0.2", ("coverage", "add attention")),
    ("--coverage", ("additive",)),
    ("--copy", ("one vocabulary shared",)),
    ("--bridge=copy", ('bridge "dense"',)),
    ("--model=lstm_batch_norm", ("lstm_layer_norm",)),
    ("--beam=0", ("beam width 0", "1 (greedy)")),
    ("--beam=2 --n_best=3", ("3 hypotheses", "width 2")),
    ("--normalise=length", ("'length'", "gnmt")),
    ("--normalise=power --alpha=-1", ("alpha -1.0", "0 or more")),
    ("--alpha=0.6", ("--normalise=average", "--alpha")),
    ("--coverage_penalty=-1", ("coverage -1.0",)),
    ("--min_length=9", ("minimum length 9", "4 decoding steps")),
    ("--no_repeat=0", ("n-grams of size 0",)),
    ("--max_length=9", ("--max_length=9", "--limit=8")),
    ("--limit=3", ("all 23 pairs", "3 tokens")),
    ("--translate=/nowhere", ("/nowhere", "No such file")),
    ("--translate={tmp}/nothing/a.tsv", ("a.tsv", "holds no text")),
    ("--ensemble={tmp}", ("--ensemble={tmp}", "finished")),
    ("--ensemble={run}", ("vocabulary", "{run}")),
    ("--ensemble={run} --shared", ("shared=False", "shared=True")),
    ("--patience=2", ("--validation",)),
    ("--data_path={tmp}/good/a.tsv --languages=en,de", ("is one file", "en,de")),
    ("--languages=en", ("not two", "en,de")),
    ("--data_path= --languages=en,de", ("data path",)),
    ("--dataset=dates/en_xx", ("'dates/en_xx'", "en_de")),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the flags above and their errors name: the folder of `FILES`, and a finished run."""
    folder = tmp_path_factory.mktemp("bad")
    for name, files in FILES.items():
        (folder / name).mkdir()
        for file, content in files.items():
            (folder / name / file).write_text(content)
    run = folder / "run"
    run.mkdir()
    for name, content in (
        ("config", {"shared": False}),
        ("summary", {"experiment": "translation"}),
    ):
        (run / f"{name}.json").write_text(json.dumps(content))
    for side in ("source", "target"):
        Vocabulary.of_tokens(["other"]).save(run / f"{side}.json")
    return {"tmp": str(folder), "run": str(run)}


@pytest.fixture(scope="module")
def refusals(names):
    """The process of each bad input."""
    common = ["--level=word", "--hidden=16", "--limit=8", "--beam=3"]
    data_path = f"--data_path={names['tmp']}/good"
    folders = [f"{names['tmp']}/{number}" for number in range(len(BAD_INPUT))]
    commands = [
        [*common, f"--workdir={folder}", *(flags.format(**names).split())]
        + [data_path] * ("--data" not in flags)
        for folder, (flags, _) in zip(folders, BAD_INPUT, strict=True)
    ]
    lines = "".join(json.dumps(flags) + "\n" for flags in commands)
    process = finished([sys.executable, "-c", MANY], input=lines)
    return [
        subprocess.CompletedProcess(flags, status, stderr=errors)
        for flags, (status, errors) in zip(
            commands, map(json.loads, process.stdout.splitlines()), strict=True
        )
    ]


@pytest.mark.parametrize("number", range(len(BAD_INPUT)), ids=lambda number: BAD_INPUT[number][0])
def test_bad_input_is_one_clear_line_before_training(refusals, names, number):
    assert_fails(refusals[number], *(word.format(**names) for word in BAD_INPUT[number][1]))
    assert "step/s" not in refusals[number].stderr
