"""How the axis "model" of a mesh cuts tables of word vectors: rules on the paths of parameters.

Each rule is a regular expression and, for each dimension of a table, the axis that cuts it or None.

word2vec: by rows. A micro-batch names some rows of the whole table; each device gives those that it
holds, their sum is what all of them compute with, and each writes its own.

GloVe: by columns. A step takes stretches of neighbouring rows, which rows on other devices would
have to be brought together for; with some numbers of each vector on each device, it is the products
of vectors that are summed.
"""

from jax.sharding import PartitionSpec

TENSOR_PARALLEL = (
    (r"/(input|output)$", PartitionSpec("model", None)),
    (r"/(word|context)$", PartitionSpec(None, "model")),
)
