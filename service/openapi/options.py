"""Options of captions and voices as schemas, with the ranges that decoding, speech and this service give them."""

from __future__ import annotations

from captioner.decoding.options import CHOICES, NUMBERS, WHOLE_NUMBERS
from captioner.speech import DEFAULT_VOICE, PITCHES, RATES
from service.captioning import Captioning
from service.openapi.schema import Schema, of
from service.options import DECODING, option_limits

_DECODING = {
    "beam_size": "Hypotheses kept while searching; 1 is greedy.",
    "n_best": "Captions to return, best first; for a beam at most its size.",
    "max_length": "Longest caption, in tokens, its end counted.",
    "length_penalty": "How far a caption's length excuses its improbability: 0 prefers short ones, 1 compares means.",
    "no_repeat_ngram": "No run of this many tokens occurs twice; 0 allows repeats.",
    "rank": (
        "What makes a caption the best: its score; its score and the CIDEr expected of it, where the model has learnt "
        "that; or how much it agrees with the others of a wide beam."
    ),
    "method": "Search with a beam, or draw at random.",
    "temperature": "For sampling: below 1 is safer, above 1 is bolder.",
    "top_k": "For sampling: only the likeliest so many tokens; 0 takes all.",
    "top_p": "For sampling: only the likeliest tokens that together have this probability.",
    "seed": "For sampling: makes the reply repeatable.",
}


def option_schemas(captioning: Captioning) -> dict[str, Schema]:
    """The options of a caption, but ``attention``; what is left out is as the model has it."""
    limits = option_limits(captioning.config)
    ranges: dict[str, Schema] = {"seed": {"type": "integer", "minimum": 0}}
    for name, choices in CHOICES.items():
        ranges[name] = {"type": "string", "enum": list(choices)}
    for name, low, high in WHOLE_NUMBERS:
        ranges[name] = {"type": "integer", "minimum": low, "maximum": min(high, limits.get(name, high))}
    for name, least, most in NUMBERS:
        ranges[name] = {"type": "number", "minimum": least, "maximum": most}
    options = {name: {**ranges[name], "description": _DECODING[name]} for name in DECODING}
    return {"model": model_schema(captioning), **options}


def model_schema(captioning: Captioning) -> Schema:
    """The name of a served model."""
    names = [model.info.name for model in captioning.registry]
    return of("string", f"The model; {names[0]} unless told otherwise.", enum=names)


def _within(values: range, about: str, default: int) -> Schema:
    return of(
        "integer",
        f"{about}; {default} unless told otherwise.",
        minimum=values[0],
        maximum=values[-1],
        examples=[default],
    )


ATTENTION = of("boolean", "Whether to add where the model looked for each token of the best caption.")
VOICE = {
    "voice": of(
        "string",
        "A voice of espeak-ng: en-gb, de, en-us+f3, …",
        examples=[DEFAULT_VOICE.name],
        pattern="^[A-Za-z0-9+_-]{1,40}$",
    ),
    "rate": _within(RATES, "Words a minute", DEFAULT_VOICE.rate),
    "pitch": _within(PITCHES, "How high the voice is", DEFAULT_VOICE.pitch),
}
