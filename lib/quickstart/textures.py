"""Procedural pictures: colour palettes, surface textures, shapes, shaded objects and backgrounds.

Everything here is a pure function of the `numpy.random.Generator` it is given. Colour pictures are uint8 (H, W, 3) in
OpenCV's channel order; scalar fields are float32 in 0..1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

MARGIN = 8
"""Empty pixels around the shape in an object's picture, so that interpolation at the rim reads zeros."""

_SYMBOLS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789abdefghkmnqrst#@&%$?!*+=<>"


@dataclass(frozen=True)
class Sprite:
    """One flat object.

    Attributes:
        colour: uint8 (S + 2 MARGIN, S + 2 MARGIN, 3) surface.
        cover: float32 (S + 2 MARGIN, S + 2 MARGIN, 2): opacity 0..1, and opacity times shading.
        aspect: width over height of the shape when it is drawn undistorted; the picture itself is square.
    """

    colour: np.ndarray
    cover: np.ndarray
    aspect: float


def fractal(rng: np.random.Generator, height: int, width: int, slope: float = 1.0, coarsest: int = 2) -> np.ndarray:
    """Smooth noise over several octaves, (height, width) float32 in 0..1; an amplitude that falls with
    frequency**-slope (1 resembles photographs, 2 is very soft)."""
    field = np.zeros((1, 1), np.float32)
    cells, amplitude = coarsest, 1.0
    while cells <= min(height, width) / 2 and amplitude > 0.02:
        grid = rng.standard_normal((cells + 1, max(2, round((cells + 1) * width / height))), dtype=np.float32)
        field = cv2.resize(field, grid.shape[::-1], interpolation=cv2.INTER_CUBIC) + np.float32(amplitude) * grid
        cells, amplitude = cells * 2, amplitude * 2.0**-slope
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    mean, deviation = cv2.meanStdDev(field)
    field = (field - mean[0, 0]) * (0.22 / max(deviation[0, 0], 1e-6)) + 0.5
    return np.clip(field, 0.0, 1.0).astype(np.float32)


def palette(rng: np.random.Generator, count: int, vivid: float = 0.5) -> np.ndarray:
    """`count` colours, float32 (count, 3) in 0..255, that go together: nearby hues or a contrast, mostly muted."""
    natural = rng.normal([35.0, 95.0, 212.0][rng.choice(3, p=[0.5, 0.25, 0.25])], 15.0)
    hue = (natural if rng.random() < 0.6 else rng.uniform(0, 360)) + rng.choice([10.0, 25.0, 90.0]) * rng.normal(
        size=count)
    saturation = np.clip(rng.beta(1.3, 2.8) * rng.uniform(0.5, 1.5, count) * (0.5 + vivid), 0, 0.85)
    value = np.clip(np.linspace(0.2, 0.9, count) + 0.13 * rng.standard_normal(count), 0.06, 0.98)
    rng.shuffle(value)
    colours = np.stack([hue % 360, saturation, value], axis=-1).astype(np.float32)[None]
    return cv2.cvtColor(colours, cv2.COLOR_HSV2BGR)[0] * 255.0


