"Soft FERPlus labels from the files to the gradient: plain, ReSup, MixUp, audit, export, on real images."
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import CrossEntropyLossFlat,Learner,MixUp,accuracy,load_learner,set_seed
from torch import nn

from fastai_resup.audit import LabelAudit,label_table
from fastai_resup.callbacks import ReSup
from fastai_resup.data import FERDataLoaders,Labelled,SoftCategory
from fastai_resup.learner import ReSupLearner
from fastai_resup.losses import Pair,ReSupLoss,WeightedLoss,hard_targs,soft_accuracy
from fastai_resup.models import PairedModel
from fastai_resup.passes import ordered_pass

@pytest.fixture(scope='module')
def few(ferplus_root, tmp_path_factory):
    "The first 150 training images of FERPlus with their votes, and 60 of validation without a vote for disgust, fear or contempt"
    dest = tmp_path_factory.mktemp('few')
    for d,n in (('FER2013Train',150),('FER2013Valid',60)):
        (dest/d).mkdir()
        rows = [r for r in (ferplus_root/d/'label.csv').read_text().split('\n') if d!='FER2013Valid' or r.split(',')[-5:-2]==['0','0','0']][:n]
        (dest/d/'label.csv').write_text('\n'.join(rows))
        for r in rows: shutil.copy(ferplus_root/d/r.split(',')[0], dest/d)
    return dest

def soft_dls(few, **kw): return FERDataLoaders.from_ferplus(few, rule='probability', **{**dict(bs=16, img_size=24, num_workers=0, cache=True), **kw})
def net(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 8))

@pytest.fixture
def learn(few):
    set_seed(0)
    learn = ReSupLearner(soft_dls(few), PairedModel(net(), net()), metrics=soft_accuracy, splitter=lambda m: [list(m.parameters())])
    with learn.no_bar(), learn.no_logging(): yield learn

def test_real_counts_and_rows(ferplus_root):
    dls = FERDataLoaders.from_ferplus(ferplus_root, rule='probability', num_workers=0)
    assert (len(dls.train_ds),len(dls.valid_ds))==(28385,3555)
    q = dls.soft_targs
    assert q.shape==(28385,8) and torch.allclose(q.sum(1), torch.ones(28385), atol=1e-5)
    assert torch.equal(q.argmax(1), dls.train_targs)
    i = [f.name for f in dls.train_files].index('fer0000000.png')       # its row of label.csv: 4,0,0,1,3,2,0,0,0,0
    assert torch.allclose(q[i], torch.tensor([0.4,0,0,0.1,0.3,0.2,0,0]))
    seven = FERDataLoaders.from_ferplus(ferplus_root, rule='probability', n_classes=7, num_workers=0)
    plurality = FERDataLoaders.from_ferplus(ferplus_root, rule='plurality', n_classes=7, num_workers=0)
    assert list(seven.train_files)==list(plurality.train_files) and torch.equal(seven.train_targs, plurality.train_targs)

def test_batches(few):
    dls = soft_dls(few, shuffle=False, drop_last=False, batch_tfms=[])
    y = torch.cat([y for _,y in dls.train])
    assert type(y) is SoftCategory and torch.equal(y.as_subclass(torch.Tensor), dls.soft_targs)
    assert dls.valid.one_batch()[1].dtype==torch.int64
    dls.show_batch(max_n=2)

