"""fastai's features on a paired learner with ReSup at work, one test each. The page `matrix` of the docs is made from the markers below.

A marker says `feature` (what fastai's users call it), `verdict` ('works', 'works, with a note' or 'refused: why') and `how`, one line for the reader."""
import ast, csv, math, re
from collections import Counter
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.amp import GradScaler, autocast
from fastai.callback.tensorboard import TensorBoardCallback
from fastai.vision.all import *
from sklearn.metrics import confusion_matrix, f1_score

from fastai_resup.all import *
from fastai_resup.losses import resup_loss
from fastai_resup.passes import ordered_pass

for o in [o for o in globals() if o.startswith('test')]: del globals()[o] # helpers of fastcore, which pytest would take for tests

feature = pytest.mark.feature
ROOT,N,V,K = Path(__file__).resolve().parents[1],84,21,7

# A learner whose next weighted batch is the first one

class Tiny(nn.Sequential):
    "Three groups: stem, body, head; `norm` None leaves out what depends on the batch"
    def __init__(self, n=K, norm=nn.BatchNorm2d):
        super().__init__(nn.Conv2d(3, 8, 5, stride=2), nn.Sequential(*([norm(8)] if norm else []), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, n))

def three(net): return L(net[0], net[1], net[2]).map(params)
def weights(learn, *groups): return torch.cat([p.detach().flatten() for net in get_model(learn.model).nets for g in groups or range(3) for p in net[g].parameters()])
def each(learn, f): return [f(net) for net in get_model(learn.model).nets]

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=N, n_valid=V, size=32, progress=False)

@pytest.fixture
def data(faces):
    def make(bs=16, size=32, tfms=(), **kwargs): return FERDataLoaders.from_folder(faces, valid='valid', img_size=size, bs=bs, noise=0.3, seed=0, num_workers=0, cache=True, batch_tfms=list(tfms), **kwargs)
    return make

@pytest.fixture
def make(data, tmp_path):
    "Learners that start alike, after one epoch of warm-up and the first mixture"
    def f(dls=None, nets=None, warm=True, norm=nn.BatchNorm2d, **kwargs):
        set_seed(0)
        res = ReSupLearner(dls or data(), nets or [Tiny(norm=norm), Tiny(norm=norm)], splitter=kwargs.pop('splitter', three), metrics=accuracy, path=tmp_path, **kwargs)
        if warm:
            with res.no_bar(), res.no_logging(): res.fit(1, 1e-2, cbs=ReSup())
            assert res.model.has_mixture
        return res
    return f

@pytest.fixture
def learn(make):
    res = make()
    with res.no_bar(), res.no_logging(): yield res

class Spy(Callback):
    "Sees that ReSup is at work: `seen` has a row per training batch"
    order = 30
    def __init__(self): self.seen = []
    def after_loss(self):
        if self.training: self.seen.append(dict(weighted=getattr(self.pred.loss_func, 'weight_function', None) is not None, frozen=self.opt.frozen_idx, lrs=[o['lr'] for o in self.opt.hypers], size=tuple(self.x.shape[-2:]), y=self.y.clone()))
    def weighted(self, n=None):
        assert self.seen and all(o['weighted'] for o in self.seen) and n in (None, len(self.seen)), [o['weighted'] for o in self.seen]
        return True

def fit(learn, n=1, lr=1e-2, cbs=(), how='fit', **kwargs):
    "Train with ReSup; the spy"
    spy = Spy()
    with learn.no_logging(): getattr(learn, how)(n, lr, cbs=[ReSup(normalize=False), spy, *L(cbs)], **kwargs)
    return spy

# Ways to train

@feature('`fit`', 'works', 'Constant learning rate; each epoch refits the mixture.')
def test_fit(learn):
    before,refits = weights(learn),len(learn.refits)
    spy = fit(learn, 2, 3e-3)
    assert spy.weighted(10) and {lr for o in spy.seen for lr in o['lrs']}=={3e-3} and len(learn.refits)==refits+2
    assert ((weights(learn)-before).abs()>1e-7).float().mean()>0.9

@feature('`fit_one_cycle`', 'works', 'The rate rises and falls over all batches, weighted ones too.')
def test_fit_one_cycle(learn):
    spy = fit(learn, 3, 1e-2, how='fit_one_cycle')
    lrs = [o['lrs'][-1] for o in spy.seen]
    assert spy.weighted(15) and lrs[0]==pytest.approx(1e-2/25) and max(lrs)==pytest.approx(1e-2, rel=0.05) and lrs[-1]<2e-4 and 2<=int(np.argmax(lrs))<=5

