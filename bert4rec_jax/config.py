"""Every setting of a run, as frozen dataclasses that refuse impossible values when built.

The docstring under a field is its help text in `python train.py --help`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from bert4rec_jax.checks import ConfigError, fit_types, require, seconds_of

SplitName = Literal["leave-one-out", "global-time", "cold-items"]


@dataclass(frozen=True)
class DataConfig:
    """Which interactions, how they are filtered, split and cut into rows."""

    path: str = "movietweetings"
    """A known data set (movietweetings, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m), a log file
    or folder, or a folder made by `bert4rec prepare`."""
    min_user_interactions: int = 5
    """Drop users with fewer interactions (k-core filtering, repeated until nothing changes, before
    the split)."""
    min_item_interactions: int = 5
    """Drop items with fewer interactions, in the same k-core filtering."""
    split: SplitName = "leave-one-out"
    """What is held out: the last item of each user; everything after one point in time; or a fifth
    of the items, removed from all histories, plus the last other item of each user."""
    time_quantile: float = 0.9
    """Split point of the global-time split, as a quantile of all timestamps."""
    test_from: str = ""
    """Split point of the global-time split, as a date (2024-05-31, or 2024-05-31 18:00) instead:
    the test asks about events from then on. UTC unless it names a zone. The quantile then only
    places validation, before that date."""
    thumbs: tuple[float, float] | None = None
    """Rating thresholds: at or above the first is thumbs up, at or above the second two thumbs up,
    below is down. None chooses by rating scale: (3, 4.5) up to 5, (6, 9) up to 10; of 0 and 1, 1 is
    up."""
    max_length: int = 200
    """Sequence length L: items per row, including the masked ones."""
    content: str = ""
    """Item features: a folder made by `bert4rec features`, or `catalog` for the years and genres in
    the titles file, if there are any. Empty: item ids only."""
    users: str = ""
    """User features, for two-tower models: a Parquet, CSV or TSV table with a column `user_id` and
    feature columns. Empty: histories only."""
    targets: Literal["any", "liked"] = "any"
    """Targets of validation and test: the last items of any kind, or the last liked ones (thumbs
    up; the history then ends before the target)."""
    repeats: bool = False
    """Items can be chosen again, as songs or groceries are: targets and lists may hold items of the
    history, whose items therefore compete with each other in training."""
    window: Literal["recent", "tiles", "random-prefix"] = "recent"
    """How a training history becomes rows: its last L items; all of it, cut into windows of L; or
    the L items before a random point, drawn anew each epoch."""
    pack: bool = False
    """Put several short histories into one row. Exact: attention never crosses them."""
    max_segments: int = 8
    """Maximum number of histories in one packed row."""

    @property
    def segments_per_row(self) -> int:
        """The most histories in one row, packed or not."""
        return self.max_segments if self.pack else 1

    def __post_init__(self) -> None:
        fit_types(self, "data")
        require(bool(self.path), "data.path", self.path, "a data set's name or a path")
        for name in ("min_user_interactions", "min_item_interactions", "max_segments"):
            value = getattr(self, name)
            require(value >= 1, f"data.{name}", value, "at least 1")
        require(0 < self.time_quantile < 1, "data.time_quantile", self.time_quantile, "in (0, 1)")
        require(
            not self.test_from or self.split == "global-time",
            "data.test_from",
            self.test_from,
            "nothing: only data.split global-time has a split point",
        )
        if self.test_from:
            seconds_of(self.test_from)
        require(self.max_length >= 2, "data.max_length", self.max_length, "at least 2")
        if self.thumbs is not None:
            up, two_up = self.thumbs
            require(
                math.isfinite(up) and up <= two_up < math.inf,
                "data.thumbs",
                self.thumbs,
                "two finite ratings, the first not above the second",
            )
        require(
            self.targets == "any" or self.split == "leave-one-out",
            "data.targets",
            self.targets,
            "any: only the leave-one-out split asks for liked items alone",
        )


MODEL_NAMES = {"bert4rec": "BERT4Rec", "two-tower": "two towers"}  # kind -> name in results
# All names that the model of a run has there: with all corrections, and alone.
OWN_NAMES = (*MODEL_NAMES.values(), *(f"{name} alone" for name in MODEL_NAMES.values()))


@dataclass(frozen=True)
class ModelConfig:
    """BERT4Rec or two towers. The defaults are the paper's BERT4Rec for MovieLens-1M."""

    kind: Literal["bert4rec", "two-tower"] = "bert4rec"
    """BERT4Rec for ranking, or a two-tower model for candidate retrieval. The user tower reads the
    history causally (requires masking.objective next) and pools it by a weighted mean."""
    dim: int = 64
    """Width D of embeddings and hidden states."""
    heads: int = 2
    """Attention heads H, also used by the pooling of two towers; must divide dim."""
    layers: int = 2
    """Transformer layers. A two-tower model may have 0: it then only pools item vectors."""
    ffn_dim: int = 256
    """Width of the feed-forward layer."""
    ffn: Literal["gelu", "swiglu"] = "gelu"
    """Feed-forward activation: GELU (the paper) or SwiGLU."""
    norm: Literal["post", "pre"] = "post"
    """Layer norm after each sublayer (the paper) or before it."""
    position_bias: bool = False
    """Add a learned attention bias per head and distance to the learned positions. A two-tower
    model has no position embedding: without this bias and without layers, it treats a history as a
    set."""
    head: Literal["gelu", "linear"] = "gelu"
    """Output head before the product with item vectors: dense, GELU, norm (the paper), or linear:
    dense and norm."""
    dropout: float = 0.2
    """Dropout on embeddings and sublayer outputs."""
    attention_dropout: float = 0.2
    """Dropout on attention weights."""
    attention: Literal["plain", "fused"] = "plain"
    """`fused` trains with cuDNN flash attention on NVIDIA GPUs, in bfloat16, without attention
    dropout or position bias, for heads whose width (dim / heads) is a multiple of 8; it is faster
    from a few hundred positions on. Needs an even data.max_length, and leaves out the last layer of
    BERT4Rec where that has an odd number of queries, as with the objectives next and mixed. Other
    devices, evaluation and export compute the same function as `plain`."""
    initial: Literal["random", "identity"] = "random"
    """What training starts from: `random` kernels (the paper), or `identity`: values and outputs of
    attention and the output head pass vectors on as they are, and feed-forward networks add little.
    Sparse logs gain most: items that occur together attract each other from the first step on."""
    init_scale: float = 0.02
    """Standard deviation of the truncated normal initialisation of all that starts at random."""
    thumbs: bool = False
    """Also read the thumb of every item in the history, except at masked positions."""
    times: bool = False
    """Also read times: the gaps between items, the time of the request, and the age of each item at
    that time. BERT4Rec only. Results are not comparable with models that do not know the time of
    the request."""
    unknown_rate: float = 0.1
    """With content: share of items that are represented by their content alone, drawn per step."""
    temperature: float = 0.0
    """0: scores are dot products. Above 0: scores are cosine similarities divided by this value."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations. Parameters, softmax and loss stay in float32."""

    def __post_init__(self) -> None:
        fit_types(self, "model")
        for name in ("dim", "heads", "ffn_dim"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}", value, "at least 1")
        require(
            not self.times or self.kind == "bert4rec", "model.times", True, "False for two towers"
        )
        fewest = 1 if self.kind == "bert4rec" else 0
        require(self.layers >= fewest, "model.layers", self.layers, f"at least {fewest}")
        require(
            self.dim % self.heads == 0,
            "model.heads",
            self.heads,
            f"a divisor of model.dim = {self.dim}",
        )
        for name in ("dropout", "attention_dropout", "unknown_rate"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name}", value, "in [0, 1)")
        fusible = (
            self.dtype == "bfloat16"
            and not self.attention_dropout
            and not self.position_bias
            and self.dim // self.heads % 8 == 0
        )
        require(
            self.attention == "plain" or fusible,
            "model.attention",
            self.attention,
            "plain: fused needs model.dtype bfloat16, model.attention-dropout 0, no "
            "model.position-bias, and heads whose width (model.dim / model.heads) is a multiple "
            "of 8",
        )
        require(0 < self.init_scale < math.inf, "model.init_scale", self.init_scale, "above 0")
        require(
            0 <= self.temperature < math.inf, "model.temperature", self.temperature, "at least 0"
        )


