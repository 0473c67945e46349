"""Rules by which the axis "model" of a mesh cuts the parameters of text models.

A rule is a regular expression for the paths of parameters and, for each dimension of an array, the
axis that cuts it or None. These are the cuts of Shoeybi et al. 2019 (section 3), with the least
communication. Forward:

- A layer of a transformer sums over the devices once after the attention, whose heads they share,
  and once after the feed-forward net, whose hidden features they share: its first matrix is cut by
  columns, its second by rows.
- The embedding sums once, since each device looks up the words whose rows it holds.
- The softmax exchanges a maximum, a sum and the target's score of each position, since each device
  has the scores of its own words; no device ever has all scores.

Backward, a layer sums twice and the softmax once; the gradient of a table stays where its rows are.
The axis should divide the number of heads, and that of key and value heads.

Recurrent layers are not cut: h_t needs all of h_(t-1), so devices that shared the cells would wait
for one another at every step. With a large vocabulary most of a net is in its tables anyway.
"""

from jax.sharding import PartitionSpec

_COLUMNS, _ROWS = PartitionSpec(None, "model"), PartitionSpec("model", None)
_EACH = PartitionSpec("model")

# The rules that cut language models and transformers over "model".
TENSOR_PARALLEL = (
    (r"\b(attention|cross)/(query|key|value)/kernel$", _COLUMNS),
    (r"\b(attention|cross)/(query|key|value)/bias$", _EACH),
    (r"\b(attention|cross)/output/kernel$", _ROWS),
    (r"\bfeed_forward/(up|gate)/kernel$", _COLUMNS),
    (r"\bfeed_forward/(up|gate)/bias$", _EACH),
    (r"\bfeed_forward/down/kernel$", _ROWS),
    (r"/(embedding|output_kernel)$", _ROWS),
    (r"/(embedding|output_kernel)$", _COLUMNS),  # so lies a table whose rows do not divide
    (r"/output_bias$", _EACH),
)
