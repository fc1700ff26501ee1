"""What is taken of the answers to a part, whatever attempts they come from and in whatever order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from captioner.batch.cluster.captioning import Answer
from captioner.batch.cluster.gathering import Gathering
from captioner.batch.cluster.parts import Part, Source
from captioner.batch.plan import Tally

PICTURES = Part(0, tuple(Source(str(number), f"/{number}") for number in range(20)))
ARCHIVE = Part(0, (Source("t", "/t", archive=True),))


def answer(start: int, count: int, *, last: bool = False, attempt: int = 0) -> Answer:
    lines = tuple(f"{start + place}" for place in range(count))
    return Answer(0, start, last, count, lines, Tally(captioned=count, busy=attempt), ())


def shown(answers: list[Answer]) -> list[tuple[int, int]]:
    return [(answer.start, answer.count) for answer in answers]


def gather(gathering: Gathering, *answers: Answer) -> list[list[tuple[int, int]]]:
    """What is taken as each answer comes."""
    return [shown(gathering.take(answer)) for answer in answers if gathering.add(answer)]


def test_a_group_is_taken_when_it_is_complete_and_in_its_order() -> None:
    gathering = Gathering(PICTURES, 10)
    assert gather(gathering, answer(14, 6, last=True), answer(0, 10), answer(10, 4)) == [
        [],
        [(0, 10)],
        [(10, 4), (14, 6)],
    ]
    assert not gathering.missing()
    assert shown(list(gathering.answers())) == [(0, 10), (10, 4), (14, 6)]


def test_answers_that_do_not_follow_on_one_another_are_left() -> None:
    gathering = Gathering(PICTURES, 20)
    first = [answer(0, 6), answer(6, 5), answer(11, 5)]
    second = [answer(start, 5, last=start == 15) for start in (0, 5, 10, 15)]
    assert gather(gathering, *first, *second)[-1] == [(0, 5), (5, 5), (10, 5), (15, 5)]


def test_what_leads_nowhere_does_not_keep_a_group_open() -> None:
    """The first attempt's answers end where no load of the second one starts."""
    gathering = Gathering(PICTURES, 20)
    assert gather(gathering, answer(0, 10), answer(10, 5), answer(0, 12), answer(12, 8, last=True)) == [
        [],
        [],
        [],
        [(0, 12), (12, 8)],
    ]


def test_of_the_same_the_first_stays() -> None:
    gathering = Gathering(PICTURES, 20)
    assert gathering.add(answer(0, 10, attempt=1))
    assert not gathering.add(answer(0, 10, attempt=2))
    rest = answer(10, 10, last=True)
    assert gathering.add(rest)
    assert [taken.tally.busy for taken in gathering.take(rest)] == [1, 0]
    assert not gathering.add(answer(0, 12))  # the group is complete
    assert not gathering.take(rest)


def test_an_archive_ends_where_the_last_load_says() -> None:
    gathering = Gathering(ARCHIVE, 10)
    assert gather(gathering, answer(0, 300), answer(300, 7, last=True)) == [[], [(0, 300), (300, 7)]]
    empty = Gathering(ARCHIVE, 10)
    assert gather(empty, answer(0, 0, last=True)) == [[(0, 0)]]
    assert not empty.missing()


@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_one_whole_attempt_among_others_gives_each_picture_once(chance: random.Random, size: int) -> None:
    gathering = Gathering(PICTURES, size)
    attempts = [_attempt(chance, size) for _ in range(3)]
    some = [answer for attempt in attempts[1:] for answer in attempt if chance.random() < 0.5]
    coming = [*attempts[0], *some]
    chance.shuffle(coming)
    taken = [taken for answer in coming if gathering.add(answer) for taken in gathering.take(answer)]
    assert not gathering.missing()
    lines = [line for answer in gathering.answers() for line in answer.lines]
    assert lines == [str(number) for number in range(20)]
    assert sum(answer.count for answer in taken) == 20


def _attempt(chance: random.Random, size: int) -> list[Answer]:
    found = []
    for group in PICTURES.groups(size):
        start, end = group.start, group.start + len(group.sources)
        while start < end:
            count = chance.randint(1, end - start)
            found.append(answer(start, count, last=group.last and start + count == end))
            start += count
    return found
