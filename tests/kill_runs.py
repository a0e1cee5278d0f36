"""Training runs that are killed by SIGKILL and resumed, in forks of one warmed-up process. Prints a JSON line per kill; see test_checkpoint.py.

A kill falls on a random function call within a phase, counted by `sys.setprofile` in a run that is left alone, or comes from outside at a random time."""
import hashlib, json, os, random, signal, sys, time, traceback, warnings
from pathlib import Path

import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.schedule import fine_tune, fit_one_cycle
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastcore.foundation import L

from fastai_resup.callbacks import MixtureRefit, ReSup
from fastai_resup.checkpoint import Checkpoint, plain_values
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner

WRITING = ('write','fsync','replace','unlink') # what a checkpoint's file goes through, and the removal of an older one
PHASES = ('batch','refit','validation','checkpoint')
CONFIGS = [(how,refit,0) for how in ('fit_one_cycle','fine_tune') for refit in ('record','pass')] + [('fine_tune','record',2)] # the last with two workers

def net():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 7))
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()), head)
def halves(m): return L(m[0], m[1]).map(lambda o: list(o.parameters()))

class Watch:
    "Counts the calls in each phase, and dies at the n-th call of one, or when the function `name` is called for the n-th time"
    def __init__(self, phase=None, at=0, name=None):
        self.at,self.only,self.name,self.now = at,phase,name,None
        self.counts = dict.fromkeys((*PHASES, *WRITING), 0)

    def hook(self, frame, event, arg):
        key = self.now
        self.counts[key] += 1
        called = arg.__name__ if event=='c_call' else None
        if key=='checkpoint' and called in WRITING and not isinstance(arg.__self__, str): self.counts[called] += 1 # os.replace, not str.replace
        if self.at and self.counts[self.name or key]==self.at: os.kill(os.getpid(), signal.SIGKILL)

    def begin(self, phase):
        if self.only not in (None, phase): return
        self.now = phase
        sys.setprofile(self.hook)

    def end(self, phase): sys.setprofile(None)

    def callbacks(self):
        def cb(order, training=None, **events):
            def on(f): return lambda o: f() if training is None or o.training==training else None
            res = Callback(**{k:on(f) for k,f in events.items()})
            res.order = order
            return res
        b,e = ({p:(lambda p=p,f=f: f(p)) for p in PHASES} for f in (self.begin, self.end))
        return [cb(-100, True, before_batch=b['batch']), cb(1000, True, after_batch=e['batch']), cb(MixtureRefit.order-0.5, after_train=b['refit']),
                cb(MixtureRefit.order+0.5, after_train=e['refit']), cb(-100, before_validate=b['validation']), cb(1000, after_validate=e['validation']),
                cb(Checkpoint.order-1, after_epoch=b['checkpoint']), cb(Checkpoint.order+1, after_epoch=e['checkpoint'])]

def bits(o):
    "All bits of a nested plain value"
    if isinstance(o, torch.Tensor): return o.contiguous().numpy().tobytes()
    if isinstance(o, dict): return b''.join(k.encode()+bits(v) for k,v in o.items())
    return b''.join(map(bits, o)) if isinstance(o, (list,tuple)) else repr(o).encode()

def digest(learn):
    "Weights, buffers, optimizer, progress table and all of ReSup's record in one number"
    r = learn.recorder
    whole = learn.model.state_dict(),learn.opt.state_dict(),learn.record.state_dict(),r.values,r.lrs,r.losses
    return hashlib.sha256(bits(plain_values(whole))).hexdigest()

def train(faces, folder, how, refit, workers, resume, watch):
    "One run in this process; its digest"
    set_seed(0, reproducible=True)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=16, bs=14, noise=0.3, seed=0, num_workers=workers, cache=not workers)
    learn = ReSupLearner(dls, [net(), net()], splitter=halves, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        cbs = [ReSup(refit=refit, warmup=1, history=True), Checkpoint(folder, resume=resume), *(watch.callbacks() if watch else [])]
        two_parts = dict(freeze_epochs=1) if how=='fine_tune' else {}
        getattr(learn, how)(2, 1e-2, cbs=cbs, **two_parts)
    return digest(learn)

def fork(f):
    "Run `f()` in a fork: its pid, and a function that waits for its answer (None where it was killed)"
    r,w = os.pipe()
    pid = os.fork()
    if pid==0:
        os.close(r)
        os.setpgid(0, 0)
        try: out = json.dumps(f())
        except BaseException: out = json.dumps(traceback.format_exc())
        os.write(w, out.encode())
        os._exit(0)
    os.close(w)
    def answer():
        status = os.waitpid(pid, 0)[1]
        try: os.killpg(pid, signal.SIGKILL) # a worker whose parent dies before it has looked for it never ends by itself
        except ProcessLookupError: pass
        with open(r) as o: text = o.read()
        return os.WIFSIGNALED(status) and os.WTERMSIG(status)==signal.SIGKILL, text and json.loads(text)
    return pid,answer

def main(faces, root, per_phase, outside, seed):
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    rng,n,ends = random.Random(seed),0,{}
    for how,refit,workers in CONFIGS:
        named = root/f'{how}-{refit}-{workers}'
        def run(folder, resume=False, watch=None): return train(faces, folder, how, refit, workers, resume, watch)
        def alone(): return run(f'{named}-alone')
        def counted(w=Watch()): return run(f'{named}-counted', watch=w),w.counts
        start = time.time()
        want = fork(alone)[1]()[1]
        seconds = time.time()-start
        again,counts = fork(counted)[1]()[1]
        assert again==want and len(want)==64, (want, again)
        assert ends.setdefault((how,refit), want)==want, 'two workers gave another end than none'
        phases = [p for p in PHASES for _ in range(per_phase)] if not workers else ['batch','checkpoint']
        for phase in phases + ['outside']*outside:
            n += 1
            folder,at = root/str(n),0
            name = None
            if phase=='checkpoint' and n%2: name = WRITING[CONFIGS.index((how,refit,workers))%4]                # every other one falls on the write itself
            if phase!='outside': at = rng.randint(1, counts[name or phase])
            pid,answer = fork(lambda: run(folder, watch=Watch(phase, at, name) if at else None))
            if phase=='outside':
                time.sleep(rng.uniform(0, 0.7*seconds))
                os.kill(pid, signal.SIGKILL)
            killed,_ = answer()
            left = sorted(o.name for o in folder.iterdir()) if folder.exists() else []
            got = fork(lambda: run(folder, resume=True))[1]()[1]
            row = dict(how=how, refit=refit, workers=workers, phase=phase, name=name, at=at, of=counts.get(name or phase), killed=killed, left=left,
                       same=got==want, got='' if got==want else got, after=sorted(o.name for o in folder.iterdir()))
            print(json.dumps(row), flush=True)

if __name__=='__main__': main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6]))
