"""Tiny data sets in every format that the project reads, for the tests."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np

SIZE = (96, 64)
"""Width and height of the frames."""


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """RGB uint8 (H, W, 3): a smooth texture whose mean colour tells the frame's number."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = 20 * np.sin(x / 5.0 + number) + 20 * np.cos(y / 7.0)
    base = np.array([60 + (number * 7) % 130, 100, 190 - (number * 5) % 120])
    return np.clip(base + waves[..., None], 0, 255).astype(np.uint8)


def write_picture(path: Path, number: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(picture(number, size), cv2.COLOR_RGB2BGR))


def jpeg(number: int, size: tuple[int, int] = SIZE) -> bytes:
    """A picture as a JPEG file's content."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture(number, size), cv2.COLOR_RGB2BGR))
    assert ok
    return data.tobytes()


def hollow(data: bytes) -> bytes:
    """A JPEG file that shows its size, but not its pixels: it names a Huffman table that is not there."""
    tables = data.index(b"\xff\xda") + 6
    return data[:tables] + b"\x33" + data[tables + 1 :]


def write_video(path: Path, frames: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, size)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(cv2.cvtColor(picture(number, size), cv2.COLOR_RGB2BGR))
    writer.release()


def box(number: int) -> list[float]:
    """Box of frame `number`, xywh."""
    return [20.0 + number % 30, 15.0 + number % 10, 24.0, 18.0]


def write_boxes(path: Path, frames: int, absent: tuple[int, ...] = (), separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [["NaN"] * 4 if i in absent else [f"{v:.2f}" for v in box(i)] for i in range(frames)]
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")


def got10k(root: Path, sequences: int = 3, frames: int = 24, hidden: tuple[int, ...] = ()) -> Path:
    """GOT-10k's layout; `hidden` frames have absence.label 1."""
    names = [f"GOT-10k_Train_{i + 1:06d}" for i in range(sequences)]
    for name in names:
        for i in range(frames):
            write_picture(root / name / f"{i + 1:08d}.jpg", i)
        write_boxes(root / name / "groundtruth.txt", frames)
        (root / name / "absence.label").write_text("".join(f"{int(i in hidden)}\n" for i in range(frames)))
        (root / name / "cover.label").write_text("8\n" * frames)
    (root / "list.txt").write_text("\n".join(names) + "\n")
    return root


def lasot(root: Path, names: tuple[str, ...] = ("airplane-2", "zebra-4"), frames: int = 24,
          hidden: tuple[int, ...] = ()) -> Path:
    """LaSOT's layout; every second of `hidden` is occluded, the others are out of view."""
    for name in names:
        folder = root / name.rsplit("-", 1)[0] / name
        for i in range(frames):
            write_picture(folder / "img" / f"{i + 1:08d}.jpg", i)
        write_boxes(folder / "groundtruth.txt", frames)
        (folder / "full_occlusion.txt").write_text(",".join(str(int(i in hidden[::2])) for i in range(frames)) + "\n")
        (folder / "out_of_view.txt").write_text(",".join(str(int(i in hidden[1::2])) for i in range(frames)) + "\n")
    return root


def trackingnet(root: Path, chunks: tuple[int, ...] = (0, 11), frames: int = 24) -> Path:
    for chunk in chunks:
        folder = root / f"TRAIN_{chunk}"
        for i in range(frames):
            write_picture(folder / "frames" / f"video{chunk}_0" / f"{i}.jpg", i)
        write_boxes(folder / "anno" / f"video{chunk}_0.txt", frames)
    return root


def coco(root: Path) -> Path:
    """Two images; three objects, one a crowd, and one without area."""
    for identity in (7, 9):
        write_picture(root / "images" / "train2017" / f"{identity:012d}.jpg", identity)

    def entry(identity: int, image: int, bbox: list[float], crowd: int = 0) -> dict:
        return {"id": identity, "image_id": image, "bbox": bbox, "iscrowd": crowd, "category_id": 1}

    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": SIZE[0], "height": SIZE[1]} for i in (7, 9)],
        "annotations": [entry(1, 9, [10, 12, 30, 20]), entry(2, 7, [40, 20, 8, 9]),
                        entry(3, 7, [0, 0, 90, 60], crowd=1), entry(4, 7, [5, 5, 0, 12])],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return root


def vid(root: Path, frames: int = 24) -> Path:
    """ImageNet VID's layout, one video: object 0 from the first frame on, missing in frame 21; object 1 from frame 3
    on, occluded in frames 5 and 6; object 2 as large as the image."""
    video = "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000007"

    def entry(identity: int, xyxy: list[int], occluded: bool = False) -> str:
        sides = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), xyxy, strict=True))
        return (f"<object><trackid>{identity}</trackid><name>n0</name><bndbox>{sides}</bndbox>"
                f"<occluded>{int(occluded)}</occluded></object>")

    for i in range(frames):
        write_picture(root / "Data" / "VID" / "train" / video / f"{i:06d}.JPEG", i)
        x, y, width, height = (int(v) for v in box(i))
        objects = [] if i == 21 else [entry(0, [x, y, x + width, y + height])]
        if i >= 3:
            objects += [entry(1, [i, 5, i + 20, 25], i in (5, 6)), entry(2, [0, 0, *SIZE])]
        path = root / "Annotations" / "VID" / "train" / video / f"{i:06d}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
                        f"{''.join(objects)}</annotation>")
    return root


def vasttrack(root: Path, names: tuple[str, ...] = ("Air Hockey-500", "Aardwolf-3"), frames: int = 24) -> Path:
    for name in names:
        folder = root / name.rpartition("-")[0] / name
        for i in range(frames):
            write_picture(folder / "imgs" / f"{i + 1:05d}.jpg", i)
        write_boxes(folder / "Groundtruth.txt", frames)
    return root


def tnl2k(root: Path, names: tuple[str, ...] = ("Bird_27-Done", "train_p1/Boat_video1-Done"), frames: int = 24) -> Path:
    for name in names:
        for i in range(frames):
            write_picture(root / name / "imgs" / f"img{i + 98}.png", i)
        write_boxes(root / name / "groundtruth.txt", frames)
    return root


def zipped(folder: Path, archive: Path, top: str = "", deflated: bool = False) -> Path:
    """A zip archive of a folder's content, in a folder `top` within it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as target:
        for path in sorted(folder.rglob("*")):
            target.write(path, Path(top) / path.relative_to(folder))
    return archive


def folder(root: Path, frames: int = 24, video: bool = True) -> Path:
    """One sequence with img/, one with pictures beside the box file, one video unless that is not wanted."""
    for i in range(frames):
        write_picture(root / "first" / "img" / f"{i}.png", i)
        write_picture(root / "second" / f"frame{i}.jpg", i)
    write_boxes(root / "first" / "groundtruth_rect.txt", frames, separator="\t")
    write_boxes(root / "second" / "second.txt", frames, absent=(3,), separator=" ")
    if video:
        write_video(root / "third" / "clip.avi", frames)
        write_boxes(root / "third" / "groundtruth.txt", frames)
    return root


def pictures(root: Path) -> Path:
    """A folder with the two images of :func:`coco` and the annotation file beside them."""
    parts = coco(root.with_name(root.name + "_parts"))
    (parts / "images" / "train2017").rename(root)
    (parts / "annotations" / "instances_train2017.json").rename(root / "boxes.json")
    return root
