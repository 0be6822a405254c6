"""Recipes: found by name, overridden by the command line, adapted to data."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from test_end_to_end import TRAIN

from bert4rec_jax.checks import ConfigError
from bert4rec_jax.config import Config, DataConfig, MaskingConfig, ModelConfig, to_json
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.experiment import recipes
from bert4rec_jax.experiment.workdir import training_in

FOLDER = Path(__file__).parents[2] / "configs"
in_repository = pytest.mark.skipif(not TRAIN.is_file(), reason="configs/ lies in the repository")

ADAPTING = """\"\"\"Widths from the data.\"\"\"
from dataclasses import replace
from bert4rec_jax.config import Config, DataConfig, ModelConfig

config = Config(model=ModelConfig(dim=8, layers=3), data=DataConfig(path="movietweetings"))

def adapt(config, store):
    users = store.num_users
    return replace(config, model=replace(config.model, dim=2 * users, layers=users))
"""


@in_repository
@pytest.mark.parametrize("name", recipes.names(FOLDER))
def test_every_recipe_is_a_config_with_a_line_about_it(name):
    recipe = recipes.load(name, FOLDER)
    assert recipe.name == name and recipe.about.endswith(".")
    assert recipe.config.workdir == f"runs/{name}"


@in_repository
def test_recipes_come_with_the_package():
    """In the package where it was built, beside it where it is installed as a source."""
    assert recipes.names(recipes.shipped()) == recipes.names(FOLDER)
    assert recipes.load("general").config == recipes.load("general", FOLDER).config


@in_repository
def test_an_unknown_recipe_names_those_that_exist():
    with pytest.raises(UserError, match=r"no recipe 'no_such_recipe'.*movietweetings"):
        recipes.parse(["no_such_recipe"], FOLDER)


def test_a_folder_without_recipes_says_where_they_are(tmp_path):
    for arguments in ([], ["general"]):
        with pytest.raises(UserError, match=r"no recipes in .*copied without.*`bert4rec train`"):
            recipes.parse(arguments, tmp_path / "configs")
    with pytest.raises(UserError, match=r"no recipe 'mine\.py'; known are none, or give the path"):
        recipes.parse(["mine.py"], tmp_path / "configs")


@in_repository
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model.heads", 3, "model.heads is 3; expected a divisor of model.dim = 128"),
        ("model.layers", 0, "model.layers is 0; expected at least 1"),
        ("masking.rate", 1.5, "masking.rate is 1.5; expected in (0, 1)"),
    ],
)
def test_impossible_settings_get_one_clear_error(option, value, message, capsys):
    with pytest.raises(SystemExit) as end:
        recipes.parse([f"--{option}", str(value)], FOLDER)
    assert end.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown


@in_repository
def test_help_explains_fields_with_defaults(capsys):
    with pytest.raises(SystemExit) as end:
        recipes.parse(["--help"], FOLDER)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for part in ("--model.dim", "Width D of embeddings", "--optimizer.peak-lr", "movietweetings"):
        assert part in shown


@pytest.fixture
def adapting(tmp_path):
    path = tmp_path / "adapting [v1].py"
    path.write_text(ADAPTING)
    return path


def parsed(adapting, *arguments):
    console = Console(file=io.StringIO(), width=200)
    name, config = recipes.parse([str(adapting), *arguments], FOLDER, console=console)
    assert name == "adapting [v1]"
    return config, console.file.getvalue()


def test_settings_follow_from_the_data_unless_given(adapting, store, tmp_path):
    data = ("--data.path", str(store.path), "--workdir", str(tmp_path / "run"))
    config, said = parsed(adapting, *data)
    assert (config.model.dim, config.model.layers) == (120, 60)
    assert "model.dim: 8 -> 120" in said and "model.layers: 3 -> 60" in said
    assert f"{adapting.stem}: settings that follow from the data" in said
    config, said = parsed(adapting, *data, "--model.layers", "4")
    assert (config.model.dim, config.model.layers) == (120, 4)
    assert "model.layers" not in said


def test_an_adapt_that_returns_no_config_is_refused(adapting, store, tmp_path):
    """It would train the default config, on other data than were asked for."""
    data = ("--data.path", str(store.path), "--workdir", str(tmp_path / "run"))
    adapting.write_text(adapting.read_text().replace("    return ", "    forgotten = "))
    with pytest.raises(UserError, match=r"`adapt` of the recipe .* returned NoneType; expected"):
        parsed(adapting, *data)


def test_an_adapt_that_fails_is_reported_with_its_line(adapting, store, tmp_path):
    data = ("--data.path", str(store.path), "--workdir", str(tmp_path / "run"))
    text = adapting.read_text().replace("    return ", "    store.num_movies\n    return ")
    adapting.write_text(text)
    line = text.splitlines().index("    store.num_movies") + 1
    with pytest.raises(UserError, match=rf"failed \(AttributeError: .*num_movies.*line {line} of"):
        parsed(adapting, *data)


def test_data_of_another_run_stay_where_they_are(adapting, tmp_path, monkeypatch):
    """The folder holds a run on other data: it is refused before they are replaced."""
    monkeypatch.setattr(
        "bert4rec_jax.experiment.inputs.read_config", lambda folder: to_json(Config())
    )
    log, workdir = tmp_path / "log.csv", tmp_path / "run"
    log.write_text("user_id,item_id,timestamp\na,x,1\na,y,2\n")
    with pytest.raises(UserError, match=r"on the log movietweetings, and .*log\.csv does"):
        parsed(adapting, "--data.path", str(log), "--workdir", str(workdir))
    assert not (workdir / "data").exists()


def test_data_of_a_training_that_goes_on_stay_where_they_are(adapting, tmp_path):
    log, workdir = tmp_path / "log.csv", tmp_path / "run"
    log.write_text("user_id,item_id,timestamp\na,x,1\na,y,2\n")
    arguments = ["--data.path", str(log), "--workdir", str(workdir)]
    with training_in(workdir), pytest.raises(TemporaryError, match="another process is training"):
        parsed(adapting, *arguments)
    assert not (workdir / "data").exists()


def test_a_log_that_has_changed_is_read_again_unless_a_run_was_trained_on_it(
    adapting, tmp_path, monkeypatch
):
    log, workdir = tmp_path / "log.csv", tmp_path / "run"
    arguments = ["--data.path", str(log), "--workdir", str(workdir)]
    arguments += ["--data.min-user-interactions", "1", "--data.min-item-interactions", "1"]
    log.write_text("user_id,item_id,timestamp\na,x,1\na,y,2\n")
    config, _ = parsed(adapting, *arguments)
    first = SequenceStore.open(workdir / "data").fingerprint
    parsed(adapting, *arguments)
    assert SequenceStore.open(workdir / "data").fingerprint == first
    log.write_text("user_id,item_id,timestamp\na,x,1\na,y,2\na,z,3\n")
    parsed(adapting, *arguments)
    assert SequenceStore.open(workdir / "data").num_interactions == 3
    monkeypatch.setattr(
        "bert4rec_jax.experiment.inputs.read_config", lambda folder: to_json(config)
    )
    parsed(adapting, *arguments)
    log.write_text("user_id,item_id,timestamp\na,x,1\n")
    with pytest.raises(UserError, match=r"log\.csv has changed since the run in .* was trained"):
        parsed(adapting, *arguments)
    assert SequenceStore.open(workdir / "data").num_interactions == 3
    log.unlink()  # moved away: what was prepared is there
    parsed(adapting, *arguments)


def test_a_run_takes_the_model_of_the_one_it_begins_from(adapting, store, tmp_path, monkeypatch):
    model = ModelConfig(dim=24, heads=3, layers=4)
    then = Config(model=model, data=DataConfig(max_length=33))
    monkeypatch.setattr("bert4rec_jax.experiment.recipes.read_config", lambda folder: to_json(then))
    data = ("--data.path", str(store.path), "--workdir", str(tmp_path / "run"))
    config, said = parsed(adapting, *data, "--init-from", "runs/then")
    assert (config.model, config.data.max_length) == (model, 33)
    assert "model.layers: 3 -> 4" in said
    config, _ = parsed(adapting, *data, "--init-from", "runs/then", "--model.layers", "2")
    assert config.model == replace(model, layers=2)  # as was said; refused when it is opened


@in_repository
@pytest.mark.parametrize("name", ["general", "movietweetings"])
def test_an_earlier_run_that_is_not_there_is_told_before_anything_else(name, store, tmp_path):
    """Data is not prepared first, and no settings follow from a run that is not there."""
    console = Console(file=io.StringIO())
    changes = {"data.path": store.path, "workdir": tmp_path / "run", "init_from": tmp_path / "no"}
    with pytest.raises(UserError, match="no holds no checkpoint"):
        recipes.recipe(name, changes, console=console)
    assert not console.file.getvalue() and not (tmp_path / "run").exists()


@in_repository
@pytest.mark.parametrize("name", ["general", "movietweetings"])
def test_what_the_earlier_run_read_is_read_again(name, store, tmp_path, monkeypatch):
    """Two towers of a shop: no setting of theirs has to be named again, whatever the recipe."""
    then = Config(
        data=DataConfig(thumbs=(7.0, 9.0), repeats=True, max_length=24),
        model=ModelConfig(kind="two-tower", layers=0, thumbs=True),
        masking=MaskingConfig(objective="next"),
    )
    monkeypatch.setattr("bert4rec_jax.experiment.recipes.read_config", lambda folder: to_json(then))
    users = tmp_path / "users.csv"
    given = {"data.path": str(store.path), "workdir": str(tmp_path / "run"), "init_from": "then"}
    config = recipes.recipe(name, {**given, "data.users": str(users)})
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    _, typed = recipes.parse([name, *words, "--data.users", str(users)], FOLDER)
    assert typed == config and config.data.users == str(users)
    assert (config.model, config.data.thumbs) == (then.model, (7.0, 9.0))
    assert config.data.repeats and config.own_items_compete
    assert config.masking.objective == "next" and not config.calibration.covisitation


@in_repository
@pytest.mark.parametrize(
    ("users", "items", "length", "expected"),
    [
        # worked out by hand, in the order of the comparison below
        (5_000, 3_000, 20, (24, 0.1, 0.3, "mixed", 64, 40, (0, 0))),
        (6_000, 3_400, 165, (100, 0.05, 0.2, "mixed", 32, 40, (0, 0))),
        (11_000, 9_000, 7, (16, 0.1, 0.5, "next", 128, 24, (0, 0))),
        (40_000, 50_000, 8, (16, 0.05, 0.5, "next", 128, 24, (1024, 2048))),
        (500_000, 300_000, 8, (16, 0.05, 0.5, "next", 1024, 24, (1024, 2048))),
        (138_000, 26_000, 144, (100, 0.05, 0.2, "mixed", 128, 12, (0, 0))),
    ],
    ids=[
        "like MovieTweetings",
        "like MovieLens-1M",
        "like a small shop",
        "like a shop",
        "like a large shop",
        "like MovieLens-20M",
    ],
)
def test_the_general_recipe_by_hand(users, items, length, expected):
    sizes = SimpleNamespace(
        num_interactions=users * length, catalog=range(items), lengths=np.full(users, length)
    )
    recipe = recipes.load("general", FOLDER)
    found = recipe.adapt(recipe.config, sizes)
    assert expected == (
        found.data.max_length,
        found.optimizer.weight_decay,
        found.model.dropout,
        found.masking.objective,
        found.training.batch_size,
        found.training.epochs,
        (found.training.in_batch_negatives, found.training.uniform_negatives),
    )


def test_a_recipe_without_a_config_is_one_clear_error(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("config = 3\n")
    with pytest.raises(UserError, match=r"has to define `config = Config"):
        recipes.parse([str(path)], FOLDER)


@in_repository
def test_a_recipe_from_python_is_that_of_the_command_line(store, tmp_path):
    arguments = ["general", "--data.path", str(store.path), "--data.content", "",
                 "--training.epochs", "3", "--final-fit", "--workdir", str(tmp_path)]  # fmt: skip
    changes = {"data.path": store.path, "data.content": "", "training.epochs": 3,
               "final_fit": True, "workdir": tmp_path}  # fmt: skip
    _, config = recipes.parse(arguments, FOLDER)
    assert recipes.recipe("general", changes) == config
    assert recipes.recipe("ml_1m") == recipes.load("ml_1m", FOLDER).config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("training.epochs", "changes is of type str; expected a dict, such as"),
        ({"training.epoch": 3}, r"no field 'training\.epoch' \(did you mean training\.epochs\?\)"),
        ({"data": {}}, "data is a section of settings; give each, such as 'data.path'"),
        ({"workdir.work": 1}, r"no field 'workdir\.work'"),
        ({"final_fit.x": 1}, r"no field 'final_fit\.x'"),
        ({"dim": 32}, r"no field 'dim' \(did you mean model\.dim\?\)"),
        ({"workdirs": "x"}, r"no field 'workdirs' \(did you mean workdir\?\)"),
        ({"data.split": "time"}, r"data\.split is 'time'; expected one of"),
    ],
)
def test_changes_that_no_config_has(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipes.recipe("movietweetings", changes)


def test_a_recipe_that_python_cannot_read(tmp_path):
    (tmp_path / "mine.py").write_text("config = Config(\n")
    with pytest.raises(UserError, match=r"cannot load the recipe .*mine\.py \(.* was never closed"):
        recipes.recipe(tmp_path / "mine.py")


def test_a_recipe_that_fails_is_one_clear_error(tmp_path):
    path = tmp_path / "failing.py"
    path.write_text("import pathlib\npathlib.Path().no_such_thing\n")
    with pytest.raises(UserError, match=r"cannot load the recipe .*AttributeError.*no_such_thing"):
        recipes.parse([str(path)], FOLDER)


def test_of_options_given_twice_the_last_one_counts():
    words = ["--init-from", "a", "--workdir=b", "--init_from=c"]
    assert recipes._value_of("init_from", words) == "c"
    assert recipes._value_of("workdir", words) == "b"
    assert recipes._value_of("mesh", words) == ""
