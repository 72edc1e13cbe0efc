"""Reading pixels: images as RGB, label maps as class numbers.

Orientation.  ``read_image`` returns the pixels in the order in which the file stores them and leaves an EXIF
rotation alone.  The annotations of COCO, MPII, LIP and the rest count pixels of the stored raster: the width and
height in their files are those of the raster, and the readers that produced the published numbers (OpenCV with
``IMREAD_IGNORE_ORIENTATION`` in HRNet and mmpose, Pillow's ``Image.open`` in fast-reid) do not rotate either.
Photographs that somebody took with a telephone are meant rotated: ask with ``rotate=True``.

Damage.  A file that ends too early is refused: PNG and WebP decoders notice by themselves; older OpenCV versions
fill the rest of a JPEG with grey, so the end marker is looked for first (at the last two bytes, else backwards from
the end: under 0.1 ms for 70 kB, where decoding takes 2 ms).  Bytes changed in the middle of a JPEG cannot be told
from a picture; no reader finds them.
"""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PathLike = str | os.PathLike[str]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_GREY, PNG_PALETTE = 0, 3  # colour types of the PNG header


class BadImageError(ValueError):
    """An image file that cannot be used; the message names the file, what is wrong and what to do."""


def read_bytes(path: PathLike) -> np.ndarray:
    """(N,) uint8, the content of a file.

    Raises:
        BadImageError: missing, unreadable or empty.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise BadImageError(f"no image file {os.fspath(path)}; fetch the dataset's images again") from None
    except OSError as error:
        raise BadImageError(
            f"cannot read {os.fspath(path)}: {error.strerror or error}; check its permissions"
        ) from None
    if not len(data):
        raise BadImageError(f"{os.fspath(path)} is empty; fetch it again")
    return data


def read_image(path: PathLike, rotate: bool = False) -> np.ndarray:
    """Reads an image of any kind as RGB.

    Grey images repeat their channel; palettes are looked up; 16 bits are scaled to 8 (65535 becomes 255); CMYK is
    converted without a colour profile.  Transparent pixels are laid over black, the colour with which crops and
    batches are padded, so "nothing there" looks the same everywhere.

    Args:
        path: the file.
        rotate: obey a JPEG's EXIF orientation; see the head of this file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        BadImageError: missing, truncated or unreadable file, or pixels that are neither 8 nor 16 bits.
    """
    return decode_image(read_bytes(path), path, rotate)


def decode_image(data: np.ndarray, path: PathLike, rotate: bool = False) -> np.ndarray:
    """``read_image`` for a file whose bytes, (N,) uint8, are already read; ``path`` is for the error message."""
    is_jpeg = data[:2].tobytes() == b"\xff\xd8"
    if is_jpeg:
        if not _has_jpeg_end(data):
            raise BadImageError(f"{os.fspath(path)} is truncated (no JPEG end marker); fetch it again")
        flags = cv2.IMREAD_COLOR if rotate else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    else:
        flags = cv2.IMREAD_UNCHANGED  # keeps alpha and 16 bits, which IMREAD_COLOR would drop without a word
    image = _decode(data, flags, path)

    if image.dtype == np.uint16:
        image = np.round(image / 257.0).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise BadImageError(f"{os.fspath(path)} has {image.dtype} pixels; save it with 8 bits per channel")
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 4:
        colour, alpha = image[..., 2::-1], image[..., 3:].astype(np.uint16)
        return ((colour * alpha + 127) // 255).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_index_map(path: PathLike) -> np.ndarray:
    """Reads a label map: the class number of every pixel, from a grey or palette PNG.

    Returns:
        (H, W) uint8: the grey values, or the palette indices (not their colours).

    Raises:
        BadImageError: missing or damaged file, not a PNG, a colour image, or a number above 255.
    """
    data = read_bytes(path)
    name = os.fspath(path)
    if data[:8].tobytes() != PNG_SIGNATURE or len(data) < 33:
        raise BadImageError(f"{name} is not a PNG; save label maps as lossless single-channel PNG files")
    depth, colour_type = int(data[24]), int(data[25])  # of the header chunk, which always comes first
    if colour_type not in (PNG_GREY, PNG_PALETTE):
        raise BadImageError(
            f"{name} is a colour image, not a map of class numbers; "
            "convert its colours to numbers and save a single-channel PNG"
        )
    if colour_type == PNG_PALETTE:  # OpenCV would look the colours up
        try:
            with Image.open(io.BytesIO(data.tobytes())) as image:
                return np.array(image, dtype=np.uint8)
        except (OSError, SyntaxError) as error:  # Pillow reports a wrong checksum as SyntaxError
            raise BadImageError(f"{name} is truncated or damaged ({error}); fetch it again") from None
    label_map = _decode(data, cv2.IMREAD_UNCHANGED, path)
    if depth < 8:  # OpenCV stretches 1, 2 and 4 bits over 0-255
        label_map //= 255 // (2**depth - 1)
    if label_map.max() > 255:
        raise BadImageError(f"{name} holds the number {label_map.max()}; class numbers must be 0-255")
    return label_map.astype(np.uint8, copy=False)


def _decode(data: np.ndarray, flags: int, path: PathLike) -> np.ndarray:
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:  # e.g. more pixels than OpenCV accepts
        raise BadImageError(f"cannot decode {os.fspath(path)}: {error.err}") from None
    if image is None:
        kind = Path(path).suffix.lower() or "no suffix"
        raise BadImageError(f"{os.fspath(path)} ({kind}) is truncated, damaged or no image; fetch it again")
    return np.asarray(image)


def _has_jpeg_end(data: np.ndarray) -> bool:
    """Whether an end marker follows the last scan; an EXIF thumbnail has markers of its own, before it."""
    if data[-2:].tobytes() == b"\xff\xd9":
        return True
    content = data.tobytes()  # some cameras write more behind the picture
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")
