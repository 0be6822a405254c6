"""Where compiled programs are kept."""

import jax
import pytest

from bert4rec_jax.experiment.programs import keep_programs


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """The config as a new process has it; gives the place that JAX was told last."""
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda: jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_cache_folder(chosen, tmp_path):
    keep_programs()
    assert chosen() == str(tmp_path / "bert4rec-jax" / "programs")


def test_a_place_that_somebody_chose_stays(chosen, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    keep_programs()
    assert chosen() == "/elsewhere"


def test_no_place_can_be_chosen(chosen, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    keep_programs()
    assert chosen() is None
