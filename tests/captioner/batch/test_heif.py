"""HEIC photographs and AVIF pictures: read where something reads them, named where nothing does."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, features

from captioner.batch.sources import find
from captioner.config import ImageConfig
from captioner.errors import ImageError
from captioner.heif import MOST_BRANDS, codec
from captioner.images import load_rgb, open_image

pillow_heif = pytest.importorskip("pillow_heif")

CONFIG = ImageConfig(width=32, height=32)
NAMED = r"the image is a HEIC image, .*: pip install 'captioner\[heif\]' brings it"


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Blue above red."""
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.paste((0, 0, 255), (0, 0, width, height // 2))
    return image


def heic(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, **options)
    return buffer.getvalue()


def is_close(image: Image.Image, expected: Image.Image) -> bool:
    difference = np.asarray(image).astype(int) - np.asarray(expected).astype(int)
    return bool(image.size == expected.size and np.abs(difference).max() <= 3)


HEIC = heic(picture())


def branded(major: bytes, *others: bytes, data: bytes = HEIC) -> bytes:
    """The picture with other words on what it is; the rest is found by its distance from the start."""
    size = int.from_bytes(data[:4], "big")
    filled = b"".join(others) + b"miaf" * ((size - 16) // 4 - len(others))
    return data[:8] + major + data[12:16] + filled + data[size:]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pillow-heif is not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def test_a_heic_photograph_is_read(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(HEIC)
    for source in (HEIC, path, io.BytesIO(HEIC)):
        image = open_image(source)
        assert image.mode == "RGB"
        assert is_close(image, picture())
    np.testing.assert_allclose(load_rgb(HEIC, CONFIG), load_rgb(picture(), CONFIG), atol=3)
    (found,) = find([str(tmp_path)])
    assert is_close(open_image(found.read()), picture())


@pytest.mark.parametrize("brands", [(b"mif1", b"heic"), (b"heix", b"mif1"), (b"xxxx", b"heic")])
def test_it_is_known_by_any_of_its_brands(brands: tuple[bytes, ...]) -> None:
    """``mif1`` comes first in what some programs write: then Pillow takes the file for AVIF."""
    assert is_close(open_image(branded(*brands)), picture())


def test_it_is_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    # The plugin's own writer turns orientation into HEIF's rotation, as telephones do.
    code = (
        "import sys, io, pillow_heif; from PIL import Image; pillow_heif.register_heif_opener();"
        "image = Image.open(io.BytesIO(sys.stdin.buffer.read()));"
        "image.save(sys.stdout.buffer, 'HEIF', quality=-1, exif=image.info['exif'])"
    )
    picture().save(buffer, "PNG", exif=exif)
    turned = subprocess.run([sys.executable, "-c", code], input=buffer.getvalue(), stdout=subprocess.PIPE, check=True)
    assert is_close(open_image(turned.stdout), open_image(buffer.getvalue()))
    assert open_image(turned.stdout).size == (48, 64)


def test_it_is_on_white_where_it_is_transparent() -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert is_close(open_image(heic(image)), Image.new("RGB", image.size, "white"))


def test_the_limit_on_pixels_holds() -> None:
    assert open_image(HEIC, max_pixels=64 * 48).size == (64, 48)
    with pytest.raises(ImageError) as caught:
        open_image(HEIC, max_pixels=64 * 48 - 1)
    assert caught.value.code == "image_too_large"


def test_what_others_read_with_pillow_stays_as_it_is() -> None:
    code = (
        "import sys; from PIL import Image; from captioner.images import open_image;"
        "data = open(sys.argv[1], 'rb').read(); open_image(data); assert 'HEIF' not in Image.OPEN"
    )
    reader = [sys.executable, "-c", code, "/dev/stdin"]
    subprocess.run(reader, input=HEIC, check=True)


def test_it_is_not_read_where_other_formats_are_asked_for() -> None:
    with pytest.raises(ImageError, match="none of the image formats taken here"):
        open_image(HEIC, formats=["JPEG", "PNG"])
    assert is_close(open_image(HEIC, formats=["HEIF"]), picture())


@pytest.mark.parametrize("data", [HEIC, branded(b"mif1", b"heic")])
@pytest.mark.usefixtures("without")
def test_without_its_reader_the_extra_is_named(data: bytes) -> None:
    with pytest.raises(ImageError, match=NAMED) as caught:
        open_image(data)
    assert caught.value.code == "not_an_image"


@pytest.mark.usefixtures("without")
def test_without_its_reader_all_else_is_as_before() -> None:
    for data, said in (
        (b"not an image", "no known image format"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "no known image format"),  # a film
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "starts like a AVIF|is an AVIF image, and this Pillow"),
    ):
        with pytest.raises(ImageError, match=said):
            open_image(data)


def test_a_reader_without_its_library_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ImportError("libheif.so.1: cannot open shared object file")

    monkeypatch.setattr(pillow_heif, "libheif_version", missing)
    with pytest.raises(ImageError, match=NAMED):
        open_image(HEIC)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
@pytest.mark.usefixtures("without")
def test_avif_is_read_by_pillow_itself() -> None:
    buffer = io.BytesIO()
    plain = Image.new("RGB", (64, 48), (200, 30, 30))
    plain.save(buffer, "AVIF", quality=100)
    assert is_close(open_image(buffer.getvalue()), plain)


def test_avif_that_pillow_does_not_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import AvifImagePlugin

    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    with pytest.raises(ImageError, match=r"is an AVIF image, and this Pillow does not read it: pip install -U pillow"):
        open_image(b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + bytes(100))


@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"heic")])
def test_a_damaged_one_says_what_it_starts_like(brands: tuple[bytes, ...]) -> None:
    for length in (40, 100, 300):
        with pytest.raises(ImageError, match="starts like a HEIC image but is damaged"):
            open_image(branded(*brands)[:length])


@given(st.data())
def test_no_damage_breaks_more_than_the_picture(data: st.DataObject) -> None:
    damaged = bytearray(HEIC)
    for position in data.draw(st.lists(st.integers(0, len(HEIC) - 1), min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(damaged), max_pixels=2_000_000)
    except ImageError:
        return
    assert image.mode == "RGB"


@given(st.binary(max_size=400))
def test_any_bytes_have_brands_or_none(data: bytes) -> None:
    assert codec(io.BytesIO(data)) == ""
    assert codec(io.BytesIO(b"\0\0\1\0ftypheic" + data)) == "HEIC"


def test_brands_are_looked_for_within_their_box() -> None:
    def box(*others: bytes, size: int | None = None) -> io.BytesIO:
        length = 16 + 4 * len(others) if size is None else size
        return io.BytesIO(length.to_bytes(4, "big") + b"ftypmif1\0\0\0\0" + b"".join(others))

    assert codec(box(b"miaf", b"heic")) == "HEIC"
    assert codec(box(b"miaf", b"avif")) == "AVIF"
    assert codec(box(b"avif", b"heic")) == "HEIC"  # what Pillow could not read is the other
    assert codec(box(b"miaf", b"heic", size=20)) == ""
    assert codec(box(*[b"miaf"] * (MOST_BRANDS - 1), b"heic")) == "HEIC"
    assert codec(box(*[b"miaf"] * MOST_BRANDS, b"heic")) == ""
