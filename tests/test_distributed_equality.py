"""Two processes, or several passes, train as one process does with the whole batch."""

import os

import pytest
import torch
import training_fakes
from tiny_models import scramble
from torch import nn
from training_fakes import fit, noise_config

from lib.losses.heatmap import count_peaks, gaussian_heatmap
from lib.models.layers.drop_path import DropPath, drawn_paths
from lib.train.batch import BatchPlan
from lib.train.distributed import join_world
from lib.train.gradients import GradientAverage
from lib.train.seeds import path_generator

NO_NORM = {"COMPRESS__HEAD_INIT": "teacher_frozen"}
"""A head that does not learn: its BatchNorm stays in evaluation mode, so that no batch statistics are in the way."""

OTHER = {"DATA__SEARCH__SIZE": 96, "STUDENT__DATA__SEARCH__SIZE": 64, "STUDENT__MODEL__BACKBONE__CE_LOC": "[0]",
         "STUDENT__MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7]", "TRAIN__CE_START_EPOCH": 0, "TRAIN__SUP_LOGIT": "true",
         "TRAIN__SUP_FEAT": "true", "TRAIN__SUP_REPLACE": "true"}
"""A student of another resolution that eliminates candidates."""


STILL = {"TRAIN__FIX_BN": "true"}
"""Two processes have the statistics of two batches (PyTorch's SyncBatchNorm, which makes them one, needs GPUs)."""


def arbitrary(name):
    """What no loss depends on: biases before a BatchNorm (and the mean that takes them away again), and the keys' bias.

    Their gradient is what rounding leaves of zero, which AdamW makes a full step of.
    """
    norms = name.startswith("box_head.conv") and name.endswith((".0.bias", ".1.running_mean"))
    return norms or name.endswith("attn.qkv.bias")


def assert_same_training(cfg, alone, parts):
    """The mean of the parts' losses is the loss of the whole in every step, and the results are the same model."""
    (weights, losses), (other, *_), shares = alone, parts[0], [losses for _, losses in parts]
    per_step = len(shares[0]) // len(losses)
    means = [sum(share[step * per_step + number] for share in shares for number in range(per_step))
             / (per_step * len(shares)) for step in range(len(losses))]
    assert means == pytest.approx(losses, rel=1e-5)
    assert abs(shares[0][0] - losses[0]) > 1e-3                                 # each part has pairs of its own
    assert max(abs(loss - losses[0]) for loss in losses) > 1e-2                 # and the steps matter
    for name, value in weights.items():
        if not arbitrary(name):
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("kind, more", [("ostrack", {}), ("ce", {"MODEL__BACKBONE__CE_LOC": "[1]",
                                                                 "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7]",
                                                                 "TRAIN__CE_START_EPOCH": 0}),
                                        ("compresstracker", {}),
                                        ("compresstracker", NO_NORM | {"TRAIN__ACCUMULATE": 2}),
                                        ("compresstracker", OTHER | {"TRAIN__ACCUMULATE": 2})])
def test_two_processes_train_as_one(kind, more, monkeypatch, tmp_path, twice):
    cfg = noise_config(kind, **STILL | more)
    parts = twice(lambda: fit(monkeypatch, tmp_path / "two", cfg))
    alone = fit(monkeypatch, tmp_path / "one", cfg.with_overrides({"TRAIN.ACCUMULATE": 1}))
    assert_same_training(cfg, alone, parts)


@pytest.mark.parametrize("kind", ["ostrack", "compresstracker"])
def test_fixed_batchnorm_keeps_its_statistics_and_learns(kind, monkeypatch, tmp_path):
    cfg = noise_config(kind, **STILL)
    net = training_fakes.build_scrambled(cfg)
    before = getattr(net, "student", net).state_dict()
    after, _ = fit(monkeypatch, tmp_path, cfg)
    moved = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert "box_head.conv1_ctr.1.running_mean" in after and "box_head.conv1_ctr.1.weight" in moved
    assert not any("running" in name or "num_batches" in name for name in moved)


@pytest.mark.parametrize("passes", [2, 4])
def test_passes_train_as_the_whole_batch(passes, monkeypatch, tmp_path):
    cfg = noise_config(**NO_NORM)
    parts = fit(monkeypatch, tmp_path / "parts", cfg.with_overrides({"TRAIN.ACCUMULATE": passes}))
    assert_same_training(cfg, fit(monkeypatch, tmp_path / "whole", cfg), [parts])


# ---------------------------------------------------------------- the parts

def test_rows_of_the_parts_make_up_the_batch():
    plan = BatchPlan(24, processes=2, accumulate=3)
    assert plan.size == 4
    parts = [list(range(24))[plan.rows(rank, number)] for number in range(3) for rank in range(2)]
    assert parts[3] == [9, 11, 13, 15] and sorted(sum(parts, [])) == list(range(24))
    assert [plan.unit(rank, number) for number in range(3) for rank in range(2)] == list(range(6))
    assert list(plan.samples(1, 2)) == list(range(49, 72, 2))
    assert (plan.steps(7), plan.steps(2)) == (2, 0)
    assert sum(parts[1::2], []) == [index - 48 for index in plan.samples(1, 2)]


