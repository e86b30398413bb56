"""Any prepared TensorFlow Datasets set with images, read without TensorFlow.

Only sets prepared in the array_record format can be read by index; `prepare_tfds` makes one. The
image and the label are found by the types of the features, so no list of data sets is needed here.
Other features become fields on request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data import holding, tfds_folder
from genzoo.data.fields import Classes, Field, Image
from genzoo.data.pixels import Fit
from genzoo.data.source import ArraySource, Records, Source, Spec

_MOST_CLASSES = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class TfdsSource:
    """Records read from array_record files each time: a set too large for memory.

    features: the name of the feature for each field.
    """

    name: str
    spec: Spec
    records: Any  # tfds' random-access source: record = records[index]
    features: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices."""
        records = self.rows([int(index) for index in indices])
        return {
            name: np.stack([self.value(name, record) for record in records])
            for name in self.features
        }

    def rows(self, indices: Sequence[int]) -> Sequence[dict]:
        """The records of the given indices. Raises UserError if a file is damaged."""
        try:
            return self.records.__getitems__(indices)
        except Exception as error:  # the library raises nearly anything on damaged files
            raise UserError(
                f"{self.name} is damaged ({type(error).__name__}: {error}): restore its files, or "
                "prepare it again."
            ) from error

    def value(self, name: str, record: dict) -> np.ndarray:
        """A field of one record in its stored form. Raises BadImage or UserError."""
        try:
            return self.spec.fields[name].take(record[self.features[name]])
        except ValueError as reason:
            raise UserError(
                f"The feature {self.features[name]!r} of {self.name} cannot be the field {name}: "
                f"{reason}."
            ) from reason

    def identity(self) -> dict[str, int]:
        """Nothing besides the name and the length of the set, since TFDS versions its sets."""
        return {}


def open_tfds(
    name: str,
    split: str,
    *,
    size: int | tuple[int, ...],
    channels: int = 3,
    directory: str = "",
    resize: str = "crop",
    others: Mapping[str, Field] = MappingProxyType({}),
    memory_limit: int = holding.MEMORY_LIMIT,
) -> Source:
    """A split of a prepared set: `x` uint8 [N, height, width, channels] and other fields.

    There is a `label` int32 [N] if the records have one.

    name: the name in TFDS, such as "cifar10" or "cifar10:3.0.2". split: any split or slice of it,
    such as "train[:90%]". directory: the TFDS data folder, by default that of TFDS. others: the
    fields for further features, by the name of the feature. memory_limit: bytes up to which the
    decoded set is held in memory.

    The order is that of the files; TFDS shuffles when it prepares them. Raises UserError, for a set
    that is not prepared with the command that prepares it.
    """
    fit = Fit(size=size, channels=channels, resize=resize)
    builder = _builder(name, directory)
    image, label, classes = _features(builder.info.features, name)
    known = set(builder.info.features.keys())
    if absent := [feature for feature in others if feature not in known]:
        raise UserError(f"tfds:{name} has no feature {absent[0]!r}: it has {sorted(known)}.")
    try:
        records = tfds_folder.records(builder, split, image)
    except (ValueError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise UserError(f"tfds:{name} has no split {split!r}: it has {known}.") from error
    except NotImplementedError as error:
        raise _unprepared(name, directory, "it is not in the array_record format") from error
    fields: dict[str, Field] = {"x": Image(shape=fit.shape, resize=resize)}
    features = {"x": image}
    if label is not None:
        fields["label"], features["label"] = Classes(names=classes), label
    source = TfdsSource(
        name=f"tfds:{name}",
        spec=Spec(fields=fields | dict(others)),
        records=records,
        features=features | {feature: feature for feature in others},
    )
    return _loaded(source, memory_limit)


def class_names(name: str, directory: str = "") -> tuple[str, ...]:
    """The classes of a prepared set, from its description; no record is read."""
    return _features(_builder(name, directory).info.features, name)[2]


def _builder(name: str, directory: str) -> Any:
    folder = tfds_folder.find(name, directory)
    if folder is not None:
        return tfds_folder.opened(folder)
    import tensorflow_datasets as tfds

    try:
        tfds.builder_cls(tfds_folder.check_name(name)["name"])  # known to TFDS itself
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"TFDS knows no data set {name!r}, and none is prepared in "
            f"{tfds_folder.data_dir(directory)}: check the spelling, or data.dir."
        ) from error
    raise _unprepared(name, directory, "it does not exist")


def _unprepared(name: str, directory: str, why: str) -> UserError:
    command = f"python -m genzoo.data.prepare_tfds {name} --data_dir={directory or 'DIR'}"
    return UserError(
        f"No prepared copy of tfds:{name} in {tfds_folder.data_dir(directory)} ({why}). "
        f"Prepare it once with: {command}"
    )


def _features(features: Any, name: str) -> tuple[str, str | None, tuple[str, ...]]:
    """The names of the image and of the label feature, and the class names."""
    import tensorflow_datasets as tfds

    kinds = dict(features.items()) if hasattr(features, "items") else {}
    images = [key for key, kind in kinds.items() if isinstance(kind, tfds.features.Image)]
    if not images:
        raise UserError(f"tfds:{name} has no image among its top-level features: {list(kinds)}.")
    labels = [key for key, kind in kinds.items() if isinstance(kind, tfds.features.ClassLabel)]
    image = "image" if "image" in images else images[0]
    if not labels:
        return image, None, ()
    label = "label" if "label" in labels else labels[0]
    if kinds[label].num_classes and kinds[label].num_classes > _MOST_CLASSES:
        raise UserError(f"tfds:{name} claims {kinds[label].num_classes} classes: prepare it again.")
    return image, label, tuple(kinds[label].names or ())


def _loaded(source: TfdsSource, memory_limit: int) -> Source:
    """The source with all records in memory, or the source itself if they do not fit."""
    fields, count = source.spec.fields, len(source)
    if count * sum(field.bytes for field in fields.values()) > memory_limit:
        return source  # prepared files carry checksums: no need to decode them all at the start
    arrays = {
        name: np.zeros((count, *field.shape), field.dtype)
        for name, field in fields.items()
        if name != "x"
    }

    def decode(index: int) -> np.ndarray:
        (record,) = source.rows([index])
        for name, array in arrays.items():
            array[index] = source.value(name, record)
        return source.value("x", record)

    images, _, problems = holding.decode_all(
        decode, count, source.spec.shape, title=f"reading {source.name}", keep=True
    )
    if problems:
        index, why = next(iter(problems.items()))
        raise UserError(f"{len(problems)} records of {source.name} are unusable: {index}: {why}.")
    return ArraySource(name=source.name, spec=source.spec, arrays={"x": images, **arrays})
