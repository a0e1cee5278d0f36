"""FERPlus-mini: real faces, 30 % wrong labels, real pretrained weights, on a CPU.

    python benchmarks/ferplus_mini.py --data ../shared/data/ferplus.tar.xz            # plain, ReSup(), reference; seeds 10-12: 9 runs
    python benchmarks/ferplus_mini.py --methods "resup:refit=pass" --seeds 10 11      # any variant of ReSup, by its arguments
    python benchmarks/ferplus_mini.py --table                                         # what is in the csv so far, as tables; trains nothing

`ferplus_mini.csv` beside this file fixes images and noise: 5,000 training images of FERPlus, of whose labels exactly 30 % were replaced
by another class at random (column `sym30_s<seed>`), 3,000 `dev` images to choose on, and 2,846 `valid` images for final results.
Figures are those after the last epoch. Every finished run is a row of `--out`, written at once, and not run again; so a killed
benchmark goes on where it was."""
import argparse, ast, os, statistics, tarfile, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.vision.all import *
from fastai_resup.all import *

here = Path(__file__).parent

def read_data(src):
    "The folder with FER2013Train and FER2013Valid; an archive is unpacked once beside the temporary files"
    src = Path(src)
    if src.is_dir(): return src
    dest = Path(tempfile.gettempdir())/'fastai_resup-ferplus'
    if not dest.exists():
        with tempfile.TemporaryDirectory(dir=dest.parent) as d:
            tarfile.open(src).extractall(d, filter='data')
            os.rename(d, dest); os.mkdir(d)
    return dest

def make_dls(path, seed, split='dev', noise='sym30', bs=64, **kwargs):
    "FERPlus-mini with the noise of `seed` (noise 'clean' for the true labels), validated on `split`"
    df = pd.read_csv(here/'ferplus_mini.csv')
    df = df[df.split.isin(['train', split])].reset_index(drop=True)
    train = df.split=='train'
    df['label'] = df[f'{noise}_s{seed}'].where(train, df.true) if noise!='clean' else df.true
    df['is_valid'] = ~train
    return FERDataLoaders.from_df(df, path, fn_col='file', label_col='label', valid_col='is_valid', true_col='true', vocab=ferplus_classes, bs=bs,
                                  **{**dict(cache=True, num_workers=0), **kwargs})

def make_cbs(method):
    "None for 'plain', else `ReSup` with the arguments that follow: 'resup', 'reference', 'resup:refit=pass,warmup=2'; `max_iter` is the mixture's, `rise` the lookup's"
    name,_,args = method.partition(':')
    if name=='plain': return None
    kwargs = dict(o.split('=') for o in args.split(',')) if args else {}
    kwargs = {k:_literal(v) for k,v in kwargs.items()}
    if 'max_iter' in kwargs: kwargs['estimator'] = BetaMixture(max_iter=kwargs.pop('max_iter'))
    if 'rise' in kwargs: kwargs['lookup'] = partial(clean_lookup, rise=kwargs.pop('rise'))
    return ReSup(preset='reference' if name=='reference' else None, **kwargs)

def _literal(v):
    try: return ast.literal_eval(v)
    except (ValueError, SyntaxError): return v

def logits(learn, dl=None):
    "Both networks' logits (2, N, K) on un-augmented images, in order"
    return ordered_pass(learn, lambda pair,y: torch.stack(tuple(pair)).mT, dl).mT

def score(learn):
    "Everything a row needs, after the last epoch: accuracies on the validation images, and how the training labels were judged"
    dls,weigh = learn.dls,weigher(learn.model)
    z,y = logits(learn, dls.valid),tensor([dls.vocab.o2i[o.label] for o in dls.valid_ds.items])
    hits = {k:(o.argmax(-1)==y).float() for k,o in dict(acc_0=z[0], acc_1=z[1], acc_ensemble=log_mean_prob(z)).items()}
    res = {k:o.mean().item() for k,o in hits.items()}
    res['acc_class_mean'] = torch.stack([hits['acc_ensemble'][y==c].mean() for c in y.unique()]).mean().item()
    z,given,true = logits(learn),dls.train_targs,dls.true_targs
    sim,wrong,right = similarity(z, given),given!=true,(given==true).numpy()
    p = weigh(sim) if weigh else sim
    res['memorised'] = (log_mean_prob(z).argmax(-1)==given)[wrong].float().mean().item()
    res['auroc'],res['auroc_within'] = rank_scores(right, p.mean(0).numpy(), given.numpy())
    res['auroc_similarity'],res['auroc_similarity_within'] = rank_scores(right, sim.mean(0).numpy(), given.numpy())
    share = np.array([right[given==c].mean() if (given==c).any() else 0 for c in range(len(dls.vocab))])
    return {**res, 'auroc_class_alone':auroc(right, share[given.numpy()]), 'noise_rate':(1-p.mean()).item() if weigh else float('nan')}

