"""Self-critical sequence training: sampled captions are made likelier or less likely by what they are worth.

Rennie et al. (2017), "Self-critical sequence training for image captioning", with the mean of an image's other samples
as its baseline in place of a greedy caption (Luo 2020, "A better variant of self-critical sequence training"): no
second decoding, and a lower variance. The worth of a caption is its CIDEr-D against the image's own references.

Shapes: B images, K samples of each, N = B·K rows (image-major), T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from captioner.decoding import DecodingOptions, decode
from captioner.decoding.filters import NEVER
from captioner.engines import FloatArray, IntArray
from captioner.engines.torch_engine import TorchDecoder
from captioner.model import CaptionModel, Grid
from captioner.tokens import Vocabulary
from training.accumulation import in_parts
from training.batching import Batch
from training.cider import CiderScorer
from training.loss import cross_entropy
from training.recipe import Stage
from training.replicas import mean

END = "</s>"  # the end as a word of the reward's n-grams: else cutting a sentence short after "on a" would cost nothing


class Reward:
    """CIDEr-D of sampled captions against the references of the training images, the end symbol counted as a word.

    Without it, the n-grams that lead to an end earn nothing, and captions learn to stop in the middle of a phrase.

    Args:
        references: tokens of each training image's captions.
        vocabulary: of the model. The references keep the words that it does not hold: no sample can earn them.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._scorer = CiderScorer([[[*caption, END] for caption in image] for image in references])

    def __call__(self, images: IntArray, samples: Sequence[Sequence[IntArray]]) -> FloatArray:
        """(B,) image numbers and K samples of each, as token numbers with their end → (B, K) rewards in [0, 10]."""
        return np.array(
            [
                [self._scorer.score_image(int(image), self._words(sample)) for sample in own]
                for image, own in zip(images, samples, strict=True)
            ],
            dtype=np.float32,
        )

    def _words(self, sample: IntArray) -> list[str]:
        return [END if token == Vocabulary.eos else self._vocabulary.tokens[token] for token in sample]


class SelfCritical:
    """The objective: the policy gradient of sampled captions' worth, and a share of the likelihood beside it.

    Args:
        model: the policy.
        reward: of the training images' samples.
        stage: its ``samples``, ``sample_length``, ``likelihood_share`` and ``accumulate`` count.
        label_smoothing: of the likelihood.

    Attributes:
        figures: mean reward and length of the last batch's samples.
    """

    def __init__(self, model: CaptionModel, reward: Reward, stage: Stage, *, label_smoothing: float) -> None:
        self._model, self._reward, self._stage = model, reward, stage
        self._label_smoothing = label_smoothing
        self.figures: dict[str, float] = {}

    def __call__(self, grid: Callable[[], Grid], batch: Batch, done: float) -> Tensor:  # noqa: ARG002  the protocol's
        """See :class:`training.loss.Objective`."""
        model, stage, images = self._model, self._stage, len(batch.images)
        # Samples are drawn without dropout, as people will meet the model; what they teach is learnt with it.
        model.eval()
        with torch.no_grad():
            seen = grid()
        seed = int(torch.randint(2**31, ()))  # so that all randomness hangs on torch's, as dropout does
        samples = sample_captions(model, seen, samples=stage.samples, max_length=stage.sample_length, seed=seed)
        model.train()
        rewards = self._reward(batch.images, samples)
        lengths = [len(sample) for image in samples for sample in image]
        self.figures = {"reward": float(rewards.mean()), "sample_length": sum(lengths) / len(lengths)}

        worth = torch.from_numpy(advantages(rewards))
        drawn = pad_samples(samples)
        share = stage.likelihood_share
        tokens = beside(drawn, batch.tokens, images) if share else drawn
        device = seen.values.device
        gains, *surprises = in_parts(stage.accumulate, self._losses, *grid(), tokens.to(device), worth.to(device))
        return (1 - share) * mean(gains) + share * mean(surprises[0]) if share else mean(gains)

    def _losses(self, values: Tensor, keys: Tensor, tokens: Tensor, worth: Tensor) -> tuple[Tensor, ...]:
        """The policy gradient's loss of each drawn token, and the likelihood's of each given one, if there are any."""
        samples = self._stage.samples
        logits, _ = self._model(Grid(values, keys), tokens[:, :-1])
        logits = logits.float().unflatten(0, (len(values), -1))  # (B, K, T, V)
        targets = tokens[:, 1:].unflatten(0, (len(values), -1))  # (B, K, T)
        # What is never said takes no part in the distribution that was drawn from.
        never = torch.tensor(NEVER, device=targets.device)
        possible = logits[:, :samples].index_fill(-1, never, -torch.inf).log_softmax(dim=-1)
        gains = policy_losses(possible, targets[:, :samples], worth)
        if not self._stage.likelihood_share:
            return (gains,)
        given = targets[:, samples:]
        surprises = cross_entropy(logits[:, samples:].log_softmax(dim=-1), given, self._label_smoothing)
        return gains, surprises[given != Vocabulary.pad]


def sample_captions(
    model: CaptionModel, grid: Grid, *, samples: int, max_length: int, seed: int
) -> list[list[IntArray]]:
    """Draw captions of each image from the model as it stands, in its mode of this moment.

    Args:
        model: its filters are those of all decoding: what is no word is never drawn.
        grid: of B images.
        samples: K, drawn independently of each other.
        max_length: tokens at most, the end included.
        seed: decides them.

    Returns:
        Of each image, K arrays of token numbers, from the first word to the end; what the length cut off has no end.
        They stand as they are ranked: what ended first.
    """
    options = DecodingOptions(method="sample", n_best=samples, max_length=max_length, seed=seed)
    drawn = decode(TorchDecoder(model), grid, len(grid.values), options)
    return [
        [np.array([*one.tokens, Vocabulary.eos] if one.ended else one.tokens, dtype=np.int64) for one in image]
        for image in drawn
    ]


def advantages(rewards: FloatArray) -> FloatArray:
    """(B, K) rewards → (B, K): each less the mean of the others of its image (Luo 2020, equation 5)."""
    samples = rewards.shape[1]
    return np.asarray((rewards - rewards.mean(axis=1, keepdims=True)) * (samples / (samples - 1)), dtype=np.float32)


def policy_losses(log_probs: Tensor, tokens: Tensor, worth: Tensor) -> Tensor:
    """The policy gradient's loss of each token that is no padding: − advantage · log-probability.

    Args:
        log_probs: (…, T, V) under teacher forcing by the samples.
        tokens: (…, T) the samples, padded.
        worth: (…) each sample's advantage.
    """
    real = tokens != Vocabulary.pad
    likelihood = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)[real]  # padding may be impossible
    return -worth.unsqueeze(-1).expand_as(real)[real] * likelihood


def pad_samples(samples: Sequence[Sequence[IntArray]]) -> Tensor:
    """K samples of each of B images → (B·K, 1 + T) from bos on, padded."""
    rows = [torch.from_numpy(np.concatenate(([Vocabulary.bos], sample))) for image in samples for sample in image]
    return pad_sequence(rows, batch_first=True, padding_value=Vocabulary.pad)


def beside(drawn: Tensor, given: Tensor, images: int) -> Tensor:
    """(B·K, S) and (B·C, T) padded tokens → (B·(K + C), max(S, T)): those of one image together, drawn ones first."""
    length = max(drawn.shape[1], given.shape[1])
    both = [F.pad(tokens, (0, length - tokens.shape[1]), value=Vocabulary.pad) for tokens in (drawn, given)]
    return torch.cat([tokens.unflatten(0, (images, -1)) for tokens in both], dim=1).flatten(0, 1)