def test_drop_path_of_a_part_is_that_of_its_rows():
    net = nn.ModuleList([DropPath(0.5), nn.Identity(), DropPath(0.25)])
    plan, x = BatchPlan(8, processes=2, accumulate=2), torch.ones(8, 3, 2)

    def draws(rows, step=0, use="loss"):
        with drawn_paths(net, path_generator(1, 1, step, use), 8, rows, torch.device("cpu")):
            return [net[layer](x[rows]) for layer in (0, 2)]

    whole = draws(slice(None))
    for layer, rate in enumerate((0.5, 0.75)):
        assert set(whole[layer].flatten().tolist()) <= {0.0, torch.tensor(1 / rate).item()}
        assert len(whole[layer].unique()) == 2 and (whole[layer] == whole[layer][:, :1, :1]).all()
    for rank in range(2):
        for number in range(2):
            rows = plan.rows(rank, number)
            assert all(torch.equal(part, all_rows[rows]) for part, all_rows in zip(draws(rows), whole, strict=True))
    assert not torch.equal(whole[0], draws(slice(None), step=1)[0])
    assert not torch.equal(whole[0], draws(slice(None), use="targets")[0])


def test_drop_path_elsewhere_is_timms():
    layer = DropPath(0.5)
    torch.manual_seed(0)
    first = layer(torch.ones(64, 2, 2))
    assert set(first.unique().tolist()) == {0.0, 2.0} and layer.scale is None
    layer.eval()
    with drawn_paths(layer, path_generator(1, 1, 0, "loss"), 4, slice(None), torch.device("cpu")):
        assert torch.equal(layer(torch.ones(4, 2, 2)), torch.ones(4, 2, 2))


def test_drop_path_drops_the_given_share():
    layer = DropPath(0.2)
    with drawn_paths(layer, path_generator(3, 1, 0, "loss"), 4000, slice(None), torch.device("cpu")):
        kept = layer(torch.ones(4000, 1, 1))
    assert (kept == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert kept.mean().item() == pytest.approx(1, abs=0.03)


def test_peaks_are_counted_as_the_heat_map_has_them():
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2], [0.93, 0.1, 0.1, 0.1], [0.9, 0.4, 0.1, 0.3], [-0.3, 0.1, 0.2, 0.2],
                          [-0.12, 0.0, 0.2, 0.1], [float("nan")] * 4])
    for size in (4, 7, 16):
        assert count_peaks(boxes, size) == gaussian_heatmap(boxes, size).eq(1).sum()
    assert count_peaks(boxes, 16) == 3


def test_the_main_processs_weights_count(monkeypatch, tmp_path, twice):
    """A process that starts from other weights (another file on its machine, say) gets those of the main process."""
    def run():
        rank = int(os.environ["RANK"])
        monkeypatch.setattr(training_fakes, "build_scrambled", lambda cfg, frames: scramble(build(cfg), rank))
        return fit(monkeypatch, tmp_path / "two", cfg)

    build, cfg = training_fakes.build_scrambled, noise_config("ostrack", TRAIN__EPOCH=1, **STILL)
    parts = twice(run)
    monkeypatch.setattr(training_fakes, "build_scrambled", lambda cfg, frames: scramble(build(cfg), 0))
    assert_same_training(cfg, fit(monkeypatch, tmp_path / "one", cfg), parts)


def test_tensors_are_shared_in_any_memory_order(twice):
    def run():
        world, _ = join_world("cpu")
        tensors = [torch.full((2, 3, 2, 2), float(world.rank)).to(memory_format=torch.channels_last),
                   torch.tensor(world.rank + 5)]
        world.share_tensors(tensors)
        return tensors

    for wide, number in twice(run):
        assert wide.eq(0).all() and number == 5 and not wide.is_contiguous()


def test_gradients_of_parts_are_averaged_and_idle_ones_stay_away(twice, monkeypatch):
    """Parameter 0 is idle, 1 took part on process 1 only, 2 and 3 on both, 4 on none, which no draw told; each is a
    bucket of its own."""
    monkeypatch.setattr("lib.train.gradients.BUCKET_BYTES", 1)

    def run():
        world, _ = join_world("cpu")
        parameters = [nn.Parameter(torch.full((2, 3), float(number))) for number in range(5)]
        parameters[3].data = torch.ones(2, 3, 2, 2).to(memory_format=torch.channels_last)
        average = GradientAverage(parameters, world)
        used = parameters[1 + (world.rank == 0):4]
        for scale in (1.0, 10.0):                                           # the first is accumulated, not averaged
            loss = sum((parameter * scale * (world.rank + 1)).sum() for parameter in used)
            if scale == 1.0:
                loss.backward()
            else:
                with average.averaging(parameters[:1]):
                    loss.backward()
        return [parameter.grad for parameter in parameters], parameters[3].grad.stride() == parameters[3].stride()

    for gradients, same_order in twice(run):
        assert gradients[0] is gradients[4] is None and same_order
        assert [gradient.unique().tolist() for gradient in gradients[1:4]] == [[11.0], [16.5], [16.5]]
