"""Partial restore: parameters taken over from another tree by rules on their paths."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np

from dlcore import paths


@dataclasses.dataclass(frozen=True)
class Report:
    """An account of a transplant, by the paths of the target.

    Attributes:
        restored: where each restored leaf came from.
        kept: leaves that the rules leave alone.
        missing: where each leaf was looked for in vain.
        mismatched: the two shapes of each leaf that did not fit.
        unused: the paths of the source that no leaf of the target took.
    """

    restored: dict[str, str]
    kept: list[str]
    missing: dict[str, str]
    mismatched: dict[str, str]
    unused: list[str]

    def __str__(self) -> str:
        lines = [f"restored {len(self.restored)} leaves, kept {len(self.kept)}"]
        lines += [f"missing: {path} (looked for {source})" for path, source in self.missing.items()]
        lines += [f"mismatched: {path} ({shapes})" for path, shapes in self.mismatched.items()]
        lines += [f"unused: {path}" for path in self.unused]
        return "\n".join(lines)


def transplant(
    source: Any, target: Any, rules: paths.Rules[str | None] = ((r"^(.*)$", r"\1"),)
) -> tuple[Any, Report]:
    """Returns the target with the leaves that the rules choose taken from the source.

    Args:
        source: a tree of arrays, such as `dlcore.load(workdir).variables`.
        target: a tree of arrays; a leaf that is not restored keeps its value, and a restored
            leaf keeps its type and its sharding.
        rules: pairs (regular expression, path in the source); the first expression that matches
            a path of the target decides. The path may refer to groups as in `re.sub`; None, and
            no match, leave the leaf alone. `[("^head/", None), ("^(.*)$", r"\\1")]` restores
            everything except the head.

    Raises:
        InputError: when a rule matches nothing.
    """
    available = paths.leaves_by_path(source)
    # The rule itself is the value, so that the groups of its expression are at hand below.
    chosen = paths.match(target, [(pattern, (pattern, origin)) for pattern, origin in rules], None)
    report = Report({}, [], {}, {}, [])

    def leaf_of(key_path: tuple[Any, ...], leaf: Any, rule: tuple[str, str | None] | None) -> Any:
        path = paths.path_of(key_path)
        if rule is None or rule[1] is None:
            report.kept.append(path)
            return leaf
        origin = re.search(rule[0], path).expand(rule[1])  # type: ignore[union-attr]
        if origin not in available:
            report.missing[path] = origin
            return leaf
        if available[origin].shape != leaf.shape:
            report.mismatched[path] = f"{available[origin].shape} there, {leaf.shape} here"
            return leaf
        report.restored[path] = origin
        # By the host: from one device, several processes could not place it on the devices of all.
        return jax.device_put(np.asarray(available[origin]).astype(leaf.dtype), leaf.sharding)

    new = jax.tree_util.tree_map_with_path(leaf_of, target, chosen)
    report.unused.extend(sorted(set(available) - set(report.restored.values())))
    return new, report
