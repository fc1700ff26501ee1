"""Large JPEGs decoded smaller: what comes out hardly differs, and what is refused is refused as ever."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, JpegImagePlugin

from captioner.config import ImageConfig
from captioner.draft import Box, draft, turned, whole
from captioner.errors import ImageError
from captioner.images import UPRIGHT, load_pixels, load_rgb, normalise, open_image, to_array

ORIENTATION_TAG = 0x0112
CONFIG = ImageConfig()
# What captioner.draft promises: largest mean and largest single difference, in steps of 8 bits.
PHOTO_BOUNDS = (0.75, 24)
NOISE_BOUNDS = (4.0, 32)


@cache
def photo_like(width: int, height: int, seed: int = 0) -> Image.Image:
    """Octaves of noise that fall with their frequency, as in photographs; hard edges; and a sensor's noise."""
    random = np.random.default_rng(seed)
    values = np.full((height, width, 3), 128, dtype=np.float32)
    size = 4
    while size < max(width, height):
        shape = (3, max(2, height * size // max(width, height)), max(2, width * size // max(width, height)))
        for channel, octave in enumerate(random.standard_normal(shape, dtype=np.float32)):
            smooth = Image.fromarray(octave).resize((width, height), Image.Resampling.BICUBIC)
            values[..., channel] += np.asarray(smooth) * (180 / size**0.8)
        size *= 2
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, reach = int(random.integers(width)), int(random.integers(height)), int(random.integers(9, width // 5))
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.rectangle((x, y, x + reach, y + reach // 2), fill=colour)
        draw.line((x, y, x + 2 * reach, y - reach), fill=colour, width=2)
    grain = random.normal(0, 3, (height, width, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


@cache
def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def differences(data: bytes, config: ImageConfig = CONFIG) -> np.ndarray:
    """Between what is made of the draft and of the whole picture, in steps of 8 bits."""
    plain = ImageConfig(config.height, config.width, config.fit, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    undrafted = (to_array(open_image(data), plain) * 255).round().transpose(1, 2, 0)
    return np.abs(load_rgb(data, plain) - undrafted)


# What comes out

SAVING: dict[str, dict[str, Any]] = {
    "usual": {},
    "coarse": {"quality": 75},
    "fine colours": {"quality": 95, "subsampling": 0},
    "progressive": {"progressive": True},
}


@pytest.mark.parametrize("saving", SAVING)
@pytest.mark.parametrize("size", [(897, 1203), (1803, 1797), (2400, 900)])
def test_the_difference_to_the_whole_picture_is_as_small_as_promised(size: tuple[int, int], saving: str) -> None:
    for make, (mean, largest) in ((photo_like, PHOTO_BOUNDS), (noise, NOISE_BOUNDS)):
        found = differences(jpeg(make(*size), **SAVING[saving]))
        assert 0 < found.mean() <= mean
        assert found.max() <= largest


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_colours_keep_their_mode(mode: str, fit: str) -> None:
    data = jpeg(photo_like(1201, 1003).convert(mode))
    image = opened(data)
    draft(image, 224)
    assert (image.mode, image.size) == (mode, (601, 502))
    found = differences(data, ImageConfig(fit=fit))
    assert 0 < found.mean() <= PHOTO_BOUNDS[0]
    assert found.max() <= PHOTO_BOUNDS[1]


@pytest.mark.parametrize("size", [(1207, 1001), (1001, 1207)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_close(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    for config in (CONFIG, ImageConfig(height=200, width=120, fit="crop")):
        found = differences(jpeg(photo_like(*size), exif=exif), config)
        assert found.mean() <= PHOTO_BOUNDS[0]
        assert found.max() <= PHOTO_BOUNDS[1]


@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_a_last_column_that_reaches_over_the_edge_shifts_nothing(orientation: int) -> None:
    """Waves of six pixels of the result: with the edge forgotten 35 steps off, with it on the wrong side 19."""
    side = 1793  # a draft of 449 pixels, of which the last is a quarter
    wave = 64 + 50 * np.sin(np.arange(side) / side * 224 * np.pi / 3)
    image = Image.fromarray(np.add.outer(wave, wave).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    assert differences(jpeg(image, quality=95, exif=exif)).max() <= 4


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_pictures_of_less_than_twice_the_size_again_are_untouched(fit: str) -> None:
    config = ImageConfig(fit=fit)
    for data in (jpeg(noise(895, 1900)), jpeg(noise(2000, 895)), jpeg(noise(500, 375)), jpeg(noise(100, 80))):
        np.testing.assert_array_equal(load_pixels(data, config), to_array(open_image(data), config))
    assert not np.array_equal(load_rgb(jpeg(noise(896, 896)), config), open_image(jpeg(noise(896, 896))))


def test_the_whole_size_remains_for_who_opens_the_picture() -> None:
    data = jpeg(noise(1800, 1800))
    assert open_image(data).size == (1800, 1800)
    np.testing.assert_array_equal(open_image(data), opened(data))


def test_a_pil_image_is_left_as_it_is() -> None:
    image = opened(jpeg(noise(1800, 1800)))
    expected = to_array(open_image(jpeg(noise(1800, 1800))), CONFIG)
    np.testing.assert_array_equal(load_pixels(image, CONFIG), expected)
    assert image.size == (1800, 1800)


def test_every_kind_of_file_is_drafted(tmp_path: Path) -> None:
    data = jpeg(photo_like(1803, 1797))
    (tmp_path / "picture.jpg").write_bytes(data)
    expected = load_rgb(data, CONFIG)
    with (tmp_path / "picture.jpg").open("rb") as file:
        for source in (tmp_path / "picture.jpg", str(tmp_path / "picture.jpg"), file, io.BytesIO(data)):
            np.testing.assert_array_equal(load_rgb(source, CONFIG), expected)


def test_a_jpeg_of_several_pictures_is_drafted_as_one() -> None:
    buffer = io.BytesIO()
    photo_like(1803, 1797).save(buffer, "MPO", save_all=True, append_images=[noise(64, 64)], quality=90)
    image = opened(buffer.getvalue())
    assert draft(image, 224) == (0, 0, 1803 / 4, 1797 / 4)
    assert 0 < differences(buffer.getvalue()).mean() <= PHOTO_BOUNDS[0]


def lossless_jpeg(width: int, height: int) -> bytes:
    """Grey without frequencies (ITU-T T.81, annex H): each pixel is predicted, and here none differs from that."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    frame = struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])
    code = bytes([0, 1, *[0] * 15, 0])  # one code, a single bit: no difference
    scan = bytes([1, 1, 0, 1, 0, 0])
    start, data, end = b"\xff\xd8", bytes(width * height // 8 + 8), b"\xff\xd9"
    return start + segment(0xC3, frame) + segment(0xC4, code) + segment(0xDA, scan) + data + end


def test_a_lossless_jpeg_which_has_no_draft_is_decoded_whole(tmp_path: Path) -> None:
    data = lossless_jpeg(1800, 1800)
    try:
        opened(data).load()
    except OSError:
        pytest.skip("this libjpeg decodes none")
    (tmp_path / "picture.jpg").write_bytes(data)
    for source in (data, tmp_path / "picture.jpg", io.BytesIO(data)):
        assert np.unique(load_rgb(source, CONFIG)).tolist() == [128]


# How much smaller


@pytest.mark.parametrize(
    ("size", "side", "drafted"),
    [
        ((4000, 3000), 224, (1000, 750)),
        ((4000, 3000), 50, (500, 375)),
        ((4000, 3000), 1, (500, 375)),
        ((897, 1203), 224, (449, 602)),
        ((895, 3000), 224, (895, 3000)),
        ((448, 448), 224, (448, 448)),
        ((30, 2000), 224, (30, 2000)),
    ],
)
def test_a_draft_keeps_twice_what_the_result_needs(size: tuple[int, int], side: int, drafted: tuple[int, int]) -> None:
    image = opened(jpeg(Image.new("RGB", size)))
    box = draft(image, side)
    assert image.size == drafted
    scale = {1000: 4, 500: 8, 449: 2}.get(drafted[0], 1)
    assert box == (0, 0, size[0] / scale, size[1] / scale)
    assert image.load() is not None


def test_other_formats_are_not_drafted() -> None:
    buffer = io.BytesIO()
    noise(1800, 1800).save(buffer, "PNG")
    image = opened(buffer.getvalue())
    assert draft(image, 10) == (0, 0, 1800, 1800) == whole(image)
    assert image.size == (1800, 1800)


@pytest.mark.parametrize("operation", UPRIGHT.values())
def test_a_box_is_turned_with_its_picture(operation: Image.Transpose) -> None:
    image, box = Image.new("L", (30, 20)), (3, 4, 10, 18)
    image.paste(255, box)
    assert turned(box, image.size, operation) == image.transpose(operation).getbbox()
    full: Box = (0, 0, 30, 20)
    assert turned(full, image.size, operation) == whole(image.transpose(operation))


# Refusals


def test_the_limit_is_on_the_whole_size_and_comes_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(noise(1800, 1800))
    assert load_rgb(data, CONFIG, max_pixels=1800 * 1800).shape == (224, 224, 3)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"1800 x 1800, the limit is 3,239,999 pixels") as caught:
        load_rgb(data, CONFIG, max_pixels=1800 * 1800 - 1)
    assert caught.value.code == "image_too_large"


def outcome(data: bytes, *, drafted: bool) -> str:
    try:
        load_rgb(data, CONFIG) if drafted else open_image(data)
    except ImageError as error:
        return f"{error.code}: {error}"
    return "a picture"


@pytest.mark.parametrize("saving", SAVING)
def test_a_file_cut_anywhere_is_refused_as_without_a_draft(saving: str) -> None:
    data = jpeg(photo_like(900, 900), **SAVING[saving])
    lengths = {*range(0, 700, 41), *range(0, len(data), len(data) // 12), *range(len(data) - 6, len(data) + 1)}
    found = {length: outcome(data[:length], drafted=True) for length in sorted(lengths)}
    assert found == {length: outcome(data[:length], drafted=False) for length in sorted(lengths)}
    assert set(found.values()) > {"a picture"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's word on the metadata
def test_damaged_files_are_refused_as_without_a_draft() -> None:
    random = np.random.default_rng(0)
    data = jpeg(photo_like(900, 900))
    for _ in range(60):
        damaged = bytearray(data)
        for position in random.integers(0, [700, 700, len(data)]):
            damaged[position] = int(random.integers(256))
        assert outcome(bytes(damaged), drafted=True) == outcome(bytes(damaged), drafted=False)


# Normalising


@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 5, 7, 3), (2, 3, 5, 7, 3), (0, 5, 7, 3)])
def test_normalising_is_scaling_and_shifting_in_single_precision(shape: tuple[int, ...]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    pixels = normalise(rgb, CONFIG)
    expected = (rgb.astype(np.float32) / 255 - np.asarray(CONFIG.mean, np.float32)) / np.asarray(CONFIG.std, np.float32)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, np.moveaxis(expected, -1, -3))  # to the last bit


def test_every_value_of_every_channel_is_normalised_to_the_last_bit() -> None:
    rgb = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    for config in (CONFIG, ImageConfig(mean=(0.1, 1 / 3, 0.7), std=(0.3, 1 / 7, 1.9))):
        scaled = np.asarray(rgb, dtype=np.float32) / 255
        expected = (scaled - np.asarray(config.mean, dtype=np.float32)) / np.asarray(config.std, dtype=np.float32)
        np.testing.assert_array_equal(normalise(rgb, config), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "ICO", "PPM"])
@pytest.mark.parametrize("side", [64, 224])
def test_the_parts_make_the_whole_to_the_last_bit(format_: str, side: int, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    noise(64, 64).save(path, format_)
    config = ImageConfig(height=side, width=side)
    rgb = load_rgb(path, config)
    assert (rgb.shape, rgb.dtype) == ((side, side, 3), np.uint8)
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable  # torch warns of arrays that are not
    np.testing.assert_array_equal(normalise(rgb, config), to_array(open_image(path), config))
    np.testing.assert_array_equal(load_pixels(path, config), to_array(open_image(path), config))
