"""The training loop, its schedule, its state and its way to stop, on a tiny network."""

import logging
import math
import os
import signal
import threading

import pytest
import torch
from tiny_models import same
from training_fakes import BATCH, STEPS, TinyLoader, tiny_training

from lib.train.admin.stats import StatSums, format_duration, format_stats, means
from lib.train.distributed import World, join_world
from lib.train.schedule import LearningRate
from lib.train.seeds import derive_seed, draw_generator, seed_step
from lib.train.state import newest_state
from lib.utils.errors import UserError
from lib.utils.signals import StopRequest, TrainingInterrupted


@pytest.fixture
def train(monkeypatch, tmp_path):
    return tiny_training(monkeypatch, tmp_path)


def interrupt_at(epoch, step, signum=signal.SIGINT):
    def on_step(actor, now, batch):
        if (now, batch["step"]) == (epoch, step):
            os.kill(os.getpid(), signum)
    return on_step


def test_outputs_and_learning(train):
    train()
    assert sorted(path.name for path in train.folder().iterdir()) == [
        "CompressTracker_ep0002.pth.tar", "CompressTracker_ep0004.pth.tar", "config.yaml", "state_ep0003.pth",
        "state_ep0004.pth"]
    log = train.log()
    first, last = (float(line.split("Loss/total ")[1]) for line in log.splitlines() if "[val: " in line)
    assert last < first
    for word in ("pairs/s", "left", "lr 0.01", "p 0.500", "IoU", "[val: 2/4", "[val: 4/4", "finished:"):
        assert word in log, word
    assert list((train.folder().parents[3] / "tensorboard").rglob("events.out.tfevents*"))


def test_same_seed_same_run_and_other_seed_other_run(train):
    first, actor = train("a")
    second, again = train("b")
    third, _ = train("c", TRAIN__SEED=7)
    assert same(first, second) and actor.patterns == again.patterns
    assert not same(first, third)


def test_global_generator_and_handlers_are_given_back(train):
    torch.manual_seed(3)
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    handlers = list(logging.getLogger("lib").handlers)
    train()
    assert torch.equal(before, torch.get_rng_state())
    assert signal.getsignal(signal.SIGINT) is handler
    assert logging.getLogger("lib").handlers == handlers


@pytest.mark.parametrize("epoch, step, signum", [(1, 0, signal.SIGINT), (2, STEPS - 1, signal.SIGTERM),
                                                 (3, 2, signal.SIGINT), (4, STEPS - 1, signal.SIGINT)])
def test_interrupted_and_resumed_is_bit_identical(train, epoch, step, signum):
    whole, _ = train("whole")
    with pytest.raises(TrainingInterrupted) as stopped:
        train("parts", on_step=interrupt_at(epoch, step, signum))
    assert stopped.value.exit_status == 128 + signum and "the state is saved in" in str(stopped.value)
    _, state = newest_state(train.folder("parts"))
    assert state.epoch * STEPS + state.step == (epoch - 1) * STEPS + step + 1
    resumed, _ = train("parts")
    assert same(whole, resumed)
    averages = [[line.split("Loss/total")[1] for line in train.log(name).splitlines() if f"{STEPS}/{STEPS}]" in line
                 and "train" in line] for name in ("whole", "parts")]
    assert averages[0] == averages[1]


def test_float16_scaler_is_resumed(train):
    amp = {"TRAIN__AMP": "true", "TRAIN__AMP_DTYPE": "float16"}
    whole, _ = train("whole", **amp)
    with pytest.raises(TrainingInterrupted):
        train("parts", on_step=interrupt_at(2, 1), **amp)
    assert newest_state(train.folder("parts"))[1].scaler["_growth_tracker"] > 0
    assert same(whole, train("parts", **amp)[0])


def test_bfloat16_runs_and_differs_from_full_precision(train):
    assert not same(train("amp", TRAIN__AMP="true", TRAIN__AMP_DTYPE="bfloat16")[0], train("full")[0])


