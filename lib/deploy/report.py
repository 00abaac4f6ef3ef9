"""A profile as text: tables for the terminal, and rows of a Markdown table."""

from collections.abc import Callable, Sequence
from typing import Any

from ..utils.tables import aligned

COLUMNS = ("model", "path", "device", "batch", "median ms", "p95 ms", "FPS", "over teacher", "over plain", "x floor",
           "frame ms", "frame FPS", "GPU MiB", "J")
"""Of the Markdown table."""


def report_text(report: dict[str, Any]) -> str:
    """A report of `profile_config` as tables: the models beside the paper's numbers, the time of a pass on every path,
    and the time of whole frames where they were timed."""
    parts = [conditions_text(report), sizes_text(report)]
    for batch in dict.fromkeys(model["batch"] for model in report["models"]):
        entries = [model for model in report["models"] if model["batch"] == batch]
        parts.append(passes_text(report, entries))
        if report["frames"]:
            parts.append(frames_text(report, entries))
    return "\n\n".join([*parts, closing_text(report)])


def conditions_text(report: dict[str, Any]) -> str:
    """What was measured, on what."""
    return "\n".join([f"{report['script']}/{report['config']}", *_conditions(report)])


def sizes_text(report: dict[str, Any]) -> str:
    """The models and the paper's numbers."""
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("", lambda m: m["model"]), ("layers", lambda m: str(m["layers"])),
        ("parameters, M", lambda m: _beside_paper(m["thop_parameters"] / 1e6, m, "params_m", "params_match")),
        ("  with unused embeddings", lambda m: f"{m['parameters'] / 1e6:.3f}"),
        ("MACs by thop, G", lambda m: _beside_paper(m["thop_macs"] / 1e9, m, "macs_g", "macs_match")),
        ("MACs with attention, G", lambda m: f"{m['macs'] / 1e9:.3f}"),
        ("FPS in the paper (RTX 2080 Ti)", lambda m: str(m["published"]["fps"]) if m["published"] else "-")]
    return "\n".join(aligned([[label, *(value(model) for model in report["sizes"])] for label, value in rows]))


def passes_text(report: dict[str, Any], entries: Sequence[dict[str, Any]]) -> str:
    """The time of a pass on every path.

    Args:
        entries: those of `report["models"]` with one batch size.
    """
    reference = next((m["speed_up"]["over"] for m in entries if m["speed_up"]), None)
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("one pass", lambda m: m["name"]), ("precision", lambda m: m["precision"]),
        ("median ms", lambda m: f"{m['latency_ms']['median']:.2f}"),
        ("p95 ms", lambda m: f"{m['latency_ms']['p95']:.2f}"), ("FPS", lambda m: _fps(m["fps"]))]
    if reference:
        columns.append((f"times faster than {reference.split()[0]} on the same path", _speed_up_text))
    if any(m["over_plain"] and m["over_plain"]["over"] != m["name"] for m in entries):
        columns.append(("than the plain path",
                        lambda m: f"{m['over_plain']['median']:.2f}" if m["over_plain"] else "-"))
    if report["rates"]:
        columns += [("floor ms", lambda m: f"{m['floor']['ms']:.2f}"),
                    ("times the floor", lambda m: f"{m['floor']['times']:.1f}")]
    columns += [("template", lambda m: "cached" if m["template_cached"] else "in every pass"),
                ("weights MiB", lambda m: f"{m['memory']['weights_mib']:.1f}")]
    if any(m["memory"]["pass_mib"] is not None for m in entries):
        columns.append(("peak of a pass MiB", lambda m: f"{m['memory']['pass_mib']:.0f}"))
    if any(m["energy_j"] is not None for m in entries):
        columns.append(("J per image", lambda m: _number(m["energy_j"], ".3f")))
    return "\n".join([*_by_row(columns, entries), _effort(report, entries)])


def frames_text(report: dict[str, Any], entries: Sequence[dict[str, Any]]) -> str:
    """The time of whole frames; the arguments are those of `passes_text`."""
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        (f"whole frames ({report['frames']})", lambda m: m["name"]),
        ("median ms", lambda m: f"{m['end_to_end']['median_ms']:.2f}"),
        ("p95 ms", lambda m: f"{m['end_to_end']['p95_ms']:.2f}"),
        ("FPS", lambda m: _fps(m["end_to_end"]["fps"])),
        ("FPS from decoded", lambda m: _fps(m["end_to_end"]["decoded_fps"])),
        *((f"{part} ms", lambda m, part=part: f"{m['end_to_end']['parts_ms'][part]:.2f}")
          for part in entries[0]["end_to_end"]["parts_ms"])]
    return "\n".join(_by_row(columns, entries))


