"""Translating with trained models: the search, its scores, and the errors that it makes."""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags
from absl.testing import flagsaver

from dlcore.data import evaluation_batches
from dlcore.data.text import Pairs, Vocabulary, files
from dlcore.data.text.vocabulary import END, UNKNOWN
from dlcore.decode import NextToken, beam_search, ensemble, score_sequences
from dlcore.errors import InputError
from dlcore.evaluation import SearchErrors, search_errors
from dlcore.metrics import TranslationScores, translation_scores
from dlcore.train.checkpoint import average_params
from dlcore.train.logs import writing
from dlcore.types import TrainState
from experiments.common.flags import checkpoint_folder, say
from experiments.common.text import cast, encode
from experiments.common.translation import (
    Task,
    in_one_shape,
    initialise,
    longest_output,
    make_model,
    objective,
    vocabulary_files,
)

FLAGS = flags.FLAGS
_ROWS = 32  # sentences that are searched together
Member = tuple[nn.Module, Any]  # a model and its variables


class Found(NamedTuple):
    """What a search gave for N sources, in their order.

    Attributes:
        texts: of each source the best outputs, the best first; "" where --min_length and
            --no_repeat allow none.
        tokens: the ids of the best output of each, with its end.
        scores: what was maximised, of each output, [N, n_best].
        log_probs: log P of each output, [N, n_best].
    """

    texts: list[list[str]]
    tokens: list[np.ndarray]
    scores: np.ndarray
    log_probs: np.ndarray


def _begin(
    models: Sequence[nn.Module], variables: Sequence[Any], batch: Any, steps: int
) -> tuple[NextToken[Any], Any, Callable[[Any], jax.Array]]:
    """The next-token function of models that translate together, its carry and its attention."""
    calls = [
        functools.partial(model.apply, cast(of))
        for model, of in zip(models, variables, strict=True)
    ]
    memories = [call(batch["source"], batch["source_length"], method="encode") for call in calls]
    carries = tuple(
        call(memory, steps, method="initial_carry")
        for call, memory in zip(calls, memories, strict=True)
    )

    def reader(call: Callable[..., Any], memory: Any) -> NextToken[Any]:
        return lambda carry, token: call(carry, token, memory, method="next_token")

    def coverage(carries: Any) -> jax.Array:
        covered = [
            call(carry, memory, method="coverage")
            for call, memory, carry in zip(calls, memories, carries, strict=True)
        ]
        return sum(covered) / len(covered)

    return ensemble([*map(reader, calls, memories)]), carries, coverage


