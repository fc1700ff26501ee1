"""Images: every format, mode and orientation in; upright RGB or a plain ImageError out."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner import grey
from captioner.config import ImageConfig
from captioner.errors import ImageError
from captioner.images import MAX_SIDE, load_pixels, open_image, to_array

COLOUR = (200, 60, 30)
ORIENTATION_TAG = 0x0112

# Format -> (save options, largest difference per channel).
FORMATS: dict[str, tuple[dict[str, object], int]] = {
    "PNG": ({}, 0),
    "JPEG": ({"quality": 95}, 4),
    "WEBP": ({"lossless": True}, 0),
    "AVIF": ({"quality": 95}, 8),
    "GIF": ({}, 0),
    "BMP": ({}, 0),
    "DIB": ({}, 0),
    "TIFF": ({"compression": "tiff_lzw"}, 0),
    "JPEG2000": ({}, 0),
    "PPM": ({}, 0),
    "TGA": ({}, 0),
    "PCX": ({}, 0),
    "ICO": ({}, 0),
    "ICNS": ({}, 0),
    "QOI": ({}, 0),
    "SGI": ({}, 0),
    "DDS": ({}, 0),
}


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def png_header(width: int, height: int) -> bytes:
    """A tiny grey PNG that claims to be large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def noise(width: int = 32, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SAMPLES = {format_: encode(noise(), format_, **options) for format_, (options, _) in FORMATS.items()}


def opens_or_refuses(data: bytes) -> None:
    try:
        image = open_image(data, max_pixels=2_000_000)
    except ImageError:
        return
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)


# Formats, sources and modes


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_keeps_the_colour(format_: str) -> None:
    options, tolerance = FORMATS[format_]
    image = open_image(encode(Image.new("RGB", (32, 32), COLOUR), format_, **options))
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - COLOUR).max() <= tolerance


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    data = SAMPLES["PNG"]
    path = tmp_path / "d\u00f6g.png"
    path.write_bytes(data)
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with path.open("rb") as file, os.fdopen(reader, "rb") as pipe, Image.open(path) as lazy:
        file.seek(7)
        for source in (path, str(path), data, bytearray(data), io.BytesIO(data), file, pipe, lazy, noise()):
            np.testing.assert_array_equal(pixels(open_image(source)), pixels(noise()))
        assert not file.closed


def test_the_result_is_independent_of_the_source() -> None:
    source = Image.new("RGB", (2, 2), COLOUR)
    result = open_image(source)
    result.putpixel((0, 0), (0, 0, 0))
    assert source.getpixel((0, 0)) == COLOUR


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (COLOUR, (0, 0, 255))]
    for format_ in ("GIF", "PNG", "WEBP"):
        data = encode(frames[0], format_, save_all=True, append_images=frames[1:], lossless=True)
        assert open_image(data).getpixel((4, 4)) == COLOUR


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *COLOUR])
    image.info["transparency"] = bytes([255, 0])
    return image


def transparent_colour(mode: str, value: object) -> Image.Image:
    image = Image.new(mode, (4, 4), value)
    image.info["transparency"] = value
    return image


def palette(mode: str) -> Image.Image:
    return Image.new("RGB", (4, 4), COLOUR).convert("P", palette=Image.Palette.ADAPTIVE).convert(mode)


def floats(*values: float) -> Image.Image:
    return Image.fromarray(np.full((4, 4), values, dtype=np.float32))


