"""What the predictions of FERPlus-mini prove: ReSup beside the baseline pair and its peers at one noise; trains nothing

    python benchmarks/compare.py --keep FOLDER --noise votes3 --split valid --seeds 20-31      # markdown tables
    python benchmarks/compare.py --keep FOLDER --noise votes3 --split valid --seeds 20-31 --out benchmarks/ferplus_mini_claims.csv

FOLDER holds what `ferplus_mini.py --keep FOLDER` wrote; which runs there are is read from the csv of runs. All that is lacking, or that
isn't what the csv says, is named above the tables.

A difference is taken on the seeds that both methods have, in points. Its 95 % interval is a bootstrap crossed over seeds and test images:
each of 2,000 draws takes seeds and images with replacement, the same for all methods, and the images the same for all seeds. (Few seeds
say too little of seeds: two give half of their variance, one gives none.) p is that of a paired t test over seeds. Holm's correction
counts the baseline pair and all peers, metric by metric; it leaves out oracles and ablations of ReSup. The baseline pair stands at its
best of 3, 5 and 8 epochs by the mean ensemble, chosen once, not in each draw. What the noise costs is the accuracy of the pair on clean
labels, after as many epochs as the methods, minus that of this best one; won back is the share of it by which a method is above the best
one. Class-mean accuracy is that of the ensemble over the classes with at least 30 test images."""
import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from scipy.stats import ttest_rel
from fastai_resup.data.ferplus import ferplus_classes
from fastai_resup.files import save_csv
from fastai_resup.models import log_mean_prob
from ferplus_mini import numbers
from report import head, keys, line, name_of, read_runs, seeds_of

here = Path(__file__).parent
metrics = dict(one='one network', ensemble='ensemble', class_mean='class-mean accuracy')
epoch_counts = [3,5,8]
least_images = 30
n_draws = 2000
on_clean = ' on clean labels' # ends the name of a row
cost = 'cost of the noise'    # names the row whose difference is the cost
unreadable = OSError,ValueError,KeyError,EOFError,BadZipFile
diff_columns = ['difference','low','high']
share_columns = ['won_back','won_back_low','won_back_high']
columns = ['split','noise','method','epochs','metric','seeds','mean']
columns += [*diff_columns,'p','p_holm',*share_columns,'won_back_seeds']

# Statistics

def holm(p):
    "p values corrected by Holm; NaN stay and don't count"
    p = np.asarray(p, float)
    n = np.isfinite(p).sum()
    order = p.argsort()[:n] # NaN come last
    times = np.arange(n, 0, -1)
    scaled = p[order]*times
    rising = np.maximum.accumulate(scaled)
    res = np.full(len(p), np.nan)
    res[order] = rising.clip(max=1)
    return res

@cache
def draw(n, stream):
    "How often each of `n` things counts, (1+draws, n): once each, and then as often as a draw with replacement has it"
    rng = np.random.default_rng(stream)
    chances = np.full(n, 1/n)
    once = np.ones(n)
    drawn = rng.multinomial(n, chances, n_draws)
    return np.vstack([once, drawn])

def estimate(values):
    "The first of `values` (1+draws, metrics), and the 95 % interval of the others"
    draws = values[1:]
    low,high = np.percentile(draws, [2.5,97.5], axis=0)
    return values[0],low,high

@dataclass(eq=False)
class Scores:
    "A method's seeds, its hits (2, seeds, images) by one network and by the ensemble, and its accuracies (1+draws, metrics, seeds)"
    epochs: int
    seeds: list
    hits: np.ndarray
    by_seed: np.ndarray

    def at(self, seeds):
        "These seeds alone"
        ids = [self.seeds.index(o) for o in seeds]
        hits = self.hits[:,ids]
        by_seed = self.by_seed[...,ids]
        return Scores(self.epochs, seeds, hits, by_seed)

    def means(self):
        "Means over the seeds, (1+draws, metrics)"
        n = len(self.seeds)
        times = draw(n, stream=1)
        total = self.by_seed*times[:,None]
        return total.sum(-1)/n

    def accuracy_on(self, images=slice(None)):
        "Mean accuracy of the ensemble"
        _,ensemble = self.hits
        return ensemble[:,images].mean()

