"The paired learner with ReSup inside fastai's own loop: what moves the mixture, what must not, and what travels with the model"
import subprocess, sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.schedule import fine_tune, fit_one_cycle, lr_find
from fastai.callback.training import GradientAccumulation
from fastai.data.transforms import get_image_files, parent_label
from fastai.learner import load_learner
from fastai.metrics import F1Score, accuracy
from fastai.torch_core import params, set_seed
from fastai.vision.augment import RandomResizedCrop, Resize, aug_transforms
from fastai.vision.data import ImageDataLoaders
from fastcore.foundation import L
from sklearn.mixture import GaussianMixture

from fastai_resup.callbacks import LossReweight, MixtureRefit, ReSup
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner
from fastai_resup.losses import Pair, resup_loss, sce_loss
from fastai_resup.mixture import balance_factors, p_clean
from fastai_resup.models import PairedModel
from fastai_resup.passes import ordered_pass
from fastai_resup.synth import make_faces

class Tiny(nn.Sequential):
    "A network of two parameter groups"
    def __init__(self, n=7): super().__init__(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, n))

def body_head(net): return L(net[0], net[1]).map(params)

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=84, n_valid=21, size=32, progress=False)

@pytest.fixture
def learn(faces):
    set_seed(0)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=16, noise=0.3, seed=0, num_workers=0, cache=True)
    res = ReSupLearner(dls, [Tiny(), Tiny()], splitter=body_head, metrics=accuracy)
    with res.no_bar(), res.no_logging(): yield res

def is_weighted(pair): return getattr(pair.loss_func, 'weight_function', None) is not None

class Spy(Callback):
    "Was the batch weighted? One entry per training batch"
    order = 30
    def __init__(self): self.weighted = []
    def after_loss(self):
        if self.training: self.weighted.append((self.learn.opt.frozen_idx, int(self.learn.model.epochs.sum()), is_weighted(self.pred)))

class NoValidation(Callback):
    order = -5
    def before_validate(self): raise CancelValidException()

def test_validation_may_be_cancelled(learn):
    learn.fit(2, cbs=[ReSup(), NoValidation()])
    assert len(learn.refits)==2 and len(learn.recorder.values)==2

def mixture(learn): return {k:v.clone() for k,v in learn.model.state_dict().items() if k in ('lookup','density','hist','noise_rate','clean_by_class','epochs')}
def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('warmup,weighted', [(0, [False,True,True]), (1, [False,False,True]), (2, [False,False,False])])
def test_warmup_of_fine_tune_counts_unfrozen_epochs(learn, warmup, weighted):
    "The frozen epoch, in which there is no mixture yet, doesn't count"
    spy = Spy()
    learn.fine_tune(2, freeze_epochs=1, cbs=[ReSup(warmup=warmup), spy])
    assert {(e,w) for _,e,w in spy.weighted}==set(enumerate(weighted)) and learn.model.epochs.tolist()==[1,2]
    assert learn.model.noise_rate.item()==pytest.approx(learn.refits[-1]['noise_rate'], abs=1e-6)

def test_fine_tune_trains_all_layers_at_one_rate(learn):
    "Without a frozen epoch, whatever was frozen; fastai's own way is two arguments away"
    rates = []
    class Rates(Callback):
        def after_batch(self):
            if self.training: rates.append([o['lr'] for o in self.opt.hypers])
    learn.freeze()
    learn.fine_tune(2, 1e-2, cbs=[ReSup(), Rates()])
    assert learn.model.epochs.tolist()==[0,2] and all(a==b for a,b in rates)
    assert max(rates)[0]==pytest.approx(5e-3, rel=0.05)
    rates.clear()
    learn.fine_tune(1, 1e-2, freeze_epochs=1, lr_mult=100, cbs=Rates())
    assert learn.model.epochs.tolist()==[1,3] and rates[-1][1]==pytest.approx(100*rates[-1][0])

def test_warmup_counts_over_fits_and_starts_anew_where_bodies_are_frozen(learn):
    "Unfrozen epochs count for frozen ones, too"
    learn.fit(1, cbs=ReSup(warmup=2))
    spies = [Spy(), Spy()]
    learn.fit(2, cbs=[ReSup(warmup=2), spies[0]])
    assert {(e,w) for _,e,w in spies[0].weighted}=={(1,False),(2,True)}
    learn.freeze()
    learn.fit(1, cbs=[ReSup(warmup=3), spies[1]])
    assert {w for *_,w in spies[1].weighted}=={True}

