"""One synthetic sequence: what is in it, how it moves, and its pictures with boxes."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from . import textures
from .textures import MARGIN, Sprite

ROLES = ("background", "target", "distractors", "occluders", "motion", "light")
"""Parts of a sequence; each draws from a generator of its own."""
CUTOUTS = 6
"""Objects cut out of photographs that a sequence takes: a target, two others, three that hide it."""

_SPLITS = {"train": 1, "val": 2, "test": 3}


@dataclass(frozen=True)
class Frame:
    """One picture: uint8 (H, W, 3) in OpenCV's channel order; box [x, y, w, h] of the whole object cut off at the
    border (zeros when it is outside); the visible share 0..1 of the object's area inside the picture."""

    image: np.ndarray
    box: tuple[float, float, float, float]
    visible: float


@dataclass(frozen=True)
class Assets:
    """Everything that has a texture in one sequence; `tilt` 0..1 is how far objects may be turned at first (1: by any
    angle)."""

    background: np.ndarray
    target: Sprite
    distractors: list[Sprite]
    occluders: list[Sprite]
    tilt: float = 1.0


@dataclass(frozen=True)
class Pose:
    """Where an object is at every moment: centre (T, 2) px, size (T, 2) px, angle (T,) rad, slide (T, 2) of its
    surface in px of its picture, bend (T, 4) of its outline as shares of its size."""

    centre: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    slide: np.ndarray
    bend: np.ndarray


def generator(seed: int, split: str, index: int, role: str) -> np.random.Generator:
    """The random numbers of one role in one sequence; no two (seed, split, index, role) share a stream."""
    return np.random.default_rng(np.random.SeedSequence([seed, _SPLITS[split], index, ROLES.index(role)]))


def wander(rng: np.random.Generator, times: np.ndarray, period: float, columns: int = 1) -> np.ndarray:
    """A smooth random path, float64 (T, columns), about -1..1, with a turn about every `period` units of time."""
    knots = rng.uniform(-1, 1, (int(np.ceil(times[-1] / period)) + 4, columns))
    place = times / period + 1
    k = np.minimum(place.astype(int), len(knots) - 3)
    f = (place - k)[:, None]
    a, b, c, d = (knots[k + i] for i in (-1, 0, 1, 2))
    return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))


def make_assets(seed: int, split: str, index: int, size: tuple[int, int], photo: np.ndarray | None = None,
                cutouts: list[Sprite] | None = None) -> Assets:
    """Draw the surfaces and shapes of one sequence; `size` is the picture's (W, H), `photo` (uint8, any size) takes
    the place of the procedural background, `cutouts` (`CUTOUTS` of them) that of the objects."""
    width, height = (int(1.6 * v) for v in size)
    rng = generator(seed, split, index, "background")
    scene = textures.background(rng, height, width) if photo is None else _cut(rng, photo, height, width)
    if cutouts:
        return _photographic(generator(seed, split, index, "distractors"), scene, cutouts)
    resolution = sprite_side(size)
    rng = generator(seed, split, index, "target")
    target = _set_apart(rng, textures.sprite(rng, resolution), scene)
    rng = generator(seed, split, index, "distractors")
    likeness = [rng.choice([0.0, 0.2, 0.4, 0.9], p=[0.4, 0.3, 0.25, 0.05]) for _ in range(rng.integers(0, 3))]
    distractors = [textures.relative(rng, target, value) for value in likeness]
    distractors += [_liken(rng, textures.sprite(rng, resolution), scene) for _ in range(rng.integers(0, 3))]
    rng = generator(seed, split, index, "occluders")
    occluders = [_liken(rng, textures.sprite(rng, resolution), scene) for _ in range(3)]
    return Assets(scene, target, distractors, occluders)


def sprite_side(size: tuple[int, int]) -> int:
    """Side of an object's picture in px, for pictures of `size` (W, H)."""
    return max(48, int(0.45 * min(size)))


def _photographic(rng: np.random.Generator, scene: np.ndarray, cutouts: list[Sprite]) -> Assets:
    """The first object is the target; up to two of the others, and now and then its double, go about with it. They
    stand upright, as in photographs."""
    target, others, occluders = cutouts[0], cutouts[1:-3], cutouts[-3:]
    distractors = [textures.relative(rng, target, 0.9)] * int(rng.random() < 0.25)
    distractors += others[: rng.integers(0, len(others) + 1)]
    return Assets(scene, target, distractors, [_liken(rng, item, scene) for item in occluders], tilt=0.1)


