"""Recursive networks, whose cells compute a node of a tree from its children."""

from dlcore.nn.tree.autoencoder import Autoencoder
from dlcore.nn.tree.cells import (
    TREE_CELLS,
    ChildSumTreeLSTM,
    NaryTreeLSTM,
    Recursive,
    TensorRecursive,
    TreeCell,
)
from dlcore.nn.tree.layers import TreeRecursion
from dlcore.nn.tree.scan import scan_tree

__all__ = [
    "TREE_CELLS",
    "Autoencoder",
    "ChildSumTreeLSTM",
    "NaryTreeLSTM",
    "Recursive",
    "TensorRecursive",
    "TreeCell",
    "TreeRecursion",
    "scan_tree",
]
