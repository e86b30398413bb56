"""The scores of a run as tables, each with the protocol that it was made by."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from genzoo.evaluate.report import measured, words
from genzoo.evaluate.report.charts import NOTHING, Chart, Line, brief
from genzoo.evaluate.report.folder import Folder, number, section
from genzoo.evaluate.report.parts import Charts, Fact, Facts, Pair, Row, Section, Table

_DEPTH, _MOST, _LONGEST = 3, 60, 12
_HEADLINES = ("fid", "fd_fashion", "bits_per_dim", "nats", "accuracy", "psnr")
_ERRORS = ("_standard_error", "_error")


def scores_section(folder: Folder) -> Section:
    """A table and its protocol for each file of scores."""
    blocks: list = []
    for title, content in folder.scores.items():
        for block in blocks_of(title, content):
            if isinstance(block, Table) and blocks and isinstance(blocks[-1], Table):
                blocks[-1] = Pair([blocks[-1]], [block])  # two small tables in one row
            else:
                blocks.append(block)
    return Section("scores", "Evaluation", blocks)


def blocks_of(title: str, content: Mapping) -> list:
    """The blocks of one file of scores."""
    protocol, blocks = section(content, "protocol"), []
    rows, curves, sweeps = [], [], []
    _collect(content, 0, rows, curves, sweeps)
    shown = rows[:_MOST]
    more = len(rows) - len(shown)
    note = f"{more} more rows are in the file." if more > 0 else ""
    tables = [Table(title, ("Measure", "Value"), shown, note=note)] if rows else []
    beside: list = []
    if protocol:
        facts = [
            Fact(words.capital(words.titled(str(k))), words.shown(v))
            for k, v in protocol.items()
            if not isinstance(v, Mapping)
        ]
        beside.append(Facts(facts, "Protocol"))
    if curves:
        beside.append(Charts(curves[:6]))
    blocks += [Pair(tables, beside)] if tables and beside else [*tables, *beside]
    return blocks + measured.tables(content) + sweeps[:4]


def _collect(content: Mapping, depth: int, rows: list, curves: list, sweeps: list) -> None:
    """Sorts the entries of a section into rows of a table, curves, and tables of their own."""
    for name, value in content.items():
        title = words.capital(words.titled(str(name)))
        if name in ("protocol", *measured.KEYS) or _is_error(name, content):
            continue
        if name == "examples" and "n" in section(content, "protocol"):
            continue
        if isinstance(value, Mapping):
            if chart := _curve(title, value):
                curves.append(chart)
            elif "value" in value and not isinstance(value["value"], Mapping | list):
                rows.append(Row((title, _with_error(value)), depth))
                if about := _about(value):
                    rows.append(Row((about, ""), depth + 1))
            elif depth < _DEPTH:
                rows.append(Row((title, ""), depth))
                before = len(rows)
                _collect(value, depth + 1, rows, curves, sweeps)
                if len(rows) == before:
                    rows.pop()
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            if table := _sweep(title, value):
                sweeps.append(table)
        elif isinstance(value, list):
            if len(value) <= _LONGEST:
                rows.append(Row((title, words.shown(value)), depth))
        else:
            error = next((content[f"{name}{e}"] for e in _ERRORS if f"{name}{e}" in content), None)
            plus = f" ± {brief(number(error))}" if math.isfinite(number(error)) else ""
            rows.append(Row((title, words.shown(value) + plus), depth))


def _is_error(name: object, content: Mapping) -> bool:
    return any(str(name).endswith(e) and str(name).removesuffix(e) in content for e in _ERRORS)


def _with_error(value: Mapping) -> str:
    error = next((number(value[k]) for k in ("standard_error", "error") if k in value), math.nan)
    plus = f" ± {brief(error)}" if math.isfinite(error) else ""
    return words.shown(value["value"]) + plus


def _about(value: Mapping) -> str:
    """The protocol beside a single value, as one line."""
    skipped = ("value", "standard_error", "error")
    known = {k: v for k, v in value.items() if k not in skipped and not isinstance(v, Mapping)}
    return "; ".join(f"{words.titled(str(k))} {words.shown(v, 40)}" for k, v in known.items())[:400]


def _curve(title: str, value: Mapping) -> Chart | None:
    """A chart of {"t": [...], "value": [...]}."""
    x, y = value.get("t"), value.get("value")
    if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y) > 1):
        return None
    line = Line(title, np.array([number(v) for v in x]), np.array([number(v) for v in y]))
    return Chart(title=f"{words.capital(title)} over t", lines=[line], x_label="t")


def _sweep(title: str, entries: Sequence[Mapping]) -> Table | None:
    """A table of a list of sections, one row each."""
    keys = list(dict.fromkeys(k for entry in entries for k in entry))
    keys = [k for k in keys if not any(isinstance(e.get(k), Mapping | list) for e in entries)][:8]
    if not keys:
        return None
    rows = [Row(tuple(words.shown(e.get(k)) for k in keys)) for e in entries[:_MOST]]
    text = {i for i, k in enumerate(keys) if any(isinstance(e.get(k), str) for e in entries)}
    head = tuple(words.capital(words.titled(str(k))) for k in keys)
    return Table(words.capital(title), head, rows, frozenset(text))


def headlines(folder: Folder) -> list[Fact]:
    """The scores that matter most, the first one before all, with their protocols as notes."""
    facts = []
    for name in _HEADLINES:
        for content in folder.scores.values():
            value = number(_flat(content).get(name))
            if math.isfinite(value):
                title = words.capital(words.titled(name))
                facts.append(Fact(title, brief(value), _in_short(name, content)))
                break
    return facts


def _in_short(name: str, content: Mapping) -> str:
    """The protocol of a score as one line; "" if it is unknown."""
    if line := measured.in_short(name, content):
        return line
    own = section(content, name)
    protocol = section(own, "protocol") or section(content, "protocol")
    examples = protocol.get("n", own.get("n"))
    parts = [
        f"{words.shown(examples)} examples" if examples else "",
        f"{words.shown(protocol['split'])} split" if protocol.get("split") else "",
        f"weights {words.shown(protocol['weights'])}" if protocol.get("weights") else "",
        f"step {words.shown(protocol['step'])}" if protocol.get("step") else "",
    ]
    return ", ".join(filter(None, parts))


def _flat(content: Mapping) -> dict[str, object]:
    """Name -> value of the scores, also of those with a protocol of their own."""
    flat = {"accuracy": section(content, "loss").get("accuracy")}
    for name, value in content.items():
        flat[str(name)] = value.get("value") if isinstance(value, Mapping) else value
    return {**flat, **measured.numbers(content)}


def compared(folders: Sequence[Folder], names: Sequence[str]) -> list:
    """The scores of several runs side by side, and where their protocols differ."""
    blocks: list = []
    for title in dict.fromkeys(t for folder in folders for t in folder.scores):
        contents = [section(folder.scores, title) for folder in folders]
        columns = [_by_path(content) for content in contents]
        rows = []
        for path in _merged(columns):
            values = [column.get(path) for column in columns]
            missing = NOTHING if any(values) else ""  # the title of a group has no values
            cells = (path[-1], *(missing if v is None else v for v in values))
            rows.append(Row(cells, len(path) - 1))
        if not rows:
            continue
        blocks.append(Table(title, ("", *names), rows[:_MOST]))
        if rows := _unlike(contents):
            note = "Numbers made by different protocols do not compare."
            everything = frozenset(range(len(names) + 1))
            caption = f"Protocols of “{title}” that differ"
            blocks.append(Table(caption, ("", *names), rows, everything, note))
    return blocks


def _unlike(contents: Sequence[Mapping]) -> list[Row]:
    """What differs between the protocols of a file of scores, and between those of a distance or a
    measure that several of the runs have."""
    own = [section(content, "protocol") for content in contents]
    of_parts = [measured.protocols(content) for content in contents]
    groups = {"": [{k: v for k, v in p.items() if k not in ("seconds", "step")} for p in own]}
    for name in dict.fromkeys(name for parts in of_parts for name in parts):
        groups[f"{name}: "] = [parts.get(name, {}) for parts in of_parts]
    rows = []
    for name, protocols in groups.items():
        for key in dict.fromkeys(key for protocol in protocols for key in protocol):
            values = [protocol.get(key) for protocol in protocols]
            if len({words.plain(v) for v, p in zip(values, protocols, strict=True) if p}) > 1:
                shown = (NOTHING if v is None else words.shown(v) for v in values)
                rows.append(Row((f"{name}{words.titled(str(key))}", *shown), 0, True))
    return rows


def _by_path(content: Mapping) -> dict[tuple[str, ...], str]:
    """The rows of a table by their titles and those above them."""
    rows: list[Row] = []
    _collect(content, 0, rows, [], [])
    rows += [Row((name, value)) for name, value in measured.shown(content).items()]
    above: list[str] = []
    named = {}
    for row in rows[:_MOST]:
        above = [*above[: row.depth], row.cells[0]]
        named[tuple(above)] = row.cells[1]
    return named


def _merged(columns: Sequence[Mapping]) -> list[tuple[str, ...]]:
    """The rows of all columns; those that only later ones have follow their kin."""
    order: list[tuple[str, ...]] = []
    for column in columns:
        for path in column:
            if path not in order:
                kin = [i for i, other in enumerate(order) if other[: len(path) - 1] == path[:-1]]
                order.insert(kin[-1] + 1 if kin else len(order), path)
    return order
