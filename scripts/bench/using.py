"""Benchmarks of using a trained model: `.venv/bin/python scripts/bench/using.py [language ...]`.

They keep to two cores. A turn is one answer to the same question, without imports and compilation;
contenders take turns, and their ratios are medians over neighbouring ones. The networks have random
weights, for which nothing is downloaded. Sections:

    language  tokens/s of greedy decoding from GPT-2 small, against transformers' `generate`
    beam      sentences/s of beam search on Multi30k's shape, against transformers' `generate`
    pictures  images/s from JPEG files to classes by a ResNet-18, against PyTorch and PIL
    words     analogies/s and neighbours/s of word vectors, against gensim
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import using_contenders as peers
from absl import flags
from contenders import Contender, Failed, Step, Times, ratio, run, table
from PIL import Image

from dlcore.data.pictures import PHOTOGRAPHS, photograph

FASTER = 1.5  # times the peer, asked

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "turns of each contender", 1)
flags.DEFINE_multi_integer("batch", [1, 8], "prompts of the section language", 1)
flags.DEFINE_integer("tokens", 128, "that the section language writes after the prompt", 1)


def rates(makers: Mapping[str, Callable[..., Step]], count: int, unit: str, **options: Any) -> None:
    """Prints what each contender does in a second, and how many times that "ours" does.

    A peer whose library is not installed is said and left out. A step is long enough for a turn.

    Args:
        makers: make the steps, by name.
        count: what a step does.
        unit: the name of it.
        **options: the arguments of the makers.
    """
    contenders = {}
    for name, make in makers.items():
        try:
            contenders[name] = Contender(make, **options)
        except Failed as failure:
            if name == "ours":
                raise
            print(f"  no {name}: {str(failure).strip().splitlines()[-1]}")
    times: Times = {name: [] for name in contenders}
    for _ in range(FLAGS.rounds):
        for name, one in contenders.items():
            times[name].append(one.turn(1))
    for one in contenders.values():
        one.end()
    rows = [("contender", f"{unit}/s", "ours is faster by")]
    for name in contenders:
        best = ratio(times, name)
        rows.append((name, f"{count / min(times[name]):,.1f}", f"{best:.2f}"))
    table(rows)


def language() -> None:
    """Greedy tokens after a prompt of 32, GPT-2 small, batches of 1 and 8; asked are 1.5 times."""
    for batch in FLAGS.batch:
        print(f"  batch {batch}:")
        rates(
            {"ours": peers.our_language, "transformers": peers.their_language},
            batch * FLAGS.tokens,
            "tokens",
            batch=batch,
            tokens=FLAGS.tokens,
        )


def beam() -> None:
    """Batches of 32 sentences, 20 tokens each, a beam of 5, the transformer of multi30k.flags."""
    makers = {"ours": peers.our_beam, "transformers": peers.their_beam}
    rates(makers, peers.SENTENCES, "sentences")


def pictures() -> None:
    """128 JPEG files of 500 x 375 pixels, a ResNet-18 at 224 x 224."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(pathlib.Path(folder, f"{number}.jpg")) for number in range(128)]
        photographs = [photograph(name)[:375, :500] for name in PHOTOGRAPHS]
        for number, file in enumerate(files):
            moved = np.roll(photographs[number % 2], 4 * number, axis=1)
            Image.fromarray(moved).save(file, quality=90)
        makers = {"ours": peers.our_pictures, "PyTorch": peers.their_pictures}
        rates(makers, len(files), "images", files=files)


def words() -> None:
    """Questions to 30,000 vectors of 300 numbers, 2,000 at a time."""
    with tempfile.TemporaryDirectory() as folder:
        gensim = functools.partial(peers.their_analogies, folder=folder)
        rates({"ours": peers.our_analogies, "gensim": gensim}, peers.QUESTIONS, "analogies")
    makers = {"ours": peers.our_neighbours, "gensim": peers.their_neighbours}
    rates(makers, peers.QUESTIONS, "neighbours")


if __name__ == "__main__":
    run(language, beam, pictures, words)
