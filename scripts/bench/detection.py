"""Benchmarks of detection: `.venv/bin/python scripts/bench/detection.py [nms regions ...]`.

Each contender is a process of its own, and they take turns; tables have medians and ratios.
torchvision is the peer, where it is installed. Sections:

    nms      the best 100 of 1,000 boxes of one picture after non-max suppression; wanted: no slower
             than torchvision's
    regions  RoIAlign and RoI pooling of 8 pictures, alone and with the gradient
    whole_models
             a training step and the detection of pictures of all detectors but R-CNN; the
             candidates of Fast R-CNN are given
    line     R-CNN, Fast R-CNN, Faster R-CNN, YOLO v2 and v1 on the same scenes with the same body:
             seconds of training, scores, and milliseconds of a picture from its pixels to its
             boxes; about 50 minutes, of which --runs keeps the trained ones
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import detection_contenders as make
import detection_models as models
from absl import flags
from contenders import ROOT, Contender, Failed, Step, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 7, "turns of each contender")
flags.DEFINE_string("runs", None, "line: folder of the trained runs; by default one that goes")
LINE = ("rcnn", "fast_rcnn", "faster_rcnn", "yolo_v2", "yolo_v1")
# Those that start from the body of another one's run, as their recipes say.
FROM = {"yolo_v1": "yolo_v2"}


def nms() -> None:
    """1,000 boxes; "around objects" is what a detector gives, "anywhere" keeps most."""
    rows = [("boxes", "classes", "torchvision ms", "ours ms", "torchvision / ours")]
    for objects in (20, 0):
        for classes in (1, 10):
            options = {"count": 1000, "objects": objects, "classes": classes}
            kind = f"around {objects} objects" if objects else "anywhere"
            rows.append(
                (kind, str(classes))
                + compared(make.our_suppression, make.their_suppression, options)
            )
    table(rows)


def regions() -> None:
    """7 x 7 bins, 64 boxes a picture on maps of 12 x 12 x 64, and 16 on 50 x 50 x 256."""
    rows = [("kind", "map", "boxes", "with gradient", "torchvision ms", "ours ms",
             "torchvision / ours")]  # fmt: skip
    for kind in ("align", "pool"):
        for side, channels, count in ((12, 64, 64), (50, 256, 16)):
            for gradient in (False, True):
                options = {"kind": kind, "side": side, "channels": channels, "regions": count}
                times = compared(
                    make.our_regions, make.their_regions, options | {"gradient": gradient}
                )
                shape = f"{side} x {side} x {channels}"
                rows.append((kind, shape, str(count), "yes" if gradient else "no") + times)
    table(rows)


def whole_models() -> None:
    """As the recipes have them: steps of 16 scenes of 96 x 96, detections of 32 and of one."""
    rows = [("model", "what", "pictures", "PyTorch ms", "ours ms", "PyTorch / ours")]
    for model in models.PEERS:
        for train, pictures in ((True, 16), (False, 32), (False, 1)):
            options = {"model": model, "pictures": pictures, "train": train}
            what = "training step" if train else "detection"
            rows.append(
                (model, what, str(pictures)) + compared(models.ours, models.theirs, options)
            )
    table(rows)


def line() -> None:
    """Recipes digit_scenes_MODEL, and what each says of one picture after the other."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(FLAGS.runs or temporary)
        summaries = {model: trained(model, folder) for model in LINE}
        contenders = {
            model: Contender(make.trained_detector, workdir=str(folder / model)) for model in LINE
        }
        times = take_turns(contenders, rounds=FLAGS.rounds, seconds=2.0)
    rows = [("model", "training seconds", "mAP50", "AP", "ms a picture")]
    for model, summary in summaries.items():
        scores = (f"{summary['metrics'][name]:.3f}" for name in ("mAP50", "AP"))
        ms = 1e3 * statistics.median(times[model])
        rows.append((model, f"{summary['seconds']:.0f}", *scores, f"{ms:.1f}"))
    table(rows)


def trained(model: str, folder: pathlib.Path) -> dict[str, Any]:
    """The summary of the run of a model in a folder, which is trained where there is none."""
    summary = folder / model / "summary.json"
    if not summary.exists():
        options = [f"--recipe=digit_scenes_{model}", f"--workdir={folder / model}"]
        if model in FROM:
            options.append(f"--init_from={folder / FROM[model]}")
        command = [sys.executable, "-m", "experiments.detection", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(summary.read_text(encoding="utf-8"))


def compared(
    ours: Callable[..., Step], theirs: Callable[..., Step], options: dict[str, Any]
) -> tuple[str, str, str]:
    """The median milliseconds of the peer and of ours, and the median ratio of neighbours."""
    contenders = {"ours": Contender(ours, **options)}
    try:
        contenders["torchvision"] = Contender(theirs, **options)
    except Failed as error:
        print(str(error).strip().splitlines()[-1])
    times = take_turns(contenders, rounds=FLAGS.rounds, seconds=0.5)
    mine = f"{1e3 * statistics.median(times['ours']):.2f}"
    if "torchvision" not in times:
        return "-", mine, "-"
    peer = f"{1e3 * statistics.median(times['torchvision']):.2f}"
    return peer, mine, f"{ratio(times, 'torchvision'):.2f}"


if __name__ == "__main__":
    run(nms, regions, whole_models, line)
