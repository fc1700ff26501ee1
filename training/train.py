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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo
from captioner.config import ModelConfig
from captioner.encoder import grid_shape
from captioner.engines.torch_engine import TorchEngine, has_fast_bfloat16, pick_device
from captioner.errors import CaptionerError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary, make_tokenizer
from training.batching import Batch, encode_captions, make_batches
from training.cider import CiderScorer
from training.datasets import Example, read_dataset
from training.features import cached_features, default_cache
from training.inputs import Features, Inputs, Pictures, prefetch
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
        WeightsError: the encoder's pretrained weights cannot be had.
    """
    dataset = read_dataset(data, required=("train", "dev"))
    folder, device = RunFolder(output, recipe), pick_device()
    saved = folder.resume() if resume else folder.begin()
    progress = Progress(**saved["progress"]) if saved else Progress()

    tokenizer = make_tokenizer(recipe.tokenizer)
    captions = reference_tokens(dataset["train"], tokenizer)
    vocabulary = Vocabulary.build((tokens for image in captions for tokens in image), min_count=recipe.min_count)
    encoded = encode_captions(captions, vocabulary, recipe.max_tokens)
    scorer = CiderScorer(reference_tokens(dataset["dev"], tokenizer))
    info = describe(recipe, vocabulary, dataset)

    torch.manual_seed(recipe.seed)
    model = CaptionModel(info.model)
    if recipe.encoder_weights:
        model.encoder.load_weights(recipe.encoder_weights)
    model.to(device).encoder.to(memory_format=torch.channels_last)

    with SummaryWriter(str(folder.tensorboard)) as board:
        while progress.stage < len(recipe.stages):
            stage = recipe.stages[progress.stage]
            if progress.stage > 0:  # the cached features of a first stage need the encoder as it was
                model.load_state_dict(folder.load_best())
            inputs = make_inputs(stage, model, dataset["train"], info, cache)
            optimizer = make_optimizer(model, recipe, stage)
            average = AveragedModel(model, avg_fn=partial(moving_average, recipe.average_decay))
            if saved and progress.epoch > 0:
                model.load_state_dict(saved["model"])
                average.load_state_dict(saved["average"])
                optimizer.load_state_dict(saved["optimizer"])

            while progress.epoch < stage.epochs and progress.stale < recipe.patience:
                started = time.monotonic()
                loss = run_epoch(model, average, optimizer, inputs, encoded, recipe, progress, board)
                engine = TorchEngine(copy.deepcopy(average.module), device=str(device))
                said = predict(Captioner(engine, info), dataset["dev"])
                cider = scorer([caption.tokens for caption in said])
                board.add_scalar("dev/CIDEr", cider, len(progress.history))

                where = {"stage": progress.stage, "epoch": progress.epoch}
                seconds = round(time.monotonic() - started, 1)
                progress.history.append(where | {"loss": loss, "dev_cider": cider, "seconds": seconds})
                progress.epoch, progress.stale = progress.epoch + 1, progress.stale + 1
                if cider > progress.best:
                    progress.best, progress.stale = cider, 0
                    folder.save_best(average.module, info)
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
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))
    model.train()
    total = 0.0
    # One batch is read and augmented ahead, in its own thread: the generator is used by that thread alone.
    loaded = prefetch(lambda batch: (batch, inputs.load(batch.images, random)), batches)
    shown = tqdm(loaded, total=len(batches), desc=f"stage {progress.stage} epoch {progress.epoch}", leave=False)
    for number, (batch, pictures) in enumerate(shown):
        done = progress.epoch + number / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done / stage.epochs, stage.warmup)
        with autocast():
            grid = inputs.grid(model, pictures.to(device, non_blocking=True))
            loss = caption_loss(model, grid, batch, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        average.update_parameters(model)
        total += loss.item()
        shown.set_postfix(loss=f"{total / (number + 1):.3f}")
        if number % 20 == 0:
            at = int(len(progress.history) * len(batches) + number)
            board.add_scalar("train/loss", loss.item(), at)
            board.add_scalar("train/learning_rate", optimizer.param_groups[0]["lr"], at)
    return total / len(batches)


def caption_loss(model: CaptionModel, grid: tuple[Tensor, Tensor], batch: Batch, recipe: Recipe) -> Tensor:
    """Mean cross-entropy a token under teacher forcing, plus the doubly stochastic attention term."""
    tokens = batch.tokens.to(grid[0].device)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits, weights = model(grid, inputs)
    loss = F.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=Vocabulary.pad,
        label_smoothing=recipe.label_smoothing,
    )
    if recipe.attention_penalty:
        real = (targets != Vocabulary.pad).unsqueeze(-1)  # (N, T, 1)
        looked = (weights * real).sum(dim=1)  # (N, P): each position's share of all looking
        loss = loss + recipe.attention_penalty * (1 - looked).square().sum(dim=1).mean()
    return loss


def schedule(done: float, warmup: float) -> float:
    """Factor of the learning rate when a share ``done`` of the stage is over: a linear rise, then a cosine to zero."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def moving_average(decay: float, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
    """Exponential moving average; young averages forget faster, so that the first weights do not linger."""
    return average.lerp(current, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))


def make_inputs(stage: Stage, model: CaptionModel, examples: Sequence[Example], info: ModelInfo, cache: Path) -> Inputs:
    """Cached features where the encoder stays as it is, pictures where it learns."""
    paths = [example.image for example in examples]
    if stage.train_encoder:
        return Pictures(paths, info.image, stage)
    return Features(cached_features(model.encoder, paths, info.image, cache), info.model.grid_rows, flip=stage.flip)


def make_optimizer(model: CaptionModel, recipe: Recipe, stage: Stage) -> AdamW:
    """AdamW over what the stage trains: matrices decay, biases and norms do not."""
    model.requires_grad_(True).encoder.requires_grad_(stage.train_encoder)
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    groups = []
    for of_encoder, rate in ((False, stage.decoder_rate), (True, stage.encoder_rate)):
        for matrix in (True, False):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (id(parameter) in encoder) == of_encoder
                and (parameter.dim() > 1) == matrix
            ]
            decay = recipe.weight_decay if matrix else 0.0
            if parameters:
                groups.append({"params": parameters, "peak": rate, "weight_decay": decay})
    return AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


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
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.partition("\n")[0])
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
    except CaptionerError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped; --resume goes on after the last finished epoch", file=sys.stderr)
        return 1
    print(f"best dev CIDEr {progress.best:.4f}; the model is in {arguments.output / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
