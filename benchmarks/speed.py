"""Speed as ratios, measured side by side in one run; medians of repeats.

    python benchmarks/speed.py                     # all three tables, about 10 minutes on two quiet cores
    python benchmarks/speed.py --only loss         # em, loss or epoch

em: `BetaMixture` against the same ten iterations of EM in a few lines of SciPy.
loss: the whole ReSup loss, similarities and weights included, against two cross entropies; forward and backward, logits (96, 7).
epoch: one epoch of the pair with `ReSup()` and of the baseline pair, and two of a single fastai learner; drawn faces, EfficientNet-Lite0,
64 px; all with `speed_up_cpu`. Two more rows show one epoch of the baseline pair without `speed_up_cpu`, and with it in bfloat16.
Peak memory stands beside each: of an EM what NumPy allocates beyond the similarities (`tracemalloc`), of a loss the tensors alive at once
beyond logits and targets (torch's profiler), of an epoch the resident memory of a process of its own."""
import argparse, json, multiprocessing, os, statistics, tempfile, time
from functools import partial
from pathlib import Path

os.environ.setdefault('KINETO_LOG_LEVEL', '5') # the profiler complains about the missing GPU

import pandas as pd
import torch
import torch.nn.functional as F
from fastai.callback.fp16 import MixedPrecision
from fastai.vision.all import Callback, set_seed, to_float, vision_learner
from fastai_resup.callbacks import ReSup
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.learner import resup_learner
from fastai_resup.losses import Pair, ReSupLoss, WeightedLoss, sce_loss
from fastai_resup.mixture import p_clean
from fastai_resup.networks import lite_weights, speed_up_cpu
from fastai_resup.synth import make_faces
from torch.profiler import ProfilerActivity, profile
from speed_mixture import em_table

def timed(f):
    "Seconds that `f()` takes"
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def alternate(fs, repeats):
    "Median seconds of each of the functions `fs`, called in turn, after one round to warm up"
    for f in fs.values(): f()
    times = {k:[] for k in fs}
    for _ in range(repeats):
        for k,f in fs.items(): times[k].append(timed(f))
    return {k:statistics.median(v) for k,v in times.items()}

def tensor_peak_kb(f):
    "Most kilobytes of tensors that `f()` holds at once beyond what is there before it"
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p: f()
    with tempfile.TemporaryDirectory() as d:
        p.export_chrome_trace(str(Path(d)/'trace.json'))
        events = json.loads((Path(d)/'trace.json').read_text())['traceEvents']
    live = pd.DataFrame([dict(ts=o['ts'], size=o['args']['Bytes']) for o in events if o.get('name')=='[memory]'])
    return live.sort_values('ts', kind='stable')['size'].cumsum().max()/1024

def loss_table(repeats=2000):
    "The loss of one batch of logits (96, 7)"
    torch.manual_seed(0)
    z,y = [torch.randn(96, 7, requires_grad=True) for _ in range(2)],torch.randint(0, 7, (96,))
    lookup = torch.linspace(0, 1, 1001).repeat(2, 1)
    weighted = WeightedLoss(partial(p_clean, lookup=lookup.clamp(1e-4, 1-1e-4), clip=None), base_loss=sce_loss)
    loss_func = ReSupLoss()
    def baseline(): (F.cross_entropy(z[0], y) + F.cross_entropy(z[1], y)).backward()
    def resup(): loss_func(Pair(z).with_loss(weighted), y).backward()
    fs = {'two cross entropies':baseline, 'ReSup loss':resup}
    t = alternate(fs, repeats)
    base = t['two cross entropies']
    peaks = {k:tensor_peak_kb(f) for k,f in fs.items()}
    return [dict(what=k, microseconds=round(v*1e6, 1), ratio=round(v/base, 2), peak_kb=round(peaks[k], 1)) for k,v in t.items()]

class BFloat16(Callback):
    "The networks in bfloat16, the loss in float32; fastai's `to_bf16` does nothing without a GPU"
    order = MixedPrecision.order
    def before_batch(self): (cast := torch.autocast('cpu', torch.bfloat16)).__enter__(); self.cast = cast
    def after_pred(self):
        self.cast.__exit__(None, None, None)
        self.learn.pred = to_float(self.pred)

def make_learner(path, kind):
    "A learner that is ready to train unfrozen"
    set_seed(0)
    dls = FERDataLoaders.from_folder(path, valid='valid', img_size=64, bs=64, noise=0.3, seed=0, num_workers=0, cache=True)
    overlay = dict(state_dict=lite_weights(0))
    learn = (vision_learner(dls, 'tf_efficientnet_lite0', pretrained_cfg_overlay=overlay) if kind=='single'
             else resup_learner(dls, 'tf_efficientnet_lite0', weights='lite0'))
    if kind!='pair, nn.Conv2d': speed_up_cpu(learn.model)
    if kind=='pair, bf16': learn.add_cb(BFloat16())
    learn.unfreeze()
    return learn

def train(learn, kind, epochs=1):
    "Epochs without the progress bar, whose drawing isn't what is measured"
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-4, cbs=ReSup() if kind=='pair with ReSup' else None)

def peak_kb():
    "Peak resident memory of this process; `ru_maxrss` would be at least its parent's, even after an exec"
    with open('/proc/self/status') as f: return next(int(l.split()[1]) for l in f if l.startswith('VmHWM'))

def peak_mb(path, kind, queue):
    "In a process of its own: peak resident memory of an epoch"
    train(make_learner(path, kind), kind)
    queue.put(peak_kb()/1024)

def epoch_table(repeats=5, n_train=640):
    "One epoch of training and validation"
    kinds = ['single','pair','pair with ReSup','pair, nn.Conv2d','pair, bf16']
    with tempfile.TemporaryDirectory() as d:
        path = make_faces(Path(d)/'faces', n_train=n_train, n_valid=64, progress=False)
        learns = {k:make_learner(path, k) for k in kinds}
        t = alternate({k:partial(train, learn, k) for k,learn in learns.items()}, repeats)
        ctx,peaks = multiprocessing.get_context('spawn'),{}
        for k in kinds:
            queue = ctx.Queue()
            p = ctx.Process(target=peak_mb, args=(path, k, queue)); p.start(); peaks[k] = queue.get(); p.join()
    return [dict(what=k, seconds=round(t[k], 2), against_pair=round(t[k]/t['pair'], 3), against_twice_single=round(t[k]/(2*t['single']), 3),
                 peak_mb=round(peaks[k])) for k in kinds]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', choices=['em','loss','epoch'])
    p.add_argument('--max-n', type=int, default=10_000_000)
    p.add_argument('--repeats', type=int, default=5)
    a = p.parse_args()
    tables = dict(em=lambda: em_table(a.max_n, repeats=a.repeats), loss=loss_table, epoch=lambda: epoch_table(a.repeats))
    for name,f in tables.items():
        if a.only in (None, name): print(f'\n{name}\n{pd.DataFrame(f()).to_string(index=False)}', flush=True)

if __name__=='__main__': main()
