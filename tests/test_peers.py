"Peer methods: each formula against NumPy or literals worked by hand, and each mechanism at work in a short training on drawn faces"
from functools import partial
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import fine_tune, fit_one_cycle, lr_find
from fastai.learner import load_learner
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastcore.foundation import L

from fastai_resup.audit import LabelAudit
from fastai_resup.callbacks import LossReweight, MixtureRefit, ReSup
from fastai_resup.mixture import auroc
from fastai_resup.passes import ordered_pass
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner
from fastai_resup.losses import ReSupLoss, Pair, gce_loss, onehot, sce_loss
from fastai_resup.peers import *
from fastai_resup.synth import make_faces

def net(n=7):
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU()),
                         nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, n)))
def body_head(net): return L(net[0], net[1]).map(params)

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=84, n_valid=21, size=32, progress=False)

def make_learn(faces, **kwargs):
    set_seed(0)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=16, noise=0.3, seed=0, num_workers=0, cache=True, **kwargs)
    return ReSupLearner(dls, [net(), net()], splitter=body_head, metrics=accuracy)

@pytest.fixture
def learn(faces):
    res = make_learn(faces)
    with res.no_bar(), res.no_logging(): yield res

class Spy(Callback):
    "Calls a function of the learner after each training batch's loss"
    order = 30
    def __init__(self, f): self.f,self.seen = f,[]
    def after_loss(self):
        if self.training: self.seen.append(self.f(self.learn))

def hooks(model): return [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]

# formulas

rng = np.random.default_rng(0)
Z,Y,T = rng.normal(size=(6,4))*2,rng.integers(0, 4, 6),rng.dirichlet(np.ones(4), 6)*0.8
P = np.exp(Z)/np.exp(Z).sum(1, keepdims=True)
z,y,t,PY = torch.tensor(Z),torch.tensor(Y),torch.tensor(T),P[np.arange(6),Y]
def close(a, b, tol=1e-6): np.testing.assert_allclose(np.asarray(a.detach()), b, rtol=tol, atol=tol)

def test_losses_against_numpy():
    q = np.full((6,4), 0.05); q[np.arange(6),Y] += 0.8
    close(smoothing_loss(z, y, 0.2), -(q*np.log(P)).sum(1))
    close(gce_loss(z, y, 0.7), (1-PY**0.7)/0.7)
    close(sce_loss(z, y, 0.1, 1., -4.), 0.1*-np.log(PY)+4*(1-PY))
    close(sce_loss(z, F.one_hot(y, 4).double(), 2., 0.5, -6.), 2*-np.log(PY)+3*(1-PY))
    close(elr_loss(z, y, t, 3.), -np.log(PY)+3*np.log(1-(P*T).sum(1)), 1e-2)     # p is kept 1e-4 off 0 and 1
    close(soft_cross_entropy(z, t), -(T*np.log(P)).sum(1))
    close(prior_penalty(torch.tensor(P)), (0.25*np.log(0.25/P.mean(0))).sum())

def test_gradient_of_elr_by_the_papers_lemma():
    "Its gradient is p - y + lam*g with g_c = p_c/(1-<p,t>) * sum_k (t_k-t_c) p_k (Liu et al. 2020, lemma 2)"
    x = z.clone().requires_grad_()
    elr_loss(x, y, t, 3.).sum().backward()
    g = P/(1-(P*T).sum(1, keepdims=True))*((T*P).sum(1, keepdims=True)-T)
    close(x.grad, P-np.eye(4)[Y]+3*g, 2e-3)

def test_selection_and_correction_by_hand():
    w = small_loss_weights(torch.tensor([5.,1,4,2,3]), 0.4)
    assert w.tolist()==pytest.approx([0, 5/3, 0, 5/3, 5/3])
    w = torch.tensor([1.,0.,0.5,0.5,1.,0.])
    hard = np.eye(4)[P.argmax(1)]
    W,one = w.numpy()[:,None],np.eye(4)[Y]
    close(bootstrap_targets(torch.tensor(one).float(), torch.tensor(P).float(), w), (1-W)*one+W*hard)
    close(bootstrap_targets(torch.tensor(one).float(), torch.tensor(P).float(), w, hard=False), (1-W)*one+W*P)

