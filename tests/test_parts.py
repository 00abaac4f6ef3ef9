"""Times of the parts of a job."""

import pytest
import torch

from lib.utils import parts
from lib.utils.parts import PartMarks, PartTimes


def clock(monkeypatch, *moments):
    """Let the clock show these moments, one after the other."""
    shown = iter(moments)
    monkeypatch.setattr(parts.time, "perf_counter", lambda: next(shown))


def test_a_part_inside_another_counts_once(monkeypatch):
    clock(monkeypatch, 0.0, 1.0, 3.0, 4.0, 4.5, 10.0, 20.0, 21.0)
    times = PartTimes()
    with times.measure("crop"):
        for _ in range(2):
            with times.measure("decode"):
                pass
    with times.measure("crop"):
        pass
    assert times.seconds == {"decode": [2.0, 0.5], "crop": [7.5, 1.0]}
    assert (times.total("decode"), times.total("crop"), times.total("read")) == (2.5, 8.5, 0)


def test_a_part_that_raises_does_not_count(monkeypatch):
    clock(monkeypatch, 0.0, 1.0, 5.0, 6.0)
    times = PartTimes()
    with times.measure("whole"):
        with pytest.raises(ValueError), times.measure("broken"):
            raise ValueError
    assert times.seconds == {"whole": [5.0]}
    with times.measure("whole"):
        clock(monkeypatch, 8.0)
    assert times.seconds == {"whole": [5.0, 2.0]}


def test_marks_give_each_part_its_time(monkeypatch):
    clock(monkeypatch, 0.0, 1.0, 3.0, 3.5, 10.0, 12.0)
    marks = PartMarks(torch.device("cpu"))
    for part in ("start", "forward", "backward", "forward"):
        marks.mark(part)
    assert marks.take() == {"forward": 1.5, "backward": 2.0}
    marks.mark("start")
    marks.mark("wait")
    assert marks.take() == {"wait": 2.0}
