import numpy as np
import pytest

from dlcore.data.text import word_stream as module
from dlcore.data.text.word_stream import WordStream, held_out_pairs, keep_probabilities
from dlcore.errors import InputError

SIZE, WINDOW = 64, 4


def corpus(words: int = 5000, seed: int = 0) -> np.ndarray:
    """Sentences of 0 to 20 words, each word another one, so that places can be told."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.integers(0, 20, words))
    return np.insert(np.arange(words), ends[ends < words], -1).astype(np.int32)


def make(tokens: np.ndarray, keep: np.ndarray | float = 1.0, **options) -> WordStream:
    options = {"size": SIZE, "window": WINDOW, "seed": 3, **options}
    return WordStream(tokens, np.broadcast_to(keep, tokens.max() + 1), **options)


def words_of(batch: dict[str, np.ndarray]) -> list[int]:
    return batch["words"][batch["sentences"] >= 0].tolist()


def epoch_of(stream: WordStream, epoch: int) -> list[dict[str, np.ndarray]]:
    count = stream.steps_per_epoch
    return [stream.batch(step) for step in range(epoch * count, (epoch + 1) * count)]


def bits(batch: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in batch.items()}


def test_an_epoch_has_every_word_once_in_another_order() -> None:
    tokens = corpus()
    stream = make(tokens)
    epochs = [[words_of(batch) for batch in epoch_of(stream, epoch)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == list(range(5000))
        assert all(batch == [*range(batch[0], batch[-1] + 1)] for batch in epoch)
        assert sum(len(batch) < 32 for batch in epoch) <= 1  # the end of the corpus
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) != epochs[0]


def test_batches_hold_sentences_between_margins() -> None:
    tokens = corpus()
    sentence_of = dict(zip(tokens.tolist(), np.cumsum(tokens < 0).tolist(), strict=True))
    for batch in epoch_of(make(tokens), 0):
        words, sentences, reach = batch["words"], batch["sentences"], batch["reach"]
        assert all(array.shape == (SIZE + 2 * WINDOW,) for array in batch.values())
        assert all(array.dtype == np.int32 for array in batch.values())
        real = np.flatnonzero(sentences >= 0)
        assert real[0] == WINDOW and (np.diff(real) == 1).all() and real[-1] < SIZE + WINDOW
        nowhere = sentences < 0
        assert not words[nowhere].any() and not reach[nowhere].any()
        inside = [sentence_of[word] for word in words[real]]
        same = np.equal.outer(inside, inside)
        np.testing.assert_array_equal(np.equal.outer(sentences[real], sentences[real]), same)


def test_a_batch_is_a_function_of_seed_and_step(tmp_path) -> None:
    tokens = corpus()
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    steps, keep = [0, 170, 5, 99, 5], np.linspace(0.3, 1, 5000)
    first = [bits(make(tokens, keep).batch(step)) for step in steps]
    stream = make(mapped, keep)
    assert first == [bits(stream.batch(step)) for step in steps]
    assert first[2] == first[4] != first[0]
    later = stream.batches(170)
    assert [bits(next(later)) for _ in range(2)] == [first[1], bits(stream.batch(171))]
    assert first != [bits(make(tokens, keep, seed=4).batch(step)) for step in steps]


def test_subsampling_and_windows_are_drawn_anew_in_each_epoch() -> None:
    stream = make(corpus(), 0.5)
    first, again, second = (stream.stretch(7, epoch=epoch) for epoch in (0, 0, 1))
    assert bits(first) == bits(again)
    other = make(corpus(), 0.5, seed=4).stretch(7, epoch=0)
    assert words_of(first) != words_of(second) and words_of(first) != words_of(other)
    full = make(corpus())
    draws = [full.stretch(7, epoch=epoch)["reach"] for epoch in (0, 1)]
    assert (draws[0] != draws[1]).any()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02, 1e-9])
def test_held_out_stretches_never_occur(share: float) -> None:
    tokens = corpus()
    stream = make(tokens, held_out=share)
    held = [words_of(stream.stretch(int(number), epoch=0)) for number in stream.held_out]
    every = stream.steps_per_epoch + len(held)
    one_of = min(round(1 / share), every)
    assert len(held) == len(range(one_of // 2, every, one_of)) and min(map(len, held)) > 0
    assert every == make(tokens).steps_per_epoch
    for epoch in (0, 1):
        trained = [words_of(batch) for batch in epoch_of(stream, epoch)]
        assert sorted(sum(trained + held, [])) == list(range(5000))
    # Spread over the corpus.
    assert (np.diff(stream.held_out) == one_of).all() or share < 0.1


@pytest.mark.parametrize(
    ("rule", "threshold", "expected"),
    [
        # Frequencies of 0.64, 0.32, 0.03 and 0.01.
        ("paper", 0.01, [0.125, 0.1767767, 0.5773503, 1]),
        ("program", 0.01, [0.140625, 0.2080267, 0.9106836, 1]),
        ("paper", 1.0, [1, 1, 1, 1]),
        ("program", 0.0, [1, 1, 1, 1]),
        ("paper", 0.0, [1, 1, 1, 1]),
    ],
)
def test_keep_rates_by_hand(rule: str, threshold: float, expected: list[float]) -> None:
    kept = keep_probabilities(np.array([64, 32, 3, 1]), threshold=threshold, rule=rule)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, expected, rtol=1e-6)


@pytest.mark.parametrize("rule", ["paper", "program"])
def test_the_share_that_is_kept_is_the_formulas(rule: str) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([25_600, 12_800, 1200, 400])
    tokens = rng.permutation(np.repeat(np.arange(4, dtype=np.int32), counts))
    keep = keep_probabilities(counts, threshold=0.01, rule=rule)
    stream = make(tokens, keep, size=512)
    kept = np.bincount(sum(map(words_of, epoch_of(stream, 0)), []), minlength=4)
    deviation = np.sqrt(counts * keep * (1 - keep))
    assert (abs(kept - counts * keep) <= 4 * deviation).all()
    assert (kept < counts).tolist() == [True, True, True, False]


def test_windows_are_uniform_or_fixed() -> None:
    reach = np.concatenate([batch["reach"] for batch in epoch_of(make(corpus()), 0)])
    seen = np.bincount(reach)[1:]
    assert len(seen) == WINDOW and seen.sum() == 5000
    assert (abs(seen - 1250) < 4 * np.sqrt(5000 * 0.25 * 0.75)).all()
    fixed = make(corpus(), fixed=True)
    for batch in epoch_of(fixed, 0):
        assert (batch["reach"] == np.where(batch["sentences"] >= 0, WINDOW, 0)).all()


def plain_bounds(tokens: np.ndarray, keep: np.ndarray, room: float) -> list[int]:
    """A stretch ends at the word with which the sum reaches the next multiple of the room."""
    bounds, total = [0], 0.0
    for place, token in enumerate(tokens.tolist()):
        total += float(keep[token]) if token >= 0 else 0.0
        if total >= room * len(bounds):
            bounds.append(place + 1)
    return bounds if bounds[-1] == len(tokens) else [*bounds, len(tokens)]


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 22])
@pytest.mark.parametrize("size", [64, 50, 20])
def test_cutting_by_blocks_is_cutting_by_words(monkeypatch, block: int, size: int) -> None:
    tokens = corpus(2000)
    # Sums of these are exact, and 64 words have a room of exactly 32.
    keep = np.random.default_rng(0).integers(1, 65, 2000) / np.float32(64)
    monkeypatch.setattr(module, "_BLOCK", block)
    stream = make(tokens, keep, size=size)
    bounds = plain_bounds(tokens, keep, size - 4 * size**0.5)
    assert stream._bounds.tolist() == bounds
    assert stream.steps_per_epoch == len(bounds) - 1
    everything = make(tokens, 1.0, size=size)
    expected = plain_bounds(tokens, np.ones(2000), size - 4 * size**0.5)
    for number, (start, end) in enumerate(zip(expected, expected[1:], strict=False)):
        got = words_of(everything.stretch(number, epoch=0))
        assert got == [token for token in tokens[start:end].tolist() if token >= 0]


def test_no_batch_overflows_in_practice() -> None:
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 1001)
    tokens = rng.choice(1000, 200_000, p=share / share.sum()).astype(np.int32)
    keep = keep_probabilities(np.bincount(tokens), threshold=1e-3, rule="program")
    stream = make(tokens, keep, size=1024)
    filled = [len(words_of(batch)) for batch in epoch_of(stream, 0)]
    assert max(filled) < 1024 and np.mean(filled) > 0.85 * 1024


def plain_pairs(batch: dict[str, np.ndarray], together: bool) -> list[tuple[list[int], int]]:
    words, sentences, reach = (batch[name].tolist() for name in ("words", "sentences", "reach"))
    found = []
    for centre in range(len(words)):
        around = [
            other
            for other in range(len(words))
            if 0 < abs(other - centre) <= reach[centre]
            and sentences[other] == sentences[centre] >= 0
        ]
        if together and around:
            found.append(([words[other] for other in around], words[centre]))
        elif not together:
            found += [([words[centre]], words[other]) for other in around]
    return found


def sample(batch: dict[str, np.ndarray], together: bool, **options) -> dict[str, np.ndarray]:
    options = {"size": 10**6, "negatives": 3, "noise": np.arange(5.0), "seed": 0, **options}
    return held_out_pairs(batch, window=WINDOW, together=together, **options)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("stretch", [0, 5, 99])
def test_held_out_pairs_are_all_there_are(together: bool, stretch: int) -> None:
    batch = make(corpus(), 0.8).stretch(stretch, epoch=0)
    expected = plain_pairs(batch, together)
    got = sample(batch, together)
    assert got["queries"].shape == (len(expected), 2 * WINDOW if together else 1)
    listed = [[word for word in query if word >= 0] for query in got["queries"].tolist()]
    assert list(zip(listed, got["targets"].tolist(), strict=True)) == expected
    assert all(array.dtype == np.int32 for array in got.values())
    fewer = sample(batch, together, size=20)
    assert len(fewer["targets"]) == 20
    chosen = list(zip(fewer["queries"].tolist(), fewer["targets"].tolist(), strict=True))
    every = list(zip(got["queries"].tolist(), got["targets"].tolist(), strict=True))
    assert set(map(str, chosen)) <= set(map(str, every)) and len(set(map(str, chosen))) == 20
    assert bits(sample(batch, together, size=20)) == bits(fewer)
    assert bits(sample(batch, together, size=20, seed=1)) != bits(fewer)


def test_noise_of_held_out_pairs_follows_its_distribution() -> None:
    batch = make(corpus()).batch(0)
    drawn = sample(batch, False, negatives=200)["noise"]
    assert drawn.shape[1] == 200
    seen, share = np.bincount(drawn.ravel(), minlength=5), np.arange(5) / 10
    assert (abs(seen - drawn.size * share) <= 4 * np.sqrt(drawn.size * share)).all()


def test_bad_input_is_refused() -> None:
    tokens = corpus(100)
    for options in ({"size": 17}, {"size": 0}, {"window": 0}):
        with pytest.raises(InputError, match="batches of .* words with windows of .*: give 18"):
            make(tokens, **options)
    for nothing in (tokens[:0], np.array([-1, -1], np.int32)):
        with pytest.raises(InputError, match="the corpus has no words to train on"):
            WordStream(nothing, np.ones(3), size=SIZE, window=WINDOW, seed=0)
    with pytest.raises(InputError, match="no words to train on"):
        make(tokens, 0.0)
    for share in (-0.1, 1.0, 3.0):
        with pytest.raises(InputError, match=f"a share of {share} cannot be held out"):
            make(tokens, held_out=share)
    with pytest.raises(InputError, match="fills 1 batch of 512 words, too few to hold out 0.1"):
        make(tokens, size=512, held_out=0.1)
    with pytest.raises(InputError, match="unknown subsampling 'c'; choose one of: paper, program"):
        keep_probabilities(np.ones(3), threshold=0.1, rule="c")
    for threshold in (-1e-3, float("nan")):
        with pytest.raises(InputError, match="threshold of .* is not possible; give 0 or more"):
            keep_probabilities(np.ones(3), threshold=threshold, rule="paper")
    alone = np.repeat(np.arange(100), 2).astype(np.int32)
    alone[1::2] = -1
    for together in (True, False):
        with pytest.raises(InputError, match="no two words in one window; hold out more"):
            sample(make(alone).batch(0), together)