def test_a_stage_that_did_not_run_is_left_alone(train):
    """AdamW's decay must not touch parameters without a gradient in the step."""
    seen = []

    def on_step(actor, epoch, batch):
        current = {name: value.detach().clone() for name, value in actor.module.first.named_parameters()}
        seen.append((current, actor.patterns[-1][1][0]))

    train(on_step=on_step, TRAIN__WEIGHT_DECAY=0.5)
    unused = [index for index in range(len(seen) - 1) if not seen[index][1]]
    used = [index for index in range(len(seen) - 1) if seen[index][1]]
    assert unused and used
    assert all(same(seen[index][0], seen[index + 1][0]) for index in unused)
    assert not any(same(seen[index][0], seen[index + 1][0]) for index in used)


def test_stop_request_outside_the_main_thread_installs_nothing():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopRequest() as stop:
            inside.append((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, False)]


def test_step_schedule_is_that_of_the_paper():
    rate = LearningRate("step", epochs=500, drop_epoch=400)
    assert [rate.factor(epoch, 0, 10) for epoch in (1, 400, 401, 500)] == pytest.approx([1, 1, 0.1, 0.1])


def test_schedule_equals_pytorchs():
    for mine, theirs in ((LearningRate("step", epochs=9, drop_epoch=2, gamma=0.3),
                          lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2, 0.3)),
                         (LearningRate("Mstep", epochs=9, milestones=(3, 5), gamma=0.2),
                          lambda opt: torch.optim.lr_scheduler.MultiStepLR(opt, [3, 5], 0.2)),
                         (LearningRate("cosine", epochs=9),
                          lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 9))):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = theirs(optimizer)
        for epoch in range(1, 10):
            assert mine.factor(epoch, 0, 4) == pytest.approx(optimizer.param_groups[0]["lr"]), (mine, epoch)
            optimizer.step()
            scheduler.step()


def test_warm_up_grows_each_step_to_the_full_rate():
    rate = LearningRate("step", epochs=10, drop_epoch=8, warmup=1.5)
    factors = [rate.factor(epoch, step, 4) for epoch in (1, 2) for step in range(4)]
    assert factors == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])
    assert LearningRate("cosine", epochs=3, warmup=1.0).factor(2, 0, 4) == pytest.approx(1.0)


def test_stat_sums():
    sums = StatSums(torch.device("cpu"))
    for step, value in enumerate((1.0, 2.0, math.inf, math.nan)):
        sums.watch(torch.tensor(value), step)
    sums.add({"a": torch.tensor(1.0), "p": 0.5})
    sums.add({"a": torch.tensor(3.0), "p": 0.7, "b": torch.tensor(4.0)})
    sums.watch_gradient(torch.tensor(math.nan), 1)
    totals, bad = sums.take()
    assert bad == 2 and means(totals) == pytest.approx({"a": 2.0, "p": 0.6, "b": 4.0})
    assert sums.empty and sums.take() == ({}, None)
    assert format_stats({"Loss/total": 1.23456, "IoU": 0.7, "p": 0.5}) == "p 0.500, Loss/total 1.235, IoU 0.700"
    assert (format_duration(3723), format_duration(90061)) == ("1:02:03", "1d 1:01:01")


