"""The same training in every layout, by one process and by several, on eight virtual devices."""

import layout_runs
import pytest
from layout_cases import LAYOUTS, SINGLE

NETS = ("cnn", "lstm", "transformer")
# The largest difference of losses between 2 and 7; float32 has steps of 5e-7 there.
CLOSE = 1e-5


def assert_equal_to_single(cases, found, reference):
    for (net, layout), runs in zip(cases, found, strict=True):
        for run in runs:
            assert run["losses"] == pytest.approx(reference[net], rel=0, abs=CLOSE), (net, layout)


@pytest.mark.slow  # by default a job is trained by two processes, in tests/experiments
@pytest.mark.parametrize(
    ("net", "layout"),
    [("lstm", "fsdp=2,model=2"), ("cnn", "pmap"), ("prime vocabulary", "fsdp=2,model=2")],
)
def test_two_processes_equal_one_device_and_repeat_bit_for_bit(net, layout):
    cases = [(net, SINGLE), (net, layout)]
    found = layout_runs.losses_of(cases, processes=2, devices=2, steps=4, runs=2)
    losses = found[0][0]["losses"]
    assert_equal_to_single(cases, found, {net: losses})
    first, second = found[1]
    assert first == second
    assert len(set(losses)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("net", NETS)
def test_twenty_steps_in_every_layout(net, processes):
    layouts = LAYOUTS if processes == 1 else LAYOUTS[1:]  # "jit" is one process
    cases = [(net, SINGLE), *((net, layout) for layout in layouts)]
    how = {"processes": processes, "devices": 8 // processes, "steps": 20}
    first, second = (layout_runs.losses_of(cases, **how) for _ in range(2))
    assert_equal_to_single(cases, first, {net: first[0][0]["losses"]})
    assert first == second
