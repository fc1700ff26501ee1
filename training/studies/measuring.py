"""What a study notes of each of its models: quality, wording, size and time."""

from __future__ import annotations

import contextlib
import platform
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import captioner
from captioner.checkpoint import load_model, read_info
from captioner.config import ModelConfig
from captioner.cores import processor
from captioner.decoding import DecodingOptions, decode
from captioner.decoding.expectation import Expectation
from captioner.engines.torch_engine import TorchEngine, pick_device
from captioner.images import load_pixels
from captioner.model import skeleton
from training.datasets import read_dataset
from training.evaluate import evaluate

SPLIT = "dev"
TIMED = 100  # pictures whose captioning is timed
KEPT = ("split", "images", "tokenizer", "decoding", "scores", "diction")


def measure(model: Path, data: Path, options: DecodingOptions, tokenizer: str) -> dict[str, Any]:
    """Figures of a model on the dev split.

    Args:
        model: a model directory.
        data: a dataset, see :mod:`training.datasets`.
        options: of decoding, whatever the model's own are.
        tokenizer: see :func:`training.metrics.score`.

    Returns:
        What :func:`training.evaluate.evaluate` finds, predictions apart; ``parameters`` from :func:`count_parameters`;
        ``milliseconds`` from :func:`time_captions`; ``environment``.
    """
    figures = evaluate(captioner.load(model, engine="torch"), data, SPLIT, tokenizer, **options.to_dict())
    pictures = [example.image for example in read_dataset(data, required=(SPLIT,))[SPLIT]]
    return {
        **{name: figures[name] for name in KEPT},
        "parameters": count_parameters(read_info(model).model),
        "milliseconds": time_captions(model, pictures[:TIMED], options),
        "environment": describe_environment(),
    }


def pick_tokenizer() -> str:
    """The standard's tokeniser, or where there is no Java for it, the simple one."""
    return "ptb" if shutil.which("java") else "simple"


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """The numbers that make an architecture: of the ``decoder``, reader and attention included, and of ``all``."""
    sizes = {name: parameter.numel() for name, parameter in skeleton(config).named_parameters()}
    encoder = sum(size for name, size in sizes.items() if name.startswith("encoder."))
    total = sum(sizes.values())
    return {"decoder": total - encoder, "all": total}


def time_captions(model: Path, pictures: Sequence[Path], options: DecodingOptions) -> dict[str, float]:
    """Caption pictures one by one on a single thread of the CPU.

    Returns:
        Medians in milliseconds: ``decoding`` from the encoder's features on, reader included; ``captioning`` from the
        file on. Also how many ``pictures`` and ``threads`` there were.
    """
    network, info = load_model(model)
    engine = TorchEngine(network, device="cpu")
    speaker = captioner.Captioner(engine, info, expectation=Expectation.load(model))
    decoding, captioning = [], []
    with single_thread(), torch.inference_mode():
        for picture in (pictures[0], *pictures):  # the first one warms up
            started = time.perf_counter()
            pixels = torch.from_numpy(load_pixels(picture, info.image)).unsqueeze(0)
            features = engine.model.encoder(pixels.contiguous(memory_format=torch.channels_last))
            seen = time.perf_counter()
            grid = engine.model.read(features)
            decode(engine, grid, 1, options, speaker.judges(engine.summary(grid), options))
            finished = time.perf_counter()
            decoding.append(1000 * (finished - seen))
            captioning.append(1000 * (finished - started))
    medians = {"decoding": statistics.median(decoding[1:]), "captioning": statistics.median(captioning[1:])}
    return {"pictures": len(pictures), "threads": 1} | {name: round(value, 2) for name, value in medians.items()}


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch computes on one thread as long as this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_per_epoch(history: Sequence[Mapping[str, Any]]) -> float:
    """The median over all epochs of a run; an epoch's captionings of the dev split are counted with it."""
    epochs: defaultdict[tuple[int, int], float] = defaultdict(float)
    for part in history:
        epochs[part["stage"], part["epoch"]] += part["seconds"]
    return round(statistics.median(epochs.values()), 1)


def describe_environment() -> dict[str, str | int]:
    """On what the figures were obtained."""
    return {
        "captioner": captioner.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": pick_device().type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }
