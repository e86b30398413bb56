"""From the plain dict of a config to the resolved config of a run, for flags and Python alike."""

from pathlib import Path

from ml_collections import FrozenConfigDict

from genzoo import build, check, runs
from genzoo.config import freeze
from genzoo.workdir import Workdir


def resolved(
    raw: dict, workdir: Path | None = None, devices: int | None = None
) -> FrozenConfigDict:
    """The config with every default in place, checked, with what its data and its frozen models say
    filled in. workdir: of the run, which may know what the data said when it began. devices: how
    many it is for, those at hand if None. Raises UserError."""
    place = Workdir(workdir) if workdir else None
    stored = place.config() if place else None
    checked = check.check(raw, devices)
    if stored and not checked.data.num_classes and stored["data"]["num_classes"]:
        # Counted when the run began; the data need not be here any more.
        known = {**checked.data, "num_classes": stored["data"]["num_classes"]}
        checked = freeze(checked.to_dict() | {"data": known})
    begun = stored if stored and place.begun else None
    return runs.resolve(build.settled(checked), begun)
