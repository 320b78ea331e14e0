"""Image files to lossless pixels: PNG, BMP and TIFF of 8 and 16 bit. Nothing is ever rounded in silence."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import png
import tifffile
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from hep2flow.cells import Pixels, decode_png, encode_png

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 64_000_000

_FORMATS = ("PNG", "BMP", "TIFF")
_GREY_16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL = 258, 262, 277  # TIFF tags
_WHITE_IS_ZERO = 0


class BadImageError(Exception):
    """An image file that cannot become a cell or a mask.

    what, mend: as in :class:`hep2flow.errors.Fault`
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


@dataclass(frozen=True)
class DecodedImage:
    """pixels: (height, width) or (height, width, 3), uint8 or uint16; png: a file that decode_png decodes to them."""

    pixels: Pixels
    png: bytes


def decode_image(data: bytes) -> DecodedImage:
    """Pixels of a cell image, and a PNG of them; the file's own bytes where they already are such a PNG.

    Grey stays grey, RGB stays RGB, 16 bit stay 16 bit; an opaque alpha channel is dropped.

    Raises:
        BadImageError: not an image, damaged, over 64 megapixels, several frames, transparent, or of a depth or colour
            that the Cell table cannot hold without loss
    """
    pixels, keeps_bytes = _decode(data)
    return DecodedImage(pixels, data if keeps_bytes else encode_png(pixels))


def decode_mask(data: bytes) -> npt.NDArray[np.bool_]:
    """(height, width), True inside the cell. Of two values the greater one is inside, whatever the bit depth.

    Raises:
        BadImageError: as :func:`decode_image`, and for colours, for more than two values, and for an empty mask
    """
    pixels, _ = _decode(data)
    if pixels.ndim == 3:
        pixels = _one_channel(pixels, BadImageError("mask has colours", "save it as black and white"))
    values = np.unique(pixels)
    if len(values) > 2:
        raise BadImageError(
            f"mask has {len(values)} different values", "save it as black and white, without grey edges"
        )
    inside: npt.NDArray[np.bool_] = pixels == values[-1] if values[-1] > 0 else np.zeros(pixels.shape, np.bool_)
    if not inside.any():
        raise BadImageError("mask is empty", "mark the cell in white, or remove the cell")
    return inside


def _decode(data: bytes) -> tuple[Pixels, bool]:
    """Pixels, and whether ``data`` itself is a PNG that decode_png decodes to them."""
    if not data:
        raise BadImageError("file is empty", "replace it by a good copy")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, which are refused here, and of odd metadata, which nobody reads.
            warnings.simplefilter("ignore")
            return _decode_checked(data)
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImageError("is not a PNG, BMP or TIFF image", "replace it by a good copy, best as PNG") from None
    except Image.DecompressionBombError:
        raise _too_large() from None
    except Exception as error:  # decoders raise many kinds for damaged files
        raise BadImageError(f"is truncated or damaged ({error})", "replace it by a good copy") from error


def _decode_checked(data: bytes) -> tuple[Pixels, bool]:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large()
        if getattr(image, "n_frames", 1) > 1:
            raise BadImageError("has several frames or pages", "save one image per file")
        transparent = "transparency" in image.info
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
            if bits > 8 and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
                raise BadImageError("16-bit TIFF in which zero is white", "save it as 16-bit grey PNG")
            if bits > 8 and image.tag_v2.get(_SAMPLES_PER_PIXEL, 1) > 1:
                return _grey_of_deep_colour(_tiff_samples(data)), False
            return _pillow_pixels(image), False
        if image.format != "PNG":
            return _pillow_pixels(image), False
        image.verify()  # checksums, which loading skips
    depth, colour_type = data[24], data[25]  # PNG specification, chunk IHDR
    if depth == 16 and colour_type != 0:
        return _grey_of_deep_colour(_png_samples(data)), False
    if not transparent and (depth, colour_type) in ((8, 0), (16, 0), (8, 2)):
        return decode_png(data), True
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _pillow_pixels(image), False


def _pillow_pixels(image: Image.Image) -> Pixels:
    if image.mode in _GREY_16_MODES or (image.mode == "I" and image.format == "PNG"):
        pixels = np.asarray(image).astype(np.uint16)
        if "transparency" in image.info:
            _refuse_transparent(bool((pixels == image.info["transparency"]).any()))
        return pixels
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        was_grey = image.mode in ("1", "L", "LA")
        rgba = np.asarray(image.convert("RGBA"))
        _refuse_transparent(bool((rgba[..., 3] < 255).any()))
        return np.ascontiguousarray(rgba[..., 0] if was_grey else rgba[..., :3])
    if image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        return np.ascontiguousarray(colours[..., 0]) if _equal_channels(colours) else colours
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("L", "RGB"):
        return np.asarray(image)
    raise BadImageError(f"has the pixel type {image.mode!r}", "save it as grey of 8 or 16 bit, or RGB of 8 bit")


def _png_samples(data: bytes) -> npt.NDArray[np.uint16]:
    """(height, width, channels) of a 16-bit colour PNG, which Pillow would round to 8 bit."""
    _, height, rows, info = png.Reader(bytes=data).asDirect()
    return np.array(list(rows), np.uint16).reshape(height, -1, info["planes"])


def _tiff_samples(data: bytes) -> npt.NDArray[Any]:
    """(height, width, channels) of a 16-bit colour TIFF, which Pillow would round to 8 bit."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        samples: npt.NDArray[Any] = page.asarray()
        return samples.transpose(1, 2, 0) if page.axes == "SYX" else samples


def _grey_of_deep_colour(samples: npt.NDArray[Any]) -> Pixels:
    refused = BadImageError(
        "16-bit colour cannot be kept without loss", "save it as 16-bit grey, the channel of the stain"
    )
    if samples.dtype != np.uint16:
        raise refused
    if samples.shape[2] in (2, 4):
        _refuse_transparent(bool((samples[..., -1] < 65535).any()))
        samples = samples[..., :-1]
    return _one_channel(samples, refused)


def _one_channel(samples: npt.NDArray[Any], refused: BadImageError) -> npt.NDArray[Any]:
    if not _equal_channels(samples):
        raise refused
    return np.ascontiguousarray(samples[..., 0])


def _equal_channels(samples: npt.NDArray[Any]) -> bool:
    return bool((samples == samples[..., :1]).all())


def _refuse_transparent(transparent: bool) -> None:
    if transparent:
        raise BadImageError("has transparent pixels", "save it without an alpha channel")


def _too_large() -> BadImageError:
    return BadImageError(f"has more than {MAX_PIXELS // 10**6} megapixels", "one cell per image: cut the cells out")
