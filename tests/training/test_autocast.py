from __future__ import annotations

import pytest
import torch

from training import autocast as precision
from training.autocast import autocast, has_fast_bfloat16


@pytest.mark.parametrize("fast", [True, False])
def test_products_are_rounded_where_that_is_fast(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda _: fast)
    with autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if fast else torch.float32)


def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx512_bf16": there})
        assert has_fast_bfloat16(torch.device("cpu")) is there
    assert not has_fast_bfloat16(torch.device("meta"))
