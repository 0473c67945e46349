"""GPT-2 from a file against what Hugging Face's transformers compute (make_goldens.py)."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from dlcore.errors import InputError
from dlcore.models.text import load_gpt2

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "goldens" / "gpt2.npz")
STATE = {key.removeprefix("state/"): GOLDEN[key] for key in GOLDEN if key.startswith("state/")}
TOKENS, LOGITS = GOLDEN["tokens"].astype(int), GOLDEN["logits"]
CONFIG = {"n_head": 2, "n_layer": 2, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
LAYERS, C, F, V, N = 2, 32, 128, 50, 16


def old(state):
    """As older files have it: without prefix and output layer, with the buffers of the mask."""
    mask = np.tri(N, dtype=np.float32)[None, None]
    buffers = {f"h.{i}.attn.bias": mask for i in range(LAYERS)}
    masked = {f"h.{i}.attn.masked_bias": np.float32(-1e4).reshape(1) for i in range(LAYERS)}
    state = {k.removeprefix("transformer."): leaf for k, leaf in state.items()}
    return {k: leaf for k, leaf in state.items() if k != "lm_head.weight"} | buffers | masked


@pytest.fixture
def write(tmp_path):
    """Writes a state and a configuration, gives the folder."""

    def file(state, config=CONFIG):
        safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return file


@pytest.mark.parametrize("form", [dict, old])
def test_logits(write, form):
    """By the model, and by cached decoding."""
    model, variables = load_gpt2(write(form(STATE)))
    _, readout, _ = jax.jit(model.apply)(variables, TOKENS)
    logits = readout.hidden @ readout.kernel.T + readout.bias[None, None]
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-4, atol=1e-4)

    @jax.jit
    def step(carry, tokens):
        return model.apply(variables, carry, tokens, method="next_token")

    expected, carry = jax.nn.log_softmax(LOGITS), model.initial_carry(len(TOKENS), N)
    for t in range(N):
        carry, log_probs = step(carry, TOKENS[:, t])
        np.testing.assert_allclose(log_probs, expected[:, t], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", ["", "model.safetensors.index.json"])
def test_shards(tmp_path, given):
    names, places = [*STATE], {}
    for number in range(3):
        shard = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: STATE[name] for name in names[number::3]}
        safetensors.numpy.save_file(part, tmp_path / shard)
        places |= dict.fromkeys(part, shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    _, variables = load_gpt2(tmp_path / given)
    safetensors.numpy.save_file(STATE, tmp_path / "whole.safetensors")
    _, whole = load_gpt2(tmp_path / "whole.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, whole)

    for content, message in (
        ({"weight_map": {"a": "../x.safetensors"}}, "but there is no such file beside it"),
        ({"weight_map": {"a": 3}}, "names 3, but there is no such file beside it"),
        ({"weight_map": []}, "give the index of the shards"),
        ({}, "give the index of the shards"),
        ({"weight_map": {"a": "missing.safetensors"}}, "cannot read .*missing.safetensors"),
        ({"weight_map": {"a": "model-00001-of-00003.safetensors"}}, "lacks|holds no GPT-2"),
    ):
        index.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError, match=message) as error:
            load_gpt2(tmp_path / given)
        assert "\n" not in str(error.value)


def test_variables_are_those_of_the_model(write):
    model, variables = load_gpt2(write(STATE) / "model.safetensors")
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS)
    like = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (shapes, variables))
    assert like[0] == like[1]
    block = 4 * C * C + 4 * C + 2 * C * F + F + C + 4 * C
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert count == (V + N) * C + LAYERS * block + 2 * C + V
    assert not variables["params"]["output_bias"].any()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_files_of_half_precision(write, dtype):
    rounded = {key: leaf.astype(dtype) for key, leaf in STATE.items()}
    _, variables = load_gpt2(write(rounded))
    table = variables["params"]["embedding"]["embedding"]
    assert table.dtype == jnp.float32
    np.testing.assert_array_equal(table, rounded["transformer.wte.weight"].astype(np.float32))


def test_epsilon_and_layers_are_those_of_the_configuration(write):
    model, _ = load_gpt2(write(STATE, CONFIG | {"layer_norm_epsilon": 0.5}))
    assert model.body.config.epsilon == 0.5
    with pytest.raises(InputError, match=r"lacks h.2.ln_1.weight and 11 more; give the weights"):
        load_gpt2(write(STATE, CONFIG | {"n_layer": 3}))


def test_without_a_configuration_heads_have_64_features(write):
    path = write(STATE, None)
    with pytest.raises(InputError, match="0 heads cannot share the 32 features of .*config.json"):
        load_gpt2(path)
    wide = {
        key: np.zeros([n * 4 if n % C == 0 else n for n in leaf.shape], np.float32)
        for key, leaf in old(STATE).items()
    }
    model, _ = load_gpt2(write(wide, None))
    assert (model.features, model.body.config.heads) == (128, 2)
    assert model.body.config.epsilon == 1e-5


def without(*names):
    return {key: leaf for key, leaf in STATE.items() if key not in names}


@pytest.mark.parametrize(
    "state, config, message",
    [
        (without("transformer.wte.weight"), CONFIG, "holds no GPT-2: no matrices wte.weight"),
        (STATE | {"transformer.wpe.weight": np.ones(3)}, CONFIG, "holds no GPT-2: no matrices"),
        (without("transformer.ln_f.bias"), CONFIG, "lacks ln_f.bias; give the weights of a whole"),
        (
            without("transformer.h.0.attn.c_attn.bias", "transformer.h.1.ln_2.weight"),
            CONFIG,
            "lacks h.0.attn.c_attn.bias and 1 more;",
        ),
        (STATE | {"score.weight": np.ones(3)}, CONFIG, "also holds score.weight; give the"),
        (
            STATE | {"transformer.h.1.mlp.c_proj.weight": np.ones((C, F))},
            CONFIG,
            r"has a wrong shape: h.1.mlp.c_proj.weight \(32, 128\) for \(128, 32\);",
        ),
        (STATE | {"lm_head.weight": np.ones((V, C))}, CONFIG, "lm_head.weight of .* is not wte"),
        (STATE, CONFIG | {"n_head": 3}, "3 heads cannot share the 32 features"),
        (STATE, CONFIG | {"n_head": 0}, "0 heads cannot share the 32 features"),
        (STATE, CONFIG | {"activation_function": "relu"}, "'relu', but GPT-2 has 'gelu_new'"),
        (
            STATE,
            CONFIG | {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx=True, but GPT-2 has False",
        ),
        (STATE, 3, "cannot read .*config.json"),
    ],
)
def test_files_that_are_no_gpt2(write, state, config, message):
    with pytest.raises(InputError, match=message) as caught:
        load_gpt2(write(state, config))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(InputError, match="cannot read .*model.safetensors: .*; give a safetensors"):
        load_gpt2(tmp_path)
    write(STATE)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read .*config.json: .*; give the model's own"):
        load_gpt2(tmp_path)
    for content in (b"", b"{}" * 20):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(InputError, match="cannot read .*other: .*; give a safetensors file"):
            load_gpt2(tmp_path / "other")
