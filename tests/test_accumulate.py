"""Several passes for a step: the memory is that of one, and nothing else tells them from the whole batch."""

import weakref

import pytest
import torch
from tiny_models import copies, same, tiny_batch
from training_fakes import NoiseLoader, build_scrambled, fit, noise_config

from lib.models.compress import Compressor
from lib.train.actors import build_actor

NO_NORM = {"COMPRESS__HEAD_INIT": "teacher_frozen"}


class Watch:
    """The largest number of the tensors seen so far that were alive at the same time."""

    def __init__(self):
        self.seen, self.most = [], 0

    def add(self, tensors):
        self.seen += [weakref.ref(tensor) for tensor in tensors]
        self.most = max(self.most, sum(one() is not None for one in self.seen))


def peaks(monkeypatch, folder, passes, **more):
    """Most of the teacher's tensors and of the crops on the device that a training with so many passes holds."""
    targets, crops = Watch(), Watch()
    make, move = Compressor.targets, NoiseLoader.to_device

    def made(self, *inputs, **options):
        found = make(self, *inputs, **options)
        targets.add([*found.features, *(tokens.x for tokens in found.chain)])
        return found

    def moved(self, batch, device):
        ready = {name: value.clone() for name, value in move(self, batch, device).items()}
        crops.add([ready["template"], ready["search"]])
        return ready

    with monkeypatch.context() as patch:
        patch.setattr(Compressor, "targets", made)
        patch.setattr(NoiseLoader, "to_device", moved)
        total = 2 * passes
        fit(patch, folder, noise_config(TRAIN__TOTAL_BATCH=total, DATA__TRAIN__SAMPLE_PER_EPOCH=2 * total,
                                        TRAIN__ACCUMULATE=passes, TRAIN__EPOCH=1, **NO_NORM, **more))
    return targets.most, crops.most


@pytest.mark.parametrize("more", [{}, {"COMPRESS__PRED_FORM": "boxes"}, {"TRAIN__CHECKPOINT_ACTIVATIONS": "true"}])
def test_memory_does_not_grow_with_the_passes(monkeypatch, tmp_path, more):
    """Two stages' features, and two crops, of one pass at a time."""
    one, many = (peaks(monkeypatch, tmp_path / str(passes), passes, **(more | {
        "TRAIN__SUP_LOGIT": "true", "TRAIN__SUP_FEAT": "true"})) for passes in (1, 6))
    assert one == many == (2, 2)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("form", ["full", "boxes"])
def test_counting_is_preparing_without_a_trace(mode, form):
    """Also of a teacher whose batch statistics move."""
    cfg = noise_config(COMPRESS__TEACHER_MODE=mode, COMPRESS__PRED_FORM=form, TRAIN__DROP_PATH_RATE=0)
    net = build_scrambled(cfg).train()
    actor, before = build_actor(cfg, net), copies(net)
    batch = tiny_batch(cfg, size=6)
    batch["search_box"][:2, :2] = 1.2
    counts = actor.counts(batch, 1)
    assert same(copies(net), before)
    assert torch.equal(actor.prepare(batch, 1).counts, counts) and len(counts) == (2 if form == "full" else 1)
    assert counts[0] == 4 and same(copies(net), before) == (mode == "eval")
