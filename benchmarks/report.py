"""The grid of FERPlus-mini, and tables and pictures of its csv; trains nothing

Names of methods in the csv are older than today's words: 'plain' is the baseline pair, 'truth' the oracle."""
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

keys = ['method','schedule','epochs','noise','seed','split']
methods = dict(
    plain='baseline pair', resup='ReSup()', reference="ReSup(preset='reference')", dividemix='DivideMix', elr='ELR',
    co_teaching='Co-teaching', eac='EAC', rul='RUL', scn='SCN', m_correction='M-correction', sce='symmetric CE', gce='GCE', mixup='MixUp',
    label_smoothing='label smoothing')
ours = ['plain','resup','reference']
ablations = {
    'resup:swap=0': 'weights by their own p(clean)',
    'resup:judge=loss': 'mixtures of the loss',
    'resup:agreement=0': 'no agreement term',
    'resup:agreement=5': "the authors' factor",
    'resup:agreement=20': 'a strong one',
    'resup:balance=0': 'p(clean) alone',
    'resup:refit=pass': 'one more pass over all images',
    'resup:warmup=2': 'two epochs of warm-up',
    'resup:normalize=False': 'weights not divided by their mean',
    'resup:base_loss=ce': 'on cross entropy',
    'resup:mirror=1': 'mirrored images for network 1',
    'resup:arch=lite0+lite1': 'two different bodies',
    'plain:arch=lite0+lite1': 'the same bodies without ReSup'}
tuned = {'eac:lam=1':'EAC, `lam=1`'} # whose other number was clearly better on `dev`
with_linear_head = ['resup','plain','reference','sce','gce','co_teaching','elr'] # the head that `resup_learner` makes by itself
linear = {f'{m}:head=linear':f'{methods[m]}, linear head' for m in with_linear_head}
oracles = {'truth':'baseline pair, noisy labels left out', 'truth:base_loss=sce':'base loss of `ReSup()`, noisy labels left out'}
names = {**linear, **methods, **tuned, **oracles, **{k:f'`{k}`, {v}' for k,v in ablations.items()}}
accuracies = dict(one='one network', acc_ensemble='ensemble', acc_class_mean='class-mean accuracy')
columns = dict(
    acc_class_mean='class-mean accuracy', memorised='noisy labels memorised', auroc='AUROC', auroc_within='within classes',
    auroc_similarity='of similarity', auroc_audit='of LabelAudit', noise_rate='noise rate')

def read_runs(f):
    "The rows of the csv `f`; none where it isn't there"
    return pd.read_csv(f, dtype=dict(commit=str, threads='Int64')) if Path(f).exists() else pd.DataFrame(columns=keys)

def setting(runs, split='valid', schedule='fit_one_cycle', epochs=8, noise=None):
    "The rows of one setting"
    same = (runs.split==split)&(runs.schedule==schedule)&(runs.epochs==epochs)
    return runs[same] if noise is None else runs[same&(runs.noise==noise)]

def best_peer(runs):
    "The other method with the most accurate ensemble in the grid's rows at 30 %, seed 0; None until all of them are there"
    if not len(runs): return None
    rows = setting(runs, noise='sym30')
    rows = rows[rows.seed==0].set_index('method').acc_ensemble
    others = [m for m in methods if m not in ours]
    return rows[others].idxmax() if set(others)<=set(rows.index) else None

def grid(runs):
    """Every run of the grid, in the order of importance

    First a noise rate of 30 %, seed by seed: the linear head, fastai's head, and tuned peers. Then other noise for the baseline pair,
    ReSup, the reference and, once it is known, the best peer. Then ReSup's ablations, and the baseline of the one that exchanges bodies."""
    def row(m, noise, seed): return dict(method=m, schedule='fit_one_cycle', epochs=8, noise=noise, seed=seed, split='valid')
    few = [*ours, 'resup:head=linear', 'plain:head=linear']
    best = best_peer(runs)
    if best: few.append(best)
    main = [row(m, 'sym30', seed) for group in (linear, methods, tuned) for seed in range(3) for m in group]
    clean = [row('plain', 'clean', seed) for seed in range(3)] + [row(m, 'clean', 0) for m in few[1:]]
    other = [row(m, noise, 0) for noise in ('sym20','sym50','sym10','pair30') for m in few]
    return main + clean + other + [row(m, 'sym30', 0) for m in ablations]

def estimate(plan, runs):
    "', about 3 h 10 min' for a plan, by the times in `runs`; a method that was never timed counts as the baseline pair"
    if not len(runs) or not plan: return ''
    per_epoch = (runs.train_s/runs.epochs).groupby(runs.method).median()
    usual = per_epoch.get('plain', per_epoch.median())
    untimed = [o['method'] for o in plan if o['method'] not in per_epoch]
    minutes = sum(per_epoch.get(o['method'], usual)*o['epochs'] for o in plan)/60
    res = f', about {int(minutes//60)} h {int(minutes%60)} min by the times in the csv'
    if untimed: res += f' ({len(untimed)} of them of methods never timed here, counted as the baseline pair)'
    return res

