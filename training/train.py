"""Train a model from a recipe: ``python -m training.train --recipe words --data DIR --output DIR``.

The best model so far lies in ``OUTPUT/model``, ready for ``captioner.load``; :mod:`training.run_folder` says what else
the folder holds. An interrupted run goes on with ``--resume``, exactly as if nothing had happened.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo
from captioner.config import ModelConfig
from captioner.encoder import grid_shape
from captioner.engines.torch_engine import TorchEngine, pick_device
from captioner.errors import CaptionerError, DataError, OptionError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary, make_tokenizer
from training.autocast import autocast
from training.batching import encode_captions, make_batches
from training.cider import CiderScorer
from training.datasets import Example, read_dataset
from training.features import cached_features, default_cache
from training.inputs import Features, Inputs, Pictures, prefetch
from training.loss import caption_loss
from training.optimizer import make_optimizer, moving_average, schedule
from training.predict import predict, reference_tokens
from training.recipe import Recipe, Stage, load_recipe
from training.run_folder import Progress, RunFolder


def train(recipe: Recipe, data: Path, output: Path, *, cache: Path, resume: bool = False) -> Progress:
    """Run all stages of ``recipe``.

    Args:
        recipe: what to train.
        data: a dataset with a train and a dev split, see :mod:`training.datasets`.
        output: the run's folder.
        cache: where encoder features are kept.
        resume: go on where the run in ``output`` was interrupted.

    Raises:
        DataError: the data is incomplete, or ``output`` holds another run.
        OptionError: the recipe asks for an architecture that there is not, or its rates let the loss explode.
        WeightsError: the encoder's pretrained weights cannot be had.
    """
    dataset = read_dataset(data, required=("train", "dev"))
    folder, device = RunFolder(output, recipe), pick_device()
    saved = folder.open(resume=resume)
    progress = Progress(**saved["progress"]) if saved else Progress()

    tokenizer = make_tokenizer(recipe.tokenizer)
    captions = reference_tokens(dataset["train"], tokenizer)
    vocabulary = Vocabulary.build((tokens for image in captions for tokens in image), min_count=recipe.min_count)
    encoded = encode_captions(captions, vocabulary, recipe.max_tokens)
    scorer = CiderScorer(reference_tokens(dataset["dev"], tokenizer))
    info = describe(recipe, vocabulary, dataset)
    if saved and len(saved["model"]["embedding.weight"]) != len(vocabulary):
        raise DataError(f"{output} was begun with other data: its vocabulary has another size")

    torch.manual_seed(recipe.seed)
    model = CaptionModel(info.model)
    if recipe.encoder_weights:
        model.encoder.load_weights(recipe.encoder_weights)
    model.to(device).encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    with SummaryWriter(str(folder.tensorboard)) as board:
        while progress.stage < len(recipe.stages):
            stage = recipe.stages[progress.stage]
            if progress.stage > 0:
                model.load_state_dict(folder.stage_start(progress.stage))
            inputs = make_inputs(stage, model, dataset["train"], info, cache)
            optimizer = make_optimizer(model, stage, weight_decay=recipe.weight_decay)
            average = AveragedModel(model, avg_fn=partial(moving_average, recipe.average_decay))
            averaged = cast(CaptionModel, average.module)
            if saved and progress.epoch > 0:  # resumed within this stage
                model.load_state_dict(saved["model"])
                average.load_state_dict(saved["average"])
                optimizer.load_state_dict(saved["optimizer"])

            while progress.epoch < stage.epochs and progress.stale < recipe.patience:
                started = time.monotonic()
                loss = run_epoch(model, average, optimizer, inputs, encoded, recipe, progress, board)
                engine = TorchEngine(copy.deepcopy(averaged), device=str(device))
                said = predict(Captioner(engine, info), dataset["dev"])
                cider = scorer([caption.tokens for caption in said])
                board.add_scalar("dev/CIDEr", cider, len(progress.history))

                where = {"stage": progress.stage, "epoch": progress.epoch}
                seconds = round(time.monotonic() - started, 1)
                progress.history.append(where | {"loss": loss, "dev_cider": cider, "seconds": seconds})
                progress.epoch, progress.stale = progress.epoch + 1, progress.stale + 1
                if cider > progress.best:
                    progress.best, progress.stale = cider, 0
                    folder.save_best(averaged, info)
                folder.save(
                    progress,
                    model=model.state_dict(),
                    average=average.state_dict(),
                    optimizer=optimizer.state_dict(),
                )
                tqdm.write(f"stage {where['stage']} epoch {where['epoch']}: loss {loss:.4f}, dev CIDEr {cider:.4f}")
            progress.stage, progress.epoch, progress.stale = progress.stage + 1, 0, 0
    return progress


def run_epoch(
    model: CaptionModel,
    average: AveragedModel,
    optimizer: AdamW,
    inputs: Inputs,
    captions: Sequence[Sequence[Sequence[int]]],
    recipe: Recipe,
    progress: Progress,
    board: SummaryWriter,
) -> float:
    """One pass over all training captions; returns the mean loss.

    All randomness, dropout included, follows from the recipe's seed and the epoch's number: a resumed run needs no
    generator's state.
    """
    stage = recipe.stages[progress.stage]
    seed = (recipe.seed, progress.stage, progress.epoch)
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    random = np.random.default_rng(seed)
    batches = make_batches(
        captions,
        images_per_batch=stage.images_per_batch,
        captions_per_image=stage.captions_per_image,
        random=random,
    )
    device = next(model.parameters()).device
    model.train()
    total = 0.0
    # One batch is read and augmented ahead, in its own thread: the generator is used by that thread alone.
    loaded = prefetch(lambda batch: (batch, inputs.load(batch.images, random)), batches)
    shown = tqdm(loaded, total=len(batches), desc=f"stage {progress.stage} epoch {progress.epoch}", leave=False)
    for number, (batch, pictures) in enumerate(shown):
        done = progress.epoch + number / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done / stage.epochs, stage.warmup)
        with autocast(device):
            grid = inputs.grid(model, pictures.to(device, non_blocking=True))
            loss = caption_loss(
                model,
                grid,
                batch.tokens,
                label_smoothing=recipe.label_smoothing,
                attention_penalty=stage.attention_penalty,
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        average.update_parameters(model)
        total += loss.item()
        shown.set_postfix(loss=f"{total / (number + 1):.3f}")
        if number % 20 == 0:
            # In thousandths of an epoch: how many batches an epoch has differs from stage to stage.
            at = round(1000 * (len(progress.history) + number / len(batches)))
            board.add_scalar("train/loss", loss.item(), at)
            board.add_scalar("train/learning_rate", optimizer.param_groups[0]["lr"], at)
    if not math.isfinite(total):
        raise OptionError("the loss is no number any more: lower the recipe's learning rates")
    return total / len(batches)


def make_inputs(stage: Stage, model: CaptionModel, examples: Sequence[Example], info: ModelInfo, cache: Path) -> Inputs:
    """Cached features where the encoder stays as it is, pictures where it learns."""
    paths = [example.image for example in examples]
    if stage.train_encoder:
        return Pictures(paths, info.image, stage)
    return Features(cached_features(model.encoder, paths, info.image, cache), info.model.grid_rows, flip=stage.flip)


def describe(recipe: Recipe, vocabulary: Vocabulary, dataset: dict[str, list[Example]]) -> ModelInfo:
    """What the model will say of itself."""
    rows, columns, features = grid_shape(recipe.encoder, recipe.grid_node, recipe.image.height, recipe.image.width)
    shared = {name: value for name, value in recipe.to_dict().items() if name in ModelConfig.__dataclass_fields__}
    model = ModelConfig(
        vocabulary_size=len(vocabulary), grid_rows=rows, grid_columns=columns, grid_features=features, **shared
    )
    # A path of the machine that trains says nothing to others; the file's name does.
    told = recipe.replace(encoder_weights=Path(recipe.encoder_weights).name)
    return ModelInfo(
        name=recipe.name,
        model=model,
        vocabulary=vocabulary,
        tokenizer=recipe.tokenizer,
        image=recipe.image,
        decoding=recipe.decoding,
        description=recipe.description,
        provenance={
            "recipe": told.to_dict(),
            "images": {split: len(examples) for split, examples in dataset.items()},
            "captions": {split: sum(len(one.captions) for one in examples) for split, examples in dataset.items()},
            "torch": torch.__version__,
        },
    )


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
        recipe = load_recipe(arguments.recipe, arguments.set)
        progress = train(recipe, arguments.data, arguments.output, cache=arguments.cache, resume=arguments.resume)
    except (CaptionerError, OSError) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("training: stopped; --resume goes on after the last finished epoch", file=sys.stderr)
        return 1
    print(f"best dev CIDEr {progress.best:.4f}; the model is in {arguments.output / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
