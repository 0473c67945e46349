"""The collectives of programs in which they are known, on four virtual devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dlcore.plan.collectives import collectives
from dlcore.plan.hlo import Array, parse

P = PartitionSpec
BY_ROWS = P("data")
N = 4
ROWS, COLUMNS = 16, 8
WHOLE = ROWS * COLUMNS * 4
PART = WHOLE // N
RING = [(i, (i + 1) % N) for i in range(N)]


def make_mesh(**axes):
    auto = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=auto)


MESH = make_mesh(data=N)


def compiled(function, *shapes, mesh=MESH, out=BY_ROWS):
    """`function` of the rows of each device, compiled."""
    mapped = jax.shard_map(function, mesh=mesh, in_specs=BY_ROWS, out_specs=out, check_vma=False)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes or [(ROWS, COLUMNS)]]
    return jax.jit(mapped).lower(*shapes).compile()


def ring(kind, size, n):
    """Counts hop by hop the bytes that one of n devices sends; `size` is the larger side."""
    sent, part = 0, size / n
    if kind in ("reduce-scatter", "all-reduce"):
        for _ in range(n - 1):  # each partial sum goes to the right until it has met all
            sent += part
    if kind in ("all-gather", "all-reduce"):
        for _ in range(n - 1):  # each part goes to the right until all have it
            sent += part
    if kind == "all-to-all":
        for _ in range(n - 1):  # one part to each of the others
            sent += part
    return sent if kind != "collective-permute" else size


KNOWN = {
    "all-reduce": (lambda x: jax.lax.psum(x, "data"), PART, PART),
    "all-gather": (lambda x: jax.lax.all_gather(x, "data", tiled=True), PART, WHOLE),
    "reduce-scatter": (lambda x: jax.lax.psum_scatter(x, "data", tiled=True), PART, PART // N),
    "all-to-all": (lambda x: jax.lax.all_to_all(x, "data", 1, 0, tiled=True), PART, PART),
    "collective-permute": (lambda x: jax.lax.ppermute(x, "data", RING), PART, PART),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_one_of_each_kind(kind):
    function, operand, result = KNOWN[kind]
    (collective,) = collectives(compiled(function))
    assert (collective.kind, collective.runs, collective.known) == (kind, 1, True)
    assert (collective.operand_bytes, collective.result_bytes) == (operand, result)
    assert collective.group == (0, 1, 2, 3) and collective.axes(MESH) == ("data",)
    assert collective.sent_bytes == ring(kind, max(operand, result), N)
    assert collective.source.startswith("jit(") and "shard_map" in collective.source


def test_sums_that_the_compiler_combines_count_once_with_all_their_bytes():
    listed = collectives(compiled(lambda x: jax.lax.psum((x, x.sum()), "data"), out=P()))
    assert [(collective.kind, collective.operand_bytes) for collective in listed] == [
        ("all-reduce", PART + 4)
    ]


def test_loops_multiply():
    def inner(x, _):
        return jax.lax.psum(x, "data") * 0.25, None

    def outer(x, _):
        x = jax.lax.scan(inner, x, None, length=3)[0]
        return jax.lax.ppermute(x, "data", RING), None

    listed = collectives(compiled(lambda x: jax.lax.scan(outer, x, None, length=5)[0]))
    assert {collective.kind: collective.runs for collective in listed} == {
        "all-reduce": 15,
        "collective-permute": 5,
    }
    assert {collective.kind: collective.sent_bytes for collective in listed} == {
        "all-reduce": 15 * ring("all-reduce", PART, N),
        "collective-permute": 5 * PART,
    }


def test_a_loop_of_unknown_length_counts_one_round_and_says_so():
    def inner(x, _):
        return jax.lax.psum(x, "data") * 0.1, None

    def function(x):
        def body(x):
            return jax.lax.scan(inner, x, None, length=3)[0]

        return jax.lax.while_loop(lambda x: x[0, 0] > 1, body, x)

    (collective,) = collectives(compiled(function))
    assert (collective.runs, collective.known) == (3, False)


@pytest.mark.parametrize("many", [1, 3])
def test_of_a_conditional_the_branch_counts_that_sends_most(many):
    def permutes(x):
        for _ in range(many):
            x = jax.lax.ppermute(x, "data", RING) + 1
        return x

    def function(x):
        flag = jax.lax.axis_index("data") < 9
        return jax.lax.cond(flag & (x[0, 0] > 0), lambda x: jax.lax.psum(x, "data"), permutes, x)

    listed = collectives(compiled(function))
    # A sum sends 1.5 times its bytes.
    assert [collective.kind for collective in listed] == (
        ["all-reduce"] if many == 1 else ["collective-permute"] * many
    )


def test_each_axis_of_a_mesh_has_its_groups():
    mesh = make_mesh(data=2, model=2)
    by_axes = {}
    for axes in (("data",), ("model",), ("data", "model")):
        (collective,) = collectives(compiled(lambda x, a=axes: jax.lax.psum(x, a), mesh=mesh))
        assert collective.axes(mesh) == axes
        by_axes[axes] = collective.group
    assert by_axes == {("data",): (0, 2), ("model",): (0, 1), ("data", "model"): (0, 1, 2, 3)}


def test_data_parallel_reduces_each_gradient_once():
    def gradient(params, x):
        return jax.grad(lambda p: jnp.sum(jnp.tanh(x @ p["a"]) @ p["b"]))(params)

    everywhere, rows = NamedSharding(MESH, P()), NamedSharding(MESH, P("data"))
    shape = jax.ShapeDtypeStruct
    params = {
        "a": shape((COLUMNS, 32), jnp.float32, sharding=everywhere),
        "b": shape((32, 3), jnp.float32, sharding=everywhere),
    }
    x = shape((ROWS, COLUMNS), jnp.float32, sharding=rows)
    listed = collectives(jax.jit(gradient, out_shardings=everywhere).lower(params, x).compile())
    assert {collective.kind for collective in listed} == {"all-reduce"}
    assert sum(collective.operand_bytes for collective in listed) == 4 * (COLUMNS * 32 + 32 * 3)
    assert all("transpose" in collective.source for collective in listed)


def test_a_program_of_one_device_has_none():
    assert collectives(jax.jit(jnp.sin).lower(jnp.ones(3)).compile()) == []


# What accelerators' compilers print: a start and a done, or a computation of its own.
ASYNC = """\
HloModule jit_f, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%wrapped (p: bf16[2,64]) -> bf16[16,64] {
  %p = bf16[2,64]{1,0:T(2,128)(2,1)} parameter(0)
  ROOT %t = bf16[16,64]{1,0} all-to-all(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}
}