def test_gradients(few):
    "Against the formula of the paper with q for onehot(y), written out per image"
    torch.manual_seed(0)
    z = [torch.randn(16, 8, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    q = soft_dls(few, shuffle=False).one_batch()[1]
    weigh = lambda s: s**2
    loss = ReSupLoss()(Pair(*z).with_loss(WeightedLoss(weigh, agreement=5., normalize=False)), q)
    loss.backward()
    z2,total = [o.detach().clone().requires_grad_() for o in z],0
    for i in range(16):
        p = [torch.softmax(o[i], 0) for o in z2]
        qi = q[i].as_subclass(torch.Tensor).double()
        s = [float((o*qi).sum()/(o.norm()*qi.norm()))**2 for o in p]
        ce = [-(qi*o.log()).sum() for o in p]
        total = total + (s[1]*ce[0] + s[0]*ce[1] + 5*((p[0]-p[1])**2).mean())/16
    total.backward()
    assert loss.item()==pytest.approx(total.item(), rel=1e-5)
    for a,b in zip(z, z2): torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)

@pytest.mark.parametrize('method', ['plain','record','pass'])
def test_pair_trains(learn, method):
    learn.fit(3, 1e-2, cbs=None if method=='plain' else ReSup(refit=method))
    losses = [float(o[0]) for o in learn.recorder.values]
    assert np.isfinite(losses).all() and losses[-1]<losses[0]
    assert 0<learn.recorder.values[-1][learn.recorder.metric_names.index('soft_accuracy')-1]<=1
    if method=='plain': return
    n = len(learn.dls.train_ds)
    assert learn.similarities.shape==(2,n) and learn.similarities.isfinite().sum()>=2*(n-15)
    if method=='record': return
    q = learn.dls.soft_targs
    p = ordered_pass(learn, lambda pair,y: torch.stack([z.softmax(-1) for z in pair]).transpose(1, 2)).transpose(1, 2)
    s = torch.stack([torch.nn.functional.cosine_similarity(o, q, dim=1) for o in p])
    torch.testing.assert_close(learn.similarities, s.as_subclass(torch.Tensor), rtol=1e-4, atol=1e-5)

def test_decisions_about_soft_labels_are_about_the_most_probable_class(few):
    dls = soft_dls(few)
    want = [dls.vocab[i] for i in dls.soft_targs.argmax(1).tolist()]
    assert Labelled.from_dataset(dls.train_ds, dls.train_files).df.label.tolist()==want

def test_mixup_is_the_mean_of_both_losses(learn):
    "Cross entropy is linear in the target, so mixing losses is mixing soft labels"
    seen = []
    class Check(MixUp):
        def after_loss(self):
            (y,),(y1,) = self.learn.yb,self.yb1
            mixed = torch.lerp(y1, y, self.lam[:,None]).as_subclass(torch.Tensor)
            seen.append((float(self.learn.loss_grad), float(sum(torch.nn.functional.cross_entropy(z, mixed) for z in self.learn.pred))))
    learn.fit(1, 1e-2, cbs=Check())
    assert len(seen)==len(learn.dls.train) and np.allclose(*zip(*seen), rtol=1e-4)
    learn.fit(2, 1e-2, cbs=[MixUp(), ReSup()])
    assert learn.mixtures[0] is not None and np.isfinite(float(learn.recorder.values[-1][0]))

def test_evaluation_is_as_ever(learn, tmp_path):
    learn.fit(2, 1e-2, cbs=ReSup())
    preds,targs = learn.get_preds()
    assert targs.tolist()==[list(learn.dls.vocab).index(o.label) for o in learn.dls.valid_ds.items]
    assert float(accuracy(preds, targs))==pytest.approx(float(learn.validate()[1]))
    train = learn.get_preds(ds_idx=0, with_loss=True)
    torch.testing.assert_close(train[1].as_subclass(torch.Tensor), learn.dls.soft_targs)
    torch.testing.assert_close(train[2].as_subclass(torch.Tensor), -(learn.dls.soft_targs*train[0].as_subclass(torch.Tensor).log()).sum(1), rtol=1e-4, atol=1e-4)
    learn.export(tmp_path/'e.pkl')
    loaded = load_learner(tmp_path/'e.pkl')
    with loaded.no_bar(): name,i,p = loaded.predict(learn.dls.valid_ds.items[0].file)
    assert name==learn.dls.vocab[int(i)] and int(i)==int(p.argmax())
    torch.testing.assert_close(p.as_subclass(torch.Tensor), preds[0].as_subclass(torch.Tensor), rtol=1e-3, atol=1e-4)

def test_audit_shows_the_most_probable_class(learn):
    learn.fit(2, 1e-2, cbs=ReSup())
    df = LabelAudit.from_learner(learn).df
    assert df.label.tolist()==[o.label for o in learn.dls.train_ds.items] and df.p_clean.between(0, 1).all()
    assert label_table(learn).label.tolist()==df.label.tolist()

def test_any_learner_trains(few):
    "fastai's own Learner finds a loss for soft labels in the dls"
    learn = Learner(soft_dls(few), net(), metrics=accuracy)
    assert isinstance(learn.loss_func, ReSupLoss) and learn.loss_func is not Learner(soft_dls(few), net()).loss_func
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert np.isfinite(float(learn.recorder.values[-1][0]))
    hard = FERDataLoaders.from_ferplus(few, num_workers=0)
    assert isinstance(Learner(hard, net()).loss_func, CrossEntropyLossFlat)

def test_hard_targs(): assert hard_targs(torch.tensor([[0.2,0.4,0.4],[1,0,0]])).tolist()==[1,0]
