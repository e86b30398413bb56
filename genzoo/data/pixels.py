"""Conversion of image files, and of arrays of the common types, to uint8 pixels of one size.

Every image in one of the listed formats is converted to 8 bits per channel, rotated upright, made
opaque, cropped and resized. Files are untrusted: only regular files are opened, formats are
allow-listed, and a file may have `FILE_LIMIT` bytes and `PIXEL_LIMIT` pixels. Decoding takes some
12 bytes a pixel, and all threads of a process together decode at most two images of that size at a
time.
"""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genzoo.core import files
from genzoo.core.errors import UserError
from genzoo.data import colours
from genzoo.data.colours import BadImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    (*(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),)
    + (".ppm", ".pgm", ".pbm", ".pnm")
)
RESIZES = ("crop", "stretch")
PIXEL_LIMIT = 1 << 26
"""The most pixels of an image: 8192 x 8192."""
_SIDE_LIMIT = 1 << 16  # in pixels; the memory of resampling grows with the side
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
_MODES = {1: "L", 3: "RGB"}
# Wrong metadata are no damage, and the limit above is below Pillow's own.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _Room:
    """Bounds what several threads hold at the same time. most: the sum of what they take."""

    def __init__(self, most: int):
        self._left, self._most = most, most
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Takes an amount, or everything if that is less, once it is there."""
        amount = min(amount, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


_room = _Room(2 * PIXEL_LIMIT)  # pixels decoded at the same time


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image of any size becomes [height, width, channels].

    size: (height, width), or one number for both. channels: 1 (grey by the ITU-R 601 luma) or 3.
    resize: "crop" takes the largest centred part with the wanted aspect ratio, "stretch" the whole
    image. Both use Lanczos resampling, whose kernel reaches slightly beyond the crop, as if the
    image were resized before cropping. pixel_limit: the most pixels that a file may claim.
    """

    size: int | tuple[int, ...]
    channels: int = 3
    resize: str = "crop"
    pixel_limit: int = PIXEL_LIMIT

    def __post_init__(self):
        if required := size_problem(self.size):
            raise UserError(f"The image size is {self.size} (data.size): it must be {required}.")
        if self.channels not in _MODES:
            raise UserError(f"data.channels is {self.channels}: it must be 1 (grey) or 3 (colour).")
        if self.resize not in RESIZES:
            raise UserError(f"data.resize is {self.resize!r}: it must be {' or '.join(RESIZES)}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the fitted image."""
        return (*sides(self.size), self.channels)


def sides(size: int | tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a size, which may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return (height, width)


def size_problem(size: int | tuple[int, ...]) -> str:
    """What an invalid size must be instead, as the end of a sentence; "" for a valid size."""
    if isinstance(size, int):
        return "" if size > 0 else "at least 1"
    return "" if len(size) == 2 and min(size) > 0 else "one number, or (height, width), of pixels"


def read(file: Path | bytes, fit: Fit) -> np.ndarray:
    """The first frame of an image file, rotated by its EXIF orientation: uint8 `fit.shape`.

    The whole file is decoded, so that truncated files are detected. Raises BadImage.
    """
    try:
        content = file if isinstance(file, bytes) else files.read_bytes(file)
        return _read(content, fit)
    except BadImage:
        raise
    except files.Unreadable as reason:
        raise BadImage(str(reason)) from reason
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"not an image in any of the formats {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"claims more than {fit.pixel_limit} pixels") from error
    except MemoryError as error:
        raise BadImage("does not fit into memory") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise BadImage(f"damaged ({type(error).__name__}: {error})") from error


def size_of(file: object) -> tuple[int, int] | None:
    """(height, width) of the upright image in the file of that name; None if it is not an image."""
    try:
        content = files.read_bytes(files.expanded(str(file)))
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            turned = colours.orientation(image) >= 5
            return image.size if turned else image.size[::-1]
    except Exception:  # decoders raise nearly anything; `read` will give the reason
        return None


def _read(content: bytes, fit: Fit) -> np.ndarray:
    if not content:
        raise BadImage("empty file")
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > fit.pixel_limit:
            raise BadImage(f"claims {width} x {height} pixels, more than {fit.pixel_limit}")
        if max(width, height) > _SIDE_LIMIT:
            raise BadImage(f"claims {width} x {height} pixels, a side of more than {_SIDE_LIMIT}")
        tile = _tile(image)
        if tile > fit.pixel_limit:
            raise BadImage(f"claims a tile of {tile} pixels, more than {fit.pixel_limit}")
        with _room.taken(max(width * height, tile)):
            return _fitted(colours.decoded(image), fit)


def _tile(image: Image.Image) -> int:
    """The pixels of each tile of a TIFF, which is decoded whole however small the image; 0 for an
    image without tiles."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    return math.prod(sides) if all(isinstance(side, int) for side in sides) else 0


def from_array(array: np.ndarray, fit: Fit) -> np.ndarray:
    """Fits an image [H, W] or [H, W, 1 | 3 | 4] of uint8 or uint16: uint8 `fit.shape`.

    Raises BadImage for other types.
    """
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype == np.uint16:
        array = colours.sixteen_as_eight(array)
    if array.dtype != np.uint8:
        raise BadImage(f"pixels are {array.dtype}, not uint8 or uint16")
    return _fitted(colours.decoded(Image.fromarray(array)), fit)


def _fitted(image: Image.Image, fit: Fit) -> np.ndarray:
    if fit.channels == 1:
        image = image.convert("L")
    width, height = image.size
    down, across, _ = fit.shape
    box = (0.0, 0.0, float(width), float(height))
    if fit.resize == "crop":
        # The largest part with the aspect ratio across / down.
        wide = min(width, height * across / down)
        tall = min(height, width * down / across)
        left, top = (width - wide) / 2, (height - tall) / 2
        box = (left, top, left + wide, top + tall)
    if (width, height) != (across, down):  # pixels of the right size are left as they are
        image = image.resize((across, down), Image.Resampling.LANCZOS, box=box)
    return np.asarray(image.convert(_MODES[fit.channels])).reshape(fit.shape)  # grey as colour
