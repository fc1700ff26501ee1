"""What an operator may set, checked once when the service starts.

A setting is a field of :class:`ServiceConfig`: ``max_bytes`` is the variable ``CAPTIONER_MAX_BYTES`` and the flag
``--max-bytes`` of ``captioner serve``, and the flag counts. This module is cheap to import, as the command line does.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from captioner.config import Config, require
from captioner.errors import OptionError
from captioner.loading import ENGINES, PRECISIONS, require_offered

PREFIX = "CAPTIONER_"
DAY = 86400  # seconds: more overflows what waits with them
CLOSE = 0.85  # of the letters: Kubernetes sets CAPTIONER_PORT and the like for a Service of that name
RENAMED = {"CAPTIONER_TORCH_THREADS": "CAPTIONER_CORES"}
SHORTEST_KEY = 16  # characters of an API key: whoever tries them all has to take a while
KEY = re.compile(r"[!-~]+")
ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")


def _setting(
    default: Any,
    about: str,
    *,
    least: float = 1,
    most: float = 1_000_000,
    choices: tuple[str, ...] = (),
    check: Callable[[str, tuple[str, ...]], None] | None = None,
    secret: bool = False,
    alias: str | None = None,
) -> Any:
    """A field, what it means, which values it takes, and another name of its flag; a secret is shown to nobody."""
    bounds = {"least": least, "most": most, "choices": choices, "check": check}
    metadata = {"about": about, "secret": secret, "alias": alias, **bounds}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def _check_keys(source: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        require(
            len(key) >= SHORTEST_KEY, f"{source}: a key has {len(key)} characters; it needs at least {SHORTEST_KEY}"
        )
        require(
            KEY.fullmatch(key) is not None,
            f"{source}: a key has a space or another character that is not printable ASCII; commas stand between keys",
        )


def _check_origins(source: str, origins: tuple[str, ...]) -> None:
    for origin in origins:
        require(
            ORIGIN.fullmatch(origin) is not None,
            f"{source}: {origin!r} is no origin as browsers send them; it looks like https://example.org, in small "
            "letters and without a path, or * for all",
        )


@dataclass(frozen=True)
class ServiceConfig(Config):
    """Models, limits and manners of the service; ``captioner serve --help`` tells what each setting means.

    Raises:
        OptionError: a value is impossible; the message names the setting.
    """

    models: tuple[str, ...] = _setting(
        (),
        "names of bundled models or model directories, the default one first; none: all bundled ones",
        alias="--model",
    )
    engine: str = _setting(
        "auto", "what runs the networks; auto: the first that works here, see captioner info", choices=ENGINES
    )
    precision: str = _setting(
        "fp32", "arithmetic of the networks: fp32, or bf16 or int8: faster, less exact", choices=PRECISIONS
    )
    cores: int = _setting(0, "cores that one worker's networks may use; 0: its share of the cores", least=0, most=1024)
    parallel_batches: int = _setting(
        2, "batches that one worker captions at a time, each on its share of those cores", most=1024
    )

    max_bytes: int = _setting(20 * 1024 * 1024, "largest request body, in bytes", most=10**9)
    max_pixels: int = _setting(50_000_000, "largest picture, in pixels, judged before it is decoded", most=10**9)
    max_images: int = _setting(32, "most pictures in one request", most=1000)
    max_beam_size: int = _setting(20, "widest beam, and most captions, that a request may ask for", most=1000)
    max_tokens: int = _setting(200, "longest caption that a request may ask for, in tokens", most=10_000)

    max_batch: int = _setting(16, "most pictures that the network captions at a time", most=1024)
    batch_wait_ms: float = _setting(
        15.0, "milliseconds without another picture until a batch begins, while there is load", least=0, most=60_000
    )
    max_queue: int = _setting(128, "most pictures waiting in one worker; more are refused with 429", most=10_000)
    deadline_seconds: float = _setting(30.0, "seconds until a request is given up with 504", least=0.001, most=DAY)
    receive_seconds: float = _setting(
        30.0, "seconds that a client may take to send a request, a third of them for its head", least=0.001, most=DAY
    )
    max_connections: int = _setting(1000, "most open connections of one worker")
    drain_seconds: float = _setting(
        1.0,
        "seconds between the signal to stop and refusing connections, for a load balancer to notice",
        least=0,
        most=DAY,
    )

    api_keys: tuple[str, ...] = _setting(
        (),
        "keys, one of which a request must bring; better a variable, which ps does not show",
        check=_check_keys,
        secret=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origins whose pages may call from a browser, such as https://example.org", check=_check_origins
    )
    requests_per_minute: int = _setting(0, "most requests of one client address in a minute; 0: no limit", least=0)
    trusted_proxies: int = _setting(
        0, "proxies in front whose X-Forwarded-For tells the client's address; 0 believes nobody", least=0, most=100
    )
    log_format: str = _setting(
        "auto", "text, json, or auto: text on a terminal, else json", choices=("auto", "text", "json")
    )
    log_level: str = _setting("info", "least that is logged", choices=("debug", "info", "warning", "error"))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name), variable(field.name))
        require(
            self.max_queue >= self.max_images,
            f"{variable('max_queue')} must be at least {variable('max_images')}, which is {self.max_images}, "
            f"not {self.max_queue}: else a request that is allowed would never fit",
        )
        require_offered(self.engine, self.precision)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, flags: Mapping[str, str] | None = None
    ) -> Self:
        """Read the settings; one that is unset or empty keeps its default.

        Args:
            environment: the ``CAPTIONER_*`` variables.
            flags: texts by field, which count before the environment; see :func:`add_flags`.

        Raises:
            OptionError: a value is impossible; the message names its variable or flag.
        """
        values: dict[str, object] = {}
        for field in dataclasses.fields(cls):
            source, text = variable(field.name), environment.get(variable(field.name), "")
            if flags and field.name in flags:
                source, text = flag(field.name), flags[field.name]
            if text.strip():
                values[field.name] = _parse(field, text.strip(), source)
        return cls(**values)  # type: ignore[arg-type]

    def describe(self) -> str:
        """All settings in one line; of a secret only how many there are."""
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for field in dataclasses.fields(self):
            if field.metadata["secret"]:
                shown[field.name] = len(shown[field.name])
        texts = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in shown.items()}
        return " ".join(f"{name}={value}" for name, value in texts.items())


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def misspelt(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that are no setting but look like one, and the variable that each may stand for."""
    known = [variable(field.name) for field in dataclasses.fields(ServiceConfig)]
    others = [name for name in environment if name.startswith(PREFIX) and name not in known]
    close = {name: meant for name in others for meant in difflib.get_close_matches(name, known, 1, CLOSE)}
    return close | {name: RENAMED[name] for name in others if name in RENAMED}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; those of lists may be repeated."""
    group = parser.add_argument_group("settings", f"Each may be a variable instead: {variable('max_bytes')}=1000000")
    for field in dataclasses.fields(ServiceConfig):
        rules, is_list = field.metadata, isinstance(field.default, tuple)
        group.add_argument(
            *filter(None, (flag(field.name), rules["alias"])),
            action="append" if is_list else "store",
            metavar="|".join(rules["choices"]) or ("LIST" if is_list else "N"),
            help=rules["about"] + (", separated by commas" if is_list else f" [{field.default}]"),
        )


def read_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """The texts of the flags that were given, by field."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(ServiceConfig)}
    return {name: text if isinstance(text, str) else ",".join(text) for name, text in given.items() if text is not None}


def _parse(field: dataclasses.Field[Any], text: str, source: str) -> object:
    value: object = text
    if isinstance(field.default, tuple):
        value = tuple(part.strip() for part in text.split(",") if part.strip())
    elif not isinstance(field.default, str):
        kind, name = (float, "a number") if isinstance(field.default, float) else (int, "a whole number")
        try:
            value = kind(text)
        except ValueError:
            raise OptionError(f"{source} must be {name}, not {text!r}") from None
    _check(field, value, source)
    return value


def _check(field: dataclasses.Field[Any], value: Any, source: str) -> None:
    rules = field.metadata
    if rules["choices"]:
        require(value in rules["choices"], f"{source} must be {' or '.join(rules['choices'])}, not {value!r}")
    elif isinstance(value, int | float):
        require(
            rules["least"] <= value <= rules["most"],  # false for what is no number
            f"{source} must be a number from {rules['least']} to {rules['most']}, not {value}",
        )
    if rules["check"]:
        rules["check"](source, value)
