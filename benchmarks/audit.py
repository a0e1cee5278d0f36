"""Who finds the noisy labels first, and how many does it expect: `LabelAudit`, or cleanlab on the same predictions? Trains nothing.

    python benchmarks/ferplus_mini.py --methods resup:head=linear --noise sym30 votes3 --seeds 10 11 --keep kept    # trains
    python benchmarks/audit.py kept/resup*.npz                                                                      # tables
    python benchmarks/audit.py kept/resup*.npz --out benchmarks/audit_orders.csv

Every order has the same predictions: both networks' logits for the training images of FERPlus-mini. `LabelAudit` is made of those while
training (but for the first epoch) and of the last pass, as `ReSup` and `LabelAudit.from_learner` do it. So any kept run can be judged,
also one of another method: mixtures are fitted to its similarities then. 'p(clean) of the last pass' is a mixture of that pass alone.
cleanlab's scores are those of `cleanlab.rank.get_label_quality_scores` on the mean probabilities of the last pass.

Noisy labels are the positives of AUROC and average precision; both are given overall and within given classes (mean weighted by class
size), beside what the true noise rate of the given class alone yields. 'found' is how many noisy labels a person finds who looks at that
many images in this order. Of `LabelAudit` also: estimated minus true noise rate, the largest
such error of a class with at least 200 labels, the Brier score of p(clean), the share of noisy labels among the first 50 and 200, and of
the labels that `suggest()` changes the number and the share that becomes clean."""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cleanlab.rank import get_label_quality_scores
from fastai_resup.audit.decisions import * # audit.suggest()
from fastai_resup.audit.noise_rates import * # audit.noise_by_class()
from fastai_resup.audit.ranking import score_ranking
from fastai_resup.audit.table import LabelAudit, fit_p_clean, prediction_table
from fastai_resup.data.ferplus import ferplus_classes
from fastai_resup.files import save_csv
from fastai_resup.losses import given_prob, similarity
from fastai_resup.record import label_means

figures = dict(auroc='AUROC', auroc_within='within classes', average_precision='average precision',
               average_precision_within='within classes')
found = {f'found_{n}':f'found in {n}' for n in (50,150,500)}
levels = dict(rate_error='error of the noise rate', class_error='largest of a class', brier='Brier score', precision_50='noisy of the first 50',
              precision_200='of the first 200', changed='changed by suggest()', made_clean='of these made clean')

def last_pass(z, given):
    "p(clean) by both networks' logits (2, N, K) alone, shape (2, N)"
    return torch.from_numpy(fit_p_clean(similarity(z, given).double().numpy()))

def epoch_means(z, given):
    "`LabelMeans` of one epoch's logits (2, N, K)"
    probs = z.softmax(-1)
    return label_means(given, last_pass(z, given), given_prob(probs, given), probs.argmax(-1), z.shape[-1])

def read_run(f):
    "Noise, and the audits by all epochs and by the last pass, of what `ferplus_mini.py --keep` wrote"
    with np.load(f) as o: run = {k:torch.from_numpy(v) for k,v in o.items() if k in ('trace','train','given','true')}
    given,last = run['given'],run['train'].float()
    means = None
    for z in [*run['trace'].float().nan_to_num()[1:], last]:
        epoch = epoch_means(z, given)
        means = epoch if means is None else means.joined(epoch)
    probs = last.softmax(-1).numpy()
    true = np.array(ferplus_classes, dtype=object)[run['true']]
    df = prediction_table(probs, given, [str(i) for i in range(len(true))], ferplus_classes).assign(true=true)
    ps = means.p_clean(),last_pass(last, given)
    return noise_of(f),*[LabelAudit.from_predictions(df, p.numpy(), ferplus_classes, probs.mean(0)) for p in ps]

def noise_of(f):
    "The noise in the name of a kept file, '…-votes3-10-dev.npz'"
    return Path(f).stem.split('-')[-3]

def orders(audit, alone):
    "Scores by name, higher is cleaner"
    kinds = 'self_confidence','normalized_margin','confidence_weighted_entropy'
    quality = {o:get_label_quality_scores(audit.labels, audit.pred_probs, method=o) for o in kinds}
    return {'audit':audit.rank, 'audit_last_pass':alone.rank, **quality}

def order_rows(audit, alone):
    "A row per order"
    clean = (audit.df.true==audit.df.label).to_numpy()
    scored = {k:score_ranking(clean, o, audit.labels) for k,o in orders(audit, alone).items()}
    rows = {k:both(o.loc['all'], o.loc['within']) for k,o in scored.items()}
    for k,score in orders(audit, alone).items(): rows[k] |= noisy_first(clean, score)
    rows['class_alone'] = both(scored['audit'].loc['class alone'], dict(auroc=0.5, average_precision=np.nan))
    rows['random'] = {k:(~clean).mean()*int(k[6:]) for k in found}
    return rows

def noisy_first(clean, score):
    "Noisy labels among the first"
    noisy = ~clean[np.argsort(score, kind='stable')]
    return {k:noisy[:int(k[6:])].sum() for k in found}

def both(overall, within):
    "Figures overall and within classes"
    names = 'auroc','average_precision'
    return {o:overall[o] for o in names} | {f'{o}_within':within[o] for o in names}

def level_row(audit):
    "How right the levels are, and what `suggest()` does"
    clean = (audit.df.true==audit.df.label).to_numpy()
    p = audit.df.p_clean
    classes = audit.noise_by_class().query('n>=200')
    first = ~clean[np.argsort(audit.rank, kind='stable')]
    d = audit.suggest()
    now = audit.df.set_index('file').loc[d.file]
    made_clean = d.new_label.to_numpy()==now.true.to_numpy()
    return dict(
        rate_error=audit.noise_rate-(~clean).mean(), class_error=(classes.noise_rate-classes.true_noise_rate).abs().max(),
        brier=((p-clean)**2).mean(), precision_50=first[:50].mean(), precision_200=first[:200].mean(),
        changed=len(d), made_clean=made_clean.mean() if len(d) else np.nan)

def measure(files):
    "A row per run and order"
    rows = []
    for f in files:
        noise,audit,alone = read_run(f)
        for order,row in order_rows(audit, alone).items():
            rows.append(dict(run=Path(f).stem, noise=noise, order=order, **row))
            if order=='audit': rows[-1] |= level_row(audit)
            if order=='audit_last_pass': rows[-1] |= level_row(alone)
    return pd.DataFrame(rows)

def show(rows, columns):
    "Means over runs as a markdown table"
    means = rows.groupby(['noise','order'], sort=False)[list(columns)].mean().dropna(how='all')
    print('| noise | order | '+' | '.join(columns.values())+' |\n'+'|---'*(len(columns)+2)+'|')
    for (noise,order),o in means.iterrows(): print(f'| {noise} | {order} | '+' | '.join(f'{v:.3f}' for v in o)+' |')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('files', nargs='+', type=Path, help='npz files that `ferplus_mini.py --keep` wrote; runs with one noise give their mean')
    p.add_argument('--out', type=Path, help='csv to write, a row per run and order')
    a = p.parse_args()
    rows = measure(a.files)
    if a.out: save_csv(rows.round(4), a.out, overwrite=True)
    for columns in (figures, found, levels):
        show(rows, columns)
        print()

if __name__=='__main__': main()
