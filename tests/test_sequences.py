"""Folders of sequences."""

import logging
import multiprocessing
import pickle

import numpy as np
import pytest
import trees

from lib.utils.box_files import read_boxes, read_visibility
from lib.utils.errors import UserError
from lib.utils.frames import NumberedFrames, VideoFrames, natural_key, open_frames
from lib.utils.sequences import find_in_spec, find_sequences


def number_of(image):
    """Which `trees.picture` an image is, by its mean colour."""
    reds = [trees.picture(i).mean(axis=(0, 1)) for i in range(30)]
    return int(np.argmin([np.abs(image.mean(axis=(0, 1)) - red).sum() for red in reds]))


def test_numbered_frames(tmp_path):
    for number in range(7, 10):
        trees.write_picture(tmp_path / f"{number:04d}.png", number)
    frames = pickle.loads(pickle.dumps(NumberedFrames(tmp_path, "{frame:04d}.png", 7, 3)))
    assert len(frames) == 3 and frames.path(2) == str(tmp_path / "0009.png")
    assert [number_of(image) for image in frames] == [7, 8, 9] and number_of(frames[-1]) == 9
    (tmp_path / "0008.png").unlink()
    with pytest.raises(UserError, match=r"frame 1 \(counted from 0\).*0008.png"):
        frames[1]


def test_folder_of_each_kind(tmp_path):
    trees.folder(tmp_path, frames=12)
    sequences = find_sequences(tmp_path)
    assert [s.name for s in sequences] == ["first", "second", "third"]
    for sequence in sequences:
        assert len(sequence.frames) == 12 and sequence.boxes.shape == (12, 4)
        image = sequence.frames[5]
        assert image.dtype == np.uint8 and image.shape == (64, 96, 3) and number_of(image) == 5
        assert sequence.boxes[5] == pytest.approx(trees.box(5))
        assert sequence.visible is None
        assert number_of(sequence.frames[-1]) == 11
    assert sequences[0].frames.path(11).endswith("11.png")
    assert np.flatnonzero(np.isnan(sequences[1].boxes[:, 0])).tolist() == [3]


def test_natural_order():
    assert sorted(["img10.jpg", "img2.jpg", "b1", "1a"], key=natural_key) == ["1a", "b1", "img2.jpg", "img10.jpg"]


def test_got10k_and_lasot_are_folders_too(tmp_path):
    trees.got10k(tmp_path / "got", sequences=2, frames=6, hidden=(2,))
    trees.lasot(tmp_path / "lasot", frames=6, hidden=(1, 4))
    got, lasot = find_sequences(tmp_path / "got"), find_sequences(tmp_path / "lasot")
    assert [s.name for s in got] == ["GOT-10k_Train_000001", "GOT-10k_Train_000002"]
    assert np.flatnonzero(~got[0].visible).tolist() == [2]
    assert [s.name for s in lasot] == ["airplane-2", "zebra-4"]
    assert np.flatnonzero(~lasot[0].visible).tolist() == [1, 4]


def test_one_sequence_folder_and_same_names(tmp_path):
    trees.folder(tmp_path / "a", frames=3)
    trees.folder(tmp_path / "b", frames=3)
    assert [s.name for s in find_sequences(tmp_path / "a" / "first")] == ["first"]
    assert "a_first" in [s.name for s in find_sequences(tmp_path)]


