"""The command as it is typed: lines on stdout, failures on stderr, exit codes."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct import DIRECT
from installed import needs_torch
from PIL import Image

import captioner
from captioner import Captioner, checkpoint
from captioner.checkpoint import ModelInfo, read_info, write_info
from captioner.cli import main

Command = Callable[..., int]


@pytest.fixture
def caption(tiny_model_dir: Path) -> Command:
    """``captioner caption`` with the tiny model."""
    first = ["caption", "--model", str(tiny_model_dir), "--device", "cpu"]  # what comes later wins
    return lambda *arguments: main([*first, *map(str, arguments)])


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    """A text that claims to be a photo."""
    path = tmp_path / "letter.jpg"
    path.write_text("Dear Sir or Madam,\n" * 50)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.png"
    Image.radial_gradient("L").save(path)
    return path


def wrong_usage(*arguments: str) -> int:
    """Run what the parser itself refuses."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


# captioner caption


def test_a_line_a_picture(
    caption: Command, tiny_captioner: Captioner, photo: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo) == 0  # the first use of a model tells that it is exported
    capsys.readouterr()
    assert caption(photo, other, "--precision", "fp32") == 0
    printed = capsys.readouterr()
    texts = [tiny_captioner(path).text for path in (photo, other)]
    assert texts[0] != texts[1]
    assert printed.out == f"{photo}\t{texts[0]}\n{other}\t{texts[1]}\n"
    assert printed.err == ""


