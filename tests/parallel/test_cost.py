"""What each layout sends and holds, read from programs compiled for eight virtual devices.

Shapes: N positions of a device's rows, C features, L layers, K samples, D numbers of a vector.
"""

import layout_runs
import pytest
from layout_cases import LAYERS, B, T
from layout_costs import PAIRS

C = 128
FLOAT = 4
SCALARS = 1024  # bytes of all sums of single numbers: norms for clipping, losses, metrics
PRODUCT = "data=2,fsdp=2,model=2"
QUICK = (
    ("lstm", "data=8", "step", 1),
    ("transformer", "model=8", "step", 1),
)
SLOW = (
    ("transformer", "data=8", "step", 2),
    ("transformer", "fsdp=8", "step", 1), ("lstm", "fsdp=8", "step", 1),
    ("word2vec", "model=8", "step", 1),
    ("transformer", "data=2,model=4", "evaluation", 1),
    ("transformer", PRODUCT, "step", 1), ("transformer", PRODUCT, "evaluation", 1),
    ("sampled softmax", "model=8", "step", 1),
    ("lstm", "data=2,model=4", "step", 1), ("lstm", "model=8", "evaluation", 1),
    ("word2vec", "model=8", "evaluation", 1), ("glove", "model=8", "step", 1),
)  # fmt: skip


class Costs(dict):
    """The costs of each case; one process compiles all cases of a tuple when one is first used."""

    def __missing__(self, case):
        cases = QUICK if case in [one[:3] for one in QUICK] else SLOW
        found = layout_runs.costs_of([(*one[:3], C, one[3]) for one in cases])
        self.update(zip((one[:3] for one in cases), found, strict=True))
        return self[case]


@pytest.fixture(scope="module")
def costs():
    return Costs()


def along(cost, *axes):
    """The collectives along exactly these axes."""
    return [one for one in cost["collectives"] if one["axes"] == list(axes)]


def moved(collectives):
    """The bytes of their arrays."""
    return sum(one["runs"] * one["bytes"] for one in collectives)


def positions(mesh):
    """N, on a mesh."""
    sizes = dict(axis.split("=") for axis in mesh.split(","))
    return B * T // (int(sizes.get("data", 1)) * int(sizes.get("fsdp", 1)))


def only_sums_along_model(cost):
    """The collectives along "model", which must be sums, and along no other axis at once."""
    found = [one for one in cost["collectives"] if "model" in one["axes"]]
    assert {(one["kind"], *one["axes"]) for one in found} == {("all-reduce", "model")}
    return found


# The first with two micro-batches; both with one table for embedding and output.
@pytest.mark.parametrize("net", [pytest.param("transformer", marks=pytest.mark.slow), "lstm"])
def test_data_parallel_sums_all_gradients_once(costs, net):
    cost = costs[net, "data=8", "step"]
    (one,) = cost["collectives"]
    assert (one["kind"], one["axes"], one["runs"]) == ("all-reduce", ["data"], 1)
    assert 0 <= one["bytes"] - cost["params"] < SCALARS


@pytest.mark.slow
@pytest.mark.parametrize("net", ["transformer", "lstm"])
def test_fully_sharded_devices_hold_their_part_and_reduce_once(costs, net):
    cost = costs[net, "fsdp=8", "step"]
    assert cost["held"] <= 1.05 * cost["whole"] / 8
    by_kind = {
        kind: moved(one for one in cost["collectives"] if one["kind"] == kind)
        for kind in ("all-gather", "reduce-scatter", "all-reduce")
    }
    assert sum(by_kind.values()) == moved(cost["collectives"])
    cut = by_kind["reduce-scatter"]
    assert 0.95 * cost["params"] < cut <= cost["params"]
    # Once more in the backward pass, or kept, or not needed there.
    assert cut <= by_kind["all-gather"] <= 2 * cut
    assert by_kind["all-reduce"] < cost["params"] - cut + SCALARS


@pytest.mark.parametrize("mesh", ["model=8", pytest.param(PRODUCT, marks=pytest.mark.slow)])
def test_a_transformer_sums_twice_a_layer_forward_and_twice_backward(costs, mesh):
    found = only_sums_along_model(costs["transformer", mesh, "step"])
    stream = positions(mesh) * C * FLOAT
    forward = (1 + 2 * LAYERS) * stream + 3 * positions(mesh) * FLOAT
    # The parts of a sum are summed apart: of the softmax's gradient two, of the attention's three.
    backward = (2 + (3 + 1) * LAYERS) * stream
    assert 0 <= moved(found) - forward - backward < SCALARS
    in_layers = [one for one in found if "layer_" in one["source"]]
    assert sum(one["runs"] for one in in_layers) == 4 * LAYERS


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=2,model=4", PRODUCT])
def test_a_transformer_is_evaluated_with_two_sums_a_layer(costs, mesh):
    found = only_sums_along_model(costs["transformer", mesh, "evaluation"])
    rows = positions(mesh) * FLOAT
    assert moved(found) == (1 + 2 * LAYERS) * rows * C + 3 * rows
    assert sum("layer_" in one["source"] for one in found) == 2 * LAYERS


@pytest.mark.slow
def test_a_recurrent_net_sums_for_embedding_and_softmax_alone(costs):
    rows = positions("data=2,model=4") * FLOAT
    found = only_sums_along_model(costs["lstm", "data=2,model=4", "step"])
    assert 0 <= moved(found) - (3 * rows * C + 3 * rows) < SCALARS
    rows = positions("model=8") * FLOAT
    found = only_sums_along_model(costs["lstm", "model=8", "evaluation"])
    assert moved(found) == rows * C + 3 * rows


@pytest.mark.slow
def test_a_sampled_softmax_sums_the_rows_that_it_reads(costs):
    found = only_sums_along_model(costs["sampled softmax", "model=8", "step"])
    n, k = positions("model=8"), 64
    assert 0 <= moved(found) - (n * C + (n + k) * (C + 1)) * FLOAT < SCALARS


@pytest.mark.slow
def test_word2vec_sums_the_rows_that_it_reads(costs):
    found = only_sums_along_model(costs["word2vec", "model=8", "step"])
    words, block, noise = 256, 16, 64  # of each of four micro-batches
    rows = words + (words + block) + noise
    assert moved(found) == 4 * rows * (C + 1) * FLOAT  # with AdaGrad's sum of each row


@pytest.mark.slow
def test_word2vec_is_evaluated_against_all_words_where_their_rows_are(costs):
    found = only_sums_along_model(costs["word2vec", "model=8", "evaluation"])
    rows, scores = PAIRS * (1 + 1 + 5) * C, 2 * PAIRS  # of all words, their maximum and their sum
    assert 0 <= moved(found) - (rows + scores) * FLOAT < SCALARS


@pytest.mark.slow
def test_glove_sums_the_products_of_its_squares(costs):
    found = only_sums_along_model(costs["glove", "model=8", "step"])
    squares, side = 8, 128
    assert 0 <= moved(found) - squares * side**2 * FLOAT < SCALARS


@pytest.mark.parametrize("mesh", ["model=8", pytest.param(PRODUCT, marks=pytest.mark.slow)])
def test_what_a_device_of_the_axis_model_holds(costs, mesh):
    cost = costs["transformer", mesh, "step"]
    assert cost["held"] <= 1.05 * cost["whole"] / (8 if mesh == "model=8" else 4)
