"""Frames that are read while the tracker works: the same frames, the same boxes, little memory, less waiting."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import trees
from fake_trackers import Frames, Looker

from lib.test.evaluation import get_dataset
from lib.test.evaluation.readahead import READERS, ReadAhead
from lib.test.evaluation.running import run_dataset
from lib.utils.errors import UserError


class Counted(Frames):
    """Notes how many frames were asked for."""

    def __init__(self, count, seconds=0.0, **options):
        super().__init__(count, **options)
        self.read, self.seconds = 0, seconds
        self.lock = threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            self.read += 1
        time.sleep(self.seconds)
        return super().__getitem__(index)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return get_dataset(f"folder:{trees.folder(tmp_path_factory.mktemp('videos'), frames=40)}", None)


@pytest.mark.parametrize("ahead", [1, 5, 100])
def test_frames_come_in_order(videos, ahead):
    assert len(videos) == 3
    for sequence in videos:  # pictures, pictures beside the boxes, a video
        images = list(ReadAhead(sequence.frames, ahead))
        assert len(images) == sequence.length
        assert all(np.array_equal(image, sequence.frames[i]) for i, image in enumerate(images))
    assert not readers()


@pytest.mark.parametrize("threads", [0, 1])
def test_boxes_are_the_same_with_and_without(videos, tmp_path, threads):
    texts = []
    for ahead in (0, 1, 16):
        folder = tmp_path / str(ahead)
        summary = run_dataset(videos, Looker, folder, threads=threads, device="cpu", sub_pixel=True, read_ahead=ahead)
        assert len(summary.finished) == 3
        texts.append({file.name: file.read_text() for file in folder.rglob("*.txt") if "_time" not in file.name})
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 3
    assert len(set(texts[0]["first.txt"].splitlines())) > 20, "the boxes must depend on the frames"


@pytest.mark.parametrize(("ahead", "budget", "most"), [(3, 10**9, 3), (16, 4 * 40 * 60 * 3, 4), (16, 1, 1)])
def test_memory_is_bounded(ahead, budget, most):
    frames = Counted(50)
    ahead_of_us = []
    for number, _ in enumerate(ReadAhead(frames, ahead, budget)):
        time.sleep(0.002)
        ahead_of_us.append(frames.read - (number + 1))
    assert max(ahead_of_us) == most


def test_an_unreadable_frame_raises_at_its_place():
    seen = []
    with pytest.raises(UserError, match="cannot read frame 7"):
        for image in ReadAhead(Counted(20, broken=7), 5):
            seen.append(image)
    assert len(seen) == 7 and not readers()


def test_leaving_early_ends_the_threads():
    frames = Counted(1000, seconds=0.001)
    with closing(iter(ReadAhead(frames, 8))) as images:
        next(images)
        next(images)
        assert 1 <= len(readers()) <= READERS
    assert not readers() and frames.read <= 2 + 8


def test_reading_and_tracking_overlap():
    waited = []
    for ahead in (0, 8):
        reader = ReadAhead(Counted(20, seconds=0.005), ahead)
        for _ in reader:
            time.sleep(0.01)
        waited.append(reader.waited)
    assert waited[1] < waited[0] / 2
