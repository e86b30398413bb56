"""Images as PNG files, one file each or together in a grid."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genzoo.core.files import aside

LARGEST_GRID = 256
"""The most samples that a grid shows."""


def grid(images: np.ndarray, columns: int = 0, gap: int = 1, shown_width: int = 0) -> np.ndarray:
    """uint8 [N, H, W, C] -> one uint8 image, row by row, with white gaps.

    columns: 0 for an approximately square grid. shown_width: the least width in pixels, reached by
    enlarging small images by an integer factor; 0 for no enlargement.
    """
    count, height, width, channels = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    page = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8
    )
    for i, image in enumerate(images):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        page[top : top + height, left : left + width] = image
    factor = max(1, -(-shown_width // page.shape[1]))
    return page.repeat(factor, 0).repeat(factor, 1)


def save(path: Path, image: np.ndarray) -> None:
    """Saves a uint8 image [H, W, C] as PNG. Unless C is 3, only the first channel is shown."""
    channels = image.shape[-1]
    image = image if channels == 3 else image[..., 0]
    with aside(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def save_grid(path: Path, images: np.ndarray, columns: int = 0, caption: str = "") -> None:
    """Saves a grid at least 560 pixels wide as PNG, with an optional caption above it."""
    page = grid(images, columns=columns, shown_width=560)
    save(path, np.concatenate([_line(caption, page), page]) if caption else page)


def _line(text: str, page: np.ndarray) -> np.ndarray:
    """A white strip with the text, with the width and channels of the page."""
    strip = Image.new("L", (page.shape[1], 22), 255)
    ImageDraw.Draw(strip).text((4, 3), text, fill=0, font=ImageFont.load_default(size=13))
    return np.asarray(strip)[..., None].repeat(page.shape[-1], -1)


def save_each(directory: Path, images: np.ndarray, first: int) -> None:
    """One PNG per image, named by its index: first, first + 1, ..."""
    for i, image in enumerate(images):
        save(directory / f"{first + i:06d}.png", image)