def test_dividemix_targets_and_loss_against_numpy():
    p = rng.dirichlet(np.ones(4), (2,2,6))
    w = np.array([0.9,0.1,0.5,0.49,1.,0.])
    one,kept = np.eye(4)[Y],w>=0.5
    for m in range(2):
        want = np.where(kept[:,None], w[:,None]*one+(1-w[:,None])*p[m].mean(0), p.reshape(4,6,4).mean(0))**2
        got,k = refine_targets(torch.tensor(one), torch.tensor(p), torch.tensor(w), m, 0.5, 0.5)
        close(got, want/want.sum(1, keepdims=True)); assert k.tolist()==kept.tolist()
    lx = -(T*np.log(P)).sum(1)[kept].mean(); lu = ((P-T)**2).mean(1)[~kept].mean()
    close(mixmatch_loss(z, t, torch.tensor(kept), 25.), lx+25*lu+(0.25*np.log(0.25/P.mean(0))).sum())
    assert mixmatch_loss(z, t, torch.zeros(6, dtype=torch.bool), 1.).isfinite() and mixmatch_loss(z, t, torch.ones(6, dtype=torch.bool), 1.).isfinite()

def test_scn_relabels_only_below_and_beyond_the_margin():
    a = torch.tensor([0.1,0.9,0.2,0.8,0.7,0.6,0.5,0.95,0.85,0.3])
    low = rank_split(a, 0.7)
    assert low.nonzero()[:,0].tolist()==[0,2,9]
    p = torch.tensor([[0.61,0.39]]*10); p[2] = torch.tensor([0.59,0.41])
    assert relabelled(p, torch.ones(10, dtype=torch.long), low, 0.2).tolist()==[0,1,1,1,1,1,1,1,1,0]      # 0.59-0.41 is within the margin
    assert rank_loss(a, low, 0.15).item()==0 and rank_loss(a, low, 0.8).item()==pytest.approx(0.8-(5.3/7-0.2), abs=1e-6)

def test_rul_mixes_by_relative_uncertainty():
    s = torch.tensor([1.,3.,1.])
    assert mix_by_uncertainty(torch.eye(3), s, torch.tensor([1,2,0])).tolist()==[[0.25,0.75,0],[0,0.75,0.25],[0.5,0,0.5]]

def test_eac_maps_of_mirrored_images():
    torch.manual_seed(0)
    body,head = net()
    x = torch.rand(3,3,32,32)
    maps = lambda x: class_maps(head, body(x))
    assert maps(x).shape==(3,7,7,7) and (flip_consistency(maps(x), maps(x.flip(-1)))>0).all()
    with torch.no_grad(): body[0].weight.add_(body[0].weight.flip(-1).clone())
    body[0].stride,x = (1,1),x+x.flip(-1)                                       # symmetric filters and symmetric images
    body.eval()
    assert flip_consistency(maps(x), maps(x.flip(-1))).max()<1e-9
    close(maps(x)[:,:,2,3], head(body(x)[:,:,2,3][...,None,None]).detach().numpy(), 1e-5) # the head's answer to one place

def test_mixtures_find_the_small_losses():
    torch.manual_seed(0)
    l,right = torch.cat([torch.rand(300)**2, 2+torch.rand(100)*2]),np.arange(400)<300
    assert ((small_loss_posterior(l)>0.5).numpy()==right).all()
    assert ((LossMixture().fit(l).p_clean(l)>0.5).numpy()==right).all()

# mechanisms

def test_every_batch_knows_its_images(learn):
    cb = GCE()
    spy = Spy(lambda l: torch.equal(l.dls.train_targs[cb.ids], torch.as_tensor(l.y)) and len(cb.ids)==len(l.y))
    learn.fit(2, cbs=[cb, spy])
    assert len(spy.seen)==10 and all(spy.seen)

@pytest.mark.parametrize('make,f', [(LabelSmoothing, smoothing_loss), (GCE, gce_loss), (SCE, partial(sce_loss, alpha=0.1))])
def test_loss_of_the_learner_is_that_of_both_networks(learn, make, f):
    spy = Spy(lambda l: (l.loss.item(), sum(f(z, torch.as_tensor(l.y)).mean() for z in l.pred).item()))
    learn.fit(1, cbs=[make(), spy])
    assert len(spy.seen)==5 and np.allclose(*zip(*spy.seen), rtol=1e-5)

