"""The local.py files, their defaults and the environment variables."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.test.evaluation.environment import EnvSettings
from lib.utils import local_files
from lib.utils.errors import UserError

# What the file generators of the official repositories write (field order and layout as there).
OFFICIAL_TRAIN = """class EnvironmentSettings:
    def __init__(self):
        self.workspace_dir = '/somewhere/CT'    # Base directory for saving network checkpoints.
        self.tensorboard_dir = '/somewhere/CT/tensorboard'    # Directory for tensorboard files.
        self.pretrained_networks = '/somewhere/CT/pretrained_networks'
        self.lasot_dir = '/disk/lasot'
        self.got10k_dir = 'mine/got10k/train'
        self.lvis_dir = ''
"""
OFFICIAL_TEST = """from lib.test.evaluation.environment import EnvSettings

def local_env_settings():
    settings = EnvSettings()

    # Set your local paths here.

    settings.got10k_path = '/disk/got10k'
    settings.lasot_path = '/disk/lasot'
    settings.network_path = '/somewhere/CT/output/test/networks'    # Where tracking networks are stored.
    settings.results_path = '/somewhere/CT/output/test/tracking_results'    # Where to store tracking results
    settings.save_dir = '/somewhere/CT/output'

    return settings

"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="local.py"):
        path = tmp_path / name
        path.write_text(text)
        return path
    return write


@pytest.fixture
def nowhere(tmp_path):
    return tmp_path / "absent" / "local.py"


def test_an_official_training_file_works(write, root):
    env = local_files.train_settings(write(OFFICIAL_TRAIN))
    assert env.workspace_dir == "/somewhere/CT"
    assert env.lasot_dir == "/disk/lasot"
    assert env.lvis_dir == ""
    assert env.got10k_dir == str(root / "mine/got10k/train")  # relative to the repository, not to the cwd
    assert env.got10k_val_dir == str(root / "data/got10k/val")  # not in the file: the default


def test_an_official_test_file_works(write, root):
    env = local_files.test_settings(write(OFFICIAL_TEST))
    assert env.save_dir == "/somewhere/CT/output"
    assert env.results_path == "/somewhere/CT/output/test/tracking_results"
    assert env.trackingnet_path == str(root / "data/trackingnet")


def test_class_attributes_and_paths_count_too(write):
    text = "class EnvironmentSettings:\n    coco_dir = Path('/c')\n    lasot_dir = None\n"
    path = write("from pathlib import Path\n" + text)
    env = local_files.train_settings(path)
    assert (env.coco_dir, env.lasot_dir) == ("/c", "")


def test_missing_files_mean_what_the_command_writes(root, tmp_path, nowhere):
    """The command is run for real, in a copy of the few files that it needs, at that copy's root."""
    copy = tmp_path / "repo"
    for name in ("tracking/create_default_local_file.py", "lib/__init__.py", "lib/utils/__init__.py",
                 "lib/utils/errors.py", "lib/utils/files.py", "lib/utils/log.py", "lib/utils/signals.py",
                 "lib/utils/local_files.py", "lib/train/__init__.py", "lib/test/__init__.py",
                 "lib/test/evaluation/environment.py", "lib/train/admin/environment.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((root / name).read_bytes())
    code = ("import json, sys; sys.path.insert(0, '.')\n"
            "from lib.utils.local_files import test_settings, train_settings\n"
            "print(json.dumps([vars(train_settings()), vars(test_settings())]))")

    def settings():
        return subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True).stdout

    before = settings()
    assert not (copy / "lib/train/admin/local.py").exists()
    arguments = ["--workspace_dir", ".", "--data_dir", "./data", "--save_dir", "./output"]
    subprocess.run([sys.executable, "tracking/create_default_local_file.py", *arguments], cwd=copy, check=True,
                   capture_output=True)
    assert "class EnvironmentSettings:" in (copy / "lib/train/admin/local.py").read_text()
    assert "def local_env_settings():" in (copy / "lib/test/evaluation/local.py").read_text()
    assert settings() == before
    assert str(copy / "data/got10k/train") in before and str(copy / "output/test/tracking_results") in before


def test_the_default_layout_is_the_official_one(nowhere, root):
    train, test = local_files.train_settings(nowhere), local_files.test_settings(nowhere)
    output = root / "output"
    assert train.workspace_dir == test.prj_dir == str(root)
    assert train.got10k_dir == str(root / "data/got10k/train")
    assert test.got10k_path == str(root / "data/got10k")
    assert test.results_path == str(output / "test/tracking_results")
    assert test.result_plot_path == str(output / "test/result_plots")
    assert vars(EnvSettings()) == vars(test)


