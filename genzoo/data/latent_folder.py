"""`latents:PATH`: a folder of examples that a first stage has encoded, written by `--mode=encode`.

It holds ArrayRecord files and their description, `latents.json`. A record is the stored values of
the fields, one after the other, in the order, shapes and types of the description.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genzoo.core import strict_json
from genzoo.core.errors import UserError
from genzoo.core.files import expanded, read_text, write_atomically
from genzoo.data.fields import Field
from genzoo.data.latents import Moments
from genzoo.data.source import ArraySource, Records, Source, Spec, check_split

DESCRIPTION = "latents.json"
_TYPES = {"float32": np.float32, "int32": np.int32}
_SHARD = 1 << 28  # bytes
_AT_ONCE = 4096  # records read at a time into memory
_MOST = 1 << 32  # numbers of a field


@dataclass(frozen=True, kw_only=True)
class Column:
    """A field of the records: its name, the shape of a value and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """The size of a value."""
        return math.prod(self.shape) * np.dtype(_TYPES[self.dtype]).itemsize


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split: the number of its records, their CRC-32 and its files."""

    count: int
    checksum: int
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a folder holds. columns: the fields in their order, x first. first: the checksum of the
    first stage's variables. data: the facts about the data, and its tokenizer. made_from: for the
    user: the workdir, weights and step of the first stage."""

    columns: tuple[Column, ...]
    splits: Mapping[str, Part]
    first: int
    data: Mapping[str, object]
    made_from: Mapping[str, object]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of a latent."""
        return self.columns[0].shape[2:]

    @property
    def sides(self) -> int:
        """2 if the moments of mirror images are there, else 1."""
        return self.columns[0].shape[0]

    @property
    def facts(self) -> dict[str, object]:
        """The facts about the data, as the section `data` has them."""
        known = {key: tuple(self.data.get(key, ())) for key in ("classes", "words")}
        known["columns"] = tuple(map(tuple, self.data.get("columns", ())))
        return known | {key: self.data.get(key, 0) for key in ("num_classes", "tokens")}

    def write(self, folder: Path) -> None:
        """Writes the description, which completes the folder."""
        write_atomically(folder / DESCRIPTION, strict_json.dumps(asdict(self), indent=2) + "\n")


def described(path: str) -> Description:
    """The description of a folder. Raises UserError if there is none or it is damaged."""
    file = expanded(path) / DESCRIPTION
    if not file.is_file():
        raise UserError(
            f"latents:{path} holds no latents (there is no {DESCRIPTION}): write some with "
            "--mode=encode --config.tools.dataset=DIR, in the workdir of a first stage."
        )
    try:
        raw = strict_json.loads(read_text(file))
        columns = tuple(
            Column(name=str(c["name"]), shape=_shape(c["shape"]), dtype=str(c["dtype"]))
            for c in raw["columns"]
        )
        splits = {
            str(name): Part(
                count=int(part["count"]), checksum=int(part["checksum"]),
                files=tuple(map(str, part["files"])),
            )
            for name, part in raw["splits"].items()
        }  # fmt: skip
        found = Description(
            columns=columns, splits=splits, first=int(raw["first"]), data=dict(raw["data"]),
            made_from=dict(raw["made_from"]),
        )  # fmt: skip
        Moments(shape=columns[0].shape)
        if columns[0].name != "x" or any(c.dtype not in _TYPES for c in columns):
            raise ValueError("its columns are of an unknown kind")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{file} is damaged ({error}): write the folder again.") from error
    return found


def _shape(sides: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(map(int, sides))
    if any(side < 1 for side in shape) or math.prod(shape) > _MOST:
        raise ValueError(f"{shape} is no shape")
    return shape


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentSource:
    """The records of a split, read from its files each time.

    columns: of a record in the files. records: their bytes by index (Grain). checksum: of them all.
    """

    name: str
    spec: Spec
    columns: tuple[Column, ...]
    records: Any
    checksum: int

    def __len__(self) -> int:
        return len(self.records)

    def read(self, indices: np.ndarray) -> Records:
        """Records [n] of the given indices. Raises UserError if a file is damaged."""
        try:
            rows = self.records.__getitems__([int(index) for index in indices])
        except Exception as error:  # the library raises nearly anything on damaged files
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        if {len(row) for row in rows} != {sum(column.bytes for column in self.columns)}:
            raise self._damaged("a record has another length than described")
        values, start = {}, 0
        for column in self.columns:
            dtype, end = np.dtype(_TYPES[column.dtype]), start + column.bytes
            field = self.spec.fields.get(column.name)
            if field is not None:
                parts = [np.frombuffer(row[start:end], dtype) for row in rows]
                values[column.name] = np.stack(parts).reshape(len(rows), *column.shape)
            start = end
        values["x"] = values["x"][:, : self.spec.shape[0]]
        return values

    def identity(self) -> dict[str, int]:
        """The CRC-32 of the records, from the description."""
        return {"records": self.checksum}

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.name} is damaged ({why}): write the folder again.")


def open_latents(
    path: str, split: str, *, fields: Mapping[str, Field], tokenizer: str, memory_limit: int
) -> Source:
    """A split of a folder: `x` float32 [N, sides, 2, *latent] and the other fields.

    fields: those that are read, x among them. tokenizer: of the texts. memory_limit: bytes up to
    which the set is held in memory. Raises UserError if the folder does not hold them.
    """
    check_split(split)
    found, name = described(path), f"latents:{path}"
    known = {column.name: column for column in found.columns}
    x = fields["x"]
    if x.shape[0] > found.sides:
        raise UserError(
            f"data.flip = True needs the latents of mirror images, but {name} was written without "
            "them: set it to False, or write the folder again with data.flip = True."
        )
    for key, field in fields.items():
        shape = field.shape if key != "x" else (found.sides, *field.shape[1:])
        if key not in known or known[key].shape != shape:
            held = f" of shape {known[key].shape}, not {shape}" if key in known else ""
            raise UserError(f"{name} has no field {key}{held or ''}: use the config of its run.")
    if "text" in fields and found.data.get("tokenizer") != tokenizer:
        raise UserError(
            f"data.tokenizer = {tokenizer!r} did not make the tokens of {name}: set it to "
            f"{found.data.get('tokenizer')!r}."
        )
    part = found.splits.get(split)
    if part is None:
        raise UserError(f"{name} has no split {split!r}: it has {', '.join(found.splits)}.")
    source = LatentSource(
        name=name, spec=Spec(fields=dict(fields)), columns=found.columns,
        records=_records(expanded(path), part, name), checksum=part.checksum,
    )  # fmt: skip
    if len(source) * sum(field.bytes for field in fields.values()) > memory_limit:
        return source
    spans = [range(a, min(a + _AT_ONCE, len(source))) for a in range(0, len(source), _AT_ONCE)]
    parts = [source.read(np.asarray(span)) for span in spans]
    arrays = {key: np.concatenate([each[key] for each in parts]) for key in fields}
    return ArraySource(name=name, spec=source.spec, arrays=arrays)


def _records(folder: Path, part: Part, name: str) -> Any:
    import grain  # takes over a second to import

    files = [folder / file for file in part.files]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise UserError(f"{name}: {file} is no file of that folder: write the folder again.")
    try:
        records = grain.sources.ArrayRecordDataSource([str(file) for file in files])
        count = len(records)
    except Exception as error:  # the library raises nearly anything on damaged files
        raise UserError(
            f"{name} is damaged ({type(error).__name__}: {error}): write the folder again."
        ) from error
    if count != part.count or not count:
        raise UserError(f"{name} has {count} records, not {part.count}: write the folder again.")
    return records


# --- writing --------------------------------------------------------------------------------------


class SplitWriter:
    """Writes the records of a split, in order, into files of about 256 MiB.

    mine: number of a file -> whether this process writes it. All processes add all records.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        columns: Sequence[Column],
        count: int,
        mine: Callable[[int], bool] = lambda number: True,
    ):
        each = max(_SHARD // sum(column.bytes for column in columns), 1)
        total = -(-count // each)
        self._files = [f"{split}-{i:05}-of-{total:05}.array_record" for i in range(total)]
        self._folder, self._columns, self._mine, self._each = folder, columns, mine, each
        self._count, self._checksum, self._writer = 0, 0, None

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds records, [n, *shape] of every column."""
        ordered = [
            np.ascontiguousarray(values[c.name], _TYPES[c.dtype]).reshape(-1, *c.shape)
            for c in self._columns
        ]
        for row in zip(*ordered, strict=True):
            record = b"".join(value.tobytes() for value in row)
            number, place = divmod(self._count, self._each)
            if place == 0:
                self._open(number)
            if self._writer is not None:
                self._writer.write(record)
            self._checksum = zlib.crc32(record, self._checksum)
            self._count += 1

    def _open(self, number: int) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        self.close()
        if self._mine(number):
            path = str(self._folder / self._files[number])
            self._writer = ArrayRecordWriter(path, "group_size:1,uncompressed")

    def close(self) -> None:
        """Completes the last file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    @property
    def part(self) -> Part:
        """What was written."""
        return Part(count=self._count, checksum=self._checksum, files=tuple(self._files))
