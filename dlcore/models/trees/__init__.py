"""Models of trees."""

from dlcore.models.trees.classifier import TreeClassifier
from dlcore.models.trees.greedy import Found, GreedyAutoencoder, find_joins

__all__ = ["Found", "GreedyAutoencoder", "TreeClassifier", "find_joins"]
