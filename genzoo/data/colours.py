"""Decoded images of every mode as 8-bit grey or RGB: upright, opaque, in the colours of sRGB.

Nearly all of it acts on every pixel alone and is done in bands, so that an image in another mode
never needs more than one whole copy besides itself.
"""

import io
import itertools
import logging
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_BACKGROUND = (255, 255, 255, 255)  # white, behind transparent pixels
_BAND = 1 << 20  # pixels converted at a time
_UNCHANGED = 2  # levels by which a profile may differ from sRGB and still count as sRGB
_KINDS = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # spaces of profiles, and modes of pixels
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_ORIENTATION = 0x112  # the tag of EXIF
_WHOLE = {1: "B", 3: "H", 4: "I"}  # types of EXIF, and the same in `struct`
_log = logging.getLogger("genzoo")


class BadImage(Exception):
    """A file that cannot be used as an image; the text is the reason."""


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8. Nothing else of the metadata is read, and metadata
    that cannot be read leave the image as it is."""
    block = image.info.get("exif")
    try:
        if isinstance(block, bytes):
            value = _tag(block.removeprefix(b"Exif\0\0"), _ORIENTATION)
        else:  # a TIFF, or metadata in another form
            value = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises nearly anything on damaged metadata
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _tag(block: bytes, wanted: int) -> int | None:
    """A whole number in the first directory of an EXIF block, by its tag. Pillow would stop at the
    first entry with a wrong type or place. Raises struct.error for a block that is too short."""
    order = {b"II": "<", b"MM": ">"}[block[:2]]
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", block, place)
        if tag == wanted and kind in _WHOLE:
            return struct.unpack_from(f"{order}{_WHOLE[kind]}", block, place + 8)[0]
    return None


def decoded(image: Image.Image) -> Image.Image:
    """The pixels of an opened image in mode L or RGB: upright, on white where it is transparent,
    with its colour profile converted to sRGB. Raises BadImage, and what decoders raise."""
    _mend_transparency(image)
    image.load()
    converted = _opaque(image)
    turn = _TURNS.get(orientation(image))
    return converted if turn is None else converted.transpose(turn)


def sixteen_as_eight(array: np.ndarray) -> np.ndarray:
    """Levels 0..65535 as uint8 levels 0..255."""
    return np.round(array.astype(np.float32) / 257.0).astype(np.uint8)  # 65535 = 255 * 257


# --- transparency ---------------------------------------------------------------------------------


def _mend_transparency(image: Image.Image) -> None:
    """Gives a PNG's transparent grey or colour the scale that its pixels will have. Pillow expands
    pixels of 2 and 4 bits to 8, but not the transparent one (13.0)."""
    key = image.info.get("transparency")
    if image.format != "PNG" or not image.tile or not isinstance(key, int | tuple):
        return
    raw = image.tile[0].args
    raw = raw if isinstance(raw, str) else raw[0]
    if raw.startswith("RGB;16"):  # Pillow keeps eight of the bits, which do not tell colours apart
        raise BadImage("16-bit colours, of which one is transparent: save it with an alpha channel")
    if raw in ("L;2", "L;4"):
        levels = 1 << int(raw[-1])
        image.info["transparency"] = (key % levels) * 255 // (levels - 1)
    elif image.mode == "L":
        image.info["transparency"] = key % 256
    elif image.mode == "RGB":
        image.info["transparency"] = tuple(value % 256 for value in key)


# --- modes ----------------------------------------------------------------------------------------


def _opaque(image: Image.Image) -> Image.Image:
    mode = _kind(image)
    transform = _transform(image.info.get("icc_profile") or b"", mode)
    transparent = image.has_transparency_data
    if transform is None and not transparent and image.mode in ("L", "RGB"):
        return image
    if image.mode == "F":
        raise BadImage("floating-point values, whose range is unknown: save it with 8 or 16 bits")
    grey = mode == "L" and (image.mode.startswith("I") or not transparent)
    converted = Image.new("L" if grey else "RGB", image.size)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted.paste(_band(band, mode, transform).convert(converted.mode), (0, top))
    return converted


def _kind(image: Image.Image) -> str:
    """The kind of colours that an image holds: L (grey), RGB or CMYK."""
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I"):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _band(image: Image.Image, mode: str, transform: Callable | None) -> Image.Image:
    """Some rows of an image, in 8 bits. mode: the kind of its colours."""
    if image.mode.startswith("I"):
        image = _from_wide(image)
    if not image.has_transparency_data:
        colours = image.convert(mode)
        return colours if transform is None else transform(colours)
    image = image.convert("RGBA")
    if transform is not None:
        opacity = image.getchannel("A")
        image = transform(image.convert(mode)).convert("RGB")
        image.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image)


def _from_wide(image: Image.Image) -> Image.Image:
    """An image of 16 or 32 bits in mode L, white at the transparent level."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("32-bit values outside 0..65535: save it with 8 or 16 bits")
    pixels = sixteen_as_eight(values)
    if isinstance(key := image.info.get("transparency"), int):
        pixels[values == key] = 255
    return Image.fromarray(pixels)


# --- profiles -------------------------------------------------------------------------------------


@lru_cache(maxsize=16)  # the images of a set share theirs
def _transform(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """The conversion to sRGB of pixels in a mode; None without a profile for them, if it is sRGB,
    or if it cannot be read."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _KINDS.get(source.profile.xcolor_space) != mode:
            return None
        convert = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags.NOCACHE
        )
        colours = _samples(mode)
        seen, unseen = (np.asarray(each, int) for each in (convert.apply(colours), colours))
        if mode != "CMYK":
            unseen = unseen.reshape(*seen.shape[:2], -1)
            if np.abs(seen - unseen).max() <= _UNCHANGED:
                return None
        name = ImageCms.getProfileDescription(source)
    except Exception:  # the library raises nearly anything on damaged profiles
        return None
    _announce(name.strip()[:60])
    return convert.apply


def _samples(mode: str) -> Image.Image:
    """Colours of a mode from all over its range, in one row."""
    levels = np.linspace(0, 255, 256 if mode == "L" else 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), -1)
    return Image.frombytes(mode, (colours.size // len(mode), 1), colours.tobytes())


_first = itertools.count()


def _announce(name: str) -> None:
    """Says once that colours are converted; a set may have thousands of images and profiles."""
    if next(_first) == 0:
        _log.info(
            "Images with another colour profile than sRGB, such as %r, are converted to sRGB.", name
        )