@feature('`fit_flat_cos`', 'works', 'Flat for three quarters, then a cosine.')
def test_fit_flat_cos(learn):
    spy = fit(learn, 4, 1e-2, how='fit_flat_cos')
    lrs = [o['lrs'][-1] for o in spy.seen]
    assert spy.weighted(20) and lrs[:15]==[1e-2]*15 and lrs[-1]<1e-3 and lrs[15:]==sorted(lrs[15:], reverse=True)

@feature('`fine_tune`', 'works, with a note', 'Trains all layers at one rate, as `fine_tune(5, freeze_epochs=0, lr_mult=1)` of a fastai learner. `fine_tune(1)` is all warm-up and weighs nothing. Frozen epochs (`freeze_epochs=1`) do not count as warm-up.')
def test_fine_tune(make):
    learn,spy,bodies = make(warm=False),Spy(),[]
    bodies.append(weights(learn, 0))
    def keep(cb): bodies.append(weights(cb.learn, 0))
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(2, 1e-2, freeze_epochs=1, cbs=[ReSup(), spy, Callback(after_train=keep)])
    assert [(o['frozen'],o['weighted']) for o in spy.seen]==[(2,False)]*5+[(0,False)]*5+[(0,True)]*5
    assert torch.equal(bodies[0], bodies[1]) and not torch.equal(bodies[1], bodies[2]) and not torch.equal(bodies[2], bodies[3])

@feature('`freeze`, `unfreeze`', 'works, with a note', 'Mean the same for both networks. As in any fastai learner, weight decay goes on in layers that had trained before they were frozen; `wd=0` stops it.')
def test_freeze(make):
    learn = make(warm=False)
    learn.freeze()
    head,rest = weights(learn, 2),weights(learn, 0)
    with learn.no_bar():
        spy = fit(learn, 2)
        assert [o['weighted'] for o in spy.seen]==[False]*5+[True]*5
        assert torch.equal(rest, weights(learn, 0)) and not torch.equal(head, weights(learn, 2))
        assert each(learn, lambda net: (net[0].weight.requires_grad, net[2].weight.requires_grad))==[(False,True)]*2
        learn.unfreeze()
        fit(learn, 2)
        assert not torch.equal(rest, weights(learn, 0))
        learn.freeze()
        rest = weights(learn, 0)
        assert fit(learn, wd=0.).weighted() and torch.equal(rest, weights(learn, 0))

@feature('`freeze_to`', 'works', 'Group i holds the i-th groups of both networks.')
def test_freeze_to(learn):
    learn.freeze_to(1)
    stem,body = weights(learn, 0),weights(learn, 1)
    assert fit(learn, wd=0.).weighted() and torch.equal(stem, weights(learn, 0)) and not torch.equal(body, weights(learn, 1))
    assert len(learn.opt.param_groups)==3 and each(learn, lambda net: [net[0].weight.requires_grad, net[1][2].weight.requires_grad])==[[False,True]]*2

@feature('discriminative learning rates (`slice`)', 'works', 'One rate per group, the same for both networks.')
def test_discriminative_rates(learn):
    spy = fit(learn, 1, slice(1e-6, 1e-2))
    assert spy.weighted() and spy.seen[0]['lrs']==pytest.approx([1e-6, 1e-4, 1e-2])
    before = [[net[g].state_dict() for g in (0, 2)] for net in deepcopy(learn.model.nets)]
    learn.opt.clear_state()
    fit(learn, 1, slice(1e-6, 1e-2))
    for net,(stem,head) in zip(learn.model.nets, before):
        a,b = (net[0].weight-stem['weight']).abs().mean(),(net[2].weight-head['weight']).abs().mean()
        assert 0<a<1e-4 and b>100*a

@feature('`lr_find` and its suggestions', 'works', 'Tries rates on the weighted loss; weights, mixture and warm-up count are as before.')
def test_lr_find(learn):
    spy,before,refits = Spy(),deepcopy(learn.model.state_dict()),len(learn.refits)
    learn.add_cbs([ReSup(), spy])
    res = learn.lr_find(num_it=50, show_plot=False, suggest_funcs=(valley, slide, minimum, steep))
    assert spy.weighted() and res._fields==('valley','slide','minimum','steep') and all(o is None or 1e-7<=o<=10 for o in res) and 1e-7<res.valley<1
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a,b in zip(before.values(), learn.model.state_dict().values())) and len(learn.refits)==refits
    assert 10<=len(learn.recorder.losses)<=51 and spy.seen[-1]['lrs'][-1]>spy.seen[0]['lrs'][-1]*10

# Augmentation and loss