def _cut(rng: np.random.Generator, photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """A random part of a photograph with the wanted shape, mirrored half of the time."""
    scale = min(photo.shape[0] / height, photo.shape[1] / width) * rng.uniform(0.7, 1.0)
    h, w = max(2, int(height * scale)), max(2, int(width * scale))
    top, left = rng.integers(0, photo.shape[0] - h + 1), rng.integers(0, photo.shape[1] - w + 1)
    part = photo[top : top + h, left : left + w]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def _liken(rng: np.random.Generator, item: Sprite, scene: np.ndarray) -> Sprite:
    """Move an object's colours a random share of the way to the scene's, so that not every object sticks out."""
    share = rng.uniform(0.0, 0.55)
    mean, deviation = cv2.meanStdDev(scene)
    own, spread = cv2.meanStdDev(item.colour)
    gain = 1 + share * (np.clip(deviation / np.maximum(spread, 1), 0.6, 1.6) - 1)
    return _recolour(item, own[:, 0], own[:, 0] + share * (mean - own)[:, 0], gain[:, 0])


def _set_apart(rng: np.random.Generator, item: Sprite, scene: np.ndarray) -> Sprite:
    """Move an object's mean colour away from the scene's to a random distance of at least 50 grey levels, where it is
    nearer: a target that cannot be told from its background tests nothing."""
    own, mean = cv2.mean(item.colour)[:3], cv2.mean(scene)[:3]
    difference = np.subtract(own, mean)
    difference = difference + 1e-3 * rng.standard_normal(3)
    distance = np.linalg.norm(difference)
    new_distance = max(distance, rng.uniform(50, 110))
    return _recolour(item, np.array(own), mean + difference * (new_distance / distance), np.ones(3))


def _recolour(item: Sprite, old: np.ndarray, new: np.ndarray, gain: np.ndarray) -> Sprite:
    """Map each channel so that `old` becomes `new` and distances from it grow by `gain`; all (3,)."""
    table = (np.arange(256)[:, None] - old) * gain + np.clip(new, 20, 235)
    table = np.clip(table, 0, 255).astype(np.uint8)
    return Sprite(cv2.LUT(item.colour, table[:, None]), item.cover, item.aspect)


class Sequence:
    """A synthetic sequence of `length` pictures of `size` (W, H); `pace` is the time between two pictures (1 for
    evaluation; more spreads the pictures of a training sequence over a longer story). For `photo` and `cutouts` see
    `make_assets`."""

    def __init__(self, seed: int, split: str, index: int, *, length: int, size: tuple[int, int], pace: float = 1.0,
                 photo: np.ndarray | None = None, cutouts: list[Sprite] | None = None) -> None:
        self.size, self.length = size, length
        self.assets = make_assets(seed, split, index, size, photo, cutouts)
        self._times = np.arange(length) * pace
        self._pace = pace
        self._plan_target(generator(seed, split, index, "motion"))
        self._plan_others(generator(seed, split, index, "motion").spawn(1)[0])
        self._plan_light(generator(seed, split, index, "light"))

    def _plan_target(self, rng: np.random.Generator) -> None:
        times, (width, height) = self._times, self.size
        unit = min(width, height) / 240.0
        long_side = unit * np.exp(rng.uniform(np.log(32), np.log(80)))
        zoom = wander(rng, times, rng.uniform(25, 50))[:, 0] * rng.uniform(0.25, 0.6)
        stretch = wander(rng, times, rng.uniform(25, 60))[:, 0] * rng.uniform(0.05, 0.35)
        aspect = self.assets.target.aspect
        base = long_side * np.array([aspect, 1.0]) / max(aspect, 1.0)
        size = base * np.exp(np.stack([zoom + stretch, zoom - stretch], axis=-1))
        size = np.clip(size, 14 * unit, 100 * unit)

        surge = 1.0 + rng.choice([0.0, 2.0, 4.0]) * np.clip(wander(rng, times, 12)[:, 0] - 0.4, 0, 1)
        clock = np.concatenate([[0.0], np.cumsum(surge[1:] * self._pace)])
        path = wander(rng, clock, rng.uniform(12, 30) * max(1.0, 52 * unit / long_side), 2)
        shake = rng.choice([0.0, 1.5, 5.0], p=[0.4, 0.35, 0.25]) * unit * wander(rng, times, 2.0, 2)
        room = np.array([width, height]) / 2 - 0.5 * size.max(axis=0) - 2
        centre = np.array([width, height]) / 2 + np.maximum(room, 4) * rng.uniform(0.5, 1.0, 2) * path + shake
        limit = 0.6 * np.sqrt(size.prod(axis=-1)) * max(1.0, self._pace)
        for t in range(1, self.length):
            step = centre[t] - centre[t - 1]
            centre[t] = centre[t - 1] + step * min(1.0, limit[t] / max(np.hypot(*step), 1e-9))
        turn = rng.choice([0.05, 0.25, 0.8], p=[0.4, 0.35, 0.25]) * wander(rng, times, rng.uniform(20, 45))[:, 0]
        turn += rng.uniform(-np.pi, np.pi) * self.assets.tilt
        self._target = self._pose(rng, centre, size, turn)

        pan = wander(rng, times, rng.uniform(25, 60), 2) * rng.uniform(0.2, 1.0) * 0.25 * np.array([width, height])
        self._pan = pan + shake
        self._zoom = np.exp(0.12 * wander(rng, times, rng.uniform(30, 60))[:, 0] + 0.35 * (zoom - zoom.mean()))
        self._roll = rng.choice([0.01, 0.06, 0.15]) * wander(rng, times, rng.uniform(20, 50))[:, 0]
        self._shutter = rng.choice([0.0, 0.25, 0.6], p=[0.4, 0.35, 0.25])

    def _pose(self, rng: np.random.Generator, centre: np.ndarray, size: np.ndarray, angle: np.ndarray) -> Pose:
        times = self._times
        slide = wander(rng, times, 30, 2) * rng.choice([0.0, 10.0, 30.0], p=[0.5, 0.3, 0.2])
        bend = wander(rng, times, rng.uniform(8, 25), 4) * rng.choice([0.0, 0.03, 0.07], p=[0.3, 0.4, 0.3])
        return Pose(centre, size, angle, slide - slide[0], bend)

    def _plan_others(self, rng: np.random.Generator) -> None:
        times, target = self._times, self._target
        scale = np.sqrt(target.size.prod(axis=-1))[:, None]
        world = -self._pan
        self._distractors = []
        for item in self.assets.distractors:
            size = target.size.mean(axis=0).max() * rng.uniform(0.7, 1.25) * np.array([item.aspect, 1.0])
            size = np.broadcast_to(size / max(item.aspect, 1.0), (self.length, 2))
            angle = rng.uniform(0, 2 * np.pi) * self.assets.tilt + rng.uniform(0, 0.5) * wander(rng, times, 30)[:, 0]
            direction = rng.uniform(0, 2 * np.pi) + 1.5 * wander(rng, times, 40)[:, 0]
            away = np.stack([np.cos(direction), np.sin(direction)], axis=-1)
            if rng.random() < 0.6:
                distance = 1.7 + 0.8 * wander(rng, times, 25) + rng.uniform(0, 0.7)
                centre = target.centre + away * scale * (distance + max(0.0, 1.5 - distance[0, 0]))
            else:
                centre = np.array(self.size) * (0.5 + 0.5 * wander(rng, times, 70, 2)) + world - world[0]
                gap = centre[0] - target.centre[0]
                centre = centre + gap / max(np.hypot(*gap), 1e-6) * max(0.0, 1.6 * scale[0, 0] - np.hypot(*gap))
            self._distractors.append(self._pose(rng, centre, size, angle))
        self._occluders = []
        story = times[-1]
        for item in self.assets.occluders[: rng.choice([0, 1, 2, 3], p=[0.4, 0.35, 0.2, 0.05])]:
            moment = rng.uniform(0.2, 0.95) * story
            large = rng.choice([0.6, 0.9, 1.3], p=[0.4, 0.4, 0.2])
            size = scale.mean() * large * np.exp(rng.normal(0, 0.15)) * np.array([item.aspect, 1 / item.aspect]) ** 0.5
            heading = rng.uniform(0, 2 * np.pi)
            along = np.array([np.cos(heading), np.sin(heading)])
            speed = scale.mean() * rng.uniform(0.12, 0.3)
            travel = speed * np.clip(times - moment, -200, 200)[:, None] * along
            miss = np.array([-along[1], along[0]]) * rng.uniform(-0.5, 0.5) * scale.mean()
            nearest = target.centre[np.argmin(np.abs(times - moment))]
            centre = 0.7 * target.centre + 0.3 * nearest + travel + miss
            start = centre[0] - target.centre[0]
            if np.hypot(*start) < scale[0, 0] * (0.6 + 0.6 * large):
                continue
            angle = rng.uniform(0, 2 * np.pi) * self.assets.tilt + 0.2 * wander(rng, times, 30)[:, 0]
            pose = self._pose(rng, centre, np.broadcast_to(size, (self.length, 2)), angle)
            self._occluders.append((item, pose))

    def _plan_light(self, rng: np.random.Generator) -> None:
        width, height = self.size
        times = self._times
        gain = rng.choice([0.04, 0.16, 0.32], p=[0.4, 0.4, 0.2]) * wander(rng, times, rng.uniform(10, 40))
        tint = rng.uniform(0.0, 0.08) * wander(rng, times, 40, 3)
        self._gain = np.exp(gain - gain[0] * 0.5 + tint).astype(np.float32)
        depth = rng.uniform(0.0, 0.8)
        field = 1.0 + depth * (textures.fractal(rng, 96, 128, 1.8, 2) - 0.5)
        self._field = cv2.merge([field.astype(np.float32)] * 3)
        self._drift = 10.0 * wander(rng, times, rng.uniform(20, 60), 2)
        strength = rng.choice([1.0, 2.5, 5.0], p=[0.45, 0.4, 0.15])
        self._noise = strength * rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
        self._noise_place = rng.integers(0, 65, (self.length, 2))
        focus = np.clip(wander(rng, times, rng.uniform(12, 30))[:, 0] - 0.35, 0, 1)
        self._defocus = rng.choice([0.0, 2.5], p=[0.65, 0.35]) * focus

    def frames(self) -> Iterator[Frame]:
        """Draw the pictures, in order."""
        for t in range(self.length):
            yield self._frame(t)

    def _frame(self, t: int) -> Frame:
        width, height = self.size
        scene = self.assets.background
        zoom, roll = self._zoom[t] * 1.05, self._roll[t]
        turn = cv2.getRotationMatrix2D((scene.shape[1] / 2, scene.shape[0] / 2), np.degrees(roll), zoom)
        turn[:, 2] += np.array([width - scene.shape[1], height - scene.shape[0]]) / 2 - self._pan[t]
        image = cv2.warpAffine(scene, turn, (width, height), flags=cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_REFLECT_101)
        if t and self._shutter:
            image = streak(image, (self._pan[t] - self._pan[t - 1]) * self._shutter / self._pace)
        image = image.astype(np.float32)
        for item, pose in zip(self.assets.distractors, self._distractors, strict=True):
            self._draw(image, item, pose, t, shadow=0.35)
        alpha, corner = self._draw(image, self.assets.target, self._target, t, shadow=0.35)
        hidden = np.zeros((height, width), np.float32)
        for item, pose in self._occluders:
            cover, (x, y) = self._draw(image, item, pose, t, shadow=0.0)
            part = hidden[y : y + cover.shape[0], x : x + cover.shape[1]]
            np.maximum(part, cover, out=part)
        box = tight_box(alpha, corner)
        whole = alpha > 0.5
        seen = whole & (hidden[corner[1] : corner[1] + alpha.shape[0], corner[0] : corner[0] + alpha.shape[1]] <= 0.5)
        visible = float(seen.sum()) / max(1, int(whole.sum()))
        return Frame(self._expose(image, t), box, visible)

    def _expose(self, image: np.ndarray, t: int) -> np.ndarray:
        """Light, lens and sensor: float32 picture in, uint8 picture out."""
        width, height = self.size
        move = np.float64([[1, 0, self._drift[t, 0] - 24], [0, 1, self._drift[t, 1] - 18]])
        light = cv2.warpAffine(self._field, move, (80, 60), borderMode=cv2.BORDER_REFLECT_101) * self._gain[t]
        image = cv2.multiply(image, cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR))
        if self._defocus[t] > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), float(self._defocus[t]))
        y, x = self._noise_place[t]
        return cv2.add(image, self._noise[y : y + height, x : x + width], dtype=cv2.CV_8U)

    def _draw(self, image: np.ndarray, item: Sprite, pose: Pose, t: int, shadow: float
              ) -> tuple[np.ndarray, tuple[int, int]]:
        """Put an object on a float32 picture, in place; its opacity (h, w) and the corner (x, y) it belongs to."""
        (x, y), (w, h), angle = pose.centre[t], pose.size[t], pose.angle[t]
        across = abs(w * np.cos(angle)) + abs(h * np.sin(angle))
        down = abs(w * np.sin(angle)) + abs(h * np.cos(angle))
        reach_x, reach_y = 0.62 * across + 4, 0.62 * down + 4
        left, top = max(0, int(x - reach_x)), max(0, int(y - reach_y))
        right = min(image.shape[1], int(np.ceil(x + reach_x)))
        bottom = min(image.shape[0], int(np.ceil(y + reach_y)))
        if right <= left or bottom <= top:
            return np.zeros((0, 0), np.float32), (0, 0)
        dx = (np.arange(left, right, dtype=np.float32) + 0.5 - np.float32(x))[None]
        dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - np.float32(y))[:, None]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = (cos * dx + sin * dy) / np.float32(w), (cos * dy - sin * dx) / np.float32(h)
        bend = pose.bend[t].astype(np.float32)
        if np.any(bend):
            u, v = (u + bend[0] * np.sin(5 * v + 9 * bend[1]) + bend[2] * v,
                    v + bend[1] * np.sin(5 * u + 9 * bend[2]) + bend[3] * u * u)
        side = item.colour.shape[0] - 2 * MARGIN
        map_x, map_y = (u + 0.5) * np.float32(side) + (MARGIN - 0.5), (v + 0.5) * np.float32(side) + (MARGIN - 0.5)
        cover = cv2.remap(item.cover, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if np.any(pose.slide[t]):
            map_x, map_y = map_x + np.float32(pose.slide[t, 0]), map_y + np.float32(pose.slide[t, 1])
        colour = cv2.remap(item.colour, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        alpha, light = cv2.split(cover)
        paint, opacity = cv2.multiply(colour, cv2.merge([light] * 3), dtype=cv2.CV_32F), alpha
        if t and self._shutter:
            move = (pose.centre[t] - pose.centre[t - 1]) * self._shutter / self._pace
            paint, opacity = streak(paint, move), streak(opacity, move)
        through = 1.0 - opacity
        if shadow:
            spread = (2 * int(0.06 * w) + 3, 2 * int(0.06 * h) + 3)
            corner = (spread[0] - 1, spread[1] - 1)
            through *= 1.0 - shadow * cv2.blur(alpha, spread, anchor=corner, borderType=cv2.BORDER_CONSTANT)
        region = image[top:bottom, left:right]
        region[:] = cv2.add(cv2.multiply(region, cv2.merge([through] * 3)), paint)
        return alpha, (left, top)


def streak(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Motion blur along `move` (2,) px."""
    length = float(np.hypot(*move))
    if length < 1.5:
        return image
    length = min(length, 21.0)
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    middle, half = side // 2, move / np.hypot(*move) * length / 2
    ends = [tuple(int(round((middle + s * v) * 16)) for v in half) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def tight_box(alpha: np.ndarray, corner: tuple[int, int]) -> tuple[float, float, float, float]:
    """[x, y, w, h] around opacity above one half, placed between pixels by interpolation; zeros when there is none."""
    if alpha.size == 0 or float(alpha.max()) <= 0.5:
        return (0.0, 0.0, 0.0, 0.0)
    (x0, x1), (y0, y1) = _extent(alpha.max(axis=0)), _extent(alpha.max(axis=1))
    return (corner[0] + x0, corner[1] + y0, x1 - x0, y1 - y0)


def _extent(profile: np.ndarray) -> tuple[float, float]:
    """Where a profile rises above and falls below one half, in pixel edges; cut off at the ends."""
    inside = np.flatnonzero(profile > 0.5)
    first, last = int(inside[0]), int(inside[-1])
    low, high = float(first), float(last + 1)
    if first > 0:
        low = first + 0.5 - float((profile[first] - 0.5) / (profile[first] - profile[first - 1]))
    if last + 1 < len(profile):
        high = last + 0.5 + float((profile[last] - 0.5) / (profile[last] - profile[last + 1]))
    return low, high