class Judge:
    """Scores runs on test images with the true ids `true`

    Raises ValueError where no class has enough images"""
    def __init__(self, true):
        self.true = true
        self.times = draw(len(true), stream=0)
        sizes = np.bincount(true)
        self.large = np.flatnonzero(sizes>=least_images)
        if not len(self.large):
            raise ValueError(f'no class has {least_images} test images')

    def mean(self, hits, images=slice(None)):
        "Accuracy on these images, (1+draws, seeds), by hits (seeds, N)"
        times = self.times[:,images]
        counted = hits[:,images].T
        n = times.sum(1, keepdims=True)
        return times@counted/n

    def score(self, epochs, runs):
        "`Scores` of runs, seed to hits (2, N)"
        seeds = sorted(runs)
        hits = np.stack([runs[o] for o in seeds], 1)
        one,ensemble = hits
        of_classes = [self.mean(ensemble, self.true==c) for c in self.large]
        by_seed = [
            self.mean(one),
            self.mean(ensemble),
            np.mean(of_classes, axis=0)]
        return Scores(epochs, seeds, hits, np.stack(by_seed, 1))

def on_common_seeds(*scores):
    "All on the seeds that all have"
    seeds = [set(o.seeds) for o in scores]
    common = set.intersection(*seeds)
    common = sorted(common)
    return [o.at(common) for o in scores]

def difference(ours, other):
    "`ours` minus `other` in points, with its interval and p, and the mean of `other`; nothing without a seed that both have"
    ours,other = on_common_seeds(ours, other)
    seeds = ours.seeds
    if not seeds: return dict(seeds='none in common')
    a = ours.means()
    b = other.means()
    points = 100*(a-b)
    values = estimate(points)
    res = dict(zip(diff_columns, values))
    res['seeds'] = seeds_of(seeds)
    res['mean'] = b[0]
    if len(seeds)==1: return res
    first = ours.by_seed[0]
    second = other.by_seed[0]
    test = ttest_rel(first, second, axis=1)
    res['p'] = test.pvalue
    return res

def won_back(baseline, method, clean):
    "The share of what the noise costs that `method` wins back, with its interval; NaN where the interval of the cost includes 0"
    trio = on_common_seeds(baseline, method, clean)
    seeds = trio[0].seeds
    if not seeds: return {}
    low,middle,high = (o.means() for o in trio)
    whole = high-low
    part = middle-low
    _,least,_ = estimate(whole)
    with np.errstate(divide='ignore', invalid='ignore'):
        values = estimate(part/whole)
    known = np.where(least>0, values, np.nan)
    res = dict(zip(share_columns, known))
    return dict(res, won_back_seeds=seeds_of(seeds))

# Reading

def file_of(run):
    "The name of the predictions of a row of the csv of runs"
    parts = [str(run[k]) for k in keys]
    name = '-'.join(parts)
    return name.replace(':', '_')+'.npz'

def wanted(runs, a):
    "The csv's rows of all methods at the noise, and of the baseline pair after other epochs and on clean labels"
    counts = [*epoch_counts, a.epochs]
    compared = 'noise==@a.noise and epochs==@a.epochs'
    of_baseline = 'method==@a.baseline and noise in [@a.noise,"clean"] and epochs in @counts'
    runs = runs.query('split==@a.split and schedule==@a.schedule')
    runs = runs.query(f'{compared} or {of_baseline}')
    if a.seeds: runs = runs.query('seed in @a.seeds')
    if not a.methods: return runs
    methods = [a.ours, a.baseline, *a.methods]
    return runs.query('method in @methods')

