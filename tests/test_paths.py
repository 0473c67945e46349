import pytest

from dlcore import patterns
from dlcore.errors import InputError
from dlcore.paths import leaves_by_path, match

TREE = {"encoder": {"kernel": 1, "bias": 2}, "head": [{"kernel": 3}, {"kernel": 4}]}


def test_paths_join_the_names_on_the_way():
    assert leaves_by_path(TREE) == {
        "encoder/bias": 2,
        "encoder/kernel": 1,
        "head/0/kernel": 3,
        "head/1/kernel": 4,
    }


def test_the_first_rule_found_in_a_path_wins_and_the_default_fills_the_rest():
    values = match(TREE, [("^head/0", "a"), ("kernel$", "b")], default="c")
    assert values == {
        "encoder": {"kernel": "b", "bias": "c"},
        "head": [{"kernel": "a"}, {"kernel": "b"}],
    }


def test_a_rule_that_an_earlier_one_shadows_still_counts_as_matching():
    assert match({"a": 0}, [("a", 1), ("^a$", 2)], default=0) == {"a": 1}


def test_a_rule_without_effect_is_an_error_that_shows_the_paths():
    with pytest.raises(InputError, match="'decoder' matches none of the 4 paths.*encoder/bias"):
        match(TREE, [("encoder", 1), ("decoder", 2)], default=0)


def test_a_broken_expression_is_an_error_in_one_line():
    with pytest.raises(InputError, match=r"rule '\(' is not a regular expression"):
        match(TREE, [("(", 1)], default=0)


@pytest.mark.parametrize("rule", [r"(?:[a-z]|\w)*[/x]$", r"(?:.|\w)+(?:0|1)/(?:k|s)$"])
def test_an_expression_that_never_ends_is_an_error_in_one_line(monkeypatch, rule):
    monkeypatch.setattr(patterns, "_SECONDS", 0.05)
    tree = {"encoder_layer_normalisation_0": {"self_attention_projection": {"kernel": 0}}}
    with pytest.raises(InputError, match=r"rule '.*' takes more than 0.05 s for the 62 char"):
        match(tree, [(rule, 1)], default=0)
