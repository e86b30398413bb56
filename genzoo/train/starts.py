"""`run.json`: how, where and for how long a run was trained, one entry for each start.

    {"starts": [{"id": ..., "started": ..., "command": ..., "config": ..., "changed": {...},
                 "from_step": ..., "to_step": ..., "seconds": {...}, "device": ..., ...}]}

Nothing reads it back but the report, so a run with a damaged one goes on.
"""

import datetime
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genzoo.core import strict_json
from genzoo.core.files import Unreadable, read_bytes, write_atomically
from genzoo.runtime.machine import machine
from genzoo.train.account import Account

FILE = "run.json"
_MOST = 200  # entries; of more the first and the newest are kept


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a start came from. command: the command line; "" from Python. config: as --config
    names it; "" if the workdir was resumed without one. changed: dotted key -> (value in that
    config, value in this run)."""

    command: str = ""
    config: str = ""
    changed: Mapping[str, tuple] = field(default_factory=dict)


class Start:
    """The entry of this start, written when it begins and when it ends."""

    def __init__(self, workdir: Path, origin: Origin, step: int):
        self._path = workdir / FILE
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._entry = {
            "id": secrets.token_hex(8),
            "started": now,
            "command": origin.command,
            "config": origin.config,
            "changed": {k: list(values) for k, values in origin.changed.items()},
            "from_step": step,
            "to_step": step,
            **machine(),
        }

    def write(self, step: int, account: Account, **facts: object) -> None:
        """Writes the entry: the step that is reached, the time, and further facts by name."""
        seconds = {name: round(each, 3) for name, each in account.seconds().items()}
        self._entry |= {"to_step": step, "seconds": seconds, **facts}
        # Read again, because another process may have begun to train here.
        entries = _entries(self._path)
        ids = [entry.get("id") for entry in entries]
        place = ids.index(self._entry["id"]) if self._entry["id"] in ids else len(entries)
        entries[place : place + 1] = [self._entry]
        if len(entries) > _MOST:
            entries = [entries[0], *entries[1 - _MOST :]]
        write_atomically(self._path, strict_json.dumps({"starts": entries}, indent=2) + "\n")


def _entries(path: Path) -> list[dict]:
    try:
        starts = strict_json.loads(read_bytes(path)).get("starts", [])
    except (Unreadable, ValueError, AttributeError):
        return []
    return [start for start in starts if isinstance(start, dict)] if type(starts) is list else []
