"""JPEG XL through libjxl: its header first (ISO/IEC 18181-1 annex D), then the samples."""

from __future__ import annotations

from embedstore.codecs.frame_size import FrameSize, Samples, no_header, unsupported

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEADER_BYTES = 64  # more than a header without an embedded profile takes
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_GREY = 1


def jpegxl_size(content: bytes) -> FrameSize:
    """Return the size in the header of a codestream, bare or in boxes.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if there is no such header, and ``unsupported`` for a preview, an animation,
        floating-point samples and channels beside grey or RGB.
    """
    bits = _Bits(_codestream_head(content))
    rows, columns = _size(bits)
    if bits.take(1):  # all of the metadata have their default: 8 bits, sRGB
        return FrameSize(rows, columns, 3, 8)
    if bits.take(1):  # extra fields
        bits.take(3)  # orientation: ignored, as rows and columns are those of the codestream
        if bits.take(1):
            _size(bits)
        if bits.take(1) or bits.take(1):
            raise unsupported("JPEG XL with a preview or an animation has no place in a frame")
    if bits.take(1):
        raise unsupported("JPEG XL of floating-point samples is not read")
    precision = bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    bits.take(1)
    if bits.choice((0, 0), (1, 0), (2, 4), (1, 12)):
        raise unsupported("JPEG XL with channels beside grey or RGB is not read")
    bits.take(1)
    components = 3
    if not bits.take(1):  # the colour encoding is not all default
        bits.take(1)
        components = 1 if bits.choice((0, 0), (1, 0), (2, 4), (18, 6)) == _GREY else 3
    return FrameSize(rows, columns, components, precision)


def decode_jpegxl(content: bytes) -> Samples:
    """Decode one JPEG XL image.

    Returns
    -------
    (rows, columns) or (rows, columns, 3) RGB, uint8 up to 8 bits and uint16 above.
    """
    import imagecodecs

    return imagecodecs.jpegxl_decode(content, index=0, keeporientation=True, numthreads=1)


def recompressed_jpeg(content: bytes) -> bytes:
    """Return the JPEG file that was recompressed losslessly as JPEG XL (transfer syntax .111)."""
    import imagecodecs

    return bytes(imagecodecs.jpegxl_decode_jpeg(content, numthreads=1))


def _codestream_head(content: bytes) -> bytes:
    if content[:2] == _CODESTREAM:
        return content[2 : 2 + _HEADER_BYTES]
    place = len(_CONTAINER)
    while content[: len(_CONTAINER)] == _CONTAINER and place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        if kind in {b"jxlc", b"jxlp"}:
            start = place + head + (4 if kind == b"jxlp" else 0)
            if content[start : start + 2] == _CODESTREAM:
                return content[start + 2 : start + 2 + _HEADER_BYTES]
            break
        if length < head:
            break
        place += length
    raise no_header("JPEG XL")


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    rows = _side(bits, small)
    ratio = bits.take(3)
    if not ratio:
        return rows, _side(bits, small)
    numerator, denominator = _RATIOS[ratio]
    return rows, rows * numerator // denominator


def _side(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (1 + bits.take(5))
    return bits.choice((1, 9), (1, 13), (1, 18), (1, 30))


class _Bits:
    """Bits of a header, least significant first; a header that ends too early is none."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "little"), 8 * len(content)

    def take(self, number: int) -> int:
        """Return the next bits as a number."""
        if number > self._left:
            raise no_header("JPEG XL")
        value = self._value & ((1 << number) - 1)
        self._value >>= number
        self._left -= number
        return value

    def choice(self, *offsets: tuple[int, int]) -> int:
        """Return a number whose kind, one of four, two bits choose: an offset and how many bits to add."""
        offset, number = offsets[self.take(2)]
        return offset + self.take(number)
