"""Benchmarks of detection: `.venv/bin/python scripts/bench/detection.py [nms regions ...]`.

Each contender is a process of its own, and they take turns; tables have medians and ratios.
torchvision is the peer, where it is installed. Sections:

    nms      the best 100 of 1,000 boxes of one picture after non-max suppression; wanted: no slower
             than torchvision's
    regions  RoIAlign and RoI pooling of 8 pictures, alone and with the gradient
"""

import statistics

import detection_contenders as make
from absl import flags
from contenders import Contender, Failed, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 7, "turns of each contender")


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


def compared(ours, theirs, options: dict) -> tuple[str, str, str]:
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
    run(nms, regions)
