"""The step of word2vec as one call of a C function.

XLA's own operations for the step, see `word2vec_step`, are many small products, copies and sums of
rows, which leave half of two cores idle. word2vec.c does the same in one pass over the text, with
the same results up to rounding.
"""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import native
from dlcore.models.embedding.objectives import NegativeSampling
from dlcore.models.embedding.word2vec import Word2Vec
from dlcore.types import Mean

_SOURCE = pathlib.Path(__file__).with_name("word2vec.c")
_ARCHITECTURES = ("skip_gram", "cbow_mean", "cbow_sum", "cbow_original")

Tables = Mapping[str, jax.Array]


def suits(model: Word2Vec, tables: Tables) -> bool:
    """Returns whether `step` implements a model with these tables, which are being traced.

    It implements negative sampling on whole words, in float32, with tables on one CPU.
    """
    return (
        type(model) is Word2Vec
        and type(model.objective) is NegativeSampling
        and model.subwords is None
        and all(table.dtype == jnp.float32 for table in tables.values())
        and native.serves(*tables.values())
        and native.registered(_SOURCE)
    )


def step(
    model: Word2Vec,
    tables: Tables,
    sums: Tables,
    batch: Mapping[str, jax.Array],
    noise: jax.Array,
    rate: jax.Array,
    *,
    micro_batch: int,
    threads: int | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], Mean, jax.Array]:
    """Returns the new tables and sums, and each micro-batch's loss and whether it is skipped.

    Args:
        model: a model for which `suits` is true.
        tables: the tables "input" and "output".
        sums: the accumulators of AdaGrad, [R, 1] for each table.
        batch: as for `word2vec_step`.
        noise: int [n K], the samples of noise of all groups of n micro-batches.
        rate: the learning rate.
        micro_batch: P.
        threads: the number of threads, by default as many as the process may use; the result does
            not depend on it in any bit.
    """
    objective, architecture = model.objective, model.architecture
    assert isinstance(objective, NegativeSampling)
    if model.original_gradient:
        architecture = "cbow_original"
    names, samples = ("input", "output"), objective.samples * model.groups(micro_batch)
    count = len(noise) // samples
    operands = [tree[name] for tree in (tables, sums) for name in names]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    each = [jax.ShapeDtypeStruct((count,), kind) for kind in (jnp.float32, jnp.float32, jnp.int32)]
    numbers = {
        "architecture": _ARCHITECTURES.index(architecture),
        "groups": model.groups(micro_batch),
        "micro_batch": micro_batch,
        "threads": threads or native.threads(),
        "window": model.window,
    }
    *new, loss, weight, skipped = jax.ffi.ffi_call(
        _SOURCE.stem, [*shapes, *each], input_output_aliases={i: i for i in range(len(operands))}
    )(
        *operands,
        *(batch[name].astype(jnp.int32) for name in ("words", "sentences", "reach")),
        noise.astype(jnp.int32),
        jnp.asarray(rate, jnp.float32),
        share=np.float32(objective.negatives / objective.samples),
        **{name: np.int64(number) for name, number in numbers.items()},
    )
    new_tables, new_sums = (dict(zip(names, new[i : i + 2], strict=True)) for i in (0, 2))
    return new_tables, new_sums, Mean(loss, weight), skipped != 0
