from __future__ import annotations

import dataclasses
import gc
import io
import itertools
import json
import random
import re
import threading
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from captioner import sound as sounds
from captioner import speech
from captioner.errors import DependencyError, OptionError, SpeechError
from captioner.phones import PHONES, parse_phones, split_stress, split_words
from captioner.prosody import running_speech
from captioner.results import Caption
from captioner.sound import Sound, join
from captioner.speech import EspeakSpeaker, Voice, speak_caption

PAUSES = {"_", "_:"}


@pytest.fixture(scope="module")
def speaker() -> Iterator[EspeakSpeaker]:
    with EspeakSpeaker() as speaker:
        yield speaker


def spoken(sound: Sound) -> list[str]:
    """The phones that were spoken, without stress and pauses."""
    return [phone.lstrip("',") for phone in sound.spoken if phone not in PAUSES]


def pitch(sound: Sound) -> float:
    """Fundamental frequency in Hz, by autocorrelation: the shift of 1/400 to 1/60 s that matches best."""
    samples = np.frombuffer(sound.pcm, dtype="<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
    correlation = np.fft.irfft(spectrum)
    shortest, longest = sound.sample_rate // 400, sound.sample_rate // 60
    return sound.sample_rate / (shortest + int(correlation[shortest:longest].argmax()))


def test_a_wav_file_of_plausible_length(speaker: EspeakSpeaker) -> None:
    sound = speaker.phones(parse_phones("DH AH0 | D AO1 G | R AH1 N Z"))
    with wave.open(io.BytesIO(sound.wav())) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050)
        assert file.readframes(file.getnframes()) == sound.pcm
    assert 0.4 < sound.seconds < 2
    assert max(sound.pcm) > 0
    assert spoken(sound) == ["D", "@", "d", "O:", "g", "r", "V", "n", "z"]


@pytest.mark.parametrize("name", sorted(PHONES))
def test_every_phone_is_spoken_as_asked(speaker: EspeakSpeaker, name: str) -> None:
    word = ["K", name, "T"] if PHONES[name].vowel else ["S", "IY1", name, "AH0"]
    said = spoken(speaker.phones(word))
    at = 1 if PHONES[name].vowel else 2
    # The American voice taps a t between vowels.
    assert said[at].rstrip("#") == PHONES[name].espeak


def wanted(tokens: Sequence[str]) -> list[str]:
    """What the phones are called by espeak-ng."""
    words = running_speech(list(split_words(tokens)))
    return [split_stress(token)[0].espeak for word in words for token in word]


@pytest.mark.parametrize("voice", ["en-us", "en-gb", "en-gb-scotland", "en-us+f3"])
def test_a_long_sequence_is_spoken_whole(speaker: EspeakSpeaker, voice: str) -> None:
    tokens = " | ".join(["DH AH0", "R EH1 D", "K AA1 R", "S L OW1 L IY0", "F AO1 R K", "SH EH1 R Z"] * 20).split()
    said = itertools.groupby(spoken(speaker.phones(tokens, Voice(voice))))  # a Scottish R is coloured, and rolled too
    assert [phone for phone, _ in said] == wanted(tokens)


def test_an_articles_schwa_does_not_melt_into_an_r(speaker: EspeakSpeaker) -> None:
    tokens = parse_phones("AH0 | R EH1 D | DH AH0 | R AA1 K | K AE1 M AH0 R AH0 | R EH1 D")
    assert spoken(speaker.phones(tokens)) == wanted(tokens)


@pytest.mark.parametrize(
    ("bare", "stressed"),
    [
        ("AH | D AO G | IH Z | R AH N IH NG", "AH0 | D AO1 G | IH0 Z | R AH1 N IH0 NG"),
        ("P ER S AH N Z | AH V | DH AH | HH AW S", "P ER1 S AH0 N Z | AH0 V | DH AH0 | HH AW1 S"),
    ],
)
def test_stress_is_restored(speaker: EspeakSpeaker, bare: str, stressed: str) -> None:
    assert speaker.phones(parse_phones(bare)).spoken == speaker.phones(parse_phones(stressed)).spoken


def test_a_long_caption_has_a_short_pause_between_its_phrases(speaker: EspeakSpeaker) -> None:
    long = parse_phones("TH R IY1 | B IH1 G | D AO1 G Z | R AH1 N | HH OW1 M | AH0 N D | P L EY1 | IH0 N | M AH1 D")
    said = speaker.phones(long).spoken
    assert [index for index, phone in enumerate(said[:-2]) if phone in PAUSES] == [len(wanted(long[:20]))]
    assert not PAUSES & set(speaker.phones(long[:12]).spoken[:-2])