MODES: dict[str, tuple[Callable[[], Image.Image], tuple[int, int, int]]] = {
    "1": (lambda: Image.new("1", (4, 4), 1), (255, 255, 255)),
    "L": (lambda: Image.new("L", (4, 4), 77), (77, 77, 77)),
    "LA": (lambda: Image.new("LA", (4, 4), (0, 51)), (204, 204, 204)),
    "P": (lambda: palette("P"), COLOUR),
    "PA": (lambda: palette("PA"), COLOUR),
    "P, transparent": (palette_with_transparency, (255, 255, 255)),
    "L, transparent": (lambda: transparent_colour("L", 9), (255, 255, 255)),
    "RGB, transparent": (lambda: transparent_colour("RGB", COLOUR), (255, 255, 255)),
    "RGBA, clear": (lambda: Image.new("RGBA", (4, 4), (*COLOUR, 0)), (255, 255, 255)),
    "RGBA, partly": (lambda: Image.new("RGBA", (4, 4), (0, 0, 0, 102)), (153, 153, 153)),
    "RGBA, opaque": (lambda: Image.new("RGBA", (4, 4), (*COLOUR, 255)), COLOUR),
    "CMYK": (lambda: Image.new("CMYK", (4, 4), (0, 200, 200, 0)), (255, 55, 55)),
    "YCbCr": (lambda: Image.new("YCbCr", (4, 4), (76, 85, 255)), (254, 0, 0)),
    "HSV": (lambda: Image.new("HSV", (4, 4), (0, 255, 200)), (200, 0, 0)),
    "LAB": (lambda: Image.new("LAB", (4, 4), (255, 128, 128)), (255, 255, 255)),
    "I;16": (lambda: Image.new("I;16", (4, 4), 32896), (128, 128, 128)),
    "I;16B": (lambda: Image.new("I;16B", (4, 4), 32896), (128, 128, 128)),
    "I, 8 bits": (lambda: Image.new("I", (4, 4), 200), (200, 200, 200)),
    "I, 16 bits": (lambda: Image.new("I", (4, 4), 65535), (255, 255, 255)),
    "F, fractions": (lambda: Image.new("F", (4, 4), 0.2), (51, 51, 51)),
    "F, 8 bits": (lambda: Image.new("F", (4, 4), 200.0), (200, 200, 200)),
    "F, not a number": (lambda: Image.new("F", (4, 4), float("nan")), (0, 0, 0)),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_becomes_its_colour(mode: str) -> None:
    make, expected = MODES[mode]
    image = open_image(make())
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "format_", "tolerance"),
    [
        ("1", "TIFF", 0),
        ("L", "JPEG", 1),
        ("LA", "PNG", 1),
        ("P", "GIF", 0),
        ("P, transparent", "PNG", 0),
        ("RGB, transparent", "PNG", 0),
        ("RGBA, partly", "WEBP", 2),
        ("CMYK", "JPEG", 4),
        ("CMYK", "TIFF", 1),
        ("YCbCr", "TIFF", 2),
        ("LAB", "TIFF", 1),
        ("I;16", "PNG", 1),
        ("I;16", "TIFF", 1),
        ("I, 16 bits", "PPM", 1),
        ("F, fractions", "TIFF", 1),
    ],
)
def test_modes_survive_their_files(mode: str, format_: str, tolerance: int) -> None:
    make, expected = MODES[mode]
    image = make()
    data = encode(
        image, format_, **({"transparency": image.info["transparency"]} if "transparency" in image.info else {})
    )
    assert np.abs(pixels(open_image(data)) - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        ((-1e6, 0, 1e6, 1e6), [0, 128, 255, 255]),
        ((-1, 0, 0.5, 1), [0, 128, 191, 255]),
        ((-3e38, 0, 0, 3e38), [0, 128, 128, 255]),
    ],
)
def test_values_outside_every_usual_range_are_stretched(values: tuple[float, ...], greys: list[int]) -> None:
    assert pixels(open_image(floats(*values)))[0, :, 0].tolist() == greys


def test_large_grey_pictures_are_read_in_strips_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(-5, 900, 7 * 5, dtype=np.float32).reshape(7, 5)
    values[6, 4], values[0, 0] = np.nan, np.inf
    image = Image.fromarray(values)
    expected = pixels(open_image(image))
    monkeypatch.setattr(grey, "AT_ONCE", 10)
    np.testing.assert_array_equal(pixels(open_image(image)), expected)


# Orientation


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int, format_: str) -> None:
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16] = 80, 160, 240
    # How a camera that is held so stores the picture (EXIF 2.3, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), format_, exif=exif, **options)
    once = open_image(data)
    np.testing.assert_allclose(pixels(once), upright, atol=4 if format_ == "JPEG" else 0)
    np.testing.assert_array_equal(pixels(open_image(once)), pixels(once))  # not turned a second time


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's word on the metadata
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_a_damaged_exif_block_does_not_matter(exif: bytes, format_: str) -> None:
    assert open_image(encode(noise(), format_, exif=exif)).size == (32, 32)


