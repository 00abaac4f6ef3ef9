"""Files of a data set in a folder, in LMDBs and in zip archives, through one interface."""

import builtins
import multiprocessing
import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import trees

from lib.train.dataset import lmdb_archive
from lib.train.dataset.lmdb_archive import LmdbArchive
from lib.train.dataset.places import Place, open_storage
from lib.train.dataset.storage import ArchiveStorage, Mount
from lib.train.dataset.zip_archive import ZipArchive
from lib.utils.errors import UserError
from lib.utils.storage import DirectoryStorage

lmdb = pytest.importorskip("lmdb")

FILES = {
    "list.txt": b"one\ntwo\n",
    "a/groundtruth.txt": b"1,2,3,4\n" * 300,
    "a/img/2.jpg": b"\xff\xd8" + bytes(2000),
    "a/img/10.jpg": b"",
    "a-b/img/1.jpg": b"other",
    "ab/é.txt": "ü".encode(),
}


def write_folder(root):
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_lmdb(root, files, prefix=""):
    root.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(root), map_size=1 << 22)
    with environment.begin(write=True) as transaction:
        for name, content in files.items():
            transaction.put((prefix + name).encode(), content)
    environment.close()
    return root


def make(kind, tmp_path):
    folder = write_folder(tmp_path / "folder")
    if kind == "directory":
        return DirectoryStorage(folder)
    if kind == "lmdb":
        path = write_lmdb(tmp_path / "lmdb", FILES, "train/")
        return ArchiveStorage(str(path), "lmdb", [Mount(LmdbArchive(path), inner="train/")])
    if kind == "lmdbs":
        mounts = [Mount(LmdbArchive(write_lmdb(tmp_path / f"{part}_lmdb", {
            name.removeprefix(f"{part}/"): content for name, content in FILES.items() if name.startswith(f"{part}/")
        })), outer=f"{part}/") for part in ("a", "a-b", "ab")]
        top = {"list.txt": FILES["list.txt"]}
        return ArchiveStorage("lmdbs", "lmdb", [*mounts, Mount(LmdbArchive(write_lmdb(tmp_path / "top", top)))])
    if kind == "zips":
        archives = [trees.zipped(folder / part, tmp_path / "zips" / f"{part}.zip", part if part == "a" else "")
                    for part in ("a", "a-b", "ab")]
        (tmp_path / "rest").mkdir()
        shutil.copy(folder / "list.txt", tmp_path / "rest")
        archives.append(trees.zipped(tmp_path / "rest", tmp_path / "zips" / "rest.zip"))
        return ArchiveStorage("zips", "zip", [
            Mount(ZipArchive(path, part="" if path.stem == "rest" else path.stem)) for path in archives])
    archive = trees.zipped(folder, tmp_path / "folder.zip", top="folder", deflated=kind == "deflated")
    return ArchiveStorage(str(archive), "zip", [Mount(ZipArchive(archive, own_folder="folder"))])


KINDS = ("directory", "lmdb", "lmdbs", "zip", "deflated", "zips")


@pytest.mark.parametrize("kind", KINDS)
def test_every_storage_shows_the_same_files(kind, tmp_path):
    storage = make(kind, tmp_path)
    assert storage.files() == ["list.txt"] and storage.folders() == ["a", "a-b", "ab"]
    assert storage.files("a") == ["groundtruth.txt"] and storage.folders("a") == ["img"]
    assert storage.files("a/img") == ["10.jpg", "2.jpg"] and storage.folders("a/img") == []
    assert storage.files("nothing") == storage.folders("nothing") == storage.files("list.txt") == []
    assert sorted(storage.walk()) == sorted(FILES) and list(storage.walk("a-b")) == ["a-b/img/1.jpg"]
    for name, content in FILES.items():
        assert storage.read(name) == content and storage.size(name) == len(content) and storage.has_file(name)
        assert storage.read(name, limit=3) == content[:3]
        assert storage.locate(name).endswith(name.rpartition("/")[2])
    assert storage.read_text("ab/é.txt") == "ü"
    for name in ("a/img/3.jpg", "a", "", "zz", "a/img"):
        assert not storage.has_file(name)
    for ask in (storage.read, storage.read_text):
        with pytest.raises(UserError, match="cannot read .*3.jpg"):
            ask("a/img/3.jpg")
    with pytest.raises(UserError, match="no text in UTF-8"):
        storage.read_text("a/img/2.jpg")


@pytest.mark.parametrize("kind", ("lmdb", "zip", "deflated", "zips"))
def test_archives_serve_other_processes_and_many_threads(kind, tmp_path):
    storage = make(kind, tmp_path)
    names = list(FILES) * 40
    assert storage.read("list.txt") == FILES["list.txt"]  # open before the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(storage.read, names, chunksize=20) == [FILES[name] for name in names]
        if kind == "lmdb":
            assert os.getpid() not in pool.map(_owner, [storage] * 4)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(storage.read, names)) == [FILES[name] for name in names]
    again = pickle.loads(pickle.dumps(storage))
    assert again.read("a/groundtruth.txt") == FILES["a/groundtruth.txt"]