def keep_outputs(learn, f):
    "What the networks say, un-augmented and in order, as an npz: logits (2, N, K) of training and validation images, given and true training ids, p(clean) (2, N) and the similarities of the last three refits (3, 2, N)"
    dls,z,weigh = learn.dls,logits(learn),weigher(learn.model)
    p = {} if weigh is None else dict(p_clean=weigh(similarity(z, dls.train_targs)), recent=torch.stack([s for s,_ in learn.recent_similarities]))
    true_valid = [dls.vocab.o2i[o.label] for o in dls.valid_ds.items]
    arrays = dict(train=z, valid=logits(learn, dls.valid), given=dls.train_targs, true=dls.true_targs, true_valid=true_valid, **p)
    np.savez_compressed(f, **{k:np.asarray(v) for k,v in arrays.items()})

def run(path, method, schedule, seed, split, noise, epochs, keep=None):
    "Train one pair and score it; the seed decides images' order, augmentation, heads and dropout"
    set_seed(seed, reproducible=True)
    learn = resup_learner(make_dls(path, seed, split, noise), 'tf_efficientnet_lite0', weights='lite0', metrics=accuracy)
    speed_up_cpu(learn.model)
    start = time.perf_counter()
    with learn.no_bar():
        if schedule=='fine_tune': learn.fine_tune(epochs, cbs=make_cbs(method))
        else:
            learn.unfreeze()
            getattr(learn, schedule)(epochs, 1e-3, cbs=make_cbs(method))
    res = dict(train_s=time.perf_counter()-start, **score(learn))
    if keep: keep_outputs(learn, keep)
    return {**res, 'acc_ensemble_last5':statistics.fmean(float(o[2]) for o in learn.recorder.values[-5:])}

def tables(runs):
    "Rows of `--out` as a markdown table per setting: mean over seeds, and the standard deviation where there are several"
    def cell(o):
        if o.isna().all(): return '-'
        return f'{o.mean():.3f}' + (f' ± {o.std():.3f}' if len(o)>1 else '')
    cols = dict(acc_0='network 0', acc_1='network 1', acc_ensemble='ensemble', acc_class_mean='mean over classes', memorised='memorised', auroc='AUROC',
                auroc_within='within classes', auroc_similarity='of similarity', auroc_similarity_within='within classes', noise_rate='noise rate')
    res = []
    for (schedule,epochs,noise,split),g in runs.groupby(['schedule','epochs','noise','split']):
        lines = [f'{schedule}, {epochs} epochs, noise {noise}, {split}', '', '| | seeds | '+' | '.join(cols.values())+' |', '|---'*(len(cols)+2)+'|']
        for m,rows in g.groupby('method', sort=False):
            lines.append(f"| {m} | {', '.join(map(str, sorted(rows.seed)))} | "+' | '.join(cell(rows[c]) for c in cols)+' |')
        res.append('\n'.join(lines))
    return '\n\n'.join(res)

keys = ['method','schedule','epochs','noise','seed','split']

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz', help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    p.add_argument('--methods', nargs='+', default=['plain','resup','reference'])
    p.add_argument('--seeds', nargs='+', type=int, default=[10,11,12])
    p.add_argument('--schedule', default='fit_one_cycle', choices=['fit_one_cycle','fine_tune','fit'])
    p.add_argument('--epochs', type=int, default=None, help='default: 8, or 7 after the frozen one for fine_tune')
    p.add_argument('--split', default='dev', choices=['dev','valid'])
    p.add_argument('--noise', default='sym30', help="column of ferplus_mini.csv without its seed, or 'clean'")
    p.add_argument('--out', type=Path, default=here/'ferplus_mini_runs.csv')
    p.add_argument('--keep', type=Path, help="folder for what each pair says of every image after training, an npz a run, so that rankings can be compared without training again")
    p.add_argument('--table', action='store_true', help='print the tables of --out and stop')
    a = p.parse_args()
    if a.table: return print(tables(pd.read_csv(a.out)))
    path,epochs = read_data(a.data),a.epochs or (7 if a.schedule=='fine_tune' else 8)
    for seed in a.seeds:
        for method in a.methods:
            key = dict(zip(keys, [method, a.schedule, epochs, a.noise, seed, a.split]))
            done = pd.read_csv(a.out, dtype=str) if a.out.exists() else pd.DataFrame(columns=keys)
            if (done[keys]==pd.Series(key).astype(str)).all(axis=1).any(): print(key, 'is there already'); continue
            print(key, flush=True)
            if a.keep: a.keep.mkdir(parents=True, exist_ok=True)
            res = run(path, method, a.schedule, seed, a.split, a.noise, epochs, a.keep and a.keep/('-'.join(map(str, key.values())).replace(':', '_')+'.npz'))
            row = pd.DataFrame([{**key, **{k:round(v, 5) for k,v in res.items()}}])
            row.to_csv(a.out, mode='a', header=not a.out.exists(), index=False)
            print(row.T.to_string(header=False), flush=True)

if __name__=='__main__': main()
