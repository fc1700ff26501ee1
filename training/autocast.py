"""Mixed precision: bfloat16 arithmetic where the hardware is fast at it."""

from __future__ import annotations

import torch


def autocast(device: torch.device) -> torch.autocast:
    """A context in which matrix products on ``device`` run in bfloat16, if that makes them faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware, so that bf16 is faster than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False
