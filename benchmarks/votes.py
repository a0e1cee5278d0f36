"""Natural noise: does a low p(clean) mean that FERPlus's annotators disagreed?

    python benchmarks/votes.py --data ../shared/data/ferplus.tar.xz --epochs 4

Trains `ReSup()` on real FERPlus faces with the label most of the ten votes went to (the plurality), no noise added, and prints Spearman's
rank correlation of p(clean), and of the similarity, with the share of votes against the label; `--plot` and `--table` write the picture and
the row per image. The images are drawn from FER2013Train by `--seed`, so they have every degree of disagreement (FERPlus-mini has only
images most annotators agreed on)."""
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from fastai.callback.schedule import fit_one_cycle # learn.fit_one_cycle
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai_resup.audit.table import LabelAudit
from fastai_resup.audit.votes import compare_votes, plot_votes, vote_bins
from fastai_resup.callbacks import ReSup
from fastai_resup.data.ferplus import ferplus_classes, ferplus_labels, read_ferplus_votes
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.files import save_csv
from fastai_resup.learner import resup_learner
from fastai_resup.networks import speed_up_cpu
from ferplus_mini import read_data

def make_dls(path, votes, n, n_valid, seed, bs=64):
    "`n` training and `n_valid` validation images with plurality labels"
    df = votes.assign(label=ferplus_labels(votes, 'plurality'), is_valid=votes['split']=='valid')
    df = df.dropna(subset='label').drop_duplicates('file')
    df = pd.concat([df[df.is_valid==v].sample(k, random_state=seed) for v,k in ((False,n),(True,n_valid))])
    return FERDataLoaders.from_df(df, path, 'file', 'label', 'is_valid', vocab=ferplus_classes, cache=True, num_workers=0, bs=bs)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz',
                   help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    p.add_argument('--epochs', type=int, default=4)
    p.add_argument('--n', type=int, default=5000, help='training images')
    p.add_argument('--n-valid', type=int, default=1000, help='validation images, for the progress table alone')
    p.add_argument('--seed', type=int, default=0, help='decides images and training')
    p.add_argument('--plot', type=Path, help='png to write')
    p.add_argument('--table', type=Path, help='csv to write, a row per training image')
    a = p.parse_args()
    path = read_data(a.data)
    votes = read_ferplus_votes(path)
    set_seed(a.seed, reproducible=True)
    learn = resup_learner(make_dls(path, votes, a.n, a.n_valid, a.seed), 'tf_efficientnet_lite0', weights='lite0', metrics=accuracy)
    speed_up_cpu(learn.model)
    learn.unfreeze()
    with learn.no_bar(): learn.fit_one_cycle(a.epochs, 1e-3, cbs=ReSup())
    table,rho = compare_votes(LabelAudit.from_learner(learn).df, votes)
    print(f'{len(table):,} images, {a.epochs} epochs, seed {a.seed}; mean share of votes against the label {table.disagreement.mean():.3f}')
    print(f'rank correlation with the share of votes against the label: p(clean) {rho["p_clean"]:.3f}, similarity {rho["similarity"]:.3f}')
    print(vote_bins(table).round(3).to_string())
    if a.table: save_csv(table, a.table, overwrite=True)
    if a.plot:
        fig,axs = plt.subplots(1, 2, figsize=(11,3.5), layout='constrained')
        for ax,score in zip(axs, rho.index):
            plot_votes(table, score, ax)
            ax.set_title(f'rank correlation {rho[score]:.2f}', pad=18, fontsize=10)
        fig.savefig(a.plot, dpi=110)

if __name__=='__main__': main()
