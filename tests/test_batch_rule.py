"""How a step's pairs are divided, the learning rate that follows, and what the log and the errors say of it."""

import pytest
import torch
from training_fakes import STEPS, TinyActor, TinyLoader, TinyNet, tiny_config

import lib.train.learner as learner
import lib.train.run as run
from lib.config import list_configs, load_config
from lib.train.batch import BatchPlan, plan_batch, rate_factor
from lib.train.run import check_inputs, describe_memory
from lib.train.schedule import build_optimizer
from lib.train.trainer import Trainer
from lib.utils.errors import UserError

STUDENT = "compresstracker_vitb_256_4"


def config(**overrides):
    return load_config("compresstracker", STUDENT, [f"{name.replace('__', '.')}={value}"
                                                    for name, value in overrides.items()])


@pytest.mark.parametrize("processes, accumulate, size", [(8, 1, 16), (1, 1, 128), (1, 8, 16), (4, 2, 16), (16, 8, 1)])
def test_each_process_gets_its_share_of_the_papers_batch(processes, accumulate, size):
    plan = plan_batch(config(TRAIN__ACCUMULATE=accumulate), processes)
    assert (plan.total, plan.size, plan.units) == (128, size, processes * accumulate)


def test_without_a_total_the_official_meaning_counts():
    overrides = {"TRAIN__TOTAL_BATCH": 0, "TRAIN__BATCH_SIZE": 32}
    assert plan_batch(config(**overrides), 8) == BatchPlan(256, 8, 1)
    assert plan_batch(config(**overrides, TRAIN__ACCUMULATE=2), 4) == BatchPlan(256, 4, 2)


SMALL = {"quickstart_4": 16, "quickstart_teacher": 16, "compresstracker_real": 16, "compresstracker_real_192": 16,
         "real_teacher": 128, "compresstracker_real_vits_4": 64}
"""Of the quickstart, and for real video."""
MIXFORMERS_OWN = ("mixformerv2_b_8", "mixformerv2_b_fade")
"""Of the official recipe: 8 times 32."""


@pytest.mark.parametrize("script, total", [("compresstracker", 128), ("ostrack", 128)])
def test_the_configurations_state_their_total(script, total):
    for name in list_configs(script):
        small = SMALL.get(name)
        if small:
            assert plan_batch(load_config(script, name)).total == small
        else:
            twice = name.endswith("released") or name in MIXFORMERS_OWN
            assert load_config(script, name).TRAIN.TOTAL_BATCH == total * (2 if twice else 1)


@pytest.mark.parametrize("total, processes, accumulate, choices", [
    (128, 3, 1, ["TRAIN.TOTAL_BATCH 126 or 129", "2 or 4 processes"]),
    (128, 4, 3, ["TRAIN.TOTAL_BATCH 120 or 132", "TRAIN.ACCUMULATE 2 or 4"]),
    (100, 8, 5, ["TRAIN.TOTAL_BATCH 80 or 120", "5 or 10 processes"]),
    (2, 4, 1, ["TRAIN.TOTAL_BATCH 4", "2 processes"])])
def test_a_batch_that_cannot_be_divided_names_the_nearest_that_can(total, processes, accumulate, choices):
    cfg = config(TRAIN__TOTAL_BATCH=total, TRAIN__ACCUMULATE=accumulate)
    with pytest.raises(UserError, match=rf"_BATCH {total} .* {processes} process.*ACCUMULATE {accumulate}") as error:
        plan_batch(cfg, processes)
    text = str(error.value).split("choose ")[1]
    assert text.split(", or ") == choices
    with pytest.raises(UserError, match="cannot be divided"):
        check_inputs(cfg, processes)


def test_an_epoch_of_less_than_a_batch_is_refused():
    with pytest.raises(UserError, match=r"SAMPLE_PER_EPOCH \(100\) is less than one batch of 128.*lower TRAIN.TOTAL_B"):
        plan_batch(config(DATA__TRAIN__SAMPLE_PER_EPOCH=100))
    with pytest.raises(UserError, match=r"one batch of 128 pairs.*lower TRAIN.BATCH_SIZE"):
        plan_batch(config(DATA__TRAIN__SAMPLE_PER_EPOCH=100, TRAIN__TOTAL_BATCH=0, TRAIN__BATCH_SIZE=32), 4)