class Mixed(Callback):
    "The loss of each batch by the formula of mixed labels"
    order = 30
    def __init__(self, mixer): self.mixer,self.pairs = mixer,[]
    def after_loss(self):
        if not self.training: return
        pair,m,f = self.pred,self.mixer,self.pred.loss_func
        one = lambda y: resup_loss(pair, y, f.weight_function(similarity(torch.stack(tuple(pair)), y))*f.balance[:,y], f.agreement, f.normalize, 'none', base_loss=f.base_loss)
        lam = m.lam
        self.pairs.append(((one(m.yb1[0]).lerp(one(self.y), lam)).mean().item(), self.loss.item(), float(torch.as_tensor(lam).float().mean())))

def check_mixed(learn, mixer):
    probe = Mixed(mixer)
    assert fit(learn, 2, cbs=[mixer, probe]).weighted(10)
    for want,got,_ in probe.pairs: assert got==pytest.approx(want, rel=1e-5)
    assert any(0.01<lam<0.99 for *_,lam in probe.pairs) and isinstance(learn.loss_func, ReSupLoss)
    torch.testing.assert_close(learn.similarities, ordered_pass(learn, lambda pair,y: pair.similarity(y)), rtol=1e-3, atol=1e-4)

@feature('`MixUp`', 'works, with a note', 'Both labels of a mixed image get their own weights. Mixed images have no similarity of their own, so the mixture is refitted by a pass over the images as they are: a forward pass more per epoch.')
def test_mixup(learn): check_mixed(learn, MixUp())

@feature('`CutMix`', 'works, with a note', 'As `MixUp`.')
def test_cutmix(learn): check_mixed(learn, CutMix())

class LossProbe(Callback):
    "Loss of each batch, and what it is made of: weights are p(clean) times the factor of the class, agreement counts once"
    order = 30
    def __init__(self): self.rows = []
    def after_loss(self):
        if self.training: self.rows.append((self.loss.item(), [o.detach().log_softmax(-1) for o in self.pred], self.y.clone(), self.pred.loss_func.weight_function(self.pred.similarity(self.y))*self.pred.loss_func.balance[:,self.y.as_subclass(torch.Tensor)]))

@feature('label smoothing', 'works, with a note', "`ReSupLoss(label_smoothing=0.1)` as `loss_func`. fastai's `LabelSmoothingCrossEntropy` knows one network, and is refused by name. `valid_loss` is without smoothing.")
def test_label_smoothing(make):
    learn,probe = make(loss_func=ReSupLoss(label_smoothing=0.1)),LossProbe()
    with learn.no_bar(): assert fit(learn, cbs=probe).weighted()
    for loss,(a,b),y,w in probe.rows:
        ce = [0.9*-z.gather(1, y[:,None])[:,0] + 0.1*-z.mean(1) for z in (a, b)]
        reverse = [-(z.exp()*torch.where(torch.arange(K)==y[:,None], math.log(0.9+0.1/K), max(math.log(0.1/K), -4.))).sum(1) for z in (a, b)]
        base = [o+r for o,r in zip(ce, reverse)]                       # symmetric cross entropy, in which log 0 is -4
        want = (w[1]*base[0] + w[0]*base[1] + (a.exp()-b.exp()).pow(2).mean(1)).mean()
        assert loss==pytest.approx(want.item(), rel=1e-4)
    other = make(warm=False, loss_func=LabelSmoothingCrossEntropyFlat())
    with other.no_bar(), pytest.raises(TypeError, match=r'ReSupLoss\(label_smoothing=0.1\)'): fit(other)

@feature('class weights', 'works, with a note', "`ReSupLoss(weight=…)` as `loss_func`, beside the weight of each label. `CrossEntropyLossFlat(weight=…)` is refused by name. `valid_loss` is without them.")
def test_class_weights(make):
    cw = torch.arange(1., K+1)
    learn,probe = make(loss_func=ReSupLoss(weight=cw)),LossProbe()
    with learn.no_bar(): assert fit(learn, cbs=probe).weighted()
    for loss,(a,b),y,w in probe.rows:
        given = [z.gather(1, y[:,None])[:,0] for z in (a, b)]
        base = [(-z+4*(1-z.exp()))*cw[y]/cw[y].mean() for z in given]
        assert loss==pytest.approx((w[1]*base[0] + w[0]*base[1] + (a.exp()-b.exp()).pow(2).mean(1)).mean().item(), rel=1e-4)
    other = make(warm=False, loss_func=CrossEntropyLossFlat(weight=cw))
    with other.no_bar(), pytest.raises(TypeError, match=r'ReSupLoss\(weight='): fit(other)

@feature('`GradientAccumulation`', 'works, with a note', 'With `ReSup(normalize=False)` the steps are those of the bigger batch; by default each small batch is divided by the sum of its own weights. Batch normalisation sees small batches, as always.')
def test_gradient_accumulation(make, data):
    ends = []
    for bs,cbs in ((16, []), (8, [GradientAccumulation(16)]), (8, [])):
        learn = make(warm=False, norm=None)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=ReSup(refit='pass'))
        learn.dls = data(bs)
        for dl in learn.dls: dl.rng = random.Random(3)
        with learn.no_bar(): assert fit(learn, 1, 1e-3, cbs=cbs).weighted(80//bs)
        ends.append(weights(learn))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-5)
    assert (ends[0]-ends[2]).abs().max()>1e-3

