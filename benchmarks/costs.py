"""What every method of the grid costs: seconds per epoch and peak memory, beside one network with cross entropy, all in one run.

    python benchmarks/costs.py --out benchmarks/costs.csv       # about half an hour on one core
    python benchmarks/costs.py --methods resup elr --repeats 1  # any part; one network and the baseline pair are always there

Drawn faces, so that it needs no data; EfficientNet-Lite0 from ImageNet, 64 px, batches of 64, everything trained, with `speed_up_cpu`, as
in `ferplus_mini.py`. A method trains for four epochs and its schedule shrinks to them, so that its figure covers the warm-up and what comes
after it; `seconds` is a fourth of that training, validation included. The methods take turns, in a new learner each time; `seconds` is the
median of their turns, after a first round that isn't counted. Peak memory is of a process of its own."""
import argparse, multiprocessing, statistics, tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from fastai.torch_core import set_seed
from fastai.vision.learner import vision_learner
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.files import save_csv
from fastai_resup.networks import lite_weights, speed_up_cpu
from fastai_resup.synth import make_faces
from ferplus_mini import commit
from methods import make_cbs, make_pair
from report import cost_table, methods
from speed import peak_kb, timed

arch,epochs = 'tf_efficientnet_lite0',4

def make_learner(path, method):
    "A learner that is ready to train unfrozen: a pair, or one network for 'single'"
    set_seed(0)
    dls = FERDataLoaders.from_folder(path, valid='valid', img_size=64, bs=64, noise=0.3, seed=0, num_workers=0, cache=True)
    if method=='single': learn = vision_learner(dls, arch, pretrained_cfg_overlay=dict(state_dict=lite_weights(0)))
    else: learn = make_pair(dls, method)
    speed_up_cpu(learn.model)
    learn.unfreeze()
    return learn

def seconds(path, method):
    "Seconds per epoch of a training; building the learner isn't in it"
    learn = make_learner(path, method)
    cbs = None if method=='single' else make_cbs(method)
    with learn.no_bar(), learn.no_logging(): return timed(lambda: learn.fit_one_cycle(epochs, 1e-4, cbs=cbs))/epochs

def peak_mb(path, method):
    "Peak resident memory of this process after a training"
    seconds(path, method)
    return peak_kb()/1024

def peak_alone(path, method):
    "`peak_mb` in a new process; one that dies is an error"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool: return pool.submit(peak_mb, path, method).result()

def rows(times, peaks):
    """A row per method, of its seconds in every turn, `[{'single':6.1, ...}, ...]`, and its peak in MB

    Medians, and the lowest and highest ratio of a turn."""
    medians = {k:statistics.median(o[k] for o in times) for k in peaks}
    res = []
    for k,peak in peaks.items():
        ratios = [o[k]/o['single'] for o in times]
        row = dict(seconds=medians[k], against_single=medians[k]/medians['single'], lowest=min(ratios), highest=max(ratios),
                   against_pair=medians[k]/medians['plain'], peak_mb=peak, peak_against_single=peak/peaks['single'])
        rounded = {name:round(v, 2) for name,v in row.items()}
        res.append({'method':k, **rounded, 'peak_mb':round(peak)})
    return res

def measure(wanted, repeats, n_train=256):
    "Seconds per epoch of every method in every turn, and its peak memory in MB"
    kinds = list(dict.fromkeys(['single','plain',*wanted]))
    with tempfile.TemporaryDirectory() as d:
        path = make_faces(Path(d)/'faces', n_train=n_train, n_valid=64, progress=False)
        times = [{k:seconds(path, k) for k in kinds} for _ in range(repeats+1)][1:]
        return times,{k:peak_alone(path, k) for k in kinds}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--methods', nargs='+', default=list(methods), help='default: those of the grid')
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--out', type=Path, help='csv to write the rows to')
    a = p.parse_args()
    res = pd.DataFrame(rows(*measure(a.methods, a.repeats))).assign(repeats=a.repeats, commit=commit(), threads=torch.get_num_threads())
    print(cost_table(res))
    if a.out: save_csv(res, a.out, overwrite=True)

if __name__=='__main__': main()
