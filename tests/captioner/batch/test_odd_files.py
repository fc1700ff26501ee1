"""A folder full of odd and broken files: every good one has its captions, every bad one its cause."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import picture, write_pictures

from captioner.batch.outputs.formats import TABLES
from captioner.batch.rows import shown

Command = Callable[..., int]
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that announces 60,000 x 60,000 pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 99)) + part(b"IEND", b"")


def good_files() -> dict[str, bytes]:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    frames = [picture(number, "P") for number in (60, 61, 62)]
    deep = Image.fromarray(np.arange(96 * 72, dtype=np.uint16).reshape(72, 96) * 9)
    clear = picture(63)
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    base = encoded(picture(40), "JPEG")
    names = {
        "cmyk.jpg": encoded(picture(50, "CMYK"), "JPEG"),
        "grey.jpg": encoded(picture(51, "L"), "JPEG"),
        "progressive.jpg": encoded(picture(52), "JPEG", progressive=True),
        "deep.png": encoded(deep, "PNG"),
        "palette.png": encoded(picture(53, "P"), "PNG"),
        "one bit.png": encoded(picture(54, "1"), "PNG"),
        "clear.png": encoded(clear, "PNG"),
        "dot.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "wide.png": encoded(Image.linear_gradient("L").resize((20_000, 2)), "PNG"),
        "high.png": encoded(Image.linear_gradient("L").resize((2, 9_000)), "PNG"),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.webp": encoded(frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:]),
        "rotated.jpg": encoded(picture(55), "JPEG", exif=rotated),
        "old.bmp": encoded(picture(56), "BMP"),
        "scan.tif": encoded(picture(57), "TIFF", compression="tiff_lzw"),
        "really a png.jpg": encoded(picture(58), "PNG"),
        "UPPER.JPG": encoded(picture(59), "JPEG"),
        "trailing.jpg": encoded(picture(64), "JPEG") + b"\0" * 5000,
        "a, b; 'c' \"d\".jpg": base + b"1",
        "日本 – ünï.jpg": encoded(picture(41), "JPEG"),
        " spaces .jpg": encoded(picture(42), "JPEG"),
        "-dash.jpg": encoded(picture(43), "JPEG"),
        "100% [a]*{b}?.jpg": encoded(picture(44), "JPEG"),
        f"{'n' * 250}.jpg": encoded(picture(45), "JPEG"),
        "=1+1.jpg": encoded(picture(46), "JPEG"),
    }
    if sys.platform != "win32":
        names |= {
            "two\nlines\tand a tab.jpg": encoded(picture(47), "JPEG"),
            "back\\slash.jpg": encoded(picture(48), "JPEG"),
        }
    if sys.platform == "linux":
        names["caf\udce9 \udcff.jpg"] = encoded(picture(49), "JPEG")
    return names


def bad_files() -> dict[str, tuple[bytes, str]]:
    photo = encoded(picture(70), "JPEG")
    return {
        "empty.jpg": (b"", "not_an_image"),
        "truncated.jpg": (photo[: len(photo) // 2], "image_broken"),
        "header.jpg": (photo[:20], "image_broken"),
        "truncated.png": (encoded(picture(71), "PNG")[:-2000], "image_broken"),
        "letter.jpg": (b"Dear Sir or Madam,\n" * 50, "not_an_image"),
        "zeros.png": (b"\0" * 10_000, "not_an_image"),
        "page.webp": (b"<!doctype html><title>404</title>", "not_an_image"),
        "packed.jpg": (gzip.compress(photo), "not_an_image"),
        "bomb.png": (bomb(), "image_too_large"),
        "nothing.gif": (b"GIF89a\0\0\0\0\0\0\0;", "image_broken"),
        "vector.tif": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    }


def make(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of good files, and of bad ones with the code of what ails them."""
    write_pictures(folder, 5)
    good, bad = good_files(), bad_files()
    for name, content in good.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    codes = {name: code for name, (_, code) in bad.items()}
    names = [*good, *(f"{number:03}.jpg" for number in range(5))]
    if sys.platform != "win32":
        (folder / "dangling.jpg").symlink_to("gone.jpg")
        codes["dangling.jpg"] = "image_not_found"
        (folder / "circle.jpg").symlink_to("circle.jpg")
        codes["circle.jpg"] = "image_unreadable"
        (folder / "link.jpg").symlink_to("000.jpg")
        names.append("link.jpg")
        os.mkfifo(folder / "pipe.jpg")  # a folder's pipes are passed over; named ones are told
    if not ROOT and sys.platform != "win32":
        (folder / "closed.jpg").write_bytes(good["grey.jpg"])
        (folder / "closed.jpg").chmod(0)
        codes["closed.jpg"] = "image_unreadable"
    (folder / "folder.jpg").mkdir()
    (folder / ".hidden.jpg").write_bytes(b"no")
    (folder / "._000.jpg").write_bytes(b"no")
    (folder / "notes.txt").write_bytes(b"no")
    return names, codes


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_each_good_file_is_captioned_and_each_bad_one_has_its_cause(
    batch: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("photos")
    good, bad = make(folder)
    named = ["photos/folder.jpg", *(["photos/pipe.jpg"] if sys.platform != "win32" else [])]
    assert batch("photos", *named, "--output", "out.jsonl") == 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    told = capsys.readouterr().err
    captioned = [row["image"] for row in rows if "captions" in row]
    assert sorted(captioned) == sorted(f"photos/{name}" for name in good)
    assert all(Path(name).exists() for name in captioned)
    failed = {row["image"].removeprefix("photos/"): row for row in rows if "error" in row}
    if "pipe.jpg" in failed:
        assert failed.pop("pipe.jpg")["code"] == "image_unreadable"
    assert {name: row["code"] for name, row in failed.items()} == bad
    assert all(row["error"].count("\n") == 0 and len(row["error"]) > 20 for row in failed.values())
    assert all(f"photos/{name}" in told for name in bad)
    lines = [line for line in told.splitlines() if "Exporting" not in line]  # which the first use of a model tells
    assert len(lines) == len(failed) + len(["photos/pipe.jpg"] if sys.platform != "win32" else []) + 1

    for name in bad:
        path = folder / name
        path.unlink()
        path.write_bytes(encoded(picture(90), "PNG"))
    (folder / "pipe.jpg").unlink(missing_ok=True)
    (folder / "pipe.jpg").write_bytes(encoded(picture(91), "PNG"))
    assert batch("photos", *named, "--output", "out.jsonl", "--retry-failed") == 0
    again = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    assert [row["image"] for row in again][: len(rows)] == [row["image"] for row in rows]
    assert all("captions" in row for row in again)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_odd_names_are_in_every_table(batch: Command, format_: str) -> None:
    if format_ == "parquet":
        pytest.importorskip("pyarrow")
    good, bad = make(Path("photos"))
    for _ in range(2):  # and are known there by the next run
        assert batch("photos", "--output", f"out.{format_}") == 1
        entries = list(TABLES[format_](Path(f"out.{format_}")).entries())
        assert sorted(entry.image for entry in entries if not entry.failed) == sorted(
            shown(f"photos/{name}") for name in good
        )
        assert sum(entry.failed for entry in entries) == len(bad)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_odd_names_have_files_beside_them(batch: Command, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = make(Path("photos"))
    assert batch("photos", "--format", "txt") == 1
    texts = [*Path("photos").glob("*.txt")]
    assert len(texts) == len(good) + len(["notes.txt"])
    assert Path("photos/two\nlines\tand a tab.txt") in texts or sys.platform == "win32"
    assert batch("photos", "--format", "xmp", "--prefix", "seen: ") == 1
    sidecars = {path.name for path in Path("photos").glob("*.xmp")}
    long = f"{'n' * 250}.jpg"  # with four bytes more no file system takes it
    assert sidecars == {f"{name}.xmp" for name in good if name != long}
    assert f"{long}.xmp cannot be" in capsys.readouterr().err
    assert len(bad) > 10
