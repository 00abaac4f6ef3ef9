"""SIGKILL at any point of `tracking/train.py`, then the same command again: bit-identical weights."""

import logging
import multiprocessing
import os
import signal
import traceback
from types import SimpleNamespace

import pytest
import torch
from square_runs import (
    TWO,
    alive,
    become_rank,
    best,
    checkpoints,
    children,
    end,
    free_port,
    run_log,
    slim,
    wait_until,
)
from tiny_models import same

import lib.models.safe_load as safe_load
import lib.train.run as run
import lib.train.state as state
from lib.train.actors import TrackerActor
from lib.train.state import list_states, newest_state
from lib.train.trainer import Trainer

SETTINGS = ("--set", "TRAIN.VAL_EPOCH_INTERVAL=1", "--set", "TRAIN.EPOCH=3")
EVERY_STEP = ("--set", "TRAIN.SAVE_STEP_INTERVAL=1")
CONTEXT = multiprocessing.get_context("fork")


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def in_call(target, name, number, act=die):
    """Patch `target.name` so that its call `number` (from 1) is `act` instead."""
    original, calls = getattr(target, name), []

    def counted(*args, **kwargs):
        calls.append(1)
        return (act if len(calls) == number else original)(*args, **kwargs)

    setattr(target, name, counted)


def die_within_the_file(content, path):
    """As `torch.save`, killed half way."""
    torch.save(content, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    die()


def die_with_the_best_written(self, epoch, scores):
    run._Run.kept(self, epoch, scores)
    die()


def kill_when_saving(number):
    """Within state `number`; slim checkpoints are left alone."""
    write = state.write_tensors

    def half(path, content):
        safe_load.torch = SimpleNamespace(save=die_within_the_file)
        write(path, content)

    in_call(state, "write_tensors", number, half)


def kill_when_best(number):
    run._Run.kept = run._Run._keep_best
    in_call(run._Run, "_keep_best", number, die_with_the_best_written)


KILLS = {
    "in the first step": lambda: in_call(Trainer, "train_step", 1),
    "within an epoch": lambda: in_call(Trainer, "train_step", 10),
    "while a state is written": lambda: kill_when_saving(3),
    "in a validation": lambda: in_call(TrackerActor, "validate", 5),
    "in the last validation": lambda: in_call(TrackerActor, "validate", 9),
    "between the best checkpoint and its state": lambda: kill_when_best(2),
}


def killed(train_script, line, disturb):
    """Run the script in a process of its own that is killed."""
    def child():
        torch.set_num_threads(1)
        disturb()
        os._exit(train_script(line))

    process = CONTEXT.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def remembered():
    """What the undisturbed run gave, for the tests after the first."""
    return {}


@pytest.fixture
def whole(remembered, train_script, train_arguments, tmp_path):
    """Weights, and the best checkpoint, of a run that nobody disturbs."""
    if not remembered:
        assert train_script(train_arguments(*SETTINGS)) == 0
        remembered.update(weights=slim(tmp_path, 3), best=best(tmp_path))
        (tmp_path / "out").rename(tmp_path / "whole")
    return remembered["weights"], remembered["best"]


def check(tmp_path, whole):
    weights, record = whole
    assert same(weights, slim(tmp_path, 3))
    assert {key: best(tmp_path)[key] for key in ("epoch", "measure", "score")} == {
        key: record[key] for key in ("epoch", "measure", "score")}
    assert same(record["net"], best(tmp_path)["net"])
    assert not list(checkpoints(tmp_path).glob(".*")), "a half-written file is left"


@pytest.mark.parametrize("where", KILLS)
def test_killed_and_started_again(train_script, train_arguments, tmp_path, whole, where):
    line, expected = train_arguments(*SETTINGS), whole
    killed(train_script, line, KILLS[where])
    assert train_script(line) == 0
    check(tmp_path, expected)


def test_states_within_an_epoch_lose_at_most_a_step(train_script, train_arguments, tmp_path, whole, monkeypatch):
    line, expected = train_arguments(*SETTINGS, *EVERY_STEP), whole
    killed(train_script, line, KILLS["within an epoch"])
    assert list_states(checkpoints(tmp_path))[0].name == "state_ep0001_step000003.pth"
    steps, step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda *args: (steps.append(1), step(*args)))
    assert train_script(line) == 0
    assert len(steps) == 3 * 6 - 9
    check(tmp_path, expected)


