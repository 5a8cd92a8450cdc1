"""Pictures as clients send them: base64 of a JPEG, PNG or WebP file, alone or as a data URL."""

import base64
import binascii
import io
from typing import Any

import numpy as np

from proactivellm.modality.speech.extra import needed
from proactivellm.serve.errors import RequestError

_FORMATS = ("JPEG", "PNG", "WEBP")  # no others are tried: a stranger chooses the bytes


def decode(picture: str, most_pixels: int, param: str) -> np.ndarray:
    """Upright RGB, uint8 [H, W, 3]; its size is looked at before anything is unpacked.

    Args:
        most_pixels: it may have at most.
        param: the field that it came in, for errors.

    Raises:
        RequestError: it is none of these formats, damaged, or too large.
    """
    image, upright = needed("PIL.Image", "video"), needed("PIL.ImageOps", "video").exif_transpose
    content = picture.partition(",")[2] if picture.startswith("data:") else picture
    try:
        file = io.BytesIO(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError):
        raise _refused("the picture is no valid base64", param) from None
    try:
        with image.open(file, formats=_FORMATS) as opened:
            _check_size(opened, most_pixels, param)
            return np.array(upright(opened).convert("RGB"))
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        unknown = isinstance(error, image.UnidentifiedImageError)
        why = "it is none" if unknown else str(error).splitlines()[0] if str(error) else "damaged"
        raise _refused(f"a picture is a JPEG, PNG or WebP file ({why})", param) from None


def _check_size(opened: Any, most_pixels: int, param: str) -> None:
    width, height = opened.size
    if width * height > most_pixels:
        raise RequestError(
            f"a picture may have {most_pixels} pixels, this one has {width} x {height}: send it "
            "smaller",
            code="input_too_long",
            param=param,
        )


def _refused(message: str, param: str) -> RequestError:
    return RequestError(message, code="invalid_image", param=param)