def test_phones_without_words_make_no_sentence(
    tiny_model_dir: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(tiny_model_dir, tmp_path / "model")
    write_info(directory, dataclasses.replace(read_info(directory), tokenizer="symbols"))
    assert main(["caption", str(photo), "--model", str(directory), "--sentence"]) == 2
    assert "python -m training.words has not taught it words" in capsys.readouterr().err
    assert main(["caption", str(photo), "--model", str(directory)]) == 0


def test_options_reach_the_model(
    caption: Command, tiny_captioner: Captioner, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo, "--precision", "fp32", "--n-best", 5, "--max-length", 4, "--sentence") == 0
    expected = tiny_captioner.candidates(photo, n_best=5, max_length=4)
    assert capsys.readouterr().out.splitlines() == [f"{photo}\t{found.sentence}" for found in expected]
    assert caption(photo, "--n-best", 5, "--length-penalty", 0, "--no-repeat-ngram", 2) == 0
    expected = tiny_captioner.candidates(photo, n_best=5, length_penalty=0, no_repeat_ngram=2)
    assert [found.text for found in expected] != [found.text for found in tiny_captioner.candidates(photo, n_best=5)]
    assert capsys.readouterr().out.splitlines() == [f"{photo}\t{found.text}" for found in expected]
    assert caption(photo, "--precision", "fp32", "--beam-size", 1) == 0
    greedy = tiny_captioner(photo, beam_size=1).text
    assert greedy != tiny_captioner(photo, beam_size=5).text
    assert capsys.readouterr().out == f"{photo}\t{greedy}\n"


def test_json_rows_are_those_of_the_library(
    caption: Command, tiny_captioner: Captioner, photo: Path, letter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(letter, photo, "--precision", "fp32", "--n-best", 2, "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["image"] == str(letter)
    assert rows[0]["code"] == "not_an_image"
    assert list(rows[0]) == ["image", "error", "code"]
    assert list(rows[1]) == ["image", "model", "captions"]
    assert rows[1]["model"] == "tiny"
    expected = [found.to_row() for found in tiny_captioner.candidates(photo, n_best=2)]
    assert [{**row, "score": pytest.approx(row["score"], abs=1e-3)} for row in expected] == rows[1]["captions"]


def test_a_picture_that_fails_leaves_its_neighbours_alone(
    caption: Command, photo: Path, letter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo, letter, tmp_path / "nowhere.jpg", photo) == 1
    printed = capsys.readouterr()
    assert [line.partition("\t")[0] for line in printed.out.splitlines()] == [str(photo)] * 2
    failures = printed.err.splitlines()
    assert len(failures) == 2
    assert failures[0].startswith(f"captioner: {letter} ")
    assert failures[1] == f"captioner: {tmp_path / 'nowhere.jpg'} does not exist; check the path"


def test_standard_input_is_a_picture_too(
    caption: Command, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caption(photo)
    _, _, text = capsys.readouterr().out.partition("\t")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    assert caption("-", photo, "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["image"], second["image"]) == ("-", str(photo))
    assert first["captions"] == second["captions"]
    assert first["captions"][0]["text"] + "\n" == text


def test_attention_is_drawn(caption: Command, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption(photo, "--attention", tmp_path / "seen.png") == 0
    with Image.open(tmp_path / "seen.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 3 * 220  # a contact sheet of several tiles, not the picture
    assert capsys.readouterr().out.startswith(f"{photo}\t")


def test_a_drawing_does_not_take_the_place_of_its_picture(
    caption: Command, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = photo.read_bytes()
    assert caption(photo, "--attention", photo) == 2
    assert "is the picture itself" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_attention_that_cannot_be_drawn_is_told(
    caption: Command, photo: Path, letter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo, photo, "--attention", tmp_path / "seen.png") == 2
    assert "--attention draws one picture" in capsys.readouterr().err
    for place in (tmp_path / "seen.text", tmp_path / "seen", tmp_path / "seen.blp"):
        assert caption(photo, "--attention", place) == 2
        told = capsys.readouterr()
        assert f"captioner: --attention: {place} is no name for a drawing" in told.err
        assert not told.out  # nothing is captioned in vain
    folder = tmp_path / "folder.png"
    folder.mkdir()
    for place in (tmp_path / "nowhere" / "seen.png", folder):
        assert caption(photo, "--attention", place) == 1
        assert f"captioner: cannot write {place}: " in capsys.readouterr().err
    assert caption(letter, "--attention", tmp_path / "seen.png") == 1
    assert not (tmp_path / "seen.png").exists()


def test_a_model_that_is_not_there_is_wrong_usage(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["caption", str(photo), "--model"], ["info"]):
        assert main([*command, str(tmp_path / "nowhere")]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("captioner: no model ")
        assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam-size", "0"], "beam_size must be"),
        (["--beam-size", "2", "--n-best", "3"], "raise beam_size"),
        (["--n-best", "500"], "n_best must be"),
        (["--precision", "int3"], "unknown precision"),
        pytest.param(["--device", "tpu"], "no device 'tpu'", marks=needs_torch),
    ],
)
def test_an_impossible_option_is_wrong_usage(
    caption: Command, photo: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo, *options) == 2
    assert message in capsys.readouterr().err


def test_options_may_stand_between_pictures(
    caption: Command, photo: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(photo, "--beam-size", 2, other, "--", photo) == 0
    assert [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()] == list(
        map(str, (photo, other, photo))
    )
    with pytest.raises(SystemExit):
        caption(photo, "--beam-size", 2, other, "--no-such-option")
    assert "unrecognized arguments" in capsys.readouterr().err


def test_what_the_grammar_does_not_know_is_wrong_usage(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["paint"], ["caption"], ["caption", str(photo), "--beam-size", "wide"], ["caption", "--x"]):
        assert wrong_usage(*arguments) == 2
        assert "usage: captioner" in capsys.readouterr().err
    assert wrong_usage("--version") == 0
    assert capsys.readouterr().out == f"captioner {captioner.__version__}\n"


# captioner models, captioner info


def test_bundled_models_are_listed_with_their_figures(
    tiny_info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    assert main(["models"]) == 0
    assert capsys.readouterr().out == ""
    for name in ("words", "phones"):
        (tmp_path / name).mkdir()
        write_info(tmp_path / name, tiny_info)
    assert main(["models"]) == 0
    line = "\tdev CIDEr 0.125\tA random model for tests.\n"
    assert capsys.readouterr().out == f"phones{line}words{line}"


def test_a_model_is_described(tiny_model_dir: Path, tiny_info: ModelInfo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_model_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = {line[:12].rstrip(): line[13:] for line in lines}
    assert facts["name"] == "tiny"
    assert facts["figures"] == "dev CIDEr 0.125"
    assert facts["pictures"] == "64 x 32 pixels, stretch"
    assert facts["encoder"] == "mobilenet_v2, grid 2 x 4 x 64"
    assert facts["decoder"] == (
        "reader none 10, 1 x lstm 12, additive attention 6 before the cells, image at start, embedding 8, "
        "gated context, tied output"
    )
    assert facts["vocabulary"] == "14 words"
    assert "beam_size 3" in facts["decoding"]
    assert facts["trained on"] == "3 train, 2 dev"
    assert main(["info", str(tiny_model_dir), "--json"]) == 0
    assert ModelInfo.from_dict(json.loads(capsys.readouterr().out)) == tiny_info


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"cell": "gru", "layers": 2, "attention": "none", "gated_context": False, "image_input": "both"},
            "reader none 10, 2 x gru 12, no attention, image at start and steps, embedding 8, tied output",
        ),
        (
            {
                "reader": "bilstm",
                "attention": "general",
                "attend": "after",
                "input_feeding": True,
                "tied_output": False,
            },
            "reader bilstm 10, 1 x lstm 12, general attention after the cells, image at start, embedding 8, "
            "gated context, input feeding",
        ),
        (
            {"reader": "pyramid", "attend": "after", "sentinel": True, "value_size": 12, "image_input": "steps"},
            "reader pyramid 12, 1 x lstm 12, additive attention 6 after the cells, image at steps, embedding 8, "
            "gated context, sentinel, tied output",
        ),
    ],
)
def test_a_decoders_parts_are_told(
    tiny_info: ModelInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    write_info(tmp_path, dataclasses.replace(tiny_info, model=tiny_info.model.replace(**changes)))
    assert main(["info", str(tmp_path)]) == 0
    assert f"decoder      {told}\n" in capsys.readouterr().out


# The real thing


def test_the_command_runs_by_itself(photo: Path, letter: Path, tiny_model_dir: Path) -> None:
    command = [sys.executable, "-m", "captioner.cli", "caption", "-", str(letter), "--model", str(tiny_model_dir)]
    done = subprocess.run(command, input=photo.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(b"-\t")
    assert done.stdout.count(b"\n") == 1
    assert done.stderr.decode().startswith(f"captioner: {letter}")
    assert done.stderr.count(b"\n") == 1  # and no traceback


def test_a_reader_that_has_seen_enough_is_no_crash(tiny_model_dir: Path) -> None:
    command = [sys.executable, "-m", "captioner.cli", "info", "--json", str(tiny_model_dir)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() != 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_a_sentence(photo: Path, tiny_model_dir: Path) -> None:
    command = [sys.executable, "-m", "captioner.cli", "caption", "--model", str(tiny_model_dir), str(photo)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("captioner: cannot write the output: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--threads", "-1"], ["--port", "0"], ["--port", "65536"]])
def test_a_service_that_cannot_be_is_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *wrong]) == 2
    assert wrong[0].strip("-") in capsys.readouterr().err


@pytest.mark.parametrize("errors", ["2>&1", "2>&-"])
def test_a_stream_that_lacks_a_letter_or_is_closed_ends_nothing(tiny_model_dir: Path, photo: Path, errors: str) -> None:
    odd = photo.with_name("\u6f22\u00e9.jpg")
    shutil.copy(photo, odd)
    command = [sys.executable, "-m", "captioner.cli", "caption", "--model", str(tiny_model_dir), "--device", "cpu"]
    line = shlex.join([*command, "gone\u6f22.jpg", odd.name])
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        f"{line} {errors}", shell=True, cwd=photo.parent, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 1
    *told, said = done.stdout.splitlines()
    assert said.startswith(b"\\u6f22\xe9.jpg\t")
    assert [b"gone\\u6f22.jpg does not exist" in line for line in told] == ([True] if errors == "2>&1" else [])


def test_a_name_that_is_no_text_leaves_its_neighbours_alone(tiny_model_dir: Path, photo: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "captioner.cli",
        "caption",
        "--model",
        str(tiny_model_dir),
        b"caf\xe9.jpg",
        str(photo),
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"caf\xe9.jpg does not exist" in done.stderr
    assert done.stdout.startswith(str(photo).encode())


def test_the_service_is_started(tiny_model_dir: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "captioner.cli", "serve", "--port", str(port), "--model", str(tiny_model_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            assert {"tiny"} == {model["name"] for model in served(process, port)}
        finally:
            process.terminate()
        assert process.wait(timeout=30) == 0


def served(process: subprocess.Popen[bytes], port: int) -> list[dict[str, object]]:
    deadline, last = time.monotonic() + 60, None
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with DIRECT.open(f"http://127.0.0.1:{port}/v1/models") as reply:
                models: list[dict[str, object]] = json.load(reply)["models"]
                return models
        except OSError as error:  # not yet
            last = error
            time.sleep(0.1)
    raise AssertionError(f"the service did not answer: {last}")
