"""Sinusoids, rotations and slopes follow their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.attention.functions import attention_weights
from dlcore.nn.attention.positions import alibi_slopes, rotate, sinusoidal

B, T, H, D = 2, 6, 3, 8
X = jax.random.normal(jax.random.key(0), (B, T, H, D))


def test_sinusoids_at_hand_worked_numbers():
    found = sinusoidal(jnp.array([0, 3]), 4)
    expected = [[0, 1, 0, 1], [np.sin(3), np.cos(3), np.sin(0.03), np.cos(0.03)]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sinusoids_are_those_of_the_paper_at_any_places():
    places = np.array([[0, 1, 2, 511], [7, 7, 0, 100]])
    expected = np.zeros((2, 4, 10))
    for b, t, i in np.ndindex(2, 4, 5):
        angle = places[b, t] / 10_000 ** (2 * i / 10)
        expected[b, t, 2 * i : 2 * i + 2] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(places), 10), expected, atol=5e-5)
    np.testing.assert_array_equal(
        sinusoidal(jnp.asarray(places[0]), 10), sinusoidal(jnp.asarray(places), 10)[0]
    )


@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_rotations_are_those_of_the_paper_in_another_order(base):
    """The paper's pairs are neighbours; as complex numbers they are multiplied by e^(i angle)."""
    places = np.array([0, 1, 2, 5, 9, 30])
    interleaved = np.asarray(X).reshape(B, T, H, 2, D // 2).swapaxes(-1, -2)  # pairs last
    numbers = interleaved[..., 0] + 1j * interleaved[..., 1]
    angles = places[:, None] * base ** (-2 * np.arange(D // 2) / D)
    turned = numbers * np.exp(1j * angles)[None, :, None]
    found = rotate(X, jnp.asarray(places), base=base)
    np.testing.assert_allclose(found[..., : D // 2], turned.real, atol=1e-5)
    np.testing.assert_allclose(found[..., D // 2 :], turned.imag, atol=1e-5)


def test_rotated_scores_depend_on_the_distance_alone():
    def scores(shift):
        places = jnp.arange(T) + shift
        return jnp.einsum("bqhd,bkhd->bhqk", rotate(X, places), rotate(X, places))

    np.testing.assert_allclose(scores(0), scores(100), atol=1e-4)
    assert jnp.abs(scores(0) - jnp.einsum("bqhd,bkhd->bhqk", X, X)).max() > 1


def test_each_row_is_rotated_by_its_own_places():
    places = jnp.array([[0, 1, 2, 3, 4, 5], [3, 3, 0, 9, 1, 1]])
    found = rotate(X, places)
    for row in range(B):
        np.testing.assert_array_equal(found[row : row + 1], rotate(X[row : row + 1], places[row]))
    np.testing.assert_array_equal(found[0, 0], X[0, 0])
    half = rotate(X.astype(jnp.bfloat16), places)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, found, atol=0.05)


@pytest.mark.parametrize("make", [lambda x: sinusoidal(x, 5), lambda x: rotate(X[..., 1:], x)])
def test_odd_features_are_an_error(make):
    with pytest.raises(InputError, match="even"):
        make(jnp.arange(T))


@pytest.mark.parametrize(
    "heads, exponents",
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_are_those_published(heads, exponents):
    found = alibi_slopes(heads)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2.0 ** -np.array(exponents), rtol=1e-6)


def test_slopes_without_heads_are_an_error():
    with pytest.raises(InputError, match="at least 1"):
        alibi_slopes(0)


def test_slopes_are_constants():
    """Neither form of attention gives the slopes a gradient."""
    slopes = jnp.asarray(alibi_slopes(H))
    found = jax.jit(jax.grad(lambda s: attention_weights(X, X, slopes=s).std()))(slopes)
    np.testing.assert_array_equal(found, np.zeros(H))
