"""N-gram models against the published formulas, once by hand and once with plain dictionaries."""

import itertools
from collections import Counter, defaultdict

import jax
import numpy as np
import pytest

from dlcore import decode
from dlcore.errors import InputError
from dlcore.models.text.ngram import NGram

SMOOTHINGS = ["mle", "add_k", "kneser_ney", "modified_kneser_ney", "katz"]
K = 0.3
# Twelve tokens of which the last never comes. The seed is one of few that give counts of 1, 2, 3
# and 4 in every order and a positive discount for each.
VOCAB = 12
RANKED = np.arange(1, 12) ** -1.5
TEXT = np.random.default_rng(581).choice(11, 200, p=RANKED / RANKED.sum()).astype(np.int32)
# a b a c a b, and d is never seen.
HAND = np.array([0, 1, 0, 2, 0, 1], np.int32)


class Dictionaries:
    """The formulas word for word: Chen & Goodman 1998, and add-k and relative frequencies."""

    def __init__(self, tokens, order, smoothing):
        text = [int(token) for token in tokens]
        self.smoothing = smoothing
        self.counts = {}
        for m in range(1, order + 1):
            grams = [tuple(text[i : i + m]) for i in range(len(text) - m + 1)]
            self.counts[m] = Counter(grams)
        if "kneser_ney" in smoothing:
            for m in range(1, order):
                before = defaultdict(set)
                for gram in self.counts[m + 1]:
                    before[gram[1:]].add(gram[0])
                self.counts[m] = {gram: len(tokens) for gram, tokens in before.items()}

        self.discounts = {m: self.discounts_of(counts) for m, counts in self.counts.items()}

    def discounts_of(self, counts):
        if "kneser_ney" not in self.smoothing:
            return [0, 0, 0, 0]
        n = Counter(counts.values())
        y = n[1] / (n[1] + 2 * n[2])
        if self.smoothing == "kneser_ney":
            return [0, y, y, y]
        return [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]

    def distribution(self, history):
        lower = self.distribution(history[1:]) if history else [1 / VOCAB] * VOCAB
        m = len(history) + 1
        counts = [self.counts[m].get((*history, word), 0) for word in range(VOCAB)]
        if self.smoothing == "add_k":
            return [(count + K) / (sum(counts) + K * VOCAB) for count in counts]
        if not sum(counts):
            return lower
        if self.smoothing == "katz":
            return self.katz(m, counts, lower)
        discounts = [self.discounts[m][min(count, 3)] for count in counts]
        return [
            (count - discount + sum(discounts) * below) / sum(counts)
            for count, discount, below in zip(counts, discounts, lower, strict=True)
        ]

    def katz(self, m, counts, lower):
        n = Counter(self.counts[m].values())
        beyond = 6 * n[6] / n[1] if n[1] else 1
        kept = []
        for r in counts:
            d = 1
            if 1 <= r <= 5 and beyond < 1:
                d = ((r + 1) * n[r + 1] / n[r] / r - beyond) / (1 - beyond)
            kept.append(r * d if 0 < d < 1 else r)
        total = sum(counts)
        if 0 not in counts:
            return [r / total for r in counts]
        total += kept == counts
        unseen = sum(below for r, below in zip(counts, lower, strict=True) if not r)
        free = 1 - sum(kept) / total
        return [
            keep / total if r else free * below / unseen
            for r, keep, below in zip(counts, kept, lower, strict=True)
        ]


