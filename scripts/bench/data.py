"""Benchmarks of reading data: `.venv/bin/python scripts/bench/data.py [images text ...]`.

They keep to two cores. Sections:

    images  images/s from a folder of --images JPEGs of about 400x300 to augmented batches of 64,
            at 224 x 224 and 32 x 32, and memory of all processes, beside PyTorch's DataLoader with
            two workers that decode by PIL; wanted: its images/s. Both read four batches ahead, so
            that a turn begins with those
    text    MB/s from --megabytes of text to ids on disk, and the most memory, beside gensim's
            count of words and that of Hugging Face's tokenizers, neither of which writes ids; a
            turn is a new process; wanted: gensim's MB/s, and memory that the ids bound
    tokens  the same from a text to the ids of a language model, by each level of vocabulary
"""

import os
import pathlib
import statistics
import tempfile
import time

import data_contenders as peers
import tqdm
from absl import flags
from contenders import Contender, Failed, Times, alone, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "turns of each contender", 1)
flags.DEFINE_integer("images", 2000, "JPEGs of the section images", 100)
flags.DEFINE_multi_integer("sides", [224, 32], "pixels of a side of the images")
flags.DEFINE_integer("megabytes", 50, "megabytes of text to read", 1)
flags.DEFINE_string(
    "text", None, "text file that is repeated to so many; default: the embedded one"
)
flags.DEFINE_multi_enum("level", ["word", "char", "bpe"], ["word", "space", "char", "bpe"],
                        "of the section tokens")  # fmt: skip

CORES = 2
STEPS = 40  # batches of a turn


def images() -> None:
    """Images/s of batches of augmented images, and the memory of all processes of a contender."""
    makers = {
        "ours": (peers.our_images, {"in_memory": True}),
        "ours, not in memory": (peers.our_images, {"in_memory": False}),
        "DataLoader": (peers.their_images, {"workers": CORES}),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        peers.make_jpegs(path, FLAGS.images)
        for side in FLAGS.sides:
            start = time.perf_counter()
            peers.load(path, side, in_memory=True)
            seconds = time.perf_counter() - start
            print(f"  {side} x {side}: decoded into memory in {seconds:.2f} s", flush=True)
            contenders, megabytes = {}, {}
            for name, (make, options) in makers.items():
                try:
                    contenders[name] = Contender(make, path=path, side=side, **options)
                except Failed as failure:
                    print(f"  no {name}: {str(failure).strip().splitlines()[-1]}")
            times = take_turns(contenders, rounds=FLAGS.rounds, steps=STEPS, memory=megabytes)
            rows = [("contender", "images/s", "times DataLoader's", "MB")]
            for name, turns in times.items():
                rate = f"{peers.BATCH / statistics.median(turns):,.0f}"
                faster = f"{ratio(times, 'DataLoader', name):.2f}" if "DataLoader" in times else ""
                rows.append((name, rate, faster, f"{megabytes[name]:,.0f}"))
            table(rows)


def _race(readers: dict[str, tuple[str, dict[str, str]]]) -> None:
    """Prints MB/s and peaks of functions of `peers` that read a text, each in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "text"
        peers.make_text(path, FLAGS.text, FLAGS.megabytes)
        times: Times = {name: [] for name in readers}
        found = {}
        turns = [name for _ in range(FLAGS.rounds) for name in readers]
        for name in tqdm.tqdm(turns, delay=2, leave=False):
            function, options = readers[name]
            try:
                found[name] = alone(getattr(peers, function), path=path, **options)
            except ImportError as error:
                print(f"  no {name}: {error}")
                continue
            times[name].append(found[name].seconds)
        rows = [
            ("contender", "MB/s", "times ours", "words", "ids, MB", "peak, MB", "of it reading")
        ]
        first = next(iter(readers))
        for name, one in found.items():
            rate = f"{FLAGS.megabytes / statistics.median(times[name]):.1f}"
            rows.append(
                (name, rate, f"{ratio(times, name, first):.2f}", f"{one.distinct:,}",
                 f"{one.ids:,.0f}", f"{one.peak:,.0f}", f"{one.peak - one.before:,.0f}")
            )  # fmt: skip
        table(rows)


def text() -> None:
    """MB/s of a text to a vocabulary, and of ours to ids as well; megabytes of memory."""
    _race(
        {
            "ours": ("our_words", {"splitter": "space"}),
            "ours, --splitter=words": ("our_words", {"splitter": "words"}),
            "gensim": ("gensim_words", {}),
            "tokenizers": ("tokenizers_words", {}),
        }
    )


def tokens() -> None:
    """MB/s of a text to the parts and ids of a language model; megabytes of memory."""
    _race({f"ours, --level={level}": ("our_tokens", {"level": level}) for level in FLAGS.level})


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    run(images, text, tokens)
