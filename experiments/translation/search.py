"""The search for translations, its scores, and the errors that it makes. Shapes: N sources."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.text import Pairs, Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.decode import (
    NextToken,
    Objective,
    ensemble,
    score_sequences,
)
from dlcore.evaluation import SearchErrors, search_errors
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    integer,
    number,
    path,
    paths,
)
from dlcore.launch.search import Found, Searcher, SearchGroup, over
from dlcore.metrics import TranslationScores, translation_scores
from dlcore.types import Batch, Carry, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchGroup):
    """The search for translations, and its models; both may change when a run continues."""

    title = "Search"

    coverage_penalty: float = number(
        0.0, 0, LARGEST_NUMBER, "weight of the penalty for source left uncovered", free=True
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


class Translator(Searcher):
    """One model or several that translate together.

    The methods take the variables of the models, in the types that they compute in.

    Args:
        models: the models, which share the vocabularies.
        target: the vocabulary of the outputs.
        config: how outputs are searched.
        **options: of a `Searcher`.
    """

    def __init__(
        self, models: Sequence[nn.Module], target: Vocabulary, config: SearchConfig, **options: Any
    ):
        super().__init__(functools.partial(_begin, models), target, config, **options)
        goal = config.objective()

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
                coverage=coverage if goal.coverage > 0 else None,
            )

        self._force = force

    def score(self, variables: Sequence[Variables], data: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Returns log P and the scores of the references of a split, each [N]."""
        scored: tuple[np.ndarray, np.ndarray] = over(
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
        found = translator.find(variables, data, name)
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
