"""A model of random tables, every sequence it allows, and beam search, all in plain NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

END = 1
FIRST = 1
STATES = 997
OBJECTIVES = [
    {},
    {"normalise": "average"},
    {"normalise": "power", "alpha": 0.0},
    {"normalise": "power", "alpha": 0.6},
    {"normalise": "power", "alpha": 1.7},
    {"normalise": "gnmt", "alpha": 0.9},
    {"coverage": 0.4},
    {"normalise": "average", "coverage": 0.3},
    {"normalise": "gnmt", "alpha": 2.5, "coverage": 1.5},
]
CONSTRAINTS = [
    {},
    {"min_length": 3},
    {"min_length": 5},
    {"no_repeat": 1},
    {"no_repeat": 2},
    {"no_repeat": 2, "min_length": 4},
]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A finished or unfinished sequence, with log P and the attention of each source step."""

    tokens: tuple
    log_prob: float
    state: int
    covered: np.ndarray


class Model:
    """A model whose state, a hash of all tokens so far, picks logits and attention from tables."""

    def __init__(self, seed, vocab, source=3, spread=1.5):
        rng = np.random.default_rng(seed)
        self.vocab = vocab
        self.logits = (spread * rng.normal(size=(STATES, vocab))).astype(np.float32)
        attention = np.exp(2 * rng.normal(size=(STATES, source)))
        self.attention = (attention / attention.sum(1, keepdims=True)).astype(np.float32)

    def start(self, sentences):
        """Returns the carry of sentences that have these numbers."""
        sentences = jnp.asarray(sentences)
        covered = jnp.zeros((len(sentences), self.attention.shape[1]))
        return {"state": sentences, "covered": covered}

    def next_token(self, carry, token):
        state = (carry["state"] * self.vocab + token + 1) % STATES
        covered = carry["covered"] + jnp.asarray(self.attention)[state]
        return {"state": state, "covered": covered}, jnp.asarray(self.logits)[state]

    @staticmethod
    def coverage(carry):
        return carry["covered"]

    def begin(self, sentence):
        return Hypothesis((), 0.0, sentence, np.zeros(self.attention.shape[1]))

    def extensions(self, hypothesis, *, steps, min_length=0, no_repeat=None):
        """Returns all extensions by one token that the constraints allow."""
        tokens = hypothesis.tokens
        last = tokens[-1] if tokens else FIRST
        state = (hypothesis.state * self.vocab + last + 1) % STATES
        covered = hypothesis.covered + self.attention[state]
        for token, log_prob in enumerate(log_softmax(self.logits[state])):
            longer = (*tokens, token)
            if token == END and len(longer) < min_length:
                continue
            if token != END and len(longer) == steps:
                continue
            if no_repeat is not None:
                grams = [longer[i : i + no_repeat] for i in range(len(longer) - no_repeat + 1)]
                if len(set(grams)) < len(grams):
                    continue
            yield Hypothesis(longer, hypothesis.log_prob + log_prob, state, covered)


def every_sequence(model, sentence, **constraints):
    found, open_ones = [], [model.begin(sentence)]
    while open_ones:
        for longer in model.extensions(open_ones.pop(), **constraints):
            (found if longer.tokens[-1] == END else open_ones).append(longer)
    return found


def beam(model, sentence, *, width, **constraints):
    """Returns the finished hypotheses of a beam that never stops early."""
    live, finished = [model.begin(sentence)], []
    while live:
        longer = [more for one in live for more in model.extensions(one, **constraints)]
        longer.sort(key=lambda one: -one.log_prob)
        longer = longer[: width - len(finished)]
        finished += [one for one in longer if one.tokens[-1] == END]
        live = [one for one in longer if one.tokens[-1] != END]
    return finished


def diverse_beam(model, sentence, *, width, groups, diversity, **constraints):
    """Returns the hypotheses that groups of beams find, step by step and never stopping early."""
    size = width // groups
    beams = [([model.begin(sentence)], []) for _ in range(groups)]
    while any(live for live, _ in beams):
        taken = np.zeros(model.vocab)
        for group, (live, finished) in enumerate(beams):
            longer = [more for one in live for more in model.extensions(one, **constraints)]
            longer.sort(key=lambda one: diversity * taken[one.tokens[-1]] - one.log_prob)
            longer = longer[: size - len(finished)]
            for one in longer:
                # Counts for the groups after this one, whose extensions are sorted later.
                taken[one.tokens[-1]] += 1
            beams[group] = (
                [one for one in longer if one.tokens[-1] != END],
                finished + [one for one in longer if one.tokens[-1] == END],
            )
    found = [one for _, finished in beams for one in finished]
    return [*{one.tokens: one for one in found}.values()]


def score(hypothesis, *, normalise="none", alpha=0.7, coverage=0.0):
    length = len(hypothesis.tokens)
    divisor = {
        "none": 1,
        "average": length,
        "power": length**alpha,
        "gnmt": (5 + length) ** alpha / 6**alpha,
    }[normalise]
    penalty = coverage * np.log(np.minimum(hypothesis.covered, 1)).sum()
    return hypothesis.log_prob / divisor + penalty


def search(find, model, sentences, **settings):
    """Runs a compiled search by dlcore for sentences of these numbers; returns NumPy arrays."""
    found = jax.jit(lambda carry, first: find(model.next_token, carry, first, end=END, **settings))
    first = np.full(len(sentences), FIRST, np.int32)
    return jax.tree.map(np.asarray, found(model.start(np.array(sentences)), first))


def markov(table):
    """Makes a next-token function of P(next | token), a row for each token, without a carry."""
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(np.array(table, np.float32)))
    return lambda carry, token: (carry, logits[token])