# Refusals


def test_each_refusal_has_its_code_and_names_the_file(tmp_path: Path) -> None:
    contents = {
        "empty.jpg": (b"", "not_an_image"),
        "text.jpg": (b"This is a letter, not a picture.\n" * 20, "not_an_image"),
        "header.jpg": (SAMPLES["JPEG"][:40], "image_broken"),
        "half.jpg": (SAMPLES["JPEG"][: len(SAMPLES["JPEG"]) // 2], "image_broken"),
        "half.png": (SAMPLES["PNG"][: len(SAMPLES["PNG"]) // 2], "image_broken"),
        "flat.png": (png_header(0, 5), "image_broken"),
        "bomb.png": (png_header(60_000, 60_000), "image_too_large"),
        "line.png": (png_header(MAX_SIDE + 1, 1), "image_too_large"),
        "nul\0.png": (None, "image_not_found"),
        "missing.png": (None, "image_not_found"),
        "text.jpg/inside.png": (None, "image_not_found"),
        "": (None, "image_unreadable"),  # the directory itself
        "x" * 5000: (None, "image_unreadable"),
    }
    for name, (content, code) in contents.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageError) as caught:
            open_image(path)
        assert caught.value.code == code, name
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.new("RGB", (4, 4)), "EPS"),
        b"\x00\x00\x01\xb3\x01\x00\x10" + bytes(64),  # MPEG
        b"\x89HDF\r\n\x1a\n" + bytes(64),
        b"GRIB\0\0\x48\x01" + bytes(64),
        b"BUFR" + bytes(64),
        b"\xd7\xcd\xc6\x9a\0\0"
        + struct.pack("<4hH", 0, 0, 99, 99, 96)
        + bytes(6)
        + b"\x01\x00\t\x00"
        + bytes(64),  # WMF
        b"\x1c\x03\x14\0\x01\0\x1c\x03\x1e\0\x01\0\x1c\x03\x3c\0\x02\0\x01\x1c\x08\x0a\0\x04" + SAMPLES["PNG"],  # IPTC
    ],
    ids=["EPS", "MPEG", "HDF5", "GRIB", "BUFR", "WMF", "IPTC"],
)
def test_formats_that_need_outside_help_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(data)
    assert caught.value.code == "not_an_image"


SOME = ("JPEG", "PNG", "BMP", "TIFF")


@pytest.mark.parametrize("format_", sorted(set(FORMATS) - {"DIB"}))
def test_only_the_formats_that_are_asked_for_are_taken(format_: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(SAMPLES[format_])
    for source in (SAMPLES[format_], io.BytesIO(SAMPLES[format_]), tmp_path / "picture"):
        if format_ in SOME:
            assert open_image(source, formats=SOME).size == (32, 32)
            continue
        with pytest.raises(ImageError, match="use one of JPEG, PNG, BMP, TIFF") as caught:
            open_image(source, formats=SOME)
        assert caught.value.code == "not_an_image"


def test_a_jpeg_of_several_pictures_is_one() -> None:
    data = encode(noise(), "MPO", save_all=True, append_images=[noise()])
    assert open_image(data, formats=["JPEG"]).size == (32, 32)


def run_length_bitmap(width: int, height: int) -> bytes:
    """A BMP of one pixel a row, which says of each row that the rest of it is empty."""
    rows = b"\1\1\0\0" * height
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows


def test_what_python_would_decode_is_refused_with_the_formats() -> None:
    data = run_length_bitmap(40, 30)
    assert open_image(data).size == (40, 30)
    with pytest.raises(ImageError, match="a BMP image of a kind") as caught:
        open_image(run_length_bitmap(1_000_000, 50), formats=SOME)  # 1 kB of it would take seconds
    assert caught.value.code == "not_an_image"


@pytest.mark.parametrize("source", [7, None, ["dog.jpg"], io.StringIO("a letter")])
def test_what_is_no_source_is_refused(source: object) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert caught.value.code == "not_an_image"


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))


