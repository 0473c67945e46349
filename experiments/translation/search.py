"""The search for translations, its scores, and the errors that it makes. Shapes: N sources."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dlcore import launch
from dlcore.data import evaluation_batches
from dlcore.data.text import Pairs, Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.decode import (
    NORMALISATIONS,
    NextToken,
    Objective,
    beam_search,
    ensemble,
    score_sequences,
)
from dlcore.evaluation import SearchErrors, search_errors
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    number,
    path,
    paths,
)
from dlcore.metrics import BLEU_TOKENIZERS, TranslationScores, translation_scores
from dlcore.types import Batch, Carry, Variables

_ROWS = 32  # sentences that are searched together


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(launch.Group):
    """The search for outputs, and its models; both may change when a run continues."""

    title = "Search"

    beam: int = integer(
        5, 1, 1 << 16, "hypotheses that the search keeps; 1 (greedy) or more", free=True
    )
    groups: int = integer(
        1, 1, 1 << 16, "groups of hypotheses that differ, for diverse beam search", free=True
    )
    diversity: float = number(
        0.5,
        0,
        LARGEST_NUMBER,
        "nats that a token costs for each earlier group that has it at this step",
        free=True,
        when={"groups": lambda groups: groups > 1},
    )
    normalise: str = choice(
        "average", NORMALISATIONS, "what log P is divided by: a function of the length", free=True
    )
    alpha: float = number(
        0.7,
        0,
        LARGEST_NUMBER,
        "exponent of --normalise=power and gnmt",
        free=True,
        when={"normalise": ("power", "gnmt")},
    )
    coverage_penalty: float = number(
        0.0, 0, LARGEST_NUMBER, "weight of the penalty for source left uncovered", free=True
    )
    min_length: int = integer(
        0, 0, LARGEST, "fewest tokens of an output, its end included", free=True
    )
    no_repeat: int | None = integer(
        None, 1, LARGEST, "length of n-grams that may not occur twice", free=True
    )
    max_length: int | None = integer(
        None, 1, LARGEST, "most tokens of an output; default as in training", free=True
    )
    bleu_tokenizer: str = choice(
        "auto",
        ("auto", *BLEU_TOKENIZERS),
        "sacrebleu's tokeniser for BLEU; auto takes that of the target language",
        free=True,
    )
    n_best: int = integer(
        1, 1, 1 << 16, "outputs for each line of --translate and --predict", free=True
    )
    average: int = integer(
        1, 1, LARGEST, "newest checkpoints whose mean is the final model", free=True
    )
    ensemble: tuple[str, ...] = paths(
        "workdir of a finished run that translates together with this one", free=True
    )
    translate: str | None = path(
        None,
        "text file whose lines the finished run in --workdir translates; - for standard input",
        free=True,
    )

    def objective(self) -> Objective:
        """Returns what the search maximises."""
        return Objective(self.normalise, self.alpha, self.coverage_penalty)


class Found(NamedTuple):
    """The result of a search for N sources, in their order.

    Attributes:
        texts: the best outputs of each source, the best first; "" where --min_length and
            --no_repeat allow none.
        tokens: the ids of the best output of each, with its end.
        scores: the maximised objective of each output, [N, n_best].
        log_probs: log P of each output, [N, n_best].
    """

    texts: list[list[str]]
    tokens: list[np.ndarray]
    scores: np.ndarray
    log_probs: np.ndarray


class Translator:
    """One model or several that translate together.

    The methods take the variables of the models, in the types that they compute in.

    Args:
        models: the models, which share the vocabularies.
        target: the vocabulary of the outputs.
        config: how outputs are searched.
        steps: the most tokens of an output.
        width: of the beam; another one than --beam has no groups.
        n_best: the number of outputs of each source.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        target: Vocabulary,
        config: SearchConfig,
        *,
        steps: int,
        width: int,
        n_best: int = 1,
    ):
        self._target = target
        goal = config.objective()
        use_coverage = goal.coverage > 0

        @jax.jit
        def search(variables: Sequence[Variables], batch: Batch) -> Any:
            next_token, carry, coverage = _begin(models, variables, batch, steps)
            return beam_search(
                next_token,
                carry,
                jnp.full(len(batch["source"]), END),
                end=END,
                width=width,
                steps=steps,
                n_best=n_best,
                objective=goal,
                min_length=config.min_length,
                no_repeat=config.no_repeat,
                coverage=coverage if use_coverage else None,
                groups=config.groups if width == config.beam else 1,
                diversity=config.diversity,
            )

        @jax.jit
        def force(variables: Sequence[Variables], batch: Batch) -> tuple[jax.Array, jax.Array]:
            targets, lengths = batch["targets"], batch["target_length"]
            next_token, carry, coverage = _begin(models, variables, batch, targets.shape[1])
            return score_sequences(
                next_token,
                carry,
                jnp.full(len(targets), END),
                targets,
                lengths,
                objective=goal,
                coverage=coverage if use_coverage else None,
            )

        self._search, self._force = search, force

    def rehearse(self, variables: Sequence[Variables], data: Pairs) -> None:
        """Traces a search with the shapes of variables, which refuses what it cannot do.

        Raises:
            InputError: as `beam_search` and the models.
        """
        jax.eval_shape(self._search, variables, data.gather(np.arange(1)))

    def translate(self, variables: Sequence[Variables], data: Pairs, task: str) -> Found:
        """Searches the translations of all sources of a split; `task` heads the progress line."""
        found = _over(functools.partial(self._search, variables), data, task)
        # -inf scores are places that no hypothesis filled.
        ids = [
            [tokens[:length] for tokens, length in zip(*of, strict=True)]
            for of in zip(found.tokens, found.lengths, strict=True)
        ]
        decode = self._target.decode
        texts = [[decode(one[:-1]) for one in of if len(one)] or [""] for of in ids]
        return Found(texts, [of[0] for of in ids], found.scores, found.log_probs)

    def score(self, variables: Sequence[Variables], data: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Returns log P and the scores of the references of a split, each [N]."""
        scored: tuple[np.ndarray, np.ndarray] = _over(
            functools.partial(self._force, variables), data, "scoring references"
        )
        return scored


def _begin(
    models: Sequence[nn.Module], variables: Sequence[Variables], batch: Batch, steps: int
) -> tuple[NextToken[Any], Carry, Callable[[Any], jax.Array]]:
    """Returns the next-token function of models together, its first carry and its coverage."""
    calls = [
        functools.partial(model.apply, of) for model, of in zip(models, variables, strict=True)
    ]
    memories = [call(batch["source"], batch["source_length"], method="encode") for call in calls]
    carries = tuple(
        call(memory, steps, method="initial_carry")
        for call, memory in zip(calls, memories, strict=True)
    )

    def reader(call: Callable[..., Any], memory: Any) -> NextToken[Any]:
        return lambda carry, token: call(carry, token, memory, method="next_token")

    def coverage(carries: Any) -> Any:
        covered = [
            call(carry, memory, method="coverage")
            for call, memory, carry in zip(calls, memories, carries, strict=True)
        ]
        return sum(covered) / len(covered)

    return ensemble([*map(reader, calls, memories)]), carries, coverage


def _over(function: Callable[[Any], Any], data: Pairs, task: str) -> Any:
    """Returns what a function of a batch gives for the examples of a split, in their order."""
    order, rows = np.argsort(data.lengths, kind="stable"), min(_ROWS, len(data))
    batches = evaluation_batches(data.subset(order), rows)
    progress = tqdm.tqdm(
        batches, total=-(-len(data) // rows), desc=task, delay=2, leave=False, unit="batch"
    )
    parts = []
    for batch in progress:
        real = batch["weight"] > 0
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[real], function(batch)))  # noqa: B023
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)


class Tested(NamedTuple):
    """The translations of the test data.

    Attributes:
        found: by beam search.
        scores: by decoder, the beam search last.
        errors: the verdicts on the outputs of the beam search.
    """

    found: Found
    scores: dict[str, TranslationScores]
    errors: SearchErrors

    @property
    def outputs(self) -> list[str]:
        """The best output of the beam search for each source."""
        return [of[0] for of in self.found.texts]

    @property
    def metrics(self) -> dict[str, float]:
        """The scores of the beam search."""
        *_, last = self.scores.values()
        return {"bleu": last.bleu, "chrf": last.chrf, "exact_match": last.exact_match}


def test(
    translators: Mapping[str, Translator],
    variables: Sequence[Variables],
    data: Pairs,
    references: Sequence[str],
    *,
    tokenizer: str,
    lower: bool,
) -> Tested:
    """Translates test data by each of several decoders and scores the outputs.

    Args:
        translators: by name; the errors of the last one are analysed.
        variables: of their models.
        data: the test data.
        references: its N target texts.
        tokenizer: BLEU's, see `translation_scores`.
        lower: whether the translators write lower case only; then references are read as such.
    """
    scores = {}
    for name, translator in translators.items():
        found = translator.translate(variables, data, name)
        outputs = [of[0] for of in found.texts]
        scores[name] = translation_scores(outputs, references, tokenizer=tokenizer, lower=lower)
        launch.say(f"{name}:\n{scores[name].render()}")
    if lower:
        references = [text.lower() for text in references]
    log_probs, reference_scores = translator.score(variables, data)
    errors = search_errors(
        reference_scores,
        found.scores[:, 0],
        reference_log_probs=log_probs,
        output_log_probs=found.log_probs[:, 0],
        same=np.array([a == b for a, b in zip(outputs, references, strict=True)]),
    )
    launch.say(f"errors of {name}:\n{errors.render()}")
    return Tested(found, scores, errors)
