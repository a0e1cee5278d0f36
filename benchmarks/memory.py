"""Resident memory over a long run: 200 epochs of two small networks on drawn faces, with ReSup, its history and checkpoints.

    python benchmarks/memory.py --out benchmarks/memory.csv      # about a minute on a quiet core

A row per epoch: resident memory in MB and, every 25 epochs, the live tensors beside the losses that fastai's Recorder keeps, one per batch.
The last line shows how much memory grew from epoch 50 to the end."""
import argparse, gc, tempfile, warnings
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle # learn.fit_one_cycle
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastcore.foundation import L
from fastai_resup.callbacks import ReSup
from fastai_resup.checkpoint import Checkpoint
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.files import save_csv
from fastai_resup.learner import ReSupLearner
from fastai_resup.synth import make_faces

def net():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 7)))
def halves(m): return L(m[0], m[1]).map(lambda o: list(o.parameters()))

def rss_mb():
    "Resident memory of this process"
    with open('/proc/self/status') as f: return next(int(l.split()[1]) for l in f if l.startswith('VmRSS'))/1024

def live_tensors():
    "Tensors that Python knows of, after a collection"
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

class Measure(Callback):
    "A row per epoch in `rows`"
    order = Checkpoint.order+1 # the checkpoint is written
    def __init__(self): self.rows = []
    def after_epoch(self):
        row = dict(epoch=self.epoch+1, rss_mb=round(rss_mb(), 2))
        if row['epoch']%25==0: row['tensors'] = live_tensors() - len(self.recorder.losses)
        self.rows.append(row)

def measure(epochs, n_train, folder):
    "The rows of a run"
    faces = make_faces(folder/'faces', n_train=n_train, n_valid=28, size=32, progress=False)
    set_seed(0)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=28, noise=0.3, seed=0, num_workers=0, cache=True)
    learn,m = ReSupLearner(dls, [net(), net()], splitter=halves, metrics=accuracy, path=folder),Measure()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2, cbs=[ReSup(history=True), Checkpoint('checkpoints'), m])
    return pd.DataFrame(m.rows)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--epochs', type=int, default=200)
    p.add_argument('--n-train', type=int, default=280)
    p.add_argument('--out', help='csv file to write')
    a = p.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d: df = measure(a.epochs, a.n_train, Path(d))
    if a.out: save_csv(df, a.out, overwrite=True)
    start,end = df[df.epoch<=50].iloc[-1],df.iloc[-1]
    grown = end.rss_mb-start.rss_mb
    per_epoch = 1024*grown/max(1, end.epoch-start.epoch)
    print(df[df.epoch.isin([1, 10]) | (df.epoch%25==0)].to_string(index=False))
    print(f'from epoch {start.epoch:.0f} to {end.epoch:.0f}: {grown:+.2f} MB, {per_epoch:+.2f} kB per epoch, '
          f'{end.tensors-start.tensors:+.0f} tensors')

if __name__=='__main__': main()
