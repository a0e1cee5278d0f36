"""FERPlus-mini: real faces, wrong labels, real pretrained weights, on a CPU; ReSup beside its peers under one protocol.

    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --dry-run        # what the grid still lacks, and about how long that takes
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz                  # run it; killed at any time, it goes on where it was
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --methods resup:agreement=1 plain --seeds 10 11 --split dev     # any part, any variant
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --short          # under 10 minutes, its rows are thrown away
    python benchmarks/ferplus_mini.py --table                                # the tables of what is in the csv, trains nothing
    python benchmarks/ferplus_mini.py --plot folder                          # the same as pictures

`ferplus_mini.csv` beside this file fixes images and noise: 5,000 training images of FERPlus, 3,000 `dev` images to choose on, and 2,846 `valid` images for final results.
Noise `sym30` is its column `sym30_s<seed>`: exactly 30 % of the labels replaced by another class at random; other rates (`sym10`) and `pair30` (each class taken for the
next) are drawn by `symmetric_noise` and `pair_noise` with the run's seed; `clean` has the true labels. Choices are made on `dev` with seeds 10 to 14, `valid` with
seeds 0 to 2 is for the grid. Every run: EfficientNet-Lite0 twice with ImageNet weights, 64 px, batches of 64, `fit_one_cycle(8, 1e-3)` (or `fine_tune(7)`, or that with other arguments, `--schedule fine_tune:lr_mult=2`), the figures of
the LAST epoch. A run is one process and one row of `--out`, written when it is finished and not run again unless `--again` is given."""
import argparse, ast, math, multiprocessing, os, re, statistics, subprocess, tarfile, tempfile, threading, time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from sklearn.mixture import GaussianMixture
from torchvision.transforms import RandomErasing as Eraser
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from fastai.vision.all import *
from fastai_resup.all import *
from report import estimate, grid, keys, plots, read_runs, tables

here = Path(__file__).parent

def read_data(src):
    "The folder with FER2013Train and FER2013Valid; an archive is unpacked once beside the temporary files"
    src = Path(src)
    if src.is_dir(): return src
    dest = Path(tempfile.gettempdir())/'fastai_resup-ferplus'
    if not dest.exists():
        with tempfile.TemporaryDirectory(dir=dest.parent) as d:
            with tarfile.open(src) as f:
                f.extraction_filter = getattr(tarfile, 'data_filter', None) # Python 3.11.3 and older have none
                f.extractall(o := Path(d)/'whole')
            try: o.rename(dest)
            except OSError:
                if not dest.exists(): raise # else another process was first
    return dest

def given_labels(df, noise, seed):
    "Names of the given training labels of `ferplus_mini.csv`'s training rows: 'clean', 'sym<percent>' or 'pair<percent>'"
    if noise=='clean': return df.true
    if f'{noise}_s{seed}' in df: return df[f'{noise}_s{seed}']
    kind,percent = re.fullmatch(r'(sym|pair)(\d+)', noise).groups()
    ids,k = [ferplus_classes.index(o) for o in df.true],len(ferplus_classes)
    return np.array(ferplus_classes)[dict(sym=symmetric_noise, pair=pair_noise)[kind](ids, int(percent)/100, k, seed=seed)]