def test_elr_remembers(learn):
    cb = ELR(beta=0.5)
    learn.fit(2, 1e-2, cbs=cb)
    mass = cb.targets.sum(-1)
    assert set(mass.double().round(decimals=4).flatten().tolist())<={0., 0.5, .75} and torch.allclose(*mass)
    before = cb.targets.clone()
    learn.fit(1, 1e-2, cbs=cb)
    assert not torch.equal(before, cb.targets) and (cb.targets.sum(-1)>=mass-1e-5).all()
    i = cb.targets.sum(-1)[0]>0
    assert torch.equal(cb.given[i], learn.dls.train_targs[i]) and learn.clean_score.shape==(2,84)

def test_co_teaching_drops_by_schedule_and_lets_the_other_choose(learn):
    cb = CoTeaching(ramp=0.75)
    def both(l):
        l0,l1 = (F.cross_entropy(z.detach(), torch.as_tensor(l.y), reduction='none').numpy() for z in l.pred)
        n = int((1-cb.drop)*16+1e-6)
        return l.loss.item(), l0[np.argsort(l1)[:n]].mean()+l1[np.argsort(l0)[:n]].mean()
    spy = Spy(both)
    learn.fit(4, cbs=[cb, spy])
    rate = (learn.dls.true_targs!=learn.dls.train_targs).float().mean().item()
    assert cb.dropped==pytest.approx([0, rate/3, 2*rate/3, rate]) and np.allclose(*zip(*spy.seen), rtol=1e-5)
    own = (-ordered_pass(learn, lambda pair,y: torch.stack([F.cross_entropy(z, torch.as_tensor(y), reduction='none') for z in pair]))).exp()
    torch.testing.assert_close(learn.clean_score, own)

def test_m_correction_corrects_after_its_warmup(learn):
    cb,n = MCorrection(warmup=0.5),{}
    def moved(l): n.setdefault(l.epoch, []).append(0. if cb.corrected is None else (cb.corrected-onehot(torch.as_tensor(l.y), 7)).abs().sum().item())
    learn.fit(4, 1e-2, cbs=[cb, Spy(moved)])
    assert [sum(n[e])>0 for e in range(4)]==[False,False,True,True]
    losses = image_losses(learn)
    torch.testing.assert_close(learn.clean_score, torch.stack([f.p_clean(l) for f,l in zip(cb.fits, losses)]))
    assert (learn.clean_score[0][losses[0].argsort()].diff()<=1e-6).all()       # falls with the loss

def test_m_correction_mixes_images_and_labels(faces):
    learn = make_learn(faces, batch_tfms=[])
    cb,x0 = MCorrection(alpha=1., warmup=0., prior=0.5),{}
    class Before(Callback):
        order = -5
        def before_batch(self): x0['x'] = self.x.clone()
    def right(l):
        mixed = cb.lam*x0['x']+(1-cb.lam)*x0['x'][cb.other]
        y = F.one_hot(torch.as_tensor(l.y), 7).float(); q = cb.lam*y+(1-cb.lam)*y[cb.other]
        if cb.corrected is not None: q = cb.lam*cb.corrected+(1-cb.lam)*cb.corrected[:,cb.other]
        want = sum(-(r*z.log_softmax(-1)).sum(1).mean() for r,z in zip(q.expand(2,-1,-1), l.pred))
        if cb.corrected is not None: want = want+0.5*sum(prior_penalty(z.softmax(-1)) for z in l.pred)
        return torch.allclose(mixed, l.x, atol=1e-5), abs(want.item()-l.loss.item())<1e-4
    spy = Spy(right)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=[Before(), cb, spy])
    assert len(spy.seen)==10 and cb.corrected is not None and all(a and b for a,b in spy.seen)

class OneTrusts(DivideMix):
    "Network 0 trusts every label and network 1 none"
    def divide(self): self.w = torch.stack([torch.ones(84), torch.zeros(84)])

def test_dividemix_divides_by_the_other_network(learn):
    cb = OneTrusts()
    spy = Spy(lambda l: [(p[2].float().mean().item(),len(p[2])) for p in cb.parts] if l.epoch else [(len(z),l.loss.item()) for z in l.pred])
    learn.fit(2, cbs=[cb, spy])
    assert all(o==[(0.,32),(1.,32)] for o in spy.seen[5:])                      # 16 images, two views
    assert all(n==16 for o in spy.seen[:5] for n,_ in o) and cb.kept==[[0.,1.]]

