"""Benchmarks of embeddings: `.venv/bin/python scripts/bench/metric_learning.py [step mining ...]`.

They keep to two cores; the peer is PyTorch. Sections:

    step     a training step of the default job, 32 glyphs with 4 pictures each; wanted: no slower
             than PyTorch
    mining   the triplet loss of a batch of embeddings and its gradient, by each mining; the peer is
             written as pytorch-metric-learning does it, over the matrix of all distances; wanted:
             no slower
    figures  20-way one-shot accuracy and equal error rate on unseen characters and on unseen
             scripts, of the embedding and of pixels, of the finished runs in --runs, or of the
             default job, which is then trained; wanted: 97 % and 3 %
"""

import json
import pathlib
import statistics

import metric_learning_contenders as make
from absl import flags
from contenders import Contender, Failed, experiment, ratio, run, table, take_turns

from dlcore.losses import MINING

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "turns of each contender", 1)
flags.DEFINE_list("runs", [], "figures: folders of finished runs of metric_learning")

BATCHES = (128, 512, 1024)
_HEAD = ("ours, ms", "PyTorch, ms", "PyTorch / ours (wanted 1)")


def step() -> None:
    """Conv4 on 128 glyphs of 32 x 32, InfoNCE by cosines, AdamW."""
    contenders = {"ours": Contender(make.our_step, augment="none")}
    contenders["PyTorch"] = Contender(make.their_step)
    contenders["augmented"] = Contender(make.our_step, augment="affine")
    times = take_turns(contenders, rounds=FLAGS.rounds, seconds=3)
    shown = (f"{1e3 * statistics.median(times[name]):.1f}" for name in contenders)
    rows = [(*_HEAD[:2], "ours with --augment=affine, ms", _HEAD[2])]
    rows.append((*shown, f"{ratio(times, 'PyTorch'):.2f}"))
    table(rows)


def mining() -> None:
    """64 numbers on the unit sphere, identities of 4 pictures, margin 0.2, with the gradient."""
    rows = [("mining", "batch", *_HEAD)]
    for name in MINING:
        for count in BATCHES:
            options = {"mining": name, "count": count}
            contenders = {"ours": Contender(make.our_mining, **options)}
            try:
                contenders["PyTorch"] = Contender(make.their_mining, **options)
            except Failed as error:  # such as for lack of memory
                print(f"{name}, {count}: PyTorch {str(error).strip().splitlines()[-1]}")
            times = take_turns(contenders, rounds=FLAGS.rounds, seconds=0.5)
            medians = {one: f"{1e3 * statistics.median(times[one]):.2f}" for one in times}
            share = f"{ratio(times, 'PyTorch'):.2f}" if "PyTorch" in times else "-"
            rows.append((name, str(count), medians["ours"], medians.get("PyTorch", "-"), share))
    table(rows)


def figures() -> None:
    """Shares in %, on unseen characters and, where there are some, on whole unseen scripts."""
    rows = [("run", "tested on", "few-shot", "of pixels", "EER", "of pixels", "ways", "seconds")]
    if FLAGS.runs:
        files = {folder: pathlib.Path(folder) / "summary.json" for folder in FLAGS.runs}
        found = {run: json.loads(file.read_text("utf-8")) for run, file in files.items()}
    else:
        found = {"default": experiment("metric_learning")}
    for name, summary in found.items():
        metrics = summary["metrics"]
        starts = [key.removesuffix("few_shot") for key in metrics if key.endswith("few_shot")]
        for start in (one for one in starts if not one.endswith("pixels_")):
            keys = (f"{start}{pixels}{metric}"
                    for metric in ("few_shot", "eer") for pixels in ("", "pixels_"))  # fmt: skip
            shares = (f"{100 * metrics[key]:.1f}" if key in metrics else "-" for key in keys)
            part = start.removesuffix("_") or "test"
            seconds = f"{summary['seconds']:.0f}"
            rows.append((name, part, *shares, str(summary.get("ways", "-")), seconds))
    table(rows)


if __name__ == "__main__":
    run(step, mining, figures)
