from __future__ import annotations

import captioner


def test_smoke(tiny_captioner, photo):
    for kw in ({}, dict(beam_size=1), dict(beam_size=4,n_best=4), dict(method="sample",n_best=3,seed=1), dict(no_repeat_ngram=1)):
        for c in tiny_captioner.candidates(photo, **kw): print(kw, c.text, c.score, c.attention.shape)
    for r in tiny_captioner.batch([photo, b"x", photo]): print(r.to_row())
