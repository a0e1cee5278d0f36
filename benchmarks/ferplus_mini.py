"""FERPlus-mini: real faces, noisy labels, real pretrained weights, on a CPU; ReSup beside its peers under one protocol.

    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --dry-run        # what the grid still lacks, and about how long that takes
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz                  # run it; killed at any time, it goes on where it was
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --methods resup:agreement=1 plain --seeds 10 11 --split dev     # any part
    python benchmarks/ferplus_mini.py --data ferplus.tar.xz --short          # under 10 minutes, its rows are thrown away
    python benchmarks/ferplus_mini.py --table                                # the tables of what is in the csv, trains nothing
    python benchmarks/ferplus_mini.py --plot folder                          # the same as pictures

`ferplus_mini.csv` beside this file fixes images and noise: 5,000 training images of FERPlus, 3,000 `dev` images to choose on, and 2,846
`valid` images for final results. Noise `sym30` is its column `sym30_s<seed>`: exactly 30 % of the labels replaced by another class at
random. Other rates (`sym10`) and `pair30` (each class taken for the next) are drawn by `symmetric_noise` and `pair_noise` with the run's
seed; `votes1` and `votes3` are what one of an image's ten voters said, or the first of three who disagrees with the majority, drawn by
the seed: natural noise. `crowd` is a model of another crowd's confusions, see `crowd_matrix`. `clean` has the true labels. Choices are made on `dev` with seeds 10 to 14, `valid` with seeds 0 to 2 is for the grid. Every run:
EfficientNet-Lite0 twice with ImageNet weights, 64 px, batches of 64, `fit_one_cycle(8, 1e-3)` (or `fine_tune(8)`, or that with other
arguments, `--schedule fine_tune:freeze_epochs=1,lr_mult=2`), the figures of the LAST epoch. A run is one process and one row of `--out`, written when it
is finished and not run again unless `--again` is given. `methods.py` has the methods, `report.py` grid and tables."""
import argparse, multiprocessing, os, re, subprocess, tarfile, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.schedule import fine_tune, fit_one_cycle # learn.fine_tune and learn.fit_one_cycle
from fastai.torch_core import set_seed, tensor
from fastcore.foundation import L
from fastai_resup.audit.ranking import auroc_within_classes
from fastai_resup.data.ferplus import ferplus_classes, read_ferplus_votes
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.noise import matrix_noise, pair_noise, symmetric_noise
from fastai_resup.files import save_csv
from fastai_resup.losses import given_prob, similarity
from fastai_resup.mixture import auroc
from fastai_resup.models import log_mean_prob
from fastai_resup.networks import speed_up_cpu
from fastai_resup.passes import item_names, keep_order, ordered_pass
from fastai_resup.record import label_means
from methods import make_cbs, make_pair, parse
from report import estimate, grid, keys, log_rows, plots, read_runs, tables

here = Path(__file__).parent

def read_data(src):
    "The folder with FER2013Train and FER2013Valid; an archive is unpacked once beside the temporary files"
    src = Path(src)
    if src.is_dir(): return src
    dest = Path(tempfile.gettempdir())/'fastai_resup-ferplus'
    if not dest.exists(): unpack(src, dest)
    return dest

def unpack(archive, dest):
    "Unpack into `dest`, all or nothing; several processes may do so at once"
    with tempfile.TemporaryDirectory(dir=dest.parent) as d:
        whole = Path(d)/'whole'
        with tarfile.open(archive) as f:
            f.extraction_filter = getattr(tarfile, 'data_filter', None) # Python 3.11.3 and older have none
            f.extractall(whole)
        try: whole.rename(dest)
        except OSError:
            if not dest.exists(): raise # else another process was first

def voted_labels(counts, true, n_voters, seed):
    """What `n_voters` of an image's voters, drawn without replacement, make of its label: the first drawn of them that disagrees with the
    true label wins, which otherwise stays. `counts` (N, K) are votes for emotions, `true` the N true ids"""
    rng = np.random.default_rng((seed, n_voters))
    labels = np.array(true)
    for i,votes in enumerate(counts):
        drawn = rng.permutation(np.repeat(np.arange(len(votes)), votes))[:n_voters]
        others = drawn[drawn!=true[i]]
        if len(others): labels[i] = others[0]
    return labels

def emotion_votes(files, path):
    "Votes for the eight emotions, (N, 8), of the images with these names in `path`"
    votes = read_ferplus_votes(path).drop_duplicates('file').set_index('file')
    return votes.loc[list(files), ferplus_classes].to_numpy()

