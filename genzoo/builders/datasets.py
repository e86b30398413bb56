"""Data sets by name: what `data.name` in a config means.

A model is built from the fields of its data, before the data is opened. What a field needs from the
data itself, such as the number of classes or the words of the captions, is a fact: it is read once,
when a run begins, and kept in the config of the run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from genzoo.builders.known_fields import (
    label_fields,
    notes,
    text_facts,
    text_fields,
    vector_fields,
)
from genzoo.core.bounds import OneOf, without_effect
from genzoo.data import (
    cifar,
    docstrings,
    documents,
    embedded,
    emoji,
    folder,
    idx,
    shapes,
    signal_folder,
    tfds,
    toys,
)
from genzoo.data.counts import Counts
from genzoo.data.documents import Corpus
from genzoo.data.fields import Field, Image, Signal, Tokens, Vector, numbered
from genzoo.data.listing import Listing
from genzoo.data.metadata import standardised
from genzoo.data.pixels import sides, size_problem
from genzoo.data.source import Source, Spec
from genzoo.settings import DataSettings

FACTS = {
    "num_classes": "label", "classes": "label", "tokens": "text", "words": "text",
    "columns": "properties",
}  # fmt: skip
"""Keys of the section `data` that are filled in from the data, and the field that needs each."""


def _no_facts(data: DataSettings) -> dict[str, object]:
    return {}


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set, or a kind of data set that is given with a path or a name.

    open: (settings, split) -> its source. spec: settings -> its fields, as far as they are known.
    facts: settings -> values of keys in `FACTS`, read from the data. possible: names of fields that
    the spec may lack until the facts are known. always: the facts that any model of the data needs.
    uses: the keys of the section `data` that it uses, besides `name`, `dir` and `flip`. problems:
    settings -> conflicts, as sentences. argument: what follows the colon in `data.name`; "" for a
    data set without.
    """

    open: Callable[[DataSettings, str], Source]
    spec: Callable[[DataSettings], Spec]
    facts: Callable[[DataSettings], Mapping[str, object]] = _no_facts
    possible: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    problems: Callable[[DataSettings], list[str]] = lambda data: []
    argument: str = ""


def _fixed(open: Callable[[str, str], Source], spec: Spec) -> DataRow:
    """A data set whose fields never change. open: (split, dir) -> source."""
    return DataRow(open=lambda data, split: open(split, data.dir), spec=lambda data: spec)


# --- kinds ----------------------------------------------------------------------------------------


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


def _rest(data: DataSettings) -> str:
    return data.name.partition(":")[2]


def _open_folder(data: DataSettings, split: str) -> Source:
    return folder.open_folder(
        _rest(data), split=split, size=data.size, channels=data.channels, resize=data.resize,
        labels=data.labels, holdout=data.holdout, classes=data.classes, fields=_wanted(data),
        memory_limit=_limit(data),
    )  # fmt: skip


def _wanted(data: DataSettings) -> dict[str, Field]:
    return {**text_fields(data), **vector_fields(data)}


def _limit(data: DataSettings) -> int:
    return int(data.hold * 2**30)


def _open_signals(data: DataSettings, split: str) -> Source:
    return signal_folder.open_signals(
        _rest(data), split=split, size=data.size, channels=data.channels, labels=data.labels,
        holdout=data.holdout, classes=data.classes, fields=_wanted(data),
    )  # fmt: skip


def _open_tfds(data: DataSettings, split: str) -> Source:
    return tfds.open_tfds(
        _rest(data), split, directory=data.dir, size=data.size, channels=data.channels,
        resize=data.resize, memory_limit=_limit(data),
    )  # fmt: skip


def _listed(data: DataSettings, listed: Callable[..., Listing]) -> Listing:
    return listed(
        _rest(data), holdout=data.holdout, labels=data.labels, classes=data.classes
    )


def _facts_of(data: DataSettings, found: Listing) -> dict[str, object]:
    """What the notes on the files for training say."""
    notes, facts = found.parts["train"].notes, {}
    if found.classes:
        facts["num_classes"] = len(found.classes)
        # With only their number given, classes are named by numbers.
        facts["classes"] = () if data.num_classes else found.classes
    if notes.texts:
        facts |= text_facts(data, notes.texts)
    if notes.columns:
        facts["columns"] = standardised(notes)
    return facts