def read_hits(f, accuracy):
    """Hits (2, N), by one network as the mean of both and by the ensemble, and the true ids

    Raises ValueError unless the ensemble has this accuracy"""
    with np.load(f) as arrays:
        z = torch.from_numpy(arrays['valid'])
        true = arrays['true_valid']
    by_each = z.argmax(-1).numpy()
    by_both = log_mean_prob(z).argmax(-1).numpy()
    one = (by_each==true).mean(0)
    ensemble = by_both==true
    found = ensemble.mean()
    if abs(found-accuracy)>5e-4:
        raise ValueError(f'its ensemble reaches {found:.4f}, that of the csv {accuracy:.4f}')
    return np.stack([one, ensemble]),true

def load(runs, a):
    """(name of a row, epochs) to seed to hits, the true ids, and sentences on what is left out with its seeds

    Raises ValueError for files of different test images"""
    found = {}
    left_out = {}
    true = None
    for run in runs.to_dict('records'):
        f = a.keep/file_of(run)
        name = run['method']
        if run['noise']!=a.noise: name = a.clean
        epochs = run['epochs']
        seed = run['seed']
        try: hits,of_images = read_hits(f, run['acc_ensemble'])
        except unreadable as e:
            why = f'{name}, {epochs} epochs: {reason(e)}'
            left_out.setdefault(why, []).append(seed)
            continue
        if true is None: true = of_images
        if not np.array_equal(true, of_images):
            raise ValueError(f'{f} has other test images than the files before it: keep one set of them in a folder')
        seeds = found.setdefault((name,epochs), {})
        seeds[seed] = hits
    return found,true,left_out

def reason(e):
    "Why a file can't be read"
    return 'no predictions' if isinstance(e, FileNotFoundError) else str(e)

def unknown_files(runs, a):
    "Names of predictions at the noise, and on clean labels, that no row of the csv is for"
    known = [file_of(o) for o in runs.to_dict('records')]
    files = set()
    for noise in (a.noise,'clean'):
        found = a.keep.glob(f'*-{noise}-*-{a.split}.npz')
        files.update(f.name for f in found)
    unknown = files.difference(known)
    return sorted(unknown)

# The comparison

def by_epochs(found, baseline):
    """The mean accuracy of the baseline pair's ensemble by epochs, the best first, over the seeds that all of them have, and these seeds

    Raises ValueError where there are none"""
    runs = {epochs:o for (name,epochs),o in found.items() if name==baseline}
    if not runs: return {},[]
    of_seeds = map(set, runs.values())
    seeds = set.intersection(*of_seeds)
    if not seeds:
        raise ValueError(f'{baseline} has no seed in common after {list(runs)} epochs: choose --seeds that leave one of them out')
    means = {}
    for epochs in sorted(runs):
        hits = [runs[epochs][s] for s in seeds]
        _,ensemble = np.mean(hits, axis=0)
        means[epochs] = ensemble.mean()
    best_first = sorted(means, key=means.get, reverse=True)
    means = {o:means[o] for o in best_first}
    return means,seeds

def scored(found, true, a):
    "Names of rows to `Scores`, in their order; the baseline pair at its best"
    judge = Judge(true)
    means,_ = by_epochs(found, a.baseline)
    best = next(iter(means), None)
    res = {}
    for (name,epochs),runs in found.items():
        counts = best if name==a.baseline else a.epochs
        if epochs==counts: res[name] = judge.score(epochs, runs)
    return {o:res[o] for o in ordered(res, a)}

def ordered(scores, a):
    "Names of rows: ReSup, the baseline pair, the others from the most accurate ensemble on, the pair on clean labels"
    ensembles = {name:o.accuracy_on() for name,o in scores.items()}
    by_accuracy = sorted(ensembles, key=ensembles.get, reverse=True)
    first = [a.ours, a.baseline]
    others = [o for o in by_accuracy if o!=a.clean]
    order = [*first, *others, a.clean]
    order = dict.fromkeys(order)
    return [o for o in order if o in scores]

def is_counted(name, a):
    "Does Holm's correction count a row?"
    kind = name.partition(':')[0]
    kind_of_ours = a.ours.partition(':')[0]
    if name==a.clean: return False
    return kind not in ('truth',kind_of_ours)

