"""Evaluators measure a trained autoencoder at its end, each by its name.

Shapes: N images to train on, M to test on, K numbers of a code, S samples, D pixels.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import Split, evaluation_batches, evenly_spaced, labels_of
from dlcore.errors import InputError, pick
from dlcore.evaluation import latent_use, linear_probe, nearest_neighbours, parzen
from dlcore.losses import importance_bound
from dlcore.types import Variables

if TYPE_CHECKING:
    from . import Autoencoder, Config

_MOST = 10_000  # images whose codes a probe learns from
_LATENT_MOST = 2_000  # images whose posteriors are compared with one another
_PCA_PIXELS = 1 << 12  # of an image, up to which the components are found
_PARZEN_SAMPLES = 10_000
_ROUND = 50  # samples of the log-likelihood at once

Measured = dict[str, float]


class Evaluator(NamedTuple):
    """A measurement.

    Attributes:
        measure: takes the job and its variables.
        suits: whether a configuration has what it needs.
        default: whether it is done unless --evaluate names others.
    """

    measure: Callable[["Autoencoder", Variables], Measured]
    suits: Callable[["Config"], bool] = lambda config: True
    default: bool = True


def _variational(config: "Config") -> bool:
    return config.variational


def chosen(config: "Config") -> list[str]:
    """Returns the names of the evaluators of a configuration.

    Raises:
        InputError: for a name that there is not, and for one that the model has nothing for.
    """
    if not config.evaluate:
        return [name for name, e in EVALUATORS.items() if e.default and e.suits(config)]
    for name in config.evaluate:
        if not pick("evaluator", name, EVALUATORS).suits(config):
            able = ", ".join(name for name, e in EVALUATORS.items() if e.suits(config))
            raise InputError(
                f"--evaluate={name} is not for --model={config.model}; choose one of: {able}"
            )
    return list(dict.fromkeys(config.evaluate))


def measure(task: "Autoencoder", outcome: launch.Outcome) -> launch.Outcome:
    """Returns the outcome with the measurements, and says what they warn of."""
    found: Measured = {}
    variables = task.computing(outcome.variables)
    for name in task.evaluators:
        found |= EVALUATORS[name].measure(task, variables)
    return outcome.extended(found)


def codes_of(task: "Autoencoder", variables: Variables, split: Split) -> Any:
    """Returns the codes of a split, float32 [N, K], or (means, log variances)."""
    batches = evaluation_batches(split, task.config.batch_size)
    parts = [task.encoding(variables, batch["image"]) for batch in batches]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(split)], *parts)


def points_of(task: "Autoencoder", variables: Variables, split: Split) -> np.ndarray:
    """Returns the codes of a split, or the means of their distributions, float32 [N, K]."""
    codes = codes_of(task, variables, split)
    points: np.ndarray = codes.mean if task.config.variational else codes
    return points


def _read_off(
    task: "Autoencoder", variables: Variables, name: str, score: Callable[..., float]
) -> Measured:
    """Returns how well labels are read off codes; nothing where the parts share no labels."""
    parts = [evenly_spaced(split, _MOST) for split in (task.train, task.test)]
    labels = [labels_of(part) for part in parts]
    if labels[0].ndim > 1 or len(np.unique(labels[0])) < 2 or not np.isin(*reversed(labels)).all():
        launch.say(f"no {name}: the images to train on and to test on have no labels in common")
        return {}
    train, test = (points_of(task, variables, part) for part in parts)
    return {f"{name}_accuracy": score(train, labels[0], test, labels[1])}


def _probe(task: "Autoencoder", variables: Variables) -> Measured:
    return _read_off(task, variables, "probe", linear_probe)


def _neighbours(task: "Autoencoder", variables: Variables) -> Measured:
    return _read_off(task, variables, "neighbours", nearest_neighbours)


def _pca(task: "Autoencoder", variables: Variables) -> Measured:
    """Returns the mean squared error of as many principal components of the training images."""
    if math.prod(task.info.image_shape) > _PCA_PIXELS:
        launch.say(f"images of more than {_PCA_PIXELS:,} pixels: no principal components")
        return {}
    train, test = (
        _pixels(evenly_spaced(split, _MOST)).astype(np.float64) for split in (task.train, task.test)
    )
    return {"pca_error": pca_error(train, test, task.config.code)}


def pca_error(train: np.ndarray, test: np.ndarray, count: int) -> float:
    """Returns the mean squared error of `count` principal components of `train` on `test`.

    Args:
        train: [N, D].
        test: [M, D].
        count: of the components.
    """
    mean = train.mean(0)
    _, vectors = np.linalg.eigh((train - mean).T @ (train - mean))
    space = vectors[:, ::-1][:, :count]
    rest = (test - mean) - (test - mean) @ space @ space.T
    return float((rest**2).mean())


def _pixels(split: Split) -> np.ndarray:
    """Returns the images of a split, float32 [N, D] of 0 to 1."""
    images = split.gather(np.arange(len(split)))["image"]
    pixels: np.ndarray = images.reshape(len(images), -1) / np.float32(255)
    return pixels


def _latents(task: "Autoencoder", variables: Variables) -> Measured:
    codes = codes_of(task, variables, evenly_spaced(task.test, _LATENT_MOST))
    use = latent_use(*codes)
    if use.collapsed:
        launch.say(
            f"posterior collapse: {use.active.sum()} of {len(use.active)} latent units are active, "
            f"the others say nothing of an image (mean KL {use.kl.mean():.2g} nats); train with "
            "--beta_warmup, --free_bits or a lower --beta"
        )
    return {
        "active_units": float(use.active.sum()),
        "mutual_information": float(use.information.sum()),
    }


def _log_likelihood(task: "Autoencoder", variables: Variables) -> Measured:
    """log p(x) by importance sampling: a bound that is tight for many samples (Burda 2016)."""
    if task.grey:
        launch.say("no log-likelihood: the pixels are grey, and an image of bits has one")
        return {}
    values = log_likelihoods(task, variables, task.test, task.config.likelihood_samples)
    return {"log_likelihood": float(values.mean())}


def log_likelihoods(
    task: "Autoencoder", variables: Variables, split: Split, samples: int
) -> np.ndarray:
    """Returns the importance-weighted log p(x) of each image of a split in nats, float64 [N]."""
    rounds = [min(_ROUND, samples - start) for start in range(0, samples, _ROUND)]

    def bound(variables: Variables, images: Any, key: jax.Array, count: int) -> jax.Array:
        x = task.scaled(variables["params"], images)
        terms = task.net.apply(variables, x, key, count, method="terms")
        return importance_bound(terms.log_likelihood + terms.log_ratio) + jnp.log(float(count))

    compiled = jax.jit(bound, static_argnums=3)
    found = []
    for number, batch in enumerate(evaluation_batches(split, task.config.batch_size)):
        total = np.full(len(batch["image"]), -np.inf)
        for turn, count in enumerate(rounds):
            key = jax.random.fold_in(jax.random.key(number), turn)
            more = compiled(variables, batch["image"], key, count)
            total = np.logaddexp(total, np.asarray(more, np.float64))
        found.append(total - math.log(samples))
    return np.concatenate(found)[: len(split)]


def samples_of(task: "Autoencoder", variables: Variables, count: int, seed: int = 0) -> np.ndarray:
    """Returns the means of p(x | z) for z of the prior, float32 [S, H, W, C] of 0 to 1."""

    def drawn() -> Iterator[np.ndarray]:
        size = 100
        for start in range(0, count, size):
            key = jax.random.fold_in(jax.random.key(seed), start)
            z = jax.random.normal(key, (size, task.config.code))
            yield np.asarray(task.decoding(variables, z), np.float32)

    return np.concatenate([*drawn()])[:count]


def _parzen(task: "Autoencoder", variables: Variables) -> Measured:
    if len(task.test) < 2:
        raise InputError("a Parzen estimate needs two test images; give data with more")
    samples = samples_of(task, variables, 100 if task.config.smoke else _PARZEN_SAMPLES)
    held_out = _pixels(evenly_spaced(task.train, len(task.test)))
    found = parzen(samples.reshape(len(samples), -1), held_out, _pixels(task.test))
    launch.say(
        f"Parzen estimate {found.mean:.1f} +- {found.standard_error:.1f} nats (bandwidth "
        f"{found.bandwidth:.2g}), for comparison with old papers only: its bandwidth was chosen on "
        "training images, and it rewards copies of them"
    )
    return {"parzen": found.mean}


EVALUATORS: dict[str, Evaluator] = {
    "pca": Evaluator(_pca, lambda config: not config.variational),
    "log_likelihood": Evaluator(_log_likelihood, _variational),
    "latents": Evaluator(_latents, _variational),
    "parzen": Evaluator(_parzen, _variational, default=False),
    "probe": Evaluator(_probe),
    "neighbours": Evaluator(_neighbours),
}
