"""Rules by which the axis "model" of a mesh cuts tables of word vectors.

A rule is a regular expression for the paths of parameters and, for each dimension of a table, the
axis that cuts it or None.

The tables of word2vec are cut by rows. A micro-batch names some rows of the whole table; each
device provides the rows that it holds, all devices compute with the sum, and each updates its own
rows.

The tables of GloVe are cut by columns. A step reads runs of neighbouring rows, which would have to
be collected from several devices; with some dimensions of each vector on each device, the devices
only sum the products of vectors.
"""

from jax.sharding import PartitionSpec

# The rules that cut tables of words over "model".
TENSOR_PARALLEL = (
    (r"/(input|output|paragraphs)$", PartitionSpec("model", None)),
    (r"/(word|context)$", PartitionSpec(None, "model")),
)
