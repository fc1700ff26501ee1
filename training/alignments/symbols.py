"""From an alignment to the tokens that a model learns: the symbols of silence and noise, and what becomes of them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from captioner.config import require
from captioner.errors import DataError, OptionError
from captioner.phones import BOUNDARY, NOISE, SILENCE, split_stress
from captioner.tokens import SPECIAL_TOKENS
from training.alignments.intervals import Alignment, Interval

# Labels are looked up in lower case. Those of HTK, Kaldi and Montreal; Festival; TIMIT; Sphinx; MAUS; MBROLA.
SILENCES = frozenset(
    """
    sil sp <eps> pau spau ssil # h# #h ## epi <s> </s> <sil> <p> <p:> _
    """.split()
) | {""}
# Speech that was not recognised, breath, laughter, coughing and what a microphone hears besides speech.
NOISES = frozenset(
    """
    spn nsn <unk> <spoken_noise> noise <noise> [noise] laugh laughter [laughter] vocnoise oov <oov> unk
    lau brth breath cg cough <usb> <nib> +noise+ +breath+ +spn+ ++noise++ ++breath++
    """.split()
)
SILENCE_CHOICES = ("drop", "boundary", "keep")
NOISE_CHOICES = ("drop", "keep", "refuse")
PHONE_SETS = ("arpabet", "any")


@dataclass(frozen=True)
class SilencePolicy:
    """What becomes of all that is no phone.

    Attributes:
        silence: ``drop`` leaves pauses out, ``boundary`` writes :data:`captioner.phones.BOUNDARY` for those between
            phones, ``keep`` writes :data:`captioner.phones.SILENCE` for all.
        noise: ``drop`` leaves noises out, ``keep`` writes :data:`captioner.phones.NOISE` for each, ``refuse`` is an
            error.
        shortest_pause: shorter silence is none, in seconds; all that lies between two phones is added up.
        silences, noises: the labels that count as such, in lower case; extend them as in ``SILENCES | {"xx"}``.

    Raises:
        OptionError: a choice is unknown, or the shortest pause is no positive time.
    """

    silence: str = "drop"
    noise: str = "drop"
    shortest_pause: float = 0.05
    silences: frozenset[str] = SILENCES
    noises: frozenset[str] = NOISES

    def __post_init__(self) -> None:
        require(self.silence in SILENCE_CHOICES, f"silence must be one of {', '.join(SILENCE_CHOICES)}")
        require(self.noise in NOISE_CHOICES, f"noise must be one of {', '.join(NOISE_CHOICES)}")
        require(0 < self.shortest_pause < math.inf, "the shortest pause must be a positive number of seconds")


def phone_tokens(
    alignment: Alignment,
    policy: SilencePolicy,
    *,
    phone_set: str = "arpabet",
    stress: bool = False,
    boundaries: bool = False,
) -> tuple[str, ...]:
    """The tokens of an utterance.

    Args:
        alignment: of the utterance.
        policy: what becomes of silence and noise.
        phone_set: ``arpabet`` takes its phones in any case and no others; ``any`` takes every label as it is.
        stress: keep the digits of stress, where an ARPAbet vowel has one.
        boundaries: keep a token between words; a pause that is kept stands in its place.

    Raises:
        DataError: a label is no phone, there is none, noise is refused, or word boundaries are wanted and unknown.
        OptionError: there is no such phone set, or stress is asked of another than ARPAbet.
    """
    require(phone_set in PHONE_SETS, f"the phone set must be one of {', '.join(PHONE_SETS)}")
    require(not stress or phone_set == "arpabet", "stress belongs to ARPAbet; other symbols are kept as they are")
    if boundaries and not alignment.words:
        raise DataError(f"{alignment.source} does not tell where the words of {alignment.utterance} begin and end")
    tokens: list[str] = []
    parted, word = False, None
    for label, one in _sounds(alignment, policy):
        if label == SILENCE:
            tokens += [SILENCE] if policy.silence == "keep" else []
            parted = policy.silence == "boundary"
            continue
        before, word = word, _word(one, alignment.words)
        parted = parted or (boundaries and word != before)
        if parted and tokens and tokens[-1] != SILENCE:
            tokens.append(BOUNDARY)
        parted = False
        where = f"{alignment.source}, line {one.line}"
        tokens.append(NOISE if label == NOISE else _spell(label, where, phone_set, stress=stress))
    if not set(tokens) - {SILENCE, NOISE, BOUNDARY}:
        raise DataError(f"{alignment.source} has no phones for {alignment.utterance}; leave it out, or align it again")
    return tuple(tokens)


def _sounds(alignment: Alignment, policy: SilencePolicy) -> Iterator[tuple[str, Interval]]:
    """The labels of the phones, NOISE for a noise unless dropped, and SILENCE for a pause before the next of these."""
    silent, end = 0.0, alignment.phones[0].start if alignment.phones else 0.0
    for one in alignment.phones:
        label = one.label.strip()
        silent, end = silent + one.start - end, one.end  # what no interval covers
        if label.lower() in policy.silences:
            silent += one.end - one.start
            continue
        is_noise = label.lower() in policy.noises
        if is_noise and policy.noise == "refuse":
            raise DataError(f"{alignment.source}, line {one.line}: {label!r} is noise; leave the utterance out")
        if is_noise and policy.noise == "drop":
            continue
        if silent >= policy.shortest_pause:
            yield SILENCE, one
        silent = 0.0
        yield NOISE if is_noise else label, one
    if silent >= policy.shortest_pause:
        yield SILENCE, alignment.phones[-1]


def _word(phone: Interval, words: Sequence[Interval]) -> int | None:
    """Which word the middle of a phone lies in; None between words."""
    middle = (phone.start + phone.end) / 2
    index = bisect_right(words, middle, key=lambda word: word.start) - 1
    return index if index >= 0 and middle <= words[index].end else None


def _spell(label: str, where: str, phone_set: str, *, stress: bool) -> str:
    if phone_set == "any":
        if label in (BOUNDARY, *SPECIAL_TOKENS):
            raise DataError(f"{where}: a phone cannot be called {label!r}, which means something else to a model")
        return label
    try:
        phone, digit = split_stress(label.upper())
    except OptionError as error:
        raise DataError(f"{where}: {error}; --phone-set any keeps the symbols of another language") from error
    return phone.arpabet + (digit if stress else "")