def closing_text(report: dict[str, Any]) -> str:
    """Notes on the numbers."""
    lines = []
    if report["rates"]:
        rates = ", ".join(f"{name} {rate / 1e9:.0f} {'GOP/s' if name == 'int8' else 'GFLOP/s'}" for name, rate in
                          report["rates"]["operations_per_s"].items())
        lines.append(f"floor: the operations at the device's matrix rate ({rates}), or the weights at the memory's "
                     f"rate ({report['rates']['bytes_per_s'] / 1e9:.1f} GB/s), both measured here")
    if "process_peak_mib" in report["environment"]:
        lines.append(f"peak memory of the whole process: {report['environment']['process_peak_mib']:.0f} MiB")
    if any(model["published"] for model in report["sizes"]):
        lines += [f"Paper: {report['published']['source']}.", report["published"]["note"]]
    return "\n".join(lines)


def report_markdown(report: dict[str, Any]) -> str:
    """A report as a Markdown table, one row per model and path."""
    device = report["environment"]["device_name"]
    if report["environment"]["device"] == "cpu":
        device += f", {report['environment']['threads']} threads"
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for m in report["models"]:
        whole, memory = m["end_to_end"], m["memory"]
        cells = [f"{m['config']} {m['model']} ({m['layers']} layers)",
                 ", ".join([f"{m['backend']} {m['precision']}", *["template cached"] * m["template_cached"],
                            *[m["note"]] * bool(m["note"])]), device,
                 str(m["batch"]), f"{m['latency_ms']['median']:.2f}", f"{m['latency_ms']['p95']:.2f}",
                 _fps(m["fps"]), _number(m["speed_up"] and m["speed_up"]["median"], ".2f"),
                 _number(m["over_plain"] and m["over_plain"]["median"], ".2f"),
                 _number(m["floor"] and m["floor"]["times"], ".1f"),
                 _number(whole and whole["median_ms"], ".2f"), _fps(whole["fps"]) if whole else "-",
                 _number(memory["pass_mib"] and memory["pass_mib"] + memory["weights_mib"], ".0f"),
                 _number(m["energy_j"], ".3f")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_conditions(report), _effort(report, report["models"])]) + "\n"


def _conditions(report: dict[str, Any]) -> list[str]:
    """What the numbers were measured on and with."""
    facts = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    lines = [f"{facts['device_name']} ({facts['device']}), {facts['threads']} CPU threads",
             f"Python {facts['python']}, {versions}"]
    if "cuda" in facts:
        lines.append(f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, matrix products {facts['matmul_precision']}, "
                     f"TF32 convolutions {'on' if facts['tf32_convolutions'] else 'off'}")
    return lines


def _effort(report: dict[str, Any], entries: Sequence[dict[str, Any]]) -> str:
    """How many passes were timed."""
    numbers = sorted({model["iterations"] for model in entries})
    return (f"{' to '.join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))} timed passes of each after "
            f"{report['warmup']} untimed ones, in turn")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _fps(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _by_row(columns: Sequence[tuple[str, Callable[[dict[str, Any]], str]]], models: Sequence[dict[str, Any]]
            ) -> list[str]:
    """A table with a line per model."""
    return aligned([[label for label, _ in columns], *([value(model) for _, value in columns] for model in models)])


def _beside_paper(value: float, model: dict[str, Any], key: str, match: str) -> str:
    """A count with the paper's beside it and a mark that says whether they agree."""
    paper = model["published"]
    return f"{value:.3f}" + (f"  (paper {paper[key]}: {'match' if paper[match] else 'DIFFERS'})" if paper else "")


def _speed_up_text(model: dict[str, Any]) -> str:
    """The ratio with its spread over the blocks, and the paper's."""
    ratio = model["speed_up"]
    if ratio is None:
        return "-"
    if ratio["over"] == model["name"]:
        return "1"
    text = f"{ratio['median']:.2f} (p10-p90 {ratio['p10']:.2f}-{ratio['p90']:.2f})"
    return text + (f"  (paper {model['published']['speed_up']:.2f})" if model["published"] else "")
