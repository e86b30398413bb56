"""The folders in `samples/` of a workdir: their names, and whose samples they hold."""

import logging
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

from genzoo.config import differences, read_json
from genzoo.core import strict_json
from genzoo.core.errors import UserError

SAMPLE_SETTINGS = "settings.json"
"""The file with the settings of a folder of samples."""
LATEST = "latest"
"""The name of the link to the newest folder."""
_MAX_NAME = 100  # characters in the name of a folder
_log = logging.getLogger("genzoo")


def folder_name(step: int, changed: dict) -> str:
    """step_00001800_method=heun_steps=20, limited in length and to characters that every file
    system accepts."""
    parts = [f"step_{step:08d}"]
    for key, value in changed.items():
        if not isinstance(value, int | float):  # whose minus counts
            value = re.sub(r"[^\w.,+-]+", "-", str(value)).strip("-.")
        parts.append(f"{key}={value}")
    name = "_".join(parts)
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[:_MAX_NAME]}_{zlib.crc32(strict_json.dumps(changed).encode()):08x}"


def other_samples(folder: Path, settings: dict) -> str:
    """Why a folder cannot be used for samples with these settings; "" if it can."""
    file = folder / SAMPLE_SETTINGS
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return ""
    if not file.is_file():
        return f"exists and has no {SAMPLE_SETTINGS}"
    try:
        before = read_json(file).get("sample", {})
    except UserError:
        before = None
    if not isinstance(before, Mapping):
        return f"has a damaged {SAMPLE_SETTINGS}"
    changed = differences(before, settings)
    shown = [f"{key} = {before!r}" for key, (before, _) in changed.items()]
    return f"holds samples with {', '.join(shown)}" if shown else ""


def point_latest_to(folder: Path) -> None:
    """Makes `samples/latest` point to a folder of samples: by a link, or by a copy if the file
    system has no links. Something else of this name is left unchanged."""
    link, beside = folder.parent / LATEST, folder.parent / f".{LATEST}"
    copied = link.is_dir() and not link.is_symlink()
    if copied and not (link / SAMPLE_SETTINGS).is_file():
        _log.warning("%s is left unchanged, because it holds no samples.", link)
        return
    if copied:
        shutil.rmtree(link)
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder.name, target_is_directory=True)
        os.replace(beside, link)
    except OSError:  # not every file system has links
        beside.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
        shutil.copytree(folder, link)