def test_the_pixel_limit_is_exact() -> None:
    assert open_image(noise(), max_pixels=32 * 32).size == (32, 32)
    with pytest.raises(ImageError, match=r"32 x 32, the limit is 1,023 pixels") as caught:
        open_image(SAMPLES["PNG"], max_pixels=32 * 32 - 1)
    assert caught.value.code == "image_too_large"


def test_pillows_own_limit_stays_silent() -> None:
    # Above Pillow's warning threshold, below ours: what remains is that the pixels are missing.
    with pytest.raises(ImageError) as caught:
        open_image(png_header(9_500, 9_500))
    assert caught.value.code == "image_broken"


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_an_icon_cannot_smuggle_a_large_picture() -> None:
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(SAMPLES["PNG"]), 22) + SAMPLES["PNG"]
    with pytest.raises(ImageError) as caught:
        open_image(icon, max_pixels=1000)
    assert caught.value.code == "image_too_large"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_cut_anywhere_opens_or_is_refused(format_: str) -> None:
    data = SAMPLES[format_]
    for length in {*range(0, min(len(data), 64), 3), *range(0, len(data), max(1, len(data) // 40))}:
        opens_or_refuses(data[:length])


@given(data=st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_random_bytes_open_or_are_refused(data: bytes) -> None:
    opens_or_refuses(data)


@given(
    format_=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_open_or_are_refused(format_: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLES[format_])
    for position, value in changes:
        data[position % len(data)] = value
    opens_or_refuses(bytes(data))


def test_files_are_closed_whatever_happens(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name, data in {"good": SAMPLES["TIFF"], "cut": SAMPLES["TIFF"][:90], "none": b"no image"}.items():
        (tmp_path / name).write_bytes(data)
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs Linux")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        open_image(tmp_path / "good")
        for name in ("cut", "none"):
            with pytest.raises(ImageError):
                open_image(tmp_path / name)
    assert len(list(descriptors.iterdir())) == before
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


# To the network's input


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_picture_of_the_right_size_is_only_normalised(fit: str) -> None:
    config = ImageConfig(height=20, width=30, fit=fit)
    image = noise(30, 20)
    expected = (np.asarray(image) / 255 - config.mean) / config.std
    array = to_array(image, config)
    assert array.shape == (3, 20, 30)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array, expected.transpose(2, 0, 1), atol=1e-5)


PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def test_crop_keeps_the_centre_and_stretch_keeps_all() -> None:
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (20, 0, 40, 20))
    crop = to_array(image, ImageConfig(height=10, width=10, fit="crop", **PLAIN))
    stretch = to_array(image, ImageConfig(height=10, width=30, **PLAIN))
    assert crop[..., 2:8].min() == 1
    assert crop.min() > 0.9  # at the edge the kernel reaches a little over it
    assert stretch[0, 5, [2, 15, 27]].tolist() == [0, 1, 0]


def test_shrinking_averages_instead_of_picking() -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    array = to_array(image, ImageConfig(height=16, width=16, **PLAIN))
    np.testing.assert_allclose(array, 0.5, atol=0.01)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (70_000, 1), (333, 7), (223, 225)])
def test_any_aspect_ratio_works(size: tuple[int, int], fit: str) -> None:
    config = ImageConfig(fit=fit, **PLAIN)
    array = to_array(Image.new("RGB", size, COLOUR), config)
    assert array.shape == (3, 224, 224)
    np.testing.assert_allclose(array.mean((1, 2)) * 255, COLOUR, atol=1)


def test_load_pixels_is_the_two_together() -> None:
    config = ImageConfig(height=16, width=16)
    np.testing.assert_array_equal(load_pixels(SAMPLES["PNG"], config), to_array(noise(), config))
    with pytest.raises(ImageError, match="too large"):
        load_pixels(SAMPLES["PNG"], config, max_pixels=10)
    with pytest.raises(ImageError, match="use one of GIF"):
        load_pixels(SAMPLES["PNG"], config, formats=["GIF"])
