"""Texts that a language model writes: --prompt, --generate and how tokens are drawn."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.data.text import Vocabulary
from dlcore.decode import generate
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.models.text import LanguageModel, NGram
from dlcore.train.logs import writing
from dlcore.types import Variables

# The options of sampling, which a run may change.
SAMPLING = frozenset({"prompt", "generate", "temperature", "top_k", "top_p", "min_p"})


class Sampler:
    """Continues --prompt, with the randomness of --seed.

    Raises:
        InputError: for a prompt without a token, and more tokens than a model has positions for.
    """

    def __init__(self, config: Any, vocabulary: Vocabulary):
        self._config, self._vocabulary = config, vocabulary
        self._prompt = vocabulary.encode(config.prompt)
        if not len(self._prompt):
            raise InputError(f"--prompt={config.prompt!r} has no token; give some text")
        self._options = {
            "steps": config.generate,
            "temperature": config.temperature,
            "top_k": config.top_k,
            "top_p": config.top_p,
            "min_p": config.min_p,
        }

    def neural(self, model: LanguageModel) -> Callable[[Variables], str]:
        """Returns a function from variables to a text; compiled once for all of them."""

        @jax.jit
        def continued(variables: Variables, prompt: jax.Array, key: jax.Array) -> jax.Array:
            carry = model.initial_carry(1, len(prompt) + self._config.generate)
            if len(prompt) > 1:
                carry, _, _ = model.apply(variables, prompt[None, :-1], carry=carry)
            next_token = model.reader(variables, 1)
            return generate(next_token, carry, prompt[-1:], key, **self._options)

        prompt, key = jnp.asarray(self._prompt), self._key()
        if self._config.generate:  # What cannot be sampled shows here, before training.
            self._require_positions()
            shapes = jax.eval_shape(lambda: model.init(key, prompt[None, :1]))
            jax.eval_shape(continued, shapes, prompt, key)
        return lambda variables: self._text(continued(variables, prompt, key))

    def counted(self, ngram: NGram) -> str:
        """Returns a text of an n-gram model."""
        history = ngram.initial_carry(1)
        for token in self._prompt[:-1]:
            history, _ = ngram.next_token(history, jnp.asarray([token]))
        first = jnp.asarray(self._prompt[-1:])
        return self._text(generate(ngram.next_token, history, first, self._key(), **self._options))

    def _require_positions(self) -> None:
        config, length = self._config, len(self._prompt) + self._config.generate
        learned = config.model == "transformer" and config.position == "learned"
        if learned and length > config.window:
            raise InputError(
                f"--generate={config.generate} after a prompt of {len(self._prompt)} tokens goes "
                f"beyond the --window={config.window} positions that are learned; lower the one, "
                "raise the other, or choose another --position"
            )

    def _key(self) -> jax.Array:
        return jax.random.key(self._config.seed)

    def _text(self, tokens: jax.Array) -> str:
        return self._vocabulary.decode([*self._prompt.tolist(), *np.asarray(tokens)[0].tolist()])


def write_sample(workdir: pathlib.Path, step: int, sample: str) -> None:
    """Writes WORKDIR/samples/STEP.txt."""
    path = workdir / "samples" / f"{step:08}.txt"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, sample + "\n")
