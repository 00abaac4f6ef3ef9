"""Timing calls in turn."""

import time

import numpy as np
import pytest
import torch

from lib.deploy.timing import Timings, time_alternately


def test_timing_alternates_and_tells_fast_from_slow():
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    timings = time_alternately({"fast": lambda: call("f", 0.002), "slow": lambda: call("s", 0.006)},
                               torch.device("cpu"), iterations=12, warmup=1, blocks=4, batch=2)
    assert "".join(order) == "fs" + "ffffssss" "ssssffff" "ffffssss" "ssssffff", "one untimed in a block"
    fast, slow = timings["fast"], timings["slow"]
    assert fast.seconds.shape == (4, 3)
    assert 2 <= fast.median_ms < slow.median_ms and fast.p95_ms >= fast.median_ms
    assert fast.fps == pytest.approx(2000 / fast.median_ms)
    middle, low, high = fast.speed_up(slow)
    assert low <= middle <= high and middle > 1.3


def test_calls_are_made_untimed_until_the_threads_of_others_are_still():
    calls = []
    timings = time_alternately({"a": lambda: calls.append(time.sleep(0.002))}, torch.device("cpu"), iterations=8,
                               warmup=1, blocks=4, settle=0.02)
    assert timings["a"].seconds.shape == (4, 2)
    assert 1 + 4 * (2 + 2) <= len(calls) <= 1 + 4 * (10 + 2), "at most ten of 2 ms in 20 ms"


def test_speed_up_compares_neighbours():
    phases = np.repeat([[1.0], [10.0], [1.0]], 4, axis=1)
    assert Timings(phases).speed_up(Timings(3 * phases)) == pytest.approx((3, 3, 3))


def test_timing_refuses_nonsense():
    with pytest.raises(ValueError):
        time_alternately({}, torch.device("cpu"), iterations=1, warmup=0)
    with pytest.raises(ValueError):
        time_alternately({"a": lambda: None}, torch.device("cpu"), iterations=0, warmup=0)


def test_a_time_budget_leaves_out_passes_of_all():
    def timed(seconds):
        calls = {"fast": lambda: time.sleep(0.001), "slow": lambda: time.sleep(0.009)}
        timings = time_alternately(calls, torch.device("cpu"), iterations=30, warmup=0, seconds=seconds)
        assert timings["fast"].seconds.shape == timings["slow"].seconds.shape
        return timings["slow"].seconds.shape

    assert timed(60.0) == (10, 3), "it is enough for all"
    blocks, per_block = timed(0.21)                   # 20 calls of each: 5 blocks of one untimed and three timed
    assert 3 <= blocks <= 5 and per_block == 3
    assert timed(0.0) == (3, 1), "the least there is"
