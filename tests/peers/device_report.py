"""The report of device.sh: one JSON file, rewritten after every step.

    python tests/peers/device_report.py PART STATUS SECONDS    # records how a part ended

device.sh sets the environment of a part: OUT, the folder of results; DEVICE_SCRATCH, a folder that
is deleted at the end; DEVICE_SECONDS, the time limit of the part; DEVICE_DRY, for tiny sizes.
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
    """Seconds until the time limit of this part."""
    return float(os.environ.get("DEVICE_SECONDS", 600)) - (time.monotonic() - _STARTED)


class Report:
    """The results of one part so far. Each call replaces the file atomically, so that a part that
    is killed leaves a complete file."""

    def __init__(self, part: str):
        self._part = part

    def start(self) -> None:
        """Discards the results of this part from an earlier call."""
        self._write({"status": "running"})

    def put(self, *keys: str, value) -> None:
        """Sets a value at a path of keys."""
        results = read().get(self._part, {})
        place = results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if place.get(keys[-1]) == value:
            return
        place[keys[-1]] = value
        self._write(results)
        print(f"{self._part} {' '.join(keys)}: {json.dumps(value)[:400]}", flush=True)

    def end(self, status: str, seconds: float) -> None:
        """Records how the part ended."""
        self._write({**read().get(self._part, {}), "status": status, "seconds": seconds})

    def _write(self, results: dict) -> None:
        whole = {**read(), self._part: results}
        OUT.mkdir(parents=True, exist_ok=True)
        new = OUT / "device.json.new"
        new.write_text(json.dumps(whole, indent=1))
        new.replace(OUT / "device.json")


def read() -> dict:
    """The whole report: part -> its `status`, `seconds` and results."""
    file = OUT / "device.json"
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    Report(sys.argv[1]).end(sys.argv[2], float(sys.argv[3]))
