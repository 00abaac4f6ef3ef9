"""What lies in the folder of an exported tracker: `manifest.json`, written beside the graphs and read by everything
that runs them. docs/export.md explains every entry."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..families import FAMILIES
from ..utils.errors import UserError
from ..utils.files import write_text

if TYPE_CHECKING:
    from ..config import Config

MANIFEST = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: in the graph's file.
        shape: sizes; "batch" stands for any number of images, "templates" for any number of templates.
        dtype: float32, uint8 or bool.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        file: beside the manifest, or an absolute path.
        inputs: by role: template, tokens, search, what the family takes besides (`Inputs.further`), window.
        outputs: by role: tokens, or the fields of `Prediction`, then what the family gives besides.
    """

    file: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]


@dataclass(frozen=True)
class Manifest:
    """An exported tracker.

    Attributes:
        script, config: the experiment it comes from.
        format: onnx, torchscript, torchexport, openvino or tensorrt.
        precision: number format of the graphs' inside, or int8; openvino computes bfloat16 from a float32 file.
        parts: `tracker` alone, or `template` (crop -> tokens) and `search` (tokens and crop -> prediction).
        template_size, search_size: sides of the crops in pixels.
        template_factor, search_factor: crop side / sqrt(box area).
        stride: pixels per token; search_size / stride is the side of the maps.
        mean, std: normalisation of pixels scaled to 0..1; with take_pixels it is in the graphs.
        window: weight the score map by a Hann window (a graph with the input window takes it, or ones, and does so).
        take_pixels: crops go in as uint8 (B, H, W, 3) pixels; else as float32 (B, 3, H, W), normalised.
        family: the tracker's.
        rules: what the family's run-time rules take (`Family.rules`).
        checkpoint: name and sha256 of the weights' file.
        largest_difference: field of `Prediction` -> largest absolute difference from the PyTorch model in the check.
        checked_on: what the check's crops came from.
        libraries: versions of the libraries that wrote the folder.
    """

    script: str
    config: str
    format: str
    precision: str
    parts: dict[str, Part]
    template_size: int
    template_factor: float
    search_size: int
    search_factor: float
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    window: bool = True
    take_pixels: bool = False
    family: str = FAMILIES[0]
    rules: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, str] = field(default_factory=dict)
    largest_difference: dict[str, float] = field(default_factory=dict)
    checked_on: str = ""
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def batch(self) -> int | str:
        """Images per call: a number, or "batch" for any."""
        return self.parts[self.main].inputs["search"].shape[0]

    @property
    def main(self) -> str:
        """The part that runs in every frame."""
        return "search" if "search" in self.parts else "tracker"

    def files(self, folder: Path) -> list[Path]:
        """The folder's graphs, that of `main` first, and the weights that OpenVINO keeps beside its own."""
        graphs = [folder / self.parts[name].file for name in sorted(self.parts, key=lambda name: name != self.main)]
        return graphs + [weights for weights in (graph.with_suffix(".bin") for graph in graphs) if weights.is_file()]

    def other_settings(self, cfg: "Config") -> dict[str, Any]:
        """What tracking takes from here, not from the graphs, and `cfg`, the configuration as it is now (a
        compression's student: `Config.student`), says differently: key -> value; the rules are `exported.rules`."""
        test, data = cfg.TEST, cfg.DATA
        both = {"TEST.SEARCH_SIZE": (self.search_size, test.SEARCH_SIZE),
                "TEST.SEARCH_FACTOR": (self.search_factor, test.SEARCH_FACTOR),
                "TEST.TEMPLATE_SIZE": (self.template_size, test.TEMPLATE_SIZE),
                "TEST.TEMPLATE_FACTOR": (self.template_factor, test.TEMPLATE_FACTOR),
                "TEST.WINDOW": (self.window, test.WINDOW),
                "DATA.MEAN": (list(self.mean), list(data.MEAN)), "DATA.STD": (list(self.std), list(data.STD)),
                "exported.rules": (self.rules, json.loads(json.dumps(cfg.family.rule_values(cfg))))}
        return {name: own for name, (own, now) in both.items() if own != now}

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into the folder."""
        write_text(folder / MANIFEST, json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read a folder's manifest.

        Raises:
            UserError: there is none, it is damaged, or a file that it names is missing.
        """
        folder = Path(folder).expanduser()
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"no exported tracker in {folder} ({MANIFEST} not found); make one with "
                            "tracking/export_model.py")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("version") != VERSION:
                raise UserError(f"{path} is of another version than this code reads ({VERSION}); export again")
            content["parts"] = {name: _part(part) for name, part in content["parts"].items()}
            manifest = cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            keys = ", ".join(entry.name for entry in fields(cls))
            raise UserError(f"{path} is no manifest of an exported tracker: a JSON object with version, {keys} is "
                            "expected. Export again") from error
        if set(manifest.parts) not in ({"tracker"}, {"template", "search"}):
            raise UserError(f"{path} has the parts {', '.join(manifest.parts)}; expected tracker, or template and "
                            "search")
        for part in manifest.parts.values():
            if not (folder / part.file).is_file():
                raise UserError(f"{folder / part.file}, which {path} names, does not exist; export again")
        return manifest


def _part(content: Mapping[str, Any]) -> Part:
    ports = {side: {role: Port(port["name"], tuple(port["shape"]), port["dtype"]) for role, port in
                    content[side].items()} for side in ("inputs", "outputs")}
    return Part(content["file"], ports["inputs"], ports["outputs"])
