"""Setting: the config, devices, data and split of a run, opened and ready to use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from bert4rec_jax.config import MODEL_NAMES, Config
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.split import Cases, Split, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.evaluator import Evaluator, Ranking, ScoringModel
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.evaluation.likeness import Likeness
from bert4rec_jax.evaluation.metrics import known
from bert4rec_jax.experiment.corrections import Corrections
from bert4rec_jax.experiment.inputs import KnownContent, likeness_of
from bert4rec_jax.experiment.seen_before import SeenBefore
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.known_users import KnownUsers
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.sharding import Along, put
from bert4rec_jax.training.coverage import make_plan
from bert4rec_jax.training.inputs import (
    Features,
    Trained,
    TrainingData,
    catalog_constants,
    trained_on,
)
from bert4rec_jax.training.parts import build_model


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model of a run: everything that its scores depend on.

    Attributes:
      params: the parameters.
      trained: what they were trained on.
      corrections: what calibration adds to the scores.
    """

    params: Any
    trained: Trained
    corrections: Corrections


@dataclass(frozen=True, eq=False)
class Setting:
    """The config, devices, data and split of a run.

    Attributes:
      config: all settings.
      mesh: the devices.
      source: the data as it was prepared.
      store: the histories to use: `source`, or its rearrangement without the cold items.
      split: the training rows and the evaluation cases.
      thumbs: rating thresholds.
      known_content: the items' content features, or None.
      evaluator: ranks the catalog for cases.
      known_users: the features of users, or None.
      seen_before: held-out events that the run which this one begins from was trained on; None if
        it begins from none.
    """

    config: Config
    mesh: Mesh
    source: SequenceStore
    store: SequenceStore
    split: Split
    thumbs: tuple[float, float]
    known_content: KnownContent | None
    evaluator: Evaluator
    known_users: KnownUsers | None = None
    seen_before: SeenBefore | None = None

    @property
    def name(self) -> str:
        """The model's name in tables and metrics.json."""
        return MODEL_NAMES[self.config.model.kind]

    @property
    def content(self) -> Features | None:
        """`[V, F]` content features of the items, or None."""
        return None if self.known_content is None else self.known_content.matrix

    @property
    def encoding(self) -> Encoding | None:
        """The encoding that computed the content, also for new items; None without content."""
        return None if self.known_content is None else self.known_content.encoding

    @property
    def catalog(self) -> Catalog:
        """The items, with titles and genres of the content if it has them, else of the log."""
        names = None if self.known_content is None else self.known_content.names
        return names or self.store.catalog

    @property
    def users(self) -> Features | None:
        """`[U + 1, G]` user features, those of user u in row u + 1; or None."""
        return None if self.known_users is None else self.known_users.matrix

    @property
    def user_encoding(self) -> UserEncoding | None:
        """The encoding of user features, also for other users; None without user features."""
        return None if self.known_users is None else self.known_users.encoding

    @property
    def training_data(self) -> TrainingData:
        """The histories, and the item and user features, to train the model on."""
        times, content = self.config.model.times, self.known_content
        return TrainingData(
            self.store,
            self.thumbs,
            self.content,
            times,
            content.release_days if times and content is not None else None,
            self.users,
        )

    @property
    def length(self) -> int:
        """Number of positions L of the model."""
        return self.config.data.max_length

    @property
    def causal(self) -> bool:
        """Whether the output is read at the newest item (causal attention), not at a MASK."""
        return self.config.masking.objective == "next"

    @property
    def offsets_cold(self) -> bool:
        """Whether calibration chooses an offset: items that have content are held out."""
        return self.split.cold_validation is not None and self.content is not None

    @property
    def calibrates(self) -> bool:
        """Whether calibration has anything to choose."""
        covisitation = self.config.calibration.covisitation
        return self.offsets_cold or self.split.refits or covisitation

    def likeness(self) -> Likeness | None:
        """What the items have in common by their content; None if they are known by their ids."""
        return likeness_of(self.config.data, self.store.catalog, self.known_content)

    def model(self) -> SequenceModel:
        """The Flax module of the model."""
        return build_model(
            self.config.model,
            num_rows=self.store.catalog.num_rows,
            max_length=self.length,
            content_dim=0 if self.content is None else self.content.shape[1],
        )

    def trained(self, stop: npt.NDArray[np.int64]) -> Trained:
        """What training on the rows `offsets[u]:stop[u]` is on."""
        return trained_on(self.training_data, make_plan(self.config, self.store, stop), stop)

    def scored(self, trained: Trained) -> npt.NDArray[np.bool_]:
        """`[V]`: the items that a model can score: trained ones, and those with content."""
        items = trained.items
        known = items if self.content is None else items | (self.content != 0).any(1)
        return known & self.store.catalog.is_item()

    def variables(
        self, params: Any, trained: Trained, corrections: Corrections | None = None
    ) -> dict[str, Any]:
        """The model's variable collections, laid out over the mesh, with corrections applied.

        These are `params`, `catalog` if the model needs constants, and that of `evaluation.lift`
        if there is covisitation. The shift is added to the bias in `params`.
        """
        corrections = corrections or Corrections()
        catalog = catalog_constants(
            self.mesh,
            self.content,
            trained,
            corrections.offset,
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

    def rank(
        self,
        params: Any,
        trained: Trained,
        cases: Cases,
        among: npt.NDArray[np.int32] | None = None,
        *,
        corrections: Corrections | None = None,
        hidden: Features | None = None,
        poll: Callable[[], None] | None = None,
    ) -> Ranking:
        """Rank the catalog for each case by a model with the given parameters.

        `trained` says what it was trained on. `among`, `hidden` (from `encode`) and `poll` are as
        for `Evaluator.rank_model`.
        """
        model = self.scoring(params, trained, corrections)
        return self.evaluator.rank_model(model, cases, among=among, hidden=hidden, poll=poll)

    def encode(self, params: Any, trained: Trained, cases: Cases) -> Features:
        """`[M, D]` user vectors: the model's encodings of the histories of cases."""
        return self.evaluator.encode(self.scoring(params, trained), cases)

    def scoring(
        self, params: Any, trained: Trained, corrections: Corrections | None = None
    ) -> ScoringModel:
        """The model with the given parameters, as the evaluator ranks by it."""
        return ScoringModel(
            self.model(),
            self.variables(params, trained, corrections),
            known=self.scored(trained),
            max_length=self.length,
            causal=self.causal,
        )

    def tested(self) -> dict[str, Cases]:
        """The named sets of test cases.

        Under the global-time split, cases whose target or user has no training event form sets of
        their own, because published figures leave them out. A case with both a new user and a new
        item is in the set of new items.
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
