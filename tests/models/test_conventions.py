"""Every model has the calling convention of its kind: a protocol of `dlcore.types`."""

import inspect

import pytest

from dlcore import types
from dlcore.models import IMAGE_MODELS, image_model
from dlcore.models.text import (
    LanguageModel,
    NGram,
    RecurrentEncoder,
    RecurrentTranslator,
    Tagger,
    TextClassifier,
    TransformerTranslator,
    VectorToSequence,
)

KINDS = [
    *((type(image_model(name, num_classes=10)), types.Classifier) for name in IMAGE_MODELS),
    (RecurrentEncoder, types.SequenceModel),
    (TextClassifier, types.SequenceModel),
    (Tagger, types.SequenceModel),
    (LanguageModel, types.Generator),
    (NGram, types.Generator),
    (VectorToSequence, types.Generator),
    (RecurrentTranslator, types.Translator),
    (TransformerTranslator, types.Translator),
]
POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def misfit(method, contract) -> str:
    """The first way in which a method cannot be called as its contract says; "" if it can be."""
    own, asked = (list(inspect.signature(f).parameters.values())[1:] for f in (method, contract))
    for place, parameter in enumerate(asked):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            mine = next((p for p in own if p.name == parameter.name), None)
        else:
            mine = own[place] if place < len(own) and own[place].kind in POSITIONAL else None
        if mine is None:
            return f"lacks {parameter.name}"
        if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY and mine.name != parameter.name:
            return f"calls {parameter.name} {mine.name}"
        optional = parameter.default is not inspect.Parameter.empty
        if optional and mine.default != parameter.default:
            return f"has another default of {parameter.name}"
    named = {parameter.name for parameter in asked}
    for extra in own[len(asked) :]:
        if extra.name not in named and extra.default is inspect.Parameter.empty:
            return f"demands {extra.name}"
    return ""


def methods(protocol: type) -> list[str]:
    own = {name: value for name, value in vars(protocol).items() if inspect.isfunction(value)}
    return [name for name in own if name == "__call__" or not name.startswith("_")]


@pytest.mark.parametrize(
    "model, protocol", sorted(set(KINDS), key=str), ids=lambda kind: kind.__name__
)
def test_each_model_can_be_called_like_others_of_its_kind(model, protocol):
    assert methods(protocol)
    for name in methods(protocol):
        problem = misfit(getattr(model, name), getattr(protocol, name))
        assert not problem, f"{model.__name__}.{name} {problem}"


class Wrong:
    def __call__(self, tokens, sizes, train=False): ...
    def initial_carry(self): ...
    def next_token(self, carry, token, memory): ...


@pytest.mark.parametrize(
    "name, protocol, problem",
    [
        ("__call__", types.SequenceModel, "calls lengths sizes"),
        ("initial_carry", types.Generator, "lacks condition"),
        ("next_token", types.Generator, "demands memory"),
    ],
)
def test_another_convention_is_noticed(name, protocol, problem):
    assert misfit(getattr(Wrong, name), getattr(protocol, name)) == problem
