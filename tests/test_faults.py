"What goes wrong in training, and what a user is told"
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle
from fastai.callback.tracker import TerminateOnNaNCallback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastcore.foundation import L
from PIL import Image
from scipy import special

from fastai_resup.callbacks import EpochCount, PairMetrics, ReSup
from fastai_resup.checkpoint import Checkpoint
from fastai_resup.data import FERDataLoaders,fer_block
from fastai_resup.learner import ReSupLearner, resup_learner
from fastai_resup.losses import ReSupLoss
from fastai_resup.synth import make_faces

class Tiny(nn.Sequential):
    "A network of two parameter groups"
    def __init__(self, n): super().__init__(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, n))

def body_head(m): return L(m[0], m[1]).map(params)

def draw(path, labels, n_valid=8, seed=0):
    "Random 8-pixel images with a colour of their class; a table of them"
    rng,rows = np.random.default_rng(seed),[]
    for i,y in enumerate([*labels, *labels[:n_valid]]):
        im = (rng.integers(0, 80, (8,8,3)) + np.random.default_rng((7,y)).integers(0, 170, 3)).astype(np.uint8)
        Image.fromarray(im).save(f := path/f'{i:04d}.png')
        rows.append(dict(file=f, label=f'c{y:04d}', is_valid=i>=len(labels)))
    return pd.DataFrame(rows)

def make(path, labels, bs=8, vocab=None, noise=0., seed=0, **kwargs):
    "A learner for images with these class ids"
    set_seed(seed)
    return learner(path, FERDataLoaders.from_df(draw(path, labels), valid_col='is_valid', vocab=vocab, img_size=8, bs=bs, noise=noise, seed=seed, **{'num_workers':0, **kwargs}))

def learner(path, dls):
    learn = ReSupLearner(dls, [Tiny(len(dls.vocab)), Tiny(len(dls.vocab))], splitter=body_head, metrics=accuracy, path=path)
    learn.remove_cb(learn.progress); learn.logger = lambda *a: None
    return learn

def healthy(learn): return all(p.isfinite().all() for p in learn.model.parameters()) and np.isfinite([float(o) for o in learn.recorder.losses]).all()

def weighted_batches(learn, n=3):
    "Train with ReSup; was each batch weighted?"
    used = []
    class See(Callback):
        order = 30
        def after_loss(self):
            if self.training: used.append(self.pred.loss_func.weight_function is not None)
    learn.fit(n, 1e-2, cbs=[ReSup(), See()])
    return used

def test_resup_works_without_the_metrics(tmp_path):
    "Who removes `PairMetrics` wants a shorter table, and no other training"
    learn = make(tmp_path, [i%4 for i in range(32)])
    learn.remove_cb(PairMetrics)
    assert weighted_batches(learn)==[False]*4+[True]*8 and learn.model.epochs.tolist()==[0,3]
    assert list(learn.recorder.metric_names)==['epoch','train_loss','valid_loss','accuracy','time']

def test_resup_without_counted_epochs_is_refused(tmp_path):
    "It would warm up for ever; other training goes on, and so does ReSup once the counter is back"
    learn = make(tmp_path, [i%4 for i in range(32)])
    learn.remove_cb(EpochCount)
    with pytest.raises(ValueError, match=r'ReSup needs the epochs counted.*learn.add_cb\(EpochCount\(\)\)'): learn.fit(1, cbs=ReSup())
    learn.fit(1)
    learn.add_cb(EpochCount())
    assert weighted_batches(learn)==[False]*4+[True]*8

def test_learners_that_can_not_train_a_pair_are_refused_before_the_first_batch(tmp_path):
    "A plain Learner of a pair, one network, another loss, a loss that was exchanged"
    learn = make(tmp_path, [i%4 for i in range(32)])
    bare = Learner(learn.dls, learn.model, ReSupLoss(), splitter=learn.splitter)
    one = Learner(learn.dls, learn.model.nets[0], CrossEntropyLossFlat())
    other = ReSupLearner(learn.dls, learn.model, CrossEntropyLossFlat())
    learn.loss_func = CrossEntropyLossFlat()
    batches = []
    class See(Callback):
        def before_batch(self): batches.append(self.training)
    for o,what in ((bare, 'needs a `ReSupLearner`.*this is a Learner: make it by'), (one, 'needs two networks: make the learner by'),
                   (other, 'has CrossEntropyLossFlat: leave `loss_func` out'), (learn, 'has CrossEntropyLossFlat: leave `loss_func` out')):
        with o.no_bar(), pytest.raises(TypeError, match=f'ReSup {what}' if o is not other and o is not learn else what): o.fit(1, cbs=[ReSup(), See()])
    assert not batches