class Translator:
    """One model or several that translate together, as the flags have it.

    Args:
        task: the texts and vocabularies.
        models: the models, which share the vocabularies.
        width: of the beam.
        n_best: how many outputs of each source.
    """

    def __init__(self, task: Task, models: Sequence[nn.Module], *, width: int, n_best: int = 1):
        self._task = task
        steps, goal = longest_output(task), objective()
        use_coverage = goal.coverage > 0

        @jax.jit
        def search(variables: Sequence[Any], batch: Any) -> Any:
            next_token, carry, coverage = _begin(models, variables, batch, steps)
            return beam_search(
                next_token, carry, jnp.full(len(batch["source"]), END), end=END, width=width,
                steps=steps, n_best=n_best, objective=goal, min_length=FLAGS.min_length,
                no_repeat=FLAGS.no_repeat, coverage=coverage if use_coverage else None,
            )  # fmt: skip

        @jax.jit
        def force(variables: Sequence[Any], batch: Any) -> tuple[jax.Array, jax.Array]:
            targets, lengths = batch["targets"], batch["target_length"]
            next_token, carry, coverage = _begin(models, variables, batch, targets.shape[1])
            return score_sequences(
                next_token, carry, jnp.full(len(targets), END), targets, lengths, objective=goal,
                coverage=coverage if use_coverage else None,
            )  # fmt: skip

        self._search, self._force = search, force

    def rehearse(self, variables: Sequence[Any], data: Pairs) -> None:
        """Traces a search with the shapes of variables, which refuses what it cannot do.

        Raises:
            InputError: as `beam_search` and the models.
        """
        jax.eval_shape(self._search, variables, data.gather(np.arange(1)))

    def translate(self, variables: Sequence[Any], data: Pairs, what: str) -> Found:
        """Searches the translations of all sources of a split."""
        found = _over(functools.partial(self._search, variables), data, what)
        # -inf scores are places that no hypothesis filled.
        ids = [
            [tokens[:length] for tokens, length in zip(*of, strict=True)]
            for of in zip(found.tokens, found.lengths, strict=True)
        ]
        decode = self._task.target.decode
        texts = [[decode(one[:-1]) for one in of if len(one)] or [""] for of in ids]
        return Found(texts, [of[0] for of in ids], found.scores, found.log_probs)

    def score(self, variables: Sequence[Any], data: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """log P and the scores of the references of a split."""
        return _over(functools.partial(self._force, variables), data, "scoring references")


def by_length(data: Pairs) -> Pairs:
    """A split in the order of its lengths, which needs the least padding."""
    return data.subset(np.argsort(data.lengths, kind="stable"))


def _over(function: Callable[[Any], Any], data: Pairs, what: str) -> Any:
    """What a function of a batch gives for the examples of a split, in their order."""
    order, rows = np.argsort(data.lengths, kind="stable"), min(_ROWS, len(data))
    batches = evaluation_batches(data.subset(order), rows)
    progress = tqdm.tqdm(
        batches, total=-(-len(data) // rows), desc=what, delay=2, leave=False, unit="batch"
    )
    parts = []
    for batch in progress:
        real = batch["weight"] > 0
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[real], function(batch)))  # noqa: B023
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)


class Tested(NamedTuple):
    """How the test data was translated.

    Attributes:
        found: by beam search.
        scores: by decoder, the beam search last.
        errors: the verdicts on what the beam search gave.
    """

    found: Found
    scores: dict[str, TranslationScores]
    errors: SearchErrors

    @property
    def metrics(self) -> dict[str, float]:
        """The scores of the beam search."""
        *_, last = self.scores.values()
        return {"bleu": last.bleu, "chrf": last.chrf, "exact_match": last.exact_match}


def test(
    task: Task, models: Sequence[nn.Module], variables: Sequence[Any], workdir: pathlib.Path
) -> Tested:
    """Translates the test data greedily and by beam search, tells how well, and whose the faults.

    Writes WORKDIR/test.tsv with each source, its reference and its output.
    """
    sources, references = zip(*task.text.test, strict=True)
    scores = {}
    for name, width in {"greedy": 1, f"beam {FLAGS.beam}": FLAGS.beam}.items():
        translator = Translator(task, models, width=width)
        found = translator.translate(variables, task.test, name)
        outputs = [of[0] for of in found.texts]
        scores[name] = translation_scores(outputs, references)
        say(f"{name}:\n{scores[name].render()}")
    log_probs, reference_scores = translator.score(variables, task.test)
    errors = search_errors(
        reference_scores, found.scores[:, 0], reference_log_probs=log_probs,
        output_log_probs=found.log_probs[:, 0],
        same=np.array([a == b for a, b in zip(outputs, references, strict=True)]),
    )  # fmt: skip
    say(f"errors of beam {FLAGS.beam}:\n{errors.render()}")
    rows = [("source", "reference", "output"), *zip(sources, references, outputs, strict=True)]
    lines = ["\t".join(text.replace("\t", " ") for text in row) for row in rows]
    with writing(workdir):
        (workdir / "test.tsv").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return Tested(found, scores, errors)


