"""What a training leaves and where it goes on: states, checkpoints, and what is no number; on a tiny network."""

import logging
import math

import pytest
import torch
from tiny_models import same
from training_fakes import BATCH, STEPS, TinyLoader, tiny_training

import lib.train.run as run
from lib.train.state import list_states, load_state, state_name
from lib.train.trainer import MOST_LEFT_OUT
from lib.utils.errors import UserError


@pytest.fixture
def train(monkeypatch, tmp_path):
    return tiny_training(monkeypatch, tmp_path)


def test_finished_run_returns_at_once(train, caplog):
    weights, actor = train()
    steps = len(actor.patterns)
    again, same_actor = train()
    assert same(weights, again) and len(same_actor.patterns) == steps


def test_longer_run_continues(train):
    train(TRAIN__EPOCH=2)
    _, actor = train(TRAIN__EPOCH=4)
    assert {epoch for epoch, _ in actor.patterns} == {3, 4}
    assert "TRAIN.EPOCH 2 -> 4" in train.log()


def test_final_checkpoint_missing_is_written_from_the_state(train):
    weights, _ = train()
    final = train.folder() / "CompressTracker_ep0004.pth.tar"
    final.unlink()
    again, actor = train()
    assert same(weights, again) and actor.patterns == []


def test_truncated_newest_state_is_skipped_with_a_warning(train, caplog):
    whole, _ = train("whole")
    train(TRAIN__EPOCH=3)
    newest = train.folder() / state_name(3)
    newest.write_bytes(newest.read_bytes()[:-400])
    with caplog.at_level(logging.WARNING):
        weights, actor = train(TRAIN__EPOCH=4)
    assert "state_ep0003.pth" in caplog.text and "truncated" in caplog.text
    assert {epoch for epoch, _ in actor.patterns} == {3, 4}
    assert same(weights, whole)


def test_resume_none_starts_anew_and_keeps_the_old_files_aside(train):
    first, _ = train()
    second, actor = train(resume="none")
    assert same(first, second) and len(actor.patterns) == 4 * STEPS
    assert (train.folder() / "previous_1" / "CompressTracker_ep0004.pth.tar").is_file()


def test_resume_from_a_path_forks_the_run(train):
    train(TRAIN__KEEP_STATES=4)
    _, actor = train(resume=str(train.folder() / state_name(1)), TRAIN__KEEP_STATES=4)
    assert {epoch for epoch, _ in actor.patterns} == {2, 3, 4}
    assert (train.folder() / "previous_1" / state_name(4)).is_file()


def test_resume_from_nonsense_says_what_is_wrong(train, tmp_path):
    with pytest.raises(UserError, match="nowhere.pth"):
        train(resume=str(tmp_path / "nowhere.pth"))
    wrong = tmp_path / "wrong.pth"
    torch.save({"net": {}}, wrong)
    with pytest.raises(UserError, match="not a training state"):
        train(resume=str(wrong))
    assert not train.folder().exists()


def test_state_of_another_model_or_teacher_is_refused(train, monkeypatch):
    train(TRAIN__EPOCH=2)
    path = train.folder() / state_name(2)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "frozen": content["frozen"] + 1}, path)
    with pytest.raises(UserError, match="other frozen weights"):
        train(TRAIN__EPOCH=4)
    content["net"].pop("last.bias")
    torch.save(content, path)
    with pytest.raises(UserError, match=r"does not fit.*last\.bias"):
        train(TRAIN__EPOCH=4)


def test_nan_loss_names_epoch_and_step_and_keeps_the_last_state(train):
    with pytest.raises(UserError, match=f"epoch 2, step 4 of {STEPS}"):
        train(bad=(2, 3))
    assert [path.name for path in list_states(train.folder())] == [state_name(1)]
    assert all(bool(torch.isfinite(value).all()) for value in load_state(train.folder() / state_name(1)).net.values())
    assert "NaN" in train.log()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_batch_of_a_nan_loss_is_kept(train, parts):
    with pytest.raises(UserError, match=r"its pairs are in .*nan_batch_ep0002_step000004\.pt\. Lower TRAIN\.LR"):
        train(bad=(2, 3), TRAIN__ACCUMULATE=parts)
    content = torch.load(train.folder() / "nan_batch_ep0002_step000004.pt", weights_only=True)
    indices = list(range(3 * BATCH * parts, 4 * BATCH * parts))
    assert (content["epoch"], content["step"], content["rank"], content["indices"]) == (2, 4, 0, indices)
    assert same(content["batch"], TinyLoader(42).samples(2, indices))