def test_random_phones_never_break_it(speaker: EspeakSpeaker) -> None:
    generator = random.Random(1)
    for _ in range(30):
        tokens = [generator.choice([*PHONES, "|"]) for _ in range(generator.randint(1, 400))] + ["AA"]
        assert speaker.phones(tokens).seconds > 0.1


def test_text_is_spoken_by_the_voice_asked_for(speaker: EspeakSpeaker) -> None:
    plain, fast, high, british = (
        speaker.text("A dog runs through the grass.", voice)
        for voice in (Voice(), Voice(rate=320), Voice(pitch=90), Voice("en-gb"))
    )
    assert fast.seconds < 0.8 * plain.seconds
    assert pitch(high) > 1.3 * pitch(plain)
    assert british.spoken != plain.spoken
    assert speaker.text("A dog runs through the grass.").spoken == plain.spoken, "nothing is left of other voices"


def test_text_cannot_smuggle_phones_or_markup_in(speaker: EspeakSpeaker) -> None:
    assert speaker.text('one <break time="60s"/> two').seconds < 20
    assert spoken(speaker.text("[[h@l'oU]]")) != spoken(speaker.phones(parse_phones("HH AH0 L OW1")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 79}, "rate must be 80 to 450"),
        ({"rate": 451}, "rate"),
        ({"pitch": 100}, "pitch must be 0 to 99"),
        ({"pitch": -1}, "pitch"),
        ({"name": "../x"}, "voice must be a name"),
        ({"name": ""}, "voice"),
    ],
)
def test_impossible_voices_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Voice(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["klingon-x", "en-us+nonsense", "en-us+", "variant"])
def test_an_unknown_voice_is_refused_and_the_next_request_is_spoken(speaker: EspeakSpeaker, name: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"no voice '{name}'")):
        speaker.text("a dog", Voice(name))
    assert speaker.text("a dog").seconds > 0.3


def test_variants_of_a_voice_and_other_languages_speak(speaker: EspeakSpeaker) -> None:
    assert pitch(speaker.text("a dog runs", Voice("en-us+f3"))) > 1.2 * pitch(speaker.text("a dog runs"))
    assert speaker.text("ein Hund", Voice("de")).seconds > 0.3
    with pytest.raises(OptionError, match="phones are of English"):
        speaker.phones(["AA1"], Voice("de"))


def test_a_sound_without_end_is_refused(speaker: EspeakSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "MAX_SECONDS", 3)
    with pytest.raises(OptionError, match="longer than 3 seconds"):
        speaker.text("7" * 100)
    monkeypatch.setattr(sounds, "MAX_SECONDS", 5)
    with pytest.raises(OptionError, match="longer than 5 seconds"):
        speaker.text("one two three four. " * 40)
    assert speaker.text("7").seconds > 0.3


def test_words_are_transcribed_one_by_one(speaker: EspeakSpeaker) -> None:
    words = ["wakeboardingcompetitions", "bmx", "shirtless"] * 20
    ipa = speaker.transcribe(words)
    assert ipa[:3] == ["wˌeɪkbɔːɹdˌɪŋkəmpɪtˈɪʃənz", "bˌiːˌɛmˈɛks", "ʃˈɜːtləs"]
    assert ipa == ipa[:3] * 20