def _tfds_facts(data: DataSettings) -> dict[str, object]:
    return {"num_classes": len(tfds.class_names(_rest(data), data.dir))}


def _image_spec(data: DataSettings) -> Spec:
    return Spec(fields={"x": _image(data), **notes(data)})


def _signal_spec(data: DataSettings) -> Spec:
    return Spec(fields={"x": Signal(shape=(data.size, data.channels)), **notes(data)})


def _signal_problems(data: DataSettings) -> list[str]:
    if isinstance(data.size, int) and data.size > 0:
        return []
    return [f"data.size = {data.size!r} must be the number of samples of a signal, one number."]


def _documents(
    read: Callable[[DataSettings, str], Corpus], *uses: str, argument: str = ""
) -> DataRow:
    """Documents as word counts. read: (settings, split) -> their texts."""

    def facts(data: DataSettings) -> dict[str, object]:
        return documents.facts(read(data, "train"), data.vocabulary)

    def opened(data: DataSettings, split: str) -> Source:
        words = data.words or facts(data)["words"]
        return documents.counted(read(data, split), words)

    def spec(data: DataSettings) -> Spec:
        size = len(data.words) or data.vocabulary
        return Spec(fields={"x": Counts(shape=(size,), words=data.words), **label_fields(data)})

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
        _rest(data), split, labels=data.labels, holdout=data.holdout, classes=data.classes
    )


_NOTES = ("label", "text", "properties")
_OF_FOLDERS = (
    *("size", "channels", "labels", "holdout", "num_classes", "classes"),
    *("tokenizer", "tokens", "words", "columns"),
)
KINDS: Mapping[str, DataRow] = {
    "folder": DataRow(
        open=_open_folder,
        spec=_image_spec,
        facts=lambda data: _facts_of(data, _listed(data, folder.images_of)),
        possible=_NOTES,
        uses=(*_OF_FOLDERS, "resize", "hold"),
        problems=_image_problems,
        argument="PATH",
    ),
    "signals": DataRow(
        open=_open_signals,
        spec=_signal_spec,
        facts=lambda data: _facts_of(data, _listed(data, signal_folder.signals_of)),
        possible=_NOTES,
        uses=_OF_FOLDERS,
        problems=_signal_problems,
        argument="PATH",
    ),
    "tfds": DataRow(
        open=_open_tfds,
        spec=_image_spec,
        facts=_tfds_facts,
        possible=("label",),
        uses=("size", "channels", "resize", "num_classes", "hold"),
        problems=_image_problems,
        argument="NAME",
    ),
    "documents": _documents(_read_folder, "labels", "holdout", argument="PATH"),
}
"""Data sets given as KIND:ARGUMENT."""


def _shapes_side(data: DataSettings) -> int:
    return data.size if isinstance(data.size, int) and data.size else shapes.SIDES[0]


def _shapes_problems(data: DataSettings) -> list[str]:
    mirrored = "data.flip = True makes captions of shapes false, left and right: set it to False."
    problems = OneOf((0, *shapes.SIDES)).problems("data.size", data.size)
    return problems + ([mirrored] if data.flip else [])


def _emoji_side(data: DataSettings) -> int:
    return data.size if isinstance(data.size, int) and data.size else emoji.SIDES[0]


DATA: Mapping[str, DataRow] = {
    "fashion_mini": _fixed(lambda split, dir: embedded.open_fashion_mini(split), idx.FASHION_SPEC),
    "cifar10": _fixed(cifar.open_cifar10, cifar.SPEC),
    "mnist": _fixed(idx.open_mnist, idx.MNIST_SPEC),
    "fashion_mnist": _fixed(idx.open_fashion_mnist, idx.FASHION_SPEC),
    "swissroll": _fixed(lambda split, dir: toys.open_swissroll(split), toys.SWISSROLL_SPEC),
    "mixture": _fixed(lambda split, dir: toys.open_mixture(split), toys.MIXTURE_SPEC),
    "waves": _fixed(lambda split, dir: toys.open_waves(split), toys.WAVES_SPEC),
    "shapes": DataRow(
        open=lambda data, split: shapes.open_shapes(split, _shapes_side(data)),
        spec=lambda data: shapes.spec(_shapes_side(data)),
        uses=("size",),
        problems=_shapes_problems,
    ),
    "emoji": DataRow(
        open=lambda data, split: emoji.open_emoji(
            split, data.dir, _emoji_side(data), text_fields(data).get("text")
        ),
        spec=lambda data: emoji.spec(_emoji_side(data), text_fields(data).get("text")),
        facts=lambda data: text_facts(data, emoji.captions("train", data.dir)),
        possible=("text",),
        uses=("size", "tokenizer", "tokens", "words"),
        problems=lambda data: OneOf((0, *emoji.SIDES)).problems("data.size", data.size),
    ),
    "docstrings": _documents(lambda data, split: docstrings.read(split)),
}
"""Data sets by name."""


