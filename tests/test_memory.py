"A long run holds no more than a short one: live tensors and Python's memory by epoch"
import gc
import tracemalloc
import warnings

import pytest
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastcore.foundation import L

from fastai_resup.callbacks import ReSup
from fastai_resup.checkpoint import Checkpoint
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner
from fastai_resup.synth import make_faces

def net(): return nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()), nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 7)))
def halves(m): return L(m[0], m[1]).map(lambda o: list(o.parameters()))

class Measure(Callback):
    "Live tensors beside the losses that fastai records, and kB of Python and NumPy, after the 15th epoch and the last"
    order = Checkpoint.order+1
    def __init__(self): self.tensors,self.kb = [],[]
    def after_epoch(self):
        if self.epoch not in (14, self.n_epoch-1): return
        gc.collect()
        self.tensors.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()) - len(self.recorder.losses))
        self.kb.append(tracemalloc.get_traced_memory()[0]/1024)

class Leak(Callback):
    "What the test is to find: a tensor kept in each batch"
    def __init__(self): self.kept = []
    def after_batch(self):
        if self.training: self.kept.append(self.xb[0][:1].clone())

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=42, n_valid=14, size=16, progress=False)

def measured(faces, path, *cbs, epochs=40):
    "The measures of a run; three batches an epoch"
    set_seed(0)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=16, bs=14, noise=0.3, seed=0, num_workers=0, cache=True)
    learn,m = ReSupLearner(dls, [net(), net()], splitter=halves, metrics=accuracy, path=path),Measure()
    tracemalloc.start()
    try:
        with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            learn.fit(epochs, 1e-2, cbs=[ReSup(history=10), Checkpoint('a'), m, *cbs])
    finally: tracemalloc.stop()
    assert len(learn.p_clean_history)==min(10, epochs) and learn.record.means.n==epochs
    return m

def test_memory_does_not_grow(faces, tmp_path):
    "From the 15th epoch, when the history is full, to the 40th"
    m = measured(faces, tmp_path)
    assert m.tensors[-1]==m.tensors[0] and m.kb[-1]-m.kb[0]<25*5   # 5 kB an epoch: the progress table, the record, three losses

def test_a_leak_would_be_found(faces, tmp_path):
    "One tensor in each batch"
    m = measured(faces, tmp_path, Leak(), epochs=20)
    assert m.tensors[-1]-m.tensors[0]==5*3
