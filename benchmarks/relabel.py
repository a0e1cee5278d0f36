"""Do corrected labels help? Drawn faces, 30 % noisy labels: train with ReSup, audit, take the suggestions, train again.

    python benchmarks/relabel.py --seeds 0 1 2            # two trainings a seed, minutes each on a CPU

For each seed a row: noise rate, and accuracy of the ensemble on faces with clean labels, before and after. Both trainings are the same but
for the labels; faces and settings are those of `resup-demo`."""
import argparse, tempfile, time
from pathlib import Path

import pandas as pd
from fastai_resup.audit.decisions import * # audit.suggest() and audit.apply()
from fastai_resup.audit.table import LabelAudit
from fastai_resup.callbacks import ReSup
from fastai_resup.cli.common import pair_accuracy, train_pair
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.synth import make_faces

def noise_rate(dls): return (dls.train_targs!=dls.true_targs).float().mean().item()

def run(seed, n_train=1000, n_valid=500, img_size=64, epochs=5, threshold=0.2, min_prob=0.5, drop=False, noise=0.3, lr=4e-3, nuisance=0.15,
        bs=32):
    "One row: before, after, and how good the changes were"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as tmp:
        path = make_faces(Path(tmp)/'faces', n_train, n_valid, img_size, seed, nuisance, progress=False)
        dls = FERDataLoaders.from_folder(path, img_size=img_size, bs=bs, noise=noise, seed=seed, cache=True, num_workers=0)
        kw = dict(arch='tf_efficientnet_lite0', weights='lite0', epochs=epochs, lr=lr, seed=seed, cbs=ReSup())
        learn,_ = train_pair(dls, **kw)
        audit = LabelAudit.from_learner(learn)
        decisions = audit.suggest(threshold, min_prob, drop=drop)
        better = audit.apply(decisions, dls=dls)
        again,_ = train_pair(better, **kw)
        row = dict(seed=seed, decided=len(decisions), left=len(better.train_ds),
                   noise_before=noise_rate(dls), noise_after=noise_rate(better),
                   accuracy_before=pair_accuracy(learn)['accuracy'], accuracy_after=pair_accuracy(again)['accuracy'])
    return dict(**row, seconds=round(time.perf_counter()-start))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1,2])
    defaults = dict(n_train=1000, n_valid=500, img_size=64, epochs=5, threshold=0.2, min_prob=0.5, noise=0.3, nuisance=0.15)
    for name,default in defaults.items():
        p.add_argument('--'+name.replace('_','-'), type=type(default), default=default)
    p.add_argument('--drop', action='store_true', help='drop doubtful images that are not relabelled')
    args = vars(p.parse_args())
    rows = []
    for seed in args.pop('seeds'):
        rows.append(run(seed, **args))
        print(pd.DataFrame(rows).to_string(index=False, float_format='{:.3f}'.format), flush=True)