def test_names_and_list_file(tmp_path):
    trees.folder(tmp_path, frames=3)
    assert [s.name for s in find_sequences(tmp_path, ["third", "first"])] == ["third", "first"]
    assert [s.name for s in find_sequences(tmp_path, ["./third", "first/"])] == ["third", "first"]
    trees.write_picture(tmp_path / "class" / "fourth" / "0.png", 0)
    trees.write_boxes(tmp_path / "class" / "fourth" / "groundtruth.txt", 1)
    assert [s.name for s in find_sequences(tmp_path, ["./fourth/", "first/"])] == ["fourth", "first"]
    (tmp_path / "half.txt").write_text("# half of it\nsecond\n\n")
    assert [s.name for s in find_in_spec(f"{tmp_path}@half.txt")] == ["second"]
    assert [s.name for s in find_in_spec(tmp_path.name + "@" + tmp_path.name + "/half.txt", tmp_path.parent)] == [
        "second"]
    assert len(find_in_spec(str(tmp_path))) == 4
    with pytest.raises(UserError, match="1 of 2 .*fifth"):
        find_sequences(tmp_path, ["first", "fifth"])
    with pytest.raises(UserError, match="list of sequences"):
        find_in_spec(f"{tmp_path}@missing.txt")


def test_paths_and_bare_names_in_one_list(tmp_path):
    for name in ("fourth", "fifth"):
        trees.write_picture(tmp_path / "class" / name / "0.png", 0)
        trees.write_boxes(tmp_path / "class" / name / "groundtruth.txt", 1)
    assert [s.name for s in find_sequences(tmp_path, ["fourth", "class/fifth"])] == ["fourth", "class/fifth"]


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="not found.*box file"):
        find_sequences(tmp_path / "missing")
    with pytest.raises(UserError, match="no sequence"):
        find_sequences(tmp_path)
    with pytest.raises(UserError, match="no frames"):
        open_frames(tmp_path)
    trees.write_boxes(tmp_path / "s" / "groundtruth.txt", 3)
    with pytest.raises(UserError, match="no frames"):
        find_sequences(tmp_path)


def test_more_frames_than_boxes_are_left_out(tmp_path, caplog):
    trees.folder(tmp_path, frames=6)
    for file in ("first/groundtruth_rect.txt", "third/groundtruth.txt"):
        trees.write_boxes(tmp_path / file, 4)
    with caplog.at_level(logging.WARNING):
        first, _, third = find_sequences(tmp_path)
    assert len(first.frames) == len(first.boxes) == len(third.frames) == len(third.boxes) == 4
    assert sum("6 frames but 4 boxes" in message for message in caplog.messages) == 2
    with pytest.raises(IndexError):
        third.frames[4]


def test_only_the_first_box(tmp_path):
    trees.folder(tmp_path, frames=6)
    trees.write_boxes(tmp_path / "first" / "groundtruth_rect.txt", 1)
    first = find_sequences(tmp_path, ["first"])[0]
    assert len(first.frames) == 6 and first.boxes.shape == (6, 4)
    assert np.isfinite(first.boxes[0]).all() and np.isnan(first.boxes[1:]).all()


@pytest.mark.parametrize("name,file", [("first", "groundtruth_rect.txt"), ("third", "groundtruth.txt")])
def test_fewer_frames_than_boxes(tmp_path, name, file):
    trees.folder(tmp_path, frames=6)
    trees.write_boxes(tmp_path / name / file, 9)
    with pytest.raises(UserError, match="9 boxes.* 6 frames"):
        find_sequences(tmp_path)


