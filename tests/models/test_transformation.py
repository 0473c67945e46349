"""The image transformation network against its paper and PyTorch."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_twin
from traced import size_of, trace

from dlcore.errors import InputError
from dlcore.models.cnn.transformation import TransformationNetwork

# Johnson et al. 2016, supplement, table 1: window, filters and pixels of the output for 256 of the
# input, less the padding that is here at each window; two convolutions to each of five blocks.
TABLE = [
    *[(9, 32, 256), (3, 64, 128), (3, 128, 64)],
    *[(3, 128, 64)] * 10,
    *[(3, 64, 128), (3, 32, 256), (9, 3, 256)],
]


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_parameters_and_maps_are_those_of_the_paper(upsampling):
    variables, shapes = trace(TransformationNetwork(upsampling=upsampling), 256)
    kernels, channels = 0, 3
    for window, filters, _ in TABLE:
        kernels, channels = kernels + window**2 * channels * filters, filters
    # Scale and bias of each normalisation; the last layer has a bias instead.
    normalisations = 2 * sum(filters for _, filters, _ in TABLE[:-1])
    assert size_of(variables) == kernels + normalisations + 3 == 1_677_635
    seen = [TABLE[n] for n in (0, 1, 2, 4, 6, 8, 10, 12, 13, 14, 15)]  # of a block its end
    assert [*shapes.values()] == [(size, size, filters) for _, filters, size in seen]
    assert [*shapes] == [
        *["conv1", "conv2", "conv3", "block1", "block2", "block3", "block4", "block5"],
        *["up1", "up2", "output"],
    ]


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (11, 6), (13, 9)])
def test_a_picture_keeps_its_size(size):
    network = TransformationNetwork(width=0.125, blocks=1)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    (found, _), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
    assert found.shape == (2, *size, 3)


def twin(upsampling):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def unit(name, into, out, window, stride=1):
        conv = nn.Conv2d(into, out, window, stride, window // 2, padding_mode="reflect", bias=False)
        return [(name, conv), (f"{name}_norm", nn.InstanceNorm2d(out, affine=True))]

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [*unit("conv1", 3, 4, 9), *unit("conv2", 4, 8, 3, 2)]
            layers += [*unit("conv3", 8, 16, 3, 2), *unit("block1_conv1", 16, 16, 3)]
            layers += unit("block1_conv2", 16, 16, 3)
            for name, into, out in (("up1", 16, 8), ("up2", 8, 4)):
                if upsampling == "nearest":
                    layers += unit(name, into, out, 3)
                else:
                    up = nn.ConvTranspose2d(into, out, 3, 2, 1, 1, bias=False)
                    norm = nn.InstanceNorm2d(out, affine=True)
                    layers += [(name, up), (f"{name}_norm", norm)]
            layers.append(("output", nn.Conv2d(4, 3, 9, 1, 4, padding_mode="reflect")))
            for name, module in collections.OrderedDict(layers).items():
                self.add_module(name, module)

        def forward(self, x):
            relu, size = torch.relu, x.shape[2:]

            def of(name, x):
                return getattr(self, f"{name}_norm")(getattr(self, name)(x))

            for name in ("conv1", "conv2", "conv3"):
                x = relu(of(name, x))
            x = x + of("block1_conv2", relu(of("block1_conv1", x)))
            for name in ("up1", "up2"):
                if upsampling == "nearest":
                    x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
                x = relu(of(name, x))
            return torch.sigmoid(self.output(x[:, :, : size[0], : size[1]]))

    return Twin()


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_it_computes_what_pytorch_does(upsampling):
    module = twin(upsampling)
    network = TransformationNetwork(width=0.125, blocks=1, upsampling=upsampling)
    images = torch_twin.two_images(14, 9)
    variables = torch_twin.random_variables(network, images)
    found = jax.jit(network.apply)(variables, images)[0]
    expected = torch_twin.run(torch_twin.load(module, variables), images)
    torch_twin.assert_close(found, np.moveaxis(expected, 1, -1))


def test_the_contrast_of_a_picture_does_not_count():
    network = TransformationNetwork(width=0.125, blocks=1)
    images = torch_twin.two_images(12, 12)
    variables = torch_twin.random_variables(network, images)
    apply = jax.jit(network.apply)
    plain, faint = (np.asarray(apply(variables, x)[0]) for x in (images, 0.1 * images + 5))
    assert plain.std() > 0.05
    np.testing.assert_allclose(faint, plain, atol=1e-3)


def test_what_it_cannot_do_is_one_line():
    image = jnp.zeros((1, 8, 4, 3))
    with pytest.raises(InputError, match="8x4 pixels are too small for the transformation network"):
        jax.eval_shape(TransformationNetwork().init, jax.random.key(0), image)
    with pytest.raises(InputError, match="unknown upsampling 'cubic'; .* nearest, transposed"):
        jax.eval_shape(TransformationNetwork(upsampling="cubic").init, jax.random.key(0), image)