@pytest.mark.parametrize(("text", "words"), [
    ("class EnvironmentSettings:\n    def __init__(self)\n", ["line 2", "SyntaxError"]),
    ("import no_such_module\n", ["no_such_module"]),
    ("class Settings:\n    pass\n", ["expected a class EnvironmentSettings", "create_default_local_file.py"]),
    ("class EnvironmentSettings:\n    def __init__(self):\n        self.a = self.b\n", ["AttributeError"]),
])
def test_a_broken_file_is_named(write, text, words):
    path = write(text)
    with pytest.raises(UserError) as error:
        local_files.train_settings(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_broken_test_file_is_named(write):
    path = write("def local_env_settings():\n    raise ValueError('nope')\n")
    with pytest.raises(UserError, match="nope") as error:
        local_files.test_settings(path)
    assert str(path) in str(error.value)


def test_an_edit_is_seen_at_once(write):
    """No cached byte code: two different contents within one second."""
    for folder in ("/one", "/two", "/six"):
        path = write(f"class EnvironmentSettings:\n    lasot_dir = '{folder}'\n")
        assert local_files.train_settings(path).lasot_dir == folder


def test_environment_variables_come_first(write, monkeypatch, root):
    monkeypatch.setenv("COMPRESSTRACKER_LASOT_DIR", "/variable/lasot")
    monkeypatch.setenv("COMPRESSTRACKER_COCO_DIR", "here/coco")
    monkeypatch.setenv("COMPRESSTRACKER_GOT10K_DIR", "")
    env = local_files.train_settings(write(OFFICIAL_TRAIN))
    assert env.lasot_dir == "/variable/lasot"
    assert env.coco_dir == str(root / "here/coco")
    assert env.got10k_dir == str(root / "mine/got10k/train")  # an empty variable is no variable


@pytest.mark.parametrize("present", [True, False])
def test_an_overridden_folder_takes_its_contents_along(write, nowhere, monkeypatch, present):
    monkeypatch.setenv("COMPRESSTRACKER_SAVE_DIR", "/runs")
    monkeypatch.setenv("COMPRESSTRACKER_NETWORK_PATH", "/nets")
    env = local_files.test_settings(write(OFFICIAL_TEST) if present else nowhere)
    assert env.results_path == "/runs/test/tracking_results"
    assert env.network_path == "/nets"


def test_a_hand_set_folder_stays(write, monkeypatch):
    monkeypatch.setenv("COMPRESSTRACKER_SAVE_DIR", "/runs")
    path = write(OFFICIAL_TEST.replace("/somewhere/CT/output/test/tracking_results", "/elsewhere/results"))
    assert local_files.test_settings(path).results_path == "/elsewhere/results"


def test_a_misspelt_variable_is_reported(nowhere, monkeypatch, caplog):
    monkeypatch.setenv("COMPRESSTRACKER_LASOT_DRI", "/x")
    monkeypatch.setenv("COMPRESSTRACKER_SAVE_DIR", "/y")  # a test field: known to training, too
    with caplog.at_level(logging.WARNING):
        local_files.train_settings(nowhere)
    assert "COMPRESSTRACKER_LASOT_DRI" in caplog.text and "COMPRESSTRACKER_LASOT_DIR?" in caplog.text
    assert "SAVE_DIR" not in caplog.text


def test_writing_keeps_what_was_there(tmp_path):
    files = {"train_file": tmp_path / "train.py", "test_file": tmp_path / "test.py"}
    files["train_file"].write_text("mine = 1\n")
    local_files.write_local_files(tmp_path, "/a", "/b", **files)
    assert (tmp_path / "train.py.bak").read_text() == "mine = 1\n"
    assert not (tmp_path / "test.py.bak").exists()
    local_files.write_local_files(tmp_path, "/a", "/b", **files)  # the same again: nothing to keep
    assert not (tmp_path / "train.py.bak2").exists()
    local_files.write_local_files(tmp_path, "/c", "/b", **files)
    assert (tmp_path / "train.py.bak").read_text() == "mine = 1\n"
    assert "'/a/lasot'" in (tmp_path / "train.py.bak2").read_text()
    assert local_files.train_settings(files["train_file"]).lasot_dir == "/c/lasot"


def test_folders_with_quotes_and_blanks(tmp_path):
    data = tmp_path / "it's \"my\" data"
    files = {"train_file": tmp_path / "train.py", "test_file": tmp_path / "test.py"}
    local_files.write_local_files(tmp_path, data, tmp_path, **files)
    assert local_files.train_settings(files["train_file"]).coco_dir == str(data / "coco")
    assert local_files.test_settings(files["test_file"]).lasot_path == str(data / "lasot")


def test_relative_folders_of_the_command_start_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local_files.write_local_files(".", "d", "s", train_file=Path("t.py"), test_file=Path("e.py"))
    assert local_files.train_settings(tmp_path / "t.py").lasot_dir == os.path.realpath(tmp_path / "d/lasot")
