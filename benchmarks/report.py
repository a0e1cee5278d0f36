"The grid of FERPlus-mini, and tables and pictures of its csv; trains nothing"
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

keys = ['method','schedule','epochs','noise','seed','split']
methods = dict(plain='plain cross entropy', resup='ReSup()', reference="ReSup(preset='reference')", dividemix='DivideMix', elr='ELR', co_teaching='Co-teaching', eac='EAC', rul='RUL',
               scn='SCN', m_correction='M-correction', sce='symmetric CE', gce='GCE', mixup='MixUp', label_smoothing='label smoothing')
ours = ['plain','resup','reference']
ablations = {'resup:swap=0':'weights by their own opinion', 'resup:judge=loss':'mixtures of the loss', 'resup:estimator=gaussian':'Gaussian mixtures', 'resup:agreement=0':'no agreement term', 'resup:agreement=5':'the authors\' factor',
             'resup:agreement=20':'a strong one', 'resup:balance=0':'p(clean) alone', 'resup:monotone=0':'the posterior as it is', 'resup:refit=pass':'one more pass over all images', 'resup:warmup=2':'two epochs of warm-up',
             'resup:normalize=False':'weights not divided by their mean', 'resup:base_loss=ce':'on cross entropy', 'resup:mirror=1':'mirrored images for network 1',
             'resup:arch=lite0+lite1':'two different bodies', 'plain:arch=lite0+lite1':'the same bodies without ReSup'}
tries = {'sce':'alpha=1', 'gce':'q=.9', 'co_teaching':'ramp=.25', 'elr':'lam=7', 'dividemix':'lam_u=0', 'mixup':'alpha=1.', 'm_correction':'alpha=1', 'scn':'relabel=.5', 'eac':'lam=1', 'label_smoothing':'eps=.3'}
tuned = {'eac:lam=1':'EAC, `lam=1`'} # whose other number was clearly better on `dev`
linear = {f'{m}:head=linear':f'{methods[m]}, linear head' for m in ('resup','plain','reference','sce','gce','co_teaching','elr')} # as `resup_learner` makes networks by itself
names = {**linear, **methods, **tuned, 'truth':'plain, wrong labels left out', 'truth:base_loss=sce':"the loss of `ReSup()`, wrong labels left out", **{k:f'`{k}`, {v}' for k,v in ablations.items()}}

def best_peer(runs):
    "The other method with the most accurate two networks in the grid's rows at 30 %, seed 0; None until all of them are there"
    if not len(runs): return None
    o = runs[(runs.split=='valid')&(runs.schedule=='fit_one_cycle')&(runs.epochs==8)&(runs.noise=='sym30')&(runs.seed==0)].set_index('method').acc_ensemble
    others = [m for m in methods if m not in ours]
    return o[others].idxmax() if set(others)<=set(o.index) else None

def grid(runs):
    "Every run of the grid, in the order of importance: at 30 %, seed by seed, the linear head with those that came first with fastai's, all methods with fastai's, and those whose other number was better, then other noise for plain, ReSup (both also with the linear head), the reference and, once it is known, the best peer, then ReSup's ablations (and the fair baseline of the one that exchanges the networks)"
    row = lambda m,noise,seed: dict(method=m, schedule='fit_one_cycle', epochs=8, noise=noise, seed=seed, split='valid')
    few = ours + ['resup:head=linear','plain:head=linear'] + [o for o in [best_peer(runs)] if o]
    return ([row(m, 'sym30', s) for o in (linear, methods, tuned) for s in range(3) for m in o] + [row('plain', 'clean', s) for s in range(3)] + [row(m, 'clean', 0) for m in few[1:]]
            + [row(m, o, 0) for o in ('sym20','sym50','sym10','pair30') for m in few] + [row(m, 'sym30', 0) for m in ablations])

def read_runs(f):
    "The rows of the csv `f`; none where it isn't there"
    return pd.read_csv(f, dtype=dict(commit=str)) if Path(f).exists() else pd.DataFrame(columns=keys)

def estimate(plan, runs):
    "', about 3 h 10 min' for a plan, by the times in `runs`; a method that was never timed counts as plain"
    if not len(runs) or not plan: return ''
    per_epoch = (runs.train_s/runs.epochs).groupby(runs.method).median()
    other = [o['method'] for o in plan if o['method'] not in per_epoch]
    mins = sum(per_epoch.get(o['method'], per_epoch.get('plain', per_epoch.median()))*o['epochs'] for o in plan)/60
    return f', about {int(mins//60)} h {int(mins%60)} min by the times in the csv' + (f' ({len(other)} of them of methods never timed here, counted as plain)' if other else '')