@feature('`GradientClip`', 'works', 'One norm over both networks.')
def test_gradient_clip(learn):
    norms = []
    class Norms(Callback):
        order = GradientClip.order+1
        def before_step(self): norms.append(torch.cat([p.grad.flatten() for p in self.model.parameters()]).norm().item())
    fit(learn, cbs=Norms())
    assert min(norms)>1e-3
    norms.clear()
    assert fit(learn, cbs=[GradientClip(1e-3), Norms()]).weighted() and norms==pytest.approx([1e-3]*5, rel=1e-2)

# Precision and memory

class CPUPrecision(MixedPrecision):
    "fastai's `MixedPrecision` asks for a GPU by name; this one is the same on a CPU"
    def before_fit(self):
        super().before_fit()
        fp16 = self.amp_mode==AMPMode.FP16
        self.autocast,self.learn.scaler = autocast('cpu', torch.float16 if fp16 else torch.bfloat16),GradScaler('cpu', enabled=fp16, init_scale=1024.)

def check_precision(make, mode, dtype):
    plain,half,types = make(),make(),set()
    for net in half.model.nets: net[2].register_forward_hook(lambda m, i, o: types.add((m.training, o.dtype)))
    class Probe(Callback):
        order = 40
        def after_loss(self):
            if self.training: types.add((self.pred[0].dtype, self.loss.dtype, self.pred.loss_func.weights(self.pred, self.y).dtype))
    for o,cbs in ((plain, []), (half, [CPUPrecision(mode), Probe()])):
        with o.no_bar(), o.no_logging():
            for dl in o.dls: dl.rng = random.Random(3)
            assert fit(o, 2, 1e-3, cbs=cbs).weighted(10)
    assert types=={(True,dtype), (False,dtype), (torch.float32,)*3}
    types.clear()
    ordered_pass(half, lambda pair,y: pair.similarity(y))
    assert types=={(False,torch.float32)}
    assert 0<(weights(plain)-weights(half)).abs().max()<0.02 and half.model.lookup.dtype==torch.float32
    assert half.refits[-1]['noise_rate']==pytest.approx(plain.refits[-1]['noise_rate'], abs=0.1)

@pytest.mark.filterwarnings('ignore:.*cuda')
@feature('`to_bf16`', 'works, with a note', "The networks run in bfloat16, similarities, weights, loss and mixture in float32. Tested with bfloat16 on a CPU; fastai's own `to_bf16` does nothing without a GPU, and no GPU was there to try it.")
def test_bf16(make):
    check_precision(make, 'bf16', torch.bfloat16)
    assert fit(make().to_bf16()).weighted()

@pytest.mark.filterwarnings('ignore:.*cuda', 'ignore:.*lr_scheduler')
@feature('`to_fp16`', 'works, with a note', 'As `to_bf16`, with scaled gradients. Tested with float16 and a `GradScaler` on a CPU, not on a GPU.')
def test_fp16(make):
    check_precision(make, 'fp16', torch.float16)
    assert fit(make().to_fp16()).weighted()

@feature('channels last (`to_channelslast`)', 'works', 'Both networks; `speed_up_cpu(learn.model)` does it for good, and more.')
def test_channels_last(make):
    plain,last,formats = make(norm=None),make(norm=None),set()
    last.to_channelslast(use_amp=False)
    for net in last.model.nets: net[1][1].register_forward_hook(lambda m, i, o: formats.add((m.weight.is_contiguous(memory_format=torch.channels_last), o.is_contiguous(memory_format=torch.channels_last))))
    for o in (plain, last):
        with o.no_bar(), o.no_logging():
            for dl in o.dls: dl.rng = random.Random(3)
            assert fit(o, 1, 1e-3).weighted()
    assert formats=={(True,True)}
    torch.testing.assert_close(weights(plain), weights(last), rtol=0, atol=1e-4)

# Callbacks

