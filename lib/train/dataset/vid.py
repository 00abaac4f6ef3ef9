"""ImageNet VID (Russakovsky et al., IJCV 2015) as OSTrack reads it: one sequence per object and stretch of frames."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ...utils.errors import UserError
from ...utils.progress import progress
from ...utils.storage import State
from ...utils.threads import map_in_threads
from .annotation import Annotation
from .base import BUILD_THREADS, StoredDataset
from .index import Index

ANNOTATIONS = "Annotations/VID/train"
FRAMES = "Data/VID/train"
CACHE_FILE = "cache.json"
LAYOUT = (f"{FRAMES}/ILSVRC2015_VID_train_0000/<video>/000000.JPEG, ... and {ANNOTATIONS}/ILSVRC2015_VID_train_0000/"
          f"<video>/000000.xml, ... (or OSTrack's {CACHE_FILE} in their place)")
FIELDS = ("set_id", "vid_id", "start_frame", "anno", "target_visible", "image_size")


class ImagenetVid(StoredDataset):
    """The objects of ImageNet VID's training videos.

    The rules are OSTrack's (lib/train/dataset/imagenetvid.py of its repository): a sequence is an object from its first
    frame to the last before it is missing for the first time; what comes after that gap is not used. A frame is visible
    where the object is not marked as occluded and its box has a size. An object whose first box is as large as the
    image is left out. OSTrack's cache.json is read where there is one, instead of a million annotation files.
    """

    name = "imagenetvid"
    own_folders = False

    def _find(self) -> Sequence[str]:
        return self.index.texts("names")

    def _state(self) -> State:
        return self.storage.state(self._state_files())

    def _state_files(self) -> Iterator[str]:
        yield CACHE_FILE
        if not self.storage.has_file(CACHE_FILE):
            yield from (f"{ANNOTATIONS}/{video}" for video in self._videos())

    def annotation_files(self, name: str) -> list[str]:
        return [CACHE_FILE] if self.storage.has_file(CACHE_FILE) else [f"{ANNOTATIONS}/{name}"]

    def frame_file(self, sequence: int, index: int) -> str:
        name = self.sequences[sequence]
        return f"{FRAMES}/{name}/{int(self.index.numbers('start')[sequence]) + index:06d}.JPEG"

    def packed_files(self) -> Iterator[str]:
        if self.storage.has_file(CACHE_FILE):
            yield CACHE_FILE
        for name in dict.fromkeys(self.sequences):
            yield from self.storage.walk(f"{FRAMES}/{name}")

    def made_files(self) -> dict[str, bytes]:
        """cache.json, where it is missing."""
        return {} if self.storage.has_file(CACHE_FILE) else {CACHE_FILE: json.dumps(self._tracklets()).encode()}

    def read_annotation(self, sequence: int) -> Annotation:
        return self.index.annotation(sequence)

    def _videos(self) -> list[str]:
        return [f"{group}/{video}" for group in self.storage.folders(ANNOTATIONS)
                for video in self.storage.folders(f"{ANNOTATIONS}/{group}")]

    def _build(self) -> Index:
        tracklets = self._cached() if self.storage.has_file(CACHE_FILE) else self._tracklets()
        kept, annotations = [], []
        for tracklet in tracklets:
            boxes = np.array(tracklet["anno"], np.float64).reshape(-1, 4)
            width, height = tracklet["image_size"]
            if boxes[0, 2] * boxes[0, 3] < width * height:
                boxes[~((boxes[:, 2] > 0) & (boxes[:, 3] > 0))] = np.nan
                kept.append(tracklet)
                annotations.append(Annotation.of(boxes, np.array(tracklet["target_visible"], bool)))
        if not kept:
            raise self.place.nothing_found(self.storage)
        names = [f"ILSVRC2015_VID_train_{t['set_id']:04d}/ILSVRC2015_train_{t['vid_id']:08d}" for t in kept]
        numbers = {"start": np.array([t["start_frame"] for t in kept], np.int64)}
        return Index.of_annotations(annotations, {"names": names}, numbers | self._storage_columns(), self.note)

    def _cached(self) -> list[dict[str, Any]]:
        """The tracklets of OSTrack's cache file."""
        try:
            tracklets = json.loads(self.storage.read(CACHE_FILE))
            for tracklet in tracklets:
                if not len(tracklet["anno"]) == len(tracklet["target_visible"]) > 0:
                    raise ValueError(f"video {tracklet['vid_id']} has {len(tracklet['anno'])} boxes")
                [tracklet[field] for field in FIELDS]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"data set {self.dataset}: {self.storage.locate(CACHE_FILE)} is not OSTrack's cache file "
                            f"({type(error).__name__}: {error}); remove it to read the annotation files") from error
        return tracklets

    def _tracklets(self) -> list[dict[str, Any]]:
        """The tracklets of the annotation files, in the form of OSTrack's cache file."""
        videos = self._videos()
        per_video = progress(map_in_threads(self._tracklets_of, videos, BUILD_THREADS), len(videos),
                             f"annotations of {self.dataset}", "videos")
        return [tracklet for tracklets in per_video for tracklet in tracklets]

    def _tracklets_of(self, video: str) -> list[dict[str, Any]]:
        folder = f"{ANNOTATIONS}/{video}"
        files = [f"{folder}/{name}" for name in self.storage.files(folder) if name.endswith(".xml")]
        tracklets: dict[str, dict[str, Any]] = {}
        try:
            group, number = (int(part.rpartition("_")[2]) for part in video.split("/"))
        except ValueError as error:
            raise UserError(f"{self.storage.locate(folder)}: expected folders that end in _<number>, as ImageNet VID "
                            "names them; move others away") from error
        image_size: list[int] = []
        for place, file in enumerate(files):
            size, objects = self._read_frame(file)
            image_size = image_size or size
            for identity, category, box, seen in objects:
                tracklet = tracklets.setdefault(identity, {
                    "set_id": group, "vid_id": number, "class_name": category, "start_frame": place, "anno": [],
                    "target_visible": [], "image_size": image_size})
                if place == tracklet["start_frame"] + len(tracklet["anno"]):  # else it was missing in between
                    tracklet["anno"].append(box)
                    tracklet["target_visible"].append(seen)
        return list(tracklets.values())

    def _read_frame(self, file: str) -> tuple[list[int], list[tuple[str, str, list[int], bool]]]:
        """The image's width and height; of each object track, class, box (xywh) and whether it can be seen."""
        try:
            root = ElementTree.fromstring(self.storage.read(file))
            objects = []
            for item in root.iter("object"):
                x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
                objects.append((item.findtext("trackid"), item.findtext("name"), [x1, y1, x2 - x1, y2 - y1],
                                item.findtext("occluded") == "0"))
            return [int(root.findtext("size/width")), int(root.findtext("size/height"))], objects
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            raise UserError(f"{self.storage.locate(file)} is no annotation of ImageNet VID; extract it again"
                            ) from error
