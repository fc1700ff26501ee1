"""The models that one process serves: loaded in the background, and anew when told to, without a pause."""

from __future__ import annotations

import logging
import reprlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from captioner import Captioner
from captioner.checkpoint import ModelInfo, bundled_models, read_info, resolve
from captioner.config import require
from captioner.errors import CaptionerError, ModelError, OptionError
from service.errors import UnavailableError

log = logging.getLogger(__name__)


class ServedModel:
    """One model: described from the start, usable once loaded.

    Attributes:
        info: what its directory says about it.
        directory: where it is; None if it came loaded.
        failure: why it could not be loaded, or None.
    """

    def __init__(self, info: ModelInfo, *, directory: Path | None = None, loaded: Captioner | None = None) -> None:
        self.info = info
        self.directory = directory
        self.failure: CaptionerError | None = None
        self._loaded = loaded

    @property
    def status(self) -> str:
        """``ready``, ``loading`` or ``failed``."""
        if self._loaded:
            return "ready"
        return "failed" if self.failure else "loading"

    def load(self, load: Callable[[Path], Captioner], warm_up: Callable[[Captioner], object]) -> None:
        """Load it, or load it anew: until the new one is warm, and if it fails for good, the old one stays.

        Args:
            load: makes a captioner of a model's directory.
            warm_up: uses the model once, so that ``ready`` means that it works.
        """
        if self.directory is None:
            return
        try:
            loaded = load(self.directory)
            require(
                loaded.name == self.info.name, f"its name is {loaded.name!r} now; restart the service to serve that"
            )
            warm_up(loaded)
        except CaptionerError as error:
            kept = "; the one before goes on serving" if self._loaded else ""
            log.error("Model %r could not be loaded: %s%s", self.info.name, error, kept)  # noqa: TRY400 - says it all
            self.failure = error
        except Exception as error:
            log.exception("Model %r could not be loaded", self.info.name)
            self.failure = ModelError(f"{type(error).__name__}: {error}")
        else:
            self.info, self._loaded, self.failure = loaded.info, loaded, None
            log.info("Model %r runs on %s: %s", loaded.name, loaded.engine.name, loaded.reason)
            log.info("Model %r is ready", self.info.name)

    def use_cores(self, number: int) -> None:
        """See :meth:`captioner.engines.Engine.use_cores`; nothing where it is not loaded."""
        if self._loaded:
            self._loaded.engine.use_cores(number)

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


class ModelRegistry:
    """Models by name, the default one first.

    Raises:
        OptionError: there is no model, or two of one name.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        self._loading = threading.Lock()
        self._loader: threading.Thread | None = None
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
            raise ModelError(
                f"There is no model {reprlib.repr(name)}; the models here are {served}", code="model_not_found"
            )
        return self._models[name]

    def load(self, load: Callable[[Path], Captioner], warm_up: Callable[[Captioner], object]) -> None:
        """Load the models, or load them anew, one after the other, in a thread of this process.

        A network that has run before a fork hangs after it, so call this in each worker, never in their parent.
        Arguments as for :meth:`ServedModel.load`.
        """

        def load_all() -> None:
            with self._loading:  # who asks again meanwhile gets what is there then
                for model in self:
                    model.load(load, warm_up)

        self._loader = threading.Thread(target=load_all, name="model-loader", daemon=True)
        self._loader.start()

    def wait(self, seconds: float) -> None:
        """Wait for what is being loaded, but no longer: a runtime that is cut off while it opens a graph aborts."""
        if self._loader is not None:
            self._loader.join(seconds)


def find_models(names: Sequence[str]) -> ModelRegistry:
    """Describe models without loading them; no names means every bundled model.

    Raises:
        ModelError: a model is missing or its description is broken.
        OptionError: see :class:`ModelRegistry`.
    """
    chosen = names or sorted(bundled_models(), key=lambda name: name != "words")  # words is the default
    directories = dict.fromkeys(map(resolve, chosen))
    return ModelRegistry(ServedModel(read_info(directory), directory=directory) for directory in directories)