@feature('`SaveModelCallback`', 'works', 'The mixture is saved with the weights; `accuracy_0` or any other column can be watched.')
def test_save_model(learn, tmp_path):
    fit(learn, 3, 0.05, cbs=SaveModelCallback(monitor='accuracy_1', fname='best', every_epoch=True))
    files = sorted(o.name for o in (tmp_path/'models').glob('*.pth'))
    assert files==['best_0.pth','best_1.pth','best_2.pth']
    fit(learn, 4, 0.05, cbs=SaveModelCallback(monitor='valid_loss', comp=np.greater, fname='low')) # the highest, which is not the last epoch's
    losses = [o[1] for o in learn.recorder.values]
    best,saved = int(np.argmax(losses)),torch.load(tmp_path/'models'/'low.pth', weights_only=True)
    assert best<3 and learn.validate()[0]==pytest.approx(losses[best], abs=1e-5) # back at that epoch
    assert torch.equal(saved['lookup'], learn.model.lookup) and int(learn.model.epochs[1])==1+3+best+1

@feature('`EarlyStoppingCallback`', 'works', 'Stops after an epoch, whose mixture is there.')
def test_early_stopping(learn):
    refits = len(learn.refits)
    assert fit(learn, 6, 1e-3, cbs=EarlyStoppingCallback(monitor='valid_loss', min_delta=10., patience=2)).weighted(15)
    assert len(learn.recorder.values)==3 and len(learn.refits)==refits+3

@feature('`ReduceLROnPlateau`', 'works', 'Reduces the rate of all groups of both networks.')
def test_reduce_lr(learn):
    spy = fit(learn, 4, 1e-3, cbs=ReduceLROnPlateau(monitor='valid_loss', min_delta=10., patience=1, factor=10))
    assert spy.weighted(20) and [spy.seen[i]['lrs'] for i in (0, 5, 10, 15)]==[pytest.approx([lr]*3) for lr in (1e-3, 1e-3, 1e-4, 1e-5)]

@feature('`CSVLogger`', 'works', 'With the columns of both networks and of the mixture.')
def test_csv_logger(learn, tmp_path):
    assert fit(learn, 2, cbs=CSVLogger('log.csv')).weighted()
    with open(tmp_path/'log.csv', newline='') as f: head,*rows = csv.reader(f)
    assert head==['epoch','train_loss','valid_loss','accuracy','accuracy_0','accuracy_1','noise_rate','auroc','time']==list(learn.recorder.metric_names)
    for i,row in enumerate(rows):
        assert [float(o) for o in row[:-1]]==pytest.approx([i, *learn.recorder.values[i]])
    assert len(rows)==2 and float(rows[1][6])==pytest.approx(learn.refits[-1]['noise_rate'])

