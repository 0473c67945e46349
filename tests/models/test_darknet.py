"""Darknet-19 against table 6 of its paper."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.models import Darknet, image_model

# The table: filters and window of each convolution, and where the pools stand.
TABLE = """32 3; pool; 64 3; pool; 128 3; 64 1; 128 3; pool; 256 3; 128 1; 256 3; pool;
512 3; 256 1; 512 3; 256 1; 512 3; pool; 1024 3; 512 1; 1024 3; 512 1; 1024 3; 1000 1"""


def test_darknet19_has_the_layers_of_the_paper():
    net = image_model("darknet19", num_classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    order = []

    def trace(images):
        (_, activations), variables = net.init_with_output(jax.random.key(0), images)
        for name in activations:
            if name.startswith("pool"):
                order.append("pool")
            else:
                own = variables["params"][name]
                height, width, _, filters = own.get("conv", own)["kernel"].shape
                assert height == width
                order.append(f"{filters} {width}")
        assert activations["conv6_5"].shape == (1, 7, 7, 1024)

    jax.eval_shape(trace, images)
    assert order == [part.strip() for part in TABLE.split(";")]


def test_rectifiers_leak_a_tenth():
    net = Darknet(num_classes=2, stages=((1,),))
    images = jnp.linspace(-1, 1, 16, dtype=jnp.float32).reshape(1, 4, 4, 1)
    variables = jax.jit(net.init)(jax.random.key(0), images)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    variables["params"]["conv1_1"]["conv"]["kernel"] = kernel
    found = np.asarray(net.apply(variables, images)[1]["conv1_1"])
    expected = np.where(images > 0, images, 0.1 * images) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
