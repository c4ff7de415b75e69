"""Whether two figures put images in the same order."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl_sim.core.errors import FlSimError

_DRAWS = 2000  # of the bootstrap
_FEWEST = 5  # groups: of fewer a bootstrap has too few different draws to say anything

Values = NDArray[np.float64]


class Correlation(NamedTuple):
    """Spearman's, in [-1, 1], with its 95 % interval; ``None`` where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def rank_correlation(first: Sequence[float], second: Sequence[float], groups: Sequence[Hashable]) -> Correlation:
    """Spearman's rank correlation, ties at their mean rank; ``None`` where all of one are equal.

    The interval is the percentile bootstrap's over ``groups``, whose members (the images of one client) are drawn
    together, for they are not independent; ``None`` with fewer than five. Draws are the same each time.
    """
    if len(first) < 1 or not np.isfinite([first, second]).all():
        raise FlSimError("expected at least one value, all finite: report failures by name")
    pairs, rng = np.array([first, second], dtype=np.float64), np.random.default_rng(0)
    found = _spearman(pairs)
    places = {group: [i for i, own in enumerate(groups) if own == group] for group in dict.fromkeys(groups)}
    if found is None or len(places) < _FEWEST:
        return Correlation(found, None, None)
    those = [np.array(own) for own in places.values()]
    draws = (np.concatenate([those[i] for i in rng.integers(len(those), size=len(those))]) for _ in range(_DRAWS))
    drawn = [value for draw in draws if (value := _spearman(pairs[:, draw])) is not None]
    return Correlation(found, *(float(end) for end in np.percentile(drawn, [2.5, 97.5])))


def _spearman(pairs: Values) -> float | None:
    from scipy.stats import rankdata

    ranks: Any = rankdata(pairs, axis=1)
    centred = ranks - ranks.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).sum(1)).prod()
    return float((centred[0] * centred[1]).sum() / spread) if spread else None