def histories(order):
    return [h for m in range(order) for h in itertools.product(range(VOCAB), repeat=m)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_every_history_has_the_formulas_distribution_and_it_sums_to_one(smoothing, order):
    model = NGram.count(TEXT, order=order, vocab_size=VOCAB, smoothing=smoothing, k=K)
    expected = Dictionaries(TEXT, order, smoothing)
    for history in histories(order):
        found = model.distribution(history)
        np.testing.assert_allclose(found, expected.distribution(history), atol=1e-12)
        assert abs(found.sum() - 1) < 1e-9
        assert smoothing == "mle" or found.min() > 0


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_text_has_the_probabilities_of_the_distributions(smoothing):
    model = NGram.count(TEXT, order=4, vocab_size=VOCAB, smoothing=smoothing, k=K)
    tokens = np.array([11, 0, 1, 0, 0, 11, 1, 2, 0, 1, 0, 3, 4, 4, 4], np.int32)
    expected = [model.distribution(tokens[:i])[token] for i, token in enumerate(tokens)]
    found = model.log_probs(tokens)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-15)
    np.testing.assert_array_equal(np.isneginf(found), np.array(expected) == 0)
    for cut in (0, 1, 2, 3, 7, 15):  # As long as the history, shorter and longer.
        np.testing.assert_allclose(
            model.log_probs(tokens[cut:], context=tokens[:cut]), found[cut:], rtol=1e-15
        )