def test_bodies_that_stay_frozen_are_weighted_after_a_frozen_warmup(learn):
    spy = Spy()
    learn.freeze()
    learn.fit(2, cbs=[ReSup(), spy])
    assert {(i,e,w) for i,e,w in spy.weighted}=={(1,0,False),(1,1,True)}

def test_without_resup_it_is_plain_cross_entropy(learn):
    spy = Spy()
    learn.fit(2, cbs=spy)
    assert not any(w for *_,w in spy.weighted) and not learn.model.has_mixture and learn.refits==[]

def test_a_later_fit_goes_on_where_the_first_stopped(learn):
    spy = Spy()
    learn.fit(1, cbs=ReSup())
    learn.fit(1, cbs=[ReSup(), spy])
    assert all(w for *_,w in spy.weighted) and len(learn.refits)==2

def test_resup_after_plain_epochs_fits_a_mixture_first(learn):
    spy = Spy()
    learn.fit(1)
    learn.fit(1, cbs=[ReSup(), spy])
    assert all(w for *_,w in spy.weighted) and len(learn.refits)==2

def test_names_of_the_record_are_read_only(learn):
    learn.fit(2, cbs=ReSup(history=True))
    r = learn.record
    assert learn.mixtures is r.mixtures and learn.similarities is r.similarities and learn.refits is r.refits and learn.p_clean_history is r.p_clean
    assert r.table().columns.tolist()==['epoch','noise_rate','auroc','note'] and len(r.table())==len(r.p_clean)==r.means.n==2
    for name in ('mixtures','similarities','refits','p_clean_history'):
        with pytest.raises(AttributeError): setattr(learn, name, None)

def test_exported_record_is_small(learn, tmp_path):
    "Similarities of earlier epochs stay behind"
    learn.fit(2, cbs=ReSup())
    learn.export(tmp_path/'e.pkl')
    loaded = load_learner(tmp_path/'e.pkl')
    assert loaded.record.means is None and learn.record.means.probs.shape==(2,84) and repr(loaded.refits)==repr(learn.refits)

def test_what_is_not_training_leaves_the_mixture_alone(learn, tmp_path):
    learn.path = tmp_path
    learn.fit(1, cbs=ReSup())
    before,refits,weights = mixture(learn),len(learn.refits),deepcopy(learn.model.state_dict())
    learn.add_cb(ReSup())
    learn.validate()
    learn.get_preds(); learn.get_preds(ds_idx=0); learn.predict(learn.dls.valid_ds.items[0])
    with pytest.MonkeyPatch.context() as m:
        m.setattr('matplotlib.pyplot.show', lambda *a, **k: None)
        learn.lr_find(num_it=8, show_plot=False)
    assert same(before, mixture(learn)) and len(learn.refits)==refits
    assert all(torch.equal(a, b) for a,b in zip(weights.values(), learn.model.state_dict().values()))

def test_save_and_load_carry_the_mixture(learn, tmp_path):
    learn.path = tmp_path
    learn.fit(2, cbs=ReSup(preset='reference'))            # its lookup has another size
    learn.save('pair')
    other = ReSupLearner(learn.dls, [Tiny(), Tiny()], splitter=body_head, path=tmp_path)
    other.load('pair')
    assert same(mixture(learn), mixture(other)) and not other.model.interpolate
    assert len(other.plot_mixture())==2

def test_export_predicts_like_the_ensemble(learn, tmp_path):
    learn.path = tmp_path
    learn.fit(1, cbs=ReSup())
    preds,_ = learn.get_preds()
    learn.export('model.pkl')
    loaded = load_learner(tmp_path/'model.pkl')
    with loaded.no_bar(), loaded.no_logging():
        again,_ = loaded.get_preds(dl=loaded.dls.test_dl([o.file for o in learn.dls.valid_ds.items], num_workers=0))
    torch.testing.assert_close(preds, again)
    pair = ordered_pass(learn, lambda pair,y: torch.stack([z.softmax(-1) for z in pair]).mT, learn.dls.valid).mT
    torch.testing.assert_close(torch.as_tensor(preds), pair.mean(0), rtol=1e-4, atol=1e-5)

