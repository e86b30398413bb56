"""Pictures for a page of limited size: the same pixels in fewer bytes, and fewer pixels if need be.

Grids are saved with each pixel of a sample as a block, so that any viewer shows them sharp. A page
can do that itself: such a picture is stored at its own size and shown enlarged.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genzoo.core.errors import cause
from genzoo.core.files import Unreadable, read_bytes

_LARGEST_FILE = 1 << 26  # bytes
_MOST_PIXELS = 60_000_000
_LARGEST_FACTOR = 16
_LEAST_SHARE = 24_000  # bytes: a picture is not made smaller than this to save room
_WIDEST = 1600  # pixels
_THUMBNAIL = 900  # pixels of the longer side


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture. source: a data URI. width, height: at which it is shown, in pixels of the
    page. blocks: whether it is enlarged by a whole factor. altered: whether pixels were lost."""

    source: str
    width: int
    height: int
    blocks: bool
    altered: bool

    @property
    def tall(self) -> bool:
        """Whether it would fill more than a screen from top to bottom."""
        return self.height > max(900, 1.5 * self.width)


class Damaged(Exception):
    """A picture that cannot be read; the text is the reason."""


def encoded(path: Path, share: int, natural: bool = False) -> Picture:
    """The picture in a file, in about `share` bytes of a page. Raises Damaged. natural: shown at
    the size of the file by the browser's smooth scaling, for a picture whose place is of any size,
    where blocks of pixels would come out uneven; only its size in bytes is reduced."""
    original, image, kind = _opened(path)
    width, height = image.size
    if natural:
        return _natural(original, image, kind, share)
    allowed = max(share * 3 // 4, _LEAST_SHARE)  # base64 adds a third
    small, factor = reduced(image)
    content, kind = (_png(small), "png") if factor > 1 or kind != "png" else (original, kind)
    altered = False
    if small.width > _WIDEST:
        small, factor, altered = _scaled(small, _WIDEST / small.width), 1, True
    if altered or len(content) > allowed:
        altered, content, kind = True, _webp(small), "webp"
    for _ in range(3):  # the last bytes do not matter
        if len(content) <= allowed or min(small.size) < 200:
            break
        small, factor = _scaled(small, max(0.25, 0.9 * math.sqrt(allowed / len(content)))), 1
        content = _webp(small)
    return Picture(
        source=f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
        width=width,
        height=height,
        blocks=factor > 1,
        altered=altered,
    )


def _natural(original: bytes, image: Image.Image, kind: str, share: int) -> Picture:
    width, height = image.size
    small = image
    if max(image.size) > _THUMBNAIL:
        small = _scaled(image, max(_THUMBNAIL / max(image.size), 2 / min(image.size)))
    allowed = max(share * 3 // 4, _LEAST_SHARE // 2)
    content, altered = (original, False) if small is image else (_png(small), True)
    kind = kind if small is image else "png"
    if len(content) > allowed or kind not in ("png", "webp", "jpeg"):
        content, kind, altered = _webp(small), "webp", True
    for _ in range(4):
        if len(content) <= allowed or min(small.size) < 64:
            break
        small = _scaled(small, max(0.4, 0.9 * math.sqrt(allowed / len(content))))
        content = _webp(small)
    return Picture(
        source=f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
        width=width, height=height, blocks=False, altered=altered,
    )  # fmt: skip


def _opened(path: Path) -> tuple[bytes, Image.Image, str]:
    """(the content of the file, its picture in grey or in colour, the kind of the file)."""
    try:
        content = read_bytes(path, _LARGEST_FILE)
        image = Image.open(io.BytesIO(content))
        if image.width * image.height > _MOST_PIXELS:
            raise Damaged(f"it has {image.width} x {image.height} pixels")
        image.load()
        grey = image.mode in ("1", "L", "LA", "I;16")
        return content, image.convert("L" if grey else "RGB"), (image.format or "").lower()
    except Unreadable as reason:
        raise Damaged(str(reason)) from reason
    except Image.DecompressionBombError:
        raise Damaged("it has too many pixels") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise Damaged("it is no picture" if "identify" in str(error) else cause(error)) from error


def reduced(image: Image.Image) -> tuple[Image.Image, int]:
    """(the picture without enlargement, the whole factor by which it was enlarged)."""
    pixels = np.asarray(image)
    common = math.gcd(*pixels.shape[:2])
    for factor in range(min(common, _LARGEST_FACTOR), 1, -1):
        if common % factor == 0 and _made_of_blocks(pixels, factor):
            return Image.fromarray(np.ascontiguousarray(pixels[::factor, ::factor])), factor
    return image, 1


def _made_of_blocks(pixels: np.ndarray, factor: int) -> bool:
    blocks = all((pixels[shift::factor] == pixels[::factor]).all() for shift in range(1, factor))
    return blocks and all(
        (pixels[:, shift::factor] == pixels[:, ::factor]).all() for shift in range(1, factor)
    )


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    page = io.BytesIO()
    image.save(page, format="PNG", optimize=image.width * image.height < 400_000)
    return page.getvalue()


def _webp(image: Image.Image) -> bytes:
    page = io.BytesIO()
    image.save(page, format="WEBP", quality=82, method=2)
    return page.getvalue()


def within(paths: Sequence[Path], budget: int) -> tuple[dict[Path, Picture], list[str]]:
    """(the pictures in about `budget` bytes of a page, by path; why others are missing).

    The smallest go first, so that what they leave is for the others. Pictures for which no room is
    left are missing too.
    """
    pictures: dict[Path, Picture] = {}
    missing = []
    waiting = sorted(dict.fromkeys(paths), key=_size)
    for number, path in enumerate(waiting):
        share = max(0, budget) // (len(waiting) - number)
        if share < _LEAST_SHARE // 4:
            missing.append(f"{path.name}: there is no room left on this page.")
            continue
        try:
            pictures[path] = encoded(path, share)
        except Damaged as reason:
            missing.append(f"{path.name} cannot be shown: {reason}.")
            continue
        budget -= len(pictures[path].source)
    return pictures, missing


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
