"""Work by several threads, and its progress."""

import logging
import threading

import pytest
import torch

from lib.utils.device import torch_threads
from lib.utils.progress import Progress, progress
from lib.utils.threads import AHEAD, BackgroundCalls, map_in_threads


def test_results_come_in_order_from_several_threads():
    both = threading.Barrier(2, timeout=5)

    def work(item):
        if item < 2:
            both.wait()  # passes only when two threads are at work
        return -item

    assert list(map_in_threads(work, range(100), 2)) == [-i for i in range(100)]
    assert list(map_in_threads(work, [], 2)) == []


def test_work_is_begun_only_a_little_ahead():
    begun = []
    results = map_in_threads(lambda item: begun.append(item), iter(range(1000)), 2)
    next(results)
    results.close()
    assert len(begun) <= 2 * AHEAD


def test_an_error_stands_in_its_place_and_ends_the_work():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    results = map_in_threads(work, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) <= 2 * AHEAD + 5


def test_calls_behind_the_caller_keep_their_order_and_wait_for_room():
    done, go = [], threading.Event()

    def work(number):
        assert go.wait(5)
        done.append(number)

    with BackgroundCalls(3) as background:
        for number in range(3):
            background.do(work, number)
        threading.Timer(0.05, go.set).start()
        background.do(work, 3)
        assert done, "the fourth call waited for the first"
        for number in range(4, 20):
            background.do(work, number)
    assert done == list(range(20))


def test_an_error_behind_the_caller_comes_back():
    def fail():
        raise ValueError("broken")

    done = []
    with pytest.raises(ValueError, match="broken"), BackgroundCalls(2) as background:
        for _ in range(10):
            background.do(fail)
            done.append(1)
    assert 1 <= len(done) < 4
    with pytest.raises(ValueError, match="broken"), BackgroundCalls(2) as background:
        background.do(fail)


def test_what_has_not_begun_is_given_up_after_an_exception():
    done, begun, go = [], threading.Event(), threading.Event()

    def first():
        begun.set()
        assert go.wait(5)

    with pytest.raises(KeyboardInterrupt), BackgroundCalls(9) as background:
        background.do(first)
        for number in range(5):
            background.do(done.append, number)
        assert begun.wait(5)
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt
    assert not done


def test_progress_passes_everything_on(monkeypatch, caplog, capsys):
    monkeypatch.setattr("lib.utils.progress.LINE_EVERY", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(progress(iter("abc"), 3, "letters", "read")) == ["a", "b", "c"]
    assert [message.split(", ")[0] for message in caplog.messages] == [f"letters: {n} of 3 read" for n in (1, 2, 3)]
    assert caplog.messages[-1].endswith(" per second, 0:00 left")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    caplog.clear()
    assert list(progress(iter("abc"), 3, "letters", "read")) == ["a", "b", "c"]
    assert not caplog.records and "letters" in capsys.readouterr().err


def test_progress_goes_on_from_what_was_done(monkeypatch, caplog):
    now = iter([0.0, 3.0, 20.0, 40.0])
    monkeypatch.setattr("lib.utils.progress.time.monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO), Progress(1000, "pack", "frames", done=400) as shown:
        shown.advance(10)
        shown.advance(10)
        shown.advance(180)
    assert caplog.messages == ["pack: 420 of 1000 frames, 1.0 per second, 9:40 left",
                               "pack: 600 of 1000 frames, 5.0 per second, 1:20 left"]


def test_the_number_of_threads_comes_back_whatever_happens():
    before = torch.get_num_threads()
    with torch_threads(None):
        assert torch.get_num_threads() == before
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
