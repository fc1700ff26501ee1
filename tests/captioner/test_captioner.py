"""The captioner as its users meet it: one picture, several captions of one, a stream of them."""

from __future__ import annotations

import copy
import io
import itertools
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from installed import needs_torch
from PIL import Image

import captioner
from captioner import Caption, Captioner, DecodingOptions, ModelError, OptionError, Result
from captioner.checkpoint import ModelInfo
from captioner.engines import stack
from captioner.errors import ImageError
from captioner.images import ImageSource, load_pixels
from captioner.ngrams import NgramModel
from captioner.reading import WordReader

if TYPE_CHECKING:
    from captioner.model import CaptionModel


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Pictures that get captions of their own, of unlike lengths."""
    grey = [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)]
    flat = [Image.new("RGB", (40, 20), colour) for colour in ("red", "green", "blue", "black")]
    return [image.convert("RGB").resize((48, 36)) for image in grey] + flat


@pytest.fixture(scope="module")
def captions(tiny_captioner: Captioner, pictures: list[Image.Image]) -> list[Caption]:
    """What each picture gets by itself."""
    alone = [tiny_captioner(picture) for picture in pictures]
    assert len({caption.text for caption in alone}) >= 4, "the tests of order need captions that differ"
    assert len({len(caption.tokens) for caption in alone}) >= 3
    return alone


def assert_same(found: Caption, expected: Caption) -> None:
    assert (found.text, found.tokens, found.model) == (expected.text, expected.tokens, expected.model)
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    assert found.token_scores == pytest.approx(expected.token_scores, abs=1e-4)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-4)


# One picture


def test_a_caption_is_whole_and_consistent(tiny_captioner: Captioner, pictures: list[Image.Image]) -> None:
    found = (tiny_captioner(picture, beam_size=4, length_penalty=0.5) for picture in pictures)
    caption = next(caption for caption in found if 0 < len(caption.tokens) < 8)  # one that ended by itself
    length = len(caption.tokens)
    assert caption.text == " ".join(caption.tokens)
    assert set(caption.tokens) <= set(tiny_captioner.info.vocabulary.tokens[4:])
    assert len(caption.token_scores) == length
    assert max(caption.token_scores) <= 0
    assert caption.log_probability <= sum(caption.token_scores)  # the end symbol's is in it too
    assert caption.score == pytest.approx(caption.log_probability / (length + 1) ** 0.5, rel=1e-5)
    assert caption.model == tiny_captioner.name == "tiny"
    assert caption.attention.shape == (length, 2, 4)
    assert caption.attention.dtype == np.float32
    np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_any_source_gets_the_same_caption(tiny_captioner: Captioner, photo: Path) -> None:
    expected = tiny_captioner(photo)
    with Image.open(photo) as image, photo.open("rb") as file:
        for source in (str(photo), photo.read_bytes(), io.BytesIO(photo.read_bytes()), file, image):
            assert_same(tiny_captioner(source), expected)


def test_a_call_gives_the_best_candidate(tiny_captioner: Captioner, photo: Path) -> None:
    candidates = tiny_captioner.candidates(photo, beam_size=4, n_best=4)
    assert len(candidates) == 4
    assert len({caption.tokens for caption in candidates}) == 4
    assert_same(tiny_captioner(photo, beam_size=4), candidates[0])
    assert_same(tiny_captioner(photo, n_best=4), candidates[0])
    (result,) = tiny_captioner.batch([photo], beam_size=4, n_best=4)
    for found, expected in zip(result.captions, candidates, strict=True):
        assert_same(found, expected)


def test_more_captions_than_the_beam_holds_widen_it(tiny_captioner: Captioner, photo: Path) -> None:
    wide = tiny_captioner.candidates(photo, n_best=6)
    assert [caption.tokens for caption in wide] == [
        caption.tokens for caption in tiny_captioner.candidates(photo, n_best=6, beam_size=6)
    ]
    assert tiny_captioner.options(n_best=6).beam_size == 6
    assert tiny_captioner.options(n_best=2).beam_size == 3  # the model's own is wide enough
    assert len(tiny_captioner.candidates(photo, n_best=6)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 3}, "unknown option beams; there are method, beam_size, n_best"),
        ({"beam_size": 0}, "beam_size"),
        ({"beam_size": 2, "n_best": 3}, "n_best is 3 but a beam of 2"),
        ({"n_best": 101}, "n_best must be"),
        ({"n_best": "2"}, "n_best must be"),
        ({"method": "guess"}, "method must be beam or sample"),
        ({"seed": -1, "method": "sample"}, "seed"),
        ({"method": "guess", "beam_size": 2}, "method must be beam or sample"),
        ({"seed": 1}, "seed has a meaning with method=sample only"),
        ({"beam_size": 2, "method": "sample"}, "beam_size has a meaning with method=beam only"),
    ],
)
def test_an_option_without_meaning_is_refused_at_once(
    tiny_captioner: Captioner, photo: Path, options: dict[str, Any], message: str
) -> None:
    for use in (tiny_captioner, tiny_captioner.candidates):
        with pytest.raises(OptionError, match=message):
            use(photo, **options)
    with pytest.raises(OptionError, match=message):  # before the first picture is asked for
        tiny_captioner.batch(iter([photo]), **options)


def test_options_change_what_they_name_and_nothing_else(tiny_captioner: Captioner) -> None:
    own = tiny_captioner.info.decoding
    assert tiny_captioner.options() == own == DecodingOptions(max_length=8)
    assert tiny_captioner.options(**own.to_dict()) == own  # also what the method ignores
    assert tiny_captioner.options(length_penalty=0.3, beam_size=5) == own.replace(length_penalty=0.3, beam_size=5)


def test_an_option_reaches_the_search(tiny_captioner: Captioner, photo: Path) -> None:
    assert len(tiny_captioner(photo, max_length=2).tokens) <= 2
    drawn = [tiny_captioner(photo, method="sample", temperature=5, seed=seed).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_picture_that_cannot_be_read_is_an_error_of_its_own(tiny_captioner: Captioner, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        tiny_captioner(tmp_path / "nowhere.jpg")
    assert caught.value.code == "image_not_found"


# Streams


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_a_batch_says_what_each_picture_gets_by_itself(
    tiny_captioner: Captioner, pictures: list[Image.Image], captions: list[Caption], batch_size: int
) -> None:
    results = list(tiny_captioner.batch(pictures, batch_size=batch_size))
    for result, picture, expected in zip(results, pictures, captions, strict=True):
        assert result.image is picture
        assert result.error is None
        assert_same(result.captions[0], expected)


def test_a_bad_picture_leaves_its_neighbours_alone(
    tiny_captioner: Captioner, pictures: list[Image.Image], captions: list[Caption], tmp_path: Path
) -> None:
    sources: list[ImageSource] = [b"no picture", *pictures[:3], tmp_path / "nowhere.jpg", pictures[3], b""]
    for batch_size in (1, 3, 10):
        results = list(tiny_captioner.batch(sources, batch_size=batch_size))
        codes = [result.error.code if result.error else None for result in results]
        assert codes == ["not_an_image", None, None, None, "image_not_found", None, "not_an_image"]
        assert [bool(result.captions) for result in results] == [code is None for code in codes]
        for index, expected in zip((1, 2, 3, 5), captions, strict=False):
            assert_same(results[index].captions[0], expected)


def test_a_batch_of_bad_pictures_alone_is_no_crash(tiny_captioner: Captioner) -> None:
    assert [result.captions for result in tiny_captioner.batch([b"a", b"b", b"c"], batch_size=2)] == [(), (), ()]
    assert list(tiny_captioner.batch([])) == []


def test_a_stream_is_read_no_further_ahead_than_the_next_batch(
    tiny_captioner: Captioner, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, read_meanwhile = 0, threading.Event()
    network = tiny_captioner.caption_pixels

    def many() -> Iterator[Image.Image]:
        nonlocal taken
        for picture in pictures * 3:
            taken += 1
            if taken % 3 == 0:
                read_meanwhile.set()
            yield picture

    def caption(*arguments: Any, **settings: Any) -> list[list[Caption]]:
        read_meanwhile.clear()
        if taken % 3 != 0:
            assert read_meanwhile.wait(20), "while the network reads a batch, the next is read"
        return network(*arguments, **settings)

    monkeypatch.setattr(tiny_captioner, "caption_pixels", caption)
    results = tiny_captioner.batch(many(), batch_size=3)
    time.sleep(0.1)
    assert taken == 0
    for number in range(7):
        next(results)
        time.sleep(0.1)
        assert taken == (number // 3 + 2) * 3


def test_a_picture_is_decoded_while_the_network_reads_the_batch_before(
    tiny_captioner: Captioner, pictures: list[Image.Image], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, load = tiny_captioner.caption_pixels, captioner.captioner.load_pixels
    decoded: set[Path] = set()
    paths = [photo.with_name(f"{number}.jpg") for number in range(6)]
    for path in paths:
        path.write_bytes(photo.read_bytes())

    def decode(path: Path, *arguments: Any) -> Any:
        pixels = load(path, *arguments)
        decoded.add(path)
        return pixels

    def caption(*arguments: Any, **settings: Any) -> list[list[Caption]]:
        deadline = time.monotonic() + 20
        while len(decoded) % 4 != 0 and len(decoded) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return network(*arguments, **settings)

    monkeypatch.setattr(captioner.captioner, "load_pixels", decode)
    monkeypatch.setattr(tiny_captioner, "caption_pixels", caption)
    results = tiny_captioner.batch(paths, batch_size=2)
    next(results)
    assert decoded == set(paths[:4])
    assert [result.image for result in results] == paths[1:]


def test_a_stream_that_breaks_off_gives_what_came_before(
    tiny_captioner: Captioner, pictures: list[Image.Image], captions: list[Caption]
) -> None:
    def breaking_off() -> Iterator[ImageSource]:
        yield from pictures[:4]
        raise ConnectionError("the camera is gone")

    found = []
    results = tiny_captioner.batch(breaking_off(), batch_size=3)
    for _ in range(4):
        found.append(next(results).captions[0])
    with pytest.raises(ConnectionError, match="camera"):
        next(results)
    for caption, expected in zip(found, captions[:4], strict=True):
        assert_same(caption, expected)


def test_a_file_is_read_before_the_next_is_asked_for(tiny_captioner: Captioner, photo: Path) -> None:
    """So each may be closed then, one file may come twice, and a buffer be used again."""
    expected = tiny_captioner(photo)

    def files() -> Iterator[ImageSource]:
        for _ in range(3):
            with photo.open("rb") as file:
                yield file
                yield file
            with Image.open(photo) as image:
                yield image
        buffer = bytearray(photo.read_bytes())
        yield buffer
        buffer[:] = bytes(len(buffer))

    results = list(tiny_captioner.batch(files(), batch_size=4))
    assert len(results) == 10
    for result in results:
        assert result.error is None
        assert_same(result.captions[0], expected)


def test_a_stream_without_end_may_be_left(tiny_captioner: Captioner, photo: Path) -> None:
    results = tiny_captioner.batch(itertools.repeat(photo), batch_size=2)
    assert [next(results).image for _ in range(3)] == [photo] * 3
    before = [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert before
    del results
    for thread in before:
        thread.join(20)
        assert not thread.is_alive()


def test_a_single_path_is_no_stream_of_pictures(tiny_captioner: Captioner) -> None:
    with pytest.raises(OptionError, match="images must be a list or stream"):
        tiny_captioner.batch("photo.jpg")


def test_a_batch_holds_a_picture_at_least(tiny_captioner: Captioner) -> None:
    with pytest.raises(OptionError, match="batch_size"):
        tiny_captioner.batch([], batch_size=0)


def test_prepared_pixels_are_captioned_without_pictures(
    tiny_captioner: Captioner, pictures: list[Image.Image], captions: list[Caption]
) -> None:
    pixels = [load_pixels(picture, tiny_captioner.info.image) for picture in pictures[:2]]
    found = tiny_captioner.caption_pixels(pixels, tiny_captioner.options())
    for (caption,), expected in zip(found, captions, strict=False):
        assert_same(caption, expected)
    assert tiny_captioner.caption_pixels([], tiny_captioner.options()) == []


def test_options_may_differ_within_a_batch(tiny_captioner: Captioner, pictures: list[Image.Image]) -> None:
    pixels = [load_pixels(picture, tiny_captioner.info.image) for picture in pictures]
    kinds = [{}, {"n_best": 2}, {"max_length": 2}, {"method": "sample", "temperature": 5, "seed": 3, "n_best": 2}]
    chosen = [tiny_captioner.options(**kinds[index % 4]) for index in range(len(pixels))]
    found = tiny_captioner.caption_pixels(pixels, chosen)
    for one, options, captions in zip(pixels, chosen, found, strict=True):
        alone = tiny_captioner.caption_pixels([one], options)[0]
        assert len(captions) == options.n_best
        for caption, expected in zip(captions, alone, strict=True):
            assert_same(caption, expected)


def test_a_seed_draws_the_same_whatever_the_neighbours(tiny_captioner: Captioner, pictures: list[Image.Image]) -> None:
    options = tiny_captioner.options(method="sample", temperature=5, seed=1)
    pixels = [load_pixels(picture, tiny_captioner.info.image) for picture in pictures]
    together = tiny_captioner.caption_pixels(pixels, options)
    for one, (caption,) in zip(pixels, together, strict=True):
        assert_same(caption, tiny_captioner.caption_pixels([one], options)[0][0])


# Rows and sentences


def a_caption(text: str) -> Caption:
    return Caption(text, tuple(text.split()), -2.5, -0.123456, (-0.5,), np.zeros((1, 2, 4), np.float32), "tiny")


@pytest.mark.parametrize(
    ("text", "sentence"), [("a dog runs", "A dog runs."), ("2 dogs", "2 dogs."), ("äh", "Äh."), ("x", "X."), ("", "")]
)
def test_a_sentence_has_a_capital_and_a_stop(text: str, sentence: str) -> None:
    assert a_caption(text).sentence == sentence


def test_phones_are_read_as_words(tiny_captioner: Captioner, pictures: list[Image.Image]) -> None:
    """The tiny model's words stand for phones here, and their capitals for what these read like."""
    lexicon = {token.upper(): [(token,)] for token in tiny_captioner.info.vocabulary.tokens}
    reader = WordReader(lexicon, NgramModel.learn([list(lexicon)]))
    caption = Captioner(tiny_captioner.engine, tiny_captioner.info, reader)(pictures[0])
    assert caption.text == tiny_captioner(pictures[0]).text != ""
    assert caption.words == caption.text.upper()
    assert caption.sentence == f"{caption.words}."
    assert caption.to_row() == tiny_captioner(pictures[0]).to_row() | {"words": caption.words}


