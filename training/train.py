"""Train a model from a recipe: ``python -m training.train --recipe words --data DIR --output DIR``.

The best model so far lies in ``OUTPUT/model``, ready for ``captioner.load``; :mod:`training.run_folder` says what else
the folder holds. An interrupted run goes on with ``--resume``, exactly as if nothing had happened.

Under ``torchrun`` several processes train one model together, see :mod:`training.replicas`.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo, read_info
from captioner.encoder import GridEncoder
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import CaptionerError, DataError, OptionError
from captioner.model import CaptionModel
from captioner.results import Caption
from captioner.tokens import make_tokenizer
from training import distributed
from training.autocast import autocast
from training.batching import Corpus, make_batches
from training.cider import CiderScorer
from training.datasets import Example
from training.distillation import Teachers
from training.expectation import add_expectation
from training.features import Views, cached_features, default_cache
from training.inputs import Features, Inputs, Pictures, prefetch
from training.loss import Likelihood, Objective
from training.optimizer import Learner
from training.predict import predict, reference_tokens
from training.recipe import Recipe, Stage, load_recipe
from training.run_folder import Progress, RunFolder
from training.scst import Reward, SelfCritical
from training.start import first_model, prepare


def train(recipe: Recipe, data: Path, output: Path, *, cache: Path, resume: bool = False) -> Progress:
    """Run all stages of ``recipe``; called by all processes, where there are several.

    Args:
        recipe: what to train.
        data: a dataset with a train and a dev split, see :mod:`training.datasets`.
        output: the run's folder.
        cache: where encoder features and teachers' predictions are kept.
        resume: go on where the run in ``output`` was interrupted.

    Raises:
        DataError: the data is incomplete or too little, ``output`` holds another run, a model to start from or to
            learn from does not fit, or the processes were given different things.
        OptionError: the recipe asks for an architecture that there is not, or for more evaluations of an epoch than it
            has batches, or its rates let the loss explode.
        ModelError: a model to start from or to learn from is broken or not there.
        WeightsError: the encoder's pretrained weights do not fit or cannot be had.
    """
    dataset, corpus, info = distributed.agreed(partial(prepare, recipe, data))
    score = CiderScorer(reference_tokens(dataset["dev"], make_tokenizer(recipe.tokenizer)))
    distributed.require_same("recipes", recipe)
    distributed.require_same("training data", (corpus.vocabulary.tokens, corpus.encoded, len(dataset["dev"])))
    folder = RunFolder(output, recipe)
    saved = folder.open(resume=resume)
    progress = Progress(**saved["progress"]) if saved else Progress()
    if saved and len(saved["model"]["embedding.weight"]) != len(corpus.vocabulary):
        raise DataError(f"{output} was begun with other data: its vocabulary has another size")

    model = first_model(recipe, info, begun=saved is not None)

    def rate(network: CaptionModel) -> float:
        """Its dev CIDEr."""
        said = [caption.tokens for caption in say(network, info, dataset["dev"])]
        return distributed.from_main(lambda: score(said))

    if recipe.start and not saved:  # a run must not end with less than it began with
        progress.best = rate(model)
        folder.save_best(model, info)

    with SummaryWriter(str(folder.tensorboard)) if distributed.is_main() else nullcontext() as board:
        while progress.stage < len(recipe.stages):
            stage = recipe.stages[progress.stage]
            if progress.stage > 0:
                model.load_state_dict(folder.stage_start(progress.stage))
            learner = Learner(model, recipe, stage)
            if saved and progress.begun:  # resumed within this stage
                learner.restore(saved)
            inputs = make_inputs(stage, model.encoder, corpus.images, info, cache)
            objective = make_objective(stage, model, recipe, corpus, cache)

            while progress.epoch < stage.epochs and progress.stale < recipe.patience:
                started = time.monotonic()
                loss = run_part(learner, inputs, corpus.encoded, objective, recipe, progress, board)
                cider = rate(learner.average)
                if board:
                    board.add_scalar("dev/CIDEr", cider, len(progress.history))

                where = {"stage": progress.stage, "epoch": progress.epoch, "part": progress.part}
                seconds = round(time.monotonic() - started, 1)
                progress.history.append(where | {"loss": loss, "dev_cider": cider, "seconds": seconds})
                progress.finish_part(stage.evaluations)
                if cider > progress.best:
                    progress.best, progress.stale = cider, 0
                    folder.save_best(learner.average, info)
                folder.save(progress, **learner.states())
                if distributed.is_main():
                    place = " ".join(f"{name} {number}" for name, number in where.items())
                    tqdm.write(f"{place}: loss {loss:.4f}, dev CIDEr {cider:.4f}")
            progress.finish_stage()
    if recipe.decoding.rank == "cider":
        distributed.from_main(lambda: expect(folder.model, dataset["train"]))
    return progress


def expect(model: Path, examples: Sequence[Example]) -> None:
    """Teach the finished model what CIDEr to expect, unless it has learnt that."""
    if read_info(model).decoding.rank != "cider":
        add_expectation(model, examples)


def run_part(
    learner: Learner,
    inputs: Inputs,
    captions: Sequence[Sequence[Sequence[int]]],
    objective: Objective,
    recipe: Recipe,
    progress: Progress,
    board: SummaryWriter | None,
) -> float:
    """Learn from the next part of an epoch; the dev split is captioned after each.

    All randomness, dropout included, follows from the recipe's seed and the part's place: a resumed run needs no
    generator's state. Of several processes the first draws what it would draw alone; all have the same batches.

    Returns:
        The mean loss of the part's batches, over all processes.

    Raises:
        OptionError: the epoch has fewer batches than parts, or the loss is no number any more.
    """
    stage = recipe.stages[progress.stage]
    epoch = (recipe.seed, progress.stage, progress.epoch)
    batches = make_batches(
        captions,
        images_per_batch=stage.images_per_batch,
        captions_per_image=stage.captions_per_image,
        random=np.random.default_rng(epoch),
        every_caption=stage.objective == "likelihood",
    )
    if len(batches) < stage.evaluations:
        raise OptionError(
            f"Stage.evaluations is {stage.evaluations}, but an epoch has {len(batches)} batches: take fewer"
        )
    batches = batches[progress.part :: stage.evaluations]
    own = (distributed.rank(),) if distributed.rank() else ()
    of_torch, of_inputs = np.random.SeedSequence((*epoch, progress.part), spawn_key=own).generate_state(2)
    torch.manual_seed(int(of_torch))
    random = np.random.default_rng(of_inputs)
    device = next(learner.model.parameters()).device
    learner.model.train()
    total = 0.0
    # One batch is read and augmented ahead, in its own thread: the generator is used by that thread alone.
    shares = (batch.share() for batch in batches)
    loaded = prefetch(lambda batch: (batch, inputs.load(batch.images, random)), shares)
    what, quiet = f"stage {progress.stage} epoch {progress.epoch}", not distributed.is_main()
    shown = tqdm(loaded, total=len(batches), desc=what, leave=False, disable=quiet)
    for number, (batch, pictures) in enumerate(shown):
        over = number / len(batches)
        done = (progress.epoch + (progress.part + over) / stage.evaluations) / stage.epochs
        grid = partial(inputs.grid, learner.model, pictures.to(device, non_blocking=True), stage.accumulate)
        with autocast(device):
            loss = learner.measure(partial(objective, grid, batch, done))
        measured = distributed.average(loss.item())
        if not math.isfinite(measured):
            raise OptionError("the loss is no number any more: lower the recipe's learning rates")
        learner.learn(loss, done)
        total += measured
        shown.set_postfix(loss=f"{total / (number + 1):.3f}")
        if number % 20 == 0:
            figures = {"loss": loss.item(), "learning_rate": learner.rate, **objective.figures}
            for name, own_figure in figures.items():
                figure = distributed.average(own_figure)
                if board:
                    # In thousandths of an evaluation: how many batches lie between two differs from stage to stage.
                    board.add_scalar(f"train/{name}", figure, round(1000 * (len(progress.history) + over)))
    return total / len(batches)


def make_inputs(stage: Stage, encoder: GridEncoder, images: Sequence[Path], info: ModelInfo, cache: Path) -> Inputs:
    """Cached features where the encoder or a part of it stays as it is, pictures where all of it learns."""
    if stage.train_encoder and not stage.frozen:
        return Pictures(images, info.image, stage.augmentation)
    views = Views(stage.views, stage.augmentation)
    features = distributed.first_of_machine_first(
        lambda: cached_features(encoder, images, info.image, cache, node=stage.frozen, views=views)
    )
    mirror = info.model.grid_rows if stage.flip and not stage.views else 0
    return Features(features, node=stage.frozen, mirror=mirror)


def make_objective(stage: Stage, model: CaptionModel, recipe: Recipe, corpus: Corpus, cache: Path) -> Objective:
    """What the batches of ``stage`` are measured by; where there are teachers, they predict first."""
    if stage.objective == "reward":
        reward = Reward(corpus.captions, corpus.vocabulary)
        return SelfCritical(model, reward, stage, label_smoothing=recipe.label_smoothing)
    teachers = None
    if stage.distillation:
        teachers = distributed.first_of_machine_first(
            lambda: Teachers(recipe.teachers, corpus.images, corpus.encoded, corpus.vocabulary, cache)
        )
    return Likelihood(model, stage, label_smoothing=recipe.label_smoothing, teachers=teachers)


def say(model: CaptionModel, info: ModelInfo, examples: Sequence[Example]) -> list[Caption]:
    """The captions of a model that goes on learning: a copy of it says them."""
    engine = TorchEngine(copy.deepcopy(model), device=str(next(model.parameters()).device))
    return predict(Captioner(engine, info), examples)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train a model from a recipe.")
    parser.add_argument("--recipe", required=True, help="a shipped recipe by name, or a TOML file")
    parser.add_argument("--data", required=True, type=Path, help="dataset: Flickr8k in any layout, or JSONL")
    parser.add_argument("--output", required=True, type=Path, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where encoder features are kept")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override a recipe field; dots lead inside"
    )
    arguments = parser.parse_args(argv)
    try:
        with distributed.group():
            recipe = distributed.agreed(partial(load_recipe, arguments.recipe, arguments.set))
            progress = train(recipe, arguments.data, arguments.output, cache=arguments.cache, resume=arguments.resume)
            if distributed.is_main():
                print(f"best dev CIDEr {progress.best:.4f}; the model is in {arguments.output / 'model'}")
    except (CaptionerError, OSError) as error:
        distributed.complain("training", error)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        if distributed.is_main():
            print("training: stopped; --resume goes on after the last evaluation", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
