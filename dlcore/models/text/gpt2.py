"""Loads GPT-2 with published weights.

Shapes: V vocabulary, N positions, C features, F hidden features of a feed-forward net.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.files import read_json
from dlcore.losses.output import Full
from dlcore.models.text.language_model import LanguageModel
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.types import Params, Variables

# The entries of a config.json that change the net itself, with their values for GPT-2.
FORM = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
# Constants in old files: the causal mask and the score of masked positions.
BUFFERS = (".attn.bias", ".attn.masked_bias")


def load_gpt2(path: str | pathlib.Path) -> tuple[LanguageModel, Variables]:
    """Loads GPT-2 (Radford et al. 2019) and its variables, float32, from a file of Hugging Face.

    The sizes are read from the weights. Only the number of heads and the epsilon of the norms are
    read from the `config.json` beside the file. Without that file heads have 64 features, as in all
    published sizes, and epsilon is 1e-5.

    `dlcore.data.text.BytePairs.load` reads the tokenizer from the same folder.

    Args:
        path: a safetensors file; the index of a file in shards, `model.safetensors.index.json`; or
            a folder with either.

    Raises:
        InputError: for a file or a config.json that cannot be read or does not belong to a GPT-2.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        whole = file / "model.safetensors"
        index = file / "model.safetensors.index.json"
        file = index if index.exists() and not whole.exists() else whole
    tensors, config = _read(file), _read_config(file.with_name("config.json"))
    try:
        (vocab_size, features), (context, _), (_, hidden) = (
            tensors[name].shape for name in ("wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight")
        )
    except (KeyError, ValueError):
        raise InputError(
            f"{file} holds no GPT-2: no matrices wte.weight, wpe.weight and h.0.mlp.c_fc.weight; "
            "give a safetensors file of one"
        ) from None
    numbers = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    layers = config.get("n_layer", len(numbers))
    heads = config.get("n_head", features // 64)
    if heads < 1 or features % heads:
        raise InputError(
            f"{heads} heads cannot share the {features} features of {file}; put the config.json "
            "of the model beside it"
        )
    _require(file, tensors, _shapes(vocab_size, context, features, hidden, layers))
    blocks = TransformerConfig(
        features,
        layers,
        heads,
        hidden=hidden,
        norm="layer",
        activation="gelu",
        bias=True,
        position="learned",
        context=context,
        epsilon=config.get("layer_norm_epsilon", 1e-5),
    )
    output = Full(np.ones(vocab_size))
    model = LanguageModel(output, Transformer(blocks), features, tie=True)
    params = {
        "embedding": {"embedding": tensors["wte.weight"]},
        "body": {
            "position_embedding": tensors["wpe.weight"],
            **{f"layer_{i}": _layer(tensors, f"h.{i}") for i in range(layers)},
            "norm": _norm(tensors, "ln_f"),
        },
        "output_bias": np.zeros(vocab_size),
    }
    return model, {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)}


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the weights by their names, without the output layer, which is the embedding."""
    import safetensors.numpy

    tensors: dict[str, np.ndarray] = {}
    for shard in _shards(file):
        try:
            tensors |= safetensors.numpy.load_file(shard)
        except (OSError, safetensors.SafetensorError) as reason:
            raise InputError(f"cannot read {shard}: {reason}; give a safetensors file") from None
    tensors = {name.removeprefix("transformer."): leaf for name, leaf in tensors.items()}
    table, output = tensors.get("wte.weight"), tensors.pop("lm_head.weight", None)
    if output is not None and table is not None and not np.array_equal(output, table):
        raise InputError(
            f"lm_head.weight of {file} is not wte.weight, but in GPT-2 they are one table; give "
            "the weights of such a model"
        )
    return {name: leaf for name, leaf in tensors.items() if not name.endswith(BUFFERS)}


def _shards(file: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of an index, which lie beside it; for any other file, the file itself.

    Raises:
        InputError: when the index cannot be read or names files elsewhere.
    """
    if file.suffix != ".json":
        return [file]
    try:
        names = {*read_json(file)["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as reason:
        raise InputError(f"cannot read {file}: {reason}; give the index of the shards") from None
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
            raise InputError(f"{file} names {name!r}, but there is no such file beside it")
    return [file.with_name(name) for name in sorted(names)]


def _read_config(file: pathlib.Path) -> dict[str, Any]:
    """Reads and checks the configuration; returns an empty one when there is no such file."""
    if not file.exists():
        return {}
    try:
        config = read_json(file)
    except (OSError, ValueError) as reason:
        raise InputError(f"cannot read {file}: {reason}; give the model's own file") from None
    for key, value in FORM.items():
        if config.get(key, value) != value:
            raise InputError(
                f"{file} has {key}={config[key]!r}, but GPT-2 has {value!r}; give the weights of "
                "such a model"
            )
    return config


def _shapes(
    vocab_size: int, context: int, features: int, hidden: int, layers: int
) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of all weights."""
    layer = {
        "ln_1": (features,),
        "attn.c_attn": (features, 3 * features),
        "attn.c_proj": (features, features),
        "ln_2": (features,),
        "mlp.c_fc": (features, hidden),
        "mlp.c_proj": (hidden, features),
    }
    blocks = {f"h.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()}
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocab_size, features),
        "wpe.weight": (context, features),
    }
    for name, shape in {**blocks, "ln_f": (features,)}.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}
    return shapes


def _require(
    file: pathlib.Path, tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Raises InputError unless the weights are exactly those of a GPT-2."""
    problems = {
        "lacks": [name for name in shapes if name not in tensors],
        "also holds": [name for name in tensors if name not in shapes],
        "has a wrong shape:": [
            f"{name} {tensors[name].shape} for {shape}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(
                f"{file} {problem} {names[0]}{more}; give the weights of a whole GPT-2 of "
                "Hugging Face's form"
            )


def _layer(tensors: dict[str, np.ndarray], name: str) -> Params:
    """Returns the parameters of a block."""
    # GPT-2 computes queries, keys and values by one product.
    fused = {
        kind: np.split(leaf, 3, axis=-1)
        for kind, leaf in _dense(tensors, f"{name}.attn.c_attn").items()
    }
    return {
        "attention": {
            **{
                role: {kind: leaves[i] for kind, leaves in fused.items()}
                for i, role in enumerate(("query", "key", "value"))
            },
            "output": _dense(tensors, f"{name}.attn.c_proj"),
        },
        "attention_norm": _norm(tensors, f"{name}.ln_1"),
        "feed_forward": {
            "up": _dense(tensors, f"{name}.mlp.c_fc"),
            "down": _dense(tensors, f"{name}.mlp.c_proj"),
        },
        "feed_forward_norm": _norm(tensors, f"{name}.ln_2"),
    }


def _dense(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"kernel": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def _norm(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}