class Poison(Callback):
    "Makes the loss NaN from the third epoch on"
    order = -5
    def before_batch(self):
        if self.training and self.epoch>=2: self.learn.xb = tuple(x*float('nan') for x in self.xb)

def test_nan_loss_says_what_to_do_and_keeps_the_mixture(tmp_path):
    learn = make(tmp_path, [i%4 for i in range(32)])
    learn.fit(2, 1e-2, cbs=ReSup())
    before = learn.model.lookup.clone()
    with pytest.warns(UserWarning, match='not finite.*learning rate'): learn.fit(3, 1e-2, cbs=[ReSup(), Poison()])
    assert learn.model.has_mixture and not healthy(learn)

def test_nan_loss_stopped_by_fastais_own_callback(tmp_path):
    "TerminateOnNaNCallback ends the fit, and the last checkpoint is one without NaN"
    learn = make(tmp_path, [i%4 for i in range(32)])
    learn.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a'), Poison(), TerminateOnNaNCallback()])
    assert len(learn.recorder.values)==2 and sorted(o.name for o in (tmp_path/'a').iterdir())==['fit0-epoch0000.pt','fit0-epoch0001.pt']
    other = make(tmp_path, [i%4 for i in range(32)])
    other.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True)])
    assert healthy(other) and len(other.recorder.values)==4

def test_a_batch_with_one_image(tmp_path):
    "33 training images in batches of 32 with the last one kept, and one validation image"
    learn = make(tmp_path, [i%4 for i in range(33)], bs=32)
    learn.dls.train = learn.dls.train.new(drop_last=False)
    assert len(learn.dls.train)==2
    learn.fit(3, 1e-2, cbs=ReSup())
    assert healthy(learn) and learn.similarities.isfinite().all() and len(learn.refits)==3

def test_a_batch_of_one_image_that_can_not_be_trained_on_is_found_at_once(tmp_path):
    "fastai's heads normalise over the batch"
    learn = make(tmp_path, [i%4 for i in range(33)], bs=32)
    for net in learn.model.nets: net[1] = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 4))
    learn.fit(1, 1e-2, cbs=ReSup())                        # it is dropped by default
    batches = []
    class See(Callback):
        def before_batch(self): batches.append(self.training)
    for kw,what in ((dict(drop_last=False), '33 training images in batches of 32'), (dict(bs=1), 'batches of 1 ')):
        learn.dls.train = learn.dls.train.new(**kw)
        with pytest.raises(ValueError, match=f'{what}.*another batch size, or drop_last=True'): learn.fit(1, 1e-2, cbs=[ReSup(), See()])
    assert not batches and learn.get_preds(ds_idx=0)[0].shape==(33,4)              # predicting is another matter

@pytest.mark.parametrize('refit', ['record','pass'])
def test_batches_of_one_class(tmp_path, refit):
    "Unshuffled and sorted by class: each batch lacks three of the four classes"
    learn = make(tmp_path, sorted(i%4 for i in range(32)))
    learn.dls.train.shuffle = False
    ys = []
    class See(Callback):
        def after_batch(self):
            if self.training: ys.append(set(self.y.tolist()))
    learn.fit(3, 1e-2, cbs=[ReSup(refit=refit), See()])
    assert {len(o) for o in ys}=={1} and healthy(learn) and learn.model.has_mixture

def test_all_labels_of_one_class(tmp_path):
    "Four classes are known, and every label is the first"
    learn = make(tmp_path, [0]*32, vocab=[f'c{i:04d}' for i in range(4)])
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='(?!The mixture could not)', category=RuntimeWarning)
        warnings.filterwarnings('ignore', message='The mixture could not be refitted')
        learn.fit(4, 1e-2, cbs=ReSup())
    assert healthy(learn) and learn.get_preds()[0].argmax(1).eq(0).all()