def values_of(name, scores, a):
    "What stands in the rows of a method"
    o = scores[name]
    res = difference(scores[a.ours], o)
    res.update(method=name, epochs=o.epochs)
    if is_counted(name, a): res['p_holm'] = res.get('p')
    if name==a.ours:
        for k in [*diff_columns,'p']: res[k] = np.nan
    low = scores.get(a.baseline)
    high = scores.get(a.clean)
    is_known = low and high
    if is_known and o not in (low,high):
        share = won_back(low, o, high)
        res.update(share)
    return res

def cost_values(scores, a):
    "What stands in the rows of what the noise costs, as a list of one, or none where it is unknown"
    low = scores.get(a.baseline)
    high = scores.get(a.clean)
    if not (low and high): return []
    res = difference(high, low)
    res.update(method=cost, epochs=a.epochs, mean=np.nan)
    return [res]

def summary(scores, a):
    "A row per metric of each method, and of what the noise costs"
    values = [values_of(o, scores, a) for o in scores]
    values += cost_values(scores, a)
    of_metrics = [dict(o, metric=list(metrics)) for o in values]
    res = pd.concat(map(pd.DataFrame, of_metrics), ignore_index=True)
    res = res.reindex(columns=columns)
    res['split'] = a.split
    res['noise'] = a.noise
    by_metric = res.groupby('metric')
    res['p_holm'] = by_metric.p_holm.transform(holm)
    return res

def rounded(o):
    "A float with five digits; all else stays"
    return float(f'{o:.5g}') if isinstance(o, float) else o

def save_claims(rows, f):
    "Put rows into the csv `f` in place of those of the same split and noise"
    split = rows.split[0]
    noise = rows.noise[0]
    rows = rows.apply(lambda column: column.map(rounded))
    if f.exists():
        old = pd.read_csv(f, dtype=dict(seeds=str, won_back_seeds=str))
        others = old.query('split!=@split or noise!=@noise')
        rows = pd.concat([others, rows])
    save_csv(rows, f, overwrite=True)

# Words

def lacking(scores, a):
    "Sentences on epochs, methods and seeds that aren't there"
    expected = list(a.methods)
    if a.noise!='clean': expected.append(a.clean)
    for name in expected:
        if name not in scores: yield f'{name}: not there'
    seeds = set(a.seeds)
    for o in scores.values(): seeds.update(o.seeds)
    for name,o in scores.items():
        absent = seeds.difference(o.seeds)
        if absent: yield f'{name}: not there with seeds {seeds_of(absent)}'

def baseline_notes(found, a):
    "Sentences on the baseline pair at its best"
    means,seeds = by_epochs(found, a.baseline)
    if means:
        shown = means_in_words(means)
        yield f'{a.baseline}: {shown}, mean ensemble over seeds {seeds_of(seeds)}; the first is its best and counts'
    for epochs in epoch_counts:
        if epochs not in means: yield f'{a.baseline}: not there after {epochs} epochs'

def means_in_words(means):
    "Accuracies by epochs"
    parts = [f'{m:.4f} after {epochs}' for epochs,m in means.items()]
    return ', '.join(parts)+' epochs'

def in_words(row, form, value, low, high, seeds='seeds'):
    "A value with its interval, by names of columns, and what the interval says or can't"
    o = row[value]
    if pd.isna(o): return '-'
    least = row[low]
    most = row[high]
    text = f'{o:{form}} ({least:{form}} to {most:{form}})'
    if least<=0<=most: text += ', includes 0'
    if ',' not in row[seeds]: text += ', images alone'
    return text

def digits(o, form):
    "A number, or a dash for NaN"
    return '-' if pd.isna(o) else format(o, form)

def name_in_words(name):
    "What a row is called in tables"
    method = name.removesuffix(on_clean)
    return name_of(method)+name[len(method):]

def metric_table(rows, a):
    "All rows of one metric, and what the noise costs by it, as markdown"
    metric = rows.metric.iloc[0]
    minus = f'{name_in_words(a.ours)} minus it, points'
    lines = head(metrics[metric], 'epochs', 'seeds', 'accuracy', minus, 'p', 'p, Holm', 'won back')
    for row in rows.to_dict('records'):
        if row['method']==cost: lines += cost_lines(row)
        else: lines.append(metric_line(row))
    return '\n'.join(lines)