@dataclass(frozen=True)
class MaskingConfig:
    """What the model has to predict of a training history."""

    objective: Literal["masked", "next", "mixed"] = "masked"
    """Training objective: masked items with bidirectional attention (BERT4Rec); next items with
    causal attention (SASRec); or mixed, one of the two for each half of the histories. Models
    trained on `next` alone also rank causally; the others rank at a mask."""
    rate: float = 0.2
    """Share of items to mask: clip(round(rate * n), 1, n - 1) of n."""
    last_only: float = 0.1
    """Share of histories in which only the last item is masked, as at serving time."""
    weight_down: float = 1.0
    """Relative weight of thumbs-down items when choosing which items to mask."""
    weight_up: float = 1.0
    """Relative weight of thumbs-up items."""
    weight_two_up: float = 1.0
    """Relative weight of two-thumbs-up items."""
    weight_none: float = 1.0
    """Relative weight of unrated items."""
    loss_down: float = 1.0
    """Weight of thumbs-down items in the loss; independent of how often they are masked."""
    loss_up: float = 1.0
    """Weight of thumbs-up items in the loss."""
    loss_two_up: float = 1.0
    """Weight of two-thumbs-up items in the loss."""
    loss_none: float = 1.0
    """Weight of unrated items in the loss."""
    own_negatives: bool = True
    """When predicting an item, let the other items of the same history compete with it in the
    softmax over the whole catalog. With data.repeats they always compete, and with
    training.in_batch_negatives in no other case."""

    def __post_init__(self) -> None:
        fit_types(self, "masking")
        require(0 < self.rate < 1, "masking.rate", self.rate, "in (0, 1)")
        require(0 <= self.last_only <= 1, "masking.last_only", self.last_only, "in [0, 1]")
        for name in ("weight_down", "weight_up", "weight_two_up", "weight_none"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"masking.{name}", value, "above 0 and finite")
        for name in ("loss_down", "loss_up", "loss_two_up", "loss_none"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"masking.{name}", value, "at least 0 and finite")
        require(any(self.loss_weights), "masking.loss_*", self.loss_weights, "one above 0")

    @property
    def next_item(self) -> float:
        """Share of histories that predict next items."""
        return {"masked": 0.0, "mixed": 0.5, "next": 1.0}[self.objective]

    @property
    def thumb_weights(self) -> tuple[float, float, float, float]:
        """Weights by thumb: none, down, up, two up."""
        return self.weight_none, self.weight_down, self.weight_up, self.weight_two_up

    @property
    def loss_weights(self) -> tuple[float, float, float, float]:
        """Weights in the loss by thumb: none, down, up, two up."""
        return self.loss_none, self.loss_down, self.loss_up, self.loss_two_up


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, its learning rate over time, and gradient clipping."""

    schedule: Literal["noam", "linear", "cosine", "constant"] = "linear"
    """Learning rate after warm-up: inverse square root (Noam), linear or cosine decay to zero, or
    constant."""
    peak_lr: float = 1e-4
    """Highest learning rate of the linear, cosine and constant schedules."""
    noam_scale: float = 1.0
    """Factor of the Noam schedule: scale * dim^-0.5 * min(t^-0.5, t * warmup^-1.5)."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay. Layer norms, the biases of layers and those of items have none; the
    biases per distance, the shared bias of items without an id, and what content adds have."""
    clip_norm: float = 5.0
    """Clip gradients to this global norm."""
    b1: float = 0.9
    """Adam's decay rate of the first moment."""
    b2: float = 0.999
    """Adam's decay rate of the second moment."""
    eps: float = 1e-6
    """Adam's epsilon."""

    def __post_init__(self) -> None:
        fit_types(self, "optimizer")
        for name in ("peak_lr", "noam_scale", "clip_norm", "eps"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"optimizer.{name}", value, "above 0 and finite")
        require(
            0 <= self.weight_decay < math.inf,
            "optimizer.weight_decay",
            self.weight_decay,
            "at least 0",
        )
        require(self.warmup_steps >= 1, "optimizer.warmup_steps", self.warmup_steps, "at least 1")
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "in [0, 1)")