@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::torch.jit.TracerWarning')
@feature('`TensorBoardCallback`', 'works', 'Loss, all columns and predictions. The graph that it draws is that of the two networks in training.')
def test_tensorboard(learn, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert fit(learn, 2, cbs=TensorBoardCallback(tmp_path/'tb', trace_model=True, log_preds=True)).weighted()
    log = EventAccumulator(str(tmp_path/'tb'), size_guidance=dict(scalars=0)).Reload()
    assert {'train_loss','valid_loss','accuracy','accuracy_0','accuracy_1','noise_rate','auroc'}<=set(log.Tags()['scalars']) and log.Tags()['graph'] and log.Tags()['images']
    assert [o.value for o in log.Scalars('noise_rate')]==pytest.approx([o['noise_rate'] for o in learn.refits[-2:]], rel=1e-5)
    assert [o.value for o in log.Scalars('accuracy_1')]==pytest.approx([o[4] for o in learn.recorder.values], rel=1e-5)

@feature('`ShowGraphCallback`', 'works', 'Training and validation loss. They are on different scales: the first is the sum of two networks, weighted.')
def test_show_graph(make, monkeypatch):
    learn,drawn = make(),[]
    bar = type(master_bar(range(1)))
    monkeypatch.setattr(bar, 'update_graph', lambda self, graphs, *a, **k: drawn.append([[list(map(float, o)) for o in g] for g in graphs]), raising=False)
    assert fit(learn, 3, cbs=ShowGraphCallback()).weighted(15)
    (x,train),(at,valid) = drawn[-1]
    assert len(drawn)==3 and x==list(range(15)) and at==[5,10,15] and train==pytest.approx([float(o) for o in learn.recorder.losses]) and valid==pytest.approx([o[1] for o in learn.recorder.values])

@feature('`TerminateOnNaNCallback`', 'works', 'Stops at the batch, and no mixture is fitted to it.')
def test_terminate_on_nan(learn):
    class Spoil(Callback):
        order = -5
        def before_batch(self):
            if self.training and self.iter==2: self.learn.xb = (self.x*float('nan'),)
    before,refits = learn.model.lookup.clone(),len(learn.refits)
    spy = fit(learn, 2, cbs=[TerminateOnNaNCallback(), Spoil()])
    assert spy.weighted(3) and torch.equal(before, learn.model.lookup) and len(learn.refits)==refits

# Data

@feature('`WeightedDL` (`weighted_dataloaders`)', 'works', 'Images drawn several times count once in the mixture, images not drawn not at all.')
def test_weighted_dl(make, faces):
    files = get_image_files(faces)
    block = DataBlock((ImageBlock, CategoryBlock), get_y=parent_label, splitter=GrandparentSplitter(), item_tfms=Resize(32), batch_tfms=[])
    dls,seen = block.weighted_dataloaders(files, np.array([dict(anger=0., sadness=5.).get(parent_label(o), 1.) for o in files]), bs=16, num_workers=0),{}
    given = [int(dls.train_ds.tls[1][i]) for i in range(N)]
    learn = make(dls)
    class Keep(Callback):
        order = 30
        def after_loss(self):
            if self.training:
                for i,s,y in zip(list(self.dl.sample())[self.iter*16:], self.pred.similarity(self.y).mT, self.y): seen[i] = (s, int(y))
    with learn.no_bar(): spy = fit(learn, 1, cbs=Keep())
    labels = Counter(torch.cat([o['y'] for o in spy.seen]).tolist())
    assert type(learn.dls.train).__name__=='WeightedDL' and spy.weighted() and labels[dls.vocab.o2i['anger']]==0 and labels.most_common(1)[0][0]==dls.vocab.o2i['sadness']
    assert learn.similarities.isfinite().all(0).nonzero()[:,0].tolist()==sorted(seen) and len(seen)<N
    for i,(s,y) in seen.items(): assert given[i]==y and torch.equal(learn.similarities[:,i], s)

@feature('progressive resizing', 'works', 'Give `learn.dls` larger images between two fits; warm-up and mixture go on.')
def test_progressive_resizing(learn, data):
    small = fit(learn, 1)
    lookup = learn.model.lookup.clone()
    learn.dls = data(size=48)
    large = fit(learn, 1)
    assert small.weighted(5) and large.weighted(5) and {o['size'] for o in small.seen}=={(32,32)} and {o['size'] for o in large.seen}=={(48,48)}
    assert len(learn.refits)==3 and not torch.equal(lookup, learn.model.lookup) and learn.similarities.shape==(2,N)

# Predictions

def probs(learn, dl): return ordered_pass(learn, lambda pair,y: torch.stack([z.softmax(-1) for z in pair]).mean(0).mT, dl).mT
def targs(learn): return torch.tensor([learn.dls.vocab.o2i[o.label] for o in learn.dls.valid_ds.items])

@feature('`get_preds`: ordered, `with_decoded`, `with_loss`', 'works', "The ensemble's probabilities; the loss is its negative log-likelihood.")
def test_get_preds(learn):
    fit(learn)
    preds,ys,dec,loss = learn.get_preds(with_decoded=True, with_loss=True)
    want = probs(learn, learn.dls.valid)
    torch.testing.assert_close(preds.as_subclass(torch.Tensor), want, rtol=1e-4, atol=1e-5)
    assert torch.equal(ys.as_subclass(torch.Tensor), targs(learn)) and torch.equal(dec.as_subclass(torch.Tensor), want.argmax(-1))
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), -want.gather(1, targs(learn)[:,None])[:,0].log(), rtol=1e-3, atol=1e-4)
    train,given = learn.get_preds(ds_idx=0)                            # the training DataLoader shuffles and drops the last batch
    torch.testing.assert_close(train.as_subclass(torch.Tensor), probs(learn, learn.dls.train), rtol=1e-4, atol=1e-5)
    assert len(train)==N and given.tolist()==[learn.dls.vocab.o2i[o.label] for o in learn.dls.train_ds.items]

@feature('`predict`', 'works', 'From a file or an array, by both networks.')
def test_predict(learn):
    fit(learn)
    item = learn.dls.valid_ds.items[3]
    preds = learn.get_preds()[0]
    for what in (item, item.file):
        label,i,p = learn.predict(what)
        assert label==learn.dls.vocab[int(i)] and int(i)==int(preds[3].argmax()) and p.tolist()==pytest.approx(preds[3].tolist(), abs=1e-5)

@feature('`show_results`', 'works', 'Label and prediction of the ensemble above each image.')
def test_show_results(learn):
    fit(learn)
    plt.close('all')
    dec = learn.get_preds(with_decoded=True)[2]
    learn.show_results(max_n=6, shuffle=False)
    titles = [ax.get_title() for ax in plt.gcf().axes if ax.get_title()]
    assert titles==[f'{learn.dls.vocab[y]}\n{learn.dls.vocab[p]}' for y,p in zip(targs(learn)[:6], dec[:6])]
    plt.close('all')

