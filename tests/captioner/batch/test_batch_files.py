"""``captioner batch`` into a file for each picture: beside it, in it, or in a folder of its own."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from running import main, picture, tree, write_pictures

import captioner
from captioner.metadata import embed, read_embedded, read_sidecar

Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]

SEEN = ("--prefix", "seen: ")  # the tiny model has nothing to say of some pictures, and alt text cannot be empty


@pytest.fixture
def model(tiny_model_dir: Path) -> captioner.Captioner:
    return captioner.load(tiny_model_dir, device="cpu")


@pytest.fixture
def texts(model: captioner.Captioner) -> Callable[..., dict[str, str]]:
    """What the library says of the pictures of a folder, by their names."""

    def say(folder: str, *, batch_size: int = 4) -> dict[str, str]:
        results = model.batch(sorted(Path(folder).glob("*.jpg")), batch_size=batch_size)
        return {Path(str(result.image)).name: result.captions[0].text for result in results}

    return say


def records() -> list[str]:
    return [path.name for path in Path(os.environ["XDG_STATE_HOME"]).rglob("*.progress*")]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


# txt


def test_a_text_lies_beside_each_picture(batch: Command, texts: Callable[..., dict[str, str]], capsys: Capture) -> None:
    write_pictures(Path("photos"), 6)
    expected = texts("photos")
    assert batch("photos", "--format", "txt", "--prefix", "> ") == 0
    for name, text in expected.items():
        assert Path("photos", name).with_suffix(".txt").read_text(encoding="utf-8") == f"> {text}\n"
    assert len(list(Path("photos").iterdir())) == 12
    assert records() == []
    assert "6 captioned" in capsys.readouterr().err


def test_texts_that_are_there_are_left(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 5)
    Path("photos/002.txt").write_text("my own\n", encoding="utf-8")
    assert batch("photos", "--format", "txt") == 0
    assert "4 captioned, 0 failed, 1 left as they were" in capsys.readouterr().err
    assert Path("photos/002.txt").read_text(encoding="utf-8") == "my own\n"
    Path("photos/004.txt").unlink()
    assert batch("photos", "--format", "txt") == 0
    assert "1 captioned, 0 failed, 4 left as they were" in capsys.readouterr().err


def test_texts_are_overwritten_when_asked(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    batch("photos", "--format", "txt")
    before = tree(Path("photos"))
    Path("photos/001.txt").write_text("my own\n", encoding="utf-8")
    assert batch("photos", "--format", "txt", "--on-existing", "overwrite") == 0
    assert tree(Path("photos")) == before


def test_lines_are_appended_once(batch: Command, texts: Callable[..., dict[str, str]]) -> None:
    write_pictures(Path("photos"), 3)
    expected = texts("photos")
    Path("photos/001.txt").write_bytes(b"my own")
    Path("photos/002.txt").write_text(f"{expected['002.jpg']}\nmy own\n", encoding="utf-8")
    for _ in range(2):
        assert batch("photos", "--format", "txt", "--on-existing", "append") == 0
        found = [Path(f"photos/00{number}.txt").read_text(encoding="utf-8") for number in range(3)]
        assert found == [
            f"{expected['000.jpg']}\n",
            f"my own\n{expected['001.jpg']}\n",
            f"{expected['002.jpg']}\nmy own\n",
        ]


def test_several_captions_are_several_lines(batch: Command, model: captioner.Captioner) -> None:
    write_pictures(Path("photos"), 2)
    assert batch("photos", "--format", "txt", "--n-best", 3) == 0
    for result in model.batch(sorted(Path("photos").glob("*.jpg")), n_best=3):
        found = Path(str(result.image)).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert found == [caption.text for caption in result.captions]


def test_several_models_have_a_text_each(batch: Command, other: Path) -> None:
    write_pictures(Path("photos"), 3)
    assert batch("photos", "--format", "txt", "--model", other) == 0
    names = sorted(path.name for path in Path("photos").glob("*.txt"))
    assert names == [f"00{number}.{model}.txt" for number in range(3) for model in ("other", "tiny")]
    Path("photos/001.other.txt").unlink()
    assert batch("photos", "--format", "txt", "--model", other) == 0
    assert sorted(path.name for path in Path("photos").glob("*.txt")) == names


def test_of_several_models_texts_those_that_are_there_are_left(batch: Command, other: Path) -> None:
    write_pictures(Path("photos"), 1)
    assert batch("photos", "--format", "txt", "--model", other) == 0
    Path("photos/000.tiny.txt").write_text("by a person", encoding="utf-8")
    expected = Path("photos/000.other.txt").read_bytes()
    Path("photos/000.other.txt").unlink()
    assert batch("photos", "--format", "txt", "--model", other) == 0
    assert Path("photos/000.tiny.txt").read_text(encoding="utf-8") == "by a person"
    assert Path("photos/000.other.txt").read_bytes() == expected


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_a_circle_harms_its_own_picture_alone(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    Path("photos/001.txt").symlink_to("001.txt")
    assert batch("photos", "--format", "txt") == 1
    assert "photos/001.txt cannot be read" in capsys.readouterr().err
    assert sorted(path.name for path in Path("photos").glob("*.txt") if path.exists()) == ["000.txt", "002.txt"]


def test_two_pictures_by_one_name_have_two_texts(batch: Command) -> None:
    write_pictures(Path("photos"), 1)
    picture(5).save("photos/000.png")
    assert batch("photos", "--format", "txt") == 0
    names = ["000.jpg", "000.png", "000.png.txt", "000.txt"]
    assert sorted(path.name for path in Path("photos").iterdir()) == names
    before = tree(Path("photos"))
    assert before["000.txt"] != before["000.png.txt"]
    Path("photos/000.txt").unlink()
    assert batch("photos", "--format", "txt") == 0
    assert tree(Path("photos")) == before


def test_so_they_have_when_two_runs_share_them(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    for number in range(3):
        picture(5 + number).save(f"photos/{number:03}.png")
    for number in (1, 0):
        assert batch("photos", "--format", "txt", "--shard", f"{number}/2") == 0
    found = tree(Path("photos"))
    assert batch("photos", "--format", "txt", "--on-existing", "overwrite") == 0
    assert tree(Path("photos")) == found
    assert len(found) == 12


def test_a_text_keeps_its_rights_and_its_link(batch: Command) -> None:
    write_pictures(Path("photos"), 1)
    Path("elsewhere").write_text("my own\n", encoding="utf-8")
    Path("elsewhere").chmod(0o640)
    Path("photos/000.txt").symlink_to(Path("elsewhere").resolve())
    assert batch("photos", "--format", "txt", "--on-existing", "append") == 0
    assert Path("photos/000.txt").is_symlink()
    assert len(Path("elsewhere").read_text(encoding="utf-8").splitlines()) == 2
    assert Path("elsewhere").stat().st_mode & 0o777 == 0o640


def test_failures_are_remembered(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    good = Path("photos/001.jpg").read_bytes()
    Path("photos/001.jpg").write_bytes(good[:50])
    assert batch("photos", "--format", "txt") == 1
    assert len(records()) == 1
    Path("photos/001.jpg").write_bytes(good)
    capsys.readouterr()
    assert batch("photos", "--format", "txt") == 1
    told = capsys.readouterr().err
    assert "0 captioned, 0 failed, 2 left as they were, 1 done before" in told
    assert "1 failed in an earlier run; --retry-failed tries again" in told
    assert "captioner: photos/001.jpg: the image" in told
    assert batch("photos", "--format", "txt", "--retry-failed") == 0
    assert Path("photos/001.txt").exists()
    assert records() == []
    assert batch("photos", "--format", "txt") == 0


def test_what_failed_and_is_gone_is_forgotten(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 2)
    for name in ("bad", "worse"):
        Path(f"photos/{name}.jpg").write_bytes(b"no picture")
    assert batch("photos", "--format", "txt") == 1
    Path("photos/bad.jpg").unlink()
    capsys.readouterr()
    assert batch("photos", "--format", "txt") == 1
    told = capsys.readouterr().err
    assert "1 failed in an earlier run" in told
    assert "bad.jpg" not in told
    Path("photos/worse.jpg").unlink()
    assert batch("photos", "--format", "txt") == 0
    assert records() == []


def test_who_captions_what_had_failed_is_not_overruled(batch: Command) -> None:
    write_pictures(Path("photos"), 2)
    Path("photos/001.jpg").write_bytes(b"no")
    assert batch("photos", "--format", "txt") == 1
    Path("photos/001.txt").write_text("my own\n", encoding="utf-8")
    assert batch("photos", "--format", "txt", "--retry-failed") == 0
    assert Path("photos/001.txt").read_text(encoding="utf-8") == "my own\n"
    assert records() == []


def test_a_record_can_lie_elsewhere(batch: Command) -> None:
    write_pictures(Path("photos"), 1)
    Path("photos/x.jpg").write_bytes(b"no")
    assert batch("photos", "--format", "txt", "--progress", "mine.progress") == 1
    assert Path("mine.progress").exists()
    assert records() == []


# A folder of their own


def test_what_is_named_from_here_is_something_else_there(batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        write_pictures(Path(folder), 2)
        Path(folder, "001.jpg").write_bytes(b"no")
        Path(folder, "list").write_text("000.jpg\n001.jpg\n", encoding="utf-8")
    here = Path.cwd()
    for folder in ("a", "b"):
        monkeypatch.chdir(here / folder)
        assert batch("--list", "list", "--format", "txt") == 1
        assert batch(here / folder, "--format", "txt") == 1
    assert len(records()) == 4
    assert batch(here / "a", "--format", "txt") == 1
    assert len(records()) == 4  # wherever it is called from


def test_a_tree_is_mirrored(batch: Command) -> None:
    write_pictures(Path("photos"), 2)
    write_pictures(Path("photos/deep/er"), 2)
    for format_, ending in (("txt", ".txt"), ("xmp", ".jpg.xmp"), ("embed", ".jpg")):
        assert batch("photos", "--recursive", "--format", format_, "--output", f"to/{format_}", *SEEN) == 0
        names = [f"{folder}00{number}{ending}" for folder in ("", "deep/er/") for number in range(2)]
        assert sorted(tree(Path("to", format_))) == sorted(names)
    assert sorted(tree(Path("photos"))) == ["000.jpg", "001.jpg", "deep/er/000.jpg", "deep/er/001.jpg"]


def test_what_lies_in_archives_has_files_too(batch: Command) -> None:
    write_pictures(Path("photos"), 3)
    with tarfile.open("shard.tar", "w") as archive:
        archive.add("photos", arcname="sub")
    for format_, ending in (("txt", ".txt"), ("xmp", ".jpg.xmp"), ("embed", ".jpg")):
        assert batch("shard.tar", "--format", format_, "--output", f"to/{format_}", *SEEN) == 0
        assert sorted(tree(Path("to", format_))) == [f"shard/sub/00{number}{ending}" for number in range(3)]
    assert read_embedded(Path("to/embed/shard/sub/001.jpg")) == read_sidecar(Path("to/xmp/shard/sub/001.jpg"))
    assert pixels(Path("to/embed/shard/sub/001.jpg")) == pixels(Path("photos/001.jpg"))


def test_what_lies_in_archives_has_no_beside(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 1)
    with tarfile.open("shard.tar", "w") as archive:
        archive.add("photos")
    assert batch("shard.tar", "--format", "txt") == 1
    assert "name a folder with --output" in capsys.readouterr().err


def test_what_cannot_be_read_is_told_as_such(batch: Command, capsys: Capture) -> None:
    Path("shard.tar").write_bytes(b"no archive")
    assert batch("shard.tar", "gone.jpg", "--format", "txt") == 1
    told = capsys.readouterr().err
    assert "the archive shard.tar is damaged" in told
    assert "gone.jpg does not exist" in told


# xmp and embed


def test_a_sidecar_lies_beside_each_picture(batch: Command, texts: Callable[..., dict[str, str]]) -> None:
    write_pictures(Path("photos"), 3)
    picture(9).save("photos/000.png")
    before = tree(Path("photos"))
    assert batch("photos", "--format", "xmp", *SEEN) == 0
    for name, text in texts("photos").items():
        assert (read_sidecar(Path("photos", name)) or "").strip() == f"seen: {text}".strip()
    assert read_sidecar(Path("photos/000.png")) is not None
    assert {name: content for name, content in tree(Path("photos")).items() if not name.endswith(".xmp")} == before


def test_only_sidecars_with_alt_text_are_left(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    batch("photos", "--format", "xmp", "--prefix", "mine: ")
    sidecar = Path("photos/001.jpg.xmp")
    bare = sidecar.read_text(encoding="utf-8")
    rating = bare.replace('rdf:about=""', 'rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"')
    start, end = rating.index("   <Iptc4"), rating.index("  </rdf:Description>")
    sidecar.write_text(rating[:start] + rating[end:], encoding="utf-8")
    assert read_sidecar(Path("photos/001.jpg")) is None
    capsys.readouterr()
    assert batch("photos", "--format", "xmp", *SEEN) == 0
    assert "1 captioned, 0 failed, 2 left as they were" in capsys.readouterr().err
    assert 'Rating="4"' in sidecar.read_text(encoding="utf-8")
    assert read_sidecar(Path("photos/001.jpg"))
    assert (read_sidecar(Path("photos/000.jpg")) or "").startswith("mine: ")
    assert batch("photos", "--format", "xmp", "--on-existing", "overwrite", *SEEN) == 0
    assert not (read_sidecar(Path("photos/000.jpg")) or "").startswith("mine: ")


def test_alt_text_goes_into_the_pictures_themselves(batch: Command, texts: Callable[..., dict[str, str]]) -> None:
    paths = write_pictures(Path("photos"), 5)
    paths += write_pictures(Path("photos"), 1, first=5, ending=".png")
    paths += write_pictures(Path("photos"), 1, first=6, ending=".webp")
    expected, before = texts("photos"), {path: pixels(path) for path in paths}
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    assert batch("photos", "--format", "embed", *SEEN) == 0
    for name, text in expected.items():
        assert (read_embedded(Path("photos", name)) or "").strip() == f"seen: {text}".strip()
    assert all(read_embedded(path) for path in paths)
    assert {path: pixels(path) for path in paths} == before
    assert {path.stat().st_mtime_ns for path in paths} == {10**18}
    assert sorted(Path("photos").iterdir()) == sorted(paths)


def test_alt_text_that_is_there_is_left(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    batch("photos/001.jpg", "--format", "embed", "--prefix", "mine: ")
    capsys.readouterr()
    assert batch("photos", "--format", "embed", *SEEN) == 0
    assert "2 captioned, 0 failed, 1 left as they were" in capsys.readouterr().err
    assert (read_embedded(Path("photos/001.jpg")) or "").startswith("mine: ")


def test_formats_without_alt_text_fail_alone(batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 2)
    picture(8).save("photos/000.gif")
    assert batch("photos", "--format", "embed", *SEEN) == 1
    assert "photos/000.gif is not JPEG, PNG or WebP" in capsys.readouterr().err
    assert batch("photos", "--format", "embed", "--output", "to", "--on-existing", "overwrite", *SEEN) == 1
    assert sorted(tree(Path("to"))) == ["000.jpg", "001.jpg"]


def test_copies_have_the_times_of_the_originals(batch: Command) -> None:
    (path,) = write_pictures(Path("photos"), 1)
    os.utime(path, ns=(10**18, 10**18))
    before = path.read_bytes()
    assert batch("photos", "--format", "embed", "--output", "to", *SEEN) == 0
    assert path.read_bytes() == before
    assert Path("to/000.jpg").stat().st_mtime_ns == 10**18
    assert read_embedded(Path("to/000.jpg"))


def test_copies_keep_the_alt_text_of_their_originals_unless_it_is_to_be_overwritten(batch: Command) -> None:
    (path,) = write_pictures(Path("photos"), 1)
    embed(path, "By a person.")
    arguments = ("photos", "--format", "embed", "--output", "to")
    assert batch(*arguments) == 0
    assert Path("to/000.jpg").read_bytes() == path.read_bytes()
    assert batch(*arguments, "--on-existing", "overwrite") == 0
    assert read_embedded(Path("to/000.jpg")) not in (None, "By a person.")


def test_a_name_that_no_file_can_have_harms_its_own_picture_alone(batch: Command, capsys: Capture) -> None:
    paths = write_pictures(Path("photos"), 2)
    with tarfile.open("shard.tar", "w") as archive:
        archive.add(paths[0], "x" * 260 + ".jpg")
        archive.add(paths[1], "good.jpg")
    assert batch("shard.tar", "--format", "embed", "--output", "to") == 1
    assert "name too long" in capsys.readouterr().err
    assert [path.name for path in Path("to").rglob("*.jpg")] == ["good.jpg"]


def test_a_copy_does_not_take_the_place_of_its_original(batch: Command, capsys: Capture) -> None:
    (path,) = write_pictures(Path("photos"), 1)
    before = path.read_bytes()
    assert batch("photos/000.jpg", "--format", "embed", "--output", "photos", *SEEN) == 1
    assert "the copy of photos/000.jpg would take its place" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_duplicates_have_their_own_files(batch: Command) -> None:
    write_pictures(Path("photos"), 1)
    for name in ("1", "2", "3", "4", "5"):
        shutil.copy("photos/000.jpg", f"photos/{name}.jpg")
    assert batch("photos", "--format", "embed", *SEEN) == 0
    assert len({read_embedded(path) for path in Path("photos").iterdir()}) == 1
    assert len({path.read_bytes() for path in Path("photos").iterdir()}) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "xmp", "--on-existing", "append"], "--format xmp has one alt text a picture"),
        (["--format", "embed", "--n-best", 2], "leave --n-best out"),
        (["--format", "xmp", "--model", "words"], "give one --model"),
        (["--format", "txt", "--output", "photos/000.jpg"], "is a file: name a folder"),
        (["--format", "embed", "--recursive", "--output", "photos/to"], "photos/to belongs to the input photos"),
        (["--format", "embed", "--output", "photos"], "photos belongs to the input photos"),
    ],
)
def test_wrong_usage_is_told_and_changes_nothing(
    batch: Command, capsys: Capture, arguments: list[object], told: str
) -> None:
    write_pictures(Path("photos"), 1)
    before = tree(Path())
    assert batch("photos", *arguments) == 2
    assert told in capsys.readouterr().err
    assert tree(Path()) == before


def test_symbols_are_no_alt_text(tiny_model_dir: Path, tmp_path: Path, batch: Command, capsys: Capture) -> None:
    directory = shutil.copytree(tiny_model_dir, tmp_path / "symbols")
    config = directory / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"words"', '"symbols"'), encoding="utf-8")
    write_pictures(Path("photos"), 1)
    assert main(["photos", "--format", "xmp", "--model", directory, "--device", "cpu"]) == 2
    assert "model tiny says symbols" in capsys.readouterr().err
    assert main(["photos", "--format", "xmp", "--sentence", "--model", directory, "--device", "cpu"]) == 2
    assert "has not taught it words" in capsys.readouterr().err


def test_an_empty_caption_is_no_alt_text(batch: Command, texts: Callable[..., dict[str, str]], capsys: Capture) -> None:
    write_pictures(Path("photos"), 12)
    silent = [name for name, text in texts("photos").items() if not text]
    assert silent
    assert batch("photos", "--format", "xmp") == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "the alt text is empty" in line]
    assert [name for name in silent if not any(name in line for line in told)] == []
    assert len(told) == len(silent)
    assert len(list(Path("photos").glob("*.xmp"))) == 12 - len(silent)
