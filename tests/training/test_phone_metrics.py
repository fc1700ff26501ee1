from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import DataError
from training.phone_metrics import score_chance, score_people, score_phones

DOG, CAT = "DH AH D AO G".split(), "DH AH K AE T".split()


def distance(one: list[str], other: list[str]) -> int:
    """Levenshtein's, as its definition reads."""
    if not one or not other:
        return len(one) + len(other)
    same = one[0] == other[0]
    return min(distance(one[1:], other[1:]) + (not same), distance(one[1:], other) + 1, distance(one, other[1:]) + 1)


def test_error_rates_are_of_the_nearest_reference_and_of_all() -> None:
    scores = score_phones([[CAT, [*DOG, "Z"]], [CAT]], [DOG, CAT])
    assert scores["PER"] == pytest.approx((1 / 6 + 0) / 2)
    assert scores["PER-mean"] == pytest.approx(((3 / 5 + 1 / 6) / 2 + 0) / 2)


@given(*[st.lists(st.sampled_from(["B", "D", "G"]), min_size=1, max_size=6)] * 2)
def test_an_error_is_an_edit(reference: list[str], said: list[str]) -> None:
    assert score_phones([[reference]], [said])["PER"] == pytest.approx(distance(said, reference) / len(reference))


def test_the_same_phones_are_perfect_whatever_their_stress_boundaries_and_silence() -> None:
    scores = score_phones([["SIL DH AH0 | D AO1 G SPN".split()]], [DOG])
    assert scores == pytest.approx({"phone-BLEU-4": 1, "PER": 0, "PER-mean": 0})


def test_bleu_is_of_the_whole_corpus_with_the_closest_reference() -> None:
    said = [["B"] * 4, ["B"] * 3]
    references = [[["B"] * 4, ["D"] * 9], [["B"] * 6, ["D"] * 4]]
    # All that is said is found; 4 phones meet a reference of 4, and 3 are closest to one of 4.
    assert score_phones(references, said)["phone-BLEU-4"] == pytest.approx(2.718281828 ** (1 - 8 / 7), rel=1e-5)


def test_silence_is_all_wrong() -> None:
    assert score_phones([[DOG]], [[]])["PER"] == 1


def test_chance_repeats_the_commonest_phone_to_the_shortest_references_length() -> None:
    references = [[["B", "B", "D"], ["B", "G", "B", "D"]], [["D", "B"]]]
    assert score_chance(references) == score_phones(references, [["B"] * 3, ["B"] * 2])


def test_people_are_each_reference_against_the_others() -> None:
    references = [[DOG, CAT, [*DOG, "Z"]], [DOG, DOG, CAT]]
    # Nearest others: 1/6, 3/5 (of 5 phones), 1/5; 0, 0, 3/5.
    assert score_people(references)["PER"] == pytest.approx(((1 / 6 + 3 / 5 + 1 / 5) / 3 + (0 + 0 + 3 / 5) / 3) / 2)


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ([], [], "no hypotheses"),
        ([[DOG]], [DOG, CAT], "2 hypotheses cannot be scored against references for 1 images"),
        ([[DOG], []], [DOG, CAT], "image number 1 has no reference"),
        ([[["|"]]], [DOG], "holds no phone"),
    ],
)
def test_what_cannot_be_scored_raises(
    references: list[list[list[str]]], hypotheses: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score_phones(references, hypotheses)


def test_one_person_alone_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="every image needs two references"):
        score_people([[DOG, CAT], [DOG]])
