"""The report of device.sh: one JSON file, written anew after every step.

    python tests/peers/device_report.py PART STATUS SECONDS    # how a part has ended

A part reads its surroundings from the environment that device.sh sets: OUT, the folder of results;
DEVICE_SCRATCH, a folder that is deleted at the end; DEVICE_SECONDS, the time limit of the part;
DEVICE_DRY, which asks for tiny sizes.
"""

import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = Path(os.environ.get("OUT", ROOT / "runs" / "device"))
SCRATCH = Path(os.environ.get("DEVICE_SCRATCH", "/tmp"))
DRY = bool(os.environ.get("DEVICE_DRY"))
_STARTED = time.monotonic()


def seconds_left() -> float:
    """Until the limit of this part."""
    return float(os.environ.get("DEVICE_SECONDS", 600)) - (time.monotonic() - _STARTED)


class Report:
    """What one part has found so far. Each call writes the file, by renaming a new one over it, so
    that a part that is killed leaves a whole file."""

    def __init__(self, part: str):
        self._part = part

    def start(self) -> None:
        """Forgets what an earlier call has found of this part."""
        self._write({"status": "running"})

    def put(self, *keys: str, value) -> None:
        """Sets a value at a path of keys."""
        found = read().get(self._part, {})
        place = found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if place.get(keys[-1]) == value:
            return
        place[keys[-1]] = value
        self._write(found)
        print(f"{self._part} {' '.join(keys)}: {json.dumps(value)[:400]}", flush=True)

    def end(self, status: str, seconds: float) -> None:
        """How the part has ended."""
        self._write({**read().get(self._part, {}), "status": status, "seconds": seconds})

    def _write(self, found: dict) -> None:
        whole = {**read(), self._part: found}
        OUT.mkdir(parents=True, exist_ok=True)
        new = OUT / "device.json.new"
        new.write_text(json.dumps(whole, indent=1))
        new.replace(OUT / "device.json")


def read() -> dict:
    """The whole report: by part, its `status`, its `seconds` and what it has found."""
    file = OUT / "device.json"
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    Report(sys.argv[1]).end(sys.argv[2], float(sys.argv[3]))
