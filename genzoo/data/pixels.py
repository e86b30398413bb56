"""Conversion of image files, and of arrays of the common types, to uint8 pixels of one size.

Every image in one of the listed formats is converted to 8 bits per channel, rotated upright, made
opaque, cropped and resized. Files are untrusted: formats are allow-listed and sizes are limited.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from genzoo.core.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    (*(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),)
    + (".ppm", ".pgm", ".pbm", ".pnm")
)
RESIZES = ("crop", "stretch")
_BACKGROUND = (255, 255, 255, 255)  # white, behind transparent pixels
_MODES = {1: "L", 3: "RGB"}


class BadImage(Exception):
    """A file that cannot be used as an image; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an image of any size becomes [height, width, channels].

    size: (height, width), or one number for both. channels: 1 (grey by the ITU-R 601 luma) or 3.
    resize: "crop" takes the largest centred part with the wanted aspect ratio, "stretch" the whole
    image. Both use Lanczos resampling, whose kernel reaches slightly beyond the crop, as if the
    image were resized before cropping. pixel_limit: the most pixels that a file may claim (Pillow's
    own limit against decompression bombs).
    """

    size: int | tuple[int, ...]
    channels: int = 3
    resize: str = "crop"
    pixel_limit: int = 89_478_485

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
        # Opening the file here makes sure that it is closed.
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream:
            return _read(stream, fit)
    except BadImage:
        raise
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
        with Image.open(Path(str(file)).expanduser(), formats=FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size if turned else image.size[::-1]
    except Exception:  # decoders raise nearly anything; `read` will give the reason
        return None


def _read(stream: BinaryIO, fit: Fit) -> np.ndarray:
    if not stream.read(1):
        raise BadImage("empty file")
    stream.seek(0)
    with Image.open(stream, formats=FORMATS) as image:
        # Checked here because the filters of Pillow's warning are not thread-safe.
        if image.width * image.height > fit.pixel_limit:
            raise BadImage(
                f"claims {image.width} x {image.height} pixels, more than {fit.pixel_limit}"
            )
        image.load()
        return _fitted(_eight_bits(ImageOps.exif_transpose(image)), fit)


def from_array(array: np.ndarray, fit: Fit) -> np.ndarray:
    """Fits an image [H, W] or [H, W, 1 | 3 | 4] of uint8 or uint16: uint8 `fit.shape`.

    Raises BadImage for other types.
    """
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype == np.uint16:
        array = _from_sixteen(array)
    if array.dtype != np.uint8:
        raise BadImage(f"pixels are {array.dtype}, not uint8 or uint16")
    return _fitted(_eight_bits(Image.fromarray(array)), fit)


def _from_sixteen(array: np.ndarray) -> np.ndarray:
    return np.round(array.astype(np.float32) / 257.0).astype(np.uint8)  # 65535 = 255 * 257


def _eight_bits(image: Image.Image) -> Image.Image:
    """The same image in mode L or RGB, on white if it is transparent."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("32-bit values outside 0..65535: save it with 8 or 16 bits")
        return Image.fromarray(_from_sixteen(values))
    if image.mode == "F":
        raise BadImage("floating-point values, whose range is unknown: save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image).convert(
            "RGB"
        )
    return (
        image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    )


def _fitted(image: Image.Image, fit: Fit) -> np.ndarray:
    image = image.convert(_MODES[fit.channels])
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
    return np.asarray(image, np.uint8).reshape(fit.shape)
