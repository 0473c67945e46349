"""Translation with bad input: one clear line before training."""

import pytest
from outcomes import assert_fails

from dlcore import launch
from dlcore.launch import jobs

# Files in folders, all but the first two with something wrong.
FILES = {
    "good": {"a.tsv": "".join(f"{a} {b} c\tx {b} {a}\n" for a in "abcde" for b in "vwxyz")},
    "other": {"a.tsv": "one two\tun deux\ntwo one\tdeux un\none one\tun un\n"},
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
    ("--model=transformer --attention_window=3", ("--model=transformer", "--attention_window")),
    ("--attention_window=3", ("--attention=general", "--attention_window")),
    ("--attention=none --coverage", ("--attention=none", "--coverage")),
    ("--attention=none --coverage_penalty=0.2", ("coverage", "add attention")),
    ("--coverage", ("additive",)),
    ("--copy", ("one vocabulary shared",)),
    ("--bridge=copy", ('bridge "dense"',)),
    ("--model=lstm_batch_norm", ("lstm_layer_norm",)),
    ("--beam=0", ("--beam=0", "from 1")),
    ("--beam=4 --groups=3", ("3 groups", "width 4")),
    ("--diversity=1", ("--groups=1", "--diversity")),
    ("--beam=2 --n_best=3", ("3 hypotheses", "width 2")),
    ("--normalise=length", ("'length'", "gnmt")),
    ("--normalise=power --alpha=-1", ("--alpha=-1.0", "from 0")),
    ("--alpha=0.6", ("--normalise=average", "--alpha")),
    ("--coverage_penalty=-1", ("--coverage_penalty=-1.0", "from 0")),
    ("--min_length=9", ("minimum length 9", "4 decoding steps")),
    ("--no_repeat=0", ("--no_repeat=0", "from 1")),
    ("--max_length=9", ("--max_length=9", "--limit=8")),
    ("--limit=1", ("--limit=1", "from 2")),
    ("--limit=3", ("all 23 pairs", "3 tokens")),
    ("--translate=/nowhere", ("/nowhere", "No such file")),
    ("--translate={tmp}/nothing/a.tsv", ("a.tsv", "holds no text")),
    ("--translate={tmp}/good/a.tsv", ("--translate", "finished", "train")),
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
    run = str(folder / "run")
    translation = jobs.module("translation")
    config = translation.Config(
        data_path=str(folder / "other"),
        level="word",
        steps=1,
        warmup_steps=0,
        hidden=4,
        beam=1,
        workdir=run,
    )
    launch.run(translation.Translation(config))
    return {"tmp": str(folder), "run": run}


@pytest.fixture
def job():
    return "translation"


@pytest.fixture
def common_flags():
    return ["--level=word", "--hidden=16", "--limit=8", "--beam=3"]


@pytest.mark.parametrize(("flags", "words"), BAD_INPUT, ids=[flags for flags, _ in BAD_INPUT])
def test_bad_input_is_one_clear_line_before_training(run, names, tmp_path, flags, words):
    data_path = [] if "--data" in flags else [f"--data_path={names['tmp']}/good"]
    process = run(f"--workdir={tmp_path / 'run'}", *data_path, *flags.format(**names).split())
    assert_fails(process, *(word.format(**names) for word in words))
    assert "step/s" not in process.stderr and not (tmp_path / "run" / "config.json").exists()
