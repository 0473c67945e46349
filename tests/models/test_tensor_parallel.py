"""The rules for the axis "model" cut the intended parameters of models, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from dlcore import paths, runtime
from dlcore.losses.output import Full
from dlcore.models import embedding, text
from dlcore.nn.attention.registry import attention
from dlcore.nn.recurrent import RecurrentStack
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.transformer import Transformer, TransformerConfig

V, C = 64, 16
TOKENS = jnp.zeros((1, 1), jnp.int32)
PAPER = TransformerConfig(
    C,
    1,
    4,
    groups=2,
    norm="layer",
    activation="swiglu",
    position="learned",
    context=8,
    bias=True,
    qk_norm=True,
)


def language_model(body, tie, vocab_size=V):
    model = text.LanguageModel(Full(np.ones(vocab_size)), body, C, tie=tie)
    return lambda key: model.init(key, TOKENS)


def translator(model):
    return lambda key: model.init(key, TOKENS, jnp.ones(1, jnp.int32), TOKENS)


SIZES = {"source_vocab_size": V, "target_vocab_size": V}
RECURRENT = text.RecurrentTranslator(
    embedding_features=C,
    encoder_cells=(LSTM(C),),
    decoder_cells=(LSTM(C),),
    tie=False,
    attention=attention("general", features=C),
    **SIZES,
)
MODELS = {
    "gpt": language_model(Transformer(PAPER), tie=True),
    "lstm": language_model(RecurrentStack((LSTM(C),)), tie=False),
    "transformer translator": translator(text.TransformerTranslator(PAPER, **SIZES)),
    "recurrent translator": translator(RECURRENT),
}
COLUMNS, ROWS, EACH = P(None, "model"), P("model", None), P("model")
DENSE = {
    "query": (COLUMNS, EACH),
    "key": (COLUMNS, EACH),
    "value": (COLUMNS, EACH),
    "gate": (COLUMNS, EACH),
    "up": (COLUMNS, EACH),
    "output": (ROWS, P()),
    "down": (ROWS, P()),
}


def expected(path):
    """Column-parallel, row-parallel, vocabulary-parallel or whole."""
    *_, part, name = path.split("/")
    if name in ("embedding", "output_kernel"):
        return ROWS
    if name == "output_bias":
        return EACH
    in_block = "/attention/" in path or "/cross/" in path or "/feed_forward/" in path
    if in_block and part in DENSE and name in ("kernel", "bias"):
        return DENSE[part][name == "bias"]
    return P()


def places(make, tx, rules, mesh="data=2,model=2"):
    layout = runtime.layout("mesh", mesh=mesh, defaults=rules)

    def make_state():
        params = make(jax.random.key(0))
        params = params.get("params", params) if isinstance(params, dict) else params
        return {"params": params, "opt_state": tx.init(params)}

    return {
        path: leaf.sharding.spec
        for path, leaf in paths.leaves_by_path(layout.abstract(make_state)).items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_models_of_text_and_their_moments(name):
    found = places(MODELS[name], optax.adam(1e-3), text.TENSOR_PARALLEL)
    for path, spec in found.items():
        wanted = P() if path.endswith("/count") else expected(path)
        assert spec == wanted, path
    assert sum(spec != P() for spec in found.values()) % 3 == 0  # a parameter and two moments


def test_every_rule_of_text_is_used():
    names = set().union(
        *(places(make, optax.identity(), text.TENSOR_PARALLEL) for make in MODELS.values())
    )
    paths.match(dict.fromkeys(names, 0), text.TENSOR_PARALLEL, P())  # raises else


def test_a_vocabulary_that_the_axis_does_not_divide_is_cut_by_columns():
    for vocab_size, spec in ((V, ROWS), (V + 2, COLUMNS)):
        make = language_model(RecurrentStack((LSTM(C),)), True, vocab_size)
        found = places(make, optax.identity(), text.TENSOR_PARALLEL, mesh="model=4")
        assert found["params/embedding/embedding"] == spec


def test_tables_of_word_vectors():
    goal = embedding.objective("full", np.ones(V), negatives=5, samples=32, exponent=0.75)
    word2vec = embedding.Word2Vec(goal, C)
    tx = optax.GradientTransformation(embedding.initial_sums, optax.identity().update)
    found = places(word2vec.init, tx, embedding.TENSOR_PARALLEL)
    assert len(found) == 4 and set(found.values()) == {ROWS}

    def glove(key):
        return embedding.glove_tables(key, vocabulary_size=V, dimension=C)

    tx = optax.GradientTransformation(embedding.initial_squares, optax.identity().update)
    found = places(glove, tx, embedding.TENSOR_PARALLEL)
    assert {spec for path, spec in found.items() if "bias" not in path} == {COLUMNS}
    assert {spec for path, spec in found.items() if "bias" in path} == {P()}