def crowd_matrix():
    """The transition matrix (K, K) of `crowd`, a model of another crowd: neutral faces are called sad, angry or afraid. Its shares are
    chosen by hand after a description of such labels, not counted. Of the labels `fear` a tenth is clean, of `sadness` two fifths; 31 % of all are noisy"""
    flips = dict(
        neutral=dict(sadness=0.25, anger=0.14, fear=0.17),
        happiness=dict(neutral=0.03, sadness=0.02, anger=0.015, fear=0.015),
        surprise=dict(fear=0.2),
        sadness=dict(fear=0.2, neutral=0.1, anger=0.08),
        anger=dict(fear=0.1, sadness=0.08, disgust=0.05),
        fear=dict(surprise=0.15))
    matrix = pd.DataFrame(np.eye(len(ferplus_classes)), ferplus_classes, ferplus_classes)
    for true,given in flips.items():
        for label,share in given.items(): matrix.loc[true,label] = share
        matrix.loc[true,true] = 1-sum(given.values())
    return matrix.to_numpy()

def given_labels(df, noise, seed, path=None):
    """Names of the given training labels of `ferplus_mini.csv`'s training rows: 'clean', 'sym<percent>', 'pair<percent>' or
    'votes<voters>', whose votes lie in `path`, or 'crowd', see `crowd_matrix`"""
    if noise=='clean': return df.true
    if f'{noise}_s{seed}' in df: return df[f'{noise}_s{seed}']
    ids = [ferplus_classes.index(o) for o in df.true]
    if noise=='crowd': return np.array(ferplus_classes)[matrix_noise(ids, crowd_matrix(), seed=seed)]
    kind,number = re.fullmatch(r'(sym|pair|votes)(\d+)', noise).groups()
    if kind=='votes': noisy = voted_labels(emotion_votes(df.file, path), ids, int(number), seed)
    else:
        make_noisy = dict(sym=symmetric_noise, pair=pair_noise)[kind]
        noisy = make_noisy(ids, int(number)/100, len(ferplus_classes), seed=seed)
    return np.array(ferplus_classes)[noisy]

