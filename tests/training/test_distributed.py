"""Two processes against one: the same losses, weights and captions, whoever begins a run and whoever ends it.

The processes are started by torchrun, a few times for all tests, since that takes seconds. Dropout and augmentation are
off: each process draws its own. Arithmetic is float32's throughout.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import several
import torch
from several import ARCHITECTURES, COPIES, start, start_jobs

import captioner
from captioner.errors import DataError
from training import autocast, scst
from training import train as train_module
from training.distributed import PeerError, complain
from training.evaluate import evaluate
from training.recipe import Recipe, Stage
from training.run_folder import Progress
from training.train import train

# Shares of two and three images; a last batch of one image, which both processes take; weights behind frozen modules.
STAGES = (
    Stage(epochs=5, images_per_batch=5, decoder_rate=3e-2, attention_penalty=0.1, flip=False),
    Stage(
        epochs=1,
        images_per_batch=11,
        captions_per_image=2,
        train_encoder=True,
        decoder_rate=2e-3,
        encoder_rate=1e-3,
        flip=False,
    ),
    Stage(
        epochs=2,
        images_per_batch=6,
        train_encoder=True,
        frozen="features.2",
        views=1,
        crop=0.8,
        decoder_rate=2e-3,
        encoder_rate=1e-3,
        distillation=0.5,
        accumulate=2,
    ),
)
REWARDED = Stage(
    epochs=2,
    objective="reward",
    images_per_batch=5,
    captions_per_image=2,
    decoder_rate=5e-3,
    samples=3,
    sample_length=8,
    likelihood_share=0.3,
    flip=False,
)
# The decoder's norm takes the mean of each feature away: where the last bias of the encoder goes is rounding alone, and
# that mean goes with it.
LEFT_TO_CHANCE = ("features.4.conv.3.bias", "reader.norm.running_mean")


@pytest.fixture(scope="module", autouse=True)
def _in_full_precision() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autocast, "has_fast_bfloat16", lambda _: False)
        yield


@pytest.fixture(scope="module")
def exact(toy_recipe: Recipe, toy_run: Path) -> Recipe:
    """Without dropout."""
    return toy_recipe.replace(
        dropout=0.0, average_decay=0.5, patience=4, stages=STAGES, teachers=(str(toy_run / "model"),)
    )


@pytest.fixture(scope="module")
def rewarded(exact: Recipe, learnt_run: Path) -> Recipe:
    """A model that knows something goes on with a reward."""
    return exact.replace(start=str(learnt_run / "model"), stages=(REWARDED,), teachers=())


Job = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def job(toy_data: Path, toy_cache: Path) -> Job:
    """A training run for several processes to do."""

    def make(do: str, recipe: Recipe, output: Path, **more: Any) -> dict[str, Any]:
        places = {"data": str(toy_data), "output": str(output), "cache": str(toy_cache)}
        return {"do": do, "recipe": recipe.to_dict(), **places, **more}

    return make


@pytest.fixture(scope="module")
def alone(
    exact: Recipe, toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Progress]:
    """The run of one process. Read it only."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, train(exact, toy_data, folder, cache=toy_cache)


