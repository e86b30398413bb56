"""Any folder of images as a data set: grey, colour, transparent, 16-bit, of any size.

Sub-folders are classes. Every file is decoded once at the start, and unusable files are listed with
the reasons before the first training step.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data import holding, pixels
from genzoo.data.fields import Classes, Image
from genzoo.data.pixels import Fit
from genzoo.data.source import ArraySource, Records, Source, Spec, check_split

_TEST_NAMES = ("test", "val", "valid", "validation")
_LISTED = 10  # problems listed one by one; the rest are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderSource:
    """Images read from their files each time: a set too large for memory.

    files: for every image field, one file per record. arrays: the other fields, [N, ...].
    """

    name: str
    spec: Spec
    files: Mapping[str, tuple[Path, ...]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    pixel_limit: int = Fit.pixel_limit

    def __len__(self) -> int:
        return len(self.files["x"])

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices; raises a UserError if a file has become unreadable."""
        images = {name: self._images(name, indices) for name in self.files}
        return images | {name: array[indices] for name, array in self.arrays.items()}

    def checksum(self) -> int:
        """The CRC-32 of the names of the files, in order."""
        every = [file for name in sorted(self.files) for file in self.files[name]]
        names = "\n".join(f"{file.parent.name}/{file.name}" for file in every)
        return zlib.crc32(names.encode("utf-8", "surrogateescape"))

    def _images(self, name: str, indices: np.ndarray) -> np.ndarray:
        fit = replace(self.spec.fields[name].fit, pixel_limit=self.pixel_limit)
        return np.stack([_again(self.files[name][index], fit) for index in indices])


def _again(file: Path, fit: Fit) -> np.ndarray:
    try:
        return pixels.read(file, fit)
    except pixels.BadImage as reason:
        raise UserError(f"{file} can no longer be read: {reason}.") from reason


def open_folder(
    path: str,
    *,
    size: int | tuple[int, ...],
    channels: int = 3,
    resize: str = "crop",
    split: str = "train",
    holdout: int = 20,
    labels: bool = True,
    pixel_limit: int = Fit.pixel_limit,
    memory_limit: int = holding.MEMORY_LIMIT,
) -> Source:
    """The images below `path` as uint8 [N, height, width, channels], with labels if there are any.

    size, channels, resize, pixel_limit: see `pixels.Fit`; transparent pixels become white.
    split: "train" or "test". Folders `train` and `test` (or `val`, `valid`, `validation`) are used
    if they exist. Otherwise about one image in `holdout`, and at least one, is held out for testing
    by the CRC-32 of its path below the folder (a single image serves as both).
    labels: whether the top-level folders are classes, numbered in the order of their names.
    memory_limit: bytes up to which the decoded set is held in memory.

    Images are sorted by path. Raises UserError, also for unreadable files.
    """
    check_split(split)
    if holdout < 2:
        raise UserError(f"data.holdout is {holdout}: it must be at least 2 (one image in 2).")
    fit = Fit(size=size, channels=channels, resize=resize, pixel_limit=pixel_limit)
    top = Path(path).expanduser()
    if not top.is_dir():
        raise UserError(f"There is no folder {top}: give data.name as folder:PATH.")
    root, files, every = _files_of(top, split, holdout)
    if not files:
        raise UserError(
            f"The folder {root} holds no images for the {split} split "
            f"(known endings: {', '.join(sorted(pixels.SUFFIXES))})."
        )
    classes = _classes(every) if labels else ()
    label = _label(files, classes)
    images, problems = holding.decode_all(
        lambda index: pixels.read(root / files[index], fit),
        len(files),
        fit.shape,
        title=f"reading {root.name}",
        memory_limit=memory_limit,
    )
    unreadable = {root / files[index]: why for index, why in problems.items()}
    if split == "train":
        # Report unreadable test images now, not after training.
        unreadable |= _unreadable(top, holdout, fit)
    if unreadable:
        raise UserError(*_complaint(top, unreadable))
    labelled = {"label": Classes(names=classes)} if classes else {}
    spec = Spec(fields={"x": Image(shape=fit.shape, resize=resize), **labelled})
    arrays = {"label": label} if classes else {}
    if images is not None:
        return ArraySource(name=f"folder:{path}", spec=spec, arrays={"x": images, **arrays})
    return FolderSource(
        name=f"folder:{path}",
        spec=spec,
        files={"x": tuple(root / file for file in files)},
        arrays=arrays,
        pixel_limit=pixel_limit,
    )


def _unreadable(top: Path, holdout: int, fit: Fit) -> dict[Path, str]:
    root, files, _ = _files_of(top, "test", holdout)
    _, problems = holding.decode_all(
        lambda index: pixels.read(root / files[index], fit),
        len(files),
        fit.shape,
        title=f"checking {root.name}",
        memory_limit=0,
    )
    return {root / files[index]: why for index, why in problems.items()}


def class_names(path: str, *, labels: bool = True) -> tuple[str, ...]:
    """The classes of a folder, from the names of its sub-folders; no image is opened."""
    top = Path(path).expanduser()
    if not labels or not top.is_dir():
        return ()
    return _classes(_files_of(top, "train", 2)[2])


def _files_of(top: Path, split: str, holdout: int) -> tuple[Path, list[str], list[str]]:
    """The root of a split, its files, and all files that define the classes."""
    if not (top / "train").is_dir():
        every = sorted(_images(top))
        return top, _part(every, split, holdout), every
    train, test = top / "train", [top / name for name in _TEST_NAMES if (top / name).is_dir()]
    every = sorted(_images(train))
    if not test:
        return train, _part(every, split, holdout), every
    held = sorted(_images(test[0]))
    # Both parts name the classes, so that a label means the same in either.
    return (train, every, every + held) if split == "train" else (test[0], held, every + held)


def _images(root: Path) -> Iterator[str]:
    """Paths below `root` with the suffix of an image; hidden files and folders are skipped."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in pixels.SUFFIXES:
                yield Path(folder, name).relative_to(root).as_posix()


def _part(files: list[str], split: str, holdout: int) -> list[str]:
    if len(files) < 2:
        return files
    hashes = {file: zlib.crc32(file.encode("utf-8", "surrogateescape")) for file in files}
    held = {file for file in files if hashes[file] % holdout == 0}
    if not held:
        held = {min(files, key=lambda file: (hashes[file] % holdout, file))}
    if len(held) == len(files):
        held.discard(max(files, key=lambda file: (hashes[file], file)))
    return [file for file in files if (file in held) == (split == "test")]


def _classes(files: list[str]) -> tuple[str, ...]:
    loose = [file for file in files if "/" not in file]
    if loose and len(loose) < len(files):
        raise UserError(
            f"Some images are in sub-folders, which are classes, and others are not "
            f"({loose[0]!r}): move these into a sub-folder, or set data.labels=False."
        )
    return () if loose else tuple(sorted({file.split("/")[0] for file in files}))


def _label(files: list[str], classes: tuple[str, ...]) -> np.ndarray | None:
    if not classes:
        return None
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[file.split("/")[0]] for file in files], np.int32)


def _complaint(root: Path, problems: dict[Path, str]) -> list[str]:
    lines = [f"{file}: {why}." for file, why in list(problems.items())[:_LISTED]]
    more = f" (the first {_LISTED} are listed)" if len(problems) > _LISTED else ""
    count = "1 image file" if len(problems) == 1 else f"{len(problems)} image files"
    return [f"{count} in {root} cannot be read{more}; remove or replace these:", *lines]