@pytest.mark.parametrize('n', [2, 1000])
def test_few_and_many_classes(tmp_path, n):
    labels = [i%n for i in range(32)]
    learn = make(tmp_path, labels, vocab=[f'c{i:04d}' for i in range(n)])
    learn.fit(3, 1e-2, cbs=ReSup())
    assert healthy(learn) and learn.get_preds()[0].shape==(8,n) and learn.model.has_mixture
    if n==2: assert ((learn.similarities>=0)&(learn.similarities<=1)|learn.similarities.isnan()).all()

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_corrupt_image_in_the_middle_of_an_epoch_is_named(tmp_path, num_workers):
    learn = make(tmp_path, [i%4 for i in range(32)], num_workers=num_workers)
    learn.fit(1, 1e-2, cbs=ReSup())
    f,before,good = tmp_path/'0013.png',len(learn.refits),(tmp_path/'0013.png').read_bytes()
    f.write_bytes(good[:60])
    with pytest.raises(Exception, match='0013.png.*Replace or remove it'): learn.fit(1, 1e-2, cbs=ReSup())
    assert len(learn.refits)==before
    f.write_bytes(good)
    learn.fit(1, 1e-2, cbs=ReSup())                        # and the same learner goes on
    assert len(learn.refits)==before+1 and healthy(learn)

class KillWorker(Callback):
    "Kills a worker process of the DataLoader in the second batch"
    def before_batch(self):
        if self.training and self.iter==1: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

def lose_a_worker(path):
    "Run in a process of its own, as PyTorch raises from a signal handler: prints what a user sees, and how the next fit ends"
    learn = make(path, [i%4 for i in range(64)], bs=4, num_workers=2)
    try:
        try: learn.fit(1, 1e-2, cbs=[ReSup(), KillWorker(), Checkpoint('a')])
        finally: time.sleep(1)                                        # a lost connection and the signal of the worker's death: which comes first is PyTorch's affair, and so is a second error
    except Exception as e: print(type(e).__name__, e, flush=True)
    gc.collect()
    learn.fit(1, 1e-2, cbs=[ReSup(), Checkpoint('a')])     # the folder has no checkpoint yet
    print('then', healthy(learn), len(learn.refits))

def test_a_killed_worker_ends_the_fit_with_an_error(tmp_path):
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', f'import test_faults, pathlib; test_faults.lose_a_worker(pathlib.Path({str(tmp_path)!r}))'], cwd=Path(__file__).parent,
                       capture_output=True, text=True, timeout=300)
    said,_,last = p.stdout.rpartition('then ') # the signal may fall into any event of any callback, whose name fastai puts first
    assert said.startswith('RuntimeError') and 'DataLoader worker' in said or 'Connection reset' in said or said.startswith('EOFError'), (said, p.stderr)
    assert last=='True 1\n', p.stderr

def test_an_interrupt_then_a_checkpointed_run_in_the_same_notebook(tmp_path):
    class Stop(Callback):
        def before_backward(self):
            if self.epoch==2: raise KeyboardInterrupt
    learn = make(tmp_path, [i%4 for i in range(32)])
    with pytest.raises(KeyboardInterrupt): learn.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a'), Stop()])
    learn.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True)])    # the same learner
    whole = make(tmp_path, [i%4 for i in range(32)])
    whole.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('b')])
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a,b in zip(learn.model.state_dict().values(), whole.model.state_dict().values()))

@pytest.mark.parametrize('noise', [0., 0.9])
def test_no_noise_and_very_much(tmp_path, noise):
    learn = make(tmp_path, [i%4 for i in range(64)], bs=16, noise=noise)
    assert learn.dls.true_targs is None if noise==0 else (learn.dls.train_targs!=learn.dls.true_targs).float().mean().item()==pytest.approx(noise, abs=0.01)
    learn.fit(5, 1e-2, cbs=ReSup())
    assert healthy(learn) and 0<=learn.refits[-1]['noise_rate']<=1
    if noise==0: assert np.isnan(learn.refits[-1]['auroc'])           # nothing to tell apart, and no number made up

def test_one_class_alone(tmp_path):
    "Nothing to tell apart, which the data say at once; `DataLoaders` made in another way train, with weights of 1, and say why"
    with pytest.raises(ValueError, match="all labels are 'c0000'"): make(tmp_path, [0]*32)
    learn = learner(tmp_path, FERDataLoaders.from_dblock(fer_block(['c0000'], img_size=8), draw(tmp_path, [0]*32), bs=8, num_workers=0))
    with pytest.warns(UserWarning, match='all weights stay 1.*too few distinct values'): learn.fit(2, 1e-2, cbs=ReSup())
    assert healthy(learn) and not learn.model.has_mixture and learn.refits[-1]['note']