def test_recorded_similarities_are_those_of_the_batches(learn):
    seen = {}
    class See(Callback):
        order = 30
        def after_loss(self):
            if self.training: seen[self.iter] = self.pred.similarity(self.y)
    learn.fit(2, cbs=[MixtureRefit(), See()])              # the first fit is by a pass
    order,n = list(learn.dls.train.sample()),sum(s.shape[1] for s in seen.values())
    torch.testing.assert_close(learn.similarities[:,order[:n]], torch.cat(list(seen.values()), 1))
    assert n==80 and learn.similarities.isnan().any(0).sum()==4     # the last, incomplete batch is dropped

def test_ordered_pass_sees_every_image_unaugmented(learn):
    learn.fit(1, cbs=MixtureRefit(refit='pass'))
    direct = ordered_pass(learn, lambda pair,y: pair.similarity(y))
    torch.testing.assert_close(learn.similarities, direct)
    torch.testing.assert_close(direct, ordered_pass(learn, lambda pair,y: pair.similarity(y)))
    assert direct.shape==(2,84) and learn.model.training is False

@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_mixed_images_are_not_recorded(learn, mix):
    learn.fit(2, cbs=[ReSup(), mix()])
    torch.testing.assert_close(learn.similarities, ordered_pass(learn, lambda pair,y: pair.similarity(y)), rtol=1e-3, atol=1e-4)
    assert np.isfinite(learn.recorder.losses[-1])

def test_gradient_accumulation(learn):
    learn.fit(2, cbs=[ReSup(), GradientAccumulation(32)])
    assert len(learn.refits)==2 and np.isfinite(learn.recorder.losses[-1])

def test_progress_table(learn):
    rows = []
    learn.metrics = [accuracy, F1Score(average='macro')]
    learn.logger = rows.append
    learn.fit(1, cbs=ReSup())
    assert list(learn.recorder.metric_names)==['epoch','train_loss','valid_loss','accuracy','f1_score','accuracy_0','f1_score_0',
                                              'accuracy_1','f1_score_1','noise_rate','auroc','time']
    assert len(rows[-1])==12 and 0<rows[-1][-3]<1 and 0<rows[-1][-2]<1
    z = ordered_pass(learn, lambda pair,y: torch.stack(tuple(pair)).mT, learn.dls.valid).mT
    y = torch.tensor([learn.dls.vocab.o2i[o.label] for o in learn.dls.valid_ds.items])
    for got,want in zip([rows[-1][5], rows[-1][7]], (z.argmax(-1)==y).float().mean(1)): assert got==pytest.approx(want.item())

def test_any_image_dataloaders_will_do(faces):
    dls = ImageDataLoaders.from_path_func(faces, get_image_files(faces/'train'), parent_label, valid_pct=0.2, seed=0, item_tfms=Resize(32), bs=16, num_workers=0)
    learn = ReSupLearner(dls, [Tiny(), Tiny()], metrics=accuracy)
    before = [o.clone() for o in learn.model.parameters()]
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=ReSup())
    assert list(learn.recorder.metric_names)[-2:]==['noise_rate','time'] and all(not torch.equal(a, b) for a,b in zip(before, learn.model.parameters())) # without a splitter, too
    assert learn.similarities.shape==(2,len(dls.train_ds))

def test_any_two_component_estimator_will_do(learn):
    learn.fit(2, cbs=ReSup(estimator=GaussianMixture(2, random_state=0)))
    assert isinstance(learn.mixtures[0], GaussianMixture) and learn.model.has_mixture
    lookup = learn.model.lookup
    assert (lookup.diff(dim=1)>=0).all() and len(learn.plot_mixture())==2

def test_a_fit_that_fails_keeps_weights_of_one_and_says_so(learn):
    with torch.no_grad():
        for net in learn.model.nets: net[1].weight.zero_(); net[1].bias.zero_()
    spy = Spy()
    with pytest.warns(UserWarning, match='all weights stay 1'): learn.fit(2, lr=0., cbs=[ReSup(), spy])
    assert not any(w for *_,w in spy.weighted) and 'network 0' in learn.refits[0]['note']

def test_identical_networks_are_made_different():
    net = Tiny()
    with pytest.warns(UserWarning, match='same weights'): model = PairedModel(net, deepcopy(net))
    assert not torch.equal(model.nets[0][1].weight, model.nets[1][1].weight)

