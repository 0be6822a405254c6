"""Configs: built from Python, they refuse what the command line refuses, with the same error."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bert4rec_jax.checks import ConfigError, seconds_of
from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    LogConfig,
    MaskingConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    from_json,
    to_json,
)
from bert4rec_jax.config_roles import differences


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataConfig(split="global_time"),
         r"data\.split is 'global_time'; expected one of leave-one-out, global-time, cold-items "
         r"\(did you mean global-time\?\)"),
        (lambda: DataConfig(targets="like"), r"data\.targets is 'like'.*did you mean liked"),
        (lambda: ModelConfig(norm="Pre"), r"model\.norm is 'Pre'; .* \(did you mean pre\?\)"),
        (lambda: ModelConfig(dtype="bf16"), r"model\.dtype is 'bf16'; expected one of float32, bf"),
        (lambda: ModelConfig(kind="sasrec"), r"model\.kind is 'sasrec'; expected one of bert4rec"),
        (lambda: MaskingConfig(objective="causal"), r"masking\.objective is 'causal'; expected"),
        (lambda: OptimizerConfig(schedule="step"), r"optimizer\.schedule is 'step'; expected one"),
        (lambda: OptimizerConfig(peak_lr="1e-3"), r"peak_lr is '1e-3'; expected a number"),
        (lambda: OptimizerConfig(peak_lr=True), r"peak_lr is True; expected a number"),
        (lambda: TrainingConfig(metric="ndcg@20"), r"training\.metric is 'ndcg@20'; expected one"),
        (lambda: TrainingConfig(epochs="3"), r"training\.epochs is '3'; expected a whole number"),
        (lambda: TrainingConfig(epochs=2.5), r"training\.epochs is 2\.5; expected a whole number"),
        (lambda: TrainingConfig(epochs=True), r"training\.epochs is True; expected a whole number"),
        (lambda: TrainingConfig(steps_at_once=3), r"steps_at_once is 3; expected one of 0, 1, 2"),
        (lambda: TrainingConfig(steps_at_once=True), r"steps_at_once is True; expected one of 0"),
        (lambda: MeshConfig(model=2.0), r"mesh\.model is 2\.0; expected a whole number"),
        (lambda: EvaluationConfig(test="no"), r"evaluation\.test is 'no'; expected True or False"),
        (lambda: LogConfig(wandb=None), r"log\.wandb is None; expected text"),
        (lambda: DataConfig(thumbs=3.0), r"data\.thumbs is 3\.0; expected 2 values"),
        (lambda: ModelConfig(dropout=np.array("a")), r"model\.dropout is array.*; expected a nu"),
        (lambda: TrainingConfig(steps_at_once=np.array([8, 1])), r"expected one of 0, 1, 2, 4"),
        (lambda: DataConfig(thumbs=("a", 4)), r"data\.thumbs is 'a'; expected a number"),
        (lambda: Config(data="ml-1m"), r"data is 'ml-1m'; expected a DataConfig, or a dict of its"),
        (lambda: Config(training={"epoch": 3}), r"training has no field 'epoch'; .* mean epochs\?"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_when_built(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_what_stands_for_a_value_becomes_it():
    config = Config(
        data={"path": Path("logs") / "mine.csv", "thumbs": np.array([3, 4]), "pack": np.True_},
        optimizer=OptimizerConfig(peak_lr=np.float64(0.5), weight_decay=1),
        training=TrainingConfig(epochs=np.int64(3), steps_at_once=np.int32(8)),
        workdir=Path("runs") / "mine",
    )
    assert config.data == DataConfig(path="logs/mine.csv", thumbs=(3.0, 4.0), pack=True)
    assert (config.workdir, config.training.epochs) == ("runs/mine", 3)
    values = dataclasses.asdict(config)
    kinds = [values["optimizer"]["weight_decay"], values["training"]["epochs"],
             values["training"]["steps_at_once"], values["optimizer"]["peak_lr"]]  # fmt: skip
    assert [type(value) for value in kinds] == [float, int, int, float]
    assert from_json(to_json(config)) == config


def test_settings_that_change_no_result_may_change_between_two_starts():
    saved = to_json(Config())
    more = Config(training=TrainingConfig(log_every=7, save_every=9, keep=5, patience=3))
    assert differences(saved, to_json(more)) == []
    longer = Config(training=TrainingConfig(epochs=7, log_every=7))
    assert differences(saved, to_json(longer)) == ["training.epochs: 200 -> 7"]


def test_what_reads_thumbs():
    assert not Config().reads_thumbs
    for more in (
        Config(model=ModelConfig(thumbs=True)),
        Config(data=DataConfig(targets="liked")),
        Config(masking=MaskingConfig(weight_up=2)),
        Config(masking=MaskingConfig(loss_down=0)),
    ):
        assert more.reads_thumbs


def test_dates_of_a_split_point():
    assert seconds_of("1970-01-02") == 86_400
    assert seconds_of("1970-01-01 01:00") == seconds_of("1970-01-01T02:00+01:00") == 3600
    assert DataConfig(split="global-time", test_from="2013-10-01").test_from == "2013-10-01"
    with pytest.raises(ConfigError, match="the split point is 'May'; expected a date such as 2024"):
        DataConfig(split="global-time", test_from="May")
    with pytest.raises(
        ConfigError, match=r"data\.test_from is '2013-10-01'; expected nothing: only"
    ):
        DataConfig(test_from="2013-10-01")
