import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.corrections import Corrections
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import exported
from bert4rec_jax.serving.export import export, read_run, write_bundle, write_parameters
from bert4rec_jax.serving.traced import by_path, model_inputs


def test_a_history_as_the_model_reads_it():
    tokens = np.array([[7, 8, 0], [7, 8, 9], [0, 0, 0]], np.int32)
    thumbs = np.array([[1, 2, 3], [3, 2, 1], [3, 3, 3]], np.int8)
    read, slots = model_inputs(tokens, thumbs, max_length=5, causal=False)
    assert read.tokens.tolist() == [[7, 8, 1, 0], [7, 8, 9, 1], [1, 0, 0, 0]]
    assert read.thumbs.tolist() == [[1, 2, 0, 0], [3, 2, 1, 0], [0, 0, 0, 0]]
    assert read.positions.tolist() == [[2, 3, 4, 0], [1, 2, 3, 4], [4, 0, 0, 0]]
    assert read.segments.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert slots.tolist() == [[2], [3], [0]] and not read.causal.any()
    read, slots = model_inputs(tokens, thumbs, max_length=5, causal=True)
    assert slots.tolist() == [[1], [2], [0]] and read.causal.all()


def test_the_same_command_again_replaces_a_bundle(run, tmp_path):
    first = export(run, tmp_path / "bundle")
    (tmp_path / "bundle" / "params.safetensors").write_bytes(b"damaged")
    second = export(run, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest == second
    assert first["parameters_sha256"] == second["parameters_sha256"]
    assert first["checksums"]["params.safetensors"] == second["checksums"]["params.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_files_can_be_read_by_others(bundle):
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in bundle.iterdir())


def test_parameters_come_back_whatever_their_layout(tmp_path):
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    written = {"plain": table, "transposed": table.T, "strided": table[:, ::2]}
    write_parameters(written, tmp_path / "params.safetensors")
    found = load_file(tmp_path / "params.safetensors")
    for name, array in written.items():
        np.testing.assert_array_equal(found[name], array)


def test_all_parameters_are_in_the_bundle(bundle, trained):
    found = Bundle.open(bundle).parameters()
    expected = by_path(trained.variables)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_bundle_is_tested_only_beside_the_run_that_it_was_exported_from(bundle, towers, run):
    """A model of another run may have been trained on what this test asks."""
    finished = open_finished(run, Console(quiet=True))
    assert [*exported([bundle])(finished)] == [str(bundle)]
    other = towers[1].bundle
    assert other.manifest["catalog_fingerprint"] == finished.setting.store.catalog.fingerprint
    for wrong, what, name in (
        (other.path, finished, "parameters_sha256"),
        (bundle, replace(finished, corrections=Corrections(offset=1.0)), "corrections_sha256"),
    ):
        match = f"was not exported from .* as it is now .its {name} is .*bert4rec export"
        with pytest.raises(UserError, match=match):
            exported([wrong])(what)


def test_metrics_are_those_of_these_parameters_and_corrections_or_none(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    results = json.loads((copy / "metrics.json").read_text())
    for changes, told in (
        ({}, True),
        ({"parameters_sha256": {**results["parameters_sha256"], "tested": "others"}}, False),
        ({"corrections_sha256": "others"}, False),
    ):
        (copy / "metrics.json").write_text(json.dumps({**results, **changes}))
        found = read_run(copy, console=Console(quiet=True)).origin["metrics"]
        assert (found is not None) == told


def test_the_bytes_of_a_bundle_do_not_say_what_called_for_it(trained, bundle, tmp_path):
    made = write_bundle(trained, tmp_path / "again")
    assert made["checksums"] == Bundle.open(bundle).manifest["checksums"]
    assert __file__.encode() not in (tmp_path / "again" / "encode.stablehlo").read_bytes()


def test_something_else_is_not_replaced(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=f"{path} exists and is no bundle; choose another"):
            export(run, path)


def test_folders_within_an_earlier_bundle_are_not_lost(run, tmp_path):
    (tmp_path / "ranked").mkdir()
    (tmp_path / "manifest.json").write_text('{"bundle_schema": 1}')
    with pytest.raises(UserError, match=f"{tmp_path} would be replaced, and the folder 'ranked' "):
        export(run, tmp_path)
    assert (tmp_path / "ranked").is_dir()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint; train with --workdir"):
        export(tmp_path, tmp_path / "bundle")


def test_a_full_disk_leaves_nothing_behind(trained, tmp_path, full_disk):
    with full_disk(8192), pytest.raises(UserError, match=r"cannot write .*bundle: .*nothing was"):
        write_bundle(trained, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_not_finite_are_refused(trained, tmp_path):
    broken = {"position_embedding": np.full((6, 8), np.nan, np.float32)}
    variables = {"params": {**trained.variables["params"], **broken}}
    with pytest.raises(UserError, match=r"position_embedding is not finite: .*train again"):
        write_bundle(replace(trained, variables=variables), tmp_path / "bundle")