@pytest.fixture(scope="module")
def together(
    exact: Recipe,
    rewarded: Recipe,
    job: Job,
    alone: tuple[Path, Progress],
    learnt_run: Path,
    toy_data: Path,
    toy_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two processes have done: most of what is tested here. Read it only."""
    folder = tmp_path_factory.mktemp("together")
    interrupt(exact, toy_data, folder / "taken-over", toy_cache, evaluation=6)
    jobs = [
        {"do": "exchange", "out": str(folder / "exchange")},
        *(
            {"do": "gradients", "architecture": number, "accumulate": parts, "out": str(folder / f"{number}-{parts}")}
            for number in range(len(ARCHITECTURES))
            for parts in (1, 2)
        ),
        # With a cache of their own: they make features, views and predictions themselves.
        job("train", exact, folder / "run") | {"cache": str(folder / "cache")},
        job("train", exact, folder / "taken-over", resume=True),
        job("train_and_tell_draws", rewarded, folder / "rewarded", draws=str(folder / "draws.json")),
        {
            "do": "evaluate_model",
            "model": str(learnt_run / "model"),
            "data": str(toy_data),
            "out": str(folder / "figures"),
        },
    ]
    ran = start_jobs(folder, *jobs)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr
    return folder


def interrupt(recipe: Recipe, data: Path, folder: Path, cache: Path, *, evaluation: int) -> None:
    """Train in this process until that evaluation, counted from 0, is trained but neither done nor saved."""
    real, calls = train_module.predict, iter(range(evaluation + 1))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == evaluation:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, folder, cache=cache)


def history_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """The same curves and weights but for rounding, which an optimiser that divides by small numbers enlarges."""
    curves = [history_of(folder) for folder in (ours, theirs)]
    places = [[(row["stage"], row["epoch"], row["part"]) for row in history] for history in curves]
    assert places[0] == places[1]
    for name, tolerance in (("loss", 1e-4), ("dev_cider", 1e-3)):
        found, expected = ([row[name] for row in history] for history in curves)
        assert found == pytest.approx(expected, rel=tolerance), name
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (ours, theirs)]
    assert states[0]["progress"]["best"] == pytest.approx(states[1]["progress"]["best"], rel=1e-3)
    assert states[0]["progress"]["stale"] == states[1]["progress"]["stale"]
    for part in ("model", "average"):
        mine, yours = (
            {name: value for name, value in state[part].items() if not name.endswith(LEFT_TO_CHANCE)}
            for state in states
        )
        torch.testing.assert_close(mine, yours, rtol=1e-3, atol=1e-4)


def test_two_processes_learn_what_one_learns(together: Path, alone: tuple[Path, Progress]) -> None:
    assert_same_run(together / "run", alone[0])
    files = {path.name for path in (together / "run").iterdir()}
    assert files == {path.name for path in alone[0].iterdir()}
    assert len(list((together / "run" / "tensorboard").iterdir())) == 1, "one of them writes"


def test_one_process_begins_and_two_end(together: Path, alone: tuple[Path, Progress]) -> None:
    assert_same_run(together / "taken-over", alone[0])


def test_two_processes_are_rewarded_as_one_is_for_the_same_captions(
    together: Path,
    rewarded: Recipe,
    toy_data: Path,
    toy_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each process draws by itself; what two drew of a batch, one learns from."""
    drawn = iter(json.loads((together / "draws.json").read_text()))
    monkeypatch.setattr(
        scst, "sample_captions", lambda *_, **__: [[np.array(one) for one in image] for image in next(drawn)]
    )
    train(rewarded, toy_data, tmp_path / "run", cache=toy_cache)
    assert next(drawn, None) is None
    assert_same_run(together / "rewarded", tmp_path / "run")
    first, *_, last = (
        [sample for image in batch for sample in image] for batch in json.loads((together / "draws.json").read_text())
    )
    assert first != last


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("architecture", range(len(ARCHITECTURES)), ids=lambda number: str(ARCHITECTURES[number]))
def test_shares_give_the_gradient_of_the_whole_batch(
    together: Path, tmp_path: Path, architecture: int, parts: int
) -> None:
    """Of the decoder's weights and what its encoder gave, through the statistics of the batch; and these statistics."""
    several.gradients(architecture, 1, str(tmp_path / "alone"))
    expected = torch.load(tmp_path / "alone", weights_only=True)
    found = torch.load(together / f"{architecture}-{parts}", weights_only=True)
    assert found.keys() == expected.keys()
    assert {"features", "reader.norm.weight", "reader.norm.running_var"} < found.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def exchanged(together: Path) -> list[dict[str, Any]]:
    """What each process found."""
    return [json.loads((together / f"exchange-{place}.json").read_text()) for place in (0, 1)]


def test_each_process_has_a_place_and_a_part(exchanged: list[dict[str, Any]]) -> None:
    assert [found["place"] for found in exchanged] == [[0, 2, True], [1, 2, False]]
    assert [found["parts"] for found in exchanged] == [
        [[], [], [0, 1], [0, 1, 2]],
        [[], [0], [2, 3, 4], [3, 4, 5]],
    ]


def test_each_process_has_its_images_of_a_batch(exchanged: list[dict[str, Any]]) -> None:
    one, three = (several.make_batch(images) for images in (1, 3))
    for found, images in zip(exchanged, (slice(0, 1), slice(1, 3)), strict=True):
        rows = slice(images.start * COPIES, images.stop * COPIES)
        assert found["shares"][1] == [
            three.images[images].tolist(),
            three.captions[rows].tolist(),
            three.tokens[rows].tolist(),
        ]
        whole = [one.images.tolist(), one.captions.tolist(), one.tokens.tolist()]
        assert found["shares"][0] == whole, "none may be without any"


def test_what_is_gathered_stands_in_order_and_numbers_add_up(exchanged: list[dict[str, Any]]) -> None:
    for found in exchanged:
        assert found["gathered"] == ["0a", "1a", "1b"]
        assert found["numbers"] == [2, 0.5]
        assert found["from main"] == "of 0"


def test_a_process_counts_by_how_many_values_it_has(exchanged: list[dict[str, Any]]) -> None:
    assert sum(found["mean"] for found in exchanged) / 2 == 1, "of 0, 1 and 2, all of the second process"


def test_what_fails_for_one_fails_for_all_and_one_says_why(exchanged: list[dict[str, Any]]) -> None:
    first, second = exchanged
    assert (first["one fails"], second["one fails"]) == (
        ["PeerError", "process 1 has failed"],
        ["DataError", "1 fails"],
    )
    assert (first["all fail"], second["all fail"]) == (["DataError", "0 fails"], ["PeerError", "process 0 has failed"])
    assert (first["main fails"], second["main fails"]) == (first["all fail"], second["all fail"])
    assert first["things differ"] == ["PeerError", "process 1 has failed"]
    assert second["things differ"] == [
        "DataError",
        "process 1 has other things than process 0: give all processes the same",
    ]


def test_the_first_process_leaves_files_for_the_others(together: Path, exchanged: list[dict[str, Any]]) -> None:
    assert [found["before me"] for found in exchanged] == [[], ["was-here-0"]]
    kinds = sorted(path.name.split("-")[0] for path in (together / "cache").iterdir())
    assert kinds == ["mobilenet_v2", "mobilenet_v2", "teachers"], "whole, and made once"


def test_several_caption_a_split_as_one_does(
    together: Path, learnt_captioner: captioner.Captioner, toy_data: Path
) -> None:
    expected = evaluate(learnt_captioner, toy_data, "dev", "simple")
    images = [row["image"] for row in expected["predictions"]]
    for place in (0, 1):
        found = json.loads((together / f"figures-{place}.json").read_text())
        assert found["own"] == images[6 * place : 6 * place + 6], "each captions half of them"
        assert [row["image"] for row in found["predictions"]] == images
        assert [row["captions"][0]["text"] for row in found["predictions"]] == [
            row["captions"][0]["text"] for row in expected["predictions"]
        ]
        assert found["scores"] == pytest.approx(expected["scores"])
        assert found["images"] == 12


def test_what_another_process_says_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    complain("training", DataError("there is no data"))
    complain("training", PeerError("process 1 has failed"))
    assert capsys.readouterr().err == "training: there is no data\n"


def complaints(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """What the commands said went wrong, torchrun's own words and bars of progress apart."""
    lines = ran.stderr.splitlines()
    return [line for line in lines if line.startswith(("training:", "evaluation:", "several:"))]


@pytest.mark.slow
def test_where_one_is_killed_all_end_and_one_process_goes_on(
    exact: Recipe, job: Job, alone: tuple[Path, Progress], toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    ran = start_jobs(tmp_path, job("train_and_die", exact, tmp_path / "run", evaluation=4))
    assert ran.returncode != 0
    assert len(history_of(tmp_path / "run")) == 4
    assert all("another process of this run has ended" in line for line in complaints(ran))
    train(exact, toy_data, tmp_path / "run", cache=toy_cache, resume=True)
    assert_same_run(tmp_path / "run", alone[0])


def command(recipe: Recipe, toy_weights: Path, data: Path, output: Path, *settings: str) -> list[str]:
    arguments = ["--recipe", str(toy_weights.parent / "toy.toml"), "--data", str(data), "--output", str(output)]
    settings = (f"encoder_weights={toy_weights}", *settings)
    return [*arguments, *(part for setting in settings for part in ("--set", setting))]


def test_the_commands_under_torchrun(toy_weights: Path, toy_recipe: Recipe, toy_data: Path, tmp_path: Path) -> None:
    settings = ["stages.0.epochs=1", "stages.1.epochs=1", "stages.1.accumulate=2"]
    arguments = command(toy_recipe, toy_weights, toy_data, tmp_path / "run", *settings)
    ran = start(["-m", "training.train", *arguments, "--cache", str(tmp_path / "cache")])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("dev CIDEr") == 3, "of two evaluations and of the best, each told once"
    assert "Warning" not in ran.stderr

    measured = ["--model", str(tmp_path / "run" / "model"), "--data", str(toy_data), "--tokenizer", "simple"]
    ran = start(["-m", "training.evaluate", *measured, "--engine", "torch", "--json", str(tmp_path / "figures.json")])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("toy on 12 dev images") == 1
    assert len(json.loads((tmp_path / "figures.json").read_text())["predictions"]) == 12


@pytest.mark.slow
def test_a_broken_picture_of_one_ends_all(
    toy_weights: Path, toy_recipe: Recipe, toy_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_data, tmp_path / "data")
    (tmp_path / "data" / "train" / "red-square.png").write_bytes(b"no picture")
    settings = ["stages.0.train_encoder=true", "stages.0.encoder_rate=1e-4"]
    arguments = command(toy_recipe, toy_weights, tmp_path / "data", tmp_path / "run", *settings)
    ran = start(["-m", "training.train", *arguments, "--cache", str(tmp_path / "cache")])
    assert ran.returncode != 0
    told = [line for line in complaints(ran) if "has ended" not in line]
    assert len(told) == 1
    assert "red-square.png" in told[0]