def colourise(field: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint a field in 0..1 with a smooth ramp through `colours`; uint8 (H, W, 3)."""
    places = np.linspace(0, 255, len(colours))
    table = np.stack([np.interp(np.arange(256), places, colours[:, c]) for c in range(3)], axis=-1).astype(np.uint8)
    return table[(field * 255).astype(np.uint8)]


def _coordinates(rng: np.random.Generator, size: int, warp: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotated coordinates in -0.5..0.5 over a square, bent by noise of strength `warp`."""
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    angle = np.float32(rng.uniform(0, np.pi))
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return (u + warp * (fractal(rng, size, size, 1.6) - 0.5), v + warp * (fractal(rng, size, size, 1.6) - 0.5))


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    field = fractal(rng, size, size, rng.uniform(0.6, 1.3), int(rng.integers(2, 8)))
    return colourise(field, palette(rng, int(rng.integers(3, 6))))


def _marble(rng: np.random.Generator, size: int) -> np.ndarray:
    u, _ = _coordinates(rng, size, rng.uniform(0.2, 0.7))
    return colourise(0.5 + 0.5 * np.sin(u * rng.uniform(10, 35)), palette(rng, 3))


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    u, _ = _coordinates(rng, size, rng.uniform(0.0, 0.15))
    wave = np.sin(u * rng.uniform(10, 40) + rng.uniform(0, 6)) + rng.uniform(-0.6, 0.6)
    return colourise(np.clip(0.5 + wave * rng.uniform(2, 8), 0, 1), palette(rng, 2))


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    u, v = _coordinates(rng, size, rng.uniform(0.0, 0.12))
    frequency = rng.uniform(8, 26)
    wave = np.sin(u * frequency) * np.sin(v * frequency * rng.uniform(0.5, 1.5))
    return colourise(np.clip(0.5 + wave * rng.uniform(3, 12), 0, 1), palette(rng, 2))


def _cells(rng: np.random.Generator, size: int) -> np.ndarray:
    count = int(rng.integers(8, 90))
    seeds = np.full((size, size), 255, np.uint8)
    seeds[rng.integers(0, size, count), rng.integers(0, size, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = palette(rng, 5)[rng.integers(0, 5, labels.max() + 1)]
    fade = 1.0 - rng.uniform(0.0, 0.6) * np.clip(distance / (0.7 * size / np.sqrt(count)), 0, 1)
    return (shades[labels] * fade[..., None]).astype(np.uint8)


def _dots(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 5)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colours[0]
    largest = rng.uniform(0.04, 0.16) * size
    for _ in range(int(rng.integers(15, 90))):
        centre = [int(v) for v in rng.integers(0, size * 16, 2)]
        axes = [int(v * 16) for v in rng.uniform(0.35, 1.0, 2) * largest]
        cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, colours[rng.integers(1, 5)].tolist(), -1,
                    cv2.LINE_AA, 4)
    return image


def _fibres(rng: np.random.Generator, size: int) -> np.ndarray:
    grid = rng.random((size, max(3, size // int(rng.integers(8, 30)))), dtype=np.float32)
    field = cv2.resize(grid, (size * 2, size * 2), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((size, size), rng.uniform(0, 180), 1.0)
    turn[:, 2] -= size / 2
    field = cv2.warpAffine(field, turn, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    field = 0.6 * field + 0.4 * fractal(rng, size, size, 1.0)
    return colourise(np.clip(field, 0, 1), palette(rng, 4))


def _glyphs(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 4)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colours[0]
    y = 0
    while y < size:
        scale = rng.uniform(0.5, 1.9)
        y += int(26 * scale)
        text = "".join(rng.choice(list(_SYMBOLS), 24))
        cv2.putText(image, text, (-int(rng.integers(0, 20)), y), cv2.FONT_HERSHEY_SIMPLEX, scale,
                    colours[rng.integers(1, 4)].tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), rng.normal(0, 25), 1.1)
    return cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT_101)


def _bricks(rng: np.random.Generator, size: int) -> np.ndarray:
    colours = palette(rng, 4)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colours[0]
    height, width, gap = int(rng.integers(9, 40)), int(rng.integers(14, 70)), int(rng.integers(1, 4))
    for row, top in enumerate(range(0, size, height)):
        for left in range(-(row % 2) * width // 2, size, width):
            colour = colours[rng.integers(1, 4)] * rng.uniform(0.8, 1.15)
            cv2.rectangle(image, (left, top), (left + width - 1 - gap, top + height - 1 - gap),
                          np.clip(colour, 0, 255).tolist(), -1)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-30, 30), 1.4)
    return cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT_101)


_FAMILIES = (_clouds, _marble, _stripes, _checks, _cells, _dots, _fibres, _glyphs, _bricks)
_FAMILY_WEIGHTS = np.array([4, 2, 1, 1, 2, 2, 3, 1, 1]) / 17.0


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A surface, uint8 (size, size, 3): a random family, stained by soft noise and with a fine grain."""
    image = _FAMILIES[rng.choice(len(_FAMILIES), p=_FAMILY_WEIGHTS)](rng, size)
    stain = 1.0 + rng.uniform(0.1, 0.5) * (fractal(rng, size, size, rng.uniform(0.8, 1.4)) - 0.5)
    grain = rng.uniform(0, 7) * rng.standard_normal((size, size), dtype=np.float32)
    stained = cv2.multiply(image, cv2.merge([stain.astype(np.float32)] * 3), dtype=cv2.CV_32F)
    return cv2.add(stained, cv2.merge([grain.astype(np.float32)] * 3), dtype=cv2.CV_8U)


def outline(rng: np.random.Generator, points: int = 72) -> np.ndarray:
    """A closed curve around the origin, float64 (N, 2), of any size: a polygon, a superellipse or a wavy blob."""
    kind = rng.choice(4, p=[0.2, 0.3, 0.35, 0.15])
    theta = np.linspace(0, 2 * np.pi, points, endpoint=False)
    if kind == 0:
        corners = int(rng.integers(3, 9))
        theta = np.sort((np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners)
        radius = rng.uniform(0.65, 1.0, corners)
    elif kind == 1:
        power = rng.uniform(1.3, 6.0)
        radius = (np.abs(np.cos(theta)) ** power + np.abs(np.sin(theta)) ** power) ** (-1 / power)
    elif kind == 2:
        radius = np.ones(points)
        for k in range(2, 7):
            radius += rng.normal(0, 0.45 / k**1.1) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        radius = np.clip(radius, 0.3, 2.0)
    else:
        arms = int(rng.integers(3, 8))
        radius = 1.0 + rng.uniform(0.15, 0.4) * np.sin(arms * theta) + 0.1 * np.cos(2 * theta + rng.uniform(0, 6))
    turn = rng.uniform(0, 2 * np.pi)
    return np.stack([radius * np.cos(theta + turn), radius * np.sin(theta + turn)], axis=-1)


def fill(outlines: list[np.ndarray], size: int) -> np.ndarray:
    """The union of closed curves, stretched so that its bounding box is the inner `size` pixels; uint8 mask 0..255 of
    side size + 2 MARGIN with soft edges."""
    everything = np.concatenate(outlines)
    low, high = everything.min(axis=0), everything.max(axis=0)
    mask = np.zeros((size + 2 * MARGIN,) * 2, np.uint8)
    for curve in outlines:
        scaled = (curve - low) / (high - low) * (size - 1) + MARGIN
        cv2.fillPoly(mask, [np.round(scaled * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def relief(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Shading of a rounded body seen through `mask`, lit from one side; float32 of the same size around 1."""
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3)
    depth = np.sqrt(np.clip(depth / max(float(depth.max()), 1.0) * rng.uniform(1.0, 3.0), 0, 1))
    depth = cv2.GaussianBlur(depth, (0, 0), max(mask.shape[0] * 0.03, 0.8)) * mask.shape[0] * 0.25
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.35)
    slope = (np.cos(angle) * cv2.Sobel(depth, cv2.CV_32F, 1, 0, scale=0.125)
             + np.sin(angle) * cv2.Sobel(depth, cv2.CV_32F, 0, 1, scale=0.125))
    return np.clip(1.0 + strength * np.tanh(slope), 0.4, 1.5)


def sprite(rng: np.random.Generator, size: int) -> Sprite:
    """A new object: a body with its own surface and, half of the time, parts with other surfaces on or beside it."""
    curves = [outline(rng)]
    parts = int(rng.choice([0, 1, 2, 3], p=[0.4, 0.25, 0.2, 0.15]))
    for _ in range(parts):
        curves.append(outline(rng) * rng.uniform(0.25, 0.6, 2) + rng.uniform(-0.8, 0.8, 2))
    mask = fill(curves, size)
    side = mask.shape[0]
    colour = texture(rng, side)
    everything = np.concatenate(curves)
    low, high = everything.min(axis=0), everything.max(axis=0)
    shade = relief(rng, mask)
    for curve in curves[1:]:
        part = np.zeros_like(mask)
        scaled = (curve - low) / (high - low) * (size - 1) + MARGIN
        cv2.fillPoly(part, [np.round(scaled * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        colour = np.where(part[..., None] > 127, texture(rng, side), colour)
        shade = np.where(part > 127, 0.5 * shade + 0.5 * relief(rng, part), shade)
    alpha = mask.astype(np.float32) / 255.0
    softness = rng.uniform(0.0, 1.4)
    if softness > 0.4:
        colour, alpha = (cv2.GaussianBlur(layer, (0, 0), softness) for layer in (colour, alpha))
    aspect = float(np.exp(np.clip(rng.normal(0, 0.4), -0.9, 0.9)))
    return Sprite(colour, np.dstack([alpha, alpha * shade]).astype(np.float32), aspect)


def relative(rng: np.random.Generator, original: Sprite, likeness: float) -> Sprite:
    """A distractor: `original` with a shifted tint and surface, and from likeness 1 (nearly identical) down to 0
    (same kind of surface, another shape)."""
    change = 1.0 - likeness
    hsv = cv2.cvtColor(original.colour, cv2.COLOR_BGR2HSV_FULL).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.normal(0, 6 + 45 * change)) % 256
    hsv[..., 1:] *= np.exp(rng.normal(0, 0.05 + 0.25 * change, 2))
    colour = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR_FULL)
    colour = np.roll(colour, rng.integers(0, colour.shape[0], 2) if likeness < 0.7 else (0, 0), axis=(0, 1))
    cover, aspect = original.cover, original.aspect
    if likeness < 0.5:
        mask = fill([outline(rng)], original.cover.shape[0] - 2 * MARGIN)
        alpha = mask.astype(np.float32) / 255.0
        cover = np.dstack([alpha, alpha * relief(rng, mask)]).astype(np.float32)
        aspect = aspect * float(np.exp(rng.normal(0, 0.3)))
    elif rng.random() < 0.5:
        colour, cover = colour[:, ::-1].copy(), cover[:, ::-1].copy()
    return Sprite(colour, cover, aspect)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A scene, uint8 (height, width, 3): a soft gradient or ground, many overlapping shaded shapes whose sizes follow
    a power law (the dead leaves model, whose statistics resemble photographs), and large soft lights and shadows."""
    pool = [texture(rng, 256) for _ in range(int(rng.integers(4, 8)))]
    style = rng.choice(["leaves", "open", "wall"], p=[0.45, 0.4, 0.15])
    if style == "wall":
        canvas = cv2.resize(texture(rng, 256), (width, height), interpolation=cv2.INTER_CUBIC)
        count = int(rng.integers(4, 30))
    else:
        canvas = colourise(fractal(rng, height, width, 1.2), palette(rng, 4, 0.2))
        count = int(rng.integers(40, 100)) if style == "leaves" else int(rng.integers(10, 50))
    horizon = 0.0
    if style == "open":
        horizon = rng.uniform(0.2, 0.55)
        row = int(horizon * height)
        ground = cv2.resize(pool[0], (width, height))
        corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
        spread = width * rng.uniform(0.3, 1.5)
        seen = np.float32([[0, row], [width, row], [width + spread, height], [-spread, height]])
        ground = cv2.warpPerspective(ground, cv2.getPerspectiveTransform(corners, seen), (width, height),
                                     flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)
        canvas[row:] = ground[row:]
    radii = np.sort((rng.uniform(0, 1, count) * (0.02**-1.2 - 0.35**-1.2) + 0.35**-1.2) ** (-1 / 1.2))[::-1]
    for radius in radii * height:
        side = max(10, int(2 * radius))
        ratio = float(np.exp(rng.normal(0, 0.5)))
        w, h = max(8, int(side * ratio**0.5)), max(8, int(side / ratio**0.5))
        _leaf(rng, canvas, pool, int(rng.uniform(-w, width)), int(rng.uniform(horizon * height - 0.7 * h, height)),
              w, h)
    lights = 0.6 + 0.75 * fractal(rng, height // 8, width // 8, 1.8)
    lights = cv2.resize(lights, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = cv2.multiply(canvas, cv2.merge([lights] * 3), dtype=cv2.CV_8U)
    blur = rng.uniform(0.0, 2.4)
    return cv2.GaussianBlur(canvas, (0, 0), blur) if blur > 0.5 else canvas


def _leaf(rng: np.random.Generator, canvas: np.ndarray, pool: list[np.ndarray], x: int, y: int, w: int, h: int) -> None:
    """Put one shaded shape with a surface out of `pool` and a soft shadow on `canvas`, in place."""
    left, top = max(0, x), max(0, y)
    right, bottom = min(canvas.shape[1], x + w), min(canvas.shape[0], y + h)
    surface = pool[rng.integers(len(pool))]
    tint = np.clip(rng.normal(1.0, 0.25), 0.4, 1.6) * np.exp(rng.normal(0, 0.08, 3))
    mask = fill([outline(rng, 40)], 64)
    shade = relief(rng, mask)
    shift = rng.integers(0, 128, 2)
    if right - left < 3 or bottom - top < 3:
        return
    alpha = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA if w < 80 else cv2.INTER_LINEAR)
    light = cv2.resize(shade, (w, h), interpolation=cv2.INTER_LINEAR)
    part = (slice(top - y, bottom - y), slice(left - x, right - x))
    size = max(32, min(256 - int(shift.max()), max(w, h)))
    colour = cv2.resize(surface[shift[0] : shift[0] + size, shift[1] : shift[1] + size], (w, h),
                        interpolation=cv2.INTER_AREA if size > w else cv2.INTER_LINEAR)
    opacity = cv2.merge([alpha[part].astype(np.float32) / 255.0] * 3)
    target = canvas[top:bottom, left:right]
    if w > 24:
        drop = np.float64([[1, 0, 0.04 * w], [0, 1, 0.06 * h]])
        dark = cv2.blur(cv2.warpAffine(alpha, drop, (w, h)), (w // 12 * 2 + 1, h // 12 * 2 + 1))[part]
        target[:] = cv2.multiply(target, cv2.merge([255 - 0.45 * dark.astype(np.float32)] * 3), scale=1 / 255,
                                 dtype=cv2.CV_8U)
    painted = cv2.multiply(colour[part], cv2.merge([light[part] * np.float32(t) for t in tint]), dtype=cv2.CV_32F)
    target[:] = cv2.add(target, cv2.multiply(cv2.subtract(painted, target, dtype=cv2.CV_32F), opacity),
                        dtype=cv2.CV_8U)
