"""Seen: a history in tokens, to be read with and without some of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import MASK
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.arguments import Ids, id_list, of_one, require_list
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.requests import Requests
from bert4rec_jax.serving.scorer import Scorer
from bert4rec_jax.serving.times import RequestTime, Times


@dataclass(frozen=True)
class Seen:
    """A history of n items: `[n]` tokens, ratings, and times in seconds since 1970.

    `asked` is the time of the request.
    """

    tokens: npt.NDArray[np.int32]
    ratings: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64]
    asked: int

    def at(self, places: npt.NDArray[np.integer[Any]]) -> Seen:
        """The items at some places, of the same request."""
        return Seen(self.tokens[places], self.ratings[places], self.times[places], self.asked)

    def and_mask(self) -> Seen:
        """The history with MASK after its last item."""
        return Seen(
            np.append(self.tokens, np.int32(MASK)),
            np.append(self.ratings, np.float32(np.nan)),
            np.append(self.times, self.asked),
            self.asked,
        )


def read_seen(
    scorer: Scorer,
    history: Ids,
    ratings: Sequence[float] | None,
    timestamps: Times | None,
    request_time: RequestTime | None,
) -> Seen:
    """A history in tokens. A model that reads no times gets zeros for them.

    Raises:
      UserError: it is empty or has an unknown id, or ratings and times are not valid.
    """
    history = id_list("history", history)
    if not history:
        raise UserError("the history is empty; name at least one item that was seen")
    for name, values in (("ratings", ratings), ("timestamps", timestamps)):
        if values is None:
            continue
        require_list(name, values, "one for each item of the history")
        if len(values) != len(history):
            raise UserError(f"{len(values)} {name} for {len(history)} items; give one each")
    tokens = np.array([scorer.catalog.token(item) for item in history], np.int32)
    given = scorer.requests(
        [history],
        ratings=None if ratings is None else [ratings],
        timestamps=None if timestamps is None else [timestamps],
        request_time=request_time,
        place=of_one,
    )
    asked, times = given.moments()
    return Seen(tokens, given.ratings, times.astype(np.int64), int(asked[0]))


def requests_of(histories: list[Seen]) -> Requests:
    """A request for each history, at its own time."""
    lengths = np.array([len(history.tokens) for history in histories])
    return Requests(
        histories=Ragged.from_lengths(np.concatenate([x.tokens for x in histories]), lengths),
        ratings=np.concatenate([x.ratings for x in histories]),
        candidates=None,
        excluded=Ragged.empty(len(histories)),
        counts=Counter(),
        times=np.concatenate([x.times for x in histories]),
        at=np.array([x.asked for x in histories]),
    )
