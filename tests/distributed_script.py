"""What the tests of several processes run, alone or by torchrun: trains on drawn faces and saves what each rank ended up with.

    distributed_script.py FACES OUT SCENARIO"""
import os, sys
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from fastai.vision.all import *
from fastai_resup.all import *

faces,out,scenario = Path(sys.argv[1]),Path(sys.argv[2]),sys.argv[3]
world,rank = max(1, num_distrib()),rank_distrib()

def net(norm=None): return nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), *([norm(8)] if norm else []), nn.ReLU(), nn.Flatten()), nn.Linear(392, 7))
def body_head(net): return L(net[0], net[1]).map(params)
def count(total):
    "Count payload bytes of collectives, each rank's own share"
    def wrap(name, which):
        f = getattr(dist, name)
        def call(*args, **kwargs):
            t = args[which]
            total[name,t.numel()*t.element_size()] += 1
            return f(*args, **kwargs)
        setattr(dist, name, call)
    for name,which in dict(all_reduce=0, broadcast=0, all_gather=1).items(): wrap(name, which)

class Log(Callback):
    "Collectives while batches are worked on, by this package or fastai"
    order = 100
    def __init__(self): self.in_batch,self.buffers = Counter(),set()
    def before_batch(self):
        self.before = Counter(sent)
        if self.training: self.buffers.add(getattr(self.model, 'broadcast_buffers', None))
    def after_batch(self): self.in_batch.update(Counter(sent)-self.before)

def die(at):
    "Die at this place, by SIGKILL, where nothing has died before"
    mark = out/f'died-{at}'
    if mark.exists(): return
    mark.touch()
    os.kill(os.getpid(), 9)

class Die(Callback):
    def before_batch(self):
        if rank==1 and self.epoch==1 and self.iter==1: die(f'{scenario}-batch')

class DieWriting(Callback):
    "The first rank dies while it writes its third checkpoint, before the file gets its name"
    order = Checkpoint.order-1
    def after_epoch(self):
        if rank==0 and self.epoch==2: os.replace = lambda *args: die('restarted-writing') or replace(*args)

def learner(seed=0, norm=None):
    "A learner on data that are the same wherever `seed` is"
    dls = FERDataLoaders.from_folder(faces, valid='valid', noise=0.3, seed=seed, img_size=32, bs=16//world, batch_tfms=[], num_workers=0, cache=True)
    return ReSupLearner(dls, [net(norm), net(norm)], splitter=body_head, metrics=[accuracy, F1Score(average='macro')], path=out)

def error(f):
    "What `f` raises, in words"
    try: f()
    except Exception as e: return f'{type(e).__name__}: {e}'

set_seed(0)
replace = os.replace
sent,log = Counter(),Log()
learn = learner(rank if scenario=='errors' else 0, nn.BatchNorm2d if scenario=='default' else None)
res = dict()
with learn.no_bar(), learn.no_logging(), learn.distrib_ctx():
    if world>1: count(sent)
    if scenario=='exact':
        learn.fine_tune(3, 3e-3, freeze_epochs=1, cbs=[ReSup(normalize=False, history=True), log, EarlyStoppingCallback(patience=5)])
        res['sent'] = dict(sent)
        res['values'] = [list(o) for o in learn.recorder.values]
        learn.fit(1, 3e-3, cbs=[ReSup(normalize=False, refit='pass'), GradientAccumulation(16//world)])
    if scenario=='default':
        learn.fit(3, 3e-3, cbs=[ReSup(), log])
        learn.fit(1, 3e-3, cbs=[ReSup(), MixUp(), SaveModelCallback(fname='best'), ShortEpochCallback(0.5)])
    if scenario=='errors':
        res['seeds'] = error(lambda: learn.fit(1, cbs=ReSup()))
        with learner().distrib_ctx() as other: res['lr_find'] = error(lambda: other.lr_find(num_it=5, show_plot=False))
        other = learner()
        other.dls.train.bs = 64
        with other.no_bar(), other.no_logging(), other.distrib_ctx(): res['small'] = error(lambda: other.fit(1, cbs=ReSup()))
        with learner().distrib_ctx() as other, other.no_bar(), other.no_logging():
            other.fit(1, cbs=Checkpoint('there'))
            res['there'] = error(lambda: other.fit(1, cbs=Checkpoint('there')))
            res['folder'] = error(lambda: other.fit(1, cbs=Checkpoint(out/'errors_2.txt')))
    if scenario in ('whole','restarted'):
        set_seed(rank) # each rank has random numbers of its own
        for n in learn.model.nets: n.append(nn.Dropout(0.2))
        deaths = [Die(),DieWriting()] if scenario=='restarted' else []
        learn.fine_tune(3, 3e-3, freeze_epochs=1, cbs=[ReSup(history=True), Checkpoint(scenario, resume=bool(deaths)), *deaths])
        res['values'] = [list(o)[:-1] for o in learn.recorder.values]
        res['random'] = torch.rand(1)
    if scenario=='dies': learn.fit(3, cbs=[ReSup(), Die()])
    if scenario=='raises': learn.fit(3, cbs=[ReSup(), Callback(before_batch=lambda o: 1/0 if rank==1 else None)])
    if scenario!='errors':
        audit = LabelAudit.from_learner(learn)
        res['alone'] = list(learn.validate()) if rank==0 else None # no other process takes part in these two
        res['preds'] = learn.get_preds()[0] if rank==world-1 else None
        res['audit'] = audit.df.to_dict('list')
        learn.export('inside.pkl') # the first process writes
if scenario=='exact':
    loaded = load_learner(out/'inside.pkl') # waits for the others
    with loaded.no_bar(): res['loaded'] = loaded.get_preds(dl=loaded.dls.test_dl([o.file for o in learn.dls.valid_ds.items], num_workers=0))[0]
after = ReSupLearner(learn.dls, [net(), net()])
res.update(weights=learn.model.state_dict(), similarities=learn.similarities, refits=learn.refits, history=learn.record.p_clean, in_batch=dict(log.in_batch), buffers=log.buffers,
           left=[type(learn.model).__name__, type(learn.dls.train).__name__, *sorted(o.name for o in learn.cbs)], fresh=sorted(o.name for o in after.cbs), logger=learn.logger is print)
torch.save(res, out/f'{scenario}_{world}_{rank}.pt')
