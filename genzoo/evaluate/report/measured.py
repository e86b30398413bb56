"""The distances of `eval.json` as tables: with floor, ceiling and protocol, and over settings."""

from collections.abc import Mapping, Sequence

from genzoo.evaluate.report import words
from genzoo.evaluate.report.charts import NOTHING
from genzoo.evaluate.report.folder import section
from genzoo.evaluate.report.parts import Row, Table

KEY = "distances"
"""Of the file: a list with a section for each setting, which holds one for each distance."""
_ERRORS = {"value": ("standard_error", "deviation")}
_NOT_NUMBERS = frozenset(("floor", "ceiling", "protocol", "singular", "comparable", "limit"))


def settings(content: Mapping) -> list[Mapping]:
    """The sections of the settings; [] if the file holds no distances."""
    measured = content.get(KEY)
    if not isinstance(measured, list):
        return []
    return [one for one in measured if isinstance(one, Mapping)]


def numbers(content: Mapping) -> dict[str, object]:
    """Name -> value of the distances that are one number, at the first setting."""
    found = settings(content)
    values = {name: section(found[0], name).get("value") for name in found[0]} if found else {}
    return {name: value for name, value in values.items() if value is not None}


def in_short(name: str, content: Mapping) -> str:
    """The protocol of a distance at the first setting, as one line; "" if it was not measured."""
    found = settings(content)
    one = section(found[0], name) if found else {}
    protocol = section(one, "protocol")
    if not protocol:
        return ""
    drawn, reference = section(protocol, "sampling"), section(protocol, "reference")
    parts = [
        f"{words.shown(protocol.get('n'))} samples against {words.shown(reference.get('n'))} "
        f"images of {words.shown(reference.get('data'))}"
    ]
    if drawn.get("method"):
        parts.append(
            f"{words.shown(drawn['method'])}, {words.shown(drawn.get('evaluations'))} evaluations"
        )
    if "value" in section(one, "floor"):
        parts.append(f"test images {words.shown(section(one, 'floor')['value'])}")
    if one.get("comparable") is False:
        parts.append("not comparable")
    return "; ".join(parts)


def tables(content: Mapping) -> list[Table]:
    """The distances at the first setting, and the values at all of them if there are several."""
    measured = settings(content)
    if not measured:
        return []
    rows, protocols = [], []
    for name in measured[0]:
        one = section(measured[0], name)
        for part, value in one.items():
            if part in _NOT_NUMBERS or part in _ERRORS["value"]:
                continue
            title = name if part == "value" else f"{name}: {part}"
            ends = (section(one, end).get(part) for end in ("floor", "ceiling"))
            cells = [_with_error(one, part, value), *map(words.shown, ends)]
            rows.append(Row((title, *cells)))
        if (line := _protocol(section(one, "protocol"))) not in protocols:
            protocols.append(line)
    head = ("Distance", "Samples", "Test images", "Noise")
    made = [Table("Distances from the training images", head, rows, note=" ".join(protocols))]
    return made + ([_over_settings(measured)] if len(measured) > 1 else [])


def _with_error(one: Mapping, part: str, value: object) -> str:
    error = next((one[key] for key in _ERRORS.get(part, ()) if key in one), None)
    return words.shown(value) + (f" ± {words.shown(error)}" if error is not None else "")


def _protocol(protocol: Mapping) -> str:
    drawn, reference = section(protocol, "sampling"), section(protocol, "reference")

    def of(place: Mapping, key: str) -> str:
        return words.shown(place.get(key))

    parts = [
        f"{of(protocol, 'n')} samples ({of(drawn, 'weights')} of step {of(drawn, 'step')}, seed "
        f"{of(drawn, 'seed')})",
        f"features of {of(protocol, 'features')}, version {of(protocol, 'version')}, hash "
        f"{of(protocol, 'hash')[:8]}, resizing {of(protocol, 'resize')}",
        f"{of(reference, 'n')} images of {of(reference, 'data')}",
    ]
    if drawn.get("method"):
        parts.append(
            f"{of(drawn, 'method')} on {of(drawn, 'grid')}, {of(drawn, 'evaluations')} "
            f"evaluations, guidance {of(drawn, 'guidance_scale')}"
        )
    return "; ".join(parts) + "."


def _over_settings(measured: Sequence[Mapping]) -> Table:
    names = [name for name in measured[0] if "value" in section(measured[0], name)]
    rows = []
    for one in measured:
        drawn = section(section(section(one, names[0]), "protocol"), "sampling") if names else {}
        given = (drawn.get(key) for key in ("steps", "evaluations", "guidance_scale"))
        values = (section(one, name).get("value") for name in names)
        rows.append(Row(tuple(NOTHING if v is None else words.shown(v) for v in (*given, *values))))
    head = ("Steps", "Evaluations", "Guidance", *names)
    return Table("Over settings", head, rows, text=frozenset())