@pytest.mark.parametrize("rule, factor", [("fixed", 1), ("linear", 4), ("sqrt", 2)])
def test_the_learning_rate_follows_the_rule(rule, factor):
    cfg = config(TRAIN__LR_RULE=rule, TRAIN__LR_BATCH=32)
    assert rate_factor(cfg, 128) == factor
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.01)]
    optimizer = build_optimizer(cfg, groups, rate_factor(cfg, 128))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor, 0.01 * factor])


# ---------------------------------------------------------------- in a run

@pytest.fixture
def train(monkeypatch, tmp_path):
    """`train(**overrides)`: run the tiny training; gives its actor and its log."""
    def go(**overrides):
        actors = []

        def actor(cfg, net):
            actors.append(TinyActor(net))
            return actors[0]

        cfg = tiny_config(tmp_path, **({"TRAIN__EPOCH": 1} | overrides))
        monkeypatch.setattr(run, "build_for_train", lambda cfg, frames: TinyNet())
        monkeypatch.setattr(learner, "build_actor", actor)
        monkeypatch.setattr(run, "save_slim", lambda path, model, cfg, extra: None)
        monkeypatch.setattr(run, "build_loader", lambda cfg, split, *, seed, rank, world_size, batch_size, **rest:
                            TinyLoader(seed, rank, world_size, batch_size,
                                       parts=cfg.TRAIN.ACCUMULATE if split == "train" else 1))
        run.run_training(cfg, tmp_path / "run", log_to_console=False)
        return actors[0], (tmp_path / "run" / "logs" / "compresstracker-tiny.log").read_text()
    return go


def test_passes_share_one_draw_and_the_log_says_the_plan(train):
    actor, log = train(TRAIN__TOTAL_BATCH=12, TRAIN__ACCUMULATE=3, TRAIN__LR_RULE="linear", TRAIN__LR_BATCH=6)
    assert len(actor.patterns) == 3 * STEPS
    assert all(len({tuple(pattern) for _, pattern in actor.patterns[step:step + 3]}) == 1
               for step in range(0, 3 * STEPS, 3))
    assert f"1 epochs of {STEPS} steps, 12 pairs per step (1 process x 3 passes x 4 pairs), learning rate 0.02 " in log
    assert "(linear rule: x 2 for 12 pairs instead of 6)" in log and f"{STEPS}/{STEPS}] " in log and "GradNorm" in log


def test_each_pass_draws_with_draws_per_process(train):
    actor, log = train(TRAIN__TOTAL_BATCH=12, TRAIN__ACCUMULATE=3, COMPRESS__DRAWS="process")
    steps = [actor.patterns[step:step + 3] for step in range(0, 3 * STEPS, 3)]
    assert any(passes[0] != passes[1] or passes[1] != passes[2] for passes in steps)
    assert "learning rate 0.01 (fixed, whatever the batch)" in log


def test_out_of_memory_says_what_to_lower(train, monkeypatch):
    def fail(self, position):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(UserError, match=r"out of memory on cpu with 4 pairs per pass and process, 12 pairs per step "
                                        r"\(1 process x 3 passes x 4 pairs\)"):
        train(TRAIN__TOTAL_BATCH=12, TRAIN__ACCUMULATE=3)


@pytest.mark.parametrize("overrides, words", [
    ({}, ["TRAIN.AMP=true or TRAIN.CHECKPOINT_ACTIVATIONS=true or TRAIN.ACCUMULATE=2.", "lower TRAIN.TOTAL_BATCH"]),
    ({"TRAIN__TOTAL_BATCH": 0, "TRAIN__BATCH_SIZE": 15, "TRAIN__AMP": "true", "TRAIN__CHECKPOINT_ACTIVATIONS": "true"},
     ["--set TRAIN.BATCH_SIZE=5 with TRAIN.ACCUMULATE=3.", "lower TRAIN.BATCH_SIZE"])])
def test_what_to_lower_keeps_the_total(overrides, words):
    cfg = config(**overrides)
    text = describe_memory(cfg, plan_batch(cfg, 4), torch.device("cuda:1"))
    assert "cuda:1" in text and all(word in text for word in words), text
