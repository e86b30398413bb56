"""Data sets by name: what `data.name` in a config means.

A model is built from the fields of its data, before the data is opened. What a field needs from the
data itself, such as the number of classes or the words of the captions, is a fact: it is read once,
when a run begins, and stored in the config of the run.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from genzoo.builders import annotations
from genzoo.builders.kinds import KINDS, DataRow, document_row
from genzoo.core.bounds import OneOf, without_effect
from genzoo.data import cifar, docstrings, embedded, emoji, idx, shapes, toys, vocabulary
from genzoo.data.fields import Field, Tokens, Vector, numbered
from genzoo.data.packages import PACKAGES
from genzoo.data.source import Source, Spec
from genzoo.settings import DataSettings

FACTS = {
    "num_classes": "label", "classes": "label", "tokens": "text", "words": "text",
    "columns": "properties", "size": "x",
}  # fmt: skip
"""Keys of the section `data` that are filled in from the data, and the field that needs each."""


def _local(open: Callable[[str], Source], spec: Spec) -> DataRow:
    """A data set that is in the package or synthetic. open: split -> source."""
    return DataRow(open=lambda data, split: open(split), spec=lambda data: spec)


def _downloaded(open: Callable[[str, str], Source], spec: Spec) -> DataRow:
    """A data set that is downloaded. open: (split, dir) -> source."""
    return DataRow(
        open=lambda data, split: open(split, data.dir), spec=lambda data: spec, uses=("dir",)
    )


_SIDE = 32


def _side(data: DataSettings, sides: Sequence[int]) -> int:
    """The side of the images in pixels, 32 if none is given."""
    return data.size if data.size in sides else _SIDE


def _captioned_problems(data: DataSettings, sides: Sequence[int]) -> list[str]:
    problems = OneOf((0, *sides)).problems("data.size", data.size)
    if data.flip:
        problems.append(
            f"data.flip = True mirrors images, but the captions of {data.name} name sides: set it "
            "to False."
        )
    return problems


def _caption_field(data: DataSettings) -> Field | None:
    return annotations.text_fields(data).get("text")


def _scene_field(data: DataSettings) -> Tokens | None:
    """The field of the captions of scenes; None while its length is unknown."""
    return shapes.CAPTIONS if data.tokenizer == "words" else _caption_field(data)


def _scene_facts(data: DataSettings) -> dict[str, object]:
    if data.tokenizer == "words":
        return {}
    tokenizer = vocabulary.tokenizer_of(data.tokenizer)
    return {"tokens": max(len(tokenizer.encode(text)) for text in shapes.longest_captions())}


def _scene_problems(data: DataSettings) -> list[str]:
    problems = _captioned_problems(data, shapes.SIDES)
    if data.tokenizer == "words" and data.tokens:
        problems.append(
            f"data.tokens = {data.tokens} has no effect with data.tokenizer = 'words', since the "
            "captions of shapes have at most ten words: leave it at 0."
        )
    return problems


DATA: Mapping[str, DataRow] = {
    "fashion_mini": _local(embedded.open_fashion_mini, idx.FASHION_SPEC),
    "cifar10": _downloaded(cifar.open_cifar10, cifar.SPEC),
    "mnist": _downloaded(idx.open_mnist, idx.MNIST_SPEC),
    "fashion_mnist": _downloaded(idx.open_fashion_mnist, idx.FASHION_SPEC),
    "swissroll": _local(toys.open_swissroll, toys.SWISSROLL_SPEC),
    "mixture": _local(toys.open_mixture, toys.MIXTURE_SPEC),
    "waves": _local(toys.open_waves, toys.WAVES_SPEC),
    "shapes": DataRow(
        open=lambda data, split: shapes.open_shapes(
            split, _side(data, shapes.SIDES), _scene_field(data)
        ),
        spec=lambda data: shapes.spec(_side(data, shapes.SIDES), _scene_field(data)),
        facts=_scene_facts,
        possible=("text",),
        uses=("size", "tokenizer", "tokens"),
        problems=_scene_problems,
    ),
    "shapes_kinds": DataRow(
        open=lambda data, split: shapes.open_kinds(split, _side(data, shapes.SIDES)),
        spec=lambda data: shapes.spec_of_kinds(_side(data, shapes.SIDES)),
        uses=("size",),
        problems=lambda data: _captioned_problems(data, shapes.SIDES),
    ),
    "emoji": DataRow(
        open=lambda data, split: emoji.open_emoji(
            split, data.dir, _side(data, emoji.SIDES), _caption_field(data)
        ),
        spec=lambda data: emoji.spec(_side(data, emoji.SIDES), _caption_field(data)),
        facts=lambda data: annotations.text_facts(data, emoji.captions("train", data.dir)),
        possible=("text",),
        uses=("dir", "size", "tokenizer", "tokens", "words"),
        problems=lambda data: _captioned_problems(data, emoji.SIDES),
    ),
    "docstrings": document_row(lambda data, split: docstrings.read(split)),
}
"""Data sets by name."""


# --- what a config's data is ----------------------------------------------------------------------


def row_of(data: DataSettings) -> DataRow:
    """The row of a config's data."""
    kind, colon, _ = data.name.partition(":")
    return KINDS[kind] if colon else DATA[data.name]


