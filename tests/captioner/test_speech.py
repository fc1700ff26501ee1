from __future__ import annotations

import gc
import io
import json
import random
import re
import threading
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import speech
from captioner.captioner import Caption
from captioner.errors import DependencyError, OptionError, SpeechError
from captioner.phones import PHONES, parse_phones, split_words
from captioner.speech import (
    MAX_BYTES,
    MAX_PHONES,
    EspeakSpeaker,
    Sound,
    Voice,
    mnemonics,
    phone_chunks,
    speak_caption,
    text_chunks,
)

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


def test_stress_follows_the_digits_or_else_the_vowels() -> None:
    def spell(text: str) -> list[str]:
        return [" ".join(mnemonics(word)) for word in split_words(text.split())]

    assert spell("S K EY1 T B AO2 R D ER0") == ["s k 'eI t b ,O: r d 3:"]
    assert spell("AH0 | AH1 P") == ["@", "'V p"]
    assert spell("DH AH | AH | R AH N | B AH T ER | K AE T | SH") == ["D @", "@", "r 'V n", "b @ t '3:", "k 'a t", "S"]


def test_a_long_sentence_is_spoken_whole(speaker: EspeakSpeaker) -> None:
    tokens = " | ".join(["DH AH0", "B R AW1 N", "D AO1 G"] * 20).split()
    wanted = [m.lstrip("',") for word in split_words(tokens) for m in mnemonics(word)]
    assert spoken(speaker.phones(tokens)) == wanted


@given(st.lists(st.sampled_from([*PHONES, "|"]), max_size=300))
def test_chunks_of_phones_hold_all_and_stay_below_the_limits(tokens: list[str]) -> None:
    chunks = list(phone_chunks(tokens))
    phones: list[str] = []
    for chunk in chunks:
        assert len(chunk.encode()) <= MAX_BYTES
        assert chunk.startswith("[[")
        assert chunk.endswith("]]")
        words = [word.split("|") for word in chunk[2:-2].split(" ")]
        assert 0 < sum(map(len, words)) <= MAX_PHONES
        phones += [phone for word in words for phone in word]
    assert phones == [phone for word in split_words(tokens) for phone in mnemonics(word)]


@given(st.text(max_size=3000))
def test_chunks_of_text_hold_all_and_stay_below_the_limits(text: str) -> None:
    chunks = list(text_chunks(text))
    assert all(0 < len(chunk.encode()) <= MAX_BYTES for chunk in chunks)
    readable = [character for character in text if not character.isspace() and category(character)[0] != "C"]
    assert "".join("".join(chunks).split()) == "".join(readable)


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
        speaker.text("7" * 200)
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
    with pytest.raises(OptionError, match="no ARPAbet phone"):
        speak_caption(speaker, words, "symbols")
