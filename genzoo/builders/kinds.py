"""Kinds of data sets that are given with a path or a name, as in `data.name = "folder:PATH"`.

`DataRow` describes a data set; `datasets` has those that are given by their name alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from genzoo.builders import annotations
from genzoo.core.bounds import OneOf
from genzoo.data import documents, folder, latent_folder, signal_folder, tfds
from genzoo.data.counts import Counts
from genzoo.data.documents import Corpus
from genzoo.data.fields import Field, Image, Signal
from genzoo.data.latent_folder import described
from genzoo.data.latents import Moments
from genzoo.data.listing import Listing
from genzoo.data.pixels import sides, size_problem
from genzoo.data.source import Source, Spec
from genzoo.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set, or a kind of data set that is given with a path or a name.

    open: (settings, split) -> its source. spec: settings -> its fields, as far as they are known.
    facts: settings -> values of keys in `datasets.FACTS`, read from the data. possible: names of
    fields that the spec may lack until the facts are known. always: the facts that every model of
    the data needs.
    uses: the keys of the section `data` that it uses, besides `name` and `flip`. problems: settings
    -> conflicts, as sentences. argument: what follows the colon in `data.name`, or "".
    """

    open: Callable[[DataSettings, str], Source]
    spec: Callable[[DataSettings], Spec]
    facts: Callable[[DataSettings], Mapping[str, object]] = lambda data: {}
    possible: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    problems: Callable[[DataSettings], list[str]] = lambda data: []
    argument: str = ""


def _image(data: DataSettings) -> Image:
    return Image(shape=(*sides(data.size), data.channels), resize=data.resize)


def _image_problems(data: DataSettings) -> list[str]:
    kind = data.name.partition(":")[0]
    if data.size == 0:
        return [
            f"data.size must be given for {kind}: the side of the images in pixels, or (height, "
            "width)."
        ]
    if requirement := size_problem(data.size):
        return [f"data.size = {data.size!r} must be {requirement}."]
    return OneOf((1, 3)).problems("data.channels", data.channels)


def _argument(data: DataSettings) -> str:
    return data.name.partition(":")[2]


def _open_folder(data: DataSettings, split: str) -> Source:
    return folder.open_folder(
        _argument(data), split=split, size=data.size, channels=data.channels, resize=data.resize,
        labels=data.labels, holdout=data.holdout, classes=data.classes, fields=_wanted(data),
        memory_limit=_limit(data),
    )  # fmt: skip


def _wanted(data: DataSettings) -> dict[str, Field]:
    return {**annotations.text_fields(data), **annotations.vector_fields(data)}


def _limit(data: DataSettings) -> int:
    return int(data.hold * 2**30)


def _open_signals(data: DataSettings, split: str) -> Source:
    return signal_folder.open_signals(
        _argument(data), split=split, size=data.size, channels=data.channels, labels=data.labels,
        holdout=data.holdout, classes=data.classes, fields=_wanted(data),
    )  # fmt: skip


def _open_tfds(data: DataSettings, split: str) -> Source:
    return tfds.open_tfds(
        _argument(data), split, directory=data.dir, size=data.size, channels=data.channels,
        resize=data.resize, memory_limit=_limit(data),
    )  # fmt: skip


def _facts(data: DataSettings, listed: Callable[..., Listing]) -> Mapping[str, object]:
    """The facts about the files of a folder. listed: lists them."""
    files = listed(
        _argument(data), holdout=data.holdout, labels=data.labels, classes=data.classes
    )
    return annotations.facts(data, files)


def _tfds_facts(data: DataSettings) -> dict[str, object]:
    return {"num_classes": len(tfds.class_names(_argument(data), data.dir))}


def _image_spec(data: DataSettings) -> Spec:
    return Spec(fields={"x": _image(data), **annotations.fields(data)})


def _signal_spec(data: DataSettings) -> Spec:
    return Spec(fields={"x": Signal(shape=(data.size, data.channels)), **annotations.fields(data)})


