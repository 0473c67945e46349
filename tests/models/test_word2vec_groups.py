"""Words of one group share noise, and no other words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.embedding import Word2Vec, objective

W = 2


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("negative_sampling", "skip_gram"),
        pytest.param("negative_sampling", "cbow_mean", marks=pytest.mark.slow),
        pytest.param("nce", "skip_gram", marks=pytest.mark.slow),
        ("nce", "cbow_mean"),
    ],
)
def test_each_group_has_noise_of_its_own(architecture: str, name: str) -> None:
    goal = objective(name, np.arange(1, 12), samples=3)
    model = Word2Vec(goal, features=4, architecture=architecture, window=W)
    assert model.groups(256) == 2 and model.groups(128) == model.groups(96) == 1
    rng = np.random.default_rng(0)
    tables = {part: rng.normal(size=(11, 4)).astype(np.float32) for part in ("input", "output")}
    others = np.asarray(goal.others(jax.random.key(0), 2))
    assert others.shape == (6,)

    def loss(words: np.ndarray, others: np.ndarray) -> tuple[float, float]:
        # Sentences of 8 words, so that none lies in both groups.
        sentences = np.pad(np.arange(len(words)) // 8, W, constant_values=-1)
        batch = {
            "words": np.pad(words, W),
            "sentences": sentences,
            "reach": np.full(len(sentences), W, np.int32),
        }
        batch = jax.tree.map(jnp.asarray, batch)
        vectors = {part: tables[part][ids] for part, ids in model.rows(batch).items()}
        vectors["others"] = tables["output"][others]
        mean = jax.jit(model.loss)(vectors, batch, others)
        return float(mean.total), float(mean.weight)

    words = rng.integers(0, 11, 256).astype(np.int32)
    whole = loss(words, others)
    halves = [loss(words[:128], others[:3]), loss(words[128:], others[3:])]
    np.testing.assert_allclose(whole, np.sum(halves, axis=0), rtol=1e-5)
    assert abs(loss(words, np.roll(others, 3))[0] - whole[0]) > 1
