"""What records are made of: fields of known kinds, one of which is the datum, `x`.

A field says what one value of it is: its shape, how it is stored, what a model sees of it, how a
user names a value. Whoever needs to treat an image, a signal and a point differently asks for the
kind of the field. The shape of an array never decides: points [D] and vectors [D], or signals
[L, C] and one row of an image, look alike.

| kind    | one value              | stored  | what a model sees    |
|---------|------------------------|---------|----------------------|
| Image   | [H, W, C]              | uint8   | float32 in [-1, 1]   |
| Signal  | [L, C]                 | float32 | the same             |
| Points  | [D], a place in space  | float32 | the same             |
| Latents | any shape              | float32 | the same             |
| Classes | [], the class's number | int32   | the same             |
| Tokens  | [L], padded ids        | int32   | the same             |
| Vector  | [D], named numbers     | float32 | the same             |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch, Key
from genzoo.data import pixels, transforms

_NUMBER_FILES = (".npy", ".csv", ".txt")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One entry of a record; the kinds are its subclasses.

    shape: of one value. dtype: of stored values. singular, plural: the words for one value and for
    several. spatial: whether mirroring the picture mirrors this field. levels: how many levels
    stored values are rounded to, 0 for real numbers.
    """

    shape: tuple[int, ...]
    dtype: ClassVar[type] = np.float32
    singular: ClassVar[str] = "record"
    plural: ClassVar[str] = "records"
    spatial: ClassVar[bool] = False
    levels: ClassVar[int] = 0

    @property
    def bytes(self) -> int:
        """How much memory one stored value takes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.shape} of {np.dtype(self.dtype).name}"

    def example(self, *rows: int) -> jax.ShapeDtypeStruct:
        """Shape [*rows, *shape] and type of what a model sees."""
        return jax.ShapeDtypeStruct((*rows, *self.shape), self.dtype)

    def stored_example(
        self, *rows: int, sharding: jax.sharding.Sharding | None = None
    ) -> jax.ShapeDtypeStruct:
        """Shape [*rows, *shape] and type of stored values."""
        return jax.ShapeDtypeStruct((*rows, *self.shape), self.dtype, sharding=sharding)

    def flat(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """Stored values [N, *shape] as rows [N, D]; values without axes stay [N]."""
        return values.reshape(len(values), -1) if self.shape else values

    def prepare(self, values: Array | np.ndarray) -> Array:
        """Stored values [N, *shape], or rows [N, D] of them, as a model sees them: [N, *shape]."""
        return jnp.asarray(values).reshape(len(values), *self.shape)

    def stored(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """What a model made, [...], as it is stored. NumPy stays NumPy, JAX stays JAX."""
        return values.astype(self.dtype)

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random stored values [count, *shape], to time programs with."""
        return random.normal(size=(count, *self.shape)).astype(self.dtype)

    def wrong(self, values: np.ndarray) -> str:
        """Why an array does not hold stored values of this field, [N, *shape]; "" where it does."""
        if values.dtype == self.dtype and values.shape[1:] == self.shape and values.ndim:
            return ""
        return f"{values.dtype} {values.shape[1:]}, which should be {self}"

    def take(self, value: object) -> np.ndarray:
        """One value as a data set holds it, as it is stored. Raises ValueError where it cannot
        be one of this field."""
        found = np.asarray(value, self.dtype)
        if found.shape != self.shape:
            raise ValueError(f"its shape is {found.shape}, not {self.shape}")
        return found

    def parse(self, said: object, key: str) -> np.ndarray:
        """The stored value that a user means. said: numbers, their text, or the name of a file of
        numbers (.npy, .csv or .txt). key: of the config, for the sentences of UserError."""
        if isinstance(said, str) and Path(said).suffix.lower() in _NUMBER_FILES:
            return self._shaped(_read_numbers(Path(said).expanduser(), key), said, key)
        return self._shaped(_numbers(said, key), said, key)

    def _shaped(self, found: np.ndarray, said: object, key: str) -> np.ndarray:
        # Text files do not keep axes of length one.
        if [n for n in found.shape if n != 1] != [n for n in self.shape if n != 1]:
            raise UserError(
                f"{key} = {said!r} holds numbers of shape {found.shape}: give {self.shape}."
            )
        return found.reshape(self.shape).astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Image(Field):
    """Pixels [H, W, C] on 256 levels. resize: how a picture of another size becomes one of these,
    "crop" or "stretch" (see `pixels.Fit`)."""

    resize: str = "crop"
    dtype: ClassVar[type] = np.uint8
    singular: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"
    spatial: ClassVar[bool] = True
    levels: ClassVar[int] = 256

    @property
    def fit(self) -> pixels.Fit:
        """How a picture of any size becomes one of these."""
        height, width, channels = self.shape
        return pixels.Fit(size=(height, width), channels=channels, resize=self.resize)

    def example(self, *rows: int) -> jax.ShapeDtypeStruct:
        """Shape [*rows, H, W, C], float32."""
        return jax.ShapeDtypeStruct((*rows, *self.shape), jnp.float32)

    def prepare(self, values: Array | np.ndarray) -> Array:
        """Pixels as float32 in [-1, 1], [N, H, W, C]."""
        return transforms.to_float(values).reshape(len(values), *self.shape)

    def stored(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """Floats in [-1, 1] as pixels: rounded to the nearest level, clipped outside."""
        return transforms.to_uint8(values)

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Pixels of noise, uint8 [count, H, W, C]."""
        return random.integers(0, 256, (count, *self.shape)).astype(np.uint8)

    def take(self, value: object) -> np.ndarray:
        """A picture [H', W'] or [H', W', 1 | 3 | 4] of uint8 or uint16, fitted. Raises BadImage."""
        return pixels.from_array(np.asarray(value), self.fit)

    def parse(self, said: object, key: str) -> np.ndarray:
        """The picture in the file of that name, fitted: uint8 [H, W, C]. Raises UserError."""
        path = Path(str(said)).expanduser()
        if not path.is_file():
            raise UserError(f"{key} = {said!r}: there is no such file; give the name of an image.")
        try:
            return pixels.read(path, self.fit)
        except pixels.BadImage as reason:
            raise UserError(f"{key} = {said!r} cannot be used as an image: {reason}.") from reason


@dataclass(frozen=True, kw_only=True)
class Signal(Field):
    """Samples [L, C] along one axis, evenly spaced. channels: their names, or none. axis: what
    runs along L, with its unit, as a picture of the signal calls it."""

    channels: tuple[str, ...] = ()
    axis: str = "sample"
    singular: ClassVar[str] = "signal"
    plural: ClassVar[str] = "signals"

    def __post_init__(self):
        if len(self.shape) != 2 or (self.channels and len(self.channels) != self.shape[1]):
            raise ValueError(f"Signals are [L, C], with a name for each of C channels: {self}.")


@dataclass(frozen=True, kw_only=True)
class Points(Field):
    """Places [D] in a space of D dimensions."""

    singular: ClassVar[str] = "point"
    plural: ClassVar[str] = "points"


@dataclass(frozen=True, kw_only=True)
class Latents(Field):
    """What a first stage made of a datum, of any shape. Not spatial: the latents of a mirrored
    image are not the mirrored latents of the image."""

    singular: ClassVar[str] = "latent"
    plural: ClassVar[str] = "latents"


@dataclass(frozen=True, kw_only=True)
class Classes(Field):
    """The number of a class. names: of all classes, in their order."""

    names: tuple[str, ...]
    shape: tuple[int, ...] = ()
    dtype: ClassVar[type] = np.int32
    singular: ClassVar[str] = "class"
    plural: ClassVar[str] = "classes"

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.names)

    def __str__(self) -> str:
        return f"{self.count} classes"

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random classes, int32 [count]."""
        return random.integers(0, self.count, count).astype(np.int32)

    def parse(self, said: object, key: str) -> np.ndarray:
        """The class of that name, in upper or lower case, or of that number: int32 []. A name wins,
        where the classes are named by other numbers than their own. Raises UserError."""
        text = str(said).strip()
        names = [name.casefold() for name in self.names]
        if text in self.names:
            return np.int32(self.names.index(text))
        if names.count(text.casefold()) == 1:
            return np.int32(names.index(text.casefold()))
        if text.isdecimal() and int(text) < self.count:
            return np.int32(text)
        raise UserError(
            f"{key} = {said!r} is no class: give a number from 0 to {self.count - 1} or a name; "
            f"{nearest(text, self.names)}"
        )


def numbered(count: int) -> Classes:
    """Classes of which only the number is known: each is named by its own."""
    return Classes(names=tuple(str(i) for i in range(count)))


@dataclass(frozen=True, kw_only=True)
class Tokens(Field):
    """A sequence of at most L ids below `vocabulary`, filled up with `padding`.

    tokenizer: text -> ids, for data that are text. Of text that is longer than L only the first L
    ids are kept.
    """

    vocabulary: int
    padding: int = 0
    tokenizer: Callable[[str], Sequence[int]] | None = field(default=None, compare=False)
    dtype: ClassVar[type] = np.int32
    singular: ClassVar[str] = "text"
    plural: ClassVar[str] = "texts"

    def mask(self, ids: Array | np.ndarray) -> Array | np.ndarray:
        """Where ids [..., L] are more than padding: bool [..., L]."""
        return ids != self.padding

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random ids, int32 [count, L]."""
        return random.integers(0, self.vocabulary, (count, *self.shape)).astype(np.int32)

    def take(self, value: object) -> np.ndarray:
        """A text (str, or bytes in UTF-8), or at most L ids, padded: int32 [L]. Raises
        ValueError."""
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, str):
            if self.tokenizer is None:
                raise ValueError("it is text, and nothing says how text becomes tokens")
            value = list(self.tokenizer(value))[: self.shape[0]]
        ids = np.asarray(value, np.int32)
        if ids.ndim != 1 or len(ids) > self.shape[0]:
            raise ValueError(f"its shape is {ids.shape}, not at most {self.shape}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary:
            raise ValueError(f"its ids are not all from 0 to {self.vocabulary - 1}")
        return np.pad(ids, (0, self.shape[0] - len(ids)), constant_values=self.padding)

    def parse(self, said: object, key: str) -> np.ndarray:
        """The ids of a text, or of the text in a file whose name ends in .txt: int32 [L]. Raises
        UserError."""
        text = str(said)
        path = Path(text).expanduser()
        try:
            if path.suffix.lower() == ".txt" and path.is_file():
                text = path.read_text(encoding="utf-8")
            return self.take(text)
        except (ValueError, OSError) as reason:
            raise UserError(f"{key} = {said!r} cannot be used as a text: {reason}.") from reason


@dataclass(frozen=True, kw_only=True)
class Vector(Field):
    """Numbers [D] that belong together, such as the properties of a material. names: of the
    entries, or none."""

    names: tuple[str, ...] = ()
    singular: ClassVar[str] = "vector"
    plural: ClassVar[str] = "vectors"

    def __post_init__(self):
        if len(self.shape) != 1 or (self.names and len(self.names) != self.shape[0]):
            raise ValueError(f"A vector is [D], with a name for each of D entries: {self}.")

    def parse(self, said: object, key: str) -> np.ndarray:
        """float32 [D] of "porosity=0.4, grain=2" where the entries have names; else of numbers,
        their text, or a file of them. Raises UserError."""
        if not isinstance(said, str) or "=" not in said:
            return super().parse(said, key)
        values = {}
        for part in said.split(","):
            name, _, text = (piece.strip() for piece in part.partition("="))
            if name not in self.names:
                raise UserError(f"{key}: {name!r} is no entry of it; {nearest(name, self.names)}")
            if name in values:
                raise UserError(f"{key} = {said!r} gives {name} twice: give it once.")
            values[name] = _numbers(text, f"{key}: {name}")
            if values[name].size != 1:
                raise UserError(f"{key}: {name} = {text!r} must be one number.")
        if missing := [name for name in self.names if name not in values]:
            raise UserError(f"{key} = {said!r} does not give {', '.join(missing)}: give every one.")
        return np.array([values[name].item() for name in self.names], np.float32)


def _numbers(said: object, key: str) -> np.ndarray:
    parts = said.strip(" ()[]").split(",") if isinstance(said, str) else said
    try:
        found = np.asarray([float(part) for part in parts if part.strip()]
                           if isinstance(said, str) else parts, np.float32)  # fmt: skip
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} = {said!r} must be numbers with commas between them, or the name of a file "
            f"({', '.join(_NUMBER_FILES)})."
        ) from error
    if not found.size or not np.isfinite(found).all():
        raise UserError(f"{key} = {said!r} must be finite numbers.")
    return np.atleast_1d(found)


def _read_numbers(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{key} = {str(path)!r}: there is no such file.")
    try:
        if path.suffix.lower() == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            found = np.loadtxt(path, delimiter="," if path.suffix.lower() == ".csv" else None)
        return np.asarray(found, np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{key} = {str(path)!r} cannot be read as numbers: {error}.") from error


# --- records --------------------------------------------------------------------------------------


def only(records: Mapping[str, np.ndarray], fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """The entries of records that are fields."""
    return {name: values for name, values in records.items() if name in fields}


def flat(records: Mapping[str, Array], fields: Mapping[str, Field]) -> dict[str, Array]:
    """Stored records as they are held on the devices: every field as rows [N, D], or [N]. In the
    shape of images a TPU would lay out the whole set anew in every step."""
    return {k: fields[k].flat(v) if k in fields else v for k, v in records.items()}


def prepare(
    batch: Batch,
    key: Key | None = None,
    *,
    fields: Mapping[str, Field],
    mirrored: bool = False,
) -> Batch:
    """A stored batch as models see it; what is no field (masks, indices) stays as it is.

    mirrored: whether each record is mirrored left to right with probability one half, by the key,
    all its spatial fields alike.
    """
    seen = {k: fields[k].prepare(v) if k in fields else v for k, v in batch.items()}
    spatial = [k for k in seen if k in fields and fields[k].spatial]
    if not mirrored or not spatial:
        return seen
    which = transforms.coin(key, len(seen[spatial[0]]))
    return seen | {k: transforms.mirrored(seen[k], which) for k in spatial}
