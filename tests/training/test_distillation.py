"""Teachers' predictions are the teachers' own, each in its place, and a student takes them on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import captioner
from captioner.checkpoint import load_model, read_info, save_model, write_info
from captioner.engines import FloatArray
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import DataError, ModelError
from captioner.images import load_pixels
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary
from training import autocast as precision
from training import distillation
from training.batching import Batch, Corpus, make_batches, make_corpus
from training.datasets import Example
from training.distillation import Teachers
from training.loss import SoftTargets
from training.recipe import Recipe, Stage
from training.train import train

PAD = Vocabulary.pad


@pytest.fixture(autouse=True)
def _in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda _: False)


@pytest.fixture
def corpus(toy_recipe: Recipe, toy_examples: dict[str, list[Example]]) -> Corpus:
    return make_corpus(toy_examples["train"], toy_recipe)


@pytest.fixture
def models(toy_run: Path, learnt_run: Path) -> list[str]:
    """Two of one vocabulary: the first hardly knows anything."""
    return [str(toy_run / "model"), str(learnt_run / "model")]


def ask(directories: Sequence[str], corpus: Corpus, cache: Path) -> Teachers:
    return Teachers(directories, corpus.images, corpus.encoded, corpus.vocabulary, cache)


def batch_of(corpus: Corpus, captions_per_image: int = 3) -> Batch:
    """All captions, two of each image and empty places beside them, in no order."""
    (batch,) = make_batches(
        corpus.encoded, images_per_batch=12, captions_per_image=captions_per_image, random=np.random.default_rng(3)
    )
    return batch


def dense(soft: SoftTargets, vocabulary: Vocabulary) -> FloatArray:
    """(N, T, V)."""
    empty = torch.zeros(*soft.tokens.shape[:2], len(vocabulary))
    return np.asarray(empty.scatter_add_(-1, soft.tokens, soft.probabilities).numpy())


def by_steps(directory: str, image: Path, caption: Sequence[int]) -> FloatArray:
    """(T, V) what a model expects behind each token of a caption, asked step by step as a search would."""
    model = captioner.load(directory, engine="torch")
    engine = model.engine
    grid = engine.encode(load_pixels(image, model.info.image)[None])
    state, expected = engine.start(grid), []
    for token in caption[:-1]:
        candidates, state, _ = engine.step(np.array([token]), state, grid)
        expected.append(np.exp(candidates.log_probs[0]))
    return np.array(expected)


@pytest.mark.parametrize("candidates", [24, 5])
@pytest.mark.parametrize("which", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["one", "the other", "both"])
def test_predictions_are_the_teachers_mean(
    models: list[str],
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    candidates: int,
    which: slice,
) -> None:
    monkeypatch.setattr(distillation, "CANDIDATES", candidates)
    monkeypatch.setattr(distillation, "IMAGES", 5)
    batch = batch_of(corpus)
    soft = ask(models[which], corpus, tmp_path)(batch)
    assert soft.tokens.shape[-1] == min(candidates, len(corpus.vocabulary))
    found = dense(soft, corpus.vocabulary)
    for row in (0, 1, 2, 3, 10, 20, 30, 35):
        image, number = batch.images[row // 3], batch.captions[row]
        if number < 0:
            assert not found[row].any(), "of a place without a caption, nothing is expected"
            continue
        caption = corpus.encoded[image][number]
        mean = np.mean([by_steps(model, corpus.images[image], caption) for model in models[which]], axis=0)
        dropped = np.argsort(mean, axis=1)[:, : mean.shape[1] - candidates] if candidates < mean.shape[1] else None
        if dropped is not None:
            np.put_along_axis(mean, dropped, 0, axis=1)
            assert (mean > 0).sum(axis=1).max() == candidates
        mean /= mean.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found[row, : len(mean)], mean, atol=1e-3)
        assert not found[row, len(mean) :].any(), "nor where there is padding"
    assert (batch.captions < 0).any()


def test_every_caption_has_predictions_of_its_own(models: list[str], corpus: Corpus, tmp_path: Path) -> None:
    batch = batch_of(corpus)
    found = dense(ask(models[1:], corpus, tmp_path)(batch), corpus.vocabulary)
    real = (batch.tokens[:, 1:] != PAD).numpy()
    np.testing.assert_allclose(found.sum(axis=-1), real, atol=2e-3)
    # The model has learnt its captions by heart: behind the first word, which tells them apart, it expects what comes.
    likeliest = found.argmax(axis=-1)
    right = (likeliest == batch.tokens[:, 1:].numpy())[:, 1:][real[:, 1:]]
    assert right.mean() > 0.9


def test_captions_that_were_cut_have_predictions_for_what_is_left(
    models: list[str], toy_recipe: Recipe, toy_examples: dict[str, list[Example]], tmp_path: Path
) -> None:
    corpus = make_corpus(toy_examples["train"], toy_recipe.replace(max_tokens=3))
    batch = batch_of(corpus)
    found = dense(ask(models[1:], corpus, tmp_path)(batch), corpus.vocabulary)
    np.testing.assert_allclose(found.sum(axis=-1), batch.tokens[:, 1:] != PAD, atol=2e-3)


def test_another_vocabulary_cannot_teach(
    models: list[str], corpus: Corpus, tmp_path: Path, tiny_model_dir: Path
) -> None:
    with pytest.raises(DataError, match=r"the teacher \S*tiny has another vocabulary: train it on this data"):
        ask([models[0], str(tiny_model_dir)], corpus, tmp_path)
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        ask(["nowhere"], corpus, tmp_path)
    assert not list(tmp_path.iterdir())


def test_predictions_are_made_once(
    models: list[str], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "new" / "cache"
    first = ask(models, corpus, cache)(batch_of(corpus))
    assert [path.suffix for path in cache.iterdir()] == [".npy"]

    def refuse(*_: object) -> None:
        raise AssertionError("the teachers were asked again")

    monkeypatch.setattr(TorchEngine, "encode", refuse)
    again = ask(models, corpus, cache)(batch_of(corpus))
    for mine, theirs in zip(first, again, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("change", ["a weight", "the picture size", "a teacher more", "a caption", "a picture"])
def test_any_change_makes_new_predictions(
    models: list[str], corpus: Corpus, toy_data: Path, tmp_path: Path, change: str
) -> None:
    cache = tmp_path / "cache"
    teacher = shutil.copytree(models[0], tmp_path / "teacher")
    pictures = shutil.copytree(toy_data / "train", tmp_path / "pictures")
    corpus = replace(corpus, images=[pictures / image.name for image in corpus.images])
    teachers = [str(teacher)]
    ask(teachers, corpus, cache)
    if change == "a weight":
        model, info = load_model(teacher)
        with torch.no_grad():
            model.output.bias[4] += 0.5
        save_model(teacher, model, info)
    elif change == "the picture size":
        info = read_info(teacher)
        write_info(teacher, replace(info, image=info.image.replace(mean=(0.5, 0.5, 0.5))))
    elif change == "a teacher more":
        teachers.append(models[1])
    elif change == "a caption":
        corpus = replace(corpus, encoded=[corpus.encoded[0][::-1], *corpus.encoded[1:]])
    else:
        shutil.copyfile(corpus.images[1], corpus.images[0])
    ask(teachers, corpus, cache)
    assert len(list(cache.iterdir())) == 2


def test_what_a_teacher_says_of_itself_beside_its_network_does_not_count(
    models: list[str], corpus: Corpus, tmp_path: Path
) -> None:
    teacher = shutil.copytree(models[0], tmp_path / "teacher")
    ask([str(teacher)], corpus, tmp_path / "cache")
    write_info(teacher, replace(read_info(teacher), name="other", figures={"dev": {"scores": {"CIDEr": 1.0}}}))
    ask([str(teacher)], corpus, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_interruption_leaves_nothing_behind(
    models: list[str], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(models[:1], corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []


def divergence(student: CaptionModel, soft: SoftTargets, corpus: Corpus, recipe: Recipe, batch: Batch) -> float:
    """Mean over steps of the Kullback-Leibler divergence of a student from its teachers, in nats."""
    student.eval()
    pixels = torch.from_numpy(np.stack([load_pixels(corpus.images[image], recipe.image) for image in batch.images]))
    with torch.no_grad():
        log_probs = student(student.encode(pixels), batch.tokens[:, :-1])[0].log_softmax(dim=-1)
    ours = log_probs.gather(-1, soft.tokens)
    terms = torch.where(soft.probabilities > 0, soft.probabilities * (soft.probabilities.log() - ours), 0.0)
    return float(terms.sum(dim=-1)[batch.tokens[:, 1:] != PAD].mean())


def test_a_student_becomes_like_its_teacher_and_unlike_the_captions(
    models: list[str], corpus: Corpus, toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    """The student knows the captions by heart, the teacher hardly at all: only the teacher can pull it to itself."""
    teacher, start = models
    stage = Stage(epochs=10, images_per_batch=4, captions_per_image=2, decoder_rate=5e-3, flip=False, distillation=1.0)
    recipe = toy_recipe.replace(
        start=start, teachers=(teacher,), stages=(stage,), dropout=0.0, average_decay=0.0, patience=10
    )
    batch = batch_of(corpus, captions_per_image=2)
    soft = ask([teacher], corpus, tmp_path / "cache")(batch)
    before = divergence(load_model(start)[0], soft, corpus, recipe, batch)
    history = train(recipe, toy_data, tmp_path / "run", cache=toy_cache).history

    student = load_model(start)[0]
    student.load_state_dict(torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"])
    after = divergence(student, soft, corpus, recipe, batch)
    assert before > 0.5
    assert after < 0.2 * before
    assert history[-1]["loss"] < history[0]["loss"]
