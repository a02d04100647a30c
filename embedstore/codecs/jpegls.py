"""JPEG-LS, lossless and near-lossless, through CharLS, which refuses streams with too few or too many samples."""

from __future__ import annotations

import numpy as np

from embedstore.codecs.frame_size import Samples, no_header
from embedstore.codecs.jpeg_stream import JPEG_LS, JpegStream, read_jpeg


def decode_jpegls(content: bytes, stream: JpegStream | None = None) -> Samples:
    """Decode one JPEG-LS image to the components that it codes.

    Returns
    -------
    (rows, columns) or (rows, columns, components), uint8 up to 8 bits and uint16 above.

    Raises
    ------
    ImageRefused
        With ``unreadable`` for another kind of JPEG.
    """
    import imagecodecs

    stream = stream or read_jpeg(content)
    if stream.process != JPEG_LS:
        raise no_header("JPEG-LS")
    # Components in scans of their own come as a view with the strides of planes.
    return np.ascontiguousarray(imagecodecs.jpegls_decode(content))
