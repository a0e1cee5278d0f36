"""Who finds the noisy labels first: `LabelAudit`, cleanlab on the same predictions, or the small loss?

    python benchmarks/ferplus_mini.py --methods resup:head=linear --seeds 12 --keep kept     # trains, and keeps the networks' predictions
    python benchmarks/audit.py kept/resup*.npz                                               # one table
    python benchmarks/audit.py --train --seeds 12                                            # both in one

Every ranking has the same predictions: both networks' logits on the un-augmented training images of FERPlus-mini at a noise rate of 30 %.
`LabelAudit` also uses the similarities that `ReSup` recorded in the last three epochs, as it does for users; the row 'without its last
epochs' leaves them out. AUROC and average precision (noisy labels are the positives) are given overall and within given classes (mean
weighted by class size), beside what the given class alone yields. cleanlab's scores are those of
`cleanlab.rank.get_label_quality_scores` on the mean probabilities."""
import argparse, tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from fastai_resup.audit.crossval import fit_p_clean
from fastai_resup.audit.decisions import * # audit.suggest()
from fastai_resup.audit.ranking import score_ranking
from fastai_resup.audit.table import LabelAudit, prediction_table
from fastai_resup.data.ferplus import ferplus_classes

def load_audit(f):
    "The audit of a pair whose logits `ferplus_mini.py --keep` wrote; a pair without a mixture gets one fitted to its similarities"
    with np.load(f) as o: o = dict(o)
    probs = softmax(o['train'].astype(np.float32), axis=-1)
    true = np.array(ferplus_classes, dtype=object)[o['true']]
    df = prediction_table(probs, o['given'], [str(i) for i in range(len(true))], ferplus_classes).assign(true=true)
    p = o['p_clean'].astype(float) if 'p_clean' in o else fit_p_clean(df[['similarity_0','similarity_1']].to_numpy().T)
    return LabelAudit.from_predictions(df, p, ferplus_classes, probs.mean(0))

def rankings(audit):
    "Name to score, higher is cleaner"
    from cleanlab.rank import get_label_quality_scores
    given,probs = audit.labels,audit.pred_probs
    kinds = 'self_confidence','normalized_margin','confidence_weighted_entropy'
    quality = {f'cleanlab {o.replace("_", " ")}':get_label_quality_scores(given, probs, method=o) for o in kinds}
    small_loss = np.log(probs[np.arange(len(given)),given])
    return {'LabelAudit':audit.rank, **quality, 'small loss':small_loss}

def compare(audit):
    "A row per ranking: AUROC and average precision, overall and within given classes"
    clean = (audit.df.true==audit.df.label).to_numpy()
    tables = {k:score_ranking(clean, o, audit.labels) for k,o in rankings(audit).items()}
    def row(t):
        within = t.loc['within']
        return dict(auroc=t.auroc['all'], auroc_within=within.auroc, ap=t.average_precision['all'], ap_within=within.average_precision)
    rows = {k:row(t) for k,t in tables.items()}
    alone = tables['LabelAudit'].loc['class alone']
    rows['given class alone'] = dict(auroc=alone.auroc, auroc_within=0.5, ap=alone.average_precision, ap_within=np.nan)
    return pd.DataFrame(rows).T

def suggestions(audit):
    "What `audit.suggest()` at its defaults would change: labels changed, made clean, made noisy; noise rate before and after"
    d,df = audit.suggest(),audit.df.set_index('file')
    now = df.loc[d.file]
    made_clean = int((d.new_label.to_numpy()==now.true.to_numpy()).sum())
    made_noisy = int((now.label==now.true).sum())
    noisy = int((df.label!=df.true).sum())
    after = noisy-made_clean+made_noisy
    return dict(changed=len(d), made_clean=made_clean, made_noisy=made_noisy, noise_before=noisy/len(df), noise_after=after/len(df))

def train(seeds, data, folder):
    "Train ReSup on FERPlus-mini as `ferplus_mini.py` does, and keep the outputs in `folder`"
    from ferplus_mini import read_data, run
    files = [folder/f'resup-{s}.npz' for s in seeds]
    for f,s in zip(files, seeds): run(read_data(data), 'resup:head=linear', 'fit_one_cycle', s, 'dev', 'sym30', 8, f)
    return files

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('files', nargs='*', type=Path,
                   help='npz files that `ferplus_mini.py --keep` wrote; several give the mean of their figures')
    p.add_argument('--train', action='store_true', help='train first, instead of reading files')
    p.add_argument('--seeds', nargs='+', type=int, default=[12])
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz',
                   help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    a = p.parse_args()
    if bool(a.files)==a.train: p.error('give npz files, or --train')
    with tempfile.TemporaryDirectory() as d:
        files = train(a.seeds, a.data, Path(d)) if a.train else a.files
        audits = [load_audit(f) for f in files]
        tables = [compare(o) for o in audits]
    print(f"{len(tables)} run{'s' if len(tables)>1 else ''}\n")
    print('| | AUROC | within classes | average precision | within classes |\n|---|---|---|---|---|')
    for k,r in (sum(tables)/len(tables)).iterrows(): print(f'| {k} | '+' | '.join('-' if o!=o else f'{o:.4f}' for o in r)+' |')
    changes = pd.DataFrame(map(suggestions, audits)).to_string(index=False, float_format='{:.3f}'.format)
    print(f'\naudit.suggest(), run by run:\n{changes}')

if __name__=='__main__': main()