columns = dict(acc_class_mean='mean over classes', memorised='memorised', auroc='AUROC', auroc_within='within classes', auroc_similarity='of similarity', auroc_audit='of LabelAudit', noise_rate='noise rate')

def cell(o, mark=3):
    "Mean, and standard deviation where there are several values"
    o = o.dropna()
    if not len(o): return '-'
    return f'{o.mean():.{mark}f}' + (f' ± {o.std():.{mark}f}' if len(o)>1 else '')

def table(runs, wanted=()):
    "One setting's rows as a markdown table: one network (mean of the two, over seeds), the two averaged, and how labels were judged; `wanted` methods without a row read 'not run'"
    lines = ['| | seeds | one network | two averaged | '+' | '.join(columns.values())+' |', '|---'*(len(columns)+4)+'|']
    for m in dict.fromkeys([*[m for m in names if m in set(runs.method)|set(wanted)], *runs.method]):
        rows = runs[runs.method==m]
        if not len(rows): lines.append(f'| {names[m]} | | '+' | '.join(['not run']*2+['']*len(columns))+' |'); continue
        one = (rows.acc_0+rows.acc_1)/2
        lines.append(f"| {names.get(m, f'`{m}`')} | {', '.join(map(str, sorted(rows.seed)))} | {cell(one)} | {cell(rows.acc_ensemble)} | "+' | '.join(cell(rows[c]) if c in rows else '-' for c in columns)+' |')
    return '\n'.join(lines)

def against(runs, ours='resup'):
    "`ours` minus each other method of one setting, on the seeds that both have, in points: mean and standard deviation, as a markdown table"
    cols = dict(one='one network', acc_ensemble='two averaged', acc_class_mean='mean over classes', auroc='AUROC')
    runs = runs.assign(one=(runs.acc_0+runs.acc_1)/2)
    of = lambda m: runs[runs.method==m].set_index('seed')[list(cols)]*100
    lines = ['| '+names.get(ours, f'`{ours}`')+' minus | seeds | '+' | '.join(cols.values())+' |', '|---'*(len(cols)+2)+'|']
    diffs = {m:(of(ours)-of(m)).dropna() for m in dict.fromkeys(runs.method) if m!=ours}
    for m,d in sorted(diffs.items(), key=lambda o: -o[1].acc_ensemble.mean()):
        if len(d): lines.append(f"| {names.get(m, f'`{m}`')} | {', '.join(map(str, sorted(d.index)))} | "+' | '.join(f'{d[c].mean():+.1f}'+(f' ± {d[c].std():.1f}' if len(d)>1 else '') for c in cols)+' |')
    return '\n'.join(lines)

def by_head(runs):
    "Every method that was run with both heads, one network and two averaged by fastai's head and by one linear layer, in the mean of the seeds that have both, as a markdown table"
    setting = ['schedule','split','noise','method']
    o = runs.assign(one=(runs.acc_0+runs.acc_1)/2, method=runs.method.str.removesuffix(':head=linear'), linear=runs.method.str.endswith(':head=linear'))
    both = o[~o.linear].merge(o[o.linear], on=[*keys], suffixes=('','_linear')).sort_values('seed')
    lines = ["| | | seeds | fastai's head: one network | two averaged | linear head: one network | two averaged |", '|---'*7+'|']
    order = sorted(both.groupby(setting, sort=False), key=lambda g: (g[0][0]!='fit_one_cycle', g[0][1]!='valid', list(dict.fromkeys(both.noise)).index(g[0][2]), list(methods).index(g[0][3])))
    for (schedule,split,noise,m),g in order:
        name = ', '.join([split, noise]+([schedule] if schedule!='fit_one_cycle' else []))
        lines.append(f"| {methods[m]} | {name} | {', '.join(map(str, g.seed))} | "+' | '.join(f'{g[c].mean():.3f}' for c in ('one','acc_ensemble','one_linear','acc_ensemble_linear'))+' |')
    return '\n'.join(lines) if len(both) else 'not run'

