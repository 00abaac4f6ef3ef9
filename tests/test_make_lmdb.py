"""Packing into LMDB: the official layout, restarts, verification, and the training data that comes out of it."""

import json
import logging
import shutil
import sys

import pytest
import trees
from train_sets import MAKERS, OWN, environment, in_form, same

from lib.train.dataset import build_dataset, open_dataset, packing
from lib.train.dataset.packing import pack, plan, verify
from lib.utils.errors import UserError
from lib.utils.local_files import train_fields
from lib.utils.ownership import own

lmdb = pytest.importorskip("lmdb")


@pytest.fixture
def script(root, monkeypatch):
    """`tracking/make_lmdb.py`: its exit status for arguments, or the error that it shows."""
    monkeypatch.syspath_prepend(str(root / "tracking"))
    sys.modules.pop("make_lmdb", None)
    import make_lmdb

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_lmdb.py", *map(str, arguments)])
        return make_lmdb.main()

    return run


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """Every folder of the environment somewhere below the test's."""
    for name in train_fields():
        if name.endswith("_dir") and name != "index_dir":
            monkeypatch.setenv(f"COMPRESSTRACKER_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("form", ("directory", "zip", "zips"))
@pytest.mark.parametrize("name", OWN)
def test_own_data_is_packed_too(tmp_path, script, name, form):
    root = OWN[name](tmp_path / "mine")
    plain = open_dataset(name.format(root), None)
    keys = {name for name in plain.storage.walk() if not name.endswith(".avi")}
    pictures = [plain.encoded(sequence, 0) for sequence in range(len(plain))]
    if form != "directory":
        in_form(form, name, root)
    assert script(name.format(root), "--sample", 0) == 0
    assert keys >= set(content(tmp_path / "mine_lmdb")) >= {key for key in keys if not key.endswith("boxes.json")}
    packed = build_dataset(name.format(root), environment(tmp_path), "lmdb")
    same(packed, plain)
    assert [packed.encoded(sequence, 0) for sequence in range(len(packed))] == pictures
    assert script(name.format(root), "--verify-only") == 0
    with pytest.raises(UserError, match="is read from an LMDB"):
        script(name.format(tmp_path / "mine_lmdb"))


def test_lists_and_annotation_files_share_an_lmdb(tmp_path, script, caplog):
    root = trees.folder(tmp_path / "mine", video=False)
    for name in ("first", "second"):
        (root / f"{name}.list.txt").write_text(name)
    for name in ("first", "second"):
        assert script(f"FOLDER:{root}@{name}.list.txt", "--output", tmp_path / "out") == 0
    in_form("zip", "FOLDER:{}", root)
    packed = open_dataset(f"FOLDER:{tmp_path}/out@second.list.txt", None)
    assert packed.storage.kind == "lmdb" and list(packed.sequences) == ["second"]
    (moved := tmp_path / "moved" / "train.lst").write_text("first")
    assert script(f"FOLDER:{moved.parent}@train.lst", "--output", tmp_path / "of_list") == 0
    assert list(open_dataset(f"FOLDER:{tmp_path}/of_list@train.lst", None).sequences) == ["first"]
    images = trees.pictures(tmp_path / "images")
    shutil.copy(images / "boxes.json", tmp_path / "other.json")
    assert script(f"COCO:{images}/boxes.json") == script(f"COCO:{tmp_path}/other.json@{images}") == 0
    next(images.glob("*7.jpg")).write_bytes(b"another")
    assert script(f"COCO:{tmp_path}/other.json@{images}", "--verify-only") == 1
    assert "000000000007.jpg has" in caplog.text


def test_videos_are_not_packed(tmp_path, script):
    root = trees.folder(tmp_path / "mine")
    with pytest.raises(UserError, match="third/clip.avi: a video .*unpack the video to pictures, or leave"):
        script(f"FOLDER:{root}")
    assert not (tmp_path / "mine_lmdb").exists() and not (tmp_path / "mine_lmdb.part").exists()


def content(path):
    """Key -> value of an LMDB."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


def lmdb_field(name):
    return MAKERS[name][0].replace("_dir", "_lmdb_dir")


@pytest.mark.parametrize("form", ("directory", "zip"))
@pytest.mark.parametrize("name", MAKERS)
def test_a_packed_data_set_gives_the_same_samples(tmp_path, script, fields, name, form):
    field, make = MAKERS[name]
    root = make(tmp_path / "unpacked")
    plain = open_dataset(name, environment(tmp_path, **{field: str(root)}))
    if form == "zip":
        trees.zipped(root, tmp_path / f"{field}.zip", field)
    else:
        root.rename(tmp_path / field)
        plain = open_dataset(name, environment(tmp_path, **{field: str(tmp_path / field)}))
    assert script(name) == 0
    packed = build_dataset(name, environment(tmp_path, **{lmdb_field(name): str(tmp_path / lmdb_field(name))}), "lmdb")
    same(packed, plain)
    for sequence in range(len(plain)):
        last = len(plain.annotation(sequence).visible) - 1
        assert packed.encoded(sequence, last) == plain.encoded(sequence, last)
    assert script(name, "--verify-only", "--sample", 0) == 0


@pytest.mark.parametrize(("name", "folder", "keys"), [
    ("LASOT", "", ["zebra/zebra-4/groundtruth.txt", "zebra/zebra-4/full_occlusion.txt",
                   "zebra/zebra-4/out_of_view.txt", "zebra/zebra-4/img/00000024.jpg"]),
    ("GOT10K_train_full", "", ["train/list.txt", "train/GOT-10k_Train_000003/groundtruth.txt",
                               "train/GOT-10k_Train_000003/absence.label", "train/GOT-10k_Train_000003/cover.label",
                               "train/GOT-10k_Train_000003/00000001.jpg"]),
    ("TRACKINGNET", "TRAIN_11_lmdb", ["anno/video11_0.txt", "frames/video11_0/23.jpg"]),
    ("COCO17", "", ["annotations/instances_train2017.json", "images/train2017/000000000009.jpg"]),
    ("VID", "", ["cache.json", "Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000007/000023.JPEG"]),
])
def test_the_keys_are_those_of_the_official_readers(tmp_path, script, fields, name, folder, keys):
    MAKERS[name][1](tmp_path / MAKERS[name][0])
    assert script(name) == 0
    found = content(tmp_path / lmdb_field(name) / folder)
    assert set(keys) <= set(found)
    if name == "TRACKINGNET":
        listed = json.loads((tmp_path / lmdb_field(name) / "seq_list.json").read_text())
        assert listed == [[0, "video0_0"], [11, "video11_0"]]


def test_an_official_lmdb_is_read_as_it_is(tmp_path):
    """Texts without a last line break, no list of anything but GOT-10k's, no entries for folders."""
    root = trees.got10k(tmp_path / "got", hidden=(2,))
    path = tmp_path / "got10k_lmdb"
    path.mkdir()
    with lmdb.open(str(path), map_size=1 << 24) as target, target.begin(write=True) as transaction:
        for file in root.rglob("*.*"):
            value = file.read_bytes().rstrip() if file.suffix != ".jpg" else file.read_bytes()
            transaction.put(f"train/{file.relative_to(root)}".encode(), value)
        transaction.put(b"test/list.txt", b"GOT-10k_Test_000001")
    dataset = build_dataset("GOT10K_train_full", environment(tmp_path, got10k_lmdb_dir=str(path)))
    assert dataset.storage.kind == "lmdb"
    same(dataset, open_dataset("GOT10K_train_full", environment(tmp_path, got10k_dir=str(root))))


def lasot_target(tmp_path):
    root = trees.lasot(tmp_path / "lasot")
    dataset = open_dataset("LASOT", environment(tmp_path, lasot_dir=str(root)))
    (target,) = plan(dataset, tmp_path / "out")
    return dataset.storage, target


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    storage, target = lasot_target(tmp_path)
    monkeypatch.setattr(packing, "CHUNK", 10)
    put, calls = packing._put, []

    def stop_in_the_third(environment, contents):
        calls.append(len(contents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(environment, contents)

    monkeypatch.setattr(packing, "_put", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack(storage, target)
    assert not target.folder.exists() and (tmp_path / "out.part").is_dir()
    calls[:] = [0, 0, 0]
    assert pack(storage, target)
    assert calls[3:5] == [0, 0] and sum(calls) == len(target) - 20  # the first two chunks stayed
    assert not (tmp_path / "out.part").exists() and sorted(p.name for p in target.folder.iterdir()) == [
        "data.mdb", "lock.mdb"]
    assert verify(storage, target, sample=0) == [] and not pack(storage, target)


def test_what_was_written_of_another_version_is_written_again(tmp_path):
    storage, target = lasot_target(tmp_path)
    (tmp_path / "out.part").mkdir()
    with lmdb.open(str(tmp_path / "out.part"), map_size=1 << 24) as part, part.begin(write=True) as transaction:
        transaction.put(b"zebra/zebra-4/img/00000003.jpg", b"older")
    assert pack(storage, target) and verify(storage, target, sample=0) == []


def test_the_map_grows(tmp_path, monkeypatch):
    storage, target = lasot_target(tmp_path)
    monkeypatch.setattr(packing, "FIRST_MAP", 1 << 15)
    assert pack(storage, target) and verify(storage, target, sample=0) == []


def test_verification_finds_what_is_wrong(tmp_path, script, fields, caplog):
    trees.lasot(tmp_path / "lasot_dir")
    assert script("LASOT") == 0
    target = tmp_path / "lasot_lmdb_dir"
    with lmdb.open(str(target), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"zebra/zebra-4/groundtruth.txt")
        transaction.put(b"zebra/zebra-4/img/00000002.jpg", b"short")
        image = transaction.get(b"zebra/zebra-4/img/00000003.jpg")
        transaction.put(b"zebra/zebra-4/img/00000003.jpg", image[:-1] + b"?")
    for options in (("--verify-only",), ("--sample", 0)):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert script("LASOT", *options) == 1
        for words in ("zebra-4/groundtruth.txt is missing", "00000002.jpg has 5 bytes instead of",
                      "00000003.jpg has another content", "3 of 54 files are wrong"):
            assert words in caplog.text


def test_a_bad_write_never_appears(tmp_path, monkeypatch):
    storage, target = lasot_target(tmp_path)
    monkeypatch.setattr(packing, "verify", lambda *_, **__: ["zebra is missing"])
    with pytest.raises(UserError, match="not written as it was read .zebra is missing."):
        pack(storage, target)
    assert not target.folder.exists() and not (tmp_path / "out.part").exists()


def test_a_full_disk_is_named_and_the_next_run_goes_on(tmp_path, monkeypatch):
    storage, target = lasot_target(tmp_path)

    def full(*_):
        raise lmdb.DiskError("No space left on device")

    monkeypatch.setattr(packing, "_put", full)
    with pytest.raises(UserError, match="cannot write .*out.part.*No space left.*free disk space"):
        pack(storage, target)
    monkeypatch.undo()
    assert pack(storage, target)


def test_two_at_once_are_refused(tmp_path):
    storage, target = lasot_target(tmp_path)
    with own(tmp_path / "out.part"), pytest.raises(UserError, match=r"out\.part is being written by"):
        pack(storage, target)


def test_a_missing_picture_is_named(tmp_path, monkeypatch):
    storage, target = lasot_target(tmp_path)
    (tmp_path / "lasot" / "zebra" / "zebra-4" / "img" / "00000007.jpg").unlink()
    with pytest.raises(UserError, match="cannot read .*00000007.jpg"):
        pack(storage, target)
    assert not target.folder.exists()


def test_the_splits_of_got10k_share_one_lmdb(tmp_path):
    root = trees.got10k(tmp_path / "got")
    names = [f"GOT-10k_Train_{i + 1:06d}" for i in range(9335)]
    (root / "list.txt").write_text("\n".join(names))
    env = environment(tmp_path, got10k_dir=str(root))
    whole, split = (plan(open_dataset(f"GOT10K_{n}", env), tmp_path / "out")[0] for n in ("train_full", "votval"))
    assert whole.files == split.files and "train/list.txt" in whole.files
    (root / "list.txt").unlink()
    (target,) = plan(open_dataset("GOT10K_train_full", env), tmp_path / "out")
    assert target.made == {"train/list.txt": "\n".join(names[:3]).encode()}


@pytest.mark.parametrize(("arguments", "message"), [
    (("LASSOT",), "unknown data set 'LASSOT'"), (("FOLDER:x",), "FOLDER:x: folder not found.*Expected one folder per"),
    (("COCO:x.json",), "annotation file not found: .*x.json"), (("LASOT",), "folder not found: .*lasot_dir"),
    (("LASOT", "--source", "zip"), "no zip archives"), (("LASOT", "--verify-only"), "folder not found"),
])
def test_wrong_input(tmp_path, script, fields, arguments, message):
    with pytest.raises(UserError, match=message):
        script(*arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("LASOT", "VID", "--output", "x"), ("LASOT", "--sample", "-1")])
def test_wrong_options(script, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        script(*arguments)
    assert ended.value.code == 2


def test_a_place_that_holds_something_else_is_refused_before_the_work(tmp_path, script):
    root = trees.lasot(tmp_path / "lasot_dir")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", root):
        with pytest.raises(UserError, match="exists and holds something else .*choose another --output"):
            script(f"FOLDER:{root}", "--output", place)
    assert not list(tmp_path.glob("*.part"))


def test_verifying_what_is_not_there(tmp_path, script, fields):
    trees.lasot(tmp_path / "lasot_dir")
    with pytest.raises(UserError, match="cannot open the LMDB .*lasot_lmdb_dir"):
        script("LASOT", "--verify-only")


def test_an_lmdb_is_no_source(tmp_path):
    storage, target = lasot_target(tmp_path)
    pack(storage, target)
    packed = open_dataset("LASOT", environment(tmp_path, lasot_lmdb_dir=str(target.folder)))
    with pytest.raises(UserError, match="is read from an LMDB"):
        plan(packed, tmp_path / "again")


def test_names_that_are_too_long_are_refused(tmp_path):
    root = trees.tnl2k(tmp_path / "tnl")
    name = "a" * 200
    deep = root / "Bird_27-Done" / name / name
    deep.mkdir(parents=True)
    (deep / (name + ".txt")).write_text("x")
    dataset = open_dataset("TNL2K", environment(tmp_path, tnl2k_dir=str(root)))
    with pytest.raises(UserError, match="longer than 511 bytes"):
        plan(dataset, tmp_path / "out")


def test_progress_is_logged_without_a_terminal(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lib.utils.progress.LINE_EVERY", 0.0)
    storage, target = lasot_target(tmp_path)
    with caplog.at_level(logging.INFO):
        pack(storage, target)
    assert "pack out: 1 of 1 x 256 files" in caplog.text and f"verify out: 54 of {len(target)} files" in caplog.text
