"""Frozen models of other runs, stored once in `frozen/NAME/` of a workdir.

Their variables never change, so checkpoints do not contain them. They are written before the first
checkpoint. Each ends with a manifest of sizes and checksums; a folder without one is unfinished.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orbax.checkpoint as ocp

from genzoo.core.errors import UserError, cause
from genzoo.core.files import beside
from genzoo.core.types import Tree
from genzoo.runtime.agreement import agreed, by_first
from genzoo.train.manifest import MANIFEST, damage, write_manifest

_ARRAYS = "variables"


@dataclass(frozen=True)
class FrozenModels:
    """The frozen models of one run. directory: holds one folder for each model."""

    directory: Path

    def has(self, names: Mapping[str, Tree]) -> bool:
        """Whether all models with these names were written completely."""
        return all((self._folder(name) / MANIFEST).is_file() for name in names)

    def write(self, models: Mapping[str, Tree]) -> None:
        """Writes the models, replacing existing ones. Every process writes its own shards.

        models: name -> {"params": .., "stats": ..}. Raises UserError if one cannot be written.
        """
        for name, variables in models.items():
            folder = self._folder(name)
            by_first(lambda folder=folder: _cleared(folder))
            try:
                with ocp.StandardCheckpointer() as writer:
                    writer.save(folder / _ARRAYS, variables)
            except OSError as error:
                raise UserError(
                    f"The frozen model {folder} could not be written ({cause(error)}). "
                    "Free some space or repair the disk, and start the run again."
                ) from error
            by_first(lambda folder=folder: write_manifest(folder))

    def read(self, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """The models with the names, shapes and shardings of `abstract`, by name.

        Raises UserError if one is missing, damaged or has other shapes.
        """
        agreed(lambda: [self._check(name) for name in abstract])
        return {name: self._read(name, target) for name, target in abstract.items()}

    def _check(self, name: str) -> None:
        folder = self._folder(name)
        reason = damage(folder, _ARRAYS) if (folder / MANIFEST).is_file() else "it is missing"
        if reason:
            raise UserError(
                f"The frozen model {folder}, which this run was trained with, cannot be used "
                f"({reason}): restore the folder from a copy of --workdir."
            )

    def _read(self, name: str, target: Tree) -> Tree:
        folder = self._folder(name)
        try:
            with ocp.StandardCheckpointer() as reader:
                return reader.restore(folder / _ARRAYS, target)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} holds other arrays than frozen.{name} of this config makes "
                f"({str(error).splitlines()[0]}). Use the config of the run."
            ) from error

    def _folder(self, name: str) -> Path:
        return self.directory.absolute() / name


def _cleared(folder: Path) -> None:
    """Removes a folder, and renames anything else in its place: of a pipe, the removal of a tree
    would wait for somebody to write into it."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    elif os.path.lexists(folder):
        folder.rename(beside(folder, f"replaced-{folder.name}"))
