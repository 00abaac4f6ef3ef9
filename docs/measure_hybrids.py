"""Whether a teacher's stages can go on with what its students' stages give: docs/ablations.md.

python docs/measure_hybrids.py experiments/ladders/replacement.yaml

For every trained run of a ladder: mean IoU of the student's head on validation pairs, where the first stages are the
student's and the others the teacher's, and the other way round. Nothing is trained.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.utils.errors import UserError  # noqa: E402
from lib.utils.log import load_torch, run_script  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", help="a file such as those in experiments/ladders")
    parser.add_argument("--output", help="the ladder's folder (default: output/ladders/<name of the ladder>)")
    args = parser.parse_args()
    load_torch()
    import torch

    from lib.families.build import build_compressor, load_teacher
    from lib.families.objective import search_frames
    from lib.models.checkpoint import load_weights, run_folder, slim_name
    from lib.pipeline.ladder import Ladder
    from lib.train.data import build_loader

    ladder, found = Ladder.read(args.ladder), 0
    for rung, seed in ladder.runs():
        cfg = ladder.load(rung, seed)
        run = Path(args.output or f"output/ladders/{ladder.name}") / "runs" / f"{rung}_seed{seed}"
        weights = run_folder(run, cfg.script, cfg.name) / slim_name(cfg.title, cfg.TRAIN.EPOCH)
        if not weights.is_file():
            continue
        found += 1
        net = build_compressor(cfg, load=False).eval()
        if net.bridges is not None:
            raise UserError(f"{rung}: the file of a student of another width lacks its bridges to the teacher")
        load_teacher(cfg, net.teacher)
        load_weights(net.student, weights)
        objective, stages = cfg.family.objective(cfg), len(net.stages)
        names = [first * count + second * (stages - count) for first, second in ("ST", "TS")
                 for count in range(1, stages + 1)]
        mixed = {name: [owner == "S" for owner in name] for name in names}
        loader = build_loader(cfg, "val", seed=0, rank=0, world_size=1, batch_size=cfg.TRAIN.BATCH_SIZE, num_workers=0,
                              device=torch.device("cpu"))
        loader.set_epoch(0)
        sums, pairs = dict.fromkeys(mixed, 0.0), 0
        for batch in loader:
            frame = search_frames(loader.to_device(batch, torch.device("cpu")))[0]
            pairs += len(frame["search"])
            for name, draws in mixed.items():
                with torch.no_grad():
                    out = net(frame["template"], frame["search"], draws, objective.further(batch, 1), guide=False,
                              mimic=False)
                    stats = objective.loss(out.student, frame["search_box"], None)[1]
                sums[name] += float(stats["IoU"]) * len(frame["search"])
        print(f"{rung}, seed {seed}: " + ", ".join(f"{name} {total / pairs:.3f}" for name, total in sums.items()),
              flush=True)
    if not found:
        raise UserError(f"no run of {ladder.source} is trained; tracking/ablation.py trains them")
    return 0


if __name__ == "__main__":
    run_script(main)
