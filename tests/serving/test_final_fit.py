"""The model that is served: trained once more, on all events, and never tested."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import CalibrationConfig, Config, ConfigError, DataConfig, from_json
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.covisitation import Followers
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import as_served, open_finished
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import exported
from bert4rec_jax.serving.export import export
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.run_record import read_config

QUIET = Console(quiet=True)
COUNTS = CalibrationConfig(covisitation=True)  # of all events, in the final fit


@pytest.fixture(scope="module")
def final(run, once):
    """The shared run with counts, with a final fit in a copy of its folder, and its bundle."""

    def make(folder):
        shutil.copytree(run, folder / "run")
        config = from_json(read_config(run))
        config = replace(config, workdir=str(folder / "run"), final_fit=True, calibration=COUNTS)
        with (folder / "output.txt").open("w") as output:
            protocol.run(config, recipe="final", console=Console(file=output, width=1000))
        export(folder / "run", folder / "bundle", console=QUIET)

    return once("final", make)


def test_the_output_ends_with_its_last_step_and_its_folder(final):
    *_, ended, written = (final / "output.txt").read_text().splitlines()
    assert ended.startswith("final fit on all events: ended at step ")
    assert written.startswith("Written: ") and written.endswith("final, which is what is exported")


def test_it_is_trained_on_all_events_for_as_many_steps(final, run):
    tested = open_finished(final / "run", QUIET)
    served = as_served(tested, QUIET)
    assert served.all_events and served.best.step == tested.best.step
    assert digest(served.best.state.params) != digest(tested.best.state.params)
    store = served.setting.store
    np.testing.assert_array_equal(served.trained.items, train_counts(store, store.offsets[1:]) > 0)
    earlier = open_finished(run, QUIET)  # what was tested is what it was
    assert digest(tested.best.state.params) == digest(earlier.best.state.params)


def test_the_bundle_is_that_model_with_the_metrics_of_the_tested_one(final):
    manifest = Bundle.open(final / "bundle").manifest
    served = as_served(open_finished(final / "run", QUIET), QUIET)
    assert manifest["all_events"]
    assert manifest["parameters_sha256"] == digest(served.best.state.params)
    assert served.corrections.covisitation is not None
    assert manifest["metrics"]["test"]["ndcg@10"] > 0


def test_its_counts_are_those_of_all_events(final):
    tested = open_finished(final / "run", QUIET)
    served = as_served(tested, QUIET)
    store = served.setting.store
    for finished, stop in ((tested, tested.setting.split.train_stop), (served, store.offsets[1:])):
        expected = Followers.of(store, stop).items
        np.testing.assert_array_equal(finished.corrections.covisitation["followers"], expected)
    assert tested.corrections.digest != served.corrections.digest


def test_it_cannot_be_tested(final):
    with pytest.raises(UserError, match="was trained on all events, the test among them"):
        exported([final / "bundle"])


def test_a_final_fit_that_was_stopped_is_not_served(final, tmp_path):
    copy = shutil.copytree(final / "run", tmp_path / "run")
    checkpoints = copy / "final" / "checkpoints"
    step = as_served(open_finished(copy, QUIET), QUIET).best.step
    shutil.rmtree(checkpoints / str(step))
    for earlier in (copy / "checkpoints").iterdir():
        if int(earlier.name) != step:
            shutil.copytree(earlier, checkpoints / earlier.name)
    said = Console(file=io.StringIO(), width=300)
    served = as_served(open_finished(copy, said), said)
    assert not served.all_events
    export(copy, tmp_path / "bundle", console=said)
    shown = said.file.getvalue()
    assert "was trained without the events held out" in shown and "--final-fit" in shown


def test_without_it_the_tested_model_is_exported_and_the_user_told(run, tmp_path):
    said = Console(file=io.StringIO(), width=300)
    manifest = export(run, tmp_path / "bundle", console=said)
    assert not manifest["all_events"] and "--final-fit" in said.file.getvalue()
    with pytest.raises(UserError, match="is a bundle or a store; give the folder of a run"):
        export(tmp_path / "bundle", tmp_path / "again", console=said)


def test_splits_without_a_model_to_serve_refuse_it():
    with pytest.raises(ConfigError, match="final_fit is True; expected False"):
        Config(data=DataConfig(split="cold-items"), final_fit=True)
