"""What TensorBoard reads of a run."""

import pathlib
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c

from dlcore.report.plots import plot_lines
from dlcore.train.logs import RunLog, show_pictures


def events_of(workdir):
    """The events in the files of a run, in the order of their names."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        with path.open("rb") as file:
            while header := file.read(12):
                length, checksum = struct.unpack("<QI", header)
                data = file.read(length)
                assert checksum == masked_crc32c(header[:8])
                assert struct.unpack("<I", file.read(4)) == (masked_crc32c(data),)
                events.append(Event.FromString(data))
    return events


def values_of(workdir):
    """The values in the events, each with its step."""
    return [(event.step, value) for event in events_of(workdir) for value in event.summary.value]


def test_what_is_written_is_there_at_once_and_whole(tmp_path):
    log = RunLog(tmp_path, start=4, progress=False)
    log.metrics(5, "train", {"loss": 1.5}, speed={"steps_per_second": 2.0})
    events = events_of(tmp_path)  # whatever happens later
    log.close()
    assert [event.step for event in events] == [0, 5, 5]
    assert events[0].file_version == "brain.Event:2" and events[1].session_log.status == 1
    assert {value.tag: value.simple_value for value in events[2].summary.value} == {
        "train/loss": 1.5, "wall_clock/steps_per_second": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_groups_of_curves_begin_with_those_of_the_data(tmp_path, split):
    log = RunLog(tmp_path, progress=False)
    speed = {"steps_per_second": 2.0, "seconds_per_step/data": 0.1}
    log.metrics(5, "train", {"loss": 1.5, "grad_norm": 1.0}, speed=speed)
    log.metrics(5, split, {"accuracy": 0.5, "loss": 1.0})
    log.close()
    groups = sorted({value.tag.split("/")[0] for _, value in values_of(tmp_path)})
    assert groups == sorted([split, "train"]) + ["wall_clock"]


def test_the_hyperparameters_come_once_beside_the_metrics_of_evaluations(tmp_path):
    config = {
        "model": "mlp", "steps": 30, "learning_rate": 0.5, "proximal": True, "ema": None,
        "hyper": ["b1=0.9", "b2=0.5"], "data_path": "\udcff",
    }  # fmt: skip
    log = RunLog(tmp_path, progress=False, config=config)
    log.metrics(10, "train", {"loss": 2.0})
    for step in (10, 20):
        log.metrics(step, "test", {"loss": 2.0, "accuracy": 0.5})
    log.close()
    found = [value for _, value in values_of(tmp_path) if value.tag.startswith("_hparams_/")]
    experiment, session = (
        HParamsPluginData.FromString(value.metadata.plugin_data.content) for value in found
    )
    metrics = {info.name.tag for info in experiment.experiment.metric_infos}
    assert metrics == {"test/loss", "test/accuracy"}
    given = session.session_start_info.hparams
    assert {name: getattr(given[name], given[name].WhichOneof("kind")) for name in given} == {
        "model": "mlp", "steps": 30, "learning_rate": 0.5, "proximal": True,
        "hyper": "b1=0.9, b2=0.5", "data_path": "?",
    }  # fmt: skip


def test_texts_keep_their_lines(tmp_path):
    log = RunLog(tmp_path, progress=False)
    log.text("sample", "a *b*\n<c> \udcff", 7)
    log.close()
    RunLog(None, progress=False).text("sample", "nowhere", 7)
    [(step, value)] = values_of(tmp_path)
    assert (step, value.tag) == (7, "sample/text_summary")
    assert value.tensor.string_val == [b"    a *b*\n    <c> ?"]


def test_pictures_are_added_to_a_run_that_has_ended(tmp_path):
    log = RunLog(tmp_path, progress=False)
    log.metrics(9, "train", {"loss": 2.0})
    log.close()
    (tmp_path / "report").mkdir()
    for name in ("filters", "curves"):
        plot_lines(
            {"a": ([1, 2], [1, 2])}, tmp_path / "report" / f"{name}.png", title="", x="x", y="y"
        )
    show_pictures(tmp_path, (tmp_path / "report").glob("*.png"), 9)
    values = values_of(tmp_path)
    assert [(step, value.tag) for step, value in values] == [
        (9, "train/loss"), (9, "curves"), (9, "filters"),
    ]  # fmt: skip
    image = values[1][1].image
    data = pathlib.Path(tmp_path / "report" / "curves.png").read_bytes()
    assert image.encoded_image_string == data and (image.width, image.height) == (768, 480)
    assert [event.session_log.status for event in events_of(tmp_path)].count(1) == 1
