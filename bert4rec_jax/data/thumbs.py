"""Thumbs: ratings of any scale, reduced to none, down, up or two up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.options import option
from bert4rec_jax.errors import UserError

NONE = 0
DOWN = 1
UP = 2
TWO_UP = 3


def to_thumbs(
    ratings: npt.NDArray[np.floating[Any]], thresholds: tuple[float, float]
) -> npt.NDArray[np.int8]:
    """Convert ratings to thumbs of the same shape.

    With the thresholds (6, 9) the ratings 5, 6, 8, 9, NaN become DOWN, UP, UP, TWO_UP, NONE.

    Args:
      ratings: NaN where unrated.
      thresholds: ratings from the first on are UP, from the second on TWO_UP.
    """
    up, two_up = thresholds
    rated = DOWN + (ratings >= up).astype(np.int8) + (ratings >= two_up).astype(np.int8)
    return np.where(np.isnan(ratings), np.int8(NONE), rated).astype(np.int8)


def default_thresholds(max_rating: float | None, *, read: bool = True) -> tuple[float, float]:
    """Thresholds by rating scale: (3, 4.5) up to 5, (6, 9) up to 10; of 0 and 1, 1 is thumbs up.

    Without ratings (None) every thumb is NONE, whatever the thresholds.

    Args:
      max_rating: the highest rating of the log.
      read: whether anything depends on thumbs. If not, ratings above 10, such as play counts, get
        thresholds in proportion, so that thumbs can be shown.

    Raises:
      UserError: ratings above 10 have no default.
    """
    if max_rating is None:
        return 3.0, 4.5
    if max_rating <= 1:
        return 1.0, 2.0
    if max_rating <= 5:
        return 3.0, 4.5
    if max_rating <= 10:
        return 6.0, 9.0
    if not read:
        return 0.6 * max_rating, 0.9 * max_rating
    raise UserError(
        f"the highest rating is {max_rating:g}, and thumbs have default thresholds only for "
        "ratings up to 5 or 10; set data.thumbs to the ratings at which thumbs turn up and two up, "
        "or, if these are something else than ratings, prepare the log with "
        + option("--rating-column None", "columns={'rating': None}")
    )
