"""What has come of a part: answers in any order, from several attempts, of which each picture is taken once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain

from captioner.batch.cluster.captioning import Answer
from captioner.batch.cluster.parts import Group, Part


class Gathering:
    """A part of which answers are still to come.

    A group is captioned in loads, and where one ends depends on what could be read (see
    :func:`captioner.batch.cluster.reading.fill`): another attempt may cut the group in other places. So all answers are
    kept until some of them follow on one another from the group's beginning to its end; these are taken, the others are
    not. Any attempt that comes in as a whole is enough for that.

    Args:
        part: what is captioned.
        size: pictures of a group.
    """

    def __init__(self, part: Part, size: int) -> None:
        self.part = part
        groups = part.groups(size)
        self._starts = [group.start for group in groups]
        self._open = {group.start: _Answers(group) for group in groups}
        self._taken: dict[int, list[Answer]] = {}

    def add(self, answer: Answer) -> bool:
        """Note an answer; whether it tells anything new."""
        answers = self._open.get(self._group(answer))
        return answers is not None and answers.add(answer)

    def take(self, answer: Answer) -> list[Answer]:
        """The answers of the group that one has completed, in their order; of one that is not complete none."""
        start = self._group(answer)
        taken = self._open[start].chain() if start in self._open else []
        if taken:
            self._taken[start] = taken
            del self._open[start]
        return taken

    def missing(self) -> list[Group]:
        """The groups that are not complete."""
        return [answers.group for answers in self._open.values()]

    def answers(self) -> Iterator[Answer]:
        """What was taken, in the order of the pictures."""
        return chain.from_iterable(self._taken[start] for start in self._starts if start in self._taken)

    def _group(self, answer: Answer) -> int:
        """Where its group starts."""
        return self._starts[bisect_right(self._starts, answer.start) - 1]


class _Answers:
    def __init__(self, group: Group) -> None:
        self.group = group
        self._answers: dict[tuple[int, int, bool], Answer] = {}

    def add(self, answer: Answer) -> bool:
        return self._answers.setdefault((answer.start, answer.count, answer.last), answer) is answer

    def chain(self) -> list[Answer]:
        """Answers that follow on one another through the whole group, if there are such."""
        before: dict[int, Answer] = {}  # by where it ends, what leads there
        for answer in _sorted(self._answers.values()):
            if answer.start != self.group.start and answer.start not in before:
                continue
            end = answer.start + answer.count
            if answer.last or end == self.group.end:
                found = [answer]
                while found[-1].start != self.group.start:
                    found.append(before[found[-1].start])
                return found[::-1]
            before.setdefault(end, answer)
        return []


def _sorted(answers: Iterable[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda answer: answer.start)