def test_a_loaded_model_reads_if_its_directory_says_how(tiny_model_dir: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(tiny_model_dir, tmp_path / "model")
    assert captioner.load(directory, device="cpu").word_reader is None
    reader = WordReader({"dog": [("D", "AO", "G")]}, NgramModel.learn([["dog"]]))
    reader.save(directory)
    loaded = captioner.load(directory, device="cpu").word_reader
    assert loaded is not None
    assert loaded.read(["D", "AO", "G"]) == ["dog"]


def test_rows_have_the_agreed_shape() -> None:
    first, second = a_caption("a dog"), a_caption("dogs")
    rows = [{"text": "a dog", "tokens": ["a", "dog"], "score": -0.1235}]
    assert first.to_row() == rows[0]
    rows.append({"text": "dogs", "tokens": ["dogs"], "score": -0.1235})

    row = Result("pictures/dog.jpg", "tiny", captions=(first, second)).to_row()
    assert list(row) == ["image", "model", "captions"]
    assert row == {"image": "pictures/dog.jpg", "model": "tiny", "captions": rows}
    assert json.loads(json.dumps(row)) == row
    assert Result(Path("dog.jpg"), "tiny", captions=(first,)).to_row()["image"] == "dog.jpg"
    assert Result(b"bytes", "tiny", captions=(first,)).to_row() == {"model": "tiny", "captions": rows[:1]}

    error = ImageError("dog.jpg does not exist; check the path", code="image_not_found")
    failed = Result("dog.jpg", "tiny", error=error).to_row()
    assert failed == {"image": "dog.jpg", "error": str(error), "code": "image_not_found"}
    assert list(Result(b"bytes", "tiny", error=error).to_row()) == ["error", "code"]


# Loading


@needs_torch
def test_a_directory_is_loaded_with_the_engine_asked_for(tiny_model_dir: Path) -> None:
    model = captioner.load(str(tiny_model_dir), engine="torch", device="cpu", precision="bf16")
    assert model.engine.name == "torch cpu bf16"
    assert model.name == "tiny"


def test_what_cannot_be_loaded_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        captioner.load(tmp_path)
    assert caught.value.code == "model_not_found"
    with pytest.raises(OptionError, match="precision"):
        captioner.load(tiny_model_dir, precision="int3")


def test_damaged_weights_are_told_and_not_passed_over(
    tiny_model: CaptionModel, tiny_info: ModelInfo, photo: Path
) -> None:
    from captioner.engines.torch_engine import TorchEngine

    damaged = copy.deepcopy(tiny_model)
    damaged.output.bias.data.fill_(float("nan"))
    model = Captioner(TorchEngine(damaged, device="cpu"), tiny_info)
    with pytest.raises(ModelError, match="its weights are damaged"):
        model(photo)


def test_the_public_face_is_all_there() -> None:
    for name in captioner.__all__:
        assert hasattr(captioner, name)


def test_pixels_are_stacked_where_they_are_several() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 3, 4, 5), dtype=np.float32)
    together = stack([one, other])
    np.testing.assert_array_equal(together, [one, other])
    assert stack(together) is together
    assert np.shares_memory(stack([one]), one)
    assert stack([one]).shape == (1, 3, 4, 5)
