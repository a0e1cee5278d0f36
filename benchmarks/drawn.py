"""Drawn faces: where ReSup helps, where it doesn't, and what fastai's own tools reach there, in runs of some seconds.

    python benchmarks/drawn.py                                    # every setting, seeds 0-2
    python benchmarks/drawn.py --settings clean --seeds 0         # one of them
    python benchmarks/drawn.py --table                            # what is in the csv so far; trains nothing

No download: `make_faces` draws the images (32 px, nuisance 0.3), and the networks have three convolutions and random first weights. A
setting fixes the number of training images and the noise in their labels. A method is the baseline pair ('plain'), `ReSup()` with
arguments, or one network, alone or with fastai's `LabelSmoothingCrossEntropy` or `MixUp`. The seed decides faces, noise, first weights,
order and augmentation. Accuracy is that on 980 drawn faces with clean labels, after the last epoch. Every finished run is a row of `--out`,
written at once, and not run again. Rows with `min_known=.2` are of a switch that is gone. Figures compare methods on this toy, and predict
nothing about people."""
import argparse, tempfile, time
from pathlib import Path

import pandas as pd
from fastai.vision.all import *
from fastai_resup.audit.table import LabelAudit, label_table
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.noise import pair_noise
from fastai_resup.files import save_csv
from fastai_resup.learner import ReSupLearner
from fastai_resup.mixture import auroc
from fastai_resup.synth import make_faces
from methods import make_cbs

here = Path(__file__).parent
settings = dict(
    sym30=  dict(n=700, noise=0.3),
    clean=  dict(n=700, noise=0.),
    pair40= dict(n=700, noise=partial(pair_noise, rate=0.4)), # each class is mistaken for the next one only
    sym60=  dict(n=700, noise=0.6),
    tiny=   dict(n=105, noise=0.3, bs=16), # 15 images a class
)
single = {'single':{}, 'single+smoothing':dict(loss_func=LabelSmoothingCrossEntropyFlat()), 'single+mixup':dict(cbs=MixUp())}
methods = {k:['plain','resup:warmup=4'] for k in settings}
methods['sym30'] = [*methods['sym30'],'resup',*single]

def cnn(n_out, w=24):
    "Three convolutions and a linear layer"
    body = ConvLayer(3, w, stride=2),ConvLayer(w, 2*w, stride=2),ConvLayer(2*w, 4*w, stride=2)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), Flatten(), nn.Dropout(0.2), nn.Linear(16*w, n_out))

def make_dls(folder, seed, n, noise, bs=64):
    "Drawn faces of one seed, drawn once"
    path = folder/f'{seed}-{n}'
    if not path.exists(): make_faces(path, n, 980, size=32, seed=seed, nuisance=0.3, progress=False)
    tfms = [*aug_transforms(max_rotate=0, max_warp=0, max_lighting=0, max_zoom=1.1), Normalize.from_stats(*imagenet_stats)]
    return FERDataLoaders.from_folder(path, img_size=32, bs=bs, noise=noise, seed=seed, batch_tfms=tfms, cache=True, num_workers=0)

class LastValid(Callback):
    "Validate after the last epoch only: here that would be most of the time"
    order = 100 # after the metrics have been reset
    def before_validate(self):
        if self.epoch<self.n_epoch-1: raise CancelValidException()

def score(learn):
    "Accuracies after the last epoch, and how the training labels were judged"
    if not isinstance(learn, ReSupLearner): return dict(acc_0=learn.recorder.values[-1][2])
    res = dict(zip(('acc_ensemble','acc_0','acc_1'), learn.recorder.values[-1][2:5]))
    if learn.record.refits:
        df = LabelAudit.from_learner(learn).df
        res['noise_rate'] = 1-df.p_clean.mean()
    else:
        df = label_table(learn)
        df['p_clean'] = df[['similarity_0','similarity_1']].mean(axis=1)
    if 'true' not in df or (df.label==df.true).all(): return res
    noisy = df.label!=df.true
    return {**res, 'memorised':(df.suggested==df.label)[noisy].mean(), 'auroc':auroc(~noisy, df.p_clean)}

def run(folder, setting, method, seed, epochs=12):
    "Train one pair or one network, and score it"
    set_seed(seed, reproducible=True)
    dls = make_dls(folder, seed, **settings[setting])
    kw = dict(single.get(method, {}))
    cbs = kw.pop('cbs', None) if method in single else make_cbs(method)
    if method in single: learn = Learner(dls, cnn(dls.c), metrics=accuracy, **kw)
    else: learn = ReSupLearner(dls, [cnn(dls.c), cnn(dls.c)], metrics=accuracy)
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 4e-3, cbs=L(cbs)+LastValid())
    return dict(cpu_s=time.process_time()-start, **score(learn))

def table(runs):
    "Means and standard deviations over seeds, a row per setting and method"
    cell = lambda o: '-' if o.isna().all() else f'{o.mean():.3f}'+(f' ± {o.std():.3f}' if len(o)>1 else '')
    groups = runs.groupby(['setting','method'], sort=False)
    return pd.DataFrame([{'setting':s, 'method':m, 'seeds':len(g), **{c:cell(g[c]) for c in columns[1:]}} for (s,m),g in groups])

keys,columns = ['setting','method','seed'],['cpu_s','acc_0','acc_1','acc_ensemble','memorised','auroc','noise_rate']

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--settings', nargs='+', default=list(settings), choices=list(settings))
    p.add_argument('--methods', nargs='+', help='default: those that each setting is meant for')
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    p.add_argument('--out', type=Path, default=here/'drawn_runs.csv')
    p.add_argument('--table', action='store_true', help='print what --out has and stop')
    a = p.parse_args()
    if a.table: return print(table(pd.read_csv(a.out)).to_string(index=False))
    with tempfile.TemporaryDirectory() as d:
        for seed in a.seeds:
            for s in a.settings:
                for m in a.methods or methods[s]:
                    key = dict(zip(keys, (s, m, seed)))
                    done = pd.read_csv(a.out, dtype=str) if a.out.exists() else pd.DataFrame(columns=keys)
                    if (done[keys]==pd.Series(key).astype(str)).all(axis=1).any(): continue
                    res = {k:round(float(v), 5) for k,v in run(Path(d), **key).items()}
                    row = pd.DataFrame([{**key, **res}], columns=keys+columns)
                    save_csv(pd.concat([pd.read_csv(a.out), row]) if a.out.exists() else row, a.out, overwrite=True)
                    print(key, res, flush=True)

if __name__=='__main__': main()