def line(*cells): return f"| {' | '.join(cells)} |"
def head(*cells): return [line(*cells), '|---'*len(cells)+'|']
def name_of(method): return names.get(method, f'`{method}`')
def seeds_of(seeds): return ', '.join(map(str, sorted(seeds)))
def with_one(runs): return runs.assign(one=(runs.acc_0+runs.acc_1)/2) # accuracy of one network, the mean of both

def cell(o, digits=3):
    "Mean, and standard deviation where there are several values"
    o = o.dropna()
    if not len(o): return '-'
    spread = f' ± {o.std():.{digits}f}' if len(o)>1 else ''
    return f'{o.mean():.{digits}f}{spread}'

def table(runs, wanted=()):
    "One setting's rows as a markdown table, means over seeds; `wanted` methods without a row read 'not run'"
    runs = with_one(runs)
    known = [m for m in names if m in {*runs.method, *wanted}]
    shown = ['one','acc_ensemble',*columns]
    lines = head('', 'seeds', 'one network', 'ensemble', *columns.values())
    for m in dict.fromkeys([*known, *runs.method]):
        rows = runs[runs.method==m]
        cells = [cell(rows[c]) if c in rows else '-' for c in shown]
        if len(rows): lines.append(line(name_of(m), seeds_of(rows.seed), *cells))
        else: lines.append(line(name_of(m), '', 'not run', 'not run', *['']*len(columns)))
    return '\n'.join(lines)

def points(runs, method, index, cols):
    "Rows of a method in points, by `index`"
    return runs[runs.method==method].set_index(index)[list(cols)]*100

def against(runs, ours='resup'):
    "`ours` minus each other method of one setting, on the seeds that both have, in points: mean and standard deviation"
    cols = {**accuracies, 'auroc':'AUROC'}
    runs = with_one(runs)
    mine = points(runs, ours, 'seed', cols)
    diffs = {m:(mine-points(runs, m, 'seed', cols)).dropna() for m in dict.fromkeys(runs.method) if m!=ours}
    lines = head(f'{name_of(ours)} minus', 'seeds', *cols.values())
    for m,d in sorted(diffs.items(), key=lambda o: -o[1].acc_ensemble.mean()):
        cells = [f'{d[c].mean():+.1f}'+(f' ± {d[c].std():.1f}' if len(d)>1 else '') for c in cols]
        if len(d): lines.append(line(name_of(m), seeds_of(d.index), *cells))
    return '\n'.join(lines)

def gains(runs, ours='resup', other='plain'):
    "`ours` minus `other` on each seed and split that both have, in points; last the mean with its 95 % interval (Student's t over seeds)"
    runs = with_one(runs)
    mine,theirs = (points(runs, m, ['split','seed'], accuracies) for m in (ours, other))
    diff = (mine-theirs).dropna().sort_index()
    n = len(diff)
    if not n: return 'not run'
    lines = head(f'{name_of(ours)} minus {name_of(other)}', *accuracies.values())
    for (split,seed),values in zip(diff.index, diff.values):
        lines.append(line(f'{split}, seed {seed}', *(f'{v:+.1f}' for v in values)))
    half = student.ppf(0.975, n-1)*diff.std()/n**0.5 if n>1 else diff.mean()*np.nan
    cells = [f'{m:+.1f}'+(f' ({m-h:+.1f} to {m+h:+.1f})' if h==h else '') for m,h in zip(diff.mean(), half)]
    return '\n'.join([*lines, line(f'**mean of {n}**', *cells)])

def won_back(runs, ours='resup', baseline='plain', **kwargs):
    "Of the points that the baseline pair loses at 30 % noise, the share that `ours` wins back; over seeds with all three rows"
    runs = with_one(setting(runs, **kwargs))
    def of(method, noise): return runs[(runs.method==method)&(runs.noise==noise)].set_index('seed')[['one','acc_ensemble']]
    parts = dict(low=of(baseline, 'sym30'), mid=of(ours, 'sym30'), high=of(baseline, 'clean'))
    parts = pd.concat(parts, axis=1).dropna()
    if not len(parts): return 'not run'
    lines = head(f'seeds {seeds_of(parts.index)}', f'{name_of(baseline)}, 30 % noise', f'{name_of(ours)}, 30 % noise',
                 f'{name_of(baseline)}, clean labels', 'won back')
    for c in ('one','acc_ensemble'):
        low,mid,high = (parts[o][c].mean() for o in ('low','mid','high'))
        lines.append(line(accuracies[c], f'{low:.3f}', f'{mid:.3f}', f'{high:.3f}', f'{(mid-low)/(high-low):.0%}'))
    return '\n'.join(lines)

