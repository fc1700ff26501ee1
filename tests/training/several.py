"""What tests let several processes do: ``torchrun … several.py JOBS``, a JSON file with a list of jobs, done in order.

Each job names a function of this module and its arguments. Some are called by the tests in their own process as well:
what one process finds is what several are measured by.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import captioner
from captioner.config import ModelConfig
from captioner.errors import CaptionerError, DataError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary
from training import autocast, distributed, scst
from training import train as train_module
from training.accumulation import in_parts
from training.batching import Batch
from training.evaluate import evaluate
from training.loss import Likelihood
from training.recipe import Recipe, Stage
from training.replicas import mean, replicate, synchronised

ROOT = Path(__file__).parents[2]
ARCHITECTURES: list[dict[str, Any]] = [
    {},
    {"cell": "gru", "layers": 2, "attention": "dot", "attend": "after", "value_size": 12, "tied_output": False},
    {"attend": "after", "sentinel": True, "input_feeding": True, "value_size": 12, "image_input": "steps"},
    {"attention": "none", "image_input": "both", "cell": "rnn", "gated_context": False},
    {"reader": "pyramid"},
]
BOS, EOS, PAD = Vocabulary.bos, Vocabulary.eos, Vocabulary.pad
IMAGES, COPIES = 5, 2  # shares of two and three images


def start(arguments: Sequence[str], processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run ``torchrun`` with a script or ``-m`` and a module, and wait for it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, *arguments],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=900,  # processes that wait for each other would wait for ever
    )


def start_jobs(folder: Path, *jobs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Let two processes do jobs."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    return start([__file__, str(path)])


def train(recipe: dict[str, Any], data: str, output: str, cache: str, *, resume: bool = False) -> None:
    train_module.train(Recipe.from_dict(recipe), Path(data), Path(output), cache=Path(cache), resume=resume)


def train_and_die(evaluation: int, **job: Any) -> None:
    """Train until the last process is killed amid an evaluation, counted from 0, without a word."""
    real, calls = train_module.predict, iter(range(evaluation + 1))

    def predict(*arguments: Any) -> Any:
        if next(calls) == evaluation and distributed.rank() == distributed.processes() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    train_module.predict = predict
    train(**job)


def train_and_tell_draws(draws: str, **job: Any) -> None:
    """Train, and write down what was drawn of each batch, the shares of all processes side by side."""
    real, drawn = scst.sample_captions, []

    def sample_captions(*arguments: Any, **options: Any) -> list[list[np.ndarray]]:
        samples = real(*arguments, **options)
        drawn.append(distributed.gather([[sample.tolist() for sample in image] for image in samples]))
        return samples

    scst.sample_captions = sample_captions
    try:
        train(**job)
    finally:
        scst.sample_captions = real
    if distributed.is_main():
        Path(draws).write_text(json.dumps(drawn))


def evaluate_model(model: str, data: str, out: str) -> None:
    loaded = captioner.load(model, engine="torch", device="cpu")
    real, own = loaded.batch, []

    def batch(images: list[Path], **options: Any) -> Any:
        own.extend(image.name for image in images)
        return real(images, **options)

    loaded.batch = batch  # type: ignore[method-assign]
    figures = evaluate(loaded, Path(data), "dev", "simple")
    Path(f"{out}-{distributed.rank()}.json").write_text(json.dumps(figures | {"own": own}))


def exchange(out: str) -> None:
    """Write down what each process finds by each kind of exchange."""
    me, found = distributed.rank(), {}
    found["place"] = [me, distributed.processes(), distributed.is_main()]
    found["parts"] = [list(range(count))[distributed.part_of(count)] for count in (0, 1, 5, 6)]
    found["gathered"] = distributed.gather([f"{me}{letter}" for letter in "ab"[: me + 1]])
    found["numbers"] = [distributed.total(me + 0.5), distributed.average(me)]
    found["mean"] = mean(torch.arange(3.0)[: 3 * me]).item()  # the first has nothing
    found["shares"] = [
        [share.images.tolist(), share.captions.tolist(), share.tokens.tolist()]
        for share in (make_batch(images).share() for images in (1, 3))
    ]
    found["from main"] = distributed.from_main(lambda: f"of {me}")
    distributed.require_same("things", {"a": 1})
    for name, work in {
        "one fails": lambda: fail(me == 1),
        "all fail": lambda: fail(True),
        "main fails": lambda: distributed.from_main(lambda: fail(me == 0)),
        "things differ": lambda: distributed.require_same("things", {"a": me}),
    }.items():
        try:
            if "main" in name or "differ" in name:
                work()
            else:
                distributed.agreed(work)
        except CaptionerError as error:
            found[name] = [type(error).__name__, str(error)]

    def visit() -> list[str]:
        before = sorted(path.name for path in Path(out).parent.glob("was-here-*"))
        Path(out).with_name(f"was-here-{me}").touch()
        return before

    found["before me"] = distributed.first_of_machine_first(visit)
    Path(f"{out}-{me}.json").write_text(json.dumps(found))


def fail(really: bool) -> str:
    if really:
        raise DataError(f"{distributed.rank()} fails")
    return "well"


def make_batch(images: int) -> Batch:
    """Captions of all lengths, and a place without one."""
    random = np.random.default_rng(images)
    tokens = torch.full((images * COPIES, 7), PAD)
    for row, length in enumerate(random.integers(1, 6, size=len(tokens))):
        if row != 3:
            tokens[row, : length + 2] = torch.tensor([BOS, *random.integers(4, 11, size=length), EOS])
    return Batch(np.arange(images), np.arange(len(tokens)), tokens)


def gradients(architecture: int, accumulate: int, out: str) -> None:
    """Write down the loss of one batch, its gradient and the statistics after it: by the first process."""
    config = ModelConfig(
        vocabulary_size=11,
        grid_node="features.4",
        grid_rows=2,
        grid_columns=4,
        grid_features=32,
        **{"value_size": 8, "attention_size": 6, "embedding_size": 8, "hidden_size": 12, "dropout": 0.0}
        | ARCHITECTURES[architecture],
    )
    torch.manual_seed(distributed.rank())  # other weights, which replicate() has to make the same
    model = CaptionModel(config)
    replicate(model)
    for module in model.encoder.modules():
        module.requires_grad_(False)
    batch = make_batch(IMAGES)
    features = torch.randn(IMAGES, 8, 32, generator=torch.Generator().manual_seed(0)).exp()
    features.requires_grad_(True)
    stage = Stage(epochs=1, attention_penalty=0.3, accumulate=accumulate)
    objective = Likelihood(model, stage, label_smoothing=0.1)
    measure = synchronised(model)
    share = batch.share()

    def grid() -> Any:
        (seen,) = in_parts(accumulate, lambda some: (some * 2,), features[share.images])
        return model.read(seen)

    loss = measure(partial(objective, grid, share, 0.5))
    loss.backward()
    assert features.grad is not None
    # What reaches the encoder are shares of a mean over the processes, which its own weights' gradients would take.
    reached = sum(distributed.gather([features.grad.numpy()])) / distributed.processes()
    parameters = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    buffers = {name: value for name, value in model.named_buffers() if not name.startswith("encoder.")}
    loss_of_all = torch.tensor(distributed.average(loss.item()))
    if distributed.is_main():
        torch.save({**parameters, **buffers, "features": torch.from_numpy(reached), "loss": loss_of_all}, out)


JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job for job in (train, train_and_die, train_and_tell_draws, evaluate_model, exchange, gradients)
}


def threads() -> list[str]:
    """The names of this process's, be they Python's or not; none where there is no Linux."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def main(path: str) -> int:
    autocast.has_fast_bfloat16 = lambda _: False
    torch.set_num_threads(1)
    try:
        with distributed.group():
            for job in json.loads(Path(path).read_text()):
                JOBS[job.pop("do")](**job)
        left = [name for name in threads() if "gloo" in name]
        assert not left, f"{left} outlive the group"
    except (CaptionerError, OSError) as error:
        distributed.complain("several", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