def test_a_place_where_there_are_no_voices_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "espeakng_loader.py").write_text(
        "import ctypes, importlib.machinery, importlib.util, os, sys\n"
        f"sys.path.remove({str(tmp_path)!r})\n"
        "spec = importlib.machinery.PathFinder.find_spec('espeakng_loader', sys.path)\n"
        "real = importlib.util.module_from_spec(spec); spec.loader.exec_module(real)\n"
        "get_library_path = real.get_library_path\n"
        f"get_data_path = lambda: {str(tmp_path / 'none')!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with EspeakSpeaker() as speaker, pytest.raises(SpeechError, match=r"cannot read its data in .*none"):
        speaker.text("a dog")


@pytest.mark.parametrize("text", ["", "  \n", "\x00\x07"])
def test_nothing_to_say_is_refused(speaker: EspeakSpeaker, text: str) -> None:
    with pytest.raises(OptionError, match="no text"):
        speaker.text(text)
    with pytest.raises(OptionError, match="no phones"):
        speaker.phones([])


def test_too_much_is_refused(speaker: EspeakSpeaker) -> None:
    with pytest.raises(OptionError, match="too long"):
        speaker.text("a " * 6000)
    with pytest.raises(OptionError, match="too many"):
        speaker.phones(["AA"] * 10_001)


def test_long_text_is_spoken_in_parts_as_it_comes(speaker: EspeakSpeaker) -> None:
    read: list[int] = []

    def lines() -> Iterator[str]:
        for index in itertools.count():
            read.append(index)
            yield f"Line {index} tells of a dog. "

    stream = speaker.stream(lines())
    first, second = next(stream), next(stream)
    assert first.seconds > 0.3
    assert second.sample_rate == first.sample_rate
    assert len(read) <= 4, "no more is read than is spoken"
    assert speaker.text("a dog").seconds > 0.3, "others speak between two parts"
    third = next(stream)
    stream.close()
    assert third.spoken == speaker.text("Line 2 tells of a dog.").spoken
    assert speaker.text("a dog").seconds > 0.3


def test_a_stream_has_no_limit_and_says_what_a_sound_says(speaker: EspeakSpeaker) -> None:
    text = "Two dogs run. A cat sleeps! Is it red?"
    assert join(speaker.stream(iter(text))).spoken == speaker.text(text).spoken
    tokens = parse_phones("DH AH0 | D AO1 G | R AH1 N Z")
    assert join(speaker.stream_phones(tokens)).spoken == speaker.phones(tokens).spoken
    assert next(speaker.stream("a dog " * 10_000)).seconds > 1
    assert next(speaker.stream_phones(["AA1", "|"] * 10_000)).seconds > 1


def test_a_stream_without_content_is_refused(speaker: EspeakSpeaker) -> None:
    with pytest.raises(OptionError, match="no text"):
        next(speaker.stream(["", " \n"]))
    with pytest.raises(OptionError, match="no phones"):
        next(speaker.stream_phones(["|"]))


def test_a_crash_within_a_stream_is_an_error(speaker: EspeakSpeaker) -> None:
    with EspeakSpeaker() as broken:
        stream = broken.stream("One. Two. Three.")
        assert next(stream).pcm
        assert broken._process is not None
        broken._process.kill()
        broken._process.wait()
        with pytest.raises(SpeechError, match="broke down"):
            next(stream)


def test_a_crash_or_a_hang_is_an_error_and_the_next_request_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    with EspeakSpeaker() as speaker:
        assert speaker.text("a").pcm
        assert speaker._process is not None
        speaker._process.kill()
        speaker._process.wait()
        with pytest.raises(SpeechError, match="broke down"):
            speaker.text("a dog")
        assert speaker.text("a dog").seconds > 0.3
        monkeypatch.setattr(speech, "TIMEOUT", 0.001)  # no answer is as fast: to the caller, a hang
        with pytest.raises(SpeechError):
            speaker.text("a dog runs through the grass. " * 300)
        monkeypatch.undo()
        assert speaker.text("a dog").seconds > 0.3


def test_a_forgotten_speaker_ends_its_process() -> None:
    speaker = EspeakSpeaker()
    assert speaker.text("a").pcm
    process = speaker._process
    del speaker
    gc.collect()
    assert process is not None
    assert process.poll() is not None


def test_an_interrupted_answer_is_not_mistaken_for_the_next(
    speaker: EspeakSpeaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(line: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "loads", interrupt)
    with pytest.raises(KeyboardInterrupt):
        speaker.text("one two three four five six")
    monkeypatch.undo()
    assert spoken(speaker.phones(["AA1"])) == ["A:"]


def test_threads_share_a_speaker(speaker: EspeakSpeaker) -> None:
    texts = ["one", "two dogs", "three brown dogs", "four brown dogs run"]
    alone = [speaker.text(text).spoken for text in texts]
    together: list[Sequence[str]] = [()] * len(texts)

    def say(index: int) -> None:
        for _ in range(5):
            together[index] = speaker.text(texts[index]).spoken

    threads = [threading.Thread(target=say, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"captioner\[speech\]"):
        EspeakSpeaker()


def test_words_are_spoken_as_text_and_symbols_as_phones(speaker: EspeakSpeaker) -> None:
    words, phones = (
        Caption(text, tuple(text.split()), 0.0, 0.0, (), np.zeros((0, 1, 1), np.float32), "m")
        for text in ("a dog", "AH0 | D AO1 G")
    )
    assert speak_caption(speaker, words, "words").spoken == speaker.text("A dog.").spoken
    assert speak_caption(speaker, phones, "symbols").spoken == speaker.phones(["AH0", "|", "D", "AO1", "G"]).spoken
    with pytest.raises(OptionError, match="'m' says phones that are not of English: 'a' is no ARPAbet phone"):
        speak_caption(speaker, words, "symbols")
    silent = dataclasses.replace(phones, text="SIL", tokens=("SIL",))
    with pytest.raises(OptionError, match=r"^there are no phones to speak"):
        speak_caption(speaker, silent, "symbols")
