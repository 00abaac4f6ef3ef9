"""Boxes, atomic files, devices, signals, and how scripts end."""

import errno
import os
import signal

import pytest
import torch

from lib.utils import files, signals
from lib.utils.boxes import (
    box_iou,
    clip_box,
    cxcywh_to_xyxy,
    generalized_box_iou,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
)
from lib.utils.device import pick_device
from lib.utils.errors import UserError
from lib.utils.files import atomic_write, resolve, write_text
from lib.utils.log import SPINS, run_script
from lib.utils.signals import StopRequest, TrainingInterrupted


def test_formats():
    xyxy = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    assert xywh_to_xyxy(torch.tensor([[1.0, 2.0, 3.0, 6.0]])).equal(xyxy)
    assert xyxy_to_cxcywh(xyxy).equal(torch.tensor([[2.5, 5.0, 3.0, 6.0]]))
    assert cxcywh_to_xyxy(xyxy_to_cxcywh(xyxy)).equal(xyxy)


def test_overlaps_in_closed_form():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [2, 0, 3, 1], [0, 0, 2, 2], [1, 1, 1, 1]])
    iou, union = box_iou(a, b)
    torch.testing.assert_close(iou, torch.tensor([1 / 3, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(union, torch.tensor([6.0, 2.0, 4.0, 0.0]))
    giou, _ = generalized_box_iou(a[:3], b[:3])
    torch.testing.assert_close(giou, torch.tensor([1 / 3, -1 / 3, 1.0]))


def test_giou_of_empty_boxes_is_finite_with_finite_gradient():
    a = torch.full((1, 4), 0.5, requires_grad=True)
    giou, _ = generalized_box_iou(a, torch.full((1, 4), 0.5))
    giou.sum().backward()
    assert torch.isfinite(giou).all() and torch.isfinite(a.grad).all()


@pytest.mark.parametrize(("box", "expected"), [
    ([10, 20, 30, 40], [10, 20, 30, 40]),
    ([-50, -50, 20, 20], [0, 0, 10, 10]),
    ([95, 70, 40, 40], [90, 70, 10, 10]),
    ([50, 50, 2, 3], [50, 50, 10, 10]),
    ([-10, -10, 200, 200], [0, 0, 100, 80]),
])
def test_clip_box(box, expected):
    assert clip_box(box, height=80, width=100, margin=10) == expected


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"file\.txt: No space left on device; free disk space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "inner", "x")


def test_resolve(tmp_path):
    assert resolve("a/b", tmp_path) == tmp_path / "a" / "b"
    assert resolve(tmp_path / "x", "/elsewhere") == tmp_path / "x"


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="sees no CUDA GPU"):
        pick_device("cuda")
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:1").index == 1
    with pytest.raises(UserError, match="only 2 GPUs"):
        pick_device("cuda:2")


def test_a_second_signal_stops_at_once_but_not_the_echo_of_the_first(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.signum == signal.SIGINT
        monkeypatch.setattr(signals, "IMPATIENT_AFTER", 0.0)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("raised", "status", "says"), [
    (None, 0, ""), (UserError("no file x"), 2, "error: no file x\n"),
    (KeyboardInterrupt(), 130, "warning: interrupted\n"),
    (TrainingInterrupted("saved in x", signal.SIGTERM), 143, "saved in x\n"),
])
def test_how_scripts_end(raised, status, says, capsys):
    def main():
        if raised:
            raise raised

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert (ended.value.code, capsys.readouterr().err) == (status, says)


@pytest.mark.parametrize(("before", "after"), [(None, SPINS), ("7", "7")])
def test_waiting_threads_sleep_soon_unless_told_otherwise(monkeypatch, before, after):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if before is not None:
        monkeypatch.setenv("GOMP_SPINCOUNT", before)
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: 0)
    assert ended.value.code == 0 and os.environ["GOMP_SPINCOUNT"] == after
