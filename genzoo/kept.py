"""Copies of the small files outside a workdir that its run needs, so that the workdir is enough.

These are the `tokenizer.json` files named in `data.tokenizer` by the config of the run and by those
of its frozen models. The copies are kept beside `config.json`; a stored config is always read with
the paths of the copies, even if the workdir has moved.
"""

import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import expanded, write_atomically
from genzoo.data.vocabulary import file_of, is_file


def _places(config: Mapping, name: str = "tokenizer") -> Iterator[tuple[str, Mapping]]:
    """(name of the copy, section `data`) for the config and those of its frozen models, where the
    section names a file that is in use."""
    data = config.get("data", {})
    if data.get("tokens") and is_file(data["tokenizer"]):
        yield f"{name}.json", data
    for stage, own in config.get("frozen", {}).items():
        yield from _places(own.get("config", {}), f"{name}.{stage}")


def keep(folder: Path, config: Mapping) -> None:
    """Copies the files that a config names into the folder of its run."""
    for name, data in _places(config):
        original = file_of(data["tokenizer"])
        if original.resolve() != (folder / name).resolve():
            write_atomically(folder / name, original.read_bytes())


def redirected(folder: Path, config: dict) -> dict:
    """The config in a folder, with the paths of the copies there in place of the originals. Changes
    its argument in place."""
    for name, data in _places(config):
        if (folder / name).is_file():
            data["tokenizer"] = str(folder / name)
    return config


def as_begun(given: str, stored: str) -> str:
    """The `data.tokenizer` with which a run resumes: that of its stored config.

    given: that of the new config, whose file may be gone. Raises UserError if it is a different
    tokenizer.
    """
    here, there = expanded(given), expanded(stored)
    if not (is_file(given) and is_file(stored)) or (here.is_file() and not there.is_file()):
        return given
    if here.is_file() and not filecmp.cmp(here, there, shallow=False):
        raise UserError(
            f"data.tokenizer = {given!r} is not the tokenizer with which the run began, {stored}: "
            "give that one, or another --workdir."
        )
    return stored
