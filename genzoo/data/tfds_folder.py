"""Prepared TensorFlow Datasets sets as files: finding one, and opening it without running its code.

A prepared set is a folder DIR/NAME[/CONFIG]/VERSION of records with their description. The
description names Python classes, which TFDS imports. Here they must be among `FEATURES`, and
nothing but the folder is asked for a set, since TFDS would also run the code of others
(`huggingface:NAME`).
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from genzoo.core import strict_json
from genzoo.core.errors import UserError
from genzoo.core.files import expanded, read_text, walk

FEATURES = frozenset((
    "BBoxFeature", "ClassLabel", "FeaturesDict", "Image", "LabeledImage", "Scalar", "Sequence",
    "Tensor", "Text", "Translation", "TranslationVariableLanguages",
))  # fmt: skip
"""The kinds of features that a prepared set may have: those that only convert bytes to arrays."""
_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.(\w+)")
_CLASS_KEYS = ("type", "pythonClassName", "python_class_name")
_DESCRIPTION, _FEATURES = "dataset_info.json", "features.json"
_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>[\d.*]+))?")


def data_dir(directory: str) -> Path:
    """The folder of all prepared sets: the given one, $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    named = directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expanded(named)


def check_name(name: str) -> re.Match:
    """NAME, NAME/CONFIG or NAME:VERSION in its parts. Raises UserError for other builders."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UserError(
            f"tfds:{name} is not read: only prepared sets are, by NAME, NAME/CONFIG or "
            "NAME:VERSION; builders of others, such as huggingface:NAME, run their code."
        )
    return parts


def find(name: str, directory: str = "") -> Path | None:
    """The folder of the newest fitting version of a set, if there is one. Raises UserError."""
    parts = check_name(name)
    root = data_dir(directory) / parts["name"] / (parts["config"] or "")
    versions = _versions(root)
    if not versions and not parts["config"]:
        configs = {place.name: found for place in _folders(root) if (found := _versions(place))}
        if len(configs) > 1:
            names = ", ".join(f"tfds:{parts['name']}/{config}" for config in sorted(configs))
            raise UserError(f"tfds:{name} is prepared in several configs: give one of {names}.")
        versions = next(iter(configs.values()), {})
    if not versions:
        return None
    pattern = re.escape(parts["version"] or "*.*.*").replace(r"\*", r"\d+")
    fitting = [version for version in versions if re.fullmatch(pattern, version)]
    if not fitting:
        raise UserError(
            f"tfds:{name} is not among the prepared versions in {root}, only: "
            f"{', '.join(sorted(versions))}."
        )
    return versions[max(fitting, key=lambda version: [int(n) for n in version.split(".")])]


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(place for place in root.iterdir() if place.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read ({error.strerror}).") from error


def _versions(root: Path) -> dict[str, Path]:
    """The folders of a set's versions that are complete, by version."""
    return {
        place.name: place
        for place in _folders(root)
        if re.fullmatch(r"\d+\.\d+\.\d+", place.name) and os.path.lexists(place / _FEATURES)
    }


def opened(folder: Path) -> Any:
    """The TFDS builder of the prepared set in a folder, for reading. Raises a UserError for damaged
    descriptions, for features that are not among `FEATURES`, and for what is not a file."""
    for below, names in walk(folder):
        for name in names:
            if not (folder / below / name).is_file():
                raise UserError(f"{folder / below / name} is not a file: remove or replace it.")
    _check_features(folder / _FEATURES)
    read_text(folder / _DESCRIPTION)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        files = [Path(file) for split in builder.info.splits.values() for file in split.filepaths]
    except Exception as error:  # TFDS fails on damaged descriptions in too many ways to list
        raise UserError(
            f"{folder} cannot be read as a prepared TFDS set ({type(error).__name__}: {error}): "
            "restore it, or prepare it again."
        ) from error
    for file in files:
        if file.parent.resolve() != folder.resolve() or not file.is_file():
            raise UserError(f"{folder / _DESCRIPTION} names {file}, which is no file beside it.")
    return builder


def records(builder: Any, split: str, image: str) -> Any:
    """The records of a split, by index. Images of 8 or 16 bits come as the content of their files,
    which `pixels` reads: TFDS would open files of any format and size."""
    import tensorflow_datasets as tfds

    coded = builder.info.features[image].np_dtype in (np.uint8, np.uint16)
    decoders = {image: tfds.decode.SkipDecoding()} if coded else None
    return builder.as_data_source(split=split, decoders=decoders)


def _check_features(file: Path) -> None:
    """Raises UserError if a description of features names a class that is not known here."""
    try:
        waiting = [strict_json.loads(read_text(file))]
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): restore it from a copy.") from error
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting += entry
        if not isinstance(entry, dict):
            continue
        waiting += entry.values()
        for name in (entry[key] for key in _CLASS_KEYS if isinstance(entry.get(key), str)):
            known = _CLASS.fullmatch(name)
            if not (known and known[1] in FEATURES):
                raise UserError(
                    f"{file} names the class {name!r}, which is not imported: the features of a "
                    f"set may be {', '.join(sorted(FEATURES))} of TFDS."
                )
        if isinstance(entry.get("content"), str):  # an old form, with further classes in a text
            raise UserError(f"{file} has a form that is not read: prepare the set again.")
