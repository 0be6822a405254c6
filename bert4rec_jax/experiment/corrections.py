"""Corrections: what calibration on validation adds to a trained model, as its run keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.covisitation import Covisitation, Followers
from bert4rec_jax.evaluation.trend import Trend
from bert4rec_jax.training.fit import Features, digest

CALIBRATION = "calibration.json"  # where a run keeps it


@dataclass(frozen=True, eq=False)
class Corrections:
    """What is added to the scores of a trained model.

    Attributes:
      offset: to the biases of items without a training event.
      offset_alone: the same, if nothing else is added.
      shift: `[V]`, to those of the others, by how often they were chosen, and when; or None.
      covisitation: the collection of `evaluation.lift`, which adds to scores; or None.
      asked: whether covisitation was weighed, even if it gained nothing.
      validation: metrics of the validation cases with all this, where they are known.
    """

    offset: float = 0.0
    shift: Features | None = None
    covisitation: Mapping[str, npt.NDArray[Any]] | None = None
    asked: bool = False
    offset_alone: float = 0.0
    validation: Mapping[str, float] | None = None

    @property
    def moves(self) -> bool:
        """Whether scores of trained items change, beside each other."""
        return self.shift is not None or self.covisitation is not None

    @property
    def digest(self) -> str:
        """SHA-256 over all that is added: equal digests, equal scores of the same parameters."""
        sha = hashlib.sha256(f"{self.offset} {self.offset_alone}".encode())
        arrays = {"shift": self.shift, **(self.covisitation or {})}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name]) if arrays[name] is not None else np.zeros(0)
            sha.update(f"{name} {array.shape} {array.dtype}\n".encode())
            sha.update(array.tobytes())
        return sha.hexdigest()


def read_corrections(
    workdir: Path, params: Any, *, store: SequenceStore, stop: npt.NDArray[np.int64], length: int
) -> Corrections | None:
    """What a run's calibration adds; None if there is none, or that of other parameters.

    Args:
      workdir: of the run.
      params: the parameters that are asked.
      store: its data.
      stop: `[U]` where each user's rows end that they were trained on.
      length: positions L of the model.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        found = json.loads((workdir / CALIBRATION).read_text(encoding="utf-8"))
        if found["parameters_sha256"] != digest(params):
            return None
        trend, weighed = found.get("trend"), found.get("covisitation")
        shift = None if trend is None else Trend(**trend).shift(store, stop)
        collection = None
        if weighed is not None and weighed["chosen"] is not None:
            covisitation = Covisitation(**weighed["chosen"])
            moved = covisitation.shift(train_counts(store, stop))
            shift = moved if shift is None else shift + moved
            collection = covisitation.collection(Followers.of(store, stop), length)
        offset = float(found.get("offset", 0.0))
        return Corrections(
            offset,
            shift,
            collection,
            asked=weighed is not None,
            offset_alone=float(found.get("offset_alone", offset)),
            validation=found.get("validation"),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {workdir / CALIBRATION} ({error}); remove it, and the same training "
            "command writes it again"
        ) from None
