"""Communication between devices: collective operations counted in a compiled program's text.

The text is XLA's optimised HLO, one program for all devices. An operation in a loop counts once per
pass if the text gives their number (a known trip count, or a condition `i < constant`), otherwise
once. An asynchronous operation counts at its start. One branch of each condition is counted, either
the one that sends the least or the one that sends the most. Over a ring of n devices each sends

    all-reduce          2 (n - 1) / n  of the array                                  (1)
    all-gather, reduce-scatter, all-to-all  (n - 1) / n  of the whole array          (2)
    collective-permute, collective-broadcast  the array                              (3)
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

_KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "ragged-all-to-all", "all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
_BITS = {"pred": 8, "token": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "bf16": 16, "c64": 64,
         "c128": 128}  # fmt: skip

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)|called_computations=\{([^}]*)\}")
_BRANCHES = re.compile(
    r"(?:true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)
_LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count[^\d]{1,12}"?(\d+)')
_LESS = re.compile(r"ROOT .* compare\([^)]*%?\b([\w.\-]+)\), direction=LT")


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One kind of operation, per device and call. bytes: the size of the whole arrays that are
    reduced, gathered or scattered. sent: the bytes that leave a device, by (1) to (3)."""

    count: int
    bytes: int
    sent: float

    def plus(self, other: "Collective", times: int) -> "Collective":
        """The sum of this and `times` the other."""
        return Collective(
            count=self.count + times * other.count,
            bytes=self.bytes + times * other.bytes,
            sent=self.sent + times * other.sent,
        )


_NONE = Collective(count=0, bytes=0, sent=0.0)


def collectives(text: str, *, most: bool = False, once: bool = False) -> dict[str, Collective]:
    """The collectives of one call of a program, by kind, from its optimised HLO text. Kinds that do
    not occur are absent. most: whether to count the branch of each condition that sends the most,
    rather than the least. once: whether every loop counts as one pass, as in the compiler's own
    count of operations."""
    bodies, entry = _computations(text)
    head = text[: text.find("\n")]
    sizes = [re.search(rf"{key}=(\d+)", head) for key in ("num_partitions", "replica_count")]
    everyone = math.prod(int(size[1]) for size in sizes if size)
    chosen = max if most else min

    @cache
    def within(name: str) -> Mapping[str, Collective]:
        sums: dict[str, Collective] = {}
        for line in bodies.get(name, ()):
            if one := _operation(line, everyone):
                _add(sums, dict([one]), 1)
            for callee, times in _callees(line, bodies):
                _add(sums, within(callee), 1 if once else times)
            if branches := _names(_BRANCHES, line):
                _add(sums, chosen(map(within, branches), key=_sent), 1)
        return sums

    return dict(sorted(within(entry).items()))


def _add(sums: dict[str, Collective], more: Mapping[str, Collective], times: int) -> None:
    for kind, collective in more.items():
        sums[kind] = sums.get(kind, _NONE).plus(collective, times)


def _sent(sums: Mapping[str, Collective]) -> float:
    return sum(collective.sent for collective in sums.values())


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by name, and the name of the entry computation."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if line[:1] not in (" ", "}", "") and (head := _HEAD.match(line)):
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif name and line.startswith(" "):
            bodies[name].append(line)
        elif line.startswith("}"):
            name = ""
    return bodies, entry


def _callees(line: str, bodies: Mapping[str, list[str]]) -> Iterator[tuple[str, int]]:
    """The computations that an instruction calls, each with its number of calls."""
    if loop := _LOOP.search(line):
        yield loop[2], _trips(line, bodies.get(loop[1], []))
        return
    yield from ((name, 1) for name in _names(_CALLED, line))


def _names(pattern: re.Pattern, line: str) -> list[str]:
    """The computations named by an attribute: one, or several in braces."""
    lists = [one or several for one, several in pattern.findall(line)]
    return [name.strip().lstrip("%") for names in lists for name in names.split(",") if name]


def _trips(line: str, condition: list[str]) -> int:
    if known := _TRIPS.search(line):
        return int(known[1])
    bound = next((match[1] for text in condition if (match := _LESS.search(text))), None)
    value = re.compile(rf"%?{re.escape(bound or '')} = s(?:32|64)\[\]\S* constant\((\d+)\)")
    return next((int(match[1]) for text in condition if (match := value.search(text))), 1)


def _operation(line: str, everyone: int) -> tuple[str, Collective] | None:
    match = _OPERATION.search(line)
    if not match:
        return None
    kind, shape = match[2], match[1]
    if match[3] and kind != "all-reduce":  # its type is (input, output, ...)
        shape = _elements(shape)[1]
    size, group = _bytes(shape), _group(line, everyone)
    if kind == "reduce-scatter":
        size *= group
    share = {"all-reduce": 2 * (group - 1) / group}.get(kind, (group - 1) / group)
    if kind.startswith("collective"):
        share = 1.0
    return kind, Collective(count=1, bytes=size, sent=share * size)


def _elements(shape: str) -> list[str]:
    """The elements of a tuple type."""
    parts, depth, start, inner = [], 0, 0, re.sub(r"/\*.*?\*/", "", shape).strip()[1:-1]
    for at, letter in enumerate(inner):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and not depth:
            parts.append(inner[start:at])
            start = at + 1
    return [*parts, inner[start:]]


def _bytes(shape: str) -> int:
    total = 0
    for kind, sides in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", shape)):
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind, int(digits[0]) if digits else 0)
        numbers = math.prod(int(side.lstrip("<=")) for side in sides.split(",") if side)
        total += -(-numbers * bits // 8)
    return total


def _group(line: str, everyone: int) -> int:
    """The number of devices in a group, from any of HLO's notations for groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return everyone
