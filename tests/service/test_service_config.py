from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys

import pytest

from captioner import OptionError
from captioner.cli import main
from captioner.graphs import CACHE_VARIABLE
from service.config import ServiceConfig, add_flags, flag, misspelt, read_flags, variable

SETTINGS = dataclasses.fields(ServiceConfig)
# For each type another value than any default, as text and as it is read.
TEXTS = {int: ("65", 65), float: ("0.5", 0.5), tuple: ("https://a.example", ("https://a.example",))}
CHOICES = {"engine": "torch", "precision": "bf16", "log_format": "json", "log_level": "debug"}


def given(*arguments: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return read_flags(parser.parse_args(arguments))


def test_the_environment_sets_models_and_limits() -> None:
    environment = {"CAPTIONER_MODELS": "words, models/phones,", "CAPTIONER_MAX_BYTES": " 1000 ", "MAX_IMAGES": "1"}
    assert ServiceConfig.from_environment(environment) == ServiceConfig(
        models=("words", "models/phones"), max_bytes=1000
    )


def test_unset_and_empty_variables_keep_their_defaults() -> None:
    assert ServiceConfig.from_environment({"CAPTIONER_MAX_IMAGES": "", "CAPTIONER_DATA": "x"}) == ServiceConfig()


@pytest.mark.parametrize("field", SETTINGS, ids=lambda field: field.name)
def test_every_setting_has_a_variable_and_a_flag(field: dataclasses.Field[object]) -> None:
    text, value = TEXTS.get(type(field.default)) or (CHOICES[field.name],) * 2
    expected = ServiceConfig(**{field.name: value})
    assert expected != ServiceConfig()
    assert ServiceConfig.from_environment({variable(field.name): text}) == expected
    assert ServiceConfig.from_environment({}, given(flag(field.name), text)) == expected


def test_a_flag_counts_before_its_variable() -> None:
    environment = {"CAPTIONER_MAX_BYTES": "1000", "CAPTIONER_MODELS": "words", "CAPTIONER_MAX_PIXELS": "2000"}
    flags = given("--max-bytes", "3000", "--model", "a", "--models", "b,c")
    config = ServiceConfig.from_environment(environment, flags)
    assert config == ServiceConfig(models=("a", "b", "c"), max_bytes=3000, max_pixels=2000)
    # A flag stands for what it says, also if the variable is wrong.
    assert ServiceConfig.from_environment({"CAPTIONER_MAX_BYTES": "x"}, {"max_bytes": "5"}).max_bytes == 5


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5"])
def test_an_impossible_value_names_its_variable_or_its_flag(text: str) -> None:
    with pytest.raises(OptionError, match="CAPTIONER_MAX_PIXELS must be"):
        ServiceConfig.from_environment({"CAPTIONER_MAX_PIXELS": text})
    with pytest.raises(OptionError, match=r"^--max-pixels must be"):
        ServiceConfig.from_environment({}, {"max_pixels": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("batch_wait_ms", "nan"),
        ("batch_wait_ms", "-1"),
        ("deadline_seconds", "inf"),
        ("deadline_seconds", "0"),
        ("deadline_seconds", "1e10"),
        ("receive_seconds", "86401"),
        ("drain_seconds", "1e10"),
        ("max_images", "1001"),
        ("receive_seconds", "soon"),
        ("precision", "fp16"),
        ("log_level", "INFO"),
        ("log_format", "xml"),
        ("requests_per_minute", "-1"),
        ("cors_origins", "example.org"),
        ("cors_origins", "https://example.org/"),
        ("cors_origins", "https://a.example,https://*.example"),
        ("cors_origins", "null"),
    ],
)
def test_other_values_are_refused_with_the_reason(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=rf"^{variable(name)}\b"):
        ServiceConfig.from_environment({variable(name): text})


@pytest.mark.parametrize(
    "field", [field for field in SETTINGS if isinstance(field.default, int | float)], ids=lambda field: field.name
)
def test_every_number_has_a_largest_value_that_is_told(field: dataclasses.Field[object]) -> None:
    most = field.metadata["most"]
    assert getattr(ServiceConfig(**{"max_queue": 10_000, field.name: most}), field.name) == most
    with pytest.raises(
        OptionError, match=rf"^{variable(field.name)} must be a number from [0-9.]+ to {most}, not 1000"
    ):
        ServiceConfig(**{field.name: 10**10})


def test_a_variable_that_is_nearly_a_setting_is_noticed() -> None:
    wrong = {"CAPTIONER_MODEL": "words", "CAPTIONER_MAX_BYTE": "1", "CAPTIONER_REQUEST_PER_MINUTE": "1"}
    assert misspelt({**wrong, "CAPTIONER_MODELS": "words", "MAX_BYTE": "1"}) == {
        "CAPTIONER_MODEL": "CAPTIONER_MODELS",
        "CAPTIONER_MAX_BYTE": "CAPTIONER_MAX_BYTES",
        "CAPTIONER_REQUEST_PER_MINUTE": "CAPTIONER_REQUESTS_PER_MINUTE",
    }


def test_an_engine_and_a_precision_that_it_lacks_are_refused() -> None:
    with pytest.raises(OptionError, match="engine onnxruntime computes in fp32 or int8, not in bf16"):
        ServiceConfig(engine="onnxruntime", precision="bf16")
    assert ServiceConfig(engine="openvino", precision="int8").precision == "int8"


def test_a_setting_under_its_old_name_is_noticed() -> None:
    assert misspelt({"CAPTIONER_TORCH_THREADS": "2"}) == {"CAPTIONER_TORCH_THREADS": "CAPTIONER_CORES"}


def test_where_graphs_are_kept_is_no_misspelt_setting() -> None:
    assert misspelt({CACHE_VARIABLE: "somewhere"}) == {}


def test_variables_of_kubernetes_are_none_of_ours() -> None:
    service, port = "CAPTIONER_SERVICE", "CAPTIONER_PORT"
    of_ports = [f"{port}_8000_TCP{end}" for end in ("", "_PROTO", "_PORT", "_ADDR")]
    names = [f"{service}_HOST", f"{service}_PORT", f"{service}_PORT_HTTP", port, *of_ports, "CAPTIONER_DATA"]
    assert misspelt(dict.fromkeys(names, "x")) == {}


def test_a_wait_of_nothing_is_allowed() -> None:
    assert ServiceConfig.from_environment({"CAPTIONER_BATCH_WAIT_MS": "0"}).batch_wait_ms == 0


def test_the_queue_takes_at_least_one_request() -> None:
    with pytest.raises(OptionError, match="CAPTIONER_MAX_QUEUE must be at least CAPTIONER_MAX_IMAGES, which is 200"):
        ServiceConfig(max_images=200)


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("short", "has 5 characters; it needs at least 16"),
        ("sixteen letters and spaces", "has a space"),
        ("sechzehn-zeichen-ä", "not printable ASCII"),
        ("sixteen-letters\n-and-more", "not printable ASCII"),
    ],
)
def test_a_weak_key_is_refused_and_not_repeated(key: str, fault: str) -> None:
    with pytest.raises(OptionError, match=f"CAPTIONER_API_KEYS: a key .*{fault}") as caught:
        ServiceConfig(api_keys=(key,))
    assert key not in str(caught.value)


def test_secrets_are_shown_as_a_count() -> None:
    config = ServiceConfig(api_keys=("first-key-of-all-keys", "second-key-of-all-keys"), models=("a", "b"))
    assert "api_keys=2" in config.describe()
    assert "models=a,b" in config.describe()
    assert "of-all-keys" not in config.describe() + repr(config)


def test_a_wrong_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--max-bytes", "many"]) == 2
    assert "--max-bytes must be a whole number, not 'many'" in capsys.readouterr().err


def test_help_tells_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    for field in SETTINGS:
        assert f"{flag(field.name)} " in told


def test_the_command_line_starts_without_the_server() -> None:
    code = "import sys, captioner.cli; print(*{'flask', 'gunicorn', 'prometheus_client', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
