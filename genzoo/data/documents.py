"""Documents as data: texts, from files or from `docstrings`, as counts of a learned vocabulary."""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data import counts
from genzoo.data.counts import Counts
from genzoo.data.fields import Classes
from genzoo.data.source import ArraySource, Spec, check_split

SUFFIX = ".txt"
OTHER = "other"
"""The class of documents whose own class would be too small; it says nothing about a document."""
_TEST_NAMES = ("test", "val", "valid", "validation")
_LISTED = 10  # unreadable files listed one by one; the rest are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """The texts of one split. titles, labels: of each text; labels are names of classes, or () if
    there are no classes. classes: the names of all classes in order. edition: where the texts come
    from, if their titles leave that open."""

    name: str
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    edition: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents(ArraySource):
    """Word counts held in memory. titles: of the documents. edition: see `Corpus`."""

    titles: tuple[str, ...]
    edition: str = ""

    def checksum(self) -> int:
        """The CRC-32 of all arrays, the titles and the edition."""
        about = "\n".join((self.edition, *self.titles))
        return zlib.crc32(about.encode("utf-8", "surrogateescape"), super().checksum())


def facts(train: Corpus, vocabulary: int) -> dict[str, object]:
    """What a model must know of its data: the `vocabulary` most frequent words of the training
    texts (`words`), and the classes. Raises UserError if there are no words."""
    words = counts.learned(train.texts, vocabulary)
    if not words:
        raise UserError(f"The texts of {train.name} hold no words: use other data.")
    return {"words": words, "classes": train.classes, "num_classes": len(train.classes)}


def counted(corpus: Corpus, words: Sequence[str]) -> Documents:
    """The texts as counts of `words`: `x` uint16 [N, V] and, with classes, `label` int32 [N]."""
    kind = Counts(shape=(len(words),), words=tuple(words))
    fields, arrays = {"x": kind}, {"x": kind.of(corpus.texts)}
    if corpus.classes:
        number = {name: index for index, name in enumerate(corpus.classes)}
        fields["label"] = Classes(names=corpus.classes)
        arrays["label"] = np.array([number[label] for label in corpus.labels], np.int32)
    return Documents(
        name=corpus.name,
        spec=Spec(fields=fields),
        arrays=arrays,
        titles=corpus.titles,
        edition=corpus.edition,
    )


def held_out(name: str, holdout: int) -> bool:
    """Whether a document belongs to the test split, by the CRC-32 of its name: about one in
    `holdout` does."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) % holdout == 0


# --- folders --------------------------------------------------------------------------------------


def read_folder(path: str, split: str, *, labels: bool = True, holdout: int = 20) -> Corpus:
    """The .txt files below `path`, sorted; their titles are their paths below the folder.

    split: "train" or "test". Folders `train` and `test` (or `val`, `valid`, `validation`) are used
    if they exist. Otherwise about one file in `holdout`, and at least one, is held out for testing
    by the CRC-32 of its path below the folder (a single file serves as both).
    labels: whether the top-level folders are classes, numbered in the order of their names.

    Raises UserError, which lists unreadable files.
    """
    check_split(split)
    top = Path(path).expanduser()
    if not top.is_dir():
        raise UserError(f"There is no folder {top}: give data.name as documents:PATH.")
    root, files, every = _files_of(top, split, holdout)
    if not files:
        raise UserError(f"The folder {root} holds no {SUFFIX} files for the {split} split.")
    classes = _classes(every) if labels else ()
    return Corpus(
        name=f"documents:{path}",
        titles=tuple(files),
        texts=_texts([root / file for file in files]),
        labels=tuple(file.split("/")[0] for file in files) if classes else (),
        classes=classes,
    )


def open_files(files: Sequence[Path], kind: Counts) -> Documents:
    """The .txt files as documents without classes, in the given order. Raises a UserError that
    lists unreadable files."""
    return Documents(
        name="the .txt files",
        spec=Spec(fields={"x": kind}),
        arrays={"x": kind.of(_texts(files))},
        titles=tuple(file.name for file in files),
    )


def _texts(files: Sequence[Path]) -> tuple[str, ...]:
    texts, problems = [], []
    for file in files:
        try:
            texts.append(counts.read_text(file, str(file)))
        except UserError as error:
            problems += error.problems
    if problems:
        more = len(problems) - _LISTED
        raise UserError(*problems[:_LISTED], *([f"And {more} more."] if more > 0 else []))
    return tuple(texts)


def files_below(root: Path) -> Iterator[str]:
    """Paths below `root` of its .txt files; hidden files and folders are skipped."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIX):
                yield Path(folder, name).relative_to(root).as_posix()


def _files_of(top: Path, split: str, holdout: int) -> tuple[Path, list[str], list[str]]:
    """The root of a split, its files, and all files that define the classes."""
    if not (top / "train").is_dir():
        every = sorted(files_below(top))
        return top, _part(every, split, holdout), every
    train, test = top / "train", [top / name for name in _TEST_NAMES if (top / name).is_dir()]
    every = sorted(files_below(train))
    if not test:
        return train, _part(every, split, holdout), every
    held = sorted(files_below(test[0]))
    # Both parts name the classes, so that a label means the same in either.
    return (train, every, every + held) if split == "train" else (test[0], held, every + held)


def _part(files: list[str], split: str, holdout: int) -> list[str]:
    if len(files) < 2:
        return files
    hashes = {file: zlib.crc32(file.encode("utf-8", "surrogateescape")) for file in files}
    held = {file for file in files if held_out(file, holdout)}
    if not held:
        held = {min(files, key=lambda file: (hashes[file] % holdout, file))}
    if len(held) == len(files):
        held.discard(max(files, key=lambda file: (hashes[file], file)))
    return [file for file in files if (file in held) == (split == "test")]


def _classes(files: list[str]) -> tuple[str, ...]:
    loose = [file for file in files if "/" not in file]
    if loose and len(loose) < len(files):
        raise UserError(
            f"Some texts are in sub-folders, which are classes, and others are not "
            f"({loose[0]!r}): move these into a sub-folder, or set data.labels=False."
        )
    return () if loose else tuple(sorted({file.split("/")[0] for file in files}))