def located(data: DataSettings) -> DataSettings:
    """The settings with the absolute path of a data set that has one, so that its run can be
    resumed from another folder, and with the path of a tokenizer that a package provides."""
    if data.tokenizer in PACKAGES and PACKAGES[data.tokenizer].installed:
        data = replace(data, tokenizer=str(vocabulary.file_of(data.tokenizer)))
    kind, _, path = data.name.partition(":")
    if not _is_path(kind):
        return data
    return replace(data, name=f"{kind}:{os.path.abspath(os.path.expanduser(path))}")


def only_moved(one: object, other: object) -> bool:
    """Whether two values of `data.name` may be the same set in two places. The path of a set is not
    its identity: its content is compared when it is opened."""
    kinds = {str(name).partition(":")[0] for name in (one, other)}
    return len(kinds) == 1 and _is_path(*kinds)


def _is_path(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].argument == "PATH"


def names() -> list[str]:
    """All values that `data.name` may have."""
    return [*DATA, *(f"{kind}:{row.argument}" for kind, row in KINDS.items())]


def name_problems(data: DataSettings) -> list[str]:
    """Why the settings name no data set."""
    kind, colon, argument = data.name.partition(":")
    if colon and not (kind in KINDS and argument):
        kinds = " or ".join(f"{kind}:{row.argument}" for kind, row in KINDS.items())
        return [f"data.name = {data.name!r}: write {kinds}."]
    return [] if colon else OneOf(names()).problems("data.name", data.name)


def problems(data: DataSettings) -> list[str]:
    """Why the settings name no data set, or conflict with it or with each other."""
    return name_problems(data) or [*row_of(data).problems(data), *_conflicts(data)]


def _conflicts(data: DataSettings) -> list[str]:
    uses, conflicts = row_of(data).uses, []
    if "classes" in uses and data.classes and data.num_classes not in (0, len(data.classes)):
        conflicts.append(
            f"data.num_classes = {data.num_classes}, but data.classes names {len(data.classes)}: "
            "leave data.num_classes at 0."
        )
    if "tokenizer" in uses and data.words and data.tokenizer != "words":
        conflicts.append(
            f"data.words has no effect with data.tokenizer = {data.tokenizer!r}: leave it empty, "
            "or set data.tokenizer = 'words'."
        )
    return conflicts


def unused_keys(data: DataSettings) -> set[str]:
    """The keys of the section `data` that this data set does not use, but others do."""
    optional = {key for row in (*DATA.values(), *KINDS.values()) for key in row.uses}
    return optional - set(row_of(data).uses)


def unused(data: DataSettings) -> list[str]:
    """A sentence for each key that is set although this data set does not use it."""
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
    """The fields of the records, without opening the data. A field that needs facts is missing
    until they are filled in."""
    return row_of(data).spec(data)


def same_texts(one: DataSettings, other: DataSettings) -> bool:
    """Whether two data sets give the same text the same ids; True unless both have texts."""
    texts = [spec(data).fields.get("text") for data in (one, other)]
    return None in texts or vocabulary.same(*(text.tokenizer for text in texts))


def possible_fields(data: DataSettings) -> Mapping[str, Field]:
    """The fields that the data may have, before it is opened; those whose facts are not known yet
    have made-up sizes."""
    known = dict(spec(data).fields)
    made_up = {
        "label": numbered(1),
        "text": Tokens(shape=(1,), vocabulary=2),
        "properties": Vector(shape=(1,)),
    }
    return {name: made_up[name] for name in row_of(data).possible} | known


def with_facts(data: DataSettings, needed: Iterable[str]) -> tuple[DataSettings, list[str]]:
    """(the settings with facts filled in, the needed fields that the data lacks). The data is read
    only if the facts about a needed field, or those that every model needs, are missing. Values
    that are given take precedence over those in the data."""
    needed, row = list(needed), row_of(data)
    known = all(getattr(data, key) for key in row.always)
    if known and set(needed) <= spec(data).fields.keys():
        return data, []
    facts = {
        key: value
        for key, value in row.facts(data).items()
        if (FACTS[key] in needed or key in row.always) and not getattr(data, key)
    }
    filled = replace(data, **facts)
    return filled, [name for name in needed if name not in spec(filled).fields]


def class_count(data: DataSettings) -> int:
    """The number of classes in the data, from their names; no image is read."""
    filled, missing = with_facts(data, ("label",))
    return 0 if missing else spec(filled).fields["label"].count


_LACKS: Mapping[str, tuple[str, str]] = {
    "label": (
        "classes",
        "sort the files into one folder per class or add a metadata.csv with a column label",
    ),
    "text": ("captions", "add a metadata.csv with a column text or a text file beside each file"),
    "properties": ("numbers", "add numeric columns to a metadata.csv"),
}
"""Field -> what data without it lacks, and how to supply it in a folder."""


def lacks(data: DataSettings, name: str, need: str, remedy: str) -> str:
    """A sentence about a field that the data lacks. need: why it is needed, as a clause. remedy: as
    an imperative."""
    lacking, supply = _LACKS[name]
    supply = f", or {supply}" if row_of(data).argument == "PATH" else ""
    return f"{need}, but {data.name} has no {lacking}: {remedy}{supply}."
