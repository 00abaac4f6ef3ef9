"""Scores are kept between calls, and computed anew where anything that they depend on has changed."""

import os
import re

import numpy as np
import pytest
from small_benchmark import FRAMES, two_sequences, two_trackers

from lib.test.analysis import cache as cache_module
from lib.test.analysis import results as scoring
from lib.test.analysis.cache import ScoreCache
from lib.test.analysis.conventions import CONVENTIONS
from lib.test.analysis.results import evaluate_benchmark, find_trackers


@pytest.fixture
def benchmark():
    return two_sequences()


@pytest.fixture
def results(tmp_path, benchmark):
    return two_trackers(tmp_path, benchmark)


@pytest.fixture
def kept(results, benchmark, tmp_path, monkeypatch):
    """Scores the benchmark with a cache; returns the report and how many trackers were really scored."""
    counted = []
    score = scoring._score
    monkeypatch.setattr(scoring, "_score", lambda *arguments: counted.append(1) or score(*arguments))

    def call(convention=None, sequences=benchmark):
        counted.clear()
        report = evaluate_benchmark(find_trackers(results), sequences, "lasot", convention,
                                    cache=ScoreCache(tmp_path / "cache"))
        return report, len(counted)

    return call


def test_scores_of_the_same_content_are_taken_from_the_cache(kept, results):
    (results / "ours" / "good" / "car-1.txt").write_text("x,y,w,h\n" + "".join(
        f"{10 * i},5,40,30\n" for i in range(FRAMES)))
    first, computed = kept()
    assert computed == 2
    again, computed = kept()
    assert computed == 0
    for one, other in zip(first.trackers, again.trackers, strict=True):
        assert one.scores.as_dict() == other.scores.as_dict() and one.fps == other.fps
        assert one.notes == other.notes and list(one.sequences) == list(other.sequences)
        np.testing.assert_array_equal(one.scores.precision, other.scores.precision)
    assert again.trackers[0].notes[0].what == "a header line left out"


def test_a_change_anywhere_is_noticed(kept, results, benchmark, monkeypatch):
    kept()
    path = results / "ours" / "good" / "cat-2.txt"
    stat = path.stat()
    path.write_text(path.read_text().replace("5\t40", "6\t40"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time, other content
    assert path.stat().st_size == stat.st_size
    report, computed = kept()
    assert computed == 1 and report.trackers[0].scores.AO < 100
    (results / "ours" / "good" / "car-1_time.txt").write_text("1\n" * FRAMES)
    assert kept()[1] == 1
    (results / "theirs" / "bad_003" / "car-1.txt").unlink()
    report, computed = kept()
    assert computed == 1 and report.trackers[1].missing == ["car-1"] and kept()[1] == 0
    assert kept()[0].trackers[1].missing == ["car-1"]
    benchmark[0].ground_truth[3, 0] += 1
    assert kept()[1] == 2
    benchmark[0].visible[2] = False
    assert kept()[1] == 2
    assert kept(CONVENTIONS["plain"])[1] == 2 and kept()[1] == 0  # each convention has its own
    monkeypatch.setattr(cache_module, "_code_digest", lambda: b"other code")
    assert kept()[1] == 2


def test_the_cache_knows_the_files_that_scores_depend_on(root):
    waiting, found = ["results"], set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += re.findall(r"^from \.(\w+) import",
                                  (root / "lib" / "test" / "analysis" / f"{name}.py").read_text(), re.MULTILINE)
    assert len(found) > 8 and {f"{name}.py" for name in found - {"cache"}} <= set(cache_module._SCORING)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_damaged_cache_is_as_good_as_none(kept, tmp_path, content):
    kept()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(content)
    assert kept()[1] == 2 and kept()[1] == 0


def test_a_truncated_cache_is_as_good_as_none(kept, tmp_path):
    kept()
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-2000])
    assert kept()[1] == 2


def test_a_cache_that_cannot_be_written_is_reported(kept, tmp_path, caplog):
    (tmp_path / "cache").write_text("in the way")
    report, computed = kept()
    assert computed == 2 and report.trackers[0].scores and "not kept for the next time" in caplog.text


def test_labels_that_look_alike_as_file_names_do_not_share_a_cache(tmp_path):
    cache = ScoreCache(tmp_path)
    assert cache._file("a/b", "plain") != cache._file("a:b", "plain")