ENTRY %main (x: bf16[2,64], y: f32[8]) -> bf16[16,64] {
  %x = bf16[2,64]{1,0:T(2,128)(2,1)} parameter(0)
  %y = f32[8]{0} parameter(1)
  %g = (bf16[2,64]{1,0}, bf16[16,64]{1,0:T(8,128)S(1)}) all-gather-start(%x), replica_groups=GROUPS
  %gd = bf16[16,64]{1,0} all-gather-done(%g), metadata={op_name="late"}
  %r = f32[8]{0} all-reduce-start(%y), replica_groups={}, to_apply=%add, metadata={op_name="loss"}
  %rd = f32[8]{0} all-reduce-done(%r)
  %c = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(f32[8]{0} %y), PAIRS
  %cd = f32[8]{0} collective-permute-done(%c)
  %s = ((bf16[2,64]), bf16[16,64], s32[]) async-start(%x), calls=%wrapped
  %u = ((bf16[2,64]), bf16[16,64], s32[]) async-update(%s), calls=%wrapped
  %d = bf16[16,64]{1,0} async-done(%u), calls=%wrapped
  ROOT %q = bf16[16,64]{1,0} ragged-all-to-all(%x, %d, %y), replica_groups={{0,1,2,3},{4,5,6,7}}
}
"""


def asynchronous(groups="[1,8]<=[8]"):
    pairs = "source_target_pairs={{0,2},{2,0},{1,3},{3,1}}"
    return collectives(ASYNC.replace("GROUPS", groups).replace("PAIRS", pairs))


def test_asynchronous_collectives_count_once():
    listed = asynchronous()
    assert [
        (collective.kind, collective.operand_bytes, collective.result_bytes, collective.group)
        for collective in listed
    ] == [
        ("all-gather", 256, 2048, (0, 1, 2, 3, 4, 5, 6, 7)),
        ("all-reduce", 32, 32, (0, 1, 2, 3, 4, 5, 6, 7)),
        ("collective-permute", 32, 32, (0, 2)),
        ("all-to-all", 256, 256, (0, 1)),
        ("ragged-all-to-all", 256, 256, (0, 1, 2, 3)),
    ]
    assert [collective.source for collective in listed] == ["", "loss", "", "", ""]


def test_groups_of_one_device_send_nothing():
    kinds = [collective.kind for collective in asynchronous("{{0},{1},{2},{3},{4},{5},{6},{7}}")]
    assert "all-gather" not in kinds and len(kinds) == 4


NUMBERS = np.arange(8).reshape(2, 4)  # of a mesh with the axes a = 2 and b = 4


@pytest.mark.parametrize(
    "groups, expected",
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", NUMBERS[:, 0]),
        ("[4,2]<=[8]", NUMBERS[0, :2]),
        ("[4,2]<=[2,4]T(1,0)", NUMBERS[:, 0]),
        ("[2,4]<=[2,2,2]T(1,0,2)", np.array([0, 1, 4, 5])),
        ("mesh['a'=2,'b'=4] {'b'}", NUMBERS[0]),
        ("mesh['a'=2,'b'=4] {'a'}", NUMBERS[:, 0]),
        ("mesh['a'=2,'b'=4] {'a','b'}", NUMBERS.reshape(-1)),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", NUMBERS[0].reshape(2, 2)[0]),
        ("mesh['a'=2,'b'=4] {'b':(1)2}", NUMBERS[0].reshape(2, 2)[:, 0]),
        (
            "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}",
            np.arange(8).reshape(4, 2).T.reshape(2, 4)[:, 0],
        ),
        ("mesh['a'=2,'b'=2], device_ids=(0,2,1,3) {'b'}", np.array([0, 2])),
    ],
)
def test_every_way_to_write_groups(groups, expected):
    listed = asynchronous(groups)[0]
    assert listed.group == tuple(expected.tolist())
    assert listed.result_bytes == 256 * len(expected)


def test_the_text_is_read_whole():
    """As many instructions as a plain search for assignments finds."""
    text = compiled(lambda x: jax.lax.psum(jnp.tanh(x @ x.T) @ x, "data")).as_text()
    program = parse(text)
    plain = re.findall(r"^ +(?:ROOT )?%\S+ = ", text, re.MULTILINE)
    assert sum(map(len, program.computations.values())) == len(plain) > 5
    assert program.devices == N and program.entry in program.computations


@pytest.mark.parametrize(
    "dtype, size",
    [("f32", 12), ("bf16", 6), ("pred", 3), ("f8e4m3fn", 3), ("s4", 2), ("c64", 24), ("token", 0)],
)
def test_bytes_of_three_numbers(dtype, size):
    assert Array(dtype, (3,)).bytes == size
