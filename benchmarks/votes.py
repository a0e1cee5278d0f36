"""Does a low p(clean) mean that FERPlus's annotators disagreed? And whose consensus is best where several annotate?

    python benchmarks/votes.py --data ferplus.tar.xz --epochs 4
    python benchmarks/votes.py --data ferplus.tar.xz --predictions FILE.npz …

The first trains `ReSup()` on real FERPlus faces with the label most of the ten votes went to (the plurality), no noise added, and prints
Spearman's rank correlation of p(clean), and of the similarity, with the share of votes against the label; `--plot` and `--table` write the
picture and the row per image. The images are drawn from FER2013Train by `--seed`, so they have every degree of disagreement (FERPlus-mini
has only images most annotators agreed on).

The second trains nothing. A file that `ferplus_mini.py --keep` wrote has the predictions for FERPlus-mini's training images, and the truth is
what most of the ten voters said. Annotators are made in two ways, for five seeds each:
- voters: of the ten, two, three or five are drawn, each for a seat of 20 at random. FERPlus doesn't say who voted, so all seats are
  equally good, and the quality of an annotator has no truth.
- people: 20 annotators, of whom each image has one to five. They answer as a voter of the image does. Six of them answer a share of 15 to 70 % at
  random, one says sadness for anger and one surprise for fear nearly always. Their true quality is their accuracy over all images.
With `+ given` the label that the networks were trained on is one more annotation.
For each: accuracy of the majority (ties by the networks), of cleanlab's consensus (CROWDLAB) and of `consensus_labels`, without the networks and with
them; the rank correlation and the mean difference of each annotator's quality with the true one."""
import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from fastai.callback.schedule import fit_one_cycle # learn.fit_one_cycle
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai_resup.audit.annotators import annotator_quality, consensus_labels
from fastai_resup.audit.table import LabelAudit
from fastai_resup.audit.votes import compare_votes, plot_votes, vote_bins
from fastai_resup.callbacks import ReSup
from fastai_resup.data.ferplus import ferplus_classes, ferplus_labels, read_ferplus_votes
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.files import save_csv
from fastai_resup.learner import resup_learner
from fastai_resup.networks import speed_up_cpu
from ferplus_mini import emotion_votes, here, read_data
from scipy.special import softmax
from scipy.stats import spearmanr

def make_dls(path, votes, n, n_valid, seed, bs=64):
    "`n` training and `n_valid` validation images with plurality labels"
    df = votes.assign(label=ferplus_labels(votes, 'plurality'), is_valid=votes['split']=='valid')
    df = df.dropna(subset='label').drop_duplicates('file')
    df = pd.concat([df[df.is_valid==v].sample(k, random_state=seed) for v,k in ((False,n),(True,n_valid))])
    return FERDataLoaders.from_df(df, path, 'file', 'label', 'is_valid', vocab=ferplus_classes, cache=True, num_workers=0, bs=bs)

def voters(counts, k, rng):
    "`k` voters of each image, or all where there are fewer, each at one of 20 seats: labels (N, 20), NaN where empty"
    res = np.full((len(counts),20), np.nan)
    for row,votes in zip(res, counts):
        drawn = rng.permutation(np.repeat(np.arange(len(votes)), votes))[:k]
        row[rng.permutation(20)[:len(drawn)]] = drawn
    return res

def people(counts, true, rng):
    "Labels (N, 20) of annotators with known accuracies, NaN where not asked, and these accuracies"
    n,k = counts.shape
    shares = (counts/counts.sum(1, keepdims=True)).cumsum(1)
    said = np.stack([(shares<rng.random((n,1))).sum(1) for _ in range(20)], 1)
    for m,careless in zip(range(12, 18), (0.15,0.15,0.3,0.3,0.5,0.7)):
        said[:,m] = np.where(rng.random(n)<careless, rng.integers(0, k, n), said[:,m])
    for m,(a,b) in zip((18,19), (('anger','sadness'),('fear','surprise'))):
        mistaken = (said[:,m]==ferplus_classes.index(a)) & (rng.random(n)<0.9)
        said[mistaken,m] = ferplus_classes.index(b)
    asked = rng.random((n,20)).argsort(1).argsort(1)<rng.integers(1, 6, n)[:,None]
    return np.where(asked, said, np.nan),(said==true[:,None]).mean(0)

