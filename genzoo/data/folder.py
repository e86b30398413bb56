"""Any folder of images as a data set: grey, colour, transparent, 16-bit, of any size.

Classes, captions and numbers come from sub-folders, metadata and text files (see `listing`). Every
file is decoded once at the start, and unusable files are listed with the reasons before the first
training step.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from genzoo.core.errors import UserError, abridged
from genzoo.core.files import expanded
from genzoo.data import holding, listing, metadata, pixels
from genzoo.data.fields import Field, Image
from genzoo.data.listing import Listing, Part
from genzoo.data.pixels import Fit
from genzoo.data.source import ArraySource, Records, Source, Spec, check_split, content_of


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderSource:
    """Images read from their files each time: a set too large for memory.

    files: for every image field, one file per record. arrays: the other fields, [N, ...].
    content: the CRC-32 of all records (see `source.content_of`).
    """

    name: str
    spec: Spec
    files: Mapping[str, tuple[Path, ...]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    content: int = 0
    pixel_limit: int = Fit.pixel_limit

    def __len__(self) -> int:
        return len(self.files["x"])

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices; raises a UserError if a file has become unreadable."""
        images = {name: self._images(name, indices) for name in self.files}
        return images | {name: array[indices] for name, array in self.arrays.items()}

    def identity(self) -> dict[str, int]:
        """That of all records; the places and the names of the files do not matter."""
        return {"content": self.content}

    def _images(self, name: str, indices: np.ndarray) -> np.ndarray:
        fit = replace(self.spec.fields[name].fit, pixel_limit=self.pixel_limit)
        return np.stack([_again(self.files[name][index], fit) for index in indices])


def _again(file: Path, fit: Fit) -> np.ndarray:
    try:
        return pixels.read(file, fit)
    except pixels.BadImage as reason:
        raise UserError(f"{file} can no longer be read: {reason}.") from reason


def images_of(
    path: str,
    *,
    holdout: int = listing.HOLDOUT,
    labels: bool = True,
    wanted: Collection[str] = metadata.EVERYTHING,
    classes: Sequence[str] = (),
) -> Listing:
    """The image files of a folder with their annotations; no image is opened. See `listed`."""
    return listing.listed(
        path, kind="folder", suffixes=pixels.SUFFIXES, holdout=holdout, labels=labels,
        wanted=wanted, classes=classes,
    )  # fmt: skip


def open_folder(
    path: str,
    *,
    size: int | tuple[int, ...],
    channels: int = 3,
    resize: str = "crop",
    split: str = "train",
    holdout: int = listing.HOLDOUT,
    labels: bool = True,
    classes: Sequence[str] = (),
    fields: Mapping[str, Field] = MappingProxyType({}),
    pixel_limit: int = Fit.pixel_limit,
    memory_limit: int = holding.MEMORY_LIMIT,
) -> Source:
    """The images below `path` as uint8 [N, height, width, channels], with labels if there are any.

    size, channels, resize, pixel_limit: see `pixels.Fit`; transparent pixels become white.
    split: "train" or "test". holdout, labels, classes: see `listing.listed`. fields: the fields
    `text` and `properties`, if these are wanted too. memory_limit: bytes up to which the decoded
    set is held in memory.

    Images are sorted by path. Every image is decoded once here; for the training split, the test
    images are too. Raises UserError, also for unreadable files.
    """
    check_split(split)
    fit = Fit(size=size, channels=channels, resize=resize, pixel_limit=pixel_limit)
    found = images_of(
        path, holdout=holdout, labels=labels, wanted=("label", *fields), classes=classes
    )
    part = found.part(split)
    others, arrays = found.others(split, fields)
    spec = Spec(fields={"x": Image(shape=fit.shape, resize=resize), **others})
    fits = len(part.files) * sum(each.bytes for each in spec.fields.values()) <= memory_limit
    images, checksums, unreadable = _decoded(part, fit, "reading", keep=fits)
    if split == "train":
        # Report unreadable test images now, not after training.
        unreadable |= _decoded(found.parts["test"], fit, "checking", keep=False)[2]
    if unreadable:
        raise UserError(*_complaint(expanded(path), unreadable))
    if images is not None:
        return ArraySource(name=found.name, spec=spec, arrays={"x": images, **arrays})
    return FolderSource(
        name=found.name,
        spec=spec,
        files={"x": part.paths},
        arrays=arrays,
        content=content_of(checksums, arrays),
        pixel_limit=pixel_limit,
    )


def _decoded(
    part: Part, fit: Fit, doing: str, keep: bool
) -> tuple[np.ndarray | None, np.ndarray, dict[Path, str]]:
    """(the images if they are kept, their checksums, the reason for each unreadable file)."""
    decoded = holding.decode_all(
        lambda index: pixels.read(part.root / part.files[index], fit),
        len(part.files),
        fit.shape,
        title=f"{doing} {part.root.name}",
        keep=keep,
    )
    unreadable = {part.root / part.files[index]: why for index, why in decoded.problems.items()}
    return decoded.images, decoded.checksums, unreadable


def _complaint(root: Path, problems: dict[Path, str]) -> list[str]:
    lines = abridged([f"{file}: {why}." for file, why in problems.items()])
    count = "1 image file" if len(problems) == 1 else f"{len(problems)} image files"
    return [f"{count} in {root} cannot be read; remove or replace these:", *lines]