def make_dls(path, seed, split='dev', noise='sym30', bs=64, n=None, **kwargs):
    "FERPlus-mini with the noise of `seed`, validated on `split`; of its first `n` training images and n/2 others where `n` is given"
    df = pd.read_csv(here/'ferplus_mini.csv')
    train,valid = df[df.split=='train'],df[df.split==split]
    train = train.assign(label=given_labels(train, noise, seed))
    if n: train,valid = train[:n],valid[:n//2]
    df = pd.concat([train, valid.assign(label=valid.true)]).assign(is_valid=lambda o: o.split!='train')
    return FERDataLoaders.from_df(df, path, fn_col='file', label_col='label', valid_col='is_valid', true_col='true', vocab=ferplus_classes, bs=bs,
                                  **{**dict(cache=True, num_workers=0), **kwargs})

class Truth(Peer):
    "What suppression could reach at best: the loss of the images whose label is right, from the first batch on; plain cross entropy, or ReSup's (`base_loss='sce'`)"
    def __init__(self, base_loss='ce'): self.loss = dict(ce=partial(F.cross_entropy, reduction='none'), sce=sce_loss)[base_loss]

    def start_batch(self): self.right = (self.dls.true_targs[self.ids]==self.y.as_subclass(Tensor)).float()
    def net_loss(self, m, z, y): return self.right*self.loss(z, y)/self.right.mean().clamp(min=1/len(y))

def given_prob(logits, y):
    "Probability of the given label, the exponential of minus its loss: (..., B, K) and (B,) to (..., B)"
    p = logits.detach().softmax(-1, torch.float32)
    return p.gather(-1, y.as_subclass(Tensor).expand(p.shape[:-1])[...,None])[...,0]

def temperature(logits, y, w):
    "What to divide logits (N, K) by so that their cross entropy with `y` (N,), weighted by `w` (N,), is smallest (Guo et al. 2017), between .2 and 5"
    loss = lambda t: (w*F.cross_entropy(logits/math.exp(t), y, reduction='none')).sum().item()
    return math.exp(minimize_scalar(loss, bounds=(math.log(.2), math.log(5)), method='bounded').x)

class Ablation(ReSup):
    "`ReSup` with a part exchanged: weights by each network's own opinion (`swap=0`), mixtures of what the loss says in place of the similarity (`judge=loss`), mirrored images for network 1 (`mirror=1`), weights that are in part those of earlier epochs (`smooth=.5`), weights by what both networks say (`both=1`: p(clean) of one times that of the other), labels that both networks agree on against the given one, as a second target beside it (`soft=1`: with the weight that it lacks, times the label's probability), networks that end as the running mean of what they were after each step (`ema=.99`: a hundredth of the mean is replaced by each step's), weights of a class that looks noisy as a whole raised, all by the same, so that their mean is at least this share of the mean of all (`least=.2`), a `power` of the weights of this times the estimated noise rate, at most 1 (`ease=4`), a `balance` of 1 less twice that rate, at least .5 (`balance=None`), similarities of calibrated probabilities (`calibrate=1`: logits are divided by the `temperature` that fits what the epoch before showed and the other network's p(clean))"
    def __init__(self, swap=1, judge='similarity', mirror=0, smooth=0, both=0, soft=0, ema=0, calibrate=0, least=0, ease=0, **kwargs):
        self.by_rate = kwargs.get('balance', 0) is None
        if self.by_rate: kwargs['balance'] = .5
        if judge not in ('similarity','loss'): raise ValueError(f"judge must be 'similarity' or 'loss', not {judge!r}")
        super().__init__(**kwargs)
        self.swap,self.judge,self.mirror,self.smooth,self.memory = swap,judge,mirror,smooth,None
        self.both,self.soft,self.ema,self.calibrate,self.least,self.ease = both,soft,ema,calibrate,least,ease
        if least and (not self.balance or not swap or smooth or soft): raise ValueError('least goes with balance, and without swap=0, smooth and soft')
        if soft and (not self.normalize or self.base_loss is None): raise ValueError('soft needs normalize=True and a base_loss')
        if calibrate and (judge!='similarity' or soft or self.refit!='record'): raise ValueError("calibrate goes with judge='similarity' and refit='record', and without soft")

    def before_fit(self):
        super().before_fit()
        if self.soft or self.calibrate: self.said = torch.zeros(2, self.dls.train.n, self.dls.c)
        if self.calibrate: self.temp,self.learn.judge = torch.ones(2, 1, 1),self.calibrated
        if self.judge=='loss': self.learn.judge = given_prob
        if self.ema: self.mean = AveragedModel(self.model.nets, multi_avg_fn=get_ema_multi_avg_fn(self.ema), use_buffers=True)
        if self.mirror: self.hook = self.model.nets[1].register_forward_pre_hook(lambda net,inp: (inp[0].flip(-1),) if net.training else None)

    def before_train(self):
        rate = self.model.noise_rate.item()
        if self.ease: self.power = min(1., self.ease*rate) if rate==rate else 1.
        if self.by_rate: self.balance = max(.5, 1-2*rate)
        super().before_train()

    def after_step(self):
        if self.ema: self.mean.update_parameters(self.model.nets)

    def after_fit(self):
        if self.mirror: self.hook.remove()
        if self.ema: self.model.nets.load_state_dict(self.mean.module.state_dict())

    def after_pred(self):
        super().after_pred()
        pair = self.pred
        if self.judge=='loss': pair._targ,pair._sim = self.y,given_prob(torch.stack(tuple(pair)), self.y)
        if self.smooth or self.soft or self.calibrate: ids = tensor(self.dl.order[self.iter*self.dl.bs:][:len(self.y)]) # kept by refit='record'
        if self.calibrate:
            self.said[:,ids] = z = torch.stack(tuple(pair)).detach().as_subclass(Tensor)
            pair._targ,pair._sim = self.y,self.calibrated(z, self.y)
        if self.smooth and self.weigh and self.memory is not None:
            pair.weigh = lambda s: torch.lerp(w := self.weigh(s), (m := self.memory[:,ids]).where(m.isfinite(), w), self.smooth)
        if not self.swap and self.weigh:
            pair.weigh = lambda s, weigh=pair.weigh: weigh(s).flip(0)
            if pair.balance is not None: pair.balance = pair.balance.flip(0)
        if self.least and self.factors is not None:
            means,f,y = self.model.clean_by_class,self.factors,self.y.as_subclass(Tensor)
            add = (self.least*(1-self.model.noise_rate) - f*means).clamp(min=0).nan_to_num(0.)
            pair.weigh,pair.balance = lambda s, weigh=pair.weigh: weigh(s)*f[:,y] + add[:,y],None
        if self.both and self.weigh: pair.weigh = lambda s, weigh=pair.weigh: weigh(s).prod(0, keepdim=True).expand(2, -1)
        if not self.soft: return
        said = self.said[:,ids].lerp(pair.probs()[1].detach(), .5)
        self.said[:,ids] = said
        if self.weigh: pair.with_loss(partial(self.soft_loss, said))

    def calibrated(self, logits, y): return similarity(logits/self.temp, y)

    def recorded(self, n):
        sims,given = super().recorded(n)
        if not self.calibrate: return sims,given
        seen = given>=0
        w = weigher(self.model)(sims).flip(0)
        self.temp = tensor([temperature(z[seen], given[seen], o[seen]) for z,o in zip(self.said, w)])[:,None,None]
        return self.calibrated(self.said, given.clamp(min=0)).where(seen, float('nan')),given

    def soft_loss(self, said, pair, y, reduction, **kwargs):
        "Both networks' loss by their weights, and that of the label which both say, in the mean of the epochs so far, times the weight that the given label lacks and its probability"
        assert reduction=='mean' and not kwargs
        y,(logp,p) = y.as_subclass(Tensor),pair.probs()
        w = pair.weigh(pair.similarity(y)).flip(0)
        prob,other = said.mean(0).max(-1)
        v = self.soft*(1-w)*(prob*((said.argmax(-1)==other).all(0)&(other!=y)))
        if pair.balance is not None: w = w*pair.balance.flip(0)[:,y]
        loss = lambda t: pair.base_loss(logp.flatten(0, 1), t.repeat(2)).view(2, -1)
        return ((w*loss(y)+v*loss(other)).sum(1)/(w+v).sum(1)).sum() + self.agreement*F.mse_loss(*p)

    def after_train(self):
        super().after_train()
        if not self.smooth or not (weigh := weigher(self.model)): return
        p = weigh(self.learn.similarities)
        old = p if self.memory is None else self.memory.where(self.memory.isfinite(), p)
        self.memory = torch.lerp(p.where(p.isfinite(), old), old, self.smooth)

    def show_all(self):
        if self.judge=='similarity': return super().show_all()
        return ordered_pass(self.learn, lambda pair,y: given_prob(torch.stack(tuple(pair)), y)),self.dls.train_targs

class Mirrored(Callback):
    """What EAC adds to its loss, beside any method: the consistency of class maps under mirroring, times `flip`, of images with a part erased (`erase=1`)

    With `cross=1` the maps of network 0 are compared with those that network 1 has of the mirrored images, so that no image goes through a network twice. With `stop=1` the maps of
    the mirrored images are a constant target, and no gradient goes through their pass; as training mirrors half of the images by chance, twice the factor then has the same mean gradient."""
    order,run_valid = MixedPrecision.order+2,False # after the methods' own
    def __init__(self, flip=0., erase=0, cross=0, stop=0):
        self.flip,self.cross,self.stop,self.eraser = flip,cross,stop,Eraser(p=1., scale=(.02,.25)) if erase else None

    def before_batch(self):
        self.features,nets = {},get_model(self.model).nets
        if self.eraser: self.learn.xb = (torch.stack([self.eraser(o) for o in self.x.as_subclass(Tensor)]),)
        self.hooks = [net[0].register_forward_hook(lambda mod,inp,f,m=m: self.features.__setitem__(m, f)) for m,net in enumerate(nets)]
        if self.cross: self.hooks.append(nets[1].register_forward_pre_hook(lambda net,inp: (inp[0].flip(-1),)))

    def after_pred(self):
        for h in self.hooks: h.remove()

    def after_loss(self):
        if not self.flip: return
        maps = [class_maps(net[1], self.features[m]).float() for m,net in enumerate(get_model(self.model).nets)]
        if self.cross: loss = 2*flip_consistency(*maps).mean()
        else:
            x = self.x.as_subclass(Tensor).flip(-1)
            with torch.set_grad_enabled(not self.stop): mirrored = [class_maps(net[1], net[0](x)).float() for net in get_model(self.model).nets]
            loss = sum(flip_consistency(*o).mean() for o in zip(maps, mirrored))
        self.learn.loss_grad = self.loss_grad + self.flip*loss

def parse(method):
    "Name and arguments of a method or schedule, 'resup:refit=pass,warmup=2'; `arch` and `head` are in none of the callbacks', see `make_pair`"
    name,_,args = method.partition(':')
    return name,{k:_literal(v) for k,v in (o.split('=') for o in args.split(','))} if args else {}

def make_cbs(method):
    """The callback of a method, by its name and arguments: 'plain' (None), 'resup', 'reference', 'truth', 'resup:refit=pass,warmup=2', or a peer, 'elr:beta=.9'

    `base_loss` is 'ce', 'gce' or 'sce', `alpha` or `q` the number that belongs to the last two, `max_iter` is the mixture's, `rise` the lookup's, `monotone=0` takes the posterior as it is, `estimator=gaussian` is scikit-learn's mixture; `swap`, `judge`, `mirror`, `smooth`, `both`, `soft`, `ema`, `calibrate`, `least` and `ease` are `Ablation`'s, `flip`, `erase`, `cross` and `stop` those of a second callback, `Mirrored`, `audit=1` lets a `MixtureRefit` watch a method that has none, so that `LabelAudit` can judge its labels, `arch` and `head` are `make_pair`'s."""
    name,kwargs = parse(method)
    for k in ('arch','head'): kwargs.pop(k, None)
    rest = lambda: f"{name}:{','.join(f'{k}={v}' for k,v in kwargs.items())}" if kwargs else name
    if kwargs.pop('audit', 0): return [*L(make_cbs(rest())), MixtureRefit()]
    if (o := {k:kwargs.pop(k) for k in ('flip','erase','cross','stop') if k in kwargs}):
        return [*L(make_cbs(rest())), Mirrored(**o)]
    if name=='plain': return None
    if name=='truth': return Truth(**kwargs)
    if name not in ('resup','reference'): return peers[name](**kwargs)
    if 'max_iter' in kwargs: kwargs['estimator'] = BetaMixture(max_iter=kwargs.pop('max_iter'))
    if kwargs.get('estimator')=='gaussian': kwargs['estimator'] = GaussianMixture(2, random_state=0)
    if 'base_loss' in kwargs: kwargs['base_loss'] = dict(ce=None, gce=gce_loss, sce=sce_loss)[kwargs['base_loss']]
    if (o := {k:kwargs.pop(k) for k in ('alpha','q') if k in kwargs}): kwargs['base_loss'] = partial(kwargs['base_loss'], **o)
    if 'rise' in kwargs: kwargs['lookup'] = partial(clean_lookup, rise=kwargs.pop('rise'))
    if not kwargs.pop('monotone', 1): kwargs['lookup'] = lambda est: est.predict_proba(np.linspace(0, 1, 1001)[:,None])[:,np.argmax(est.means_)]
    return (Ablation if {'swap','judge','mirror','smooth','both','soft','ema','calibrate','least','ease'}&set(kwargs) or kwargs.get('balance', 0) is None else ReSup)(preset='reference' if name=='reference' else None, **kwargs)

def _literal(v):
    try: return ast.literal_eval(v)
    except (ValueError, SyntaxError): return v

def logits(learn, dl=None):
    "Both networks' logits (2, N, K) on un-augmented images, in order"
    return ordered_pass(learn, lambda pair,y: torch.stack(tuple(pair)).mT, dl).mT

def judged(learn, sim):
    "What a peer says of each label (2, N) or (N,), p(clean) (2, N) where mixtures were fitted, or the similarities themselves; and whether it is an estimate of a probability"
    weigh,said = weigher(learn.model, exact=True),getattr(learn, 'clean_score', None)
    if said is not None: return torch.as_tensor(said).expand_as(sim),False
    return (sim,False) if weigh is None else (weigh(sim),True)

def score(learn):
    "Everything a row needs, after the last epoch: accuracies on the validation images, and how the training labels were judged"
    dls = learn.dls
    z,y = logits(learn, dls.valid),tensor([dls.vocab.o2i[o.label] for o in dls.valid_ds.items])
    hits = {k:(o.argmax(-1)==y).float() for k,o in dict(acc_0=z[0], acc_1=z[1], acc_ensemble=log_mean_prob(z)).items()}
    res = {k:o.mean().item() for k,o in hits.items()}
    res['acc_class_mean'] = torch.stack([hits['acc_ensemble'][y==c].mean() for c in y.unique()]).mean().item()
    z,given,true = logits(learn),dls.train_targs,dls.true_targs
    sim,wrong,right = getattr(learn, 'judge', similarity)(z, given),given!=true,(given==true).numpy()
    p,is_prob = judged(learn, sim)
    res['memorised'] = (log_mean_prob(z).argmax(-1)==given)[wrong].float().mean().item()
    res['auroc'],res['auroc_within'] = rank_scores(right, p.mean(0).numpy(), given.numpy())
    res['auroc_similarity'],res['auroc_similarity_within'] = rank_scores(right, sim.mean(0).numpy(), given.numpy())
    audited = weigher(learn.model) is not None and not hasattr(learn, 'judge')
    res['auroc_audit'] = auroc(right, LabelAudit.from_learner(learn).df.p_clean.to_numpy()) if audited else float('nan')
    share = np.array([right[given==c].mean() if (given==c).any() else 0 for c in range(len(dls.vocab))])
    by_class = ' '.join(f'{p.mean(0)[(given==c)&~wrong].mean():.3f}' for c in range(len(dls.vocab))) if is_prob else ''
    return {**res, 'auroc_class_alone':auroc(right, share[given.numpy()]), 'noise_rate':(1-p.mean()).item() if is_prob else float('nan'), 'weight_by_class':by_class}

def keep_outputs(learn, f):
    "What the networks say, un-augmented and in order, as an npz: logits (2, N, K) of training and validation images, given and true training ids, p(clean) (2, N) the similarities of the last three refits (3, 2, N) and the estimated noise rate of every refit (n_epochs,)"
    dls,z,weigh = learn.dls,logits(learn),weigher(learn.model, exact=True)
    p = {} if weigh is None else dict(p_clean=weigh(similarity(z, dls.train_targs)), recent=torch.stack([s for s,_ in learn.recent_similarities]), noise_rates=[o['noise_rate'] for o in learn.refits])
    true_valid = [dls.vocab.o2i[o.label] for o in dls.valid_ds.items]
    arrays = dict(train=z, valid=logits(learn, dls.valid), given=dls.train_targs, true=dls.true_targs, true_valid=true_valid, **p)
    np.savez_compressed(f, **{k:np.asarray(v) for k,v in arrays.items()})

def peak_mb():
    "Peak resident memory of this process"
    with open('/proc/self/status') as f: return next(int(l.split()[1]) for l in f if l.startswith('VmHWM'))/1024

def make_pair(dls, method):
    """The pair that a method trains: EfficientNet-Lite0 twice, or 'plain:arch=lite1', 'resup:arch=lite0+lite1', with the ImageNet weights of each

    Without `head=linear`, which is what `resup_learner` makes by itself, all but EAC have fastai's head; EAC's class maps want its paper's, which is linear."""
    name,kwargs = parse(method)
    sizes = kwargs.get('arch', 'lite0').split('+')
    if not set(sizes)<=set(lite_names) or len(sizes)>2: raise ValueError(f"{method}: arch is one or two of {', '.join(lite_names)}, with + between them")
    sizes = (sizes*2)[:2]
    head = kwargs.get('head', 'linear' if name=='eac' else 'fastai')
    return resup_learner(dls, tuple(f'tf_efficientnet_{o}' for o in sizes), weights=tuple(sizes), head=head, metrics=accuracy)

def run(path, method, schedule, epochs, noise, seed, split, keep=None, n=None):
    "Train one pair and score it; the seed decides images' order, augmentation, heads and dropout"
    set_seed(seed, reproducible=True)
    learn = make_pair(make_dls(path, seed, split, noise, n=n), method)
    speed_up_cpu(learn.model)
    cbs,start = make_cbs(method),time.perf_counter()
    with learn.no_bar():
        fit,kwargs = parse(schedule)
        if fit=='fine_tune': learn.fine_tune(epochs, cbs=cbs, **kwargs)
        else:
            learn.unfreeze()
            getattr(learn, fit)(epochs, 1e-3, cbs=cbs, **kwargs)
    res = dict(train_s=time.perf_counter()-start, peak_mb=peak_mb(), **score(learn))
    if keep: keep_outputs(learn, keep)
    return {**res, 'acc_ensemble_last5':statistics.fmean(float(o[2]) for o in learn.recorder.values[-5:])}

def schedule(s):
    "`s`, if it names one of the schedules"
    if parse(s)[0] not in ('fit_one_cycle','fine_tune','fit'): raise argparse.ArgumentTypeError(f'{s}: a schedule is fit_one_cycle, fine_tune or fit')
    return s

def _end_with(parent):
    parent.join()
    os._exit(1)

def _child(queue, kwargs):
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start() # killed alone, the parent would leave this running
    queue.put(run(**kwargs))

def run_alone(**kwargs):
    "`run` in a process of its own, so that nothing is left over from the run before and the memory is its own"
    ctx = multiprocessing.get_context('spawn')
    queue = ctx.Queue()
    p = ctx.Process(target=_child, args=(queue, kwargs))
    p.start()
    while True:
        try: res = queue.get(timeout=5); break
        except Exception:
            if not p.is_alive() and queue.empty(): raise RuntimeError(f'The run {kwargs} ended with exit code {p.exitcode}; its error stands above.') from None
    p.join()
    return res

def commit():
    "The commit these figures belong to, with + where files differ from it"
    git = lambda *a: subprocess.run(['git','-C',str(here),*a], capture_output=True, text=True).stdout.strip()
    return git('rev-parse', '--short', 'HEAD') + ('+' if git('status', '--porcelain', '--untracked-files=no', '--', '..') else '')

def add_row(out, row):
    "Write `row` into the csv `out` whole, in place of one with the same keys"
    runs = read_runs(out)
    same = (runs[keys].astype(str)==pd.Series({k:str(row[k]) for k in keys})).all(axis=1)
    save_csv(pd.concat([runs[~same], pd.DataFrame([row])]), out, overwrite=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz', help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    p.add_argument('--methods', nargs='+', help='default: those of the grid')
    p.add_argument('--seeds', nargs='+', type=int, help='default: those of the grid, with --methods 10 11 12')
    p.add_argument('--schedule', default='fit_one_cycle', type=schedule, help="'fit_one_cycle', 'fine_tune' or 'fit', with arguments as methods have them, 'fine_tune:lr_mult=2'; default: fit_one_cycle")
    p.add_argument('--epochs', type=int, default=None, help='default: 8, or 7 after the frozen one for fine_tune')
    p.add_argument('--split', choices=['dev','valid'], help='default: valid for the grid, dev with --methods')
    p.add_argument('--noise', nargs='+', help="'clean', 'sym<percent>', 'pair<percent>'; default: those of the grid, with --methods sym30")
    p.add_argument('--out', type=Path, default=here/'ferplus_mini_runs.csv')
    p.add_argument('--keep', type=Path, help="folder for what each pair says of every image after training, an npz a run, so that rankings can be compared without training again")
    p.add_argument('--again', action='store_true', help='run what is in --out already, and put the new row in its place')
    p.add_argument('--dry-run', action='store_true', help='say what would be run, and about how long that takes')
    p.add_argument('--short', nargs='?', type=int, const=1000, metavar='N', help='N training images (1000), 3 epochs, seed 10 on dev: does everything work? Nothing goes into --out')
    p.add_argument('--table', action='store_true', help='print the tables of --out and stop')
    p.add_argument('--plot', type=Path, help='folder to write the pictures of --out to')
    a = p.parse_args()
    if a.table: print(tables(read_runs(a.out)))
    if a.plot: print(*plots(read_runs(a.out), a.plot), sep='\n')
    if a.table or a.plot: return
    epochs = a.epochs or (3 if a.short else 7 if parse(a.schedule)[0]=='fine_tune' else 8)
    if a.short:
        a.methods,a.out = a.methods or ['plain','resup','reference'],Path(tempfile.mkdtemp())/'short.csv'
    runs = read_runs(a.out)
    if a.methods: plan = [dict(method=m, schedule=a.schedule, epochs=epochs, noise=o, seed=s, split=a.split or 'dev')
                          for o in a.noise or ['sym30'] for s in a.seeds or ([10] if a.short else [10,11,12]) for m in a.methods]
    else: plan = [o for o in grid(runs) if (not a.seeds or o['seed'] in a.seeds) and (not a.noise or o['noise'] in a.noise)]
    done = set(map(tuple, runs[keys].astype(str).values))
    plan = [o for o in plan if a.again or tuple(map(str, o.values())) not in done]
    print(f'{len(plan)} runs to do{"" if a.short else estimate(plan, runs)}', *[' '.join(map(str, o.values())) for o in plan], sep='\n', flush=True)
    if a.dry_run: return
    path,at = read_data(a.data),commit()
    if a.keep: a.keep.mkdir(parents=True, exist_ok=True)
    for o in plan:
        keep = a.keep and a.keep/('-'.join(map(str, o.values())).replace(':', '_')+'.npz')
        res = run_alone(path=path, **o, keep=keep, n=a.short)
        row = {**o, **{k:round(v, 5) if isinstance(v, float) else v for k,v in res.items()}, 'commit':at, 'threads':torch.get_num_threads()}
        add_row(a.out, row)
        print(pd.Series(row).to_string(), flush=True)
    if a.short: print(tables(read_runs(a.out)))

if __name__=='__main__': main()
