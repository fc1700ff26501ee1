"""How captions are worded: whether they come to an end, how long and how varied they are, what they say twice.

The metrics hardly see it: a caption that stops at "on a" shares more n-grams with its references than a finished one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from captioner.errors import DataError

# English words that ask for another after them. Prepositions that are adverbs as often ("looks up", "a road below",
# "drives by") are left out, and "her", with which a caption may end; "on" and "in" are here although people "look on",
# so a share is to be read beside that of people's captions.
_ARTICLES = "a an the"
_PREPOSITIONS = (
    "against amid among as at beside between during for from in into like of on onto than to toward towards "
)
_PREPOSITIONS += "upon via with within without"
_CONJUNCTIONS = "although and because but if nor or so that when where which while who whose"
_POSSESSIVES = "'s his its my our their your"
_FORMS_OF_BE = "am are be been being is was were"
DANGLING = frozenset(f"{_ARTICLES} {_PREPOSITIONS} {_CONJUNCTIONS} {_POSSESSIVES} {_FORMS_OF_BE}".split())


def diction(captions: Sequence[Sequence[str]]) -> dict[str, float]:
    """Figures of English captions, as :class:`captioner.tokens.WordTokenizer` splits them.

    Args:
        captions: tokens of each; an empty one counts as any other.

    Returns:
        ``captions``: how many there are. ``dangling``: how many end with a word of :data:`DANGLING`, and
        ``dangling_share``, in [0, 1]. ``length``: mean number of tokens. ``words``: how many different ones are used.
        ``different``: how many captions differ. ``repeated_bigrams``, ``repeated_trigrams``: how many captions have one
        twice. ``doubled_words``: how often a word follows itself.

    Raises:
        DataError: there are no captions.
    """
    if not captions:
        raise DataError("there are no captions whose wording could be measured")
    dangling = sum(bool(tokens) and tokens[-1] in DANGLING for tokens in captions)
    return {
        "captions": len(captions),
        "dangling": dangling,
        "dangling_share": dangling / len(captions),
        "length": sum(map(len, captions)) / len(captions),
        "words": len({token for tokens in captions for token in tokens}),
        "different": len({tuple(tokens) for tokens in captions}),
        "repeated_bigrams": sum(has_twice(tokens, 2) for tokens in captions),
        "repeated_trigrams": sum(has_twice(tokens, 3) for tokens in captions),
        "doubled_words": sum(first == second for tokens in captions for first, second in itertools.pairwise(tokens)),
    }


def has_twice(tokens: Sequence[str], order: int) -> bool:
    """Whether some n-gram of this order occurs twice, overlaps included."""
    counts = Counter(tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1))
    return any(count > 1 for count in counts.values())


def describe_diction(figures: dict[str, float]) -> str:
    """The figures of :func:`diction` in one line."""
    return (
        f"{figures['length']:.1f} words a caption, {figures['words']} different; {figures['different']} of "
        f"{figures['captions']} captions different, {figures['dangling']} end dangling, {figures['repeated_bigrams']} "
        f"repeat a bigram, {figures['repeated_trigrams']} a trigram; {figures['doubled_words']} words doubled"
    )