@feature('test-time augmentation (`tta`)', 'works', 'Averages the ensemble over augmented images.')
def test_tta(make, data):
    learn = make(data(tfms=aug_transforms(max_rotate=20)))
    with learn.no_bar(), learn.no_logging():
        fit(learn)
        aug,plain = learn.tta(n=2, beta=None)[0]
        preds,ys = learn.tta(n=3, beta=0.25)
    torch.testing.assert_close(plain.as_subclass(torch.Tensor), probs(learn, learn.dls.valid), rtol=1e-4, atol=1e-5)
    assert (aug-plain).abs().max()>1e-3 and aug.sum(-1).tolist()==pytest.approx([1]*V, abs=1e-4) and torch.equal(ys.as_subclass(torch.Tensor), targs(learn)) and preds.shape==(V,K)

@feature('`ClassificationInterpretation`: top losses, confusion matrix', 'works', 'Of the ensemble.')
def test_interpretation(learn):
    fit(learn)
    interp = ClassificationInterpretation.from_learner(learn)
    want = probs(learn, learn.dls.valid)
    assert np.array_equal(interp.confusion_matrix(), confusion_matrix(targs(learn), want.argmax(-1), labels=range(K)))
    nll = -want.gather(1, targs(learn)[:,None])[:,0].log()
    values,idxs = interp.top_losses(5)[:2]
    assert values.tolist()==pytest.approx(nll.sort(descending=True)[0][:5].tolist(), rel=1e-3) and nll[idxs].tolist()==pytest.approx(values.tolist(), rel=1e-3)
    plt.close('all')
    interp.plot_top_losses(4)
    assert len([ax for ax in plt.gcf().axes if ax.get_title()])==4
    interp.plot_confusion_matrix()
    assert plt.gca().get_xlabel()=='Predicted'
    plt.close('all')

@feature('`export`, `load_learner` with a new DataLoader', 'works, with a note', 'Own functions and classes (here: the networks) must be importable, as always. The file is a pickle and can run code: open only your own. `save_weights` writes tensors alone.')
def test_export(learn, tmp_path, faces):
    fit(learn)
    learn.export('model.pkl')
    loaded = load_learner(tmp_path/'model.pkl')
    files = get_image_files(faces/'valid')[::-1]
    with loaded.no_bar(), loaded.no_logging(): preds,_ = loaded.get_preds(dl=loaded.dls.test_dl(files, num_workers=0))
    at = {str(o.file):i for i,o in enumerate(learn.dls.valid_ds.items)}
    torch.testing.assert_close(preds.as_subclass(torch.Tensor), probs(learn, learn.dls.valid)[[at[str(f)] for f in files]], rtol=1e-4, atol=1e-5)
    assert torch.equal(loaded.model.lookup, learn.model.lookup) and len(loaded.refits)==2

# Models

@feature('`summary`', 'works', 'Lists the layers of both networks.')
def test_summary(learn):
    text = str(learn.summary())
    n = sum(p.numel() for p in learn.model.parameters())
    assert text.startswith('PairedModel (Input shape: 16 x 3 x 32 x 32)') and f'Total params: {n:,}' in text and text.count('Conv2d')==4 and text.count('Linear')==2 and 'ReSupLoss' in text
    assert learn.model.training is False or fit(learn).weighted()

@pytest.mark.filterwarnings('ignore')
@feature('`torch.compile`', 'works, with a note', '`learn.model.compile()`, in place, before the fit. The wrapper that `torch.compile(learn.model)` returns is refused with that advice.')
def test_compile(make):
    plain,compiled = make(norm=None),make(norm=None)
    torch._dynamo.reset()
    graphs = []
    from torch._dynamo.backends.registry import lookup_backend
    def backend(gm, inputs):
        graphs.append(gm)
        return gm.forward
    compiled.model.compile(backend=backend)
    for o in (plain, compiled):
        with o.no_bar(), o.no_logging():
            for dl in o.dls: dl.rng = random.Random(3)
            assert fit(o, 2, 1e-3).weighted(10)
    assert len(graphs)>=2 and sum(n.op!='placeholder' for g in graphs for n in g.graph.nodes)>10
    torch.testing.assert_close(weights(plain), weights(compiled), rtol=0, atol=1e-4)
    torch.testing.assert_close(compiled.get_preds()[0], plain.get_preds()[0], rtol=1e-3, atol=1e-4)
    compiled.model = torch.compile(compiled.model, backend=backend)
    with pytest.raises(TypeError, match=r'`learn.model.compile\(\)`'): fit(compiled)
    torch._dynamo.reset()

def check_arch(data, tmp_path, arch, **kwargs):
    set_seed(0)
    learn = resup_learner(data(), arch, path=tmp_path, metrics=accuracy, **{'pretrained':False, **kwargs})
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=ReSup())
        before = [next(net.parameters()).detach().clone() for net in learn.model.nets]
        assert fit(learn, 1, 1e-3).weighted(5)
        assert all(not torch.equal(a, next(net.parameters())) for a,net in zip(before, learn.model.nets)) and learn.get_preds()[0].shape==(V,K)
    return learn

