from __future__ import annotations

import pytest

from captioner import OptionError
from service.config import ServiceConfig


def test_the_environment_sets_models_and_limits() -> None:
    environment = {"CAPTIONER_MODELS": "words, models/phones,", "CAPTIONER_MAX_BYTES": " 1000 ", "MAX_IMAGES": "1"}
    assert ServiceConfig.from_environment(environment) == ServiceConfig(
        models=("words", "models/phones"), max_bytes=1000
    )


def test_unset_and_empty_variables_keep_their_defaults() -> None:
    assert ServiceConfig.from_environment({"CAPTIONER_MAX_IMAGES": "", "CAPTIONER_DATA": "x"}) == ServiceConfig()


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5"])
def test_an_impossible_value_names_its_variable(text: str) -> None:
    with pytest.raises(OptionError, match="CAPTIONER_MAX_PIXELS must be"):
        ServiceConfig.from_environment({"CAPTIONER_MAX_PIXELS": text})