@dataclass(frozen=True)
class TrainingConfig:
    """Length of training, batches, validation and checkpoints."""

    epochs: int = 200
    """Passes over the training histories."""
    batch_size: int = 128
    """Rows B per step, over all devices."""
    seed: int = 0
    """Seed of the data order, masks, initial weights and dropout."""
    evaluate_every: int = 5
    """Epochs between validations."""
    patience: int = 20
    """Validations without a better metric before training stops."""
    metric: Literal["ndcg@5", "ndcg@10", "ndcg@50", "hr@5", "hr@10", "hr@50", "hr@200", "mrr"] = (
        "ndcg@10"
    )
    """Validation metric that selects the best checkpoint; hr@200 suits a candidate retriever.
    Baselines, and what calibration adds to the scores, are chosen by ndcg@10."""
    save_every: int = 512
    """Steps between checkpoints; validations and interruptions save as well."""
    keep: int = 2
    """How many of the newest checkpoints to keep, in addition to the best one."""
    log_every: int = 20
    """Steps between lines in the training log."""
    steps_at_once: Literal[0, 1, 2, 4, 8, 16] = 0
    """Steps per dispatch: on a GPU, starting a small step takes longer than computing it. 0
    chooses: 1 on CPUs, 8 elsewhere; fewer before a validation or a checkpoint."""
    loss_chunk: int = 16_384
    """Items per chunk of the softmax: a larger catalog is scored chunk by chunk, so that the full
    [slots, V] logits never exist."""
    in_batch_negatives: int = 0
    """0: softmax over the whole catalog. Above 0: sampled softmax over this many targets of the
    batch, with logQ correction and (unless data.repeats) without items of the same history; for
    catalogs too large for the full softmax."""
    uniform_negatives: int = 0
    """Additional negatives drawn uniformly from the catalog at each step; with
    in_batch_negatives."""

    def __post_init__(self) -> None:
        fit_types(self, "training")
        names = ("epochs", "batch_size", "evaluate_every", "patience", "save_every", "keep",
                 "log_every", "loss_chunk")  # fmt: skip
        for name in names:
            value = getattr(self, name)
            require(value >= 1, f"training.{name}", value, "at least 1")
        require(0 <= self.seed < 2**31, "training.seed", self.seed, "in [0, 2^31)")
        for name in ("in_batch_negatives", "uniform_negatives"):
            value = getattr(self, name)
            require(value >= 0, f"training.{name}", value, "at least 0")
        require(
            self.uniform_negatives == 0 or self.in_batch_negatives > 0,
            "training.uniform_negatives",
            self.uniform_negatives,
            "0: without training.in_batch_negatives the softmax is over the whole catalog",
        )


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh: batch rows are split over `data`, rows of the item table over `model`."""

    data: int = -1
    """Devices along the batch; -1: all devices divided by `model`."""
    model: int = 1
    """Devices along the item table."""

    def __post_init__(self) -> None:
        fit_types(self, "mesh")
        require(self.data == -1 or self.data >= 1, "mesh.data", self.data, "-1 or at least 1")
        require(self.model >= 1, "mesh.model", self.model, "at least 1")


@dataclass(frozen=True)
class EvaluationConfig:
    """How models are evaluated and what is reported. No setting changes a metric's definition."""

    batch_size: int = 256
    """Histories scored at once."""
    item_chunk: int = 65_536
    """Items scored at once, per device."""
    test: bool = True
    """Evaluate on the test split at the end. Switch this off while tuning, so that no choice
    depends on test figures; `bert4rec evaluate WORKDIR` tests later."""
    bootstrap: int = 1000
    """Bootstrap resamples for the 95 % intervals: of users, or of target items where no target has
    a training event."""
    baselines: bool = True
    """Also tune and test the baselines."""
    sampled: bool = False
    """Also rank each target against 100 items sampled by popularity, as in the BERT4Rec paper. Use
    it only to compare with published figures."""

    def __post_init__(self) -> None:
        fit_types(self, "evaluation")
        for name in ("batch_size", "item_chunk"):
            value = getattr(self, name)
            require(value >= 1, f"evaluation.{name}", value, "at least 1")
        require(self.bootstrap >= 100, "evaluation.bootstrap", self.bootstrap, "at least 100")


