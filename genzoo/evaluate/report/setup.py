"""How a run was started: its command, what differs from the named config, and all settings."""

from collections.abc import Mapping, Sequence

from genzoo.evaluate.report import words
from genzoo.evaluate.report.account import environment
from genzoo.evaluate.report.charts import NOTHING
from genzoo.evaluate.report.folder import Folder, section
from genzoo.evaluate.report.parts import Command, Facts, Folded, Prose, Row, Section, Table

_MOST_COMMANDS = 6
_ALL_TEXT = frozenset((0, 1, 2))


def setup_section(folder: Folder, defaults: Mapping[str, object]) -> Section:
    """The command, the config and the environment. defaults: dotted key -> its default."""
    blocks: list = []
    started = [start for start in folder.starts if start.get("command")]
    for i, start in enumerate(started[:1] + started[1:][-_MOST_COMMANDS:]):
        resumed = start.get("from_step")
        label = "Command" if i == 0 else f"Resumed at step {words.shown(resumed)}"
        blocks.append(Command(label, broken(str(start["command"]))))
    blocks += _changes(folder)
    flat = flattened(folder.config)
    if flat:
        unusual = {k: v for k, v in flat.items() if k in defaults and not _same(v, defaults[k])}
        free = {k: v for k, v in flat.items() if k not in defaults}
        rows = [
            Row((k, words.plain(v), words.plain(defaults[k]) if k in defaults else ""))
            for k, v in flat.items()
            if k in unusual or (k in free and not folder.starts)
        ]
        head = ("Key", "Value", "Default")
        if rows and not named_config(folder):
            label = f"{len(rows)} settings that differ from the defaults"
            blocks.append(Folded(label, [Table("", head, rows, _ALL_TEXT)]))
        every = [Row((k, words.plain(v)), marked=k in unusual) for k, v in flat.items()]
        table = Table("", ("Key", "Value"), every, _ALL_TEXT)
        blocks.append(Folded(f"All {len(flat)} settings", [table]))
    if facts := environment(folder):
        blocks.append(Facts(facts))
    elif flat:
        missing = "The command and the environment of this run were not recorded."
        blocks.append(Prose([missing], quiet=True))
    return Section("setup", "Setup", blocks)


def named_config(folder: Folder) -> str:
    """The config that the run was started with, such as ddpm_fashion:laptop; "" if unknown."""
    named = [start.get("config") for start in folder.starts if start.get("config")]
    return str(named[-1]) if named else ""


def _changes(folder: Folder) -> list:
    """What differs from the named config, by the start that named one and those after it."""
    changed: dict[str, Sequence] = {}
    for start in folder.starts:
        if start.get("config"):
            changed = {}
        for key, values in section(start, "changed").items():
            if isinstance(values, list) and len(values) == 2:
                before = changed.get(str(key), values)[0]
                changed[str(key)] = (before, values[1])
    name = named_config(folder)
    if not name:
        return []
    if not changed:
        return [Prose([f"As in the config {name}, without changes."])]
    rows = [Row((k, words.plain(b), words.plain(a))) for k, (a, b) in changed.items()]
    caption = f"What differs from {name}"
    return [Table(caption, ("Key", "This run", name), rows, _ALL_TEXT)]


def broken(command: str) -> str:
    """A long command in lines, as a shell takes it."""
    return command if len(command) <= 88 else command.replace(" --", " \\\n    --")


def flattened(values: Mapping, where: str = "") -> dict[str, object]:
    """Dotted key -> value of a config."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        place = f"{where}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{place}.")
        else:
            flat[place] = value
    return flat


def _same(one: object, other: object) -> bool:
    return words.plain(one) == words.plain(other)


def compared(folders: Sequence[Folder], names: Sequence[str]) -> list:
    """The settings in which several runs differ."""
    flat = [flattened(folder.config) for folder in folders]
    keys = sorted({k for each in flat for k in each})
    rows = [
        Row((k, *(words.plain(each[k]) if k in each else NOTHING for each in flat)))
        for k in keys
        if len({words.plain(each.get(k)) for each in flat}) > 1
    ]
    if not rows:
        return [Prose(["These runs have the same settings."])]
    table = Table("", ("Key", *names), rows, frozenset(range(len(names) + 1)))
    return [Folded(f"{len(rows)} settings that differ", [table])]