def make_dls(path, seed, split='dev', noise='sym30', bs=64, n=None, **kwargs):
    "FERPlus-mini with the noise of `seed`, validated on `split`; of its first `n` training images and n/2 others where `n` is given"
    df = pd.read_csv(here/'ferplus_mini.csv')
    train = df[df.split=='train']
    train = train.assign(label=given_labels(train, noise, seed, path), is_valid=False)
    valid = df[df.split==split].assign(label=lambda o: o.true, is_valid=True)
    if n: train,valid = train[:n],valid[:n//2]
    columns = dict(fn_col='file', label_col='label', valid_col='is_valid', true_col='true')
    kwargs = {**dict(cache=True, num_workers=0), **kwargs}
    return FERDataLoaders.from_df(pd.concat([train, valid]), path, **columns, vocab=ferplus_classes, bs=bs, **kwargs)

def logits(learn, dl=None):
    "Both networks' logits (2, N, K) on un-augmented images, in order"
    return ordered_pass(learn, lambda pair,y: torch.stack(tuple(pair)).mT, dl).mT

def true_ids(dls):
    "True class ids of the validation images"
    return tensor([dls.vocab.o2i[o.label] for o in dls.valid_ds.items])

def audited(learn, z):
    "p(clean) as `LabelAudit` has it, by both networks' logits (2, N, K), shape (2, N); None without a mixture"
    given = learn.dls.train_targs
    p = learn.model.p_clean(similarity(z, given), given, exact=True)
    if p is None: return None
    probs = z.softmax(-1)
    epoch = label_means(given, p, given_prob(probs, given), probs.argmax(-1), z.shape[-1])
    return learn.record.with_epoch(epoch).p_clean()

def judged(learn, z, sim):
    "How clean each label looks (2, N): the method's own score, p(clean), or else the similarity; and whether it is a probability"
    said = getattr(learn, 'clean_score', None)
    if said is not None: return torch.as_tensor(said).expand_as(sim),False
    p = audited(learn, z)
    return (sim,False) if p is None else (p,True)

def accuracies(z, y):
    "Of each network and of the ensemble, and the ensemble's class-mean accuracy, by both networks' logits (2, N, K) and true ids"
    predicted = dict(acc_0=z[0], acc_1=z[1], acc_ensemble=log_mean_prob(z))
    hits = {k:(o.argmax(-1)==y).float() for k,o in predicted.items()}
    of_classes = torch.stack([hits['acc_ensemble'][y==c].mean() for c in y.unique()])
    return {**{k:o.mean().item() for k,o in hits.items()}, 'acc_class_mean':of_classes.mean().item()}

def judgement(learn, z):
    "How the training labels were judged, by both networks' logits (2, N, K)"
    dls = learn.dls
    given,true = dls.train_targs,dls.true_targs
    clean = given==true
    sim = getattr(learn, 'judge', similarity)(z, given)
    p,is_prob = judged(learn, z, sim)
    res = dict(memorised=(log_mean_prob(z).argmax(-1)==given)[~clean].float().mean().item())
    for name,score in dict(auroc=p, auroc_similarity=sim).items():
        mean = score.mean(0).numpy()
        res[name] = auroc(clean, mean)
        res[f'{name}_within'] = auroc_within_classes(clean, mean, given)
    has_audit = learn.model.has_mixture and not hasattr(learn, 'judge')
    res['auroc_audit'] = auroc(clean, audited(learn, z).mean(0)) if has_audit else float('nan')
    classes = range(len(dls.vocab))
    share = tensor([clean[given==c].float().mean().nan_to_num(0.).item() for c in classes])
    res['auroc_class_alone'] = auroc(clean, share[given])
    res['noise_rate'] = (1-p.mean()).item() if is_prob else float('nan')
    weights = [f'{p.mean(0)[(given==c)&clean].mean():.3f}' for c in classes] if is_prob else []
    return {**res, 'weight_by_class':' '.join(weights)}

class Trace(Callback):
    "Keep what both networks said of each training image in every epoch: `logits`, a list of (2, N, K), float16, NaN where one wasn't seen"
    order,run_valid = MixedPrecision.order+2,False # after the methods

    def before_fit(self):
        "Start anew"
        self.logits = []

    def before_train(self):
        "Begin an epoch"
        shape = 2,len(self.dls.train_ds),len(self.dls.vocab)
        self.logits.append(np.full(shape, np.nan, np.float16))
        self.ids = keep_order(self.dl)

    def after_loss(self):
        "Keep a batch"
        z = torch.stack([o.detach() for o in self.pred])
        self.logits[-1][:,self.ids(self.iter, len(self.y))] = z.half().numpy()

    def after_fit(self):
        "Let go of the data"
        self.ids = None

class TrainAlone(Callback):
    "Leave validation out: the last epoch alone counts, and its figures come afterwards"
    run_train = False

    def before_validate(self):
        "Show no image"
        raise CancelValidException

def keep_outputs(learn, f, trace, train, valid):
    """What the networks predict, un-augmented and in order, as an npz: logits (2, N, K) of training and validation images, given and true
    ids, and logits of every epoch while training, (E, 2, N, K); with a mixture p(clean) (2, N) as `LabelAudit` has it and the estimated
    noise rate of every refit"""
    dls = learn.dls
    arrays = dict(train=train, valid=valid, given=dls.train_targs, true=dls.true_targs, true_valid=true_ids(dls), trace=trace.logits)
    p = audited(learn, train)
    if p is not None:
        arrays['p_clean'] = p
        arrays['noise_rates'] = [o['noise_rate'] for o in learn.record.refits]
    np.savez_compressed(f, **{k:np.asarray(v) for k,v in arrays.items()})

def peak_mb():
    "Peak resident memory of this process"
    with open('/proc/self/status') as f: return next(int(l.split()[1]) for l in f if l.startswith('VmHWM'))/1024

def review(dls, n, seed):
    "Decisions about `n` training labels chosen at random, made by the true ones"
    files,true = item_names(dls.train_ds),dls.true_targs.tolist()
    chosen = np.random.default_rng((seed, 150)).permutation(len(files))[:n]
    rows = [(files[i], dls.train_targs[i].item(), true[i]) for i in chosen]
    decided = [(f, dls.vocab[y], 'keep' if y==t else 'relabel', '' if y==t else dls.vocab[t]) for f,y,t in rows]
    return pd.DataFrame(decided, columns=['file','label','decision','new_label'])

def train(learn, schedule, epochs, cbs):
    "Train a pair; its seconds"
    start = time.perf_counter()
    fit,kwargs = parse(schedule)
    with learn.no_bar():
        if fit=='fine_tune': learn.fine_tune(epochs, cbs=cbs, **kwargs)
        else:
            learn.unfreeze()
            getattr(learn, fit)(epochs, 1e-3, cbs=cbs, **kwargs)
    return time.perf_counter()-start

def run(path, method, schedule, epochs, noise, seed, split, keep=None, n=None):
    "Train one pair and score it; the seed decides images' order, augmentation, heads and dropout"
    set_seed(seed, reproducible=True)
    dls = make_dls(path, seed, split, noise, n=n)
    learn = make_pair(dls, method)
    speed_up_cpu(learn.model)
    trace = Trace()
    cbs = [TrainAlone(), *L(make_cbs(method, partial(review, dls, seed=seed))), *[trace]*bool(keep)]
    res = dict(train_s=train(learn, schedule, epochs, cbs), peak_mb=peak_mb())
    z,z_valid = logits(learn),logits(learn, learn.dls.valid)
    if keep: keep_outputs(learn, keep, trace, z, z_valid)
    return {**res, **accuracies(z_valid, true_ids(learn.dls)), **judgement(learn, z)}

def schedule(s):
    "`s`, if it names one of the schedules"
    if parse(s)[0] in ('fit_one_cycle','fine_tune','fit'): return s
    raise argparse.ArgumentTypeError(f'{s}: a schedule is fit_one_cycle, fine_tune or fit')

def _end_with(parent):
    parent.join()
    os._exit(1)

def _child(queue, kwargs):
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start() # killed alone, the parent would leave this running
    queue.put(run(**kwargs))

def run_alone(**kwargs):
    "`run` in a process of its own, so that nothing is left over from the run before and the memory is its own"
    ctx = multiprocessing.get_context('spawn')
    queue = ctx.Queue()
    p = ctx.Process(target=_child, args=(queue, kwargs))
    p.start()
    while True:
        try: res = queue.get(timeout=5)
        except Exception:
            if p.is_alive() or not queue.empty(): continue
            raise RuntimeError(f'The run {kwargs} ended with exit code {p.exitcode}; its error stands above.') from None
        p.join()
        return res

def commit():
    "The commit these figures belong to, with + where files differ from it"
    git = lambda *a: subprocess.run(['git','-C',str(here),*a], capture_output=True, text=True).stdout.strip()
    changed = git('status', '--porcelain', '--untracked-files=no', '--', '..')
    return git('rev-parse', '--short', 'HEAD') + ('+' if changed else '')

def add_row(out, row):
    "Write `row` into the csv `out` whole, in place of one with the same keys"
    runs = read_runs(out)
    same = (runs[keys].astype(str)==pd.Series({k:str(row[k]) for k in keys})).all(axis=1)
    save_csv(pd.concat([runs[~same], pd.DataFrame([row])]), out, overwrite=True)

def plan_runs(a, runs):
    "The runs that the command line is for, without those that are in the csv already"
    if a.queue: plan = read_queue(a.queue)
    elif a.methods:
        seeds = a.seeds or ([10] if a.short else [10,11,12])
        order = [(m,o,s) for o in a.noise or ['sym30'] for s in seeds for m in a.methods]
        plan = [dict(method=m, schedule=a.schedule, epochs=a.epochs, noise=o, seed=s, split=a.split or 'dev') for m,o,s in order]
    else: plan = [o for o in grid(runs) if o['seed'] in (a.seeds or [o['seed']]) and o['noise'] in (a.noise or [o['noise']])]
    done = set(map(tuple, runs[keys].astype(str).values))
    return [o for o in plan if a.again or tuple(map(str, o.values())) not in done]

def read_queue(f):
    """The runs of a queue, a text file; the first line comes first, what follows # is a remark:

        resup:head=linear votes3,sym30 10,11 dev                    methods, noises, seeds and splits
        plain:head=linear votes3 20-31 valid fit_one_cycle 3        and schedule and epochs"""
    text = [o.partition('#')[0].split() for o in Path(f).read_text(encoding='utf-8').splitlines()]
    return [run for o in text if o for run in queued(*o)]

def queued(method, noises, seeds, split='dev', schedule='fit_one_cycle', epochs=8):
    "The runs of one line"
    def runs(seed, noise): return dict(method=method, schedule=schedule, epochs=int(epochs), noise=noise, seed=seed, split=split)
    return [runs(s, n) for s in numbers(seeds) for n in noises.split(',')]

def numbers(s):
    "Numbers of '10,12' or '20-31'"
    ends = [list(map(int, o.split('-'))) for o in s.split(',')]
    return [n for o in ends for n in range(o[0], o[-1]+1)]

def work(a, path):
    "Run what is planned, `a.lanes` at a time; a queue may change meanwhile"
    lock,begun = threading.Lock(),[]
    def next_run():
        with lock:
            left = [o for o in plan_runs(a, read_runs(a.out)) if o not in begun]
            begun.extend(left[:1])
            return left[:1]
    def lane():
        while run := next_run():
            row = run_row(path, run[0], a.keep, a.short)
            with lock: add_row(a.out, row)
            print(pd.Series(row).to_string(), flush=True)
    with ThreadPoolExecutor(a.lanes) as pool:
        for o in [pool.submit(lane) for _ in range(a.lanes)]: o.result()

def run_row(path, plan, keep, n):
    "The row of one run"
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        keep = keep/('-'.join(map(str, plan.values())).replace(':', '_')+'.npz')
    at = commit()
    res = run_alone(path=path, **plan, keep=keep, n=n)
    rounded = {k:round(v, 5) if isinstance(v, float) else v for k,v in res.items()}
    return {**plan, **rounded, 'commit':at, 'threads':torch.get_num_threads()}

def arguments():
    "The command line"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='../shared/data/ferplus.tar.xz',
                   help='FERPlus: the folder with FER2013Train and FER2013Valid, or an archive of it')
    p.add_argument('--methods', nargs='+', help='default: those of the grid')
    p.add_argument('--seeds', nargs='+', type=int, help='default: those of the grid, with --methods 10 11 12')
    p.add_argument('--schedule', default='fit_one_cycle', type=schedule,
                   help="'fit_one_cycle' (default), 'fine_tune' or 'fit', with arguments as methods have them: 'fine_tune:lr_mult=2'")
    p.add_argument('--epochs', type=int, default=None, help='default: 8, of which frozen ones are taken off')
    p.add_argument('--split', choices=['dev','valid'], help='default: valid for the grid, dev with --methods')
    p.add_argument('--noise', nargs='+', help="'clean', 'sym<percent>', 'pair<percent>', 'votes<voters>', 'crowd'; default: those of the grid, with --methods sym30")
    p.add_argument('--out', type=Path, default=here/'ferplus_mini_runs.csv')
    p.add_argument('--keep', type=Path,
                   help='folder for the predictions of each pair after training, an npz a run, to compare rankings without training again')
    p.add_argument('--queue', type=Path, help='text file of runs in place of --methods, see `read_queue`; it is read again before each run')
    p.add_argument('--lanes', type=int, default=1, help='runs at a time, each with OMP_NUM_THREADS threads (1)')
    p.add_argument('--again', action='store_true', help='run what is in --out already, and put the new row in its place')
    p.add_argument('--dry-run', action='store_true', help='say what would be run, and about how long that takes')
    p.add_argument('--short', nargs='?', type=int, const=1000, metavar='N',
                   help='N training images (1000), 3 epochs, seed 10 on dev: does everything work? Nothing goes into --out')
    p.add_argument('--table', action='store_true', help='print the tables of --out and stop')
    p.add_argument('--log', action='store_true', help='print all rows of --out as the end of LOG.md shows them, and stop')
    p.add_argument('--plot', type=Path, help='folder to write the pictures of --out to')
    a = p.parse_args()
    if not a.epochs: a.epochs = 3 if a.short else 8-parse(a.schedule)[1].get('freeze_epochs', 0)
    if a.short:
        a.methods = a.methods or ['plain','resup','reference']
        a.out = Path(tempfile.mkdtemp())/'short.csv'
    return a

def main():
    a = arguments()
    runs = read_runs(a.out)
    if a.table: print(tables(runs))
    if a.log: print(log_rows(runs))
    if a.plot: print(*plots(runs, a.plot), sep='\n')
    if a.table or a.log or a.plot: return
    plan = plan_runs(a, runs)
    how_long = '' if a.short else estimate(plan, runs)
    print(f'{len(plan)} runs to do{how_long}', *[' '.join(map(str, o.values())) for o in plan], sep='\n', flush=True)
    if a.dry_run: return
    path = read_data(a.data)
    work(a, path)
    if a.short: print(tables(read_runs(a.out)))

if __name__=='__main__': main()