def _owner(storage):
    """The process that has opened the LMDB, as seen after reading from it."""
    storage.read("list.txt")
    return lmdb_archive._open_environments[storage.mounts[0].archive.path][0]


def test_a_spawned_process_opens_its_own(tmp_path):
    storages = [make(kind, tmp_path / kind) for kind in ("lmdb", "zip")]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_read_list, storages) == [FILES["list.txt"]] * 2


def _read_list(storage):
    return storage.read("list.txt")


def test_two_storages_may_share_an_lmdb(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", FILES)
    one, two = (ArchiveStorage("x", "lmdb", [Mount(LmdbArchive(path))]) for _ in range(2))
    assert one.read("list.txt") == two.read("list.txt")


@pytest.mark.parametrize("kind", ("zip", "zips"))
def test_the_list_of_a_zip_archives_files_can_be_kept(kind, tmp_path, monkeypatch):
    kept = make(kind, tmp_path).columns()
    monkeypatch.setattr(zipfile, "ZipFile", None)  # the archive's directory is not read again
    storage = ArchiveStorage("x", "zip", [
        Mount(ZipArchive(path)) for path in ([tmp_path / "folder.zip"] if kind == "zip" else
                                             [tmp_path / "zips" / f"{n}.zip" for n in ("a", "a-b", "ab", "rest")])])
    storage.use(kept)
    assert {name: storage.read(name) for name in storage.walk()} == FILES


@pytest.mark.parametrize("kind", ("directory", "lmdb", "zip"))
def test_the_state_changes_with_the_files(kind, tmp_path):
    storage = make(kind, tmp_path)
    before = storage.state(["list.txt", "a/img", "missing"])
    assert before.digest == storage.state(["list.txt", "a/img", "missing"]).digest
    assert before.stamps.shape == (len(before.names), 2) and before.stamps.dtype == np.int64
    changed = {"directory": tmp_path / "folder" / "list.txt", "lmdb": tmp_path / "lmdb" / "data.mdb",
               "zip": tmp_path / "folder.zip"}[kind]
    os.utime(changed, ns=(1, 1))
    after = storage.state(["list.txt", "a/img", "missing"])
    assert after.digest != before.digest
    assert "1 changed" in after.changes_since(before) and changed.name in after.changes_since(before)
    if kind == "directory":
        other = storage.state(["list.txt", "new.txt"])
        assert other.changes_since(after) == "1 new (for instance new.txt), 2 gone (for instance a/img)"


# ---------------------------------------------------------------- what can be wrong

def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    """Such as the lost+found of a disk."""
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    for listing in (DirectoryStorage(tmp_path).files, DirectoryStorage(tmp_path).folders):
        with pytest.raises(UserError, match="cannot read .*lost: Permission denied"):
            listing("lost")


def test_a_truncated_lmdb_is_refused(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", {f"k{i}": bytes(1000) for i in range(200)})
    data = (path / "data.mdb").read_bytes()
    storage = ArchiveStorage("x", "lmdb", [Mount(LmdbArchive(path))])
    for size, message in ((len(data) // 2, "truncated"), (100, "cannot open the LMDB")):
        (path / "data.mdb").write_bytes(data[:size])
        with pytest.raises(UserError, match=f"{message}.*make_lmdb"):
            storage.read("k1")
    (path / "data.mdb").write_bytes(data)
    assert storage.read("k1") == bytes(1000)


def test_a_missing_or_unreadable_lmdb_is_named(tmp_path):
    storage = ArchiveStorage("x", "lmdb", [Mount(LmdbArchive(tmp_path / "none"))])
    with pytest.raises(UserError, match="cannot open the LMDB .*none.*data.mdb"):
        storage.has_file("k1")
    (tmp_path / "none" / "data.mdb").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot open the LMDB"):
        storage.files()


def test_an_lmdb_that_is_locked_by_a_writer_can_be_read(tmp_path):
    path = write_lmdb(tmp_path / "lmdb", FILES)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        writer = lmdb.open(str(path), map_size=1 << 22)
        with writer.begin(write=True):
            assert pool.apply(_read_list, [ArchiveStorage("x", "lmdb", [Mount(LmdbArchive(path))])]) == b"one\ntwo\n"
        writer.close()


def test_without_the_lmdb_package(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *rest, **more):
        if name == "lmdb":
            raise ImportError("No module named 'lmdb'")
        return original(name, *rest, **more)

    path = write_lmdb(tmp_path / "lmdb", FILES)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="needs the lmdb package.*pip install lmdb"):
        ArchiveStorage("x", "lmdb", [Mount(LmdbArchive(path))]).read("list.txt")


def test_a_broken_zip_archive_is_named(tmp_path):
    storage = make("zip", tmp_path)
    archive = tmp_path / "folder.zip"
    data = archive.read_bytes()
    archive.write_bytes(data[:-30])
    with pytest.raises(UserError, match="cannot open the zip archive .*folder.zip.*truncated"):
        storage.files()
    archive.write_bytes(data)
    assert storage.files() == ["list.txt"]
    archive.write_bytes(data[:100])  # replaced after its list was read
    with pytest.raises(UserError, match="folder.zip is damaged or was replaced.*again"):
        make_again = ArchiveStorage("x", "zip", [Mount(ZipArchive(archive, own_folder="folder"))])
        make_again.use(storage.columns())
        make_again.read("a/img/2.jpg")
    archive.unlink()
    with pytest.raises(UserError, match="cannot open the zip archive"):
        ArchiveStorage("x", "zip", [Mount(ZipArchive(archive))]).files()


def test_damaged_content_of_a_deflated_archive_is_named(tmp_path):
    storage = make("deflated", tmp_path)
    archive = tmp_path / "folder.zip"
    with zipfile.ZipFile(archive) as opened:
        place = opened.getinfo("folder/a/groundtruth.txt").header_offset
    data = bytearray(archive.read_bytes())
    start = place + 30 + len("folder/a/groundtruth.txt")
    data[start : start + 8] = b"\xff" * 8
    archive.write_bytes(data)
    with pytest.raises(UserError, match="a/groundtruth.txt cannot be unpacked"):
        storage.read("a/groundtruth.txt")


def test_other_compressions_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.txt", "content")
    with pytest.raises(UserError, match="a.txt is encrypted or packed by method 12"):
        ArchiveStorage("x", "zip", [Mount(ZipArchive(tmp_path / "x.zip"))]).files()


# ---------------------------------------------------------------- which form is taken

def place(tmp_path, **more):
    return Place("SOME", "some_dir", str(tmp_path / "some"), "some_lmdb_dir", str(tmp_path / "some_lmdb"), "a layout",
                 **more)


def test_auto_takes_the_folder_then_lmdb_then_zip(tmp_path):
    folder = write_folder(tmp_path / "elsewhere")
    trees.zipped(folder, tmp_path / "some" / "all.zip")
    assert open_storage(place(tmp_path), "auto").kind == "zip"
    trees.zipped(folder, tmp_path / "some.zip", "some")
    assert open_storage(place(tmp_path), "auto").root.endswith("some.zip")
    write_lmdb(tmp_path / "some_lmdb", FILES)
    assert open_storage(place(tmp_path), "auto").kind == "lmdb"
    write_folder(tmp_path / "some")
    assert open_storage(place(tmp_path), "auto").kind == "directory"
    for form in ("directory", "lmdb", "zip"):
        storage = open_storage(place(tmp_path), form)
        assert storage.kind == form and storage.read("list.txt") == FILES["list.txt"]


def test_parts_as_lmdbs_and_archives(tmp_path):
    write_lmdb(tmp_path / "some_lmdb" / "a_lmdb", {"img/2.jpg": b"x"})
    assert open_storage(place(tmp_path, parts=("a", "b")), "lmdb").folders() == ["a"]
    folder = write_folder(tmp_path / "elsewhere")
    trees.zipped(folder / "a", tmp_path / "some" / "a.zip")  # without its own folder
    trees.zipped(folder / "ab", tmp_path / "some" / "ab.zip", "ab")  # with it
    storage = open_storage(place(tmp_path, parts=("a", "ab")), "zip")
    assert storage.folders() == ["a", "ab"] and storage.files("a") == ["groundtruth.txt"]


@pytest.mark.parametrize(("form", "words"), [
    ("auto", ["folder not found", "some", "nor an LMDB", "some_lmdb", "some.zip"]),
    ("directory", ["folder not found"]), ("lmdb", ["no LMDB at", "make_lmdb.py SOME"]), ("zip", ["no zip", "*.zip"]),
])
def test_a_form_that_is_not_there(tmp_path, form, words):
    with pytest.raises(UserError) as caught:
        open_storage(place(tmp_path), form)
    for word in [*words, "SOME", "some_dir", "COMPRESSTRACKER_SOME_DIR", "a layout"]:
        assert word in str(caught.value)


def test_the_disk_itself_has_no_archive_beside_it():
    with pytest.raises(UserError, match="no zip archives /.zip"):
        open_storage(Place("SOME", "some_dir", "/", "some_lmdb_dir", "/none_lmdb", "a layout"), "zip")
