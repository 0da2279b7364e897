"""Encoded pictures -> pixels: bounded in size, whole, and without transparency."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps

from nncompress_jax.errors import InputError

MOST_PIXELS = 89_478_485
"""What Pillow takes for a decompression bomb: a picture of a few kilobytes may say that it has more."""

warnings.simplefilter("error", Image.DecompressionBombWarning)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says of damage, `decode` says


def decode(encoded: bytes) -> tuple[np.ndarray, bool]:
    """Pixels of a PNG, a JPEG, or what else Pillow and OpenCV read.

    Args:
      encoded: the file's bytes.

    Returns:
      [H, W, 3] uint8, RGB; and whether the picture was transparent somewhere: there it is put on white.

    Raises:
      InputError: with the reason alone, where it is no whole picture or too large.

    Example:
      >>> pixels, was_transparent = decode(cv2.imencode(".png", np.zeros((2, 4, 3), np.uint8))[1].tobytes())
      >>> pixels.shape, was_transparent
      ((2, 4, 3), False)
    """
    if not encoded:
        raise InputError("it is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(f"{image.width} x {image.height} pixels, expected at most {MOST_PIXELS:,} in all")
            if image.format in ("JPEG", "MPO") and encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
                raise InputError("it is cut short: the JPEG file has no end")
            if "A" in image.mode.upper() or "transparency" in image.info:
                rgba = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
                if rgba[..., 3].min() < 255:
                    return _on_white(rgba), True
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except InputError:
        raise
    except Exception as error:  # whatever either raises on a file that is something else
        raise InputError(f"no picture that can be read: {' '.join(str(error).split())[:80]}") from None
    if decoded is None:
        raise InputError("it is cut short or damaged")
    return decoded, False


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, ...] of an image [H, W, ...]: the mean over each area along a side that shrinks, bilinear along one
    that grows.

    Example:
      >>> resize(np.array([[0, 100, 200, 100]], np.uint8), 2).tolist()
      [[50, 150], [50, 150]]
    """
    height, width = min(image.shape[0], size), min(image.shape[1], size)
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(smaller, (size, size), interpolation=cv2.INTER_LINEAR)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    colours, opacity = rgba[..., :3].astype(np.float32), rgba[..., 3:].astype(np.float32) / 255
    return np.rint(colours * opacity + 255 * (1 - opacity)).astype(np.uint8)