def _latent_spec(data: DataSettings) -> Spec:
    # The size is a fact, and made up until it is known: the folder is needed for training only.
    x = Moments(shape=(1 + data.flip, 2, *(data.size or (1,))))
    return Spec(fields={"x": x, **annotations.fields(data)})


def _latent_facts(data: DataSettings) -> Mapping[str, object]:
    folder = described(_argument(data))
    return {**folder.facts, "size": folder.latent_shape}


def _open_latents(data: DataSettings, split: str) -> Source:
    return latent_folder.open_latents(
        _argument(data), split, fields=_latent_spec(data).fields, tokenizer=data.tokenizer,
        memory_limit=_limit(data),
    )  # fmt: skip


def _latent_problems(data: DataSettings) -> list[str]:
    if data.size == 0 or (isinstance(data.size, tuple) and all(side > 0 for side in data.size)):
        return []
    return [f"data.size = {data.size!r} must be left at 0: the latents in the folder have a shape."]


def _signal_problems(data: DataSettings) -> list[str]:
    if isinstance(data.size, int) and data.size > 0:
        return []
    return [f"data.size = {data.size!r} must be the number of samples of a signal, one number."]


def document_row(
    read: Callable[[DataSettings, str], Corpus], *uses: str, argument: str = ""
) -> DataRow:
    """Documents as word counts. read: (settings, split) -> their texts."""

    def facts(data: DataSettings) -> dict[str, object]:
        train = read(data, "train")
        words = documents.vocabulary(train, data.vocabulary)
        return {"words": words, **annotations.class_facts(data, train.classes)}

    def opened(data: DataSettings, split: str) -> Source:
        words = data.words or documents.vocabulary(read(data, "train"), data.vocabulary)
        return documents.counted(read(data, split), words)

    def spec(data: DataSettings) -> Spec:
        x = Counts(shape=(len(data.words) or data.vocabulary,), words=data.words)
        return Spec(fields={"x": x, **annotations.label_fields(data)})

    return DataRow(
        open=opened,
        spec=spec,
        facts=facts,
        possible=("label",),
        always=("words",),
        uses=("vocabulary", "words", "classes", "num_classes", *uses),
        argument=argument,
    )


def _read_folder(data: DataSettings, split: str) -> Corpus:
    return documents.read_folder(
        _argument(data), split, labels=data.labels, holdout=data.holdout, classes=data.classes
    )


_OF_FOLDERS = (
    *("size", "channels", "labels", "holdout", "num_classes", "classes"),
    *("tokenizer", "tokens", "words", "columns"),
)
KINDS: Mapping[str, DataRow] = {
    "folder": DataRow(
        open=_open_folder,
        spec=_image_spec,
        facts=lambda data: _facts(data, folder.images_of),
        possible=annotations.FIELDS,
        uses=(*_OF_FOLDERS, "resize", "hold"),
        problems=_image_problems,
        argument="PATH",
    ),
    "signals": DataRow(
        open=_open_signals,
        spec=_signal_spec,
        facts=lambda data: _facts(data, signal_folder.signals_of),
        possible=annotations.FIELDS,
        uses=_OF_FOLDERS,
        problems=_signal_problems,
        argument="PATH",
    ),
    "tfds": DataRow(
        open=_open_tfds,
        spec=_image_spec,
        facts=_tfds_facts,
        possible=("label",),
        uses=("dir", "size", "channels", "resize", "num_classes", "hold"),
        problems=_image_problems,
        argument="NAME",
    ),
    "latents": DataRow(
        open=_open_latents,
        spec=_latent_spec,
        facts=_latent_facts,
        possible=annotations.FIELDS,
        always=("size",),
        uses=(
            *("size", "hold", "num_classes", "classes"),
            *("tokenizer", "tokens", "words", "columns"),
        ),
        problems=_latent_problems,
        argument="PATH",
    ),
    "documents": document_row(_read_folder, "labels", "holdout", argument="PATH"),
}
"""Data sets given as KIND:ARGUMENT."""