def test_seeds_are_fixed_numbers():
    """They are part of what makes a resumed run the same run, so they may never change by accident."""
    assert derive_seed("step", 42, 1, 0, 0) == 291080718
    assert len({derive_seed("step", 42, epoch, step, rank) for epoch in range(5) for step in range(5)
                for rank in range(5)}) == 125
    one, two = (torch.rand(3, generator=draw_generator(42, 1, 0, rank)) for rank in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(torch.rand(3, generator=draw_generator(42, 1, 0)),
                       torch.rand(3, generator=draw_generator(42, 1, 0)))
    with torch.random.fork_rng(devices=[]):
        seed_step(42, 1, 0, 0)
        first = torch.rand(2)
        seed_step(42, 1, 0, 0)
        assert torch.equal(first, torch.rand(2))


def test_a_world_of_one_needs_nobody():
    world, device = join_world("cpu", {})
    assert world == World() and device.type == "cpu" and world.is_main
    assert world.any(True) and not world.any(False) and world.share("x") == "x"


def test_processes_that_do_not_find_each_other_say_why(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("Gloo connectFullMesh failed with no route\nException raised from ...")

    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    environ = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    with pytest.raises(UserError, match=r"process 1 of 2 .* at 10.0.0.1:29500 \(Gloo connectFullMesh failed with no"):
        join_world("cpu", environ)


def test_a_loader_that_ends_early_is_an_error(train, monkeypatch):
    monkeypatch.setattr(TinyLoader, "__len__", lambda self: STEPS + 1)
    with pytest.raises(UserError, match=f"before its {STEPS + 1} batches"):
        train()


def test_a_data_set_without_pairs_is_found_before_anything_is_written(train, monkeypatch):
    class Nothing:
        def __getitem__(self, key):
            raise UserError("nothing to draw")

    def empty(self, *args, **kwargs):
        built(self, *args, **kwargs)
        self.pairs = Nothing()

    built = TinyLoader.__init__
    monkeypatch.setattr(TinyLoader, "__init__", empty)
    with pytest.raises(UserError, match="nothing to draw"):
        train()
    assert not train.folder().exists()


def test_two_processes_share_gradients_and_draws(train, twice):
    def run_it():
        replicas = []

        def on_step(actor, epoch, batch):
            replicas.append({name: value.detach().clone() for name, value in actor.module.named_parameters()})

        weights, actor = train(on_step=on_step, TRAIN__WEIGHT_DECAY=0.5)
        return weights, actor.patterns, replicas

    (weights, patterns, replicas), (_, other_patterns, other_replicas) = twice(run_it)
    assert patterns == other_patterns
    assert all(same(one, other) for one, other in zip(replicas, other_replicas, strict=True))
    for index, (_, pattern) in enumerate(patterns[:-1]):
        moved = not torch.equal(replicas[index]["first.weight"], replicas[index + 1]["first.weight"])
        assert moved == pattern[0]
    alone, _ = train("alone")
    assert not same(weights, alone)


def test_draws_per_process_differ_between_processes(train, twice):
    """Weights stay the same on both; a stage moves in the steps in which either of them ran it."""
    def run_it():
        replicas = []

        def on_step(actor, epoch, batch):
            replicas.append({name: value.detach().clone() for name, value in actor.module.named_parameters()})

        return train(on_step=on_step, COMPRESS__DRAWS="process", TRAIN__WEIGHT_DECAY=0.5)[1].patterns, replicas

    (one, replicas), (other, other_replicas) = twice(run_it)
    assert len(one) == len(other) and one != other
    assert all(same(mine, theirs) for mine, theirs in zip(replicas, other_replicas, strict=True))
    ran = [first[0] or second[0] for (_, first), (_, second) in zip(one, other, strict=True)]
    moved = [not torch.equal(before["first.weight"], after["first.weight"])
             for before, after in zip(replicas, replicas[1:], strict=False)]
    assert moved == ran[:-1] and not all(ran[:-1]) and any(ran[:-1])


def test_two_processes_stop_together_and_continue_bit_identically(train, twice):
    whole, _ = twice(lambda: train("whole")[0])

    def stopped():
        """Only the second process gets the signal."""
        return train("parts", on_step=interrupt_at(2, 1) if os.environ["RANK"] == "1" else None)

    messages = twice(stopped)
    assert all(message.startswith("TrainingInterrupted: stopped after epoch 1 of 4 and") for message in messages)
    parts, _ = twice(lambda: train("parts")[0])
    assert same(whole, parts)


def test_nan_on_one_process_stops_both_with_the_step(train, twice):
    messages = twice(lambda: train(bad=(2, 3) if os.environ["RANK"] == "1" else None))
    assert all(f"epoch 2, step 4 of {STEPS}" in message for message in messages)
    path = train.folder() / "nan_batch_ep0002_step000004.pt"
    assert all(f"the pairs of process 1 are in {path}" in message for message in messages)
    content = torch.load(path, weights_only=True)
    assert (content["rank"], content["indices"]) == (1, list(range(3 * 2 * BATCH + 1, 4 * 2 * BATCH, 2)))
