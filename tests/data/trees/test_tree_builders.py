"""The embedded data sets of trees."""

import ast

import numpy as np
import pytest

from dlcore.data.builders.list_operations import expression
from dlcore.data.builders.syntax_trees import expressions
from dlcore.data.trees import heights, parse_brackets

VALUES = {
    "MAX": lambda values: sorted(values)[-1],
    "MIN": lambda values: sorted(values)[0],
    "MED": lambda values: (
        (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2
    ),
    "SUM_MOD": lambda values: int(str(sum(values))[-1]),
}


def test_operations_have_their_values():
    rng = np.random.default_rng(3)
    for depth in range(1, 6):
        text, value = expression(rng, depth)
        (tree,) = parse_brackets(text)
        assert heights(tree)[tree.root] == depth and tree.labels[tree.root] == str(value)
        children = tree.children()
        known = {}
        for node in reversed(range(len(tree))):
            if children[node]:
                name, *arguments = children[node]
                known[node] = VALUES[tree.words[name]]([known[one] for one in arguments])
                assert str(known[node]) == tree.labels[node]
            elif tree.words[node].isdecimal():
                known[node] = int(tree.words[node])


@pytest.mark.parametrize(
    "source, wanted",
    [
        (
            "f(a.b, c=1)",
            "(Call (Name f) -LRB- (Attribute (Name a) . b) , (keyword c = (Constant NUMBER)) "
            "-RRB-)",
        ),
        ("(a + b) * c", "(BinOp -LRB- (BinOp (Name a) + (Name b)) -RRB- * (Name c))"),
        ("x = not a in b", "(UnaryOp not (Compare (Name a) in (Name b)))"),
        ("return_ = [i for i in a]", "(ListComp [ (Name i) for (Name i) in (Name a) ])"),
    ],
)
def test_expressions_are_those_of_ast(source, wanted):
    found = [tree.brackets() for tree in expressions(source + "\n")]
    assert wanted in found
    assert [*parse_brackets(wanted)][0].labels[0] == wanted.split()[0][1:]
    ast.parse(source)


@pytest.mark.parametrize("source", ["f(", "é = a + b + c", "x = f'{a}' + b + c + d", "a = b"])
def test_what_is_left_out(source):
    assert expressions(source + "\n") == []
