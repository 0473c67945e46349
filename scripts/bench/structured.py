"""Benchmarks of structured data: `.venv/bin/python scripts/bench/structured.py [trees turing]`.

Each contender is a process of its own, and they take turns; tables have medians and ratios.
PyTorch and gensim are the peers, where they are installed. Sections:

    trees    a training step of a binary Tree-LSTM on 64 random trees (words of 300 numbers, nodes
             of 150), beside the same trees one at a time (wanted: 20 times as long) and a loop over
             nodes in PyTorch (wanted: 5 times)
    turing   a training step of the neural Turing machine on copying (LSTM of 100, memory of
             128 x 20, 16 sequences of --turing_length vectors), beside PyTorch; wanted: 5 times as
             long
    captioning
             a training step of the captioner with soft attention on 32x32 pictures, beside PyTorch
    retrieval
             a training step of two towers on as large pictures and short names, beside PyTorch
    paragraphs
             paragraph vectors (PV-DBOW) of the sentences of --pairs: Spearman correlation of the
             cosines with the scores, for learnt and inferred vectors, and words/s, beside gensim;
             wanted: no worse and no slower
"""

import captioning_contenders as captioners
import paragraph_contenders as paragraph_vectors
import retrieval_contenders as towers
import tree_contenders as recursive
import turing_contenders as machines
from absl import flags
from contenders import Contender, beside_torch, race, run, table

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 7, "turns of each contender")
flags.DEFINE_integer("turing_length", 20, "vectors to copy")
flags.DEFINE_string("pairs", "sts_benchmark", "folder of scored pairs of sentences")
flags.DEFINE_integer("epochs", 20, "epochs of paragraph vectors")
flags.DEFINE_integer("seeds", 3, "runs of each contender of paragraph vectors")


def trees() -> None:
    """Forward, backward and Adam, with a loss at each node."""
    race(
        {
            "ours": lambda: Contender(recursive.our_step),
            "ours, tree by tree": lambda: Contender(recursive.our_single_steps),
            "PyTorch": lambda: Contender(recursive.their_step),
        },
        FLAGS.rounds,
    )


def turing() -> None:
    """Forward, backward and Adam."""
    beside_torch(
        machines.our_machine, machines.their_machine, FLAGS.rounds,
        batch=16, length=FLAGS.turing_length,
    )  # fmt: skip


def captioning() -> None:
    """Forward, backward and Adam, 64 pictures."""
    beside_torch(captioners.our_captioner, captioners.their_captioner, FLAGS.rounds, batch=64)


def retrieval() -> None:
    """Forward, backward and Adam, by InfoNCE."""
    beside_torch(towers.our_step, towers.their_step, FLAGS.rounds)


def paragraphs() -> None:
    """The same sentences, dimensions, negative samples and epochs."""
    rows = [("contender", "seed", "learnt", "inferred", "seconds", "words/s")]
    for seed in range(1, FLAGS.seeds + 1):
        for name, learn in (
            ("ours", paragraph_vectors.our_paragraphs),
            ("gensim", paragraph_vectors.their_paragraphs),
        ):
            found = learn(pairs=FLAGS.pairs, epochs=FLAGS.epochs, seed=seed, documents=False)
            rows.append(
                (name, str(seed), f"{found.spearman:.4f}", f"{found.inferred:.4f}",
                 f"{found.seconds:.1f}", f"{found.words_per_second:,.0f}")
            )  # fmt: skip
    table(rows)


if __name__ == "__main__":
    run(trees, turing, captioning, retrieval, paragraphs)
