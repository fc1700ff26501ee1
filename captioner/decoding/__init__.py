"""From a grid to sequences: one loop over an engine, for greedy, beam search and sampling alike."""

from __future__ import annotations

from collections.abc import Sequence

from captioner.config import require
from captioner.decoding.beam import BeamSearch
from captioner.decoding.expectation import Judge
from captioner.decoding.filters import IS_NEVER, NEVER, no_repeat_ngram
from captioner.decoding.options import DecodingOptions
from captioner.decoding.sampling import Sampler
from captioner.decoding.search import Hypothesis
from captioner.engines import Decoder, Grid

__all__ = ["DecodingOptions", "Hypothesis", "decode"]

SEARCHES = {"beam": BeamSearch, "sample": Sampler}


def decode(
    engine: Decoder, grid: Grid, images: int, options: DecodingOptions, judges: Sequence[Judge] = ()
) -> list[list[Hypothesis]]:
    """The best sequences of each image, best first, ``options.n_best`` at most.

    Args:
        engine: runs the network.
        grid: what ``engine.encode`` gave for a batch.
        images: B, how many images the grid holds.
        options: method and limits.
        judges: one an image, where ``options.rank`` is ``cider``.

    Raises:
        OptionError: ``options.rank`` is ``cider``, and there are no judges.
    """
    require(options.rank != "cider" or len(judges) == images, "rank cider needs a judge for each image")
    search = SEARCHES[options.method](images, options)
    wanted = None if search.wanted is None else search.wanted + len(NEVER)
    repeats = no_repeat_ngram(options.no_repeat_ngram) if options.no_repeat_ngram else None
    state = engine.select(engine.start(grid), search.first_rows)
    while search.active.size:
        forbidden = repeats(search.prefixes) if repeats else search.prefixes[:, :0]
        # What a search wants is among so many, whichever of them it may not have.
        count = None if wanted is None else wanted + forbidden.shape[1]
        candidates, state, weights = engine.step(search.tokens, state, grid, count)
        candidates.forbid_everywhere(IS_NEVER)
        if forbidden.size:
            candidates.forbid(forbidden)
        before = search.active
        rows = search.advance(candidates, weights)
        state = engine.select(state, rows)
        if search.active.size < before.size:  # finished images leave the batch
            grid = engine.select(grid, before.searchsorted(search.active))
    return search.results(judges)