def test_dividemix_trains_on_its_mixed_images(learn):
    cb = DivideMix(ramp=0.5, lam_r=0.3)
    lams = []
    def check(l):
        if not cb.divided: return True
        lams.append(cb.lam_now())
        want = sum(mixmatch_loss(z, q, k, lams[-1], 0.3) for z,(_,q,k) in zip(l.pred, cb.parts))
        with torch.no_grad(): again = [n(x) for n,(x,*_) in zip(l.model.nets, cb.parts)]
        return bool(torch.isclose(want, l.loss)) and all(torch.allclose(a, z, atol=1e-4) for a,z in zip(again, l.pred))
    spy = Spy(check)
    learn.fit(4, 1e-2, cbs=[cb, spy])
    assert all(spy.seen) and lams[0]==0 and lams==sorted(lams) and lams[-1]==25
    torch.testing.assert_close(learn.clean_score, torch.stack([small_loss_posterior(l) for l in image_losses(learn)]))
    assert all(torch.allclose(q.sum(1), torch.ones(32), atol=1e-5) and x.shape==(32,3,32,32) for x,q,_ in cb.parts)

def test_second_view_is_of_the_same_images(faces):
    for tfms,same in (([],True), (None,False)):
        learn = make_learn(faces, batch_tfms=tfms)
        cb = GCE()
        spy = Spy(lambda l: torch.allclose(DivideMix.second_view(cb), torch.as_tensor(l.x)))
        with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[cb, spy])
        assert all(spy.seen)==same

def test_scn_cures_late_and_trains_its_heads(learn):
    cb = SCN(relabel=0.5, lead=0., high=0.5)
    heads = []
    class SeeHeads(Callback):
        def after_batch(self):
            if self.training: heads.append(cb.heads[0][0].weight.detach().clone())
    learn.fit(4, 1e-1, cbs=[cb, SeeHeads()])
    assert cb.changed[:2]==[[0.,0.],[0.,0.]] and max(cb.changed[-1])>0
    assert not torch.equal(heads[0], heads[-1])
    torch.testing.assert_close(cb.given[cb.given>=0], learn.dls.train_targs[cb.given>=0])
    assert (learn.clean_score>0).all() and (learn.clean_score<1).all() and not torch.equal(*learn.clean_score)

def test_scn_loss_by_hand(learn):
    cb = SCN(gamma=0.4)
    def both(l):
        want = 0
        for m,zz in enumerate(l.pred):
            a = cb.heads[m](cb.features[m])[:,0].detach().numpy(); o = np.argsort(a)
            rr = max(0, 0.15-(a[o[5:]].mean()-a[o[:5]].mean()))                   # 30 % of 16 are 5
            want += 0.4*rr+0.6*F.cross_entropy(torch.tensor(a)[:,None]*zz.detach(), torch.as_tensor(l.y)).item()
        return l.loss.item(),want
    spy = Spy(both)
    learn.fit(1, cbs=[cb, spy])
    assert np.allclose(*zip(*spy.seen), rtol=1e-4)

@pytest.mark.parametrize('make', [SCN, RUL])
def test_heads_go_with_the_callback(learn, make, tmp_path):
    cb,sizes = make(),[]
    n = len(list(learn.model.parameters()))
    class Sizes(Callback):
        def before_validate(self): sizes.append(sum(len(g) for g in self.opt.param_lists))
    learn.fine_tune(1, freeze_epochs=1, cbs=[cb, Sizes()])
    assert sizes==[n+len(list(cb.heads.parameters()))]*2                        # trained in both fits
    assert sum(len(g) for g in learn.opt.param_lists)==n and not any(p in learn.opt.state for p in cb.heads.parameters())
    assert len(list(learn.model.parameters()))==n
    learn.path = tmp_path
    learn.save('x'); learn.load('x')

def test_rul_classifies_mixed_features(learn):
    cb = RUL()
    spy = Spy(lambda l: (l.loss.item(), sum(F.cross_entropy(z, torch.as_tensor(l.y)[j]).item() for z in l.pred for j in (slice(None),cb.other)), l.x.clone(), [z.detach() for z in l.pred], cb.other))
    learn.fit(1, 0., cbs=[cb, spy])                                            # at learning rate 0 the networks can be asked again
    for loss,want,x,zs,other in spy.seen:
        assert loss==pytest.approx(want, rel=1e-5)
        for m,n in enumerate(learn.model.nets):
            with torch.no_grad():
                mu = n[1][:4](n.train()[0](torch.as_tensor(x)))
                mixed = mix_by_uncertainty(mu, cb.sigma(m, mu), other)
                torch.testing.assert_close(n[1][4](mixed), zs[m], rtol=1e-4, atol=1e-5)