@pytest.mark.parametrize(
    "smoothing, first, after_a, after_b, after_d",
    [
        # Bigrams ab 2, ba ac ca 1: D = 3 / (3 + 2 * 1) = 0.6. Tokens before a: 2, b: 1, c: 1, so
        # D = 2 / (2 + 2 * 1) = 0.5 and p(a) = 1.5 / 4 + 0.5 * 3 / 4 / 4.
        (
            "kneser_ney",
            [0.46875, 0.21875, 0.21875, 0.09375],
            [0.4 * 0.46875, 1.4 / 3 + 0.4 * 0.21875, 0.4 / 3 + 0.4 * 0.21875, 0.4 * 0.09375],
            [0.4 + 0.6 * 0.46875, 0.6 * 0.21875, 0.6 * 0.21875, 0.6 * 0.09375],
            [0.46875, 0.21875, 0.21875, 0.09375],
        ),
        (
            "add_k",
            [3.3 / 7.2, 2.3 / 7.2, 1.3 / 7.2, 0.3 / 7.2],
            [0.3 / 4.2, 2.3 / 4.2, 1.3 / 4.2, 0.3 / 4.2],
            [1.3 / 2.2, 0.3 / 2.2, 0.3 / 2.2, 0.3 / 2.2],
            [0.25] * 4,
        ),
        (
            "mle",
            [3 / 6, 2 / 6, 1 / 6, 0],
            [0, 2 / 3, 1 / 3, 0],
            [1, 0, 0, 0],
            [1 / 2, 1 / 3, 1 / 6, 0],
        ),
        # Tokens a 3, b 2, c 1: d_1 = 2 n_2 / n_1 = 2 and d_2 = 3 n_3 / (2 n_2) = 3 / 2 are no
        # discounts, so one count is kept: p = 3/7 2/7 1/7, and 1/7 for d. Bigrams ab 2, ba ac ca 1
        # have d_1 = 2 * 1 / 3; d_2 = 0 is none. After a (3): ab 2/3, ac 2/9; a and d share 1/9 as
        # 3 to 1. After b (1): a 2/3; b, c and d share 1/3 as 2 to 1 to 1.
        (
            "katz",
            [3 / 7, 2 / 7, 1 / 7, 1 / 7],
            [1 / 9 * 3 / 4, 2 / 3, 2 / 9, 1 / 9 / 4],
            [2 / 3, 1 / 3 / 2, 1 / 3 / 4, 1 / 3 / 4],
            [3 / 7, 2 / 7, 1 / 7, 1 / 7],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bigrams_by_hand(smoothing, first, after_a, after_b, after_d):
    model = NGram.count(HAND, order=2, vocab_size=4, smoothing=smoothing, k=K)
    for history, expected in [([], first), ([0], after_a), ([1], after_b), ([3], after_d)]:
        np.testing.assert_allclose(model.distribution(history), expected, rtol=1e-14)


def test_only_the_last_tokens_of_a_history_count():
    model = NGram.count(TEXT, order=3, vocab_size=VOCAB)
    np.testing.assert_array_equal(
        model.distribution([4, 11, 2, 1, 0]), model.distribution(np.array([1, 0]))
    )


@pytest.mark.parametrize(
    "smoothing, text, expected",
    [
        # n_1 = 0, so the discount is 1 / 2; of the modified ones the third, 3 / 2, is for a 9.
        ("kneser_ney", [0] * 9, [8.5 / 9 + 0.5 / 9 / 4] + [0.5 / 9 / 4] * 3),
        ("modified_kneser_ney", [0] * 9, [7.5 / 9 + 1.5 / 9 / 4] + [1.5 / 9 / 4] * 3),
        # n_2 = 0, so D = D_1 = 1: everything goes to the uniform distribution.
        ("kneser_ney", [0, 1, 2], [0.25] * 4),
        ("modified_kneser_ney", [0, 1, 2], [0.25] * 4),
        # n_1 = n_2 = 1 and n_3 = 0, so D_1 = 1 / 3 and D_2 = 2.
        ("kneser_ney", [0, 1, 1], [(2 + 0.5) / 9, (5 + 0.5) / 9, 0.5 / 9, 0.5 / 9]),
        ("modified_kneser_ney", [0, 1, 1], [(2 + 1.75) / 9] + [1.75 / 9] * 3),
    ],
)
def test_texts_too_small_or_even_for_the_discounts_of_the_papers(smoothing, text, expected):
    model = NGram.count(np.array(text), order=1, vocab_size=4, smoothing=smoothing)
    np.testing.assert_allclose(model.distribution([]), expected, rtol=1e-14)


def test_katz_discounts_by_good_and_turing():
    """n_1 = 4, n_2 = 1, n_3 = n_6 = 0, so d_1 = 1 / 2; the four words of count 1 free 2 of 6."""
    text = np.array([0, 0, 1, 2, 3, 4])
    found = NGram.count(text, order=1, vocab_size=7, smoothing="katz").distribution([])
    np.testing.assert_allclose(found, [2 / 6, *[0.5 / 6] * 4, 1 / 6, 1 / 6], rtol=1e-14)


def test_long_histories_over_the_largest_vocabulary_do_not_overflow():
    large = NGram.count(TEXT + (2**31 - 13), order=8, vocab_size=2**31 - 1, smoothing="mle")
    small = NGram.count(TEXT, order=8, vocab_size=VOCAB, smoothing="mle")
    np.testing.assert_array_equal(large.log_probs(TEXT + (2**31 - 13)), small.log_probs(TEXT))
    assert np.isfinite(small.log_probs(TEXT)).all()


def test_it_generates_like_any_model():
    model = NGram.count(TEXT, order=3, vocab_size=VOCAB)
    first = np.array([0, 1, 4, 11], np.int32)
    generated = decode.generate(
        model.next_token, model.initial_carry(4), first, jax.random.key(0), steps=6, temperature=0
    )
    for row, token in zip(generated, first, strict=True):
        text = [token]
        for _ in range(6):
            text.append(model.distribution(text).argmax())
        np.testing.assert_array_equal(row, text[1:])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"order": 0}, "n-gram order 0 is below 1"),
        ({"order": 7}, "6 tokens are too few for n-grams of order 7"),
        ({"smoothing": "add_k", "k": 0.0}, "add_k needs k above 0, given 0.0"),
        ({"smoothing": "add_k", "k": float("nan")}, "add_k needs k above 0, given nan"),
        (
            {"smoothing": "witten"},
            "unknown smoothing 'witten'; choose one of: add_k, katz, kneser_ney, m",
        ),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        NGram.count(HAND, **{"order": 2, "vocab_size": 4, **change})


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([0, 1, 4], r"tokens must be in 0\.\.3, given 0\.\.4"),
        ([0, -1, 1], r"tokens must be in 0\.\.3, given -1\.\.1"),
        ([0.0, 1.0], r"tokens must be integers \[N\], given float64 \(2,\)"),
        ([[0, 1]], r"tokens must be integers \[N\], given int64 \(1, 2\)"),
    ],
)
def test_bad_tokens(tokens, message):
    model = NGram.count(HAND, order=2, vocab_size=4)
    tokens = np.array(tokens)
    for use in (
        lambda: NGram.count(tokens, order=2, vocab_size=4),
        lambda: model.log_probs(tokens),
        lambda: model.log_probs(HAND, context=tokens),
        lambda: model.distribution(tokens),
    ):
        with pytest.raises(ValueError, match=message):
            use()