def prepare(task: Task, model: nn.Module) -> tuple[list[Member], list[str]]:
    """Reads what a finished run will translate with and from: --ensemble and --translate.

    It also rehearses the search, so that what is wrong shows before hours of training.

    Returns:
        The members of the ensemble beside the model, and the lines to translate; none without.

    Raises:
        InputError: when a run of --ensemble is not finished, or has other vocabularies; when the
            file of --translate cannot be read or holds no text; when the search is not possible.
    """
    lines = [] if FLAGS.translate is None else files.read_lines(pathlib.Path(FLAGS.translate))
    others = [_member(task, pathlib.Path(name)) for name in FLAGS.ensemble]
    shapes = jax.eval_shape(lambda: initialise(model, jax.random.key(0)))
    models, variables = zip((model, shapes), *others, strict=True)
    Translator(task, models, width=FLAGS.beam, n_best=FLAGS.n_best).rehearse(variables, task.test)
    return others, lines


def _member(task: Task, path: pathlib.Path) -> Member:
    try:
        config = json.loads((path / "config.json").read_text())
        finished = json.loads((path / "summary.json").read_text())["experiment"] == "translation"
    except (OSError, ValueError, KeyError):
        finished = False
    if not finished:
        raise InputError(f"--ensemble={path} is not the --workdir of a finished translation run")
    if config["shared"] != FLAGS.shared:
        raise InputError(
            f"--ensemble={path} has shared={config['shared']}, this run shared={FLAGS.shared}; "
            "models that translate together have the same vocabularies"
        )
    for mine, file in zip((task.source, task.target), vocabulary_files(), strict=False):
        mine.check(Vocabulary.load(path / file).fingerprint, owner=f"the run in {path}")
    with flagsaver.flagsaver(**config):
        model = make_model(task)
    # Not on a device yet: it goes where the run's own parameters are.
    params, _ = average_params(path / "checkpoints", 1)
    return model, {"params": jax.device_get(params)}


def final_variables(state: TrainState, workdir: pathlib.Path) -> Any:
    """What a run has learned, or the mean of its newest --average checkpoints."""
    params = state.params
    if FLAGS.average > 1:
        params, steps = average_params(checkpoint_folder(workdir), FLAGS.average)
        say(f"mean of the parameters at the steps {', '.join(map(str, steps))}")
    return {"params": params, **state.model_state}


def translate_lines(
    lines: Sequence[str], workdir: pathlib.Path, task: Task, models: Sequence[nn.Module],
    variables: Sequence[Any],
) -> None:  # fmt: skip
    """Translates the lines of --translate into WORKDIR/translated.txt.

    An empty line stays empty, a token outside the vocabulary is read as "<unk>", and a source
    longer than --limit is cut. With --n_best each line is translated to as many, with the number of
    the line and the score before them.
    """
    filled = [number for number, line in enumerate(lines) if line.strip()]
    sources = [encode(task.source, lines[number].strip()) for number in filled]
    unknown = sum(int((ids == UNKNOWN).sum()) for ids in sources)
    cut = sum(len(ids) >= FLAGS.limit for ids in sources)
    translator = Translator(task, models, width=FLAGS.beam, n_best=FLAGS.n_best)
    found = translator.translate(variables, in_one_shape(sources, sources), "translating")
    out = [[""] for _ in lines]
    for number, texts, scores in zip(filled, found.texts, found.scores, strict=True):
        out[number] = texts
        if FLAGS.n_best > 1:
            out[number] = [
                f"{number + 1}\t{score:.4f}\t{text}"
                for text, score in zip(texts, scores, strict=False)
            ]
    target = workdir / "translated.txt"
    with writing(target):
        target.write_text("".join(f"{line}\n" for of in out for line in of), encoding="utf-8")
    say(
        f"{len(filled):,} of {len(lines):,} lines of {FLAGS.translate} translated to {target}; "
        f"{unknown:,} tokens were unknown, {cut:,} lines longer than --limit={FLAGS.limit} were cut"
    )
