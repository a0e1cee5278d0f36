"""The methods of the benchmarks by name: what they are called in the csv, their callbacks and their pairs of networks.

A name has arguments after a colon: 'resup:refit=pass,warmup=2', 'gce:q=.9', 'plain:head=linear'. 'plain' is the baseline pair,
'truth' the oracle, 'resup' and 'reference' are `ReSup` with either preset, and the others are `peers`."""
import ast
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from fastai.metrics import accuracy
from fastcore.foundation import L
from fastai_resup.callbacks import MixtureRefit, ReSup
from fastai_resup.learner import resup_learner
from fastai_resup.losses import Pair, WeightedLoss, gce_loss, sce_loss
from fastai_resup.networks import lite_names
from fastai_resup.peers import Peer, peers

def parse(method):
    "Name and arguments of a method or schedule: 'resup:refit=pass,warmup=2'"
    name,_,args = method.partition(':')
    if not args: return name,{}
    pairs = [o.split('=') for o in args.split(',')]
    return name,{k:_literal(v) for k,v in pairs}

def _literal(v):
    try: return ast.literal_eval(v)
    except (ValueError, SyntaxError): return v

class Truth(Peer):
    "The oracle, what suppression could reach at best: clean labels alone, from the first batch on; on cross entropy or on `sce_loss`"
    def __init__(self, base_loss='ce'):
        self.loss = dict(ce=partial(F.cross_entropy, reduction='none'), sce=sce_loss)[base_loss]

    def start_batch(self):
        "Which labels of the batch are clean?"
        true = self.dls.true_targs[self.ids]
        self.clean = (true==self.y.as_subclass(Tensor)).float()

    def net_loss(self, m, z, y):
        share = self.clean.mean().clamp(min=1/len(y))
        return self.clean*self.loss(z, y)/share

def given_prob(logits, y):
    "Probability of the given label, the exponential of minus its loss: (..., B, K) and (B,) to (..., B)"
    p = logits.detach().softmax(-1, torch.float32)
    ids = y.as_subclass(Tensor).expand(p.shape[:-1])
    return p.gather(-1, ids[...,None])[...,0]

class AblatedLoss(WeightedLoss):
    "`WeightedLoss` by another judgement of the labels, or by each network's own"
    def __init__(self, judge, own, **kwargs):
        super().__init__(**kwargs)
        self.judge,self.own = judge,own

    def judged(self, pair, targ):
        judged = Pair(*pair)
        judged.similarity = lambda targ: self.judge(pair, targ)
        w = super().judged(judged, targ)
        return w.flip(0) if self.own else w

class Ablation(ReSup):
    """`ReSup` with a part exchanged

    `swap=0`: each network's loss is weighted by its own p(clean). `judge='loss'`: mixtures of the given label's probability, which says
    what the loss says, in place of the similarity. `mirror=1`: network 1 sees the images mirrored in training."""
    def __init__(self, swap=1, judge='similarity', mirror=0, **kwargs):
        if judge not in ('similarity','loss'): raise ValueError(f"judge must be 'similarity' or 'loss', not {judge!r}")
        super().__init__(**kwargs)
        self.swap,self.judge,self.mirror = swap,judge,mirror

    def before_fit(self):
        super().before_fit()
        if self.judge=='loss': self.learn.judge = given_prob
        def mirrored(net, inp): return (inp[0].flip(-1),) if net.training else None
        if self.mirror: self.hook = self.model.nets[1].register_forward_pre_hook(mirrored)

    def after_fit(self):
        super().after_fit()
        if self.mirror: self.hook.remove()

    def similarity(self, pair, targ):
        if self.judge=='loss': return given_prob(torch.stack(tuple(pair)), targ)
        return super().similarity(pair, targ)

    def weighted_loss(self):
        usual = super().weighted_loss()
        return AblatedLoss(self.similarity, not self.swap, **vars(usual))

base_losses = dict(ce=None, gce=gce_loss, sce=sce_loss)

def make_cbs(method, review=None):
    """The callback of a method; None for the baseline pair

    `trusted=150` lets `review`, a function, decide about that many labels.

    Beside the arguments of its callback a method takes `arch` and `head`, which are `make_pair`'s. `audit=1` lets a `MixtureRefit` watch a
    method that has none, so that `LabelAudit` can judge its labels. For `ReSup`: `base_loss` is 'ce', 'gce' or 'sce', `alpha` or `q` the
    number that belongs to the last two; `swap`, `judge` and `mirror` are `Ablation`'s."""
    name,kwargs = parse(method)
    for k in ('arch','head'): kwargs.pop(k, None)
    watched = kwargs.pop('audit', 0)
    if 'trusted' in kwargs: kwargs['trusted'] = review(kwargs['trusted'])
    cb = _make_cb(name, kwargs)
    return [*L(cb), MixtureRefit()] if watched else cb

def _make_cb(name, kwargs):
    if name=='plain': return None
    if name=='truth': return Truth(**kwargs)
    if name not in ('resup','reference'): return peers[name](**kwargs)
    if name=='reference': kwargs['preset'] = 'reference'
    kind = Ablation if {'swap','judge','mirror'} & set(kwargs) else ReSup
    return kind(**_base_loss(kwargs))

def _base_loss(kwargs):
    "The name of a base loss, and its number, turned into a function"
    numbers = {k:kwargs.pop(k) for k in ('alpha','q') if k in kwargs}
    if 'base_loss' in kwargs: kwargs['base_loss'] = base_losses[kwargs['base_loss']]
    if numbers: kwargs['base_loss'] = partial(kwargs['base_loss'], **numbers)
    return kwargs

def make_pair(dls, method):
    """The pair that a method trains: EfficientNet-Lite0 twice, or 'plain:arch=lite1', 'resup:arch=lite0+lite1', with ImageNet weights

    `head=linear` is the head that `resup_learner` makes by itself. Without it all but EAC have fastai's; EAC's class maps need its
    paper's, which is linear."""
    name,kwargs = parse(method)
    sizes = kwargs.get('arch', 'lite0').split('+')
    if not set(sizes)<=set(lite_names) or len(sizes)>2:
        raise ValueError(f"{method}: arch is one or two of {', '.join(lite_names)}, with + between them")
    sizes = (sizes*2)[:2]
    archs = tuple(f'tf_efficientnet_{o}' for o in sizes)
    head = kwargs.get('head', 'linear' if name=='eac' else 'fastai')
    return resup_learner(dls, archs, weights=tuple(sizes), head=head, metrics=accuracy)