@feature('torchvision architectures', 'works', "With fastai's parameter groups; one linear layer as head, or fastai's by `head='fastai'`.")
def test_torchvision(data, tmp_path): assert len(check_arch(data, tmp_path, resnet18).opt.param_groups)==3

@feature('timm architectures', 'works', 'By name; `weights` may be a local file.')
def test_timm(data, tmp_path): assert each(check_arch(data, tmp_path, 'mobilenetv3_small_050'), lambda net: type(net[0]).__name__)==['TimmBody']*2

@feature('pairs of different architectures', 'works, with a note', "Where their fastai splitters differ, both are split into body and head. A `splitter` of your own has to give both the same number of groups; otherwise the error says so.")
def test_different_archs(data, tmp_path):
    learn = check_arch(data, tmp_path, (squeezenet1_1, 'mobilenetv3_small_050'))
    assert len(learn.opt.param_groups)==2 and len({sum(p.numel() for p in net.parameters()) for net in learn.model.nets})==2
    learn.freeze()
    assert each(learn, lambda net: [next(net[0].parameters()).requires_grad, net[1][-1].weight.requires_grad])==[[False,True]]*2
    other = ReSupLearner(learn.dls, [Tiny(), nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, K))], splitter=lambda net: L(net.children()).map(params))
    with pytest.raises(ValueError, match='split into 3 and 2 parameter groups: pass a `splitter`'): other.fit(1, cbs=ReSup())

@feature('your own `nn.Module`s', 'works', '`ReSupLearner(dls, [net0, net1])`, anything that turns images into logits (B, K).')
def test_own_modules(make):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin,self.out = nn.Linear(3*32*32, 16),nn.Linear(16, K)
        def forward(self, x): return self.out(self.lin(x.flatten(1)).relu())
    learn = make(nets=[Wide(), Tiny()], splitter=trainable_params)
    before = [next(net.parameters()).detach().clone() for net in learn.model.nets]
    with learn.no_bar(): assert fit(learn).weighted(5)
    assert all(not torch.equal(a, next(net.parameters())) for a,net in zip(before, learn.model.nets)) and len(LabelAudit.from_learner(learn).df)==N

# The page

def marked(path=ROOT/'tests'/'test_matrix.py'):
    "The tests of features: name, marker's arguments, source"
    text = path.read_text(encoding='utf-8')
    tests = [o for o in ast.parse(text).body if isinstance(o, ast.FunctionDef) and o.name.startswith('test_') and any(getattr(getattr(d, 'func', None), 'id', '')=='feature' for d in o.decorator_list)]
    return [(o.name, [ast.literal_eval(a) for d in o.decorator_list if getattr(d.func, 'id', '')=='feature' for a in d.args], ast.get_source_segment(text, o)) for o in tests]

NAMED = """fit fit_one_cycle fit_flat_cos fine_tune freeze unfreeze freeze_to slice lr_find MixUp CutMix smoothing GradientAccumulation GradientClip to_fp16 to_bf16 channels SaveModelCallback EarlyStopping ReduceLROnPlateau
    CSVLogger TensorBoardCallback ShowGraph TerminateOnNaN WeightedDL class.weights progressive.resizing get_preds with_decoded with_loss predict show_results tta ClassificationInterpretation confusion.matrix
    export load_learner summary torch.compile timm torchvision different.architectures nn.Module""".split()

def test_every_feature_has_a_row_and_every_row_a_test():
    rows = marked()
    names = ' '.join(args[0] for _,args,_ in rows)
    assert not [o for o in NAMED if not re.search(o, names)] and len({args[0] for _,args,_ in rows})==len(rows)
    for name,(_,verdict,how),source in rows:
        assert verdict in ('works','works, with a note') or re.match('refused: .+', verdict), name
        assert how.endswith('.') and ('refused' in how or verdict.startswith('refused'))==('pytest.raises' in source) or 'otherwise the error' in how, name

def test_page_and_tests_agree():
    "The page has one row per test, with its feature, verdict and line"
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(ROOT/'docs')
        import stage
        page = stage.matrix_page(ROOT/'tests'/'test_matrix.py')
    table = [[c.strip() for c in o.strip('|').split(' | ')] for o in page.splitlines() if o.startswith('| ') and '[test](' in o]
    assert [row[:3] for row in table]==[list(args) for _,args,_ in marked()]
    assert [re.search(r'#L(\d+)', row[3])[1] for row in table]==[str(next(i for i,o in enumerate((ROOT/'tests'/'test_matrix.py').read_text(encoding='utf-8').splitlines(), 1) if o.startswith(f'def {name}('))) for name,*_ in marked()]
