"""The search for output texts by models that write them, such as translators and captioners.

Shapes: N inputs, B of them in a batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dlcore.data import Split, evaluation_batches
from dlcore.data.text import Vocabulary
from dlcore.data.text.vocabulary import END
from dlcore.decode import NORMALISATIONS, NextToken, Objective, beam_search
from dlcore.errors import InputError
from dlcore.launch.config import Group
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number
from dlcore.metrics import BLEU_TOKENIZERS
from dlcore.types import Batch, Carry

_ROWS = 32  # inputs that are searched together


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchGroup(Group):
    """The options of the search for texts and of their scores; a continued run may change them."""

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
        "nats that a token costs for each earlier group that chose it at the same step",
        free=True,
        when={"groups": lambda groups: groups > 1},
    )
    normalise: str = choice(
        "average", NORMALISATIONS, "function of the length by which log P is divided", free=True
    )
    alpha: float = number(
        0.7,
        0,
        LARGEST_NUMBER,
        "exponent of --normalise=power and gnmt",
        free=True,
        when={"normalise": ("power", "gnmt")},
    )
    min_length: int = integer(
        0, 0, LARGEST, "smallest number of tokens of an output, including its end", free=True
    )
    no_repeat: int | None = integer(
        None, 1, LARGEST, "length of n-grams that may not occur twice", free=True
    )
    max_length: int | None = integer(
        None, 1, LARGEST, "largest number of tokens of an output; default as in training", free=True
    )
    bleu_tokenizer: str = choice(
        "auto",
        ("auto", *BLEU_TOKENIZERS),
        "sacrebleu's tokeniser for BLEU; auto takes that of the target language",
        free=True,
    )
    n_best: int = integer(1, 1, 1 << 16, "outputs listed for each input", free=True)

    def longest(self, in_training: int, limit: int) -> int:
        """Returns the largest number of tokens of an output, including its end.

        Args:
            in_training: the largest number of tokens of an output in training.
            limit: the value of --limit, the number of positions that a model learns.

        Raises:
            InputError: when --max_length exceeds the limit.
        """
        if self.max_length is not None and self.max_length > limit:
            raise InputError(
                f"--max_length={self.max_length} is more than --limit={limit}, which no model has "
                "seen; lower it, or train with a higher limit"
            )
        return self.max_length or in_training

    def objective(self) -> Objective:
        """Returns the objective that the search maximises."""
        return Objective(self.normalise, self.alpha)


class Found(NamedTuple):
    """The result of a search for N sources, in their order.

    Attributes:
        texts: the best outputs of each source, the best first; "" where --min_length and
            --no_repeat allow none.
        tokens: the ids of the best output of each source, with its end.
        scores: the maximised objective of each output, [N, n_best].
        log_probs: log P of each output, [N, n_best].
    """

    texts: list[list[str]]
    tokens: list[np.ndarray]
    scores: np.ndarray
    log_probs: np.ndarray


class Begin(Protocol):
    """The start of a search over a batch."""

    def __call__(
        self, variables: Any, batch: Batch, steps: int
    ) -> tuple[NextToken[Any], Carry, Callable[[Any], jax.Array] | None]:
        """Returns the next-token function, its first carry with leading axis B, and its coverage.

        Args:
            variables: the variables of the models, in the types that they compute in.
            batch: a batch of B inputs.
            steps: the largest number of tokens that will be read.
        """
        ...


class Searcher:
    """A searcher that finds the texts for all inputs of a split.

    Args:
        begin: starts the search over a batch, see `Begin`.
        target: the vocabulary of the texts.
        config: the options of the search.
        steps: the largest number of tokens of a text.
        width: the width of the beam; a beam of another width than --beam has no groups.
        n_best: the number of texts of each input.
    """

    def __init__(
        self,
        begin: Begin,
        target: Vocabulary,
        config: SearchGroup,
        *,
        steps: int,
        width: int,
        n_best: int = 1,
    ):
        self._target = target
        goal = config.objective()

        @jax.jit
        def search(variables: Any, batch: Batch) -> Any:
            next_token, carry, coverage = begin(variables, batch, steps)
            return beam_search(
                next_token,
                carry,
                jnp.full(len(jax.tree.leaves(batch)[0]), END),
                end=END,
                width=width,
                steps=steps,
                n_best=n_best,
                objective=goal,
                min_length=config.min_length,
                no_repeat=config.no_repeat,
                coverage=coverage if goal.coverage > 0 else None,
                groups=config.groups if width == config.beam else 1,
                diversity=config.diversity,
            )

        self._search = search

    def rehearse(self, variables: Any, data: Split) -> None:
        """Traces a search with the shapes of variables, and so refuses options that cannot work.

        Raises:
            InputError: as raised by `beam_search` and the models.
        """
        jax.eval_shape(self._search, variables, data.gather(np.arange(1)))

    def find(self, variables: Any, data: Split, task: str) -> Found:
        """Finds the texts for all inputs of a split; `task` is the heading of the progress line."""
        found = over(functools.partial(self._search, variables), data, task)
        # -inf scores are places that no hypothesis filled.
        ids = [
            [tokens[:length] for tokens, length in zip(*of, strict=True)]
            for of in zip(found.tokens, found.lengths, strict=True)
        ]
        decode = self._target.decode
        texts = [[decode(one[:-1]) for one in of if len(one)] or [""] for of in ids]
        return Found(texts, [of[0] for of in ids], found.scores, found.log_probs)


def over(function: Callable[[Any], Any], data: Split, task: str) -> Any:
    """Applies a function of a batch to a split; returns the results in the order of the examples.

    Examples that differ in length are batched by length, which needs the least padding.
    """
    lengths = getattr(data, "lengths", np.zeros(len(data)))
    order, rows = np.argsort(lengths, kind="stable"), min(_ROWS, len(data))
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
