"""The queue in front of the models: who shares a batch, who fails, who is forgotten."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from captioner import Caption, Captioner, DecodingOptions
from captioner.engines import FloatArray
from captioner.errors import CaptionerError, ModelError
from service.batching import Batcher
from service.caller import Caller
from service.errors import UnavailableError

PATIENT = Caller(float("inf"))
OPTIONS = DecodingOptions()
BAD = 13.0  # pixels that no model likes here


@dataclass
class Metrics:
    batches: list[tuple[str, int]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    def observe_batch(self, model: str, images: int) -> None:
        self.batches.append((model, images))

    def observe_stage(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)


class Model:
    """Says of each image what its first pixel is, when it is let go on."""

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Semaphore(0)
        self.options: list[Sequence[DecodingOptions]] = []

    def caption_pixels(self, pixels: Sequence[FloatArray], options: Sequence[DecodingOptions]) -> list[list[Caption]]:
        self.begun.release()
        assert self.go_on.wait(20)
        self.options.append(options)
        if any(image[0] == BAD for image in pixels):
            raise ModelError("that one is bad")
        return [[caption(image[0])] for image in pixels]


def caption(number: float) -> Caption:
    return Caption(f"{number:g}", (), 0.0, 0.0, (), np.zeros((0, 1, 1), np.float32), "model")


@dataclass
class House:
    """A batcher whose model is busy, so that what is submitted has to queue."""

    batcher: Batcher
    model: Any
    metrics: Metrics

    def submit(self, number: float, **changes: Any) -> Future[list[Caption]]:
        model, options, caller = (
            changes.get(name, usual)
            for name, usual in (("model", self.model), ("options", OPTIONS), ("caller", PATIENT))
        )
        return self.batcher.submit(model, np.array([number]), options, caller)

    def occupy(self) -> Future[list[Caption]]:
        self.model.go_on.clear()
        first = self.submit(0)
        assert self.model.begun.acquire(timeout=20)
        return first


@pytest.fixture
def house() -> House:
    metrics = Metrics()
    return House(Batcher(max_batch=4, wait=20, metrics=metrics), Model(), metrics)  # type: ignore[arg-type]


def said(futures: Sequence[Future[list[Caption]]]) -> list[str]:
    return [future.result(20)[0].text for future in futures]


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_one_alone_does_not_wait(house: House) -> None:
    assert said([house.submit(7)]) == ["7"]  # the wait of 20 s would be noticed
    eventually(lambda: sorted(house.metrics.stages) == ["model", "queue"])


def test_what_queued_meanwhile_shares_batches_in_order(house: House) -> None:
    first = house.occupy()
    others = [house.submit(number) for number in range(1, 8)]
    house.model.go_on.set()
    assert said([first, *others]) == [f"{number}" for number in range(8)]
    eventually(lambda: house.metrics.batches == [("model", 1), ("model", 4), ("model", 3)])


def test_it_waits_for_those_on_their_way(house: House) -> None:
    with house.batcher.expecting():
        first = house.submit(1)
        with house.batcher.expecting():
            assert not first.done()
            second = house.submit(2)
    assert said([first, second]) == ["1", "2"]
    eventually(lambda: house.metrics.batches == [("model", 2)])


def test_a_full_batch_waits_for_nobody(house: House) -> None:
    with house.batcher.expecting():
        assert said([house.submit(number) for number in range(4)]) == ["0", "1", "2", "3"]


def test_it_waits_no_longer_than_told() -> None:
    metrics = Metrics()
    house = House(Batcher(max_batch=4, wait=0.001, metrics=metrics), Model(), metrics)  # type: ignore[arg-type]
    with house.batcher.expecting():
        assert said([house.submit(1)]) == ["1"]


def test_models_do_not_share_a_batch_even_of_one_name(house: House) -> None:
    first, other = house.occupy(), Model()
    one, two, three = house.submit(1), house.submit(2, model=other), house.submit(3)
    house.model.go_on.set()
    assert said([first, one, two, three]) == ["0", "1", "2", "3"]
    assert [len(batch) for batch in house.model.options] == [1, 2]
    assert [len(batch) for batch in other.options] == [1]


def test_options_go_with_their_images(house: House) -> None:
    first = house.occupy()
    kinds = [DecodingOptions(beam_size=size) for size in (1, 5, 1)]
    others = [house.submit(number, options=options) for number, options in enumerate(kinds)]
    house.model.go_on.set()
    said([first, *others])
    assert house.model.options[1] == kinds


def test_a_bad_one_fails_alone(house: House) -> None:
    first = house.occupy()
    good, bad, better = house.submit(1), house.submit(BAD), house.submit(2)
    house.model.go_on.set()
    assert said([first, good, better]) == ["0", "1", "2"]
    with pytest.raises(ModelError, match="that one is bad"):
        bad.result(20)


def test_a_crash_of_the_model_is_told_and_survived(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(house.model, "caption_pixels", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        house.submit(1).result(20)
    assert "An image could not be captioned" in caplog.text
    monkeypatch.undo()
    assert said([house.submit(2)]) == ["2"]


def test_whoever_gave_up_is_forgotten(house: House) -> None:
    first = house.occupy()
    given_up, patient = house.submit(1), house.submit(2)
    assert given_up.cancel()
    house.model.go_on.set()
    assert said([first, patient]) == ["0", "2"]
    assert [len(batch) for batch in house.model.options] == [1, 1]


def refused(future: Future[list[Caption]]) -> str:
    with pytest.raises(UnavailableError) as error:
        future.result(20)
    return error.value.code


def test_whoever_hung_up_or_waited_too_long_is_dropped(house: House) -> None:
    ours, theirs = socket.socketpair()
    first = house.occupy()
    deadline = time.monotonic() + 0.001
    late = house.submit(1, caller=Caller(deadline))
    gone = house.submit(2, caller=Caller(float("inf"), ours))
    theirs.close()
    eventually(lambda: time.monotonic() > deadline)
    house.model.go_on.set()
    assert said([first, house.submit(3)]) == ["0", "3"]
    assert (refused(late), refused(gone)) == ("deadline", "client_gone")
    assert sum(len(batch) for batch in house.model.options) == 2
    ours.close()


def test_a_client_that_is_quiet_or_impatient_is_still_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for timeout in (None, 0.0, 30.0):  # with a timeout, a plain look would wait as long
            ours.settimeout(timeout)
            Caller(float("inf"), ours).check()
        theirs.sendall(b"the next request")
        Caller(float("inf"), ours).check()


def test_requests_of_many_threads_get_their_own_captions(tiny_captioner: Captioner) -> None:
    metrics = Metrics()
    batcher = Batcher(max_batch=5, wait=0.001, metrics=metrics)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    size = (3, tiny_captioner.info.image.height, tiny_captioner.info.image.width)
    images = [random.normal(size=size).astype(np.float32) for _ in range(24)]
    kinds = [tiny_captioner.options(beam_size=1 + number % 3, n_best=1) for number in range(24)]
    expected = [
        tiny_captioner.caption_pixels([image], kind)[0][0].text for image, kind in zip(images, kinds, strict=True)
    ]
    found: list[str] = [""] * 24

    def ask(number: int) -> None:
        with batcher.expecting():
            future = batcher.submit(tiny_captioner, images[number], kinds[number], PATIENT)
        found[number] = future.result(20)[0].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    eventually(lambda: sum(size for _, size in metrics.batches) == 24)


def test_errors_of_callers_are_errors_of_the_service() -> None:
    with pytest.raises(CaptionerError) as error:
        Caller(0.0).left()
    assert error.value.code == "deadline"
