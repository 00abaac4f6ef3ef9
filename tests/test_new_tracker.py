"""docs/new_tracker.md, executed as it stands: its files in a copy of the tree, then its commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest
import trees

from lib.families import FAMILIES

FRAMES = 24


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "new_tracker.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(root, page, tmp_path_factory) -> Path:
    """A copy of the tree with the page's files, and videos to work on."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("lib", "tracking", "experiments"):
        shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "local.py"))
    files = re.findall(r"^`((?:lib|experiments)/[\w./]+)`.*?^```\w+\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    registry, listed = files.pop([name for name, _ in files].index("lib/families/__init__.py"))
    assert len(files) == 5
    for name, text in files:
        path = tree / name
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert literal_eval(listed.split("=")[1].strip()) == (*FAMILIES, "query")
    text = (tree / registry).read_text(encoding="utf-8")
    text, changed = re.subn(r"^FAMILIES = .*\n", listed, text, flags=re.MULTILINE)
    assert changed == 1
    (tree / registry).write_text(text, encoding="utf-8")
    for name in ("boat", "car"):
        trees.write_video(tree / "data" / "my_videos" / name / f"{name}.avi", FRAMES)
        trees.write_boxes(tree / "data" / "my_videos" / name / "groundtruth.txt", FRAMES)
    return tree


@pytest.fixture(scope="module")
def done(tree, page) -> Path:
    """The tree after all commands of the page."""
    commands = re.search(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL).group(1).splitlines()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSTRACKER")}
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "python"
        ended = subprocess.run([sys.executable, *words], cwd=tree, env=environ | {"OMP_NUM_THREADS": "1"},
                               capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return tree


def test_it_trains_and_compresses(done):
    runs = done / "output" / "checkpoints" / "train"
    assert (runs / "query" / "query" / "Query_ep0002.pth.tar").is_file()
    assert (runs / "compresstracker" / "query_2" / "CompressTracker_ep0002.pth.tar").is_file()


def test_it_tracks_every_frame(done):
    results = done / "output" / "test" / "tracking_results" / "compresstracker" / "query_2"
    for name in ("boat", "car"):
        file, = results.rglob(f"{name}.txt")
        assert len(file.read_text().splitlines()) == FRAMES


def test_its_export_keeps_its_rules(done):
    manifest, = (done / "output" / "exports").rglob("manifest.json")
    facts = json.loads(manifest.read_text())
    assert (facts["family"], facts["rules"], list(facts["parts"])) == ("query", {"interval": 10}, ["tracker"])
    assert facts["parts"]["tracker"]["inputs"]["template"]["shape"] == [1, 2, 3, 64, 64]
    assert facts["largest_difference"]["boxes"] < 1e-5
