"""Files outside a data set: one or several by name, or all those below a folder."""

from collections.abc import Sequence
from pathlib import Path

from genzoo.core.errors import UserError, refuse
from genzoo.core.files import expanded, walk
from genzoo.data import holding, pixels
from genzoo.data.fields import Field, Image
from genzoo.data.folder import FolderSource
from genzoo.data.source import ArraySource, Source, Spec


def existing(file: str, key: str) -> Path:
    """The path of an existing file. key: the config key to name in the UserError otherwise."""
    path = expanded(file)
    if not path.is_file():
        raise UserError(f"{key} = {file!r}: there is no such file; give the path of an image.")
    return path


def below(folder: str, key: str, field: Field) -> list[Path]:
    """The files below a folder that hold one value of a field each, by their endings; sorted.

    Hidden files and folders are skipped. Raises UserError if there are none. key: the config key to
    name in it.
    """
    top = expanded(folder)
    if not top.is_dir():
        raise UserError(f"{key} = {folder!r}: there is no such folder.")
    files = [
        top / place / name
        for place, names in walk(top)
        for name in names
        if Path(name).suffix.lower() in field.suffixes
    ]
    if not files:
        known = ", ".join(sorted(field.suffixes))
        raise UserError(f"{key} = {folder!r} holds no {field.plural} (known endings: {known}).")
    return sorted(files)


def open_files(
    files: Sequence[Path], field: Image, memory_limit: int = holding.MEMORY_LIMIT
) -> Source:
    """The files as records of one image each, in the given order; held in memory if they fit.

    field: how each image is fitted. memory_limit: bytes of decoded images. Raises a UserError that
    lists the unusable files and the reasons.
    """
    fit = field.fit
    images, _, problems = holding.decode_all(
        lambda index: pixels.read(files[index], fit),
        len(files),
        fit.shape,
        title="reading images",
        keep=len(files) * field.bytes <= memory_limit,
    )
    refuse([
        f"{files[index]} cannot be used as an image: {why}." for index, why in problems.items()
    ])
    spec, name = Spec(fields={"x": field}), "the image files"
    if images is None:
        return FolderSource(name=name, spec=spec, files={"x": tuple(files)})
    return ArraySource(name=name, spec=spec, arrays={"x": images})
