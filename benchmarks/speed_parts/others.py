"""What one would take otherwise: captioners of the ``transformers`` library, at their real sizes.

Their weights are random, so nothing is downloaded; what a matrix product costs does not depend on what is in it. All
speak exactly ``NEW_TOKENS`` tokens with a beam of ``BEAM``: the end symbol is forbidden until then. Their tokens are
not made text, which would take their vocabularies. How attention is computed is the library's own choice.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioner import torchvision_compat  # noqa: F401  must precede torchvision, which transformers imports

NEW_TOKENS = 12
BEAM = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean and standard deviation


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a network's input, as the checkpoint's ``preprocessor_config.json`` has it.

    Attributes:
        side: of the square input, in pixels.
        resample: the filter that resizes.
        mean, std: of each channel.
        crop: keep the ratio and drop what lies outside the central square, rather than stretch.
    """

    side: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: bool = False

    def __call__(self, picture: bytes) -> torch.Tensor:
        """The bytes of an image file → (1, 3, side, side)."""
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.crop:
            least = min(image.size)
            left, top = (image.width - least) / 2, (image.height - least) / 2
            box = (left, top, left + least, top + least)
        fitted = image.resize((self.side, self.side), self.resample, box=box)
        rgb = np.asarray(fitted, dtype=np.float32) / 255
        normal = (rgb - np.array(self.mean, dtype=np.float32)) / np.array(self.std, dtype=np.float32)
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))[None]


def blip(layers: int) -> Any:
    """BLIP-base as in Salesforce/blip-image-captioning-base: a ViT-base at 384 × 384, 577 positions to attend to."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    width = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": layers}
    special = {"bos_token_id": 30522, "eos_token_id": 2, "sep_token_id": 102, "pad_token_id": 0}
    text = {"vocab_size": 30524, "encoder_hidden_size": 768, "max_position_embeddings": 512, **width, **special}
    vision = {"image_size": 384, "patch_size": 16, **width}
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))


def vit_gpt2(layers: int) -> Any:
    """ViT-GPT2 as in nlpconnect/vit-gpt2-image-captioning: a ViT-base at 224 × 224, GPT-2 with cross attention."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    encoder = ViTConfig(num_hidden_layers=layers)
    decoder = GPT2Config(n_layer=layers, add_cross_attention=True, is_decoder=True)
    both = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = VisionEncoderDecoderModel(config=both)
    for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, decoder.eos_token_id)
    return model


def git(layers: int) -> Any:
    """GIT-base as in microsoft/git-base: CLIP's ViT-B/16 at 224 × 224, its grid before the text in six layers."""
    from transformers import GitConfig, GitForCausalLM

    return GitForCausalLM(GitConfig(num_hidden_layers=min(layers, 6), vision_config={"num_hidden_layers": layers}))


OTHERS: dict[str, tuple[Callable[[int], Any], Preparation]] = {
    "BLIP-base": (blip, Preparation(384, Image.Resampling.BICUBIC, *CLIP)),
    "ViT-GPT2": (vit_gpt2, Preparation(224, Image.Resampling.BILINEAR, (0.5,) * 3, (0.5,) * 3)),
    "GIT-base": (git, Preparation(224, Image.Resampling.BICUBIC, *CLIP, crop=True)),
}


class Other:
    """One of them, ready to run.

    Args:
        name: a key of :data:`OTHERS`.
        precision: of the whole network, ``fp32`` or ``bf16``. It is built in it, so that memory never holds another.
        layers: of its transformers; fewer than 12 only to see whether all runs.
    """

    def __init__(self, name: str, precision: str, layers: int = 12) -> None:
        build, self.prepare = OTHERS[name]
        self.dtype = DTYPES[precision]
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            self.network = build(layers).eval()
        finally:
            torch.set_default_dtype(before)
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())

    @torch.inference_mode()
    def __call__(self, picture: bytes) -> list[int]:
        """The bytes of an image file → ``NEW_TOKENS`` tokens."""
        pixels = self.prepare(picture).to(self.dtype)
        length = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
        found = self.network.generate(pixel_values=pixels, num_beams=BEAM, do_sample=False, **length)
        tokens: list[int] = found[0, -NEW_TOKENS:].tolist()
        return tokens
