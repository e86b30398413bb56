"""`--mode=compare`: the distances of several runs side by side, if their protocols agree.

Two distances can be compared if they were measured with the same network, number of samples,
reference and resizing. How the samples were drawn may differ: that is what is compared.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from genzoo.config import differences, read_json
from genzoo.core.errors import UserError

_log = logging.getLogger("genzoo")
_FREE = "sampling"  # the part of a protocol that may differ
_NUMBERS = ("value", "standard_error", "precision", "recall", "density", "coverage", "share")
_FLAGS = ("comparable", "singular")


def compare(workdirs: Sequence[Path]) -> dict:
    """{name of a distance: {workdir: its numbers}} of the first setting that each run measured.
    Raises UserError if a run has none, or if the protocols of two differ."""
    if len(workdirs) < 2:
        raise UserError("--mode=compare needs --workdirs=A,B,..., the folders of two or more runs.")
    if twice := [str(path) for path in dict.fromkeys(workdirs) if workdirs.count(path) > 1]:
        raise UserError(f"--workdirs names {twice[0]} twice: name it once.")
    measured = {str(path): _measured(path) for path in workdirs}
    shared = [name for name in next(iter(measured.values()))
              if all(name in one for one in measured.values())]  # fmt: skip
    if not shared:
        listed = "; ".join(f"{path}: {', '.join(one)}" for path, one in measured.items())
        raise UserError(f"The runs have no distance in common ({listed}): measure one in all.")
    problems = [problem for name in shared for problem in _unlike(name, measured)]
    if problems:
        raise UserError(*problems)
    table = {
        name: {path: _numbers(one[name]) for path, one in measured.items()} for name in shared
    }
    for line in _lines(table, measured):
        _log.info("%s", line)
    return {"distances": table}


def _measured(path: Path) -> Mapping[str, dict]:
    file = path / "eval.json"
    remedy = f"run --workdir={path} --mode=eval --config.eval.distances=fd_fashion first."
    if not file.is_file():
        raise UserError(f"--workdirs: {path} has no eval.json: {remedy}")
    report = read_json(file)
    settings = report.get("distances") if isinstance(report, dict) else None
    if not (isinstance(settings, list) and settings and isinstance(settings[0], dict)):
        raise UserError(f"--workdirs: {file} holds no distances: {remedy}")
    for name, one in settings[0].items():
        if not (isinstance(one, dict) and isinstance(one.get("protocol"), dict)):
            raise UserError(f"--workdirs: {file} holds {name} without its protocol: {remedy}")
    return settings[0]


def _unlike(name: str, measured: Mapping[str, Mapping[str, dict]]) -> list[str]:
    """A sentence for each run whose protocol differs from that of the first one."""
    (first, one), *others = ((path, report[name]["protocol"]) for path, report in measured.items())
    problems = []
    for path, other in others:
        differing = differences(_bound(one), _bound(other))
        problems += [
            f"{name} was measured with {key} = {a!r} in {first} and {b!r} in {path}: measure both "
            "in the same way."
            for key, (a, b) in differing.items()
        ]
    return problems


def _bound(protocol: Mapping) -> dict:
    return {key: value for key, value in protocol.items() if key != _FREE}


def _numbers(one: Mapping) -> dict:
    own = {key: one[key] for key in (*_NUMBERS, *_FLAGS) if key in one}
    ends = {key: one[key] for key in ("floor", "ceiling") if key in one}
    return {**own, **ends, _FREE: one["protocol"].get(_FREE, {})}


def _lines(table: Mapping, measured: Mapping) -> list[str]:
    width = max(map(len, measured))
    lines = []
    for name, runs in table.items():
        lines.append(name)
        for path, one in runs.items():
            numbers = [f"{key} {one[key]:.4g}" for key in _NUMBERS if key in one]
            numbers += ["not comparable"] if one.get("comparable") is False else []
            numbers += ["singular covariance"] if one.get("singular") else []
            lines.append(f"  {path:<{width}}  {', '.join(numbers)}")
    return lines