def test_box_files(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("1,2,3,4\n1.5\t2\t3e0\t4\n 5 6 7 8 \nnan,nan,nan,nan\n0,0,0,0\n1, 2, 3, 4\n1;2;3;4\n\n")
    boxes = read_boxes(path)
    assert boxes.shape == (7, 4) and boxes[6].tolist() == [1, 2, 3, 4]
    assert np.isnan(boxes[3:5]).all() and boxes[1].tolist() == [1.5, 2, 3, 4] and boxes[5].tolist() == [1, 2, 3, 4]
    for text, line in (("1,2,3,4\n1,2,3\n", 2), ("", 1), ("1,2,3,4\n\n1,2,3,4\n", 2), ("a,b,c,d\n", 1),
                       ("1,2,3,4,5,6,7,8\n", 1)):
        path.write_text(text)
        with pytest.raises(UserError, match=f"b.txt, line {line}: expected four numbers"):
            read_boxes(path)


def test_label_files(tmp_path):
    assert read_visibility(tmp_path, 3) is None
    (tmp_path / "absence.label").write_text("0\n1\n0\n")
    (tmp_path / "cover.label").write_text("8\n3\n0\n")
    assert read_visibility(tmp_path, 3).tolist() == [True, False, False]
    with pytest.raises(UserError, match="3 labels for 4 boxes"):
        read_visibility(tmp_path, 4)
    (tmp_path / "cover.label").write_text("8\nx\n0\n")
    with pytest.raises(UserError, match="cover.label"):
        read_visibility(tmp_path, 3)


def test_damaged_picture_names_path_and_index(tmp_path):
    trees.folder(tmp_path, frames=4)
    (tmp_path / "first" / "img" / "2.png").write_bytes(b"no picture")
    frames = open_frames(tmp_path / "first")
    with pytest.raises(UserError, match="frame 2 .*2.png"):
        frames[2]
    (tmp_path / "first" / "img" / "3.png").unlink()
    with pytest.raises(UserError, match="frame 3 .*3.png"):
        frames[3]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_video_in_any_order(tmp_path, suffix):
    trees.write_video(tmp_path / f"v{suffix}", 12)
    frames = open_frames(tmp_path / f"v{suffix}")
    straight = [frames[i] for i in range(len(frames))]
    assert [number_of(image) for image in straight] == list(range(12))
    for index in (7, 2, 2, 11, 0, 3):
        assert np.array_equal(frames[index], straight[index])
    image = frames[5]
    image[:] = 0
    assert np.array_equal(frames[5], straight[5])
    frames.close()
    assert np.array_equal(frames[1], straight[1])


def test_video_that_ends_early(tmp_path, monkeypatch):
    trees.write_video(tmp_path / "v.avi", 5)
    frames = VideoFrames(tmp_path / "v.avi", 9)
    with pytest.raises(UserError, match="frame 8 .*v.avi.*after 5 frames"):
        frames[8]
    with monkeypatch.context() as patch, pytest.raises(UserError, match="frame 6 .*v.avi.*after 5 frames"):
        patch.setattr(VideoFrames, "_open", lambda self: pytest.fail("the file is not searched again"))
        frames[6]
    assert frames[4].shape == frames[0].shape
    assert frames.count_exactly() == 5 == len(frames)
    (tmp_path / "w.avi").write_bytes(b"no video")
    with pytest.raises(UserError, match="w.avi"):
        len(open_frames(tmp_path / "w.avi"))


def _read_in_child(frames, index, queue):
    queue.put(frames[index])


def test_video_survives_pickle_and_fork(tmp_path):
    trees.write_video(tmp_path / "v.avi", 8)
    frames = VideoFrames(tmp_path / "v.avi")
    third = frames[3]
    assert np.array_equal(pickle.loads(pickle.dumps(frames))[3], third)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(frames, 3, queue))
    child.start()
    try:
        assert np.array_equal(queue.get(timeout=30), third)
    finally:
        child.join(10)
    assert number_of(frames[4]) == 4


def test_which_video(tmp_path):
    trees.write_video(tmp_path / "s" / "truth.mp4", 2)
    assert open_frames(tmp_path / "s").path(0).endswith("truth.mp4")
    trees.write_video(tmp_path / "s" / "clip.avi", 2)
    assert open_frames(tmp_path / "s").path(0).endswith("clip.avi")
    trees.write_video(tmp_path / "s" / "other.avi", 2)
    with pytest.raises(UserError, match="several videos"):
        open_frames(tmp_path / "s")


def test_real_videos(shared_dir):
    sequences = {s.name: s for s in find_sequences(shared_dir / "sequences")}
    assert len(sequences) == 29
    assert len(sequences["SegTrack2_parachute"].frames) == len(sequences["SegTrack2_parachute"].boxes) == 50
    assert int(np.isnan(sequences["TLD_06_car"].boxes[:, 0]).sum()) == 85
    assert sequences["TLD_02_jumping"].frames[312].shape == (288, 352, 3)
