"""Pictures in, captions out: the trained model as its users meet it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from captioner.checkpoint import ModelInfo
from captioner.config import is_whole, require
from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.decoding.expectation import EXPECTATION_NAME, Expectation, Judge
from captioner.decoding.options import ONLY_WITH
from captioner.engines import Engine, FloatArray
from captioner.errors import CaptionerError, ModelError, OptionError
from captioner.images import ImageSource, load_pixels
from captioner.prefetch import batches, decoding_threads
from captioner.reading import WordReader
from captioner.results import Caption, Result
from captioner.tokens import make_tokenizer


class Captioner:
    """A trained model that captions pictures.

    Captioning changes nothing in it, so several threads may use it at once; whether that is faster is another question:
    torch's own threads get in each other's way.

    Args:
        engine: runs the network.
        info: what the model says of itself.
        word_reader: reads its phones as words.
        expectation: what it expects people to say of an image, for ``rank = "cider"``.
        reason: in a few words, why this engine.

    Raises:
        ModelError: the expectation is none for this model, or the model ranks by one and has none.
    """

    def __init__(
        self,
        engine: Engine,
        info: ModelInfo,
        word_reader: WordReader | None = None,
        expectation: Expectation | None = None,
        reason: str = "",
    ) -> None:
        if expectation is None and info.decoding.rank == "cider":
            raise ModelError(
                f"model {info.name!r} ranks by cider, but {EXPECTATION_NAME} is not in its directory: bring it there, "
                "or fit it with python -m training.expectation",
                code="model_mismatch",
            )
        if expectation is not None and not expectation.fits(info.model.value_size, len(info.vocabulary)):
            raise ModelError(
                f"{EXPECTATION_NAME} was fitted to another model than {info.name!r}: fit it again with "
                "python -m training.expectation",
                code="model_mismatch",
            )
        self.engine = engine
        self.info = info
        self.word_reader = word_reader
        self.expectation = expectation
        self.reason = reason
        self._tokenizer = make_tokenizer(info.tokenizer)
        self._has_had_batches = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.engine.name}>"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info.name

    def __call__(self, image: ImageSource, **options: Any) -> Caption:
        """The best caption of one picture.

        Args:
            image: a path, the bytes of a file, a file object or a PIL image.
            **options: fields of :class:`DecodingOptions` that differ from the model's own.

        Raises:
            ImageError: the picture cannot be read.
            OptionError: an option is unknown or impossible.
        """
        return self.candidates(image, **options)[0]

    def candidates(self, image: ImageSource, **options: Any) -> list[Caption]:
        """The ``n_best`` captions of one picture, best first. Arguments and errors as for a call."""
        chosen = self.options(**options)
        return self.caption_pixels([load_pixels(image, self.info.image)], chosen)[0]

    def batch(self, images: Iterable[ImageSource], *, batch_size: int = 16, **options: Any) -> Iterator[Result]:
        """Caption a stream of pictures, ``batch_size`` at a time, in their order.

        While the network reads one batch, threads read and decode the next: reads no further ahead than that, and holds
        the pixels of two batches at most. A picture that cannot be read yields a result with its error and leaves its
        neighbours alone. What ``images`` raises is raised here, after the results of what came before.

        Args:
            images: read by another thread. A path must lead to its picture until its result is there; all other
                sources but bytes are decoded before the next picture is asked for.
            batch_size: how many pictures the network reads at a time.
            **options: as for a call.

        Raises:
            OptionError: at once, when an option is unknown or impossible.
        """
        require(is_whole(batch_size) and batch_size >= 1, "batch_size must be a whole number, at least 1")
        require(not isinstance(images, str | bytes), "images must be a list or stream of pictures, not one")
        return self._stream(iter(images), batch_size, self.options(**options))

    def _stream(self, images: Iterator[ImageSource], batch_size: int, options: DecodingOptions) -> Iterator[Result]:
        threads = decoding_threads()
        with closing(batches(images, self._try_load, batch_size, threads=threads, in_turn=_changes)) as loaded:
            for results in map(partial(self._results, options=options), loaded):  # keeps no pixels of the batch before
                yield from results

    def _results(
        self, loaded: Sequence[tuple[ImageSource, FloatArray | CaptionerError]], options: DecodingOptions
    ) -> list[Result]:
        pixels = [item for _, item in loaded if isinstance(item, np.ndarray)]
        # Lanes take longer to open than they gain with one batch: whoever has a second may well have more.
        spread, self._has_had_batches = self._has_had_batches, True
        captions = iter(self.caption_pixels(pixels, options, spread=spread))
        return [
            Result(image, self.name, error=item)
            if isinstance(item, CaptionerError)
            else Result(image, self.name, captions=tuple(next(captions)))
            for image, item in loaded
        ]

    def _try_load(self, image: ImageSource) -> FloatArray | CaptionerError:
        try:
            return load_pixels(image, self.info.image)
        except CaptionerError as error:
            return error

    def options(self, **changes: Any) -> DecodingOptions:
        """The model's decoding options with some changed; a beam not given is as wide as ``n_best`` needs.

        Raises:
            OptionError: a name or a value is impossible, or a change would be ignored.
        """
        own = self.info.decoding
        unknown = sorted(set(changes) - set(own.to_dict()))
        if unknown:
            raise OptionError(f"unknown option {', '.join(unknown)}; there are {', '.join(own.to_dict())}")
        changed = [name for name, value in changes.items() if value != getattr(own, name)]
        if "beam_size" not in changes and isinstance(changes.get("n_best"), int):
            changes["beam_size"] = max(own.beam_size, changes["n_best"])
        options = own.replace(**changes)
        for name in changed:
            heeding = ONLY_WITH.get(name, options.method)
            require(heeding == options.method, f"{name} has a meaning with method={heeding} only")
        if options.rank == "cider":
            self._learnt_expectation()
        return options

    def caption_pixels(
        self,
        pixels: Sequence[FloatArray],
        options: DecodingOptions | Sequence[DecodingOptions],
        *,
        spread: bool = False,
    ) -> list[list[Caption]]:
        """Caption pictures that are prepared already, as one batch.

        Args:
            pixels: (3, H, W) arrays by the model's image settings.
            options: for all of them, or one for each: the network reads them together, and those with equal options
                are decoded together. With a seed each is decoded by itself, so that what it gets does not depend on
                its neighbours.
            spread: compute parts of the batch side by side, where the engine can: more in the same time, at the cost of
                memory, see :meth:`captioner.engines.Engine.lanes`.
        """
        each = [options] * len(pixels) if isinstance(options, DecodingOptions) else options
        lanes = self.engine.lanes(len(pixels)) if spread else [self.engine]
        if len(lanes) == 1:
            return self._caption_together(lanes[0], pixels, each)
        bounds = [len(pixels) * lane // len(lanes) for lane in range(len(lanes) + 1)]
        parts = [(pixels[start:end], each[start:end]) for start, end in itertools.pairwise(bounds)]
        with ThreadPoolExecutor(len(lanes) - 1, "lane") as others:
            begun = [
                others.submit(self._caption_together, lane, *part)
                for lane, part in zip(lanes[1:], parts[1:], strict=True)
            ]
            own = self._caption_together(lanes[0], *parts[0])
            return own + [captions for part in begun for captions in part.result()]

    def _caption_together(
        self, engine: Engine, pixels: Sequence[FloatArray], each: Sequence[DecodingOptions]
    ) -> list[list[Caption]]:
        if not pixels:
            return []
        grid = engine.encode(pixels)
        groups: dict[tuple[DecodingOptions, int | None], list[int]] = {}
        for image, own in enumerate(each):
            groups.setdefault((own, None if own.seed is None else image), []).append(image)
        captions: list[list[Caption]] = [[]] * len(pixels)
        for (own, _), images in groups.items():
            part = grid if len(groups) == 1 else engine.select(grid, np.array(images))
            found = decode(engine, part, len(images), own, self.judges(engine.summary(part), own))
            for image, hypotheses in zip(images, found, strict=True):
                if not hypotheses:  # no number compares with NaN, so nothing was ever best
                    raise ModelError(f"model {self.name!r} computes no numbers: its weights are damaged")
                captions[image] = [self._caption(hypothesis) for hypothesis in hypotheses]
        return captions

    def judges(self, summaries: FloatArray, options: DecodingOptions) -> list[Judge]:
        """What ranks the hypotheses of images by their (B, F) summaries, where the options say ``cider``; else nothing.

        Raises:
            OptionError: the model has not learnt what CIDEr to expect.
        """
        if options.rank != "cider":
            return []
        return [self._learnt_expectation().judge(summary) for summary in summaries]

    def _learnt_expectation(self) -> Expectation:
        if self.expectation is None:
            raise OptionError(
                f"model {self.name!r} has not learnt what CIDEr to expect: choose rank score or consensus, or fit it "
                "with python -m training.expectation"
            )
        return self.expectation

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        tokens = self.info.vocabulary.decode(hypothesis.tokens)
        model = self.info.model
        return Caption(
            text=self._tokenizer.join(tokens),
            tokens=tuple(tokens),
            log_probability=hypothesis.log_probability,
            score=hypothesis.score,
            token_scores=hypothesis.token_log_probabilities,
            attention=hypothesis.weights.reshape(len(tokens), model.grid_rows, model.grid_columns),
            model=self.name,
            words=" ".join(self.word_reader.read(tokens)) if self.word_reader else None,
        )


def _changes(image: ImageSource) -> bool:
    """Whether a source may be read by one thread at a time only, or be something else later, such as a file object."""
    return not isinstance(image, str | os.PathLike | bytes)