def cost_table(costs):
    "What `costs.py` wrote, as markdown, the cheapest first"
    lines = head('', 'seconds an epoch', 'to one network', 'lowest to highest', 'to the baseline pair', 'peak memory, MB', 'to one network')
    for _,o in costs.sort_values('seconds').iterrows():
        name = 'one network, cross entropy' if o.method=='single' else name_of(o.method)
        lines.append(line(name, f'{o.seconds:.1f}', f'{o.against_single:.2f}', f'{o.lowest:.2f} to {o.highest:.2f}',
                          f'{o.against_pair:.2f}', f'{o.peak_mb:.0f}', f'{o.peak_against_single:.2f}'))
    return '\n'.join(lines)

def tables(runs):
    "Every setting of `runs`, and of the grid, as markdown"
    plan,res = pd.DataFrame(grid(runs)),[]
    of = ['split','schedule','epochs','noise']
    for s in dict.fromkeys([*map(tuple, plan[of].values), *map(tuple, runs[of].values)]):
        rows,planned = setting(runs, *s),setting(plan, *s)
        res.append(f'{s[0]}, {s[1]}, {s[2]} epochs, noise {s[3]}\n\n'+table(rows, planned.method.unique()))
    return '\n\n'.join(res)

noise_words = {
    **{f'sym{p}':f'{p} % of the labels replaced at random' for p in (10, 20, 30, 50)},
    'pair30':'30 % of the labels of each class replaced by the next class', 'clean':'clean labels',
    'votes1':'the label of one annotator', 'votes3':'the label of the first of three annotators who disagrees',
    'crowd':'the confusions of another crowd'}

def log_rows(runs):
    "Every row of `runs` as the end of LOG.md shows them, seeds together"
    runs = with_one(runs)
    shown = ['one','acc_ensemble','acc_class_mean','memorised','auroc','auroc_within','auroc_audit','noise_rate']
    titles = ['one network','ensemble','class-mean accuracy','noisy labels memorised','AUROC','AUROC within classes',
              'AUROC of LabelAudit','estimated noise rate']
    res = []
    for (split,schedule,noise),part in runs.groupby(['split','schedule','noise'], sort=False):
        lines = head('run', 'seeds', *titles, 'commit')
        for method,rows in part.groupby('method'):
            commits = ', '.join(sorted(rows.commit.dropna().unique()))
            cells = [cell(rows[c]).replace('-', '') for c in shown]
            lines.append(line(f'`{method}`', seeds_of(rows.seed), *cells, commits))
        res.append(f'### `{split}`, `{schedule}`, {noise_words[noise]}\n\n'+'\n'.join(lines))
    return '\n\n'.join(res)

def plot_accuracy(runs, ax):
    "One network and ensemble for each method of one setting, mean over seeds with every seed as a point"
    runs = with_one(runs)
    means = runs.groupby('method')[['one','acc_ensemble']].mean().sort_values('acc_ensemble')
    y = np.arange(len(means))
    for c,color,dy in (('one','tab:gray',-0.2),('acc_ensemble','tab:blue',0.2)):
        ax.barh(y+dy, means[c], 0.38, color=color, label=accuracies[c])
        for i,m in enumerate(means.index):
            values = runs[c][runs.method==m]
            ax.plot(values, [i+dy]*len(values), 'k|', ms=7)
    low,high = means.min().min(),means.max().max()
    ax.set(yticks=y, yticklabels=[names.get(m, m) for m in means.index])
    ax.set(xlabel='accuracy after the last epoch', xlim=(max(0, low-0.08), high+0.03))
    ax.legend(loc='lower right', fontsize='small')
    return ax

def plot_noise(runs, ax):
    "Accuracy of the ensemble by the rate of symmetric noise, mean over seeds, for methods with several rates"
    runs = runs[runs.noise.str.match('clean|sym')]
    rate = runs.noise.replace('clean', 'sym0').str[3:].astype(int)
    for m,rows in runs.assign(rate=rate).groupby('method', sort=False):
        means = rows.groupby('rate').acc_ensemble.mean()
        if len(means)>1: ax.plot(means.index, means, 'o-', label=name_of(m))
    ax.set(xlabel='noise rate, %', ylabel='accuracy of the ensemble')
    if ax.lines: ax.legend(fontsize='small')
    return ax

def plots(runs, dest):
    "Write accuracy.png and noise.png of the grid's rows to the folder `dest`"
    import matplotlib.pyplot as plt
    dest = Path(dest)
    dest.mkdir(parents=True, exist_ok=True)
    shown = runs.method.isin([*linear, *methods, *tuned])
    runs = runs[(runs.split=='valid')&(runs.schedule=='fit_one_cycle')&shown]
    files = []
    for name,plot,rows in (('accuracy',plot_accuracy,runs[runs.noise=='sym30']),('noise',plot_noise,runs)):
        fig,ax = plt.subplots(figsize=(8,5), layout='constrained')
        plot(rows, ax)
        files.append(str(dest/f'{name}.png'))
        fig.savefig(files[-1], dpi=110)
        plt.close(fig)
    return files
