"""Pictures as PNG bytes, for pages that carry their pictures inside."""

import base64
import struct
import zlib

import numpy as np

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # grey, RGB, RGBA
_UP = 2  # each row is stored as its difference from the row above, which packs CT slices by a third


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 pixels, (rows, columns) grey, (rows, columns, 3) RGB or (rows, columns, 4) RGBA."""
    rows, columns = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    lines = np.ascontiguousarray(pixels, np.uint8).reshape(rows, columns * channels)
    differences = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))  # uint8 wraps, as PNG wants it
    filtered = np.insert(differences, 0, _UP, axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def data_uri(pixels: np.ndarray) -> str:
    """The picture as text for an `src` attribute."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