@dataclass(frozen=True)
class CalibrationConfig:
    """Corrections added to the scores of a trained model, with weights chosen on validation. They
    may be changed for a finished run."""

    covisitation: bool = False
    """Add co-visitation counts: raise items that followed the last items of a history in other
    users' histories and, where items have content, relatives of these items. Helps on sparse logs.
    BERT4Rec only; exported with the model."""

    warm_kept: float = 0.97
    """Where the split holds out items: share of the validation NDCG@10 of trained targets that the
    offset of untrained items has to leave. A lower one lists more new items."""

    def __post_init__(self) -> None:
        fit_types(self, "calibration")
        kept = self.warm_kept
        require(0 < kept <= 1, "calibration.warm_kept", kept, "a number above 0 and up to 1")


@dataclass(frozen=True)
class LogConfig:
    """Logging, in addition to `log.jsonl` and TensorBoard events in the workdir."""

    wandb: str = ""
    """Weights & Biases project to log to (extra: wandb). Empty: none."""

    def __post_init__(self) -> None:
        fit_types(self, "log")


@dataclass(frozen=True)
class Config:
    """A run of `train.py`."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    workdir: str = "runs/bert4rec"
    """Folder for checkpoints, logs and results. Running the same command again continues a run."""
    init_from: str = ""
    """Workdir of an earlier run to start from, whose catalog may be smaller: known items keep their
    parameters, new items start from their content. Empty: start from scratch."""
    final_fit: bool = False
    """After the test, train once more on all events, those of validation and test included, for as
    many steps as validation selected. `bert4rec export` then exports that model. It may be switched
    on for a finished run."""

    @property
    def reads_thumbs(self) -> bool:
        """Whether any result depends on thumbs."""
        masking = self.masking
        uneven = any(len(set(x)) > 1 for x in (masking.thumb_weights, masking.loss_weights))
        return self.model.thumbs or self.data.targets == "liked" or uneven

    @property
    def own_items_compete(self) -> bool:
        """Whether a history's other items are negatives of its targets."""
        sampled = self.training.in_batch_negatives > 0
        return self.data.repeats or (self.masking.own_negatives and not sampled)

    def __post_init__(self) -> None:
        fit_types(self)
        require(bool(self.workdir), "workdir", self.workdir, "a folder")
        require(
            not self.final_fit or self.data.split != "cold-items",
            "final_fit",
            self.final_fit,
            "False: with data.split cold-items there is no model to serve",
        )
        require(
            self.model.kind != "two-tower" or self.masking.objective == "next",
            "masking.objective",
            self.masking.objective,
            "next: two towers read a history from the left",
        )
        require(
            self.model.kind != "two-tower" or not self.calibration.covisitation,
            "calibration.covisitation",
            True,
            "False: candidates of two towers are found by dot products alone",
        )
        require(
            not (self.data.repeats and self.evaluation.sampled),
            "evaluation.sampled",
            True,
            "False with data.repeats: the published protocol draws among items that were not seen",
        )
        require(
            self.model.kind == "two-tower" or not self.data.users,
            "data.users",
            self.data.users,
            "none: only two towers read what is known of users (model.kind two-tower)",
        )


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain JSON values (tuples become lists)."""
    return {
        section: _listed(value) if isinstance(value, dict) else value
        for section, value in dataclasses.asdict(config).items()
    }


def from_json(values: dict[str, Any]) -> Config:
    """The config that `to_json` wrote.

    Raises:
      ConfigError: it has fields that this version does not know, or impossible values.
    """
    try:
        return Config(**values)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"the saved configuration is of another version ({error})") from None


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
