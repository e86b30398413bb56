"""Checkpoints by Orbax, with what Orbax does not give: a damaged one is never loaded in silence.

A save is asynchronous. When it has reached the disk, a manifest of sizes and checksums is written
beside the arrays, last and in one move; a folder without one was not finished. On loading every
file is compared: a damaged checkpoint is set aside (never deleted), the next older one is tried,
and if none is left the run stops and says so.
"""

import json
import logging
import os
import shutil
import threading
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from genzoo.core.errors import UserError
from genzoo.train.state import TrainState

MANIFEST = "genzoo_manifest.json"
_log = logging.getLogger("genzoo")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def write_manifest(folder: Path) -> None:
    """Size and CRC-32 of every file below `folder`, written aside and moved into place."""
    entries = {
        p.relative_to(folder).as_posix(): [p.stat().st_size, _checksum(p)] for p in _files(folder)
    }
    aside = folder / (MANIFEST + ".tmp")
    aside.write_text(json.dumps(entries, indent=1))
    os.replace(aside, folder / MANIFEST)


def damage(folder: Path) -> str | None:
    """What is wrong with a finished checkpoint, naming the file, or None."""
    try:
        entries = json.loads((folder / MANIFEST).read_text())
    except ValueError:
        return f"{MANIFEST} cannot be read"
    for name, (size, checksum) in entries.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _checksum(path) != checksum:
            return f"{name} has changed since it was written"
    return None


@dataclass(kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    directory: holds one folder per step. keep: how many of the newest stay. keep_every: steps at
    multiples of it stay for good, 0 for none.
    """

    directory: Path
    keep: int = 2
    keep_every: int = 0

    def __post_init__(self):
        self._manager: ocp.CheckpointManager | None = None
        self._finishing: threading.Thread | None = None
        self.last_saved: int | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._manager = ocp.CheckpointManager(
                self.directory.absolute(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self.keep,
                    keep_period=self.keep_every or None,
                    create=True,
                    cleanup_tmp_directories=True,
                ),
            )
        return self._manager

    def steps(self) -> list[int]:
        """The steps with a finished checkpoint, newest first; damaged ones included."""
        if not self.directory.is_dir():
            return []
        found = [int(p.name) for p in self.directory.iterdir() if p.name.isdigit()]
        return sorted((s for s in found if (self.folder(s) / MANIFEST).is_file()), reverse=True)

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.directory / str(step)

    def save(self, state: TrainState) -> None:
        """Begins to save and returns once the arrays are copied; waits for the save before it."""
        self.wait()
        step = int(state.step)
        if step in self.steps():
            return
        arrays = {f.name: getattr(state, f.name) for f in fields(state)}
        arrays["faults"] = vars(state.faults)
        manager = self._open()
        manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays)), force=True)

        def finish():
            manager.wait_until_finished()
            if jax.process_index() == 0:
                write_manifest(self.folder(step))
            self.last_saved = step

        self._finishing = threading.Thread(target=finish, name="finish-checkpoint")
        self._finishing.start()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None

    def restore(self, abstract: TrainState) -> TrainState | None:
        """The newest good state, or None when no save was ever finished.

        abstract: the shapes and shardings to restore into. Raises UserError when checkpoints are
        there and none of them is good, or when they are of another shape.
        """
        self._forget_unfinished()
        bad = []
        for step in self.steps():
            if reason := damage(self.folder(step)):
                aside = self.directory / f"damaged-{step}"
                _log.warning("Checkpoint %d: %s. It is set aside as %s.", step, reason, aside)
                if jax.process_index() == 0:
                    shutil.rmtree(aside, ignore_errors=True)
                    os.replace(self.folder(step), aside)
                bad.append(f"{step} ({reason})")
                continue
            return self._load(step, abstract)
        if bad:
            raise UserError(
                f"No checkpoint in {self.directory} is good: {', '.join(bad)}. "
                "Restore the folder from a copy, or start anew in another --workdir."
            )
        return None

    def _forget_unfinished(self) -> None:
        # A kill between Orbax's commit and the manifest leaves a folder that would be in the way
        # when the resumed run comes to the same step.
        if self.directory.is_dir() and jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and not (folder / MANIFEST).is_file():
                    shutil.rmtree(folder)

    def _load(self, step: int, abstract: TrainState) -> TrainState:
        target = {f.name: getattr(abstract, f.name) for f in fields(abstract)}
        target["faults"] = vars(abstract.faults)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        try:
            found = self._open().restore(step, args=args)["state"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The checkpoint {self.folder(step)} holds other arrays than this config makes "
                f"({str(error).splitlines()[0]}). Use the config it was trained with, or another "
                "--workdir."
            ) from error
        self.last_saved = step
        faults = replace(abstract.faults, **found.pop("faults"))
        return replace(abstract, faults=faults, **found)

    def close(self) -> None:
        """Waits for the last save and lets Orbax's threads go."""
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None
