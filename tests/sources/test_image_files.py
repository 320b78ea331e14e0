"""Images and masks: lossless or refused."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from hep2flow.cells import decode_png
from hep2flow.sources import image_files
from hep2flow.sources.image_files import BadImageError, decode_image, decode_mask
from tests.sources import builders

GREY_16 = np.random.default_rng(0).integers(0, 65536, (7, 9), dtype=np.uint16)
RGB = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def saved(pixels: npt.NDArray[Any], format: str, mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(saved(builders.grey(1), "BMP"), builders.grey(1), id="grey BMP"),
        pytest.param(saved(RGB, "BMP"), RGB, id="colour BMP"),
        pytest.param(saved(builders.grey(1), "TIFF", compression="tiff_lzw"), builders.grey(1), id="grey TIFF, LZW"),
        pytest.param(saved(RGB, "TIFF"), RGB, id="colour TIFF"),
        pytest.param(tiff(GREY_16), GREY_16, id="16-bit TIFF"),
        pytest.param(tiff(GREY_16, byteorder=">"), GREY_16, id="16-bit TIFF, big endian"),
        pytest.param(tiff(np.stack([GREY_16] * 3, -1), photometric="rgb"), GREY_16, id="16-bit colour TIFF, grey"),
        pytest.param(
            tiff(np.stack([GREY_16] * 3), photometric="rgb", planarconfig="separate"), GREY_16, id="16-bit planar TIFF"
        ),
        pytest.param(builders.raw_png(np.stack([GREY_16] * 3, -1), 2), GREY_16, id="16-bit colour PNG, grey"),
        pytest.param(
            builders.raw_png(np.stack([GREY_16, np.full_like(GREY_16, 65535)], -1), 4), GREY_16, id="16-bit, alpha"
        ),
        pytest.param(saved(RGB, "PNG", "RGBA"), RGB, id="opaque alpha"),
        pytest.param(saved(builders.grey(1), "PNG", "LA"), builders.grey(1), id="grey with opaque alpha"),
        pytest.param(saved(builders.grey(1), "PNG", "P"), builders.grey(1), id="grey palette"),
        pytest.param(saved(builders.disc(), "PNG"), builders.disc() * np.uint8(255), id="1 bit"),
    ],
)
def test_other_files_become_a_png_of_the_same_pixels(data: bytes, expected: npt.NDArray[Any]) -> None:
    decoded, png = decode_image(data)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(decode_png(png), expected)


@pytest.mark.parametrize("pixels", [builders.grey(1), RGB, GREY_16], ids=["grey", "RGB", "16-bit grey"])
def test_a_plain_png_keeps_its_own_bytes(pixels: npt.NDArray[Any]) -> None:
    data = builders.png(pixels)
    decoded, png = decode_image(data)
    assert png is data
    np.testing.assert_array_equal(decoded, pixels)


PLAIN = builders.png(builders.grey(1, 60, 60))
TRANSPARENT = np.concatenate([RGB, np.full((7, 9, 1), 254, np.uint8)], -1)
COLOUR_16 = np.stack([GREY_16, GREY_16, GREY_16[::-1]], -1)
HUGE = struct.pack(">IIBBBBB", 8001, 8000, 8, 0, 0, 0, 0)
BOMB = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)


def several_pages() -> bytes:
    return tiff(np.zeros((2, 7, 9), np.uint8), photometric="minisblack")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"", "empty", id="empty file"),
        pytest.param(b"hello, world", "not a PNG, BMP or TIFF", id="text"),
        pytest.param(saved(RGB, "JPEG"), "not a PNG, BMP or TIFF", id="JPEG"),
        pytest.param(PLAIN[: len(PLAIN) // 2], "truncated or damaged", id="half a PNG"),
        pytest.param(PLAIN[:-12], "truncated or damaged", id="PNG without its end"),
        pytest.param(PLAIN[:200] + b"\x55" + PLAIN[201:], "truncated or damaged", id="one byte wrong"),
        pytest.param(saved(RGB, "BMP")[:100], "truncated or damaged", id="half a BMP"),
        pytest.param(saved(TRANSPARENT, "PNG"), "transparent", id="transparent"),
        pytest.param(saved(np.zeros((7, 9), np.uint8), "PNG", transparency=0), "transparent", id="transparent grey"),
        pytest.param(
            builders.raw_png(GREY_16[..., None], 0, builders.chunk(b"tRNS", GREY_16[:1, :1].astype(">u2").tobytes())),
            "transparent",
            id="transparent 16-bit grey",
        ),
        pytest.param(builders.raw_png(COLOUR_16, 2), "16-bit colour", id="16-bit colour PNG"),
        pytest.param(tiff(COLOUR_16, photometric="rgb"), "16-bit colour", id="16-bit colour TIFF"),
        pytest.param(tiff(np.zeros((7, 9), np.float32)), "pixel type 'F'", id="float TIFF"),
        pytest.param(tiff(GREY_16, photometric="miniswhite"), "zero is white", id="inverted TIFF"),
        pytest.param(several_pages(), "several frames", id="pages"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + builders.chunk(b"IHDR", HUGE) + PLAIN[33:], "64 megapixels", id="huge"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + builders.chunk(b"IHDR", BOMB) + PLAIN[33:], "64 megapixels", id="bomb"),
    ],
)
def test_what_would_lose_something_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(BadImageError) as raised:
        decode_image(data)
    assert what in raised.value.what
    assert raised.value.remedy


@given(st.integers(0, len(PLAIN) - 1), st.binary(min_size=1, max_size=8))
def test_damage_is_a_fault_or_harmless_never_a_crash_nor_other_pixels(at: int, noise: bytes) -> None:
    damaged = PLAIN[:at] + noise + PLAIN[at + len(noise) :]
    try:
        decoded, _ = decode_image(damaged)
    except BadImageError:
        return
    np.testing.assert_array_equal(decoded, builders.grey(1, 60, 60))


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)).filter(lambda mask: mask.any()))
def test_a_mask_is_the_same_in_every_depth(mask: npt.NDArray[np.bool_]) -> None:
    grey = mask.astype(np.uint8)
    variants = [
        builders.png(mask),
        builders.png(grey * 255),
        builders.png(grey),
        builders.png(np.stack([grey * 255] * 3, -1)),
        saved(mask, "BMP"),
        builders.png(grey.astype(np.uint16) * 65535),
    ]
    for data in variants:
        np.testing.assert_array_equal(decode_mask(data), mask)


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((7, 9), np.uint8), "empty"),
        (builders.grey(1), "different values"),
        (RGB, "colours"),
    ],
)
def test_a_mask_that_is_none_is_refused(pixels: npt.NDArray[np.uint8], what: str) -> None:
    with pytest.raises(BadImageError, match=what):
        decode_mask(builders.png(pixels))


def test_the_suffixes_read_are_those_decoded() -> None:
    for suffix in image_files.SUFFIXES:
        assert Image.registered_extensions()[suffix] in ("PNG", "BMP", "TIFF")