def test_a_batch_that_cannot_be_kept_hides_nothing(train, monkeypatch):
    def fail(path, content):
        raise UserError(f"cannot write {path}: disk full")

    monkeypatch.setattr(run, "write_tensors", fail)
    with pytest.raises(UserError, match=r"epoch 2, step 4.*could not be saved \(cannot write .*disk full\)"):
        train(bad=(2, 3))


def test_states_within_an_epoch(train):
    """The newest is exact, and neither it nor the epoch's averages depend on how often one is written."""
    whole, _ = train("whole")
    train("often", TRAIN__SAVE_STEP_INTERVAL=2, TRAIN__KEEP_STATES=20)
    names = [state_name(epoch, step) for epoch in range(4) for step in (2, 4)]
    assert {path.name for path in list_states(train.folder("often"))} == {
        *names, *(state_name(epoch) for epoch in range(1, 5))}
    averages = [[line.split("Loss/total")[1] for line in train.log(name).splitlines() if f"{STEPS}/{STEPS}]" in line
                 and "train" in line] for name in ("whole", "often")]
    assert averages[0] == averages[1]
    for name in names[1:8:3]:
        resumed, actor = train(f"from_{name}", resume=str(train.folder("often") / name))
        assert same(whole, resumed) and len(actor.patterns) < 4 * STEPS


def spoilt(epoch, step):
    """From that step on the last layer's gradients are NaN; losses are numbers."""
    def on_step(actor, now, batch):
        if (now, batch["step"]) == (epoch, step):
            actor.module.last.weight.register_hook(lambda gradient: gradient * math.nan)
    return on_step


@pytest.mark.parametrize("epoch, step", [(2, STEPS - 1), (4, STEPS - 1)])
def test_a_nan_gradient_is_found_before_its_weights_are_written(train, epoch, step):
    with pytest.raises(UserError, match=f"its gradient became NaN or infinite in epoch {epoch}, step {step + 1} of"):
        train(on_step=spoilt(epoch, step))
    assert list_states(train.folder())[0].name == state_name(epoch - 1)
    assert not list(train.folder().glob(f"*_ep000{epoch}.pth.tar"))


def test_float16_that_no_scale_is_small_enough_for_ends_the_run(train):
    """A few steps that are left out are how the scale is found; a run of them is a training that stands still."""
    half = {"TRAIN__AMP": True, "TRAIN__AMP_DTYPE": "float16"}
    train("short", on_step=spoilt(1, 0), TRAIN__EPOCH=2, **half)
    with pytest.raises(UserError, match="its gradient became NaN or infinite in epoch"):
        train(on_step=spoilt(1, 0), TRAIN__EPOCH=2 + MOST_LEFT_OUT // STEPS, **half)


def test_states_that_cannot_be_read_do_not_push_out_new_ones(train):
    train()
    for path in list_states(train.folder()):
        path.write_bytes(path.read_bytes()[:100])
    seen = []

    def on_step(actor, epoch, batch):
        seen.append([path.name for path in list_states(train.folder())])

    train(on_step=on_step, TRAIN__EPOCH=6)
    assert [state_name(2), state_name(1)] in seen, "as in a folder of its own"
    assert (train.folder() / "previous_1" / state_name(4)).is_file()


def test_what_is_later_than_a_forks_state_is_set_aside(train, tmp_path):
    """Named by its path or through a link; the states of a run of another folder are all its own."""
    train(TRAIN__KEEP_STATES=4)
    link = tmp_path / "link.pth"
    link.symlink_to(train.folder() / state_name(2))
    train(resume=str(link), TRAIN__KEEP_STATES=4, TRAIN__EPOCH=3)
    aside = {path.name for path in (train.folder() / "previous_1").iterdir()}
    assert aside == {state_name(3), state_name(4), "CompressTracker_ep0004.pth.tar"}
    assert {state_name(1), state_name(2), "CompressTracker_ep0002.pth.tar"} <= {
        path.name for path in train.folder().iterdir()}
    train("elsewhere")
    train("elsewhere", resume=str(train.folder() / state_name(1)))
    assert {"CompressTracker_ep0002.pth.tar", "CompressTracker_ep0004.pth.tar", state_name(4)} <= {
        path.name for path in (train.folder("elsewhere") / "previous_1").iterdir()}


def test_a_nan_loss_is_found_before_a_state_is_written(train):
    with pytest.raises(UserError, match=f"epoch 2, step 4 of {STEPS}"):
        train(bad=(2, 3), TRAIN__SAVE_STEP_INTERVAL=1, TRAIN__PRINT_INTERVAL=50)
    assert list_states(train.folder())[0].name == state_name(1, 3)