def test_rul_learns_uncertainty(learn):
    cb = RUL()
    learn.fit(1, 1e-2, cbs=cb)
    before = [p.clone() for p in cb.heads.parameters()]
    learn.fit(1, 1e-2, cbs=cb)
    assert all(not torch.equal(a, b) for a,b in zip(before, cb.heads.parameters()))
    assert learn.clean_score.std()>0

def test_eac_erases_and_asks_for_consistency(learn):
    cb,x0 = EAC(lam=3.),{}
    class Before(Callback):
        order = -5
        def before_batch(self): x0['x'] = self.x.clone()
    def seen(l):
        share = (torch.as_tensor(l.x)!=x0['x']).any(1).float().mean((1,2))
        ce = sum(F.cross_entropy(z, torch.as_tensor(l.y)).item() for z in l.pred)
        return share,l.loss.item()-ce
    spy = Spy(seen)
    learn.fit(1, 0., cbs=[Before(), cb, spy])
    share = torch.cat([s for s,_ in spy.seen])
    assert 0.01<share.min() and share.max()<0.27 and share.std()>0.01 and all(c>0 for _,c in spy.seen)
    with torch.no_grad():
        for n in learn.model.nets:
            c = n[0][0]; c.weight.copy_(c.weight+c.weight.flip(-1)); c.stride,c.padding = (1,1),(2,2)
    learn.fit(1, 0., cbs=[Before(), cb, spy])
    assert all(abs(c)<1e-4 for _,c in spy.seen[5:])                             # filters that are their own mirror images

# with the rest of fastai

@pytest.mark.parametrize('name', peers)
def test_training_evaluation_and_export(learn, name, tmp_path):
    learn.path = tmp_path
    cb = peers[name]()
    learn.fit_one_cycle(3, 1e-2, cbs=cb)
    assert np.isfinite(learn.recorder.values[-1][0]) and list(learn.recorder.metric_names)[2:-1]==['valid_loss','accuracy','accuracy_0','accuracy_1']
    assert not hooks(learn.model) and cb.learn is None
    score = getattr(learn, 'clean_score', None)
    assert (score is None)==(name in ('label_smoothing','mixup','gce','sce','eac'))
    if score is not None: assert score.shape==(2,84) and score.isfinite().all() and 0<=auroc(learn.dls.true_targs==learn.dls.train_targs, score.mean(0))<=1
    preds,targs = learn.get_preds()
    assert float(accuracy(preds, targs))==pytest.approx(float(learn.validate()[1]))
    learn.export('e.pkl')
    loaded = load_learner(tmp_path/'e.pkl')
    with loaded.no_bar(): *_,p = loaded.predict(learn.dls.valid_ds.items[0].file)
    torch.testing.assert_close(torch.as_tensor(p), torch.as_tensor(preds[0]), rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize('name', [n for n in peers if n!='mixup'])
def test_what_is_not_training_leaves_no_trace(learn, name):
    cb = peers[name]()
    learn.fit(2, 1e-2, cbs=cb)
    learn.add_cb(cb)
    state = lambda: {k:v.clone() for k,v in vars(cb).items() if isinstance(v, torch.Tensor)}
    before,score = state(),learn.clean_score
    weights = {k:v.clone() for k,v in learn.model.state_dict().items() if k.startswith('nets')}
    learn.validate(); learn.get_preds(); learn.get_preds(ds_idx=0)
    with pytest.MonkeyPatch.context() as m:
        m.setattr('matplotlib.pyplot.show', lambda *a, **k: None)
        learn.lr_find(num_it=6, show_plot=False)
    assert learn.clean_score is score and not hooks(learn.model)
    assert all(torch.equal(v, vars(cb)[k]) for k,v in before.items())
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in weights.items())

