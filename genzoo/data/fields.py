"""The fields of a record, each of a known kind; the field `x` is the datum.

A field describes its values: their shape, how they are stored, how a model sees them and how a user
specifies one. Code that treats images, signals and points differently checks the kind of the field,
never the shape of an array: points [D] and vectors [D], or signals [L, C] and a row of an image,
have the same shape. Counts are defined in `counts`, moments in `latents`.

| kind    | one value              | stored  | what a model sees         |
|---------|------------------------|---------|---------------------------|
| Image   | [H, W, C]              | uint8   | float32 in [-1, 1]        |
| Signal  | [L, C]                 | float32 | the same                  |
| Points  | [D], a place in space  | float32 | the same                  |
| Latents | any shape              | float32 | the same                  |
| Classes | [], the class's number | int32   | the same                  |
| Tokens  | [L], padded ids        | int32   | the same                  |
| Vector  | [D], named numbers     | float32 | standardised, or the same |
| Counts  | [V], one per word      | uint16  | the same as float32       |
| Moments | [sides, 2, *latent]    | float32 | those of one side         |
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError, listed, nearest
from genzoo.core.files import expanded
from genzoo.core.types import Array
from genzoo.data import given, pixels, transforms
from genzoo.data.vocabulary import PADDING, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Field:
    """One entry of a record; the kinds are its subclasses.

    shape: the shape of one value. dtype: the type of stored values. singular, plural: the words for
    one value and for several. spatial: whether mirroring the image mirrors this field. levels: the
    number of levels to which stored values are rounded; 0 for real numbers. suffixes: the endings,
    in lower case, of files that hold one value.
    """

    shape: tuple[int, ...]
    dtype: ClassVar[type] = np.float32
    singular: ClassVar[str] = "record"
    plural: ClassVar[str] = "records"
    spatial: ClassVar[bool] = False
    levels: ClassVar[int] = 0
    suffixes: ClassVar[frozenset[str]] = frozenset()

    @property
    def bytes(self) -> int:
        """The memory of one stored value in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.shape} of {np.dtype(self.dtype).name}"

    def example(self, *rows: int) -> jax.ShapeDtypeStruct:
        """Shape [*rows, *shape] and type of prepared values."""
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
        """Prepares stored values [N, *shape], or their rows [N, D], for a model: [N, *shape]."""
        return jnp.asarray(values).reshape(len(values), *self.shape)

    def mirrored(self, values: Array | np.ndarray, which: Array) -> Array:
        """Prepared values [N, *shape] of a spatial field, mirrored where `which` bool [N] is true.
        """
        return transforms.mirrored(self.prepare(values), which)

    def stored(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """Converts a model's values [...] to their stored form, within NumPy or within JAX."""
        return values.astype(self.dtype)

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random stored values [count, *shape], for timing programs."""
        return random.normal(size=(count, *self.shape)).astype(self.dtype)

    def wrong(self, values: np.ndarray) -> str:
        """Why an array does not hold stored values [N, *shape] of this field; "" if it does."""
        if values.dtype == self.dtype and values.shape[1:] == self.shape and values.ndim:
            return ""
        return f"{values.dtype} {values.shape[1:]}, which should be {self}"

    def take(self, value: object) -> np.ndarray:
        """Converts one value from a data set to its stored form. Raises ValueError if unfit."""
        array = np.asarray(value, self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"its shape is {array.shape}, not {self.shape}")
        return array

    def parse(self, value: object, key: str) -> np.ndarray:
        """Converts a value given by a user to its stored form. Raises UserError.

        value: numbers, their text, or the name of a file of numbers (.npy, .csv or .txt). key: the
        config key to name in the error.
        """
        return self._shaped(given.numbers(value, key), value, key)

    @property
    def _asked(self) -> str:
        """What a user has to give, in messages."""
        return str(self.shape)

    def _shaped(self, array: np.ndarray, value: object, key: str) -> np.ndarray:
        # Text files do not keep axes of length one.
        if [n for n in array.shape if n != 1] != [n for n in self.shape if n != 1]:
            raise UserError(
                f"{key} = {value!r} holds numbers of shape {array.shape}: give {self._asked}."
            )
        return array.reshape(self.shape).astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Image(Field):
    """Pixels [H, W, C] with 256 levels.

    resize: how images of another size are resized, "crop" or "stretch" (see `pixels.Fit`).
    """

    resize: str = "crop"
    dtype: ClassVar[type] = np.uint8
    singular: ClassVar[str] = "image"
    plural: ClassVar[str] = "images"
    spatial: ClassVar[bool] = True
    levels: ClassVar[int] = 256
    suffixes: ClassVar[frozenset[str]] = pixels.SUFFIXES

    @property
    def fit(self) -> pixels.Fit:
        """How an image of any size is fitted to this field."""
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
        """Fits an image [H', W'] or [H', W', 1 | 3 | 4] of uint8 or uint16, or the content of an
        image file. Raises BadImage."""
        if isinstance(value, bytes):
            return pixels.read(value, self.fit)
        return pixels.from_array(np.asarray(value), self.fit)

    def parse(self, value: object, key: str) -> np.ndarray:
        """Reads and fits the image file of that name: uint8 [H, W, C]. Raises UserError."""
        path = expanded(str(value))
        if not path.is_file():
            raise UserError(f"{key} = {value!r}: there is no such file; give the path of an image.")
        try:
            return pixels.read(path, self.fit)
        except pixels.BadImage as reason:
            raise UserError(f"{key} = {value!r} cannot be used as an image: {reason}.") from reason


@dataclass(frozen=True, kw_only=True)
class Signal(Field):
    """Evenly spaced samples [L, C] along one axis.

    channels: their names, or (). axis: the label of the axis L in plots, with its unit.
    """

    channels: tuple[str, ...] = ()
    axis: str = "sample"
    singular: ClassVar[str] = "signal"
    plural: ClassVar[str] = "signals"

    def __post_init__(self):
        if len(self.shape) != 2 or (self.channels and len(self.channels) != self.shape[1]):
            raise ValueError(f"Signals are [L, C], with a name for each of C channels: {self}.")


@dataclass(frozen=True, kw_only=True)
class Points(Field):
    """Points [D] in a space of D dimensions."""

    singular: ClassVar[str] = "point"
    plural: ClassVar[str] = "points"


@dataclass(frozen=True, kw_only=True)
class Latents(Field):
    """Latents from a first stage, of any shape; mirroring an image does not mirror its latents."""

    singular: ClassVar[str] = "latent"
    plural: ClassVar[str] = "latents"


@dataclass(frozen=True, kw_only=True)
class Classes(Field):
    """The number of a class. names: the names of all classes, in order."""

    names: tuple[str, ...]
    shape: tuple[int, ...] = ()
    dtype: ClassVar[type] = np.int32
    singular: ClassVar[str] = "class"
    plural: ClassVar[str] = "classes"

    @property
    def count(self) -> int:
        """The number of classes."""
        return len(self.names)

    def __str__(self) -> str:
        return f"{self.count} classes"

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random classes, int32 [count]."""
        return random.integers(0, self.count, count).astype(np.int32)

    def parse(self, value: object, key: str) -> np.ndarray:
        """The class with that name (ignoring case) or number: int32 []. Raises UserError.

        Names take precedence, in case a class has the number of another one as its name.
        """
        text = str(value).strip()
        names = [name.casefold() for name in self.names]
        if text in self.names:
            return np.int32(self.names.index(text))
        if names.count(text.casefold()) == 1:
            return np.int32(names.index(text.casefold()))
        if text.isdecimal() and int(text) < self.count:
            return np.int32(text)
        raise UserError(
            f"{key} = {value!r} is not a class: give a number from 0 to {self.count - 1} or a "
            f"name; {nearest(text, self.names, ordered=True)}"
        )


def numbered(count: int) -> Classes:
    """Classes without names: each is named by its number."""
    return Classes(names=tuple(str(i) for i in range(count)))


@dataclass(frozen=True, kw_only=True)
class Tokens(Field):
    """A sequence of at most L ids below `vocabulary`, padded with `PADDING`.

    tokenizer: converts text to ids and back, for text data.
    """

    vocabulary: int
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    dtype: ClassVar[type] = np.int32
    singular: ClassVar[str] = "text"
    plural: ClassVar[str] = "texts"

    def mask(self, ids: Array | np.ndarray) -> Array | np.ndarray:
        """Which of the ids [..., L] are not padding: bool [..., L]."""
        return ids != PADDING

    def made_up(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random ids, int32 [count, L]."""
        return random.integers(0, self.vocabulary, (count, *self.shape)).astype(np.int32)

    def take(self, value: object) -> np.ndarray:
        """A text (str, or UTF-8 bytes), truncated to L ids, or up to L ids: int32 [L], padded.
        Raises ValueError."""
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, str):
            if self.tokenizer is None:
                raise ValueError("it is text, but this field has no tokenizer")
            value = self.tokenizer.encode(value, self.shape[0])
        ids = np.asarray(value, np.int32)
        if ids.ndim != 1 or len(ids) > self.shape[0]:
            raise ValueError(f"its shape is {ids.shape}, not at most {self.shape}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary:
            raise ValueError(f"its ids are not all from 0 to {self.vocabulary - 1}")
        padded = np.full(self.shape, PADDING, np.int32)
        padded[: len(ids)] = ids
        return padded

    def text(self, ids: np.ndarray) -> str:
        """The text of ids [L]."""
        if self.tokenizer is None:
            return " ".join(str(id) for id in ids if id != PADDING)
        return self.tokenizer.decode([int(id) for id in ids])

    def parse(self, value: object, key: str) -> np.ndarray:
        """The ids of a text (see `given.text`): int32 [L]. Raises UserError, also for a text
        that is empty, is too long or has a word outside the vocabulary."""
        text = given.text(value, key)
        if not text:
            raise UserError(f"{key} = {value!r} is an empty text: give words, or none for no text.")
        try:
            ids = self.take(text)
        except ValueError as reason:
            raise UserError(f"{key} = {value!r} cannot be used as a text: {reason}.") from reason
        if complaint := self.tokenizer.complaint(text):
            if what := given.no_text_file(str(value).strip()):
                raise UserError(f"{key} = {value!r} {what}")
            raise UserError(f"{key} = {value!r} cannot be used as a text: {complaint}")
        if (count := len(self.tokenizer.encode(text))) > self.shape[0]:
            raise UserError(
                f"{key} = {value!r} has {count} tokens, but this model takes at most "
                f"{self.shape[0]}: shorten it."
            )
        return ids


@dataclass(frozen=True, kw_only=True)
class Vector(Field):
    """Numbers [D] that belong together, such as the properties of a material.

    names: the names of the entries, or (). mean, deviation: their means and standard deviations
    over the training set; models see (value - mean) / deviation, or the values themselves if these
    are (). Values are given by users, by name or in this order, and stored in the units of the
    data.
    """

    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    singular: ClassVar[str] = "vector"
    plural: ClassVar[str] = "vectors"

    def __post_init__(self):
        if len(self.shape) != 1 or (self.names and len(self.names) != self.shape[0]):
            raise ValueError(f"A vector is [D], with a name for each of D entries: {self}.")
        if len(self.mean) != len(self.deviation) or len(self.mean) not in (0, *self.shape):
            raise ValueError(f"A vector is [D], with D means and deviations, or none: {self}.")

    def prepare(self, values: Array | np.ndarray) -> Array:
        """Numbers [N, D], standardised if the mean and deviation are known."""
        seen = super().prepare(values)
        if not self.mean:
            return seen
        return (seen - np.float32(self.mean)) / np.float32(self.deviation)

    def stored(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """The numbers in the units of the data."""
        if self.mean:
            values = values * np.float32(self.deviation) + np.float32(self.mean)
        return super().stored(values)

    def parse(self, value: object, key: str) -> np.ndarray:
        """float32 [D] from text such as "porosity=0.4, grain=2", or as in `Field.parse`.

        The former needs named entries. Warns of values far outside the training set. Raises
        UserError.
        """
        if not isinstance(value, str) or "=" not in value:
            array = super().parse(value, key)
        else:
            array = given.named_numbers(value, self.names, key)
        if self.mean:
            given.warn_of_extrapolation(array, self.names, self.mean, self.deviation, key)
        return array

    @property
    def _asked(self) -> str:
        if not self.names:
            return str(self.shape)
        numbers = "one number" if self.shape == (1,) else f"{self.shape[0]} numbers"
        return f"{numbers}, in this order: {listed(self.names, 10)}"
