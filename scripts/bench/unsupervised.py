"""Benchmarks of learning without labels: `.venv/bin/python scripts/bench/unsupervised.py [rbm]`.

Each contender is a process of its own, and they take turns; tables have medians and ratios.
PyTorch is the peer, where it is installed. Sections:

    rbm      a step of contrastive divergence, CD-1 (784-500, batches of 100), beside scikit-learn's
             BernoulliRBM in single and double precision; wanted: half its time
    vae      a training step of a variational autoencoder (784-200-200-50, batches of 100); wanted:
             no slower than PyTorch's eager mode
    vae_likelihood
             the same net on statically binarised digits: bound and log-likelihood of the test
             images in nats, ours and PyTorch's after as many steps, for each of --seeds; wanted: no
             worse than PyTorch's; about 2 minutes a seed
    gan      a step of both players, DCGAN of width 32 on 28x28 images in batches of 64, by Adam;
             wanted: no slower than PyTorch
    ladder   a step of the ladder network, 784-1000-500-250-250-250-10, on 100 labelled and 100
             other images, by Adam; wanted: no slower than PyTorch
"""

import statistics

import player_contenders as players
import rbm_contenders as rbms
import vae_contenders as vaes
from absl import flags
from contenders import Contender, beside_torch, experiment, race, run, table

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 7, "turns of each contender")
flags.DEFINE_string("data_path", "mnist.npz", "digits in the layout of Keras's mnist.npz")
flags.DEFINE_integer("seeds", 3, "runs of each contender")
flags.DEFINE_integer("vae_steps", 7000, "training steps of each run of vae_likelihood")
flags.DEFINE_integer(
    "samples", 500, "importance samples that estimate the log-likelihood of an image"
)


def rbm() -> None:
    """Both sides of the gradient and the update; scikit-learn's chains go on from step to step."""
    race(
        {
            "ours": lambda: Contender(rbms.our_step),
            "float32": lambda: Contender(rbms.their_step, precision="float32"),
            "float64": lambda: Contender(rbms.their_step, precision="float64"),
        },
        FLAGS.rounds,
    )


def vae() -> None:
    """Forward, backward and Adam, with samples drawn anew."""
    beside_torch(vaes.our_step, vaes.their_step, FLAGS.rounds)


def gan() -> None:
    """A step of the discriminator and one of the generator."""
    beside_torch(players.our_gan, players.their_gan, FLAGS.rounds, batch=64)


def ladder() -> None:
    """A step of the ladder network."""
    beside_torch(players.our_ladder, players.their_ladder, FLAGS.rounds, batch=100)


def vae_likelihood() -> None:
    """Bits of the same draw, the same schedule, batches and first weights by distribution."""
    rows = [("seed", "bound", "PyTorch's", "log-likelihood", "PyTorch's")]
    values = []
    for seed in range(FLAGS.seeds):
        ours = experiment(
            "autoencoder", "--model=variational", "--binarise=static", "--layers=2",
            f"--hidden={vaes.HIDDEN}", f"--code={vaes.LATENT}", f"--batch_size={vaes.BATCH}",
            f"--learning_rate={vaes.RATE}", "--optimizer=adam", f"--seed={seed}",
            f"--data_path={FLAGS.data_path}", f"--steps={FLAGS.vae_steps}", "--eval_every=0",
            "--evaluate=log_likelihood", f"--likelihood_samples={FLAGS.samples}",
        )["metrics"]  # fmt: skip
        theirs = vaes.their_run(FLAGS.data_path, seed, FLAGS.vae_steps, FLAGS.samples)
        values.append((-ours["loss"], theirs[0], ours["log_likelihood"], theirs[1]))
        rows.append((str(seed), *(f"{value:.2f}" for value in values[-1])))
    means = (statistics.fmean(column) for column in zip(*values, strict=True))
    table([*rows, ("mean", *(f"{mean:.2f}" for mean in means))])


if __name__ == "__main__":
    run(rbm, vae, vae_likelihood, gan, ladder)
