import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.nn.augment import augmentation, mixing
from dlcore.parallel import positions
from dlcore.train import gradient_step
from dlcore.types import Aux, Mean, TrainState

B, H, W, K = 16, 6, 5, 4
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.uniform(0, 255, (B, H, W, 2)).astype(np.float32),
    "label": np.arange(B, dtype=np.int32) % 3,
    "weight": np.ones(B, np.float32),
}
MIXERS = {"mixup": mixing.mixup, "cutmix": mixing.cutmix}


def mix(name, batch=BATCH, key=None, **options):
    """Applies one step to a batch, with a different key for each example."""
    key = jax.random.key(0) if key is None else key
    keys = jax.random.split(key, len(batch["image"]))
    step = jax.jit(lambda keys, batch: MIXERS[name](keys, batch, num_classes=K, **options))
    return jax.tree.map(np.asarray, step(keys, jax.tree.map(jnp.asarray, batch)))


def assert_likely(hits, tries, probability):
    """Asserts that `hits` lies in the range that a binomial leaves once in a million draws."""
    low, high = stats.binom.interval(1 - 1e-6, tries, probability)
    assert low <= hits <= high, f"{hits} of {tries} at {probability}"


def test_mixup_equals_the_plain_version():
    new = mix("mixup", alpha=0.7)
    keys = jax.random.split(jax.random.key(0), B)
    for i in range(B):
        partner = (i + B // 2) % B
        share = float(jax.random.beta(keys[i], 0.7, 0.7))
        image = share * BATCH["image"][i] + (1 - share) * BATCH["image"][partner]
        label = np.zeros(K)
        label[BATCH["label"][i]] += share
        label[BATCH["label"][partner]] += 1 - share
        np.testing.assert_allclose(new["image"][i], image, rtol=0, atol=1e-3)
        np.testing.assert_allclose(new["label"][i], label, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(new["weight"], BATCH["weight"])


def many_shares(name, **options):
    """Returns each example's share of its own image, as images of ones meet partners of zeros."""
    count = 2000
    image = np.repeat(np.float32([1, 0]), count)[:, None, None, None]
    batch = {"image": np.tile(image, (1, 40, 40, 1)), "label": np.repeat([0, 1], count)}
    new = mix(name, batch, jax.random.key(3), **options)
    own = new["image"][:count].mean((1, 2, 3))
    np.testing.assert_allclose(own, new["label"][:count, 0], rtol=0, atol=1e-5)
    return own


@pytest.mark.parametrize("alpha", [0.2, pytest.param(1.0, marks=pytest.mark.slow), 4.0])
def test_shares_of_mixup_are_beta_distributed(alpha):
    shares = many_shares("mixup", alpha=alpha)
    for limit in (0.05, 0.3, 0.5, 0.9):
        assert_likely((shares < limit).sum(), len(shares), stats.beta(alpha, alpha).cdf(limit))


def test_cutmix_puts_a_rectangle_of_the_partner_in_and_counts_its_pixels():
    new = mix("cutmix")
    sides = set()
    for i in range(B):
        partner = (i + B // 2) % B
        other = (new["image"][i] == BATCH["image"][partner]).all(-1)
        own = (new["image"][i] == BATCH["image"][i]).all(-1)
        np.testing.assert_array_equal(own, ~other)
        rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
        assert other.sum() == len(rows) * len(columns)
        for line in (rows, columns):
            assert (np.diff(line) == 1).all()
        label = np.zeros(K)
        label[BATCH["label"][i]] += own.mean()
        label[BATCH["label"][partner]] += other.mean()
        np.testing.assert_allclose(new["label"][i], label, rtol=0, atol=1e-6)
        sides.add((len(rows), len(columns)))
    assert len(sides) > 5


def test_shares_of_cutmix_follow_the_papers_rule():
    """Quantiles of the shares lie within the bounds of a sample that NumPy draws by the rule."""
    found = many_shares("cutmix")
    rng = np.random.default_rng(5)
    side = np.round(40 * np.sqrt(1 - rng.beta(1, 1, 200_000))).astype(int)
    share = np.ones(len(side))
    lengths = []
    for _ in range(2):
        start = rng.integers(0, 40, len(side)) - side // 2
        lengths.append(np.minimum(start + side, 40) - np.maximum(start, 0))
    share -= lengths[0] * lengths[1] / 1600
    for limit in (0.35, 0.5, 0.7, 0.9, 0.99):
        assert_likely((found < limit).sum(), len(found), (share < limit).mean())


def test_cutmix_is_as_frequent_as_said():
    # Few rectangles of Beta(4, 4) cover no pixel.
    untouched = (many_shares("cutmix", alpha=4.0, probability=0.3) == 1).sum()
    assert_likely(untouched, 2000, 0.7)


@pytest.mark.parametrize("name", MIXERS)
def test_rows_that_only_pad_are_nobodys_partner(name):
    weight = np.ones(B, np.float32)
    weight[-3:] = 0
    new, plain = mix(name, {**BATCH, "weight": weight}), mix(name)
    alone = slice(B // 2 - 3, B // 2)
    np.testing.assert_array_equal(new["image"][alone], BATCH["image"][alone])
    np.testing.assert_array_equal(new["label"][alone], np.eye(K)[BATCH["label"][alone]])
    np.testing.assert_array_equal(new["image"][: B // 2 - 3], plain["image"][: B // 2 - 3])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "cutmix")) for name in MIXERS]
)
def test_soft_labels_are_mixed_like_the_integers_that_they_stand_for(name):
    soft = mix(name, {**BATCH, "label": np.eye(K, dtype=np.float32)[BATCH["label"]]})
    # Two programs, which may round differently.
    np.testing.assert_allclose(soft["label"], mix(name)["label"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "mixup")) for name in MIXERS]
)
def test_what_cannot_be_mixed_is_refused(name):
    with pytest.raises(InputError, match="pair the examples of a batch and cannot pair 15"):
        mix(name, jax.tree.map(lambda leaf: leaf[:15], BATCH))
    with pytest.raises(InputError, match=r"no rule for \['boxes'\]"):
        mix(name, {**BATCH, "boxes": np.zeros((B, 1, 4))})
    with pytest.raises(InputError, match="no rule for examples without them"):
        mix(name, {"image": BATCH["image"]})
    with pytest.raises(InputError, match="give num_classes"):
        MIXERS[name](jax.random.split(jax.random.key(0), B), BATCH)


def seen_in_training(kind, accumulate):
    """Returns the augmented images and labels by their position in the batch.

    They are the gradient of the sum of each example's products with its own parameters.
    """
    layout = runtime.layout(kind)
    augment = augmentation("flip,brightness,cutmix", num_classes=K)

    def loss_fn(params, model_state, batch, rng):
        new = augment(rng, batch)
        here = positions(len(new["image"]))
        each = (params["image"][here] * new["image"]).sum() + (
            params["label"][here] * new["label"]
        ).sum()
        return Mean(each, jnp.float32(len(here) / B)), Aux(model_state, {})

    tx = optax.sgd(1.0)
    step = gradient_step(loss_fn, tx, accumulate=accumulate)
    params = {"image": jnp.zeros((B, H, W, 2)), "label": jnp.zeros((B, K))}
    state = layout.initialise(lambda: TrainState.create({"params": params}, tx, jax.random.key(7)))
    state, _ = runtime.compile_step(step, layout)(state, BATCH)
    return jax.tree.map(lambda leaf: -np.asarray(leaf), state.params)


@pytest.fixture(scope="module")
def reference():
    return seen_in_training("jit", 1)


@pytest.mark.parametrize(
    ("kind", "accumulate"),
    [
        pytest.param("jit", 8, marks=pytest.mark.slow),
        pytest.param("pmap", 1, marks=pytest.mark.slow),
        ("pmap", 2),
        pytest.param("mesh", 2, marks=pytest.mark.slow),
    ],
)
def test_every_layout_mixes_the_same_examples(kind, accumulate, reference):
    found = seen_in_training(kind, accumulate)
    np.testing.assert_allclose(found["label"].sum(-1), np.ones(B), rtol=1e-6)
    np.testing.assert_allclose(found["label"], reference["label"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["image"], reference["image"], rtol=0, atol=1e-3)
    assert reference["image"].max() > 100


def test_micro_batches_that_cannot_be_paired_are_refused():
    with pytest.raises(InputError, match="cannot pair 1; make the batch size divided by"):
        seen_in_training("jit", 16)
