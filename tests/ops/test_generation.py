"""Beam search against trying every text."""

from __future__ import annotations

import numpy as np

from .cases.generation import BEAMS, HOW, TEXTS, beam_search, tried


def test_enough_beams_find_the_best_texts() -> None:
    texts, scores, steps = beam_search(*BEAMS, encoder=None, **HOW)
    wanted, wanted_scores = tried(TEXTS)
    np.testing.assert_array_equal(texts, wanted)
    np.testing.assert_allclose(scores, wanted_scores, rtol=1e-5)
    assert steps.shape == (2, 2, 4, 4)
