"""The models that one process serves: loaded in the background, each used by one request at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

import captioner
from captioner import Caption, Captioner, DecodingOptions
from captioner.checkpoint import ModelInfo, bundled_models, read_info, resolve
from captioner.engines import FloatArray
from captioner.errors import CaptionerError, ModelError, OptionError
from service.errors import UnavailableError

log = logging.getLogger(__name__)

BATCH_SIZE = 16


class ServedModel:
    """One model: described from the start, usable once loaded.

    Attributes:
        info: what its directory says about it.
        failure: why it could not be loaded, or None.
    """

    def __init__(self, info: ModelInfo, loaded: Captioner | None = None) -> None:
        self.info = info
        self.failure: CaptionerError | None = None
        self._loaded = loaded
        self._turn = threading.Lock()

    @property
    def status(self) -> str:
        """``ready``, ``loading`` or ``failed``."""
        if self._loaded:
            return "ready"
        return "failed" if self.failure else "loading"

    def load(self, directory: Path) -> None:
        """Load the weights and caption one blank picture, so that ``ready`` means it works and is warm."""
        try:
            loaded = captioner.load(directory)
            loaded(Image.new("RGB", (8, 8)))
        except CaptionerError as error:
            log.error("Model %r could not be loaded: %s", self.info.name, error)  # noqa: TRY400 - its sentence says it all
            self.failure = error
        except Exception as error:
            log.exception("Model %r could not be loaded", self.info.name)
            self.failure = ModelError(f"{type(error).__name__}: {error}")
        else:
            self._loaded = loaded
            log.info("Model %r is ready", self.info.name)

    def ready(self) -> Captioner:
        """The loaded model.

        Raises:
            UnavailableError: it is still loading, or could not be loaded.
        """
        if self._loaded:
            return self._loaded
        if self.failure:
            raise UnavailableError(f"Model {self.info.name!r} could not be loaded: {self.failure}")
        raise UnavailableError(f"Model {self.info.name!r} is still loading; try again shortly", code="starting")

    def caption(self, pixels: Sequence[FloatArray], options: DecodingOptions) -> list[list[Caption]]:
        """Caption prepared pictures, (3, H, W) each: for each its captions, best first.

        Raises:
            UnavailableError: see :meth:`ready`.
        """
        model = self.ready()
        captions: list[list[Caption]] = []
        for start in range(0, len(pixels), BATCH_SIZE):
            with self._turn:  # taken for each batch anew, so that long requests let short ones in between
                captions += model.caption_pixels(pixels[start : start + BATCH_SIZE], options)
        return captions


class ModelRegistry:
    """Models by name, the default one first.

    Raises:
        OptionError: there is no model, or two of one name.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        for model in models:
            if model.info.name in self._models:
                raise OptionError(
                    f"Two models are named {model.info.name!r}; list one of them in CAPTIONER_MODELS, or change "
                    "the name in the config.json of the other"
                )
            self._models[model.info.name] = model
        if not self._models:
            raise OptionError("There is no model to serve; set CAPTIONER_MODELS to the directory of one")

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str | None = None) -> ServedModel:
        """The model of that name, or the default one.

        Raises:
            ModelError: no model of that name is served.
        """
        if name is None:
            return next(iter(self))
        if name not in self._models:
            served = ", ".join(self._models)
            raise ModelError(f"There is no model {name!r} here; there is {served}", code="model_not_found")
        return self._models[name]


def find_models(names: Sequence[str]) -> dict[Path, ServedModel]:
    """Describe models, by their directories, without loading them; no names means every bundled model.

    Raises:
        ModelError: a model is missing or its description is broken.
    """
    chosen = names or sorted(bundled_models(), key=lambda name: name != "words")  # words is the default
    return {directory: ServedModel(read_info(directory)) for directory in map(resolve, chosen)}


def load_in_background(models: dict[Path, ServedModel], torch_threads: int) -> None:
    """Load models one after the other in a thread of this process.

    A network that has run before a fork hangs after it, so call this in each worker, never in their parent.
    """

    def load() -> None:
        if torch_threads:
            import torch

            torch.set_num_threads(torch_threads)
        for directory, model in models.items():
            model.load(directory)

    threading.Thread(target=load, name="model-loader", daemon=True).start()
