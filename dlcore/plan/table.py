"""Writes a plan as plain text, for a person who decides whether to pay for it."""

from collections.abc import Sequence

from dlcore.plan.chips import Chip
from dlcore.plan.collectives import Collective
from dlcore.plan.step import Plan, expect

_CPU = """\
Read from a program that XLA compiled for virtual CPU devices; other compilers differ:
- Temporary memory and traffic depend on what is fused and on the order of execution. The CPU's
  order gathers parameters and keeps intermediate values without regard to memory.
- The CPU sums 16-bit numbers as 32-bit ones, and computes products of them so: programs in bfloat16
  send, keep and move up to twice the bytes that they do on an accelerator.
- Where the compiler, not the layout, chooses the collectives (the axis model), a sum of which each
  device keeps a slice is an all-reduce here; XLA for GPUs makes it a reduce-scatter: half of that.
- Latencies, congestion and the shape of the network are left out: short messages take longer."""
_UNKNOWN = "at least: the rounds of a loop are not known, and count as one"


def render(plan: Plan, chip: Chip | None = None) -> str:
    """Returns the plan as text; with a chip also the expected time, efficiency and fit."""
    axes = ", ".join(f"{name}={size}" for name, size in plan.axes if size > 1)
    many = f"{plan.devices} devices" if plan.devices > 1 else "1 device"
    sections = [
        f"Plan of one step on {many}{f' ({axes})' if axes else ''}; all figures per device",
        "Memory\n" + _memory(plan, chip),
        "Communication\n" + _communication(plan),
        "Computation\n" + _computation(plan),
    ]
    if chip is not None:
        sections.append("Expected\n" + _expected(plan, chip))
    return "\n\n".join([*sections, *([_CPU] if plan.platform == "cpu" else [])])


def _memory(plan: Plan, chip: Chip | None) -> str:
    rows = [
        ("parameters", _bytes(plan.parameter_bytes), ""),
        ("optimizer's state", _bytes(plan.optimizer_bytes), ""),
        ("rest of the state", _bytes(plan.other_bytes), ""),
        ("batch", _bytes(plan.batch_bytes), ""),
        ("temporary", _bytes(plan.temporary_bytes), "activations, gradients, gathered parameters"),
    ]
    verdict = ""
    if chip is not None:
        verdict = f"{'fits' if expect(plan, chip).fits else 'DOES NOT FIT'} into"
        verdict += f" {_bytes(chip.memory)}"
    return _table([*rows, ("peak", _bytes(plan.peak_bytes), verdict)])


def _communication(plan: Plan) -> str:
    if not plan.collectives:
        return "  none"
    groups: dict[tuple[str, str], list[Collective]] = {}
    for collective, axes in plan.collectives:
        groups.setdefault((collective.kind, ", ".join(axes)), []).append(collective)
    rows = [("kind", "axes", "devices", "times", "sent")]
    for (kind, along), members in groups.items():
        size = max(len(member.group) for member in members)
        times = sum(member.runs for member in members)
        unknown = "" if all(member.known for member in members) else "at least "
        sent = _bytes(sum(member.sent_bytes for member in members))
        rows.append((kind, along, str(size), f"{unknown}{times:,}", f"{unknown}{sent}"))
    return _table([*rows, ("sum", "", "", "", _bytes(plan.sent_bytes))], right=(2, 3, 4))


def _computation(plan: Plan) -> str:
    return _table(
        [
            ("FLOPs", _number(plan.flops), "" if plan.known else _UNKNOWN),
            ("of the model", _number(plan.model_flops), "nothing twice; padding of images too"),
            ("memory traffic", _bytes(plan.traffic_bytes), "as this compiler fuses operations"),
            ("", _bytes(plan.least_traffic_bytes), "if each byte were moved once"),
        ]
    )


def _expected(plan: Plan, chip: Chip) -> str:
    """Writes the times after the chip's figures, so that a reader sees what they are based on."""
    times = expect(plan, chip)
    figures = (
        f"  with {_number(chip.flops)}FLOP/s, {_bytes(chip.memory)}, {_bytes(chip.bandwidth)}/s of "
        f"memory and {_bytes(chip.link)}/s to other devices\n"
    )
    bound = "computation" if times.compute >= times.memory else "memory"
    return figures + _table(
        [
            ("computation", _seconds(times.compute), ""),
            ("memory traffic", _seconds(times.memory), "as this compiler fuses operations"),
            ("communication", _seconds(times.communication), ""),
            (
                "step, at most",
                _seconds(times.slow),
                f"nothing sent while computing; bound by {bound}; "
                f"efficiency {times.efficiency:.1%}",
            ),
            (
                "step, at best",
                _seconds(times.fast),
                f"all overlapped, each byte moved once; efficiency {times.best_efficiency:.1%}",
            ),
        ]
    )


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = (1,)) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    """Writes a number with three digits and a prefix.

    >>> _number(1.436e9)
    '1.44 G'
    """
    prefixes = iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while value >= 999.5 and prefix != "P":
        value, prefix = value / 1000, next(prefixes)
    return f"{value:.3g} {prefix}"


def _bytes(value: float) -> str:
    return _number(value) + "B"


def _seconds(value: float) -> str:
    return _number(value * 1e6) + "us" if value < 1e-3 else f"{value * 1e3:.3g} ms"