def test_an_interrupted_fit_leaves_a_learner_that_trains_on(learn):
    class Stop(Callback):
        def before_backward(self): raise KeyboardInterrupt
    learn.fit(1, cbs=ReSup())
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=[ReSup(), Stop()])
    spy = Spy()
    learn.fit(1, cbs=spy)
    assert not any(w for *_,w in spy.weighted)             # plain again: nothing of ReSup is left behind
    learn.fit(1, cbs=ReSup())
    assert len(learn.refits)==2

def test_bf16_pairs_become_float32_before_they_are_weighted(learn):
    class HalfPair(Callback):
        "What mixed precision does to predictions"
        order = MixedPrecision.order
        def after_pred(self):
            if self.training: self.learn.pred = type(self.pred)([z.half().float() for z in self.pred])
    spy = Spy()
    learn.fit(1, cbs=ReSup())
    learn.fit(1, cbs=[ReSup(), HalfPair(), spy])
    assert all(w for *_,w in spy.weighted)

def test_the_parts_alone(learn):
    learn.fit(1, cbs=MixtureRefit())
    assert learn.model.has_mixture
    before,spy = mixture(learn),Spy()
    learn.fit(1, cbs=[LossReweight(), spy])
    assert all(w for *_,w in spy.weighted) and torch.equal(before['lookup'], learn.model.lookup)

def repeated(faces, workers, seed=3, item_tfms=None):
    "Weights and mixture after a seeded `fine_tune` with random augmentation"
    set_seed(seed, reproducible=True)
    dls = ImageDataLoaders.from_folder(faces, valid='valid', item_tfms=item_tfms or Resize(32), batch_tfms=aug_transforms(), bs=14, num_workers=workers)
    learn = ReSupLearner(dls, [Tiny(), Tiny()], splitter=body_head)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 1e-2, freeze_epochs=1, cbs=ReSup())
    return {k:v.nan_to_num() for k,v in learn.model.state_dict().items()}

def test_same_seed_same_weights(faces):
    "Two runs, and 0 and 2 workers: bit for bit; another seed gives other weights"
    first = repeated(faces, 0)
    assert same(first, repeated(faces, 0)) and same(first, repeated(faces, 2)) and not same(first, repeated(faces, 0, seed=4))

def test_random_items_repeat_with_the_same_number_of_workers(faces):
    "As the docs say: workers draw from generators of their own"
    first,crop = [],RandomResizedCrop(32, min_scale=0.5)
    for workers in (0, 2):
        first.append(repeated(faces, workers, item_tfms=crop))
        assert same(first[-1], repeated(faces, workers, item_tfms=crop))
    assert not same(*first)

def test_classes_that_look_noisy_as_a_whole_get_weight_back(learn):
    learn.fit(3, cbs=ReSup())
    m,dls = learn.model,learn.dls
    p = p_clean(learn.similarities, m.lookup, clip=1e-4)
    seen = learn.similarities.isfinite().all(0)
    for c in range(7):
        at = seen & (dls.train_targs==c)
        torch.testing.assert_close(m.clean_by_class[:,c], p[:,at].mean(1), atol=1e-5, rtol=1e-5)
    f = balance_factors(m.clean_by_class, 1-m.noise_rate, 0.5)
    assert f.shape==(2,7) and (f[0].argmax()==m.clean_by_class[0].argmin()) and f.max()>1>f.min()

def test_balance_reaches_the_loss(learn):
    "The loss of a weighted batch is that of weights times factors, and reference has none"
    seen = []
    class See(Callback):
        order = 40
        def after_loss(self):
            if self.training and is_weighted(self.pred):
                loss = self.pred.loss_func
                seen.append((self.learn.loss.item(), Pair([o.detach() for o in self.pred]), self.y.as_subclass(torch.Tensor), loss.balance, loss.weight_function))
    learn.fit(2, cbs=[ReSup(balance=1., agreement=2.), See()])
    for loss,pair,y,f,weigh in seen:
        want = resup_loss(pair, y, weigh(pair.similarity(y))*f[:,y], 2., True, base_loss=sce_loss)
        assert abs(loss-want.item())<1e-4
    assert len(seen)>=5
    n = len(seen)
    learn.fit(1, cbs=[ReSup(preset='reference'), See()])
    assert len(seen)>n and all(o[3] is None for o in seen[n:])

def test_one_module_is_enough_to_fine_tune():
    "Who imports only `fastai_resup.learner` has fastai's fits, too"
    code = 'from fastai_resup.learner import ReSupLearner as L; assert L.fine_tune and L.fit_one_cycle and L.lr_find'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