def long_table(labels):
    "Annotations as `read_annotations` returns them"
    image,who = np.nonzero(~np.isnan(labels))
    return pd.DataFrame(dict(file=[f'{i}.png' for i in image], annotator=who.astype(str), label=np.array(ferplus_classes)[labels[image,who].astype(int)]))

def cleanlabs(labels, probs):
    "cleanlab's consensus, ids, and its quality of each annotator"
    from cleanlab.multiannotator import get_label_quality_multiannotator
    res = get_label_quality_multiannotator(pd.DataFrame(labels), probs, verbose=False)
    return res['label_quality'].consensus_label.to_numpy(),res['annotator_stats'].annotator_quality.sort_index().to_numpy()

def ours(labels, audit=None):
    "`consensus_labels`, ids, the quality of each annotator, and the mean probability of the consensus"
    table = long_table(labels)
    found = consensus_labels(table, audit)
    quality = annotator_quality(table, audit)
    at = found.file.str.removesuffix('.png').astype(int)
    ids = pd.Series(found.label.map(ferplus_classes.index).to_numpy(), at).sort_index().to_numpy()
    return ids,quality.set_index(quality.annotator.astype(int)).quality.sort_index().to_numpy(),found.consensus_prob.mean()

def compare_one(labels, probs, true, accuracies=None):
    "Accuracy of each consensus, and how well each knows the annotators where their accuracies are known"
    counts = np.stack([(labels==k).sum(1) for k in range(probs.shape[1])], 1)
    df = pd.DataFrame(dict(file=[f'{i}.png' for i in range(len(true))], label=ferplus_classes[0], p_clean=0.5, similarity_0=0.5, similarity_1=0.5))
    found = dict(cleanlab=cleanlabs(labels, probs), alone=ours(labels)[:2])
    *found['ours'],expected = ours(labels, LabelAudit(df, ferplus_classes, probs))
    res = dict(majority=((counts+1e-3*probs).argmax(1)==true).mean())
    res |= {o:(ids==true).mean() for o,(ids,_) in found.items()} | {'ours expects':expected}
    if accuracies is None: return res
    for o,(_,quality) in found.items(): res |= {f'{o} rank':spearmanr(quality, accuracies).statistic, f'{o} off by':abs(quality-accuracies).mean()}
    return res

def compare_annotators(files, path, n_seeds=5):
    "A row per file of predictions and kind of annotators, means over seeds"
    df = pd.read_csv(here/'ferplus_mini.csv')
    counts = emotion_votes(df.file[df.split=='train'], path)
    rows = []
    for f in files:
        with np.load(f) as d: logits,given,true = d['train'],d['given'],d['true']
        probs = softmax(logits.astype(float), -1).mean(0)
        for seed in range(n_seeds):
            rng = np.random.default_rng(seed)
            for k in (2,3,5): rows.append(dict(file=f.stem, annotators=f'{k} voters', **compare_one(voters(counts, k, rng), probs, true)))
            labels,accuracies = people(counts, true, rng)
            rows.append(dict(file=f.stem, annotators='people', **compare_one(labels, probs, true, accuracies)))
            more = np.column_stack([labels, given])
            rows.append(dict(file=f.stem, annotators='people + given', **compare_one(more, probs, true, np.append(accuracies, (given==true).mean()))))
    return pd.DataFrame(rows).groupby(['file','annotators'], sort=False).mean()

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz',
                   help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    p.add_argument('--predictions', nargs='+', type=Path, help='files that ferplus_mini.py --keep wrote: compare consensus labels, train nothing')
    p.add_argument('--epochs', type=int, default=4)
    p.add_argument('--n', type=int, default=5000, help='training images')
    p.add_argument('--n-valid', type=int, default=1000, help='validation images, for the progress table alone')
    p.add_argument('--seed', type=int, default=0, help='decides images and training')
    p.add_argument('--plot', type=Path, help='png to write')
    p.add_argument('--table', type=Path, help='csv to write, a row per training image')
    a = p.parse_args()
    path = read_data(a.data)
    if a.predictions: return print(compare_annotators(a.predictions, path).round(3).T.to_string())
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