def test_a_truncated_state_costs_only_itself(train_script, train_arguments, tmp_path, whole, caplog):
    line, expected = train_arguments(*SETTINGS, *EVERY_STEP), whole
    killed(train_script, line, KILLS["within an epoch"])
    newest = list_states(checkpoints(tmp_path))[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train_script(line) == 0
    assert newest.name in caplog.text and "truncated" in caplog.text
    check(tmp_path, expected)


def test_a_lost_best_checkpoint_is_chosen_anew(train_script, train_arguments, tmp_path, whole, caplog):
    line, (weights, _) = train_arguments(*SETTINGS), whole
    killed(train_script, line, KILLS["in the last validation"])
    (checkpoints(tmp_path) / "OSTrack_best.pth.tar").write_bytes(b"nothing")
    assert train_script(line) == 0
    assert "OSTrack_best.pth.tar" in caplog.text
    assert same(weights, slim(tmp_path, 3)) and best(tmp_path)["epoch"] == 3


@pytest.fixture
def pair(train_script):
    """`pair(line, disturb)`: the script in two processes as torchrun starts them; gives their statuses."""
    def go(line, disturb=lambda rank: None):
        port = free_port()

        def child(rank):
            become_rank(rank, port)
            disturb(rank)
            try:
                os._exit(train_script(line))
            except RuntimeError:
                traceback.print_exc()
                os._exit(1)

        processes = [CONTEXT.Process(target=child, args=(rank,)) for rank in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in processes]
    return go


@pytest.mark.parametrize("where, ranks", [("within an epoch", (0, 1)), ("in a validation", (1,))])
def test_two_processes_killed_and_started_again(pair, train_arguments, tmp_path, where, ranks):
    line = train_arguments(*SETTINGS, *EVERY_STEP, "--set", "DATA.TRAIN.SAMPLE_PER_EPOCH=24")
    assert pair(line) == [0, 0]
    expected = slim(tmp_path, 3), best(tmp_path)
    (tmp_path / "out").rename(tmp_path / "whole")
    lost = pair(line, lambda rank: KILLS[where]() if rank in ranks else None)
    assert [lost[rank] for rank in ranks] == [-signal.SIGKILL] * len(ranks)
    assert 0 not in lost, "a process went on alone"
    assert pair(line) == [0, 0]
    check(tmp_path, expected)


def test_killed_restarted_stopped_continued(start_training, train_script, pair, train_arguments, tmp_path, caplog):
    """A real run of two processes loses one, is stopped, goes on, and ends as if nothing had happened."""
    settings = (*EVERY_STEP, "--set", "TRAIN.PRINT_INTERVAL=1")
    line = train_arguments(*TWO, *settings, "--max_restarts", "1")
    process = start_training([*line, "--set", "TRAIN.EPOCH=500"])
    try:
        wait_until(lambda: "[train: 1/500, 2/3]" in run_log(tmp_path) or process.poll() is not None)
        victim = children(process.pid)[1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: "[train:" in run_log(tmp_path).partition("(restart 1 of 1)")[2]
                   or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 130 and not alive(victim), stderr
    finally:
        end(process)
    assert stderr.count("Run the same command again") == 1
    assert "4 pairs per step (2 processes x 2 pairs)" in stderr
    position, state = newest_state(checkpoints(tmp_path))

    epochs = ("--set", f"TRAIN.EPOCH={state.epoch + 1}")
    assert pair(train_arguments(*settings, *epochs)) == [0, 0]
    log = run_log(tmp_path)
    assert f"from epoch {state.epoch}, step {state.step} of {position}" in log
    assert log.count("finished:") == 1 and f"[val: {state.epoch + 1}/" in log
    with caplog.at_level(logging.INFO):
        assert train_script([*line, *epochs]) == 0  # returns at once, starts nothing
    assert "already finished" in caplog.text
    lost = slim(tmp_path, state.epoch + 1)
    (tmp_path / "out").rename(tmp_path / "lost")
    assert pair(train_arguments(*settings, *epochs)) == [0, 0]
    assert same(lost, slim(tmp_path, state.epoch + 1))
