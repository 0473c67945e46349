"""Generators and discriminators: shapes, sizes, classes, and their twins in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.generative import (
    Adversaries,
    DCGANDiscriminator,
    DCGANGenerator,
    DenseDiscriminator,
    DenseGenerator,
    Discriminator,
    Generator,
    require_same_sizes,
)

B, Z, K = 3, 6, 4
LABELS = jnp.array([0, 3, 1])


def shapes(shape, width=8):
    noise = jax.ShapeDtypeStruct((B, Z), jnp.float32)
    return jax.eval_shape(
        lambda x: DCGANGenerator(shape, width).init_with_output(jax.random.key(0), x, True), noise
    )


@pytest.mark.parametrize("side", [8, 28, 32, 64, 40])
def test_the_generator_draws_every_size_that_halvings_allow(side):
    image, variables = shapes((side, 2 * side, 3))
    assert image.shape == (B, side, 2 * side, 3)
    kernels = [variables["params"][f"up_{n}"]["kernel"].shape for n in range(9) if
               f"up_{n}" in variables["params"]]  # fmt: skip
    assert {k[:2] for k in kernels} == {(4, 4)} and kernels[-1][-1] == 3
    assert [k[-2] for k in kernels] == [8 << n for n in reversed(range(len(kernels)))]
    features, _ = jax.eval_shape(
        lambda x: DCGANDiscriminator(8).init_with_output(jax.random.key(0), x, True), image
    )
    count = len(kernels)
    assert features.shape == (B, (side >> count) * (2 * side >> count) * (8 << (count - 1)))


def test_the_paper_has_four_halvings_of_64_pixels():
    _, variables = shapes((64, 64, 3), 128)
    sizes = [variables["params"][f"up_{n}"]["kernel"].shape[2] for n in range(4)]
    assert sizes == [1024, 512, 256, 128]  # figure 1


@pytest.mark.parametrize("shape", [(27, 28, 1), (2, 2, 1), (8, 7, 3)])
def test_sizes_that_cannot_be_halved_are_one_line(shape):
    with pytest.raises(InputError, match="cannot be halved .* --image_size"):
        shapes(shape)


def adversaries(norm="none", condition=None, shape=(8, 8, 1), dense=True):
    if dense:
        bodies = DenseGenerator(shape, (8,)), DenseDiscriminator((7, 8), norm)
    else:
        bodies = DCGANGenerator(shape, 4), DCGANDiscriminator(4, norm)
    return Adversaries(
        Generator(bodies[0], K if condition else 0, 2),
        Discriminator(bodies[1], norm, condition, K if condition else 0),
    )


@pytest.mark.parametrize(
    ("norm", "condition", "dense"),
    [
        pytest.param("none", None, True, marks=pytest.mark.slow),
        pytest.param("batch", "projection", False, marks=pytest.mark.slow),
        ("spectral", "embedding", False),
        pytest.param("spectral", "projection", True, marks=pytest.mark.slow),
    ],
)
def test_each_pair_has_variables_by_player_and_knows_the_class_or_not(norm, condition, dense):
    pair = adversaries(norm, condition, dense=dense)
    noise = jax.random.normal(jax.random.key(1), (B, Z))
    variables = jax.jit(pair.init)(jax.random.key(0), noise, LABELS)
    assert set(variables["params"]) == {"generator", "discriminator"}
    if norm == "spectral":
        u = jax.tree.leaves(variables["spectral"])
        kernels = [leaf for leaf in jax.tree.leaves(variables["params"]["discriminator"])
                   if leaf.ndim > 1]  # fmt: skip
        assert set(variables["spectral"]) == {"discriminator"} and len(u) == len(kernels)

    @jax.jit
    def both(labels, others):
        images = pair.apply(variables, noise, labels, method="generate")
        return images, pair.apply(variables, images, others, method="discriminate")

    images, logits = both(LABELS, LABELS)
    assert images.shape == (B, 8, 8, 1) and logits.shape == (B,)
    assert float(jnp.abs(images).max()) <= 1
    drawn, judged = both(LABELS[::-1], LABELS), both(LABELS, LABELS[::-1])
    assert bool(jnp.array_equal(images, drawn[0])) == (condition is None)
    assert bool(jnp.array_equal(logits, judged[1])) == (condition is None)


def test_points_are_drawn_without_a_bound():
    generator = DenseGenerator((2,), (4,), bounded=False)
    noise = 1e3 * jnp.ones((B, Z))
    points, _ = generator.init_with_output(jax.random.key(0), noise)
    assert points.shape == (B, 2) and float(jnp.abs(points).max()) > 1


def test_the_projection_adds_the_product_with_the_class():
    pair = adversaries(condition="projection")
    noise = jax.random.normal(jax.random.key(1), (B, Z))
    variables = jax.jit(pair.init)(jax.random.key(0), noise, LABELS)
    x = jax.random.normal(jax.random.key(2), (B, 8, 8, 1))
    own = variables["params"]["discriminator"]
    h = DenseDiscriminator((7, 8)).apply({"params": own["body"]}, x)
    expected = h @ own["output"]["kernel"] + own["output"]["bias"][None]
    expected = expected[:, 0] + (own["classes"]["kernel"][LABELS] * h).sum(-1)
    found = pair.apply(variables, x, LABELS, method="discriminate")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_generator_and_a_discriminator_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    pair = adversaries("batch", dense=False, shape=(16, 16, 1))
    noise = jax.random.normal(jax.random.key(1), (B, Z))
    variables = jax.jit(pair.init)(jax.random.key(0), noise, LABELS)

    def tensor(leaf):
        return torch.from_numpy(np.array(leaf))

    def batch_norm(x, leaves):
        return torch.nn.functional.batch_norm(
            x, None, None, tensor(leaves["scale"]), tensor(leaves["bias"]), training=True
        )

    own = variables["params"]["generator"]["body"]
    x = tensor(noise) @ tensor(own["expand"]["kernel"])
    x = x.reshape(B, 4, 4, 8).permute(0, 3, 1, 2)
    for number in range(2):
        up = own[f"up_{number}"]
        x = torch.relu(batch_norm(x, own[f"norm_{number}"]))
        kernel = tensor(up["kernel"]).permute(2, 3, 0, 1)
        x = torch.nn.functional.conv_transpose2d(x, kernel, tensor(up["bias"]), 2, 1)
    x = torch.tanh(x)
    images, _ = pair.apply(
        variables, noise, LABELS, True, method="generate", mutable=["batch_stats"]
    )
    np.testing.assert_allclose(images, x.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    own = variables["params"]["discriminator"]
    for number in range(2):
        down = own["body"][f"down_{number}"]
        bias = tensor(down["bias"]) if "bias" in down else None
        kernel = tensor(down["kernel"]).permute(3, 2, 0, 1)
        x = torch.nn.functional.conv2d(x, kernel, bias, 2, 1)
        x = x if number == 0 else batch_norm(x, own["body"][f"norm_{number}"])
        x = torch.nn.functional.leaky_relu(x, 0.2)
    x = x.permute(0, 2, 3, 1).reshape(B, -1)
    expected = x @ tensor(own["output"]["kernel"]) + tensor(own["output"]["bias"])
    logits, _ = pair.apply(
        variables, images, LABELS, True, method="discriminate", mutable=["batch_stats"]
    )
    np.testing.assert_allclose(logits, expected[:, 0], rtol=1e-3, atol=1e-5)


def test_players_of_different_sizes_are_one_line():
    with pytest.raises(InputError, match="draws examples of 8x8x1, but .* of 16x16x1; build both"):
        require_same_sizes(jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 16, 16, 1)))
    require_same_sizes(jnp.zeros((2, 8, 8, 1)), jnp.zeros((3, 8, 8, 1)))