@pytest.mark.parametrize('name', [n for n in peers if n!='mixup'])
def test_an_interrupted_fit_leaves_nothing_behind(learn, name):
    class Stop(Callback):
        order = 100
        def before_batch(self):
            if self.training and self.iter==2: raise KeyboardInterrupt
    n = len(list(learn.model.parameters()))
    with pytest.raises(KeyboardInterrupt): learn.fit(3, cbs=[peers[name](), Stop()])
    assert not hooks(learn.model) and sum(len(g) for g in learn.opt.param_lists)==n
    spy = Spy(lambda l: l.pred.loss_func is None)
    learn.fit(1, cbs=spy)
    assert all(spy.seen)                                                       # plain again

def test_peers_and_resup_after_each_other(learn):
    learn.fit(2, cbs=ReSup())
    learn.fit(2, cbs=ELR())
    learn.fit(1, cbs=ReSup())
    assert len(learn.refits)==3 and learn.clean_score.shape==(2,84)

@pytest.mark.parametrize('name', peers)
def test_wrong_labels_can_be_listed_after_any_method(faces, name):
    def trained(*cbs):
        learn = make_learn(faces)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, cbs=[peers[name](), *cbs])
        return learn
    alone,watched = trained(),trained(watch := MixtureRefit())
    assert all(map(torch.equal, alone.model.nets.state_dict().values(), watched.model.nets.state_dict().values()))
    by_pass = name in ('mixup','m_correction','dividemix','rul')               # whose training images have no label of their own
    assert watch.seen is None and len(watched.refits)==2
    sims = ordered_pass(watched, lambda pair,y: pair.similarity(y))
    assert torch.allclose(watched.similarities, sims)==by_pass                 # else they are those seen while training
    df = LabelAudit.from_learner(watched).df
    assert len(df)==84 and df.p_clean.between(0, 1).all() and df.p_clean.nunique()>10
    assert getattr(alone, 'clean_score', None) is None or torch.equal(alone.clean_score, watched.clean_score)

def test_what_cannot_work_says_so(learn):
    with pytest.raises(ValueError, match='GCE and LossReweight would each set the loss'): learn.fit(1, cbs=[GCE(), MixtureRefit(), LossReweight()])
    with pytest.raises(ValueError, match='ELR and ReSup would each set the loss'): learn.fit(1, cbs=[ELR(), ReSup()])
    learn.loss_func = ReSupLoss(label_smoothing=0.1)
    with pytest.raises(ValueError, match='a loss of its own'): learn.fit(1, cbs=ELR())
    learn.loss_func = ReSupLoss()
    with pytest.raises(ValueError, match='leave MixUp out'): learn.fit(1, cbs=[DivideMix(), MixUp()])
    with pytest.raises(ValueError, match='q must lie'): GCE(0.)
    learn.fit(1, cbs=[SCE(), MixUp()])
    learn.model.nets[0].append(nn.Identity())
    with pytest.raises(TypeError, match='body, head'): learn.fit(1, cbs=EAC())

def test_soft_labels():
    "Those methods that are defined on them train, the others say what they need"
    torch.manual_seed(0)
    ds = [(torch.randn(3,32,32), torch.tensor([0.7,0.3,0,0,0,0,0])) for _ in range(32)]
    dls = DataLoaders(*(DataLoader(ds, bs=16, num_workers=0) for _ in range(2))); dls.n_inp = 1
    for name in peers:
        if name=='mixup': continue
        learn = ReSupLearner(dls, [net(), net()], splitter=body_head)
        with learn.no_bar(), learn.no_logging():
            if name in ('label_smoothing','sce','elr'): learn.fit(2, cbs=peers[name]())
            elif name=='co_teaching':
                with pytest.raises(ValueError, match='pass noise_rate'): learn.fit(1, cbs=CoTeaching())
                with pytest.raises(TypeError, match='soft'): learn.fit(1, cbs=CoTeaching(noise_rate=0.3))
            else:
                with pytest.raises(TypeError, match='soft'): learn.fit(1, cbs=peers[name]())

def test_degenerate_losses_are_said(learn):
    with torch.no_grad():
        for n in learn.model.nets: n[1][4].weight.zero_(); n[1][4].bias.zero_()
    with pytest.warns(UserWarning, match='its warm-up goes on'): learn.fit(2, lr=0., cbs=DivideMix())
    with pytest.warns(UserWarning, match='keeps the former mixture'): learn.fit(2, lr=0., cbs=MCorrection(warmup=0.))
    assert learn.clean_score is None