def cost_lines(row):
    "What the noise costs, in a sentence"
    points = in_words(row, '+.1f', *diff_columns)
    return ['', f'The noise costs, in points: {points}; seeds {row["seeds"]}.']

def metric_line(row):
    "A line of a table"
    cells = [
        name_in_words(row['method']),
        str(row['epochs']),
        row['seeds'],
        digits(row['mean'], '.4f'),
        in_words(row, '+.1f', *diff_columns),
        digits(row['p'], '.2g'),
        digits(row['p_holm'], '.2g'),
        in_words(row, '.0%', *share_columns, 'won_back_seeds')]
    return line(*cells)

def class_table(scores, true, a):
    "Accuracy of the ensemble by class, over the seeds that all have, as markdown"
    trio = [a.baseline, a.ours, a.clean]
    shown = [o for o in trio if o in scores]
    common = on_common_seeds(*(scores[o] for o in shown))
    seeds = common[0].seeds
    if not seeds: return f"No seed has all of {', '.join(shown)}: no table by class"
    titles = map(name_in_words, shown)
    lines = head(f'ensemble, seeds {seeds_of(seeds)}', 'test images', *titles)
    sizes = pd.Series(true).value_counts()
    for c,n in sizes.items():
        accuracies = [o.accuracy_on(true==c) for o in common]
        cells = [f'{o:.3f}' for o in accuracies]
        lines.append(line(ferplus_classes[c], str(n), *cells))
    return '\n'.join(lines)

def arguments(args=None):
    "The command line"
    as_written = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add = p.add_argument
    add('--keep', type=Path, required=True, help='folder of the predictions')
    add('--runs', type=Path, default=here/'ferplus_mini_runs.csv', help='csv of runs')
    add('--noise', required=True)
    add('--split', choices=['dev','valid'], required=True)
    add('--seeds', type=numbers, default=[], help="'20-31' or '10,12'; default: all")
    add('--schedule', default='fit_one_cycle')
    add('--epochs', type=int, default=8, help='of all methods but the baseline pair, which stands at its best')
    add('--ours', default='resup:head=linear')
    add('--baseline', default='plain:head=linear')
    add('--methods', nargs='+', default=[], help='those to compare with; default: all of the csv')
    add('--out', type=Path, help='csv to put the figures into, in place of those of the same split and noise')
    a = p.parse_args(args)
    a.clean = a.baseline+on_clean
    return a

def left_out_notes(runs, left_out, a):
    "Sentences on files and runs that don't count"
    for f in unknown_files(runs, a):
        yield f'left out, {f}: no row in {a.runs}'
    for what,seeds in left_out.items():
        yield f'left out, {what}, seeds {seeds_of(seeds)}'

def print_list(sentences):
    "Print a markdown list"
    for o in sentences: print(f'- {o}')

def print_tables(rows, scores, true, a):
    "Print a table per metric, and that by class"
    for metric in metrics:
        of_metric = rows[rows.metric==metric]
        text = metric_table(of_metric, a)
        print(f'\n{text}')
    by_class = class_table(scores, true, a)
    print(f'\n{by_class}')

def main(args=None):
    a = arguments(args)
    runs = read_runs(a.runs)
    compared = wanted(runs, a)
    found,true,left_out = load(compared, a)
    print(f'## {a.split}, noise {a.noise}, {a.schedule}, {a.epochs} epochs\n')
    print_list(left_out_notes(runs, left_out, a))
    if (a.ours,a.epochs) not in found:
        raise SystemExit(f'{a.keep} has no predictions of {a.ours} for this; it has {list(found)}')
    print_list(baseline_notes(found, a))
    scores = scored(found, true, a)
    print_list(lacking(scores, a))
    rows = summary(scores, a)
    print_tables(rows, scores, true, a)
    if a.out: save_claims(rows, a.out)

if __name__=='__main__': main()
