"""Trackers, against stand-ins of their libraries that note what they are told."""

import sys
import types

import pytest

from dlcore.errors import InputError
from dlcore.train.tracking import FILE, open_tracker

CONFIG = {f"option_{i}": i for i in range(250)} | {"model": "mlp"}


class Notes:
    """The calls of a library, in their order."""

    def __init__(self):
        self.calls = []
        self.broken = False

    def note(self, name, /, *args, **kwargs):
        if self.broken:
            raise ConnectionError("no\nserver")
        self.calls.append((name, args, kwargs))

    def named(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def wandb(monkeypatch):
    notes, module = Notes(), types.ModuleType("wandb")

    def init(**options):
        notes.note("init", **options)
        return types.SimpleNamespace(
            id=options["id"] or "new",
            log=lambda *args, **kwargs: notes.note("log", *args, **kwargs),
            finish=lambda: notes.note("finish"),
        )

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return notes


@pytest.fixture
def mlflow(monkeypatch):
    notes, module = Notes(), types.ModuleType("mlflow")

    def start_run(**options):
        notes.note("start_run", **options)
        info = types.SimpleNamespace(run_id=options["run_id"] or "new")
        return types.SimpleNamespace(info=info)

    module.start_run = start_run
    for name in ("set_experiment", "log_params", "log_metrics", "end_run"):

        def call(*args, _name=name, **kwargs):
            notes.note(_name, *args, **kwargs)

        setattr(module, name, call)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return notes


def opened(name, workdir, said=None):
    said = [] if said is None else said
    return open_tracker(name, workdir, project="job", config=CONFIG, say=said.append)


def test_weights_and_biases(wandb, tmp_path):
    tracker = opened("wandb", tmp_path)
    [(_, options)] = wandb.named("init")
    assert options["project"] == "job" and options["name"] == tmp_path.name
    assert options["config"] == CONFIG and options["id"] is None
    tracker.metrics(10, "train", {"loss": 2.0})
    tracker.metrics(10, "test", {"loss": 3.0, "accuracy": 0.5})
    tracker.close()
    assert wandb.named("log") == [
        (({"train/loss": 2.0},), {"step": 10}),
        (({"test/loss": 3.0, "test/accuracy": 0.5},), {"step": 10}),
    ]
    assert wandb.calls[-1][0] == "finish"


def test_mlflow(mlflow, tmp_path):
    tracker = opened("mlflow", tmp_path)
    assert mlflow.named("set_experiment") == [(("job",), {})]
    sent = [args[0] for args, _ in mlflow.named("log_params")]
    assert max(map(len, sent)) <= 100
    assert {name: value for part in sent for name, value in part.items()} == CONFIG
    tracker.metrics(10, "test", {"loss": 3.0})
    tracker.close()
    assert mlflow.named("log_metrics") == [(({"test/loss": 3.0},), {"step": 10})]
    assert mlflow.calls[-1][0] == "end_run"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_continued_run_is_the_same_run_there(request, tmp_path, name):
    notes = request.getfixturevalue(name)
    opened(name, tmp_path).close()
    opened(name, tmp_path).close()
    started, key = ("init", "id") if name == "wandb" else ("start_run", "run_id")
    assert [options[key] for _, options in notes.named(started)] == [None, "new"]
    assert name == "wandb" or len(notes.named("log_params")) == 3  # of the first start alone


@pytest.mark.parametrize("text", ["", "[]", '{"wandb": "theirs"', "{}"])
def test_a_damaged_note_of_the_run_begins_a_new_one(wandb, tmp_path, text):
    (tmp_path / FILE).write_text(text)
    opened("wandb", tmp_path)
    assert wandb.named("init")[0][1]["id"] is None


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_fault_ends_the_tracking_alone_and_is_said_once(request, tmp_path, name):
    notes, said = request.getfixturevalue(name), []
    tracker = opened(name, tmp_path, said)
    notes.broken = True
    for step in range(3):
        tracker.metrics(step, "train", {"loss": 1.0})
    tracker.close()
    assert len(said) == 1 and "goes on without it" in said[0]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_cannot_begin_is_one_clear_line(request, monkeypatch, tmp_path, name):
    request.getfixturevalue(name).broken = True
    with pytest.raises(InputError, match="cannot begin a run: no server; correct its settings"):
        opened(name, tmp_path)
    assert not (tmp_path / FILE).exists()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"pip install {name}"):
        opened(name, tmp_path)
    with pytest.raises(InputError, match="unknown tracker 'tensorbored'.*wandb"):
        opened("tensorbored", tmp_path)
