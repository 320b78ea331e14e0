"""Image files to lossless pixels: PNG, BMP and TIFF of 8 and 16 bit. What cannot be read without rounding is refused."""

import io
import warnings
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
    """An image file that cannot become a cell or a mask; ``what`` and ``remedy`` as in a Fault."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def decode_image(data: bytes) -> tuple[Pixels, bytes]:
    """Pixels of a cell image, and a PNG of them; the file's own bytes where they already are such a PNG.

    They are (height, width) or (height, width, 3), uint8 or uint16. Grey stays grey, RGB stays RGB, 16 bit stay 16 bit;
    an opaque alpha channel is dropped.

    Raises:
        BadImageError: Not an image, damaged, over 64 megapixels, several frames, transparent, or of a depth or colour
            that the Cell table cannot hold without loss.
    """
    pixels, is_plain_png = _decode(data)
    return pixels, data if is_plain_png else encode_png(pixels)


def decode_mask(data: bytes) -> npt.NDArray[np.bool_]:
    """(height, width), True inside the cell. Of two values the greater one is inside, whatever the bit depth.

    Raises:
        BadImageError: As :func:`decode_image`, and for colours, for more than two values, and for an empty mask.
    """
    pixels, _ = _decode(data)
    if pixels.ndim == 3:
        pixels = _single_channel(pixels, BadImageError("mask has colours", "save it as black and white"))
    values = np.unique(pixels)
    if (count := len(values)) > 2:
        raise BadImageError(f"mask has {count} different values", "save it as black and white, without grey edges")
    if values[-1] == 0:
        raise BadImageError("mask is empty", "mark the cell in white, or remove the cell")
    return np.asarray(pixels == values[-1])


def _decode(data: bytes) -> tuple[Pixels, bool]:
    """Pixels, and whether ``data`` itself is a PNG that decode_png decodes to them."""
    if not data:
        raise BadImageError("file is empty", "replace it by a good copy")
    what = f"has more than {MAX_PIXELS // 10**6} megapixels"
    too_large = BadImageError(what, "one cell per image: cut the cells out")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, which are refused here, and of odd metadata, which nobody reads.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                return _decode_opened(data, image)
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImageError("is not a PNG, BMP or TIFF image", "replace it by a good copy, best as PNG") from None
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # decoders raise many kinds for damaged files
        raise BadImageError(f"is truncated or damaged ({error})", "replace it by a good copy") from error


def _decode_opened(data: bytes, image: Image.Image) -> tuple[Pixels, bool]:
    if getattr(image, "n_frames", 1) > 1:
        raise BadImageError("has several frames or pages", "save one image per file")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
        if bits > 8 and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise BadImageError("16-bit TIFF in which zero is white", "save it as 16-bit grey PNG")
        if bits > 8 and image.tag_v2.get(_SAMPLES_PER_PIXEL, 1) > 1:
            return _grey_of_deep_colour(_tiff_samples(data)), False
    if image.format != "PNG":
        return _pillow_pixels(image), False
    transparent = "transparency" in image.info
    image.verify()  # checksums, which loading skips; Pillow cannot load this image afterwards
    depth, colour_type = data[24], data[25]  # PNG specification, chunk IHDR
    if depth == 16 and colour_type != 0:
        return _grey_of_deep_colour(_png_samples(data)), False
    if not transparent and (depth, colour_type) in ((8, 0), (16, 0), (8, 2)):
        return decode_png(data), True
    with Image.open(io.BytesIO(data), formats=_FORMATS) as reopened:
        return _pillow_pixels(reopened), False


def _pillow_pixels(image: Image.Image) -> Pixels:
    transparent = image.info.get("transparency")
    if image.mode in _GREY_16_MODES or (image.mode == "I" and image.format == "PNG"):
        pixels = np.asarray(image).astype(np.uint16)
        if transparent is not None:
            _check_opaque(pixels != transparent)
        return pixels
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        _check_opaque(rgba[..., 3] == 255)
        return np.ascontiguousarray(rgba[..., 0] if image.mode in ("1", "L", "LA") else rgba[..., :3])
    if image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        return np.ascontiguousarray(colours[..., 0]) if _has_equal_channels(colours) else colours
    if image.mode in ("1", "L", "RGB"):
        return np.asarray(image.convert("L") if image.mode == "1" else image)
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
    """(height, width) of 16-bit colours that are all grey: microscopes save a single channel as RGB."""
    fix = "save it as 16-bit grey, the channel of the stain"
    coloured = BadImageError("16-bit colour cannot be kept without loss", fix)
    if samples.dtype != np.uint16:
        raise coloured
    if samples.shape[2] in (2, 4):
        _check_opaque(samples[..., -1] == 65535)
        samples = samples[..., :-1]
    return _single_channel(samples, coloured)


def _single_channel(samples: npt.NDArray[Any], error: BadImageError) -> npt.NDArray[Any]:
    if not _has_equal_channels(samples):
        raise error
    return np.ascontiguousarray(samples[..., 0])


def _has_equal_channels(samples: npt.NDArray[Any]) -> bool:
    return bool((samples == samples[..., :1]).all())


def _check_opaque(opaque: npt.NDArray[np.bool_]) -> None:
    if not opaque.all():
        raise BadImageError("has transparent pixels", "save it without an alpha channel")
