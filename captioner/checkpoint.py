"""A model is a directory: ``config.json`` says what it is, ``model.safetensors`` holds its weights.

What it has learnt besides lies there too: to read phones as words (``words.json``), what CIDEr to expect
(``expectation.safetensors``). ``README.md`` is its card, for people. Reading what a model is needs neither torch nor
the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.config import ImageConfig, ModelConfig
from captioner.decoding import DecodingOptions
from captioner.errors import ModelError, OptionError
from captioner.formats import FORMAT_VERSION, OLDER, upgrade_config, upgrade_weights
from captioner.tokens import TOKENIZERS, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from captioner.model import CaptionModel

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
BUNDLED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ModelInfo:
    """All that a model says of itself, weights apart.

    Attributes:
        name: how rows and replies call it.
        model: the architecture.
        vocabulary: its tokens.
        tokenizer: a key of :data:`captioner.tokens.TOKENIZERS`.
        image: how pictures are prepared.
        decoding: the options it decodes with unless told otherwise.
        description: one sentence for people.
        provenance: where it comes from: the recipe, ``images`` by split, software.
        figures: what was measured, by split: ``scores`` by metric, and what they rest on.

    Raises:
        ModelError: the vocabulary and the architecture disagree, or there is no such tokeniser.
    """

    name: str
    model: ModelConfig
    vocabulary: Vocabulary
    tokenizer: str = "words"
    image: ImageConfig = field(default_factory=ImageConfig)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    description: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.vocabulary) != self.model.vocabulary_size:
            raise ModelError(
                f"the vocabulary has {len(self.vocabulary)} tokens but the architecture expects "
                f"{self.model.vocabulary_size}",
                code="model_mismatch",
            )
        if self.tokenizer not in TOKENIZERS:
            raise ModelError(f"unknown tokenizer {self.tokenizer!r}; this version has {', '.join(TOKENIZERS)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the content of ``config.json``."""
        return {
            "format": "captioner",
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "description": self.description,
            "model": self.model.to_dict(),
            "image": self.image.to_dict(),
            "decoding": self.decoding.to_dict(),
            "tokenizer": self.tokenizer,
            "figures": dict(self.figures),
            "provenance": dict(self.provenance),
            "vocabulary": list(self.vocabulary.tokens),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        """The inverse of :meth:`to_dict`.

        Raises:
            ModelError: another format or version, a missing or unknown field, an impossible value.
        """
        if values.get("format") != "captioner":
            raise ModelError("this is not the config.json of a captioner model", code="model_mismatch")
        values = upgrade_config(values)
        if values.get("format_version") != FORMAT_VERSION:
            raise ModelError(
                f"the model has format version {values.get('format_version')!r}, this captioner reads {OLDER} to "
                f"{FORMAT_VERSION}: install a matching captioner or train the model again",
                code="model_mismatch",
            )
        try:
            info = cls(
                name=values["name"],
                model=ModelConfig.from_dict(values["model"]),
                vocabulary=Vocabulary(values["vocabulary"]),
                tokenizer=values["tokenizer"],
                image=ImageConfig.from_dict(values["image"]),
                decoding=DecodingOptions.from_dict(values["decoding"]),
                description=values["description"],
                provenance=values["provenance"],
                figures=values["figures"],
            )
        except KeyError as error:
            raise ModelError(f"config.json lacks {error.args[0]!r}", code="model_mismatch") from error
        except (OptionError, TypeError, AttributeError) as error:
            raise ModelError(f"config.json holds an impossible value: {error}", code="model_mismatch") from error
        unknown = sorted(set(values) - set(info.to_dict()))
        if unknown:
            raise ModelError(f"config.json has unknown fields: {', '.join(unknown)}", code="model_mismatch")
        return info


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_NAME}"))


def is_model(name_or_directory: str | Path) -> bool:
    """Whether :func:`resolve` finds a model there."""
    return (Path(name_or_directory) / CONFIG_NAME).is_file() or str(name_or_directory) in bundled_models()


def resolve(name_or_directory: str | Path) -> Path:
    """The directory of a model: a path to one as it is, or a bundled model by name.

    Raises:
        ModelError: code ``model_not_found``.
    """
    directory = Path(name_or_directory)
    if (directory / CONFIG_NAME).is_file():
        return directory
    if str(name_or_directory) in bundled_models():
        return BUNDLED / name_or_directory
    bundled = ", ".join(bundled_models()) or "none"
    raise ModelError(
        f"no model {str(name_or_directory)!r}: give a bundled one ({bundled}) or a directory holding {CONFIG_NAME}",
        code="model_not_found",
    )


def read_info(name_or_directory: str | Path) -> ModelInfo:
    """What a model says of itself.

    Raises:
        ModelError: it is not there, or broken, or of another format.
    """
    path = resolve(name_or_directory) / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} does not hold a JSON object", code="model_mismatch")
    return ModelInfo.from_dict(values)


def write_info(directory: Path, info: ModelInfo) -> None:
    """Write ``config.json``, one line a field so that changes read well."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in info.to_dict().items()]
    partial = directory / f"{CONFIG_NAME}.partial"
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    partial.replace(directory / CONFIG_NAME)  # an interruption leaves the old file or the new one


def save_model(directory: Path, model: CaptionModel, info: ModelInfo, *, dtype: torch.dtype | None = None) -> None:
    """Write a model directory, with floating-point weights cast to ``dtype`` where given."""
    from safetensors.torch import save

    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in untied(model).items()}
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    (directory / WEIGHTS_NAME).write_bytes(save(state))  # its save_file would make the file private
    write_info(directory, info)


def load_model(name_or_directory: str | Path) -> tuple[CaptionModel, ModelInfo]:
    """The network, in evaluation mode and float32 on the CPU, and what it says of itself.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from captioner.model import skeleton

    directory = resolve(name_or_directory)
    info = read_info(directory)
    path = directory / WEIGHTS_NAME
    try:
        state = upgrade_weights(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the weights {path}: {error}") from error
    try:
        model = skeleton(info.model)
    except OptionError as error:
        raise ModelError(f"{directory / CONFIG_NAME} names an unknown architecture: {error}") from error
    _check_fit(path, expected=untied(model), found=state)
    empty = [name for name, tensor in state.items() if tensor.ndim > 1 and not tensor.any()]
    if empty:  # a copy that was cut off may have its full length, with zeros in place of the rest
        raise ModelError(f"the weights {path} are damaged: {_few(empty)} hold nothing but zeros; copy the model anew")
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie()
    return model.eval(), info


def untied(model: CaptionModel) -> dict[str, Tensor]:
    """The state dict, shared matrices once: safetensors stores no aliases."""
    state: dict[str, Tensor] = model.state_dict()
    if model.config.tied_output:
        del state["output.weight"]
    return state


def _check_fit(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    complaints = []
    if missing:
        complaints.append(f"it lacks {_few(missing)}")
    if extra:
        complaints.append(f"it has unknown {_few(extra)}")
    if wrong:
        name = wrong[0]
        complaints.append(f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}")
    if complaints:
        raise ModelError(f"{path} does not fit its {CONFIG_NAME}: {'; '.join(complaints)}", code="model_mismatch")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
