"""Several passes for a step: the memory is that of one, and nothing else tells them from the whole batch."""

import weakref

import pytest
import torch
from tiny_models import tiny_batch
from training_fakes import NoiseLoader, build_scrambled, fit, noise_config

from lib.models.compress import Compressor, Targets
from lib.train.actors import Prepared, build_actor

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


@pytest.mark.parametrize("more", [{}, {"TRAIN__SUP_LOGIT": "false"}, {"TRAIN__CHECKPOINT_ACTIVATIONS": "true"}])
def test_memory_does_not_grow_with_the_passes(monkeypatch, tmp_path, more):
    """Two stages' features, and two crops, of one pass at a time."""
    form = {"COMPRESS__PRED_FORM": "boxes"} | more
    assert [peaks(monkeypatch, tmp_path / str(passes), passes, **form) for passes in (1, 6)] == [(2, 2)] * 2


def test_what_the_counts_need_waits_in_the_hosts_memory(monkeypatch, tmp_path):
    """The peaks of the teacher's heat maps are known after its pass only. (Copies stand for the other memory here.)"""
    places = []

    def to(self, device):
        places.append(device)
        targets, = self.targets
        prediction = targets.prediction.map(torch.clone)
        return Prepared(self.counts, (Targets(prediction, tuple(feature.clone() for feature in targets.features)),))

    monkeypatch.setattr(Prepared, "to", to)
    assert [peaks(monkeypatch, tmp_path / str(passes), passes) for passes in (1, 6)] == [(2, 2)] * 2
    assert len(places) == 2 * 2 * 6, "there and back, in two steps of six passes"


@pytest.mark.parametrize("kind, more, number", [
    ("ostrack", {}, 1), ("compresstracker", {"COMPRESS__PRED_FORM": "boxes"}, 1),
    ("compresstracker", {"TRAIN__SUP_LOGIT": "false"}, 1), ("compresstracker", {}, 2)])
def test_counts_come_from_the_boxes_where_they_can(kind, more, number):
    cfg = noise_config(kind, **more)
    actor, batch = build_actor(cfg, build_scrambled(cfg).train()), tiny_batch(cfg, size=6)
    batch["search_box"][:2, :2] = 1.2
    counts, prepared = actor.counts(batch, 1), actor.prepare(batch, 1)
    assert len(prepared.counts) == number and prepared.counts[0] == 4
    assert counts is None if number == 2 else torch.equal(counts, prepared.counts)
    assert prepared.to(torch.device("cpu")) is prepared
