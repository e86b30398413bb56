"""Hostile and damaged files, made for the tests of data."""

import contextlib
import io
import os
import signal
import socket
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)
KINDS = (
    "pipe", "socket", "device", "folder", "link to a pipe", "link to nothing", "link to itself",
)  # fmt: skip


def no_file(path, kind):
    """Puts something that is not a regular file in a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_name("target")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)  # the name of a socket is short
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "link to a pipe":
            os.mkfifo(target)
            path.symlink_to(target)
        case "link to nothing":
            path.symlink_to(target)
        case "link to itself":
            path.symlink_to(path)


@contextlib.contextmanager
def at_most(seconds):
    """Fails if the block hangs."""

    def late(number, frame):
        raise AssertionError(f"It took more than {seconds} s.")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(content, random):
    """Content with bytes changed, cut out, repeated or cut off."""
    content = bytearray(content)
    place = int(random.integers(len(content)))
    match random.integers(4):
        case 0:
            for index in random.integers(len(content), size=random.integers(1, 20)):
                content[index] = random.integers(256)
        case 1:
            del content[place : place + int(random.integers(1, 64))]
        case 2:
            content[place:place] = content[place : place + int(random.integers(1, 64))]
        case 3:
            del content[place:]
    return bytes(content)


# --- images ---------------------------------------------------------------------------------------


def encoded(image, form, **options):
    """The content of an image file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(levels, depth, transparent=None, colour=False):
    """A PNG of whole numbers [H, W] or, in colour, [H, W, 3], with one transparent level."""
    height, width = levels.shape[:2]
    rows = b""
    for row in levels.reshape(height, -1):
        bits = "".join(format(int(level), f"0{depth}b") for level in row)
        bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    extra = b""
    if transparent is not None:
        extra = _chunk(b"tRNS", struct.pack(f">{3 if colour else 1}H", *np.atleast_1d(transparent)))
    head = struct.pack(">IIBBBBB", width, height, depth, 2 if colour else 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra
        + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )  # fmt: skip


def exif(*entries):
    """An EXIF block of entries (tag, type, count, four bytes), sorted by tag."""
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)


ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322],
                      [0.01947, 0.06087, 0.74457]])  # fmt: skip
"""Linear Adobe RGB (1998) to XYZ under D50: annex of the specification of 2005."""


def profile(matrix, gamma, name="wide"):
    """An ICC profile (version 2.1) of three primaries, the columns of a matrix, and a gamma."""

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def text(kind, content):
        return kind + bytes(4) + content

    curve = text(b"curv", struct.pack(">IH", 1, round(gamma * 256))) + bytes(2)
    label = struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + bytes(78)
    tags = {b"desc": text(b"desc", label), b"cprt": text(b"text", b"none\0"),
            b"wtpt": text(b"XYZ ", fixed((0.9642, 1.0, 0.8249)))}  # fmt: skip
    for letter, column in zip(b"rgb", np.asarray(matrix).T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = text(b"XYZ ", fixed(column))
        tags[bytes([letter]) + b"TRC"] = curve
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(128)
    head[:4] = struct.pack(">I", start + len(body))
    head[8:12], head[12:24], head[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = fixed((0.9642, 1.0, 0.8249))
    return bytes(head) + table + body


def srgb():
    """The content of an sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape):
    """Random pixels."""
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def image_files():
    """Small images in every format, by a name."""
    colour, grey = Image.fromarray(noise(24, 20, 3)), Image.fromarray(noise(24, 20))
    turned = {"exif": exif((0x112, 3, 1, struct.pack("<HH", 6, 0)))}
    wide = {"icc_profile": profile(ADOBE_RGB, 2.2)}
    return {
        "png": encoded(colour, "PNG", **wide),
        "16-bit png": png(RNG.integers(0, 65536, (6, 7)), 16, 300),
        "palette png": encoded(colour.convert("P"), "PNG", transparency=3),
        "jpeg": encoded(colour, "JPEG", **turned, **wide),
        "grey jpeg": encoded(grey, "JPEG"),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG"),
        "progressive jpeg": encoded(colour, "JPEG", progressive=True),
        "webp": encoded(colour, "WEBP"),
        "gif": encoded(colour, "GIF"),
        "bmp": encoded(grey, "BMP"),
        "tiff": encoded(colour, "TIFF", compression="tiff_lzw"),
        "16-bit tiff": encoded(Image.fromarray(noise(9, 9).astype(np.uint16) * 257), "TIFF"),
        "ppm": encoded(colour, "PPM"),
    }
