"""Documents as data: texts, from files or from `docstrings`, as counts of words."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError, listed, refuse
from genzoo.core.files import read_text
from genzoo.data import counts, listing
from genzoo.data.counts import Counts
from genzoo.data.fields import Classes
from genzoo.data.metadata import LABEL
from genzoo.data.source import ArraySource, Spec, check_split, checksum_of

OTHER = "other"
"""The class of all documents whose own class is too small; they need have nothing in common."""
_log = logging.getLogger("genzoo")


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """The texts of one split, with their titles and labels, the names of their classes; labels are
    () if there are no classes. classes: the names of all classes in order. edition: the version of
    the collection, which enters the checksum."""

    name: str
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    edition: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents(ArraySource):
    """Word counts held in memory. titles: those of the documents. edition: see `Corpus`."""

    titles: tuple[str, ...]
    edition: str = ""

    def identity(self) -> dict[str, int]:
        """The CRC-32 of all arrays, the titles and the edition."""
        about = "\n".join((self.edition, *self.titles)).encode("utf-8", "surrogateescape")
        return {"checksum": zlib.crc32(about, checksum_of(self.arrays))}


def vocabulary(train: Corpus, size: int) -> tuple[str, ...]:
    """The `size` most frequent words of the training texts. Raises UserError if there are none."""
    words = counts.learned(train.texts, size)
    if not words:
        raise UserError(f"The texts of {train.name} hold no words: use other data.")
    return words


def counted(corpus: Corpus, words: Sequence[str]) -> Documents:
    """The texts as counts of `words`: `x` uint16 [N, V] and, with classes, `label` int32 [N].
    Warns of texts without any of the words."""
    kind = Counts(shape=(len(words),), words=tuple(words))
    fields, arrays = {"x": kind}, {"x": kind.of(corpus.texts)}
    bare = [title for title, row in zip(corpus.titles, arrays["x"], strict=True) if not row.any()]
    if bare:
        _log.warning(
            "%d of the %d texts of %s have none of the %d words of the vocabulary, so that nothing "
            "tells them apart: %s. Raise data.vocabulary, or remove them.",
            len(bare), len(corpus.titles), corpus.name, len(words), listed(bare),
        )  # fmt: skip
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


# --- folders --------------------------------------------------------------------------------------


def read_folder(
    path: str,
    split: str,
    *,
    labels: bool = True,
    holdout: int = listing.HOLDOUT,
    classes: Sequence[str] = (),
) -> Corpus:
    """The .txt files below `path`, sorted; their titles are their paths below the folder.

    split: "train" or "test". labels, holdout, classes: see `listing.listed`. Raises a UserError
    that lists files which cannot be read or hold no words.
    """
    check_split(split)
    found = listing.listed(
        path, kind="documents", suffixes=Counts.suffixes, holdout=holdout, labels=labels,
        wanted=(LABEL,), classes=classes,
    )  # fmt: skip
    part = found.part(split)
    return Corpus(
        name=found.name,
        titles=tuple(part.files),
        texts=_texts(part.paths),
        labels=tuple(part.annotations.labels) if found.classes else (),
        classes=found.classes,
    )


def open_files(files: Sequence[Path], kind: Counts) -> Documents:
    """The .txt files as documents without classes, in the given order. Raises a UserError that
    lists files which cannot be read or hold no words of the vocabulary."""
    rows = kind.of(_texts(files))
    refuse([
        f"{file} has none of the {len(kind.words)} words that the model knows: use another text."
        for file, row in zip(files, rows, strict=True)
        if not row.any()
    ])
    return Documents(
        name="the .txt files",
        spec=Spec(fields={"x": kind}),
        arrays={"x": rows},
        titles=tuple(file.name for file in files),
    )


def _texts(files: Sequence[Path]) -> tuple[str, ...]:
    texts, problems = [], []
    for file in files:
        try:
            texts.append(read_text(file))
        except UserError as error:
            problems += error.problems
            continue
        if not counts.words_of(texts[-1]):
            what = "has only stop words and numbers" if texts[-1].strip() else "is empty"
            problems.append(f"{file} {what}: write a text, or remove the file.")
    refuse(problems)
    return tuple(texts)
