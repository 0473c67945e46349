"""Several steps as one function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.augment import STEPS, augmentation, principal_colours
from dlcore.nn.augment.compose import RANGES
from dlcore.parallel import Part, part_of_batch

B = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (B, 10, 12, 3)).astype(np.uint8)
BATCH = {"image": jnp.asarray(IMAGES), "label": jnp.arange(B) % 3, "weight": jnp.ones(B)}
COLOURS = principal_colours(IMAGES)
# Those that need boxes have a test of their own.
EVERYTHING = ",".join(name for name in STEPS if name not in ("object_crop", "mosaic"))


@functools.cache
def compiled(text, **options):
    return jax.jit(augmentation(text, num_classes=3, colours=COLOURS, **options))


def run(text, batch=BATCH, key=None, **options):
    key = jax.random.key(0) if key is None else key
    return jax.tree.map(np.asarray, compiled(text, **options)(key, batch))


@pytest.fixture(scope="module")
def everything():
    return run(EVERYTHING)


@pytest.mark.parametrize("text", ["none", "", " "])
def test_nothing_changes_nothing(text):
    new = run(text)
    assert new["image"].dtype == np.float32
    for name, value in BATCH.items():
        np.testing.assert_array_equal(new[name], value)


def test_everything_together_is_finite_and_in_range(everything):
    image, label = everything["image"], everything["label"]
    assert image.shape == IMAGES.shape and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 255 and image.std() > 10
    np.testing.assert_allclose(label.sum(-1), np.ones(B), rtol=1e-6)
    np.testing.assert_array_equal(everything["weight"], BATCH["weight"])


def test_the_key_decides(everything):
    other = run(EVERYTHING, key=jax.random.key(1))
    assert (other["image"] != everything["image"]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(run(EVERYTHING)["image"], everything["image"])


def test_stages_run_in_their_order_whatever_the_text_says():
    ordered = run("flip,brightness,cutout:4", fill=300.0)["image"]
    turned = run("cutout:4,brightness,flip", fill=300.0)["image"]
    np.testing.assert_array_equal(turned, ordered)
    assert ordered.max() == 300


def test_within_a_stage_the_texts_order_counts():
    first = run("flip:1,crop:3")["image"]
    flipped = {**BATCH, "image": BATCH["image"][:, :, ::-1]}
    np.testing.assert_array_equal(first, run("crop:3", flipped)["image"])
    last = run("crop:3,flip:1")["image"]
    np.testing.assert_array_equal(last, run("crop:3")["image"][:, :, ::-1])
    assert (first != last).any()


def test_another_step_leaves_the_draws_of_the_others():
    both = run("flip,cutout:4", fill=300.0)["image"]
    cut = both == 300
    np.testing.assert_array_equal(cut, run("cutout:4", fill=300.0)["image"] == 300)
    np.testing.assert_array_equal(both[~cut], run("flip")["image"][~cut])
    assert cut.any() and not cut.all()


def test_examples_of_a_batch_and_steps_draw_apart():
    same = {**BATCH, "image": jnp.broadcast_to(BATCH["image"][:1], IMAGES.shape)}
    new = run("brightness", same)["image"].reshape(B, -1)
    assert len(np.unique(new.round(3), axis=0)) == B
    # Both steps draw a factor in the same way; from one key the factors would be equal.
    pale = {"image": jnp.full((B, 2, 2, 3), 100.0).at[:, 0].set(110.0)}
    by_brightness = run("brightness", pale)["image"].mean((1, 2, 3)) / 105
    contrast = run("contrast", pale)["image"]
    by_contrast = (contrast[:, 0] - contrast[:, 1]).mean((1, 2)) / 10
    assert (abs(by_brightness - by_contrast) > 1e-3).all()


@pytest.mark.slow
def test_parts_of_the_batch_get_the_images_of_the_whole():
    text = "flip,affine,hue,noise,cutout:3"
    whole = run(text)["image"]
    compiled.cache_clear()
    with part_of_batch(Part(offset=1, stride=2)):
        part = run(text, jax.tree.map(lambda leaf: leaf[1::2], BATCH))["image"]
    compiled.cache_clear()
    np.testing.assert_allclose(part, whole[1::2], rtol=0, atol=1e-3)


def test_values_are_read_in_the_order_of_the_definition():
    # Draws of Beta(100, 100) are all near a half; probability 0 cuts nothing.
    labels = run("mixup:100")["label"]
    assert np.abs(labels.max(-1) - 0.5).max() < 0.2
    np.testing.assert_array_equal(run("cutmix:1:0")["label"], np.eye(3)[np.arange(B) % 3])
    np.testing.assert_array_equal(run(" flip:1 , crop:0")["image"], IMAGES[:, :, ::-1])


def test_the_fill_is_what_comes_from_outside():
    new = run("crop:9", fill=(301.0, 302.0, 303.0))["image"]
    outside = new[..., 0] > 300
    assert (new[outside] == [301, 302, 303]).all() and outside.any() and not outside.all()
    assert new[~outside].max() <= 255


def test_every_option_that_a_text_can_give_has_a_range():
    for name, step in STEPS.items():
        options = set(step.__kwdefaults__) - {"fill", "num_classes", "least_visible"}
        assert options and options <= set(RANGES), name
        for option in options:
            low, high = RANGES[option]
            assert low <= step.__kwdefaults__[option] <= high


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "unknown augmentation 'flop'; choose one of: affine, brightness, contrast"),
        ("flip,", "unknown augmentation ''; choose one of"),
        ("flip,none", "unknown augmentation 'none'"),
        ("flip,crop,flip", "'flip' is named twice in 'flip,crop,flip'; name it once"),
        ("crop:4:5", "'crop:4:5' has 2 values; crop takes padding; leave out the rest"),
        ("crop:x", "'crop:x': padding is 'x'; give a whole number from 0 to"),
        ("crop:2.5", "padding is '2.5'; give a whole number"),
        ("flip:1.5", "probability is '1.5'; give a number from 0 to 1"),
        ("flip:nan", "probability is 'nan'"),
        ("cutmix:1:", "probability is ''; give a number"),
        ("mixup:0", "alpha is '0'; give a number from 0.01 to 100"),
    ],
)
def test_bad_texts_are_refused(text, message):
    with pytest.raises(InputError) as caught:
        augmentation(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_lighting_needs_the_principal_colours():
    with pytest.raises(InputError, match="'lighting' needs the principal colours .* pass colours="):
        augmentation("flip,lighting")
