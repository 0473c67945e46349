"""Readers of trees: brackets and CoNLL-U, what they refuse, and trees of any depth."""

import numpy as np
import pytest

from dlcore.data.trees import (
    Tree,
    Trees,
    at_most,
    heights,
    load_trees,
    parse_brackets,
    parse_dependencies,
    powers,
    schedule,
)
from dlcore.errors import InputError

CHAIN = 10_000


def one(text):
    (tree,) = parse_brackets(text)
    return tree


@pytest.mark.parametrize(
    "text",
    [
        "(3 (2 It) (4 works))",
        "(2 It)",
        "(_ It)",
        "(x (_ a b) c)",
        "(x (_ y))",
        "(S (NP (DT the) dog) -LRB- (VP (V barks) -RRB-))",
        "(_ (_ (_ a)))",
    ],
)
def test_brackets_come_back(text):
    assert one(text).brackets() == text


def test_forms_of_nodes():
    assert one("(It)") == one("(_ It)") == Tree((-1,), ("It",), (None,))
    assert one("((It) works)") == one("(_ It works)")
    assert one("(x y (z w))") == Tree((-1, 0, 0), (None, "y", "w"), ("x", None, "z"))
    assert [tree.text() for tree in parse_brackets("(a b)\n(c\n  (d e) f)")] == ["b", "e f"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("(3 (2 It) (4 works)", "line 1, column 1, of .* opens a bracket that is never closed"),
        ("(3 a b)\n (2 a))", r"line 2, column 7, of .* closes a bracket that is not open"),
        ("(3 a b)\nword (2 a b)", "line 2, column 1, of .* has 'word' outside of brackets"),
        ("(3 a ())", "line 1, column 7, of .* closes a node without a word"),
        ("(3 a (_))", "line 1, column 8, of .* closes a node without a word"),
        ("\n\n", "holds no text"),
        ("", "holds no text"),
    ],
)
def test_bad_brackets_are_refused_where_they_stand(tmp_path, text, message):
    (tmp_path / "trees.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as refused:
        load_trees(data_path=tmp_path / "trees.txt")
    assert "\n" not in str(refused.value)


ROWS = [("1", "She", 2, "nsubj"), ("2", "eats", 0, "root"), ("3", "fish", 2, "obj")]


def conllu(rows, comment=""):
    cells = [f"{i}\t{word}\t_\t_\t_\t_\t{head}\t{label}\t_\t_" for i, word, head, label in rows]
    return "\n".join([*([comment] if comment else []), *cells]) + "\n\n"


def test_dependencies_are_trees_of_words():
    lines = conllu(ROWS, "# text = She eats fish").split("\n")
    ((tree, labelled),) = parse_dependencies(lines)
    assert tree == Tree((1, -1, 1), ("She", "eats", "fish"), ("nsubj", "root", "obj"))
    assert tree.text() == "She eats fish" and not labelled
    ((tree, labelled),) = parse_dependencies(conllu(ROWS, "# label = good").split("\n"))
    assert tree.labels == (None, "good", None) and labelled


def test_ranges_and_empty_nodes_are_left_out():
    rows = [("1-2", "Shes", "_", "_"), *ROWS, ("3.1", "x", "_", "_")]
    ((tree, _),) = parse_dependencies(conllu(rows).split("\n"))
    assert tree.words == ("She", "eats", "fish")


@pytest.mark.parametrize(
    "row, message",
    [
        (("2", "eats", 3, "x"), "line 1 is on a cycle|line 2 is on a cycle"),
        (("2", "eats", 2, "x"), "line 2 is on a cycle"),
        (("2", "eats", 9, "x"), "line 2 has the HEAD '9'; .* 1 to 3"),
        (("2", "eats", "_", "x"), "line 2 has the HEAD '_'"),
        (("2", "eats", -1, "x"), "line 2 has the HEAD '-1'"),
        (("4", "eats", 0, "x"), "line 2 has the ID '4'.* this one 2"),
        (("2", "eats\tx", 0, "x"), "line 2 has 11 columns"),
    ],
)
def test_bad_dependencies_are_refused_where_they_stand(row, message):
    with pytest.raises(InputError, match=message):
        [*parse_dependencies(conllu([ROWS[0], row, ROWS[2]]).split("\n"))]


def test_a_second_root_is_refused():
    rows = [("1", "She", 0, "root"), *ROWS[1:]]
    with pytest.raises(InputError, match="line 2 is a second root beside line 1"):
        [*parse_dependencies(conllu(rows).split("\n"))]


def test_files_and_folders(tmp_path):
    for name, text in (("train", "(1 a b)\n(0 c d)\n"), ("dev", "(1 c)\n")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    data = load_trees(data_path=tmp_path)
    assert data.class_names == ("0", "1") and not data.words_inside
    assert [len(data.train), len(data.test)] == [2, 1]
    (tmp_path / "dev.txt").write_text("(1 c)\n(7 c)\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2, column 1, of .* has the label '7'.* are 0, 1"):
        load_trees(data_path=tmp_path)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").unlink()
        (tmp_path / f"{name}.conllu").write_text(3 * conllu(ROWS), encoding="utf-8")
    assert load_trees(data_path=tmp_path).words_inside
    (tmp_path / "dev.conllu").write_text(conllu(ROWS).replace("obj", "new"), encoding="utf-8")
    assert "count as errors: new (1)" in load_trees(data_path=tmp_path).notes[0]
    (tmp_path / "dev.conllu").unlink()
    (tmp_path / "dev.txt").write_text("(obj a)", encoding="utf-8")
    with pytest.raises(InputError, match="CoNLL-U and of brackets"):
        load_trees(data_path=tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [("(a b)\n(a c)", "the one label 'a'"), ("(_ b)\n(_ c)", "no labels"), ("(a b)", "one tree")],
)
def test_data_that_teaches_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "trees.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_trees(data_path=tmp_path / "trees.txt")


def test_wide_nodes_are_parted():
    wide = one("(x a b c d e)")
    narrow = at_most(wide, 2)
    assert narrow.tree.brackets() == "(x (_ (_ (_ a b) c) d) e)" and narrow.wide == 1
    assert at_most(wide, 3).tree.brackets() == "(x (_ a b c) d e)"
    assert at_most(wide, 5).tree is wide
    assert [wide.words[n] for n in narrow.origin if n > 0] == ["a", "b", "c", "d", "e"]
    both = at_most(one("(x (y a b c) (z d e f))"), 2).tree
    assert both.brackets() == "(x (y (_ a b) c) (z (_ d e) f))"


def test_steps_are_the_fewest():
    """The deepest nodes come first: 3 steps of two; by any other choice there would be 4."""
    tree = one("(r (a (b (c 1 2) 3) 4) (d 5 6) (e 7 8))")
    steps = schedule(tree, 2)
    assert [[tree.labels[n] for n in step] for step in steps] == [
        ["c", "d"],
        ["b", "e"],
        ["a"],
        ["r"],
    ]
    assert [len(step) for step in schedule(tree, 1)] == [1] * 6


def encode(words):
    return np.array([ord(word[0]) if word else 0 for word in words], np.int32)


def test_gathered_trees_hold_each_node_once():
    texts = ["(1 (0 a) (1 (1 b) (0 c)))", "(0 d)", "(_ (1 a b) (_ (0 c d) e))"]
    trees = [one(text) for text in texts]
    split = Trees(trees, encode, {"0": 0, "1": 1}, children=2)
    batch = split.gather(np.array([2, 1, 0]))
    leaves = batch["words"].shape[1]
    for row, tree in enumerate(trees[::-1]):
        nodes = split.nodes[2 - row]
        count = batch["leaves"][row]
        place = {0: None}
        for at, node in enumerate(nodes):
            place[at + 1 if at < count else leaves + at - count + 1] = node
        assert place[int(batch["root"][row]) + 1] == tree.root
        for at, kids in enumerate(batch["children"][row].reshape(-1, 2)):
            node = place.get(leaves + at + 1)
            found = [place[int(kid)] for kid in kids if kid]
            assert found == ([] if node is None else tree.children()[node])
            assert all(kid < leaves + 1 + at // 2 * 2 for kid in kids)  # in earlier steps
        for at, node in place.items():
            label = None if node is None else tree.labels[node]
            if at:
                assert batch["label"][row, at - 1] == (-1 if label is None else int(label))
        assert (batch["label"][row] >= 0).sum() == sum(label is not None for label in tree.labels)


def test_a_subset_and_padding_to_others():
    trees = [one("(1 a)"), one("(1 (1 a b) (1 (1 c d) (1 e f)))"), one("(0 a b)")]
    split = Trees(trees, encode, {"0": 0, "1": 1}, children=2)
    part = split.subset(np.array([2]))
    alone = part.gather(np.array([0]))
    beside = split.gather(np.array([2]), among=np.array([0, 1, 2]))
    assert alone["children"].shape[1] == 1 and beside["children"].shape[1] == 3
    assert alone["words"][0, :2].tolist() == beside["words"][0, :2].tolist()
    split.buckets = powers(split.buckets[-1])
    assert split.gather(np.array([1]))["children"].shape[1] == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_trees_may_be_very_deep(side):
    text = "(1 a b)"
    if side == "left":
        text = "(0 " * CHAIN + text + " c)" * CHAIN
    else:
        text = "(0 c " * CHAIN + text + ")" * CHAIN
    tree = one(text)
    assert heights(tree)[0] == CHAIN + 1 and tree.brackets() == text
    assert len(schedule(tree, 2)) == CHAIN + 1 and at_most(tree, 2).wide == 0
    batch = Trees([tree], encode, {"0": 0, "1": 1}, children=2).gather(np.array([0]))
    assert batch["children"].shape[1:] == (CHAIN + 1, 2, 2)


def test_a_wide_and_a_long_sentence():
    assert len(at_most(one("(1 " + "a " * CHAIN + ")"), 2).tree) == 2 * CHAIN - 1
    rows = [(str(n + 1), "w", n, "x") for n in range(CHAIN)]
    ((tree, _),) = parse_dependencies(conllu(rows).split("\n"))
    assert heights(tree)[tree.root] == CHAIN - 1