# --- what a config's data is ----------------------------------------------------------------------


def row_of(data: DataSettings) -> DataRow:
    """The row of a config's data."""
    kind, colon, _ = data.name.partition(":")
    return KINDS[kind] if colon else DATA[data.name]


def names() -> list[str]:
    """All values that `data.name` may have."""
    return [*DATA, *(f"{kind}:{row.argument}" for kind, row in KINDS.items())]


def problems(data: DataSettings) -> list[str]:
    """Why the settings name no data set, or conflict with it."""
    kind, colon, rest = data.name.partition(":")
    if not colon:
        unknown = OneOf(names()).problems("data.name", data.name)
        return unknown or row_of(data).problems(data)
    kinds = " or ".join(f"{kind}:{row.argument}" for kind, row in KINDS.items())
    unknown = [] if kind in KINDS and rest else [f"data.name = {data.name!r}: write {kinds}."]
    return unknown + (KINDS[kind].problems(data) if kind in KINDS else [])


def unused_keys(data: DataSettings) -> set[str]:
    """The keys of the section `data` that this data set does not use, but others do."""
    optional = {key for row in (*DATA.values(), *KINDS.values()) for key in row.uses}
    return optional - set(row_of(data).uses)


def unused(data: DataSettings) -> list[str]:
    """Sentences about keys that are set although this data set does not use them."""
    why = f"with data.name = {data.name!r}"
    sentences = []
    for key in sorted(unused_keys(data)):
        users = [f"{kind}:{row.argument}" for kind, row in KINDS.items() if key in row.uses]
        users = users or [name for name, row in DATA.items() if key in row.uses]
        remedy = f"use {' or '.join(users)}"
        sentences += without_effect(data, "data", (key,), why, remedy)
    return sentences


def open_source(data: DataSettings, split: str) -> Source:
    """A split of the data set. Reads its files, and downloads them if needed."""
    return row_of(data).open(data, split)


def spec(data: DataSettings) -> Spec:
    """The fields of the records, without opening the data. Fields that need facts are missing
    until these are filled in."""
    return row_of(data).spec(data)


def possible_fields(data: DataSettings) -> Mapping[str, Field]:
    """The fields that the data may have, before it is opened; those that need facts have made-up
    sizes."""
    known = dict(spec(data).fields)
    made_up = {
        "label": numbered(1),
        "text": Tokens(shape=(1,), vocabulary=2),
        "properties": Vector(shape=(1,)),
    }
    return {name: made_up[name] for name in row_of(data).possible} | known


def with_facts(data: DataSettings, needed: Iterable[str]) -> tuple[DataSettings, list[str]]:
    """(the settings with facts filled in, the needed fields that the data lacks). Reads from the
    data only if a needed field, or what every model of the data needs, is not known yet."""
    needed = list(needed)
    known = all(getattr(data, key) for key in row_of(data).always)
    if known and set(needed) <= spec(data).fields.keys():
        return data, []
    read = {
        key: value
        for key, value in row_of(data).facts(data).items()
        if FACTS[key] in needed or key in row_of(data).always
    }
    # What the config itself says goes before.
    found = replace(data, **{k: v for k, v in read.items() if not getattr(data, k)})
    return found, [name for name in needed if name not in spec(found).fields]


def class_count(data: DataSettings) -> int:
    """The number of classes in the data, from their names; no image is read."""
    found, missing = with_facts(data, ("label",))
    return 0 if missing else spec(found).fields["label"].count


LACKS: Mapping[str, tuple[str, str, str]] = {
    "label": (
        "a class",
        "classes",
        "sort the files into one folder per class or add a metadata.csv with a column label",
    ),
    "text": ("a caption", "captions", "add a metadata.csv with a column text"),
    "properties": ("a vector of numbers", "numbers", "add numeric columns to a metadata.csv"),
}
"""Field -> what a condition made from it is, what data without it lacks, and how to supply it."""