def twice(first, second):
    "What was run a second time, by other code of the same mathematics: both results, 'first, second', and by how many points they differ, as a markdown table"
    one = lambda o: o.assign(one=(o.acc_0+o.acc_1)/2)
    both = one(second).merge(one(first), on=keys, suffixes=('_2','')).sort_values(['method','seed'])
    if not len(both): return 'not run'
    lines = ['| | seed | commits | one network | two averaged | AUROC of p(clean) | AUROC of LabelAudit |', '|---'*7+'|']
    pair = lambda o,c: f'{o[c]:.3f}, {o[c+"_2"]:.3f} ({(o[c+"_2"]-o[c])*100:+.1f})'
    for _,o in both.iterrows():
        audited = ', '.join('-' if v!=v else f'{v:.3f}' for v in (o.auroc_audit, o.auroc_audit_2))
        lines.append(f"| {names.get(o.method, f'`{o.method}`')} | {o.seed} | {o.commit}, {o.commit_2} | {pair(o, 'one')} | {pair(o, 'acc_ensemble')} | {pair(o, 'auroc')} | {audited} |")
    return '\n'.join(lines)

def gains(runs, ours='resup', other='plain'):
    "`ours` minus `other` on each seed and split that both have, in points, as a markdown table; at its end the mean with its 95 % interval (Student's t over seeds)"
    cols = dict(one='one network', acc_ensemble='two averaged', acc_class_mean='mean over classes')
    runs = runs.assign(one=(runs.acc_0+runs.acc_1)/2)
    of = lambda m: runs[runs.method==m].set_index(['split','seed'])[list(cols)]*100
    diff = (of(ours)-of(other)).dropna().sort_index()
    if not len(diff): return 'not run'
    row = lambda name,cells: f'| {name} | '+' | '.join(cells)+' |'
    lines = [row(f'{names.get(ours, ours)} minus {names.get(other, other)}', cols.values()), '|---'*(len(cols)+1)+'|', *[row(f'{split}, seed {seed}', [f'{v:+.1f}' for v in o]) for (split,seed),o in zip(diff.index, diff.values)]]
    half = student.ppf(.975, len(diff)-1)*diff.std()/len(diff)**.5 if len(diff)>1 else diff.mean()*np.nan
    return '\n'.join([*lines, row(f'**mean of {len(diff)}**', [f'{m:+.1f}'+(f' ({m-h:+.1f} to {m+h:+.1f})' if h==h else '') for m,h in zip(diff.mean(), half)])])

def won_back(runs, ours='resup', split='valid', schedule='fit_one_cycle', epochs=8, plain='plain'):
    "Of the points that the pair `plain` loses by 30 % wrong labels, the share that `ours` wins back; over the seeds that have all three rows"
    runs = runs[(runs.split==split)&(runs.schedule==schedule)&(runs.epochs==epochs)]
    of = lambda m,noise: runs[(runs.method==m)&(runs.noise==noise)].assign(one=lambda o: (o.acc_0+o.acc_1)/2).set_index('seed')[['one','acc_ensemble']]
    parts = pd.concat({'30 % wrong':of(plain, 'sym30'), names.get(ours, ours):of(ours, 'sym30'), 'right labels':of(plain, 'clean')}, axis=1).dropna()
    if not len(parts): return 'not run'
    low,mid,high = (parts[o].mean() for o in parts.columns.unique(0))
    lines = [f'| seeds {", ".join(map(str, parts.index))} | {names[plain]}, 30 % wrong | {names.get(ours, ours)}, 30 % wrong | {names[plain]}, right labels | won back |', '|---'*5+'|']
    return '\n'.join([*lines, *[f'| {name} | {low[c]:.3f} | {mid[c]:.3f} | {high[c]:.3f} | {(mid[c]-low[c])/(high[c]-low[c]):.0%} |' for c,name in (('one','one network'),('acc_ensemble','two averaged'))]])

def tried(runs, seed=11):
    "The one other number that each peer was given, beside its authors', by one network and two averaged on `dev` with 30 % wrong labels, as a markdown table"
    o = runs[(runs.split=='dev')&(runs.schedule=='fit_one_cycle')&(runs.epochs==8)&(runs.noise=='sym30')&(runs.seed==seed)].set_index('method')
    cell = lambda m: f'{(o.acc_0[m]+o.acc_1[m])/2:.3f} and {o.acc_ensemble[m]:.3f}' if m in o.index else 'not run'
    return '\n'.join(["| | its authors' | another number | with that |", '|---'*4+'|', *[f'| {names[m]} | {cell(m)} | `{v}` | {cell(f"{m}:{v}")} |' for m,v in tries.items()]])

