"""Setting: what a run is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from bert4rec_jax.config import Config
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.split import Cases, Split, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.evaluator import Evaluator, Ranking
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.evaluation.metrics import known
from bert4rec_jax.experiment.corrections import Corrections
from bert4rec_jax.experiment.inputs import KnownContent
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.known_users import KnownUsers
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.models.bert4rec import BERT4Rec
from bert4rec_jax.models.two_tower import TwoTower
from bert4rec_jax.sharding import Along, put
from bert4rec_jax.training.fit import (
    Features,
    TrainingData,
    catalog_constants,
    make_plan,
    trained_items,
)
from bert4rec_jax.training.parts import build_model

NAMES = {"bert4rec": "BERT4Rec", "two-tower": "two towers"}  # in tables and metrics.json, by kind


@dataclass(frozen=True, eq=False)
class Setting:
    """What a run is about.

    Attributes:
      config: all settings.
      mesh: the devices.
      source: the data as it was prepared.
      store: histories, those of `source` or of the same users without the items held out.
      split: what is trained on, and what is asked.
      thumbs: rating thresholds.
      known_content: what is known of each item beside its id, or None.
      evaluator: asks models.
      first_day: `[V]` when each item was first watched, for a model that reads times, or None.
      known_users: what is known of users beside their history, or None.
    """

    config: Config
    mesh: Mesh
    source: SequenceStore
    store: SequenceStore
    split: Split
    thumbs: tuple[float, float]
    known_content: KnownContent | None
    evaluator: Evaluator
    first_day: Features | None = None
    known_users: KnownUsers | None = None

    @property
    def name(self) -> str:
        """What the model is called in tables and metrics.json."""
        return NAMES[self.config.model.kind]

    @property
    def content(self) -> Features | None:
        """`[V, F]` what is known of each item beside its id, or None."""
        return None if self.known_content is None else self.known_content.matrix

    @property
    def encoding(self) -> Encoding | None:
        """What made the content, and makes that of new items; None without content."""
        return None if self.known_content is None else self.known_content.encoding

    @property
    def catalog(self) -> Catalog:
        """The items, with titles and genres of the content where the log came without."""
        names = None if self.known_content is None else self.known_content.names
        return names or self.store.catalog

    @property
    def users(self) -> Features | None:
        """`[U + 1, G]` what is known of user u in row u + 1, or None."""
        return None if self.known_users is None else self.known_users.matrix

    @property
    def user_encoding(self) -> UserEncoding | None:
        """What made rows of users, and makes those of others; None where nothing is known."""
        return None if self.known_users is None else self.known_users.encoding

    @property
    def training_data(self) -> TrainingData:
        """What the model is trained on."""
        return TrainingData(self.store, self.thumbs, self.content, self.first_day, self.users)

    @property
    def length(self) -> int:
        """Positions L of the model."""
        return self.config.data.max_length

    @property
    def causal(self) -> bool:
        """Whether the model is read at the newest item, from the left, not at a MASK."""
        return self.config.masking.objective == "next"

    def model(self) -> BERT4Rec | TwoTower:
        """The module."""
        return build_model(
            self.config.model,
            num_rows=self.store.catalog.num_rows,
            max_length=self.config.data.max_length,
            content_dim=0 if self.content is None else self.content.shape[1],
        )

    def trained(self, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """`[V]`: the items that a model trained on the rows `offsets[u]:stop[u]` has met."""
        return trained_items(make_plan(self.config, self.store, stop), self.store)

    def scored(self, trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """`[V]`: the items that a model can score: trained on, or known by their content."""
        known = trained if self.content is None else trained | (self.content != 0).any(1)
        return known & self.store.catalog.is_item()

    def variables(
        self, params: Any, trained: npt.NDArray[np.bool_], corrections: Corrections | None = None
    ) -> dict[str, Any]:
        """The model's collections: `params`, and `catalog` if it needs any constants."""
        corrections = corrections or Corrections()
        catalog = catalog_constants(
            self.mesh, self.content, trained, corrections.offset, first_day=self.first_day
        )
        if corrections.shift is not None:
            table = dict(params["item_table"])
            table["bias"] = table["bias"] + put(self.mesh, Along.ITEMS, corrections.shift)
            params = {**params, "item_table": table}
        variables = {"params": params, **({"catalog": catalog} if catalog else {})}
        if corrections.covisitation is not None:
            variables[COLLECTION] = {
                name: put(self.mesh, Along.NEITHER, array)
                for name, array in corrections.covisitation.items()
            }
        return variables

    def ask(
        self,
        params: Any,
        trained: npt.NDArray[np.bool_],
        cases: Cases,
        among: npt.NDArray[np.int32] | None = None,
        *,
        corrections: Corrections | None = None,
        hidden: Features | None = None,
    ) -> Ranking:
        """A model's answers, given its parameters and `[V]` which items it was trained on; and what
        `encode` made of the cases, if it did."""
        return self.evaluator.rank_model(
            self.model(),
            self.variables(params, trained, corrections),
            cases,
            known=self.scored(trained),
            max_length=self.config.data.max_length,
            causal=self.causal,
            among=among,
            hidden=hidden,
        )

    def encode(self, params: Any, trained: npt.NDArray[np.bool_], cases: Cases) -> Features:
        """`[M, D]` what a model makes of the histories of cases."""
        return self.evaluator.encode(
            self.model(),
            self.variables(params, trained),
            cases,
            max_length=self.config.data.max_length,
            causal=self.causal,
        )

    def tested(self) -> dict[str, Cases]:
        """The named sets of test cases.

        Under the global-time split, cases whose target or user has no training event are sets of
        their own: published figures leave them out. New users who ask for new items are among the
        new items.
        """
        if not self.split.refits:
            return dict(self.split.test)
        stop = self.split.refit_stop
        counts = train_counts(self.store, stop)
        sets: dict[str, Cases] = {}
        for name, cases in self.split.test.items():
            familiar = known(cases, self.store, stop)
            new_item = counts[self.store.tokens[cases.rows]] == 0
            sets[name] = cases[familiar]
            for what, which in (("items", new_item), ("users", ~new_item & ~familiar)):
                if which.any():
                    sets[f"{name}_new_{what}"] = cases[which]
        return sets
