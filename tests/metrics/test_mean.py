import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.types import Mean


def test_mean_of_values_is_their_weighted_mean():
    values, weights = np.array([1.0, 2.0, 5.0], np.float32), np.array([1.0, 0.5, 2.0], np.float32)
    mean = Mean.of(jnp.array(values), jnp.array(weights))
    assert mean.compute() == pytest.approx(np.average(values, weights=weights))


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_parts_of_different_sizes_merge_to_the_mean_of_the_whole(cut):
    values = jnp.arange(10.0) ** 2
    merged = Mean.of(values[:cut]).merge(Mean.of(values[cut:]))
    assert merged.compute() == pytest.approx(float(values.mean()))


@pytest.mark.parametrize("junk", [7.0, np.inf, np.nan])
def test_a_value_of_weight_zero_counts_nothing_whatever_it_is(junk):
    mean = Mean.of(jnp.array([1.0, 3.0, junk]), jnp.array([1.0, 1.0, 0.0]))
    assert float(mean.compute()) == 2.0


def test_nothing_counted_is_nan_and_wrong_shapes_raise():
    assert np.isnan(Mean.of(jnp.ones(3), jnp.zeros(3)).compute())
    with pytest.raises(ValueError, match=r"values \(3,\) and weights \(2,\)"):
        Mean.of(jnp.ones(3), jnp.ones(2))