def class_weights(runs, given, true, classes):
    "Mean p(clean) of the rightly labelled training images of each class, as a markdown table: a row a method, for `runs` of one seed; `given` and `true` are the names of its training labels, `classes` those of the weights' order"
    given,true = np.asarray(given),np.asarray(true)
    line = lambda *cells: f"| {' | '.join(cells)} |"
    counts = [f'{((given==c)&(true==c)).sum():,} of {(given==c).sum():,}' for c in classes]
    weights,at = runs[runs.weight_by_class.notna()].set_index('method').weight_by_class,list(names)
    rows = [line(names.get(m, f'`{m}`'), *(f'{float(w):.2f}' for w in weights[m].split())) for m in sorted(weights.index, key=lambda m: at.index(m) if m in at else len(at))]
    return '\n'.join([line('', *classes), '|---'*(len(classes)+1)+'|', line('right of given labels', *counts), *rows])

def cost_table(costs):
    "What `costs.py` wrote, as markdown, the cheapest first"
    lines = ['| | seconds an epoch | to one network | lowest to highest | to the plain pair | peak memory, MB | to one network |', '|---'*7+'|']
    for _,o in costs.sort_values('seconds').iterrows():
        lines.append(f"| {dict(names, single='one network, plain cross entropy', plain='two networks, plain cross entropy').get(o.method, f'`{o.method}`')} | {o.seconds:.1f} | {o.against_single:.2f} | {o.lowest:.2f} to {o.highest:.2f} | {o.against_pair:.2f} | {o.peak_mb:.0f} | {o.peak_against_single:.2f} |")
    return '\n'.join(lines)

def tables(runs):
    "Every setting of `runs`, and of the grid, as markdown"
    plan,res = pd.DataFrame(grid(runs)),[]
    setting = ['split','schedule','epochs','noise']
    for s in dict.fromkeys([*map(tuple, plan[setting].values), *map(tuple, runs[setting].values)]):
        here = lambda df: df[(df[setting]==pd.Series(dict(zip(setting, s)))).all(axis=1)]
        res.append(f'{s[0]}, {s[1]}, {s[2]} epochs, noise {s[3]}\n\n'+table(here(runs), here(plan).method.unique()))
    return '\n\n'.join(res)

def plot_accuracy(runs, ax):
    "One network and two averaged for each method of one setting, mean over seeds with every seed as a point"
    res = runs.assign(one=(runs.acc_0+runs.acc_1)/2).groupby('method')[['one','acc_ensemble']].mean().sort_values('acc_ensemble')
    y = np.arange(len(res))
    for c,color,label,dy in (('one','tab:gray','one network',-.2),('acc_ensemble','tab:blue','two averaged',.2)):
        ax.barh(y+dy, res[c], .38, color=color, label=label)
        for i,m in enumerate(res.index):
            r = runs[runs.method==m]
            ax.plot((r.acc_0+r.acc_1)/2 if c=='one' else r.acc_ensemble, [i+dy]*len(r), 'k|', ms=7)
    ax.set(yticks=y, yticklabels=[names.get(m, m) for m in res.index], xlabel='accuracy after the last epoch', xlim=(max(0, res.min().min()-.08), res.max().max()+.03))
    ax.legend(loc='lower right', fontsize='small')
    return ax

def plot_noise(runs, ax):
    "Accuracy of two averaged networks by the share of wrong labels, seed by seed averaged, for methods with several rates of symmetric noise"
    runs = runs[runs.noise.str.match('clean|sym')]
    rate = runs.noise.replace('clean', 'sym0').str[3:].astype(int)
    for m,r in runs.assign(rate=rate).groupby('method', sort=False):
        o = r.groupby('rate').acc_ensemble.mean()
        if len(o)>1: ax.plot(o.index, o, 'o-', label=names.get(m, m))
    ax.set(xlabel='wrong labels, %', ylabel='accuracy, two averaged')
    if ax.lines: ax.legend(fontsize='small')
    return ax

def plots(runs, dest):
    "Write accuracy.png and noise.png of the grid's rows to the folder `dest`"
    import matplotlib.pyplot as plt
    Path(dest).mkdir(parents=True, exist_ok=True)
    runs = runs[(runs.split=='valid')&(runs.schedule=='fit_one_cycle')&runs.method.isin([*linear, *methods, *tuned])]
    res = []
    for name,f,rows in (('accuracy',plot_accuracy,runs[runs.noise=='sym30']),('noise',plot_noise,runs)):
        fig,ax = plt.subplots(figsize=(8,5), layout='constrained')
        f(rows, ax)
        fig.savefig(Path(dest)/f'{name}.png', dpi=110); plt.close(fig)
        res.append(str(Path(dest)/f'{name}.png'))
    return res