def test_only_a_frozen_epoch(tmp_path):
    "Weights stay 1 in it, bodies do not move, the mixture is fitted all the same, and it counts as no warm-up for what follows"
    learn = make(tmp_path, [i%4 for i in range(64)], bs=16, noise=0.3)
    learn.freeze()
    body,used = learn.model.nets[0][0][0].weight.clone(),[]
    class See(Callback):
        order = 30
        def after_loss(self):
            if self.training: used.append(self.pred.loss_func.weight_function is not None)
    learn.fit(1, 1e-2, cbs=[ReSup(), See()])
    assert torch.equal(body, learn.model.nets[0][0][0].weight) and learn.model.has_mixture and len(learn.refits)==1 and not any(used)
    learn.unfreeze()
    learn.fit(2, 1e-2, cbs=[ReSup(), See()])
    assert not any(used[4:8]) and all(used[8:]) and len(used)==12 and healthy(learn)

def test_an_interrupt_in_the_middle_of_an_epoch_then_more_epochs(tmp_path):
    "The half epoch counts for nothing, and ReSup goes on with the mixture it had"
    class Stop(Callback):
        def before_backward(self):
            if (self.epoch,self.iter)==(1,2): raise KeyboardInterrupt
    learn = make(tmp_path, [i%4 for i in range(32)])
    with pytest.raises(KeyboardInterrupt): learn.fit(3, 1e-2, cbs=[ReSup(history=True), Stop()])
    before = learn.model.lookup.clone()
    assert len(learn.refits)==1 and learn.model.epochs.tolist()==[0,1]
    used = []
    class See(Callback):
        order = 30
        def after_loss(self):
            if self.training: used.append(self.pred.loss_func.weight_function.keywords['lookup'])
    learn.fit(1, 1e-2, cbs=[ReSup(history=True), See()])
    assert len(used)==4 and torch.equal(used[0], before.clamp(1e-4, 1-1e-4)) and len(learn.refits)==len(learn.p_clean_history)==2 and healthy(learn)

def test_components_that_would_become_one_are_kept_apart(tmp_path):
    learn = make(tmp_path, [i%4 for i in range(64)], bs=16)
    learn.fit(2, 1e-2, cbs=ReSup())
    before,rng,cb = learn.model.lookup.clone(),np.random.default_rng(0),ReSup()
    sims = torch.tensor(special.expit(rng.choice([-2, 2], (2, 4000), p=[0.3, 0.7]) + rng.normal(0, 8**0.5, (2, 4000)))).float()  # heaps without a dip
    cb.learn = learn
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cb.fit_mixtures(sims, torch.zeros(4000, dtype=torch.long))
    assert not learn.record.table().note.iloc[-1] and not torch.equal(before, learn.model.lookup)
    assert all(m.n_iter_<100 and np.ptp(m.means_)>0.5 for m in learn.mixtures)

def test_real_networks_have_a_mixture_after_each_epoch(tmp_path):
    "Pretrained ones on drawn faces: the frozen epoch, which knows least, and those after it"
    faces = make_faces(tmp_path/'faces', n_train=210, n_valid=7, size=32, progress=False)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, noise=0.3, seed=0, num_workers=0, cache=True)
    set_seed(0)
    learn = resup_learner(dls, 'tf_efficientnet_lite0', weights='lite0')
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 4e-3, freeze_epochs=1, cbs=ReSup())
    assert len(learn.refits)==2 and not any(o['note'] for o in learn.refits)
    for m in learn.mixtures: assert np.ptp(m.predict_proba(learn.similarities[0].nan_to_num().numpy())[:,1]) > 0.5

def test_a_mixture_that_collapses_keeps_the_one_before(tmp_path):
    learn = make(tmp_path, [i%4 for i in range(32)])
    learn.fit(2, 1e-2, cbs=ReSup())
    before,fitted = learn.model.lookup.clone(),learn.mixtures
    with torch.no_grad():
        for net in learn.model.nets: net[1].weight.zero_(); net[1].bias.zero_()
    with pytest.warns(UserWarning, match='the previous one stays.*collapsed'): learn.fit(1, 0., cbs=ReSup(refit='pass'))
    assert torch.equal(before, learn.model.lookup) and learn.mixtures[0] is fitted[0] and 'collapsed' in learn.record.table().note.iloc[-1]
