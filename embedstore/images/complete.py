"""Whether a picture file holds all of its samples; Pillow shows what is there and leaves the rest black or grey.

What each format lets one know: PNG and deflated TIFF count their bytes and carry a checksum; JPEG is counted by its
coded blocks; GIF, LZW and PackBits end in an error when they are short. Zeros in the middle of uncompressed pixels,
of WebP or of a fax page decode like any other content.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from PIL import Image

from embedstore.codecs.deflated import check_inflated_length
from embedstore.codecs.frame_size import truncated
from embedstore.codecs.jpeg import check_jpeg

# TIFF 6.0 sections 8, 15 and 22: the tags of strips and of tiles.
_COMPRESSION, _ROWS_PER_STRIP, _SAMPLES, _BITS, _PLANAR, _TABLES = 259, 278, 277, 258, 284, 347
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 322, 323
_STRIPS, _TILES = (273, 279), (324, 325)
_JPEG, _DEFLATE = 7, {8, 32946}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG colour types
# First column, first row, and steps, of the seven passes of an interlaced PNG (PNG 8.2).
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def check_complete(content: bytes, format_name: str, picture: Image.Image) -> None:
    """Refuse a file that lacks samples of the picture that was read from it.

    Parameters
    ----------
    content
        The whole file.
    format_name
        From `raster.raster_format`.
    picture
        What Pillow read, loaded and not yet turned upright.

    Raises
    ------
    ImageRefused
        With ``unreadable``.
    """
    if format_name == "PNG":
        _check_png(content, picture)
    elif format_name == "JPEG":
        check_jpeg(content, rows=picture.height, columns=picture.width)
    elif format_name == "TIFF":
        _check_tiff(content, picture)


def _check_png(content: bytes, picture: Image.Image) -> None:
    bits, colour, _, _, interlaced = content[24:29]
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    last_row = picture.crop((0, picture.height - 1, picture.width, picture.height))
    # Rows come from the top, and Pillow leaves those that are missing black: one with content was the last.
    if not interlaced and last_row.getbbox(alpha_only=False) is not None:
        return
    if (picture.width, picture.height) != (width, height) or getattr(picture, "n_frames", 1) > 1:
        return  # a frame of an animation: its data lie elsewhere
    depth = bits * _CHANNELS.get(colour, 1)
    sizes = [(width, height)]
    if interlaced:
        sizes = [
            (-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in _PASSES
        ]
    length = sum(rows * (1 + (columns * depth + 7) // 8) for columns, rows in sizes if columns > 0 < rows)
    check_inflated_length(b"".join(_png_data(content)), length, "PNG")


def _png_data(content: bytes) -> list[bytes]:
    pieces, place = [], 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            pieces.append(content[place + 8 : place + 8 + length])
        place += 12 + length
    return pieces


def _check_tiff(content: bytes, picture: Image.Image) -> None:
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    kind = _TILES if _TILES[0] in tags else _STRIPS
    offsets, counts = _numbers(tags, kind[0]), _numbers(tags, kind[1])
    across, down, planes = _pieces(tags, tiled=kind is _TILES)
    needed = (len(across) - 1) * (len(down) - 1) * planes
    if len(offsets) < needed or len(counts) < needed:
        raise truncated(
            "TIFF", f"{needed} strips or tiles must be there; found {min(len(offsets), len(counts))}"
        )
    samples = 1 if planes > 1 else int(tags.get(_SAMPLES, 1))
    depth = samples * max(_numbers(tags, _BITS) or [1])
    sizes = [(low[1] - low[0], high[1] - high[0]) for high in pairwise(down) for low in pairwise(across)]
    for number, (start, count) in enumerate(zip(offsets[:needed], counts[:needed], strict=True)):
        if start < 8 or start + count > len(content):
            raise truncated("TIFF", f"strip or tile {number + 1} lies outside of the file")
        columns, rows = sizes[number % len(sizes)]
        piece = content[start : start + count]
        if tags.get(_COMPRESSION) in _DEFLATE:
            check_inflated_length(piece, rows * ((columns * depth + 7) // 8), "TIFF")
        elif tags.get(_COMPRESSION) == _JPEG:
            tables = bytes(tags.get(_TABLES, b""))
            check_jpeg(tables[:-2] + piece[2:] if tables else piece, rows=rows, columns=columns)


def _pieces(tags: Any, *, tiled: bool) -> tuple[list[int], list[int], int]:
    """Return the borders of strips or tiles along columns and rows, and how many planes have them."""
    planes = int(tags.get(_SAMPLES, 1)) if tags.get(_PLANAR, 1) == 2 else 1
    width, height = (
        int(tags[_WIDTH]),
        int(tags[_LENGTH]),
    )  # Pillow's size is that of the picture turned upright
    if tiled:  # every tile has its full size, those at the right and the bottom included
        wide, high = max(int(tags[_TILE_WIDTH]), 1), max(int(tags[_TILE_LENGTH]), 1)
        across = [wide * number for number in range(-(-width // wide) + 1)]
        return across, [high * number for number in range(-(-height // high) + 1)], planes
    high = min(max(int(tags.get(_ROWS_PER_STRIP, height)), 1), height)
    return [0, width], [*range(0, height, high), height], planes


def _numbers(tags: Any, tag: int) -> list[int]:
    value = tags.get(tag, ())
    return [int(number) for number in (value if isinstance(value, tuple | list) else (value,))]
