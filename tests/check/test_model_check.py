"""The checks of a classifier: a healthy one passes, each planted fault fails its own check."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from dlcore.check.model import Finding, check_model, verdict
from dlcore.types import Mean


class State(flax.struct.PyTreeNode):
    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    rng: jax.Array
    carry: Any = None


class Aux(NamedTuple):
    model_state: Any
    metrics: dict[str, Mean]


class Net(nn.Module):
    """A small convolutional classifier with room for planted faults."""

    fault: str = ""

    @nn.compact
    def __call__(self, x, train=False):
        activations = {}
        kernel_init = nn.initializers.he_normal()
        activations["conv"] = nn.Conv(8, (3, 3), kernel_init=kernel_init)(x)
        if self.fault == "dead":  # but for the padding rows, which are all white
            white = x.max((1, 2, 3), keepdims=True) > 255 / 65
            activations["conv"] -= jnp.where(white, 0, 1e4)
        activations["relu"] = nn.relu(activations["conv"])
        if self.fault == "cut":
            activations["relu"] = jax.lax.stop_gradient(activations["relu"])
        activations["pool"] = nn.max_pool(activations["relu"], (2, 2), (2, 2))
        x = activations["pool"].reshape(x.shape[0], -1)
        if self.fault == "frozen":
            x = jax.lax.stop_gradient(x)
        if self.fault == "unused":
            nn.Dense(3)(x)
        return nn.Dense(10)(x) * (100 if self.fault == "scale" else 1), activations


@jax.custom_vjp
def sign_bug(x):
    return x


sign_bug.defvjp(lambda x: (x, None), lambda _, g: (-g,))


def setting(fault=""):
    digits = load_digits()
    batch = {
        "image": (digits.images[:32, :, :, None] * 15).astype(np.uint8),
        "label": digits.target[:32].astype(np.int32),
        "weight": np.ones(32, np.float32),
    }
    batch["image"][-4:], batch["weight"][-4:] = 255, 0
    model, tx = Net(fault), optax.adam(1e-2)

    def forward(variables, images, train=False):
        # Blank pixels are 0, and "thresholded" sees nothing of an image drawn around 0.
        images = nn.relu(images.astype(jnp.float32) - 20.0) if fault == "thresholded" else images
        return model.apply(variables, images / 64, train)

    def loss_fn(params, model_state, batch, rng):
        logits, _ = forward({"params": params}, batch["image"], train=True)
        if fault == "sign":
            logits = sign_bug(logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return Mean.of(losses, batch["weight"]), Aux(model_state, {})

    def step(state, batch):
        def total(params):
            mean, aux = loss_fn(params, state.model_state, batch, state.rng)
            return mean.compute(), mean

        grads, mean = jax.grad(total, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new, {"loss": mean}

    key = jax.random.key(0)
    params = model.init(key, jnp.zeros((1, 8, 8, 1)))["params"]
    state = State(jnp.zeros((), jnp.int32), params, {}, tx.init(params), key)
    return forward, loss_fn, state, batch, step


def run(fault=""):
    forward, loss_fn, state, batch, step = setting(fault)
    printed: list[str] = []
    findings = check_model(
        forward,
        loss_fn,
        state,
        batch,
        step=step,
        inputs="image",
        chance=math.log(10),
        emit=printed.append,
    )
    return findings, printed


def test_a_healthy_classifier_passes():
    findings, printed = run()
    assert [finding.name for finding in findings] == [
        "parameters",
        "receptive field of pool",
        "compiled step",
        "initial loss",
        "gradients",
        "overfit one batch",
        "dead units",
    ]
    assert all(finding.passed for finding in findings), verdict(findings)
    assert findings[0].value == "1,370, all used"
    assert findings[1].value == "by gradient 4x4 pixels at 3..6, 3..6"
    assert findings[4].value.endswith(" 0 kinks")
    assert "Conv_0" in printed[0] and printed[1:] == [finding.render() for finding in findings]
    assert verdict(findings) == "all checks passed"


@pytest.mark.parametrize(
    "fault, failing, cause",
    [
        ("unused", {"parameters", "overfit one batch"}, "not part of the output"),
        ("scale", {"initial loss"}, "not normalised"),
        ("sign", {"gradients", "overfit one batch"}, "custom derivative"),
        ("dead", {"overfit one batch", "dead units"}, "biases far below zero"),
        ("cut", {"receptive field of pool", "gradients"}, "passes no gradient"),
        ("frozen", {"gradients", "overfit one batch"}, "stop_gradient"),
    ],
)
def test_each_fault_fails_its_check(fault, failing, cause):
    findings, _ = run(fault)
    failed = [finding for finding in findings if not finding.passed]
    assert failing <= {finding.name for finding in failed}
    assert "likely cause: " in failed[0].render()
    assert cause in " ".join(finding.cause for finding in failed)
    assert verdict(findings) == f"{len(failed)} of 7 checks failed"


def test_images_are_drawn_in_the_range_of_pixels():
    findings, _ = run("thresholded")
    assert findings[1].name == "receptive field of pool" and findings[1].passed


def test_a_frozen_layer_is_named():
    findings, _ = run("frozen")
    overfit = next(finding for finding in findings if finding.name == "overfit one batch")
    assert "Conv_0/bias, Conv_0/kernel" in overfit.cause


def test_a_finding_is_one_line():
    finding = Finding("loss", True, "2.3", "2.3", "never shown")
    assert finding.render() == "ok    loss: 2.3 (expected 2.3)"
