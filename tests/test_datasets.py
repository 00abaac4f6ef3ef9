"""Reading test sets from small generated trees."""

from types import SimpleNamespace

import numpy as np
import pytest

from lib.test.evaluation import get_dataset
from lib.utils.errors import UserError
from lib.vis.draw import save_image


def frames(folder, count):
    for i in range(1, count + 1):
        save_image(folder / f"{i:08d}.jpg", np.full((6, 8, 3), i, np.uint8))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_got10k(tmp_path):
    env = SimpleNamespace(got10k_path=str(tmp_path))
    for split, names in (("val", ["v10", "v2"]), ("test", ["t1"])):
        for name in names:
            frames(tmp_path / split / name, 3)
            write(tmp_path / split / name / "groundtruth.txt", "1,2,3,4\n" * (1 if split == "test" else 3))
        write(tmp_path / split / "list.txt", "\n".join(names) + "\n")
    sequences = get_dataset("got10k_val", env)
    assert [s.name for s in sequences] == ["v10", "v2"]
    assert {s.dataset for s in sequences} == {"got10k"} and sequences[0].length == 3
    assert sequences[0].frames[2].shape == (6, 8, 3) and sequences[0].visible is None
    test = get_dataset("got10k_test", env)[0]
    assert test.length == 3 and test.first_box() == [1, 2, 3, 4] and np.isnan(test.ground_truth[1:]).all()
    with pytest.raises(UserError, match="got10k_train is not whole"):
        get_dataset("got10k_train", env)


def test_trackingnet(tmp_path):
    env = SimpleNamespace(trackingnet_path=str(tmp_path))
    for name in ("a_0", "b_0"):
        frames(tmp_path / "TEST" / "frames" / name, 2)
        write(tmp_path / "TEST" / "anno" / f"{name}.txt", "1,2,3,4\n")
    sequences = get_dataset("trackingnet", env)
    assert [(s.name, s.dataset, s.length) for s in sequences] == [("a_0", "trackingnet", 2), ("b_0", "trackingnet", 2)]
    assert sequences[0].ground_truth.shape == (2, 4)
    write(tmp_path / "TEST" / "anno" / "a_0.txt", "1,2,3,4\n" * 3)
    with pytest.raises(UserError, match="3 boxes but .* only 2 frames"):
        get_dataset("trackingnet", env)


def test_folder(tmp_path, monkeypatch):
    for name in ("s2", "s10"):
        frames(tmp_path / "mine" / name / "img", 2)
        write(tmp_path / "mine" / name / "groundtruth_rect.txt", "1,2,3,4\n" * 2)
    write(tmp_path / "names.txt", "s10\n")
    monkeypatch.chdir(tmp_path)
    assert [(s.name, s.dataset) for s in get_dataset("folder:mine", None)] == [
        ("s2", "folder:mine"), ("s10", "folder:mine")]
    listed = get_dataset("folder:mine@names.txt", None)
    assert [(s.name, s.dataset) for s in listed] == [("s10", "folder:mine")]
    assert get_dataset("folder:../" + tmp_path.name + "/mine", None, "s2")[0].dataset == "folder:mine"


def test_missing_data_says_what_to_set(tmp_path):
    for path in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="lasot_path.*local.py"):
            get_dataset("lasot", SimpleNamespace(lasot_path=path))
