"""Trees of words: readers, and the split that turns them into batches."""

from dlcore.data.trees.batches import SLOTS, Trees, powers
from dlcore.data.trees.brackets import parse_brackets
from dlcore.data.trees.corpora import TreeData, is_dependencies, load_trees, read_trees
from dlcore.data.trees.dependencies import parse_dependencies
from dlcore.data.trees.schedule import schedule
from dlcore.data.trees.tree import BRACKETS, NO_LABEL, Narrow, Tree, at_most, heights, joined

__all__ = [
    "BRACKETS",
    "NO_LABEL",
    "Narrow",
    "SLOTS",
    "Tree",
    "TreeData",
    "Trees",
    "at_most",
    "heights",
    "is_dependencies",
    "joined",
    "load_trees",
    "parse_brackets",
    "parse_dependencies",
    "powers",
    "read_trees",
    "schedule",
]
