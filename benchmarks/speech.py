"""How faithful, how robust and how intelligible speech is. Prints a table each.

python benchmarks/speech.py reported --data Flickr8k [--split dev] [--count 200]
python benchmarks/speech.py fuzz [--count 10000]
python benchmarks/speech.py listen --data Flickr8k [--split dev] [--count 200] [--skip 0] [--spoken FILE]

``reported``: what espeak-ng says it spoke, beside the phones of captions that it was asked for.
``fuzz``: random phones, to see that nothing crashes or hangs.
``listen``: word error rate of an independent recogniser, PocketSphinx (``pip install pocketsphinx``), on captions
spoken from their text and from their phones. Its own language model is of the news: it knows next to nothing of such a
voice. It gets one of the training captions, bigrams by Witten and Bell (1991), the same for all rows. ``--spoken`` adds
what a model of phones said, as ``training.evaluate --json`` writes it, beside the words that it reads like.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from captioner.errors import CaptionerError
from captioner.phones import PHONES, split_stress, split_words, without_stress
from captioner.pronunciation import Pronouncer, spell_out
from captioner.prosody import running_speech
from captioner.sound import Sound
from captioner.speech import EspeakSpeaker
from training.datasets import read_dataset

HEARD_RATE = 16_000  # samples a second that the recogniser takes
BLOCK = 441  # 22,050 and 16,000 samples a second are as 441 and 320
Words = Sequence[str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("reported", "fuzz", "listen"))
    parser.add_argument("--data", type=Path, help="Flickr8k or other captions, see training/README.md")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--count", type=int, help="captions, or random sequences")
    parser.add_argument("--skip", type=int, default=0, help="captions before the first one")
    parser.add_argument("--spoken", type=Path, help="predictions to listen to: the JSON of training.evaluate")
    arguments = parser.parse_args()
    if arguments.measure == "fuzz":
        fuzz(arguments.count or 10_000)
        return
    if arguments.data is None:
        parser.error("captions come from --data")
    splits = read_dataset(arguments.data)
    end = arguments.skip + (arguments.count or 200)
    captions = [spell_out(example.captions[0]) for example in splits[arguments.split][arguments.skip : end]]
    if arguments.measure == "reported":
        report(captions)
        return
    taught = [spell_out(caption) for example in splits["train"] for caption in example.captions]
    predictions = json.loads(arguments.spoken.read_text())["predictions"] if arguments.spoken else []
    listen(captions, taught, [row["captions"][0] for row in predictions[arguments.skip : end]])


def report(captions: Iterable[Words]) -> None:
    """Compare the phones requested with those that espeak-ng says it spoke; the rest of the table tells differences.

    Two habits of a fluent speaker are no differences: an R that links a vowel of its colour to the next one, and an N
    before K or G that becomes NG.
    """
    sentences = right = phones = 0
    differences: Counter[tuple[str, str]] = Counter()
    with EspeakSpeaker() as speaker:
        pronounce = Pronouncer(speaker.transcribe)
        for caption in captions:
            for tokens in (said := pronounce(" ".join(caption)), without_stress(said)):
                words = running_speech(list(split_words(tokens)))
                wanted = fluent([split_stress(token)[0].espeak for word in words for token in word])
                spoken = fluent([phone.lstrip("',") for phone in speaker.phones(tokens).spoken])
                sentences, phones, right = sentences + 1, phones + len(wanted), right + (wanted == spoken)
                for kind, a, b, c, d in difflib.SequenceMatcher(None, wanted, spoken, autojunk=False).get_opcodes():
                    if kind != "equal":
                        differences[" ".join(wanted[a:b]), " ".join(spoken[c:d])] += 1
    print("| sequences | phones | reported as requested | other |\n|---|---|---|---|")
    print(f"| {sentences} | {phones} | {right} | {dict(differences.most_common(10))} |")


def fluent(phones: Iterable[str]) -> list[str]:
    """Mnemonics without pauses, linking R and the place of an N."""
    said: list[str] = []
    for phone in phones:
        if phone.startswith("_") or (phone == "r" and said[-1:] in (["3:"], ["r"])):
            continue
        if phone in ("k", "g") and said[-1:] == ["n"]:
            said[-1] = "N"
        said.append(phone)
    return said


def fuzz(count: int) -> None:
    """Random sequences of 1 to 400 tokens through one speaker."""
    generator = random.Random(0)
    outcomes: Counter[str] = Counter()
    processes: set[int] = set()
    started, length = time.perf_counter(), 0.0
    with EspeakSpeaker() as speaker:
        for _ in range(count):
            try:
                length += speaker.phones(random_tokens(generator)).seconds
                outcomes["sounds"] += 1
            except CaptionerError as error:
                outcomes[f"{type(error).__name__}: {error}"] += 1
            if speaker._process is not None:
                processes.add(speaker._process.pid)
    print("| sequences | outcomes | restarts | seconds | seconds of sound |\n|---|---|---|---|---|")
    seconds = time.perf_counter() - started
    print(f"| {count} | {dict(outcomes)} | {len(processes) - 1} | {seconds:.0f} | {length:.0f} |")


def random_tokens(generator: random.Random) -> list[str]:
    """Phones in words of any length, stressed or not."""
    boundaries, stressed = generator.random() * 0.4, generator.random() < 0.5
    tokens = []
    for _ in range(generator.randint(1, 400)):
        phone = generator.choice(list(PHONES.values()))
        stress = generator.choice("012") if stressed and phone.vowel else ""
        tokens.append("|" if generator.random() < boundaries else phone.arpabet + stress)
    return tokens


def listen(captions: Sequence[Words], taught: Sequence[Words], rows: Sequence[dict[str, Any]]) -> None:
    """Word error rates by what was spoken, and how long that was."""
    with EspeakSpeaker() as speaker, tempfile.TemporaryDirectory() as folder:
        pronounce = Pronouncer(speaker.transcribe)
        recognise = make_recogniser(taught, Path(folder))
        said = {" ".join(caption): pronounce(" ".join(caption)) for caption in captions}
        spoken: dict[str, Callable[[str], Sound]] = {
            "the text": speaker.text,
            "its phones": lambda text: speaker.phones(said[text]),
            "its phones, stress restored": lambda text: speaker.phones(without_stress(said[text])),
        }
        print("| spoken | words | errors | word error rate | times the text's | seconds of sound |")
        print("|---|---|---|---|---|---|")
        base: float | None = None
        for name, speak in spoken.items():
            rate = measure(name, ((caption, speak(" ".join(caption))) for caption in captions), recognise, base)
            base = base or rate
        if rows:
            predicted = ((row["words"].split(), speaker.phones(row["tokens"])) for row in rows)
            measure("predicted phones", predicted, recognise, base)


def measure(
    name: str, spoken: Iterable[tuple[Words, Sound]], recognise: Callable[[Sound], Words], base: float | None
) -> float:
    """Print one row of the table; returns its word error rate."""
    words = errors = 0
    seconds = 0.0
    for wanted, sound in spoken:
        words += len(wanted)
        errors += Levenshtein.distance(wanted, recognise(sound))
        seconds += sound.seconds
    rate = errors / words
    print(f"| {name} | {words} | {errors} | {rate:.3f} | {rate / (base or rate):.2f} | {seconds:.0f} |", flush=True)
    return rate


def make_recogniser(taught: Sequence[Words], folder: Path) -> Callable[[Sound], list[str]]:
    """PocketSphinx with its English sounds, and the words and bigrams of ``taught``."""
    from pocketsphinx import Decoder, get_model_path

    known: dict[str, list[str]] = {}
    for line in Path(get_model_path(), "en-us", "cmudict-en-us.dict").read_text().splitlines():
        known.setdefault(line.split("(")[0].split(" ")[0], []).append(line)
    sentences = [[word for word in sentence if word in known] for sentence in taught]
    used = sorted({word for sentence in sentences for word in sentence})
    (folder / "words.dict").write_text("\n".join(line for word in used for line in known[word]) + "\n")
    write_bigrams(sentences, folder / "bigrams.arpa")
    decoder = Decoder(
        samprate=HEARD_RATE, lm=str(folder / "bigrams.arpa"), dict=str(folder / "words.dict"), loglevel="FATAL"
    )

    def recognise(sound: Sound) -> list[str]:
        decoder.start_utt()
        decoder.process_raw(resample(sound), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr.split() if hypothesis else []

    return recognise


def write_bigrams(sentences: Iterable[Words], path: Path) -> None:
    """A language model in the ARPA format: bigrams, interpolated with words as Witten and Bell (1991) weigh them."""
    lines = [("<s>", *sentence, "</s>") for sentence in sentences]
    words = Counter(word for line in lines for word in line[1:])
    pairs = Counter(pair for line in lines for pair in itertools.pairwise(line))
    kinds = Counter(first for first, _ in pairs)
    share = {word: count / words.total() for word, count in words.items()}
    seen: Counter[str] = Counter()
    for (first, _), count in pairs.items():
        seen[first] += count
    left = {word: kinds[word] / (kinds[word] + seen[word]) for word in kinds}
    with path.open("w") as file:
        file.write(f"\\data\\\nngram 1={len(words) + 1}\nngram 2={len(pairs)}\n\n\\1-grams:\n-99 <s> ")
        file.write(f"{math.log10(left['<s>']):.4f}\n")
        for word in sorted(words):
            file.write(f"{math.log10(share[word]):.4f} {word} {math.log10(left.get(word, 1)):.4f}\n")
        file.write("\n\\2-grams:\n")
        for (first, second), count in sorted(pairs.items()):
            probability = (1 - left[first]) * count / seen[first] + left[first] * share[second]
            file.write(f"{math.log10(probability):.4f} {first} {second}\n")
        file.write("\n\\end\\\n")


def resample(sound: Sound) -> bytes:
    """At the recogniser's rate; what it cannot hold is cut off in the spectrum, which is exact for a whole sound."""
    samples = np.frombuffer(sound.pcm, dtype="<i2").astype(float)
    samples = np.pad(samples, (0, -len(samples) % BLOCK))
    length = len(samples) * HEARD_RATE // sound.sample_rate
    spectrum = np.fft.rfft(samples)[: length // 2 + 1]
    heard = np.fft.irfft(spectrum, length) * length / len(samples)
    return np.clip(heard.round(), -(2**15), 2**15 - 1).astype("<i2").tobytes()


if __name__ == "__main__":
    main()
