"""The distances and the agreement of reconstructions in `eval.json` as tables: with floor, ceiling
and protocol, and distances over settings."""

from collections.abc import Mapping, Sequence

from genzoo.evaluate.report import words
from genzoo.evaluate.report.charts import NOTHING
from genzoo.evaluate.report.folder import section
from genzoo.evaluate.report.parts import Row, Table

_DISTANCES = "distances"  # a list with a section for each setting, which holds one for each
_RECONSTRUCTIONS = "reconstructions"  # holds a section for each measure
KEYS = frozenset((_DISTANCES, _RECONSTRUCTIONS))
"""Of the file: what is shown by `tables`."""
_ERRORS = {"value": ("standard_error",)}
_NOT_NUMBERS = frozenset(("floor", "ceiling", "protocol", "singular", "comparable", "limit"))


def settings(content: Mapping) -> list[Mapping]:
    """The sections of the settings; [] if the file holds no distances."""
    measured = content.get(_DISTANCES)
    if not isinstance(measured, list):
        return []
    return [one for one in measured if isinstance(one, Mapping)]


def shown(content: Mapping) -> dict[str, str]:
    """Name -> number, with its error if it has one, of the distances at the first setting and of
    the measures of reconstructions."""
    found = settings(content)
    sections = {**(found[0] if found else {}), **section(content, _RECONSTRUCTIONS)}
    return {
        _called(name, part): _with_error(one, part, value)
        for name in sections
        for one in [section(sections, name)]
        for part, value in one.items()
        if _is_number(part)
    }


def protocols(content: Mapping) -> dict[str, dict[str, object]]:
    """Name -> key -> value: what each of these depends on, besides how samples were drawn."""
    found = settings(content)
    sections = {**(found[0] if found else {}), **section(content, _RECONSTRUCTIONS)}
    flat: dict[str, dict[str, object]] = {name: {} for name in sections}
    for name, own in flat.items():
        for key, value in section(section(sections, name), "protocol").items():
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            if key not in ("sampling", "step"):
                own |= {f"{key} {part}".strip(): one for part, one in parts}
    return flat


def _is_number(part: str) -> bool:
    return part not in _NOT_NUMBERS and part not in _ERRORS["value"]


def _called(name: str, part: str) -> str:
    return name if part == "value" else f"{name}: {part}"


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
    """The distances at the first setting, the values at all of them if there are several, and the
    measures of reconstructions."""
    measured, copies = settings(content), section(content, _RECONSTRUCTIONS)
    made = []
    if measured:
        made.append(_table("Distances from the training images", "Samples", measured[0]))
    if len(measured) > 1:
        made.append(_over_settings(measured))
    if copies:
        made.append(_table("Reconstructions", "Reconstructions", copies))
    return made


def _table(title: str, column: str, measured: Mapping) -> Table:
    """Numbers by name, each with its floor, ceiling and protocol. column: what they are of."""
    rows, protocols = [], []
    for name in measured:
        one = section(measured, name)
        for part, value in one.items():
            if not _is_number(part):
                continue
            ends = (section(one, end).get(part) for end in ("floor", "ceiling"))
            cells = [_with_error(one, part, value), *map(_shown, ends)]
            rows.append(Row((_called(name, part), *cells)))
        if (line := _protocol(section(one, "protocol"))) not in protocols:
            protocols.append(line)
    ends = ("Test images", "Noise") if column == "Samples" else ("Other split", "Noise")
    return Table(title, ("Measure", column, *ends), rows, note=" ".join(protocols))


def _shown(value: object) -> str:
    return NOTHING if value is None else words.shown(value)


def _with_error(one: Mapping, part: str, value: object) -> str:
    error = next((one[key] for key in _ERRORS.get(part, ()) if key in one), None)
    return words.shown(value) + (f" ± {words.shown(error)}" if error is not None else "")


def _protocol(protocol: Mapping) -> str:
    drawn, reference = section(protocol, "sampling"), section(protocol, "reference")
    inverted, what = section(protocol, "inversion"), "samples" if drawn else "reconstructions"

    def of(place: Mapping, key: str) -> str:
        return words.shown(place.get(key))

    model = drawn or protocol
    parts = [
        f"{of(protocol, 'n')} {what} ({of(model, 'weights')} of step {of(model, 'step')}, seed "
        f"{of(model, 'seed')})",
    ]
    if "features" in protocol:
        parts.append(
            f"features of {of(protocol, 'features')}, version {of(protocol, 'version')}, hash "
            f"{of(protocol, 'hash')[:8]}, resizing {of(protocol, 'resize')}"
        )
    elif "network" in protocol:
        parts.append(f"network {of(protocol, 'network')}, hash {of(protocol, 'hash')[:8]}")
    if "data" in reference:
        parts.append(f"{of(reference, 'n')} images of {of(reference, 'data')}")
    if "split" in protocol and not drawn:
        parts.append(f"the {of(protocol, 'split')} split of {of(protocol, 'data')}")
    if inverted:
        settings = ", ".join(f"{key} {of(inverted, key)}" for key in inverted)
        parts.append(f"by DDIM inversion ({settings})")
    if drawn.get("method"):
        parts.append(
            f"{of(drawn, 'method')} on {of(drawn, 'grid')}, {of(drawn, 'evaluations')} "
            f"evaluations, guidance {of(drawn, 'guidance_scale')}"
        )
    return "; ".join(parts) + "."


def _drawn(measured: Mapping) -> Mapping:
    """How the samples of a setting were drawn."""
    one = section(measured, next(iter(measured), ""))
    return section(section(one, "protocol"), "sampling")


def _over_settings(measured: Sequence[Mapping]) -> Table:
    names = [name for name in measured[0] if "value" in section(measured[0], name)]
    columns = {"steps": "Steps", "evaluations": "Evaluations", "guidance_scale": "Guidance"}
    settings = [_drawn(one) for one in measured]
    if any("classifier_scale" in drawn for drawn in settings):
        columns["classifier_scale"] = "Classifier scale"
    rows = []
    for one, drawn in zip(measured, settings, strict=True):
        given = (drawn.get(key) for key in columns)
        values = (section(one, name).get("value") for name in names)
        rows.append(Row(tuple(map(_shown, (*given, *values)))))
    head = (*columns.values(), *names)
    return Table("Over settings", head, rows, text=frozenset())
