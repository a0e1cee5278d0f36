"The statistics of comparisons, on made-up predictions whose answers are known"
import subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

bench = Path(__file__).resolve().parents[1]/'benchmarks'
sys.path.insert(0, str(bench))
import compare, report

ours,plain = 'resup:head=linear','plain:head=linear'
true = np.repeat([0,1,2,3], [400,300,280,20]) # the last class is too small for the class-mean accuracy

def args(*more, keep='.', noise='votes3'): return compare.arguments(['--keep', str(keep), '--noise', noise, '--split', 'dev', *map(str, more)])

def hits(accuracy, seed, shared=0., n=len(true), stream=5):
    "Hits (2, n) of a network and an ensemble; a share of the images is as hard for all seeds"
    rng,images = np.random.default_rng((seed,stream)),np.random.default_rng(9)
    u = np.where(images.random(n)<shared, images.random(n), rng.random(n))
    return np.stack([u<accuracy-0.1, u<accuracy]).astype(float)

def exact(accuracy, seed):
    "Hits of exactly this accuracy by the ensemble, 0.1 less by one network, in each class"
    order = np.concatenate([np.random.default_rng((seed,int(c))).permutation(n)/n for c,n in enumerate(np.bincount(true))])
    return np.stack([order<accuracy-0.1-1e-9, order<accuracy-1e-9]).astype(float)

def score(accuracy, seeds, f=hits, **kwargs): return compare.Judge(true).score(8, {s:f(accuracy, s, **kwargs) for s in seeds})

def row(method=plain, seed=10, noise='votes3', epochs=8, acc=0.5): return dict(method=method, schedule='fit_one_cycle', epochs=epochs, noise=noise, seed=seed, split='dev', acc_ensemble=acc)

def write(folder, hits, **kwargs):
    "Predictions with the ensemble's hits, as the harness keeps them; the row of the csv"
    predicted = np.where(hits[1]>0, true, (true+1)%8)
    z = torch.nn.functional.one_hot(torch.tensor(predicted), 8).float().numpy()*3
    run = row(acc=hits[1].mean(), **kwargs)
    np.savez_compressed(folder/compare.file_of(run), valid=np.stack([z,z]), true_valid=true)
    return run

# Statistics

def test_holm_by_hand():
    "0.01 by 4, 0.02 by 3, 0.03 by 2 gives 0.06 again, 0.5 by 1; in the order they came, NaN doesn't count"
    assert compare.holm([0.03, np.nan, 0.01, 0.5, 0.02])==pytest.approx([0.06, np.nan, 0.04, 0.5, 0.06], nan_ok=True)
    assert compare.holm([0.9, 0.8]).tolist()==[1, 1] and np.isnan(compare.holm([np.nan])).all()

def test_accuracies_by_hand():
    "Two seeds with one network at 0.4 and 0.6; classes of fewer than 30 images don't count for the class mean"
    h = np.zeros((2,len(true)))
    h[0,:400],h[1,:700],h[1,980:] = 1,1,1
    o = compare.Judge(true).score(8, {11:h, 10:np.ones_like(h)})
    assert o.seeds==[10,11] and o.by_seed.shape==(2001,3,2)
    assert o.by_seed[0]==pytest.approx(np.array([[1,0.4],[1,0.72],[1,2/3]]))
    assert o.means()[0]==pytest.approx([0.7,0.86,5/6])

def test_first_draw_is_the_data_and_draws_repeat():
    a,b = compare.draw(50, 1),compare.draw(50, 1)
    assert (a[0]==1).all() and (a==b).all() and (a.sum(1)==50).all() and len(a)==2001
    assert not (a==compare.draw(50, 0)).all()

def test_an_exact_difference_has_no_doubt_over_seeds():
    o = compare.difference(score(0.75, [1,2,3], exact), score(0.70, [1,2,3], exact))
    assert o['difference']==pytest.approx([5,5,5]) and o['mean']==pytest.approx([0.6,0.7,0.7]) and o['seeds']=='1, 2, 3'
    assert (0<o['low']).all() and (o['low']<5).all() and (5<o['high']).all()      # images alone make the interval

def test_interval_covers_the_known_difference_and_shrinks_with_seeds():
    few,many = (compare.difference(score(0.75, range(n)), score(0.70, range(n), stream=6)) for n in (3,24))
    for o in (few,many): assert (o['low']<5).all() and (5<o['high']).all()
    assert ((many['high']-many['low']) < 0.6*(few['high']-few['low'])).all()

def test_interval_covers_in_about_95_of_100_cases():
    "Seeds and images both vary: each of 16 seeds has a level of its own, each image is easier for one method or for the other"
    judge = compare.Judge(np.zeros(300, int))
    def covers(case):
        rng = np.random.default_rng(case)
        def runs(accuracy):
            images = accuracy+rng.normal(0, 0.12, 300)
            return {s:np.stack([rng.random(300)<images+rng.normal(0, 0.03)]*2).astype(float) for s in range(16)}
        o = compare.difference(judge.score(8, runs(0.55)), judge.score(8, runs(0.50)))
        return o['low'][1]<=5<=o['high'][1]
    assert np.mean([covers(i) for i in range(40)])>=0.875

def test_crossed_bootstrap_is_wider_than_one_over_seeds_where_images_vary():
    a,b = score(0.75, range(8), shared=0.9),score(0.70, range(8), exact)
    crossed = compare.difference(a, b)
    a.by_seed[:],b.by_seed[:] = a.by_seed[:1],b.by_seed[:1]                        # the images as they are in all draws
    seeds_alone = compare.difference(a, b)
    assert ((crossed['high']-crossed['low']) > 1.5*(seeds_alone['high']-seeds_alone['low'])).all()
    assert (crossed['difference']==seeds_alone['difference']).all()

def test_seeds_are_drawn_too():
    "By hand: of four seeds two are correct on all images, two on none; a draw has none of the first by 1/16, and so for all, images never vary"
    all_or_none = {s:np.full((2,len(true)), float(s<2)) for s in range(4)}
    none = {s:np.zeros((2,len(true))) for s in range(4)}
    judge = compare.Judge(true)
    o = compare.difference(judge.score(8, all_or_none), judge.score(8, none))
    assert [o[k].tolist() for k in ('low','difference','high')]==[[0]*3, [50]*3, [100]*3]

def test_same_images_for_all_methods():
    "Two methods with the same hits never differ, whatever is drawn"
    o = compare.difference(score(0.7, [1,2]), score(0.7, [2,1]))
    assert (o['low']==0).all() and (o['high']==0).all()

def test_p_is_of_a_paired_t_test():
    "By hand: differences of 1, 2 and 3 points, t = 2 sqrt(3), p = 0.0742"
    a = {s:exact(0.70+d, s) for s,d in ((1,0.01),(2,0.02),(3,0.03))}
    o = compare.difference(compare.Judge(true[:980]).score(8, {s:h[:,:980] for s,h in a.items()}), compare.Judge(true[:980]).score(8, {s:exact(0.70, s)[:,:980] for s in a}))
    assert o['p'][1]==pytest.approx(0.0742, abs=0.003)

def test_only_common_seeds_count_and_one_seed_has_no_p():
    o = compare.difference(score(0.75, [1,2], exact), score(0.70, [2,3], exact))
    assert o['seeds']=='2' and 'p' not in o and o['difference'][1]==pytest.approx(5) and o['low'][1]<5<o['high'][1]
    assert compare.difference(score(0.75, [1], exact), score(0.7, [2], exact))==dict(seeds='none in common')

def test_won_back_by_hand():
    "0.60 with noise, 0.72 by a method, 0.80 without: 60 %"
    low,mid,high = (score(a, [1,2,3], exact) for a in (0.6,0.72,0.8))
    o = compare.won_back(low, mid, high)
    assert o['won_back']==pytest.approx([0.6]*3, abs=0.01) and o['won_back_seeds']=='1, 2, 3'
    assert (o['won_back_low']>0.3).all() and (o['won_back_low']<0.6).all() and (o['won_back_high']>0.6).all()
    assert compare.won_back(low, low, high)['won_back'].tolist()==[0,0,0]
    assert np.isnan(compare.won_back(high, mid, high)['won_back']).all()                     # nothing was lost
    assert compare.won_back(low, mid, score(0.8, [9]))=={}

def test_best_epochs_by_common_seeds():
    "After 3 epochs seed 1 alone is better; the others have it too, and 5 epochs are best on seeds 1 and 2"
    def runs(**acc): return {int(s[1:]):exact(a, 1) for s,a in acc.items()}
    found = {(plain,3):runs(s1=0.6, s2=0.6), (plain,5):runs(s1=0.65, s2=0.65), (plain,8):runs(s1=0.6, s2=0.6, s3=0.99), (ours,8):runs(s1=0.7)}
    means,seeds = compare.by_epochs(found, plain)
    assert list(means)==[5,3,8] and list(means.values())==pytest.approx([0.65,0.6,0.6]) and seeds=={1,2}
    scores = compare.scored(found, true, args())
    assert list(scores)==[ours,plain] and scores[plain].epochs==5 and compare.by_epochs(found, 'gce')==({},[])
    with pytest.raises(ValueError, match='no seed in common after'): compare.by_epochs({(plain,3):runs(s1=0.6), (plain,8):runs(s2=0.6)}, plain)

def test_holm_counts_the_baseline_and_peers():
    a = args()
    assert [compare.is_counted(o, a) for o in (plain, 'gce:head=linear', 'reference:head=linear', ours, 'resup:head=linear,swap=0', 'truth:head=linear', a.clean)]==[True]*3+[False]*4
    found = {(m,8):{s:hits(acc, s, stream=i) for s in range(6)} for i,(m,acc) in enumerate([(ours,0.75), (plain,0.7), ('gce',0.74), ('truth',0.9), ('resup:swap=0',0.74)])}
    rows = compare.summary(compare.scored(found, true, a), a)
    assert rows.method.drop_duplicates().tolist()==[ours,plain,'truth','gce','resup:swap=0']     # the most accurate ensemble first
    of = rows[rows.metric=='ensemble'].set_index('method')
    assert of.p_holm.notna().to_dict()=={ours:False, plain:True, 'gce':True, 'truth':False, 'resup:swap=0':False}
    assert of.p_holm[plain]==pytest.approx(min(1, 2*of.p[plain])) and of.p_holm['gce']>=of.p['gce']
    assert np.isnan(of.difference[ours]) and of['mean'][ours]==pytest.approx(0.75, abs=0.03)

def test_no_class_is_large_enough():
    with pytest.raises(ValueError, match='no class has 30 test images'): compare.Judge(np.arange(8))

# The command line

@pytest.fixture
def kept(tmp_path):
    "Predictions and csv of two seeds: baseline after 3, 5 and 8 epochs, clean labels, ReSup, a peer"
    folder = tmp_path/'keep'
    folder.mkdir()
    rows = [write(folder, exact(a, s), method=plain, epochs=e, seed=s) for s in (10,11) for e,a in ((3,0.6),(5,0.65),(8,0.55))]
    rows += [write(folder, exact(0.8, s), method=plain, noise='clean', seed=s) for s in (10,11)]
    rows += [write(folder, exact(a, s), method=m, seed=s) for m,a in ((ours,0.75),('gce:head=linear',0.7)) for s in (10,11)]
    pd.DataFrame(rows).to_csv(tmp_path/'runs.csv', index=False)
    return tmp_path

def words(root, *more): return ['--keep', root/'keep', '--runs', root/'runs.csv', '--noise', 'votes3', '--split', 'dev', *more]

def said(capsys, root, *more):
    "What the command prints"
    compare.main([*map(str, words(root, *more))])
    return capsys.readouterr().out

def test_command_line(kept):
    o = subprocess.run([sys.executable, bench/'compare.py', *words(kept)], capture_output=True, text=True, timeout=300)
    assert o.returncode==0, o.stderr
    assert 'plain:head=linear: 0.6500 after 5, 0.6000 after 3, 0.5500 after 8 epochs, mean ensemble over seeds 10, 11' in o.stdout
    assert '| baseline pair, linear head | 5 | 10, 11 | 0.6500 | +10.0 (' in o.stdout and 'The noise costs, in points: +15.0 (' in o.stdout
    assert '| neutral | 400 | 0.650 | 0.750 | 0.800 |' in o.stdout and 'not there' not in o.stdout and 'left out' not in o.stdout

def test_rows_of_the_same_noise_are_replaced(kept, capsys):
    out = kept/'claims.csv'
    pd.DataFrame([dict(split='dev', noise=n, method='old', seeds='1', mean=-0.5) for n in ('votes3','sym30')]).to_csv(out, index=False)
    said(capsys, kept, '--out', out)
    rows = pd.read_csv(out)
    assert set(rows.columns)==set(compare.columns) and not (rows.method[rows.noise=='votes3']=='old').any()
    assert rows.method[rows.noise=='sym30'].tolist()==['old'] and rows['mean'][rows.method=='old'].tolist()==[-0.5]
    of = rows[rows.metric=='ensemble'].set_index('method')
    assert of.won_back[ours]==pytest.approx(2/3, abs=1e-4) and of.difference['gce:head=linear']==pytest.approx(5) and of.difference[compare.cost]==pytest.approx(15)
    assert of.difference[plain+compare.on_clean]==pytest.approx(-5) and of.epochs[plain]==5 and np.isnan(of.difference[ours])
    first = out.read_bytes()
    said(capsys, kept, '--out', out)
    assert out.read_bytes()==first                                                           # the same rows, once

def test_what_is_lacking_is_named(kept, capsys):
    def file(*run, **kwargs): return kept/'keep'/compare.file_of(row(*run, **kwargs))
    file(ours, 11).unlink()
    file('gce:head=linear', 10).write_bytes(b'half')
    for seed in (10,11): file(plain, seed, epochs=3).unlink()
    write(kept/'keep', exact(0.5, 11), method='gce:head=linear', seed=11)
    write(kept/'keep', exact(0.5, 11), method='elr', seed=11)
    text = said(capsys, kept, '--methods', 'gce:head=linear', 'sce', '--seeds', '10-12')
    for o in ('left out, elr-fit_one_cycle-8-votes3-11-dev.npz: no row in', 'left out, resup:head=linear, 8 epochs: no predictions, seeds 11',
              'left out, gce:head=linear, 8 epochs: ', 'its ensemble reaches 0.5000, that of the csv 0.7000, seeds 11', 'sce: not there',
              'plain:head=linear: not there after 3 epochs', 'plain:head=linear: not there with seeds 12', 'resup:head=linear: not there with seeds 11, 12', 'images alone'):
        assert o in text, (o, text)
    assert '| GCE, linear head |' not in text
    with pytest.raises(SystemExit, match='has no predictions of resup:head=linear'): said(capsys, kept, '--noise', 'sym30')

def test_other_test_images_are_refused(kept):
    f = kept/'keep'/compare.file_of(row(ours, 11))
    with np.load(f) as o: np.savez_compressed(f, valid=o['valid'][:,::-1], true_valid=o['true_valid'][::-1])
    a = args('--runs', kept/'runs.csv', keep=kept/'keep')
    with pytest.raises(ValueError, match='resup_head=linear-fit_one_cycle-8-votes3-11-dev.npz has other test images'): compare.load(compare.wanted(report.read_runs(a.runs), a), a)

def test_clean_labels_cost_nothing(kept, capsys):
    write(kept/'keep', exact(0.8, 10), method=ours, noise='clean')
    pd.concat([pd.read_csv(kept/'runs.csv'), pd.DataFrame([row(ours, noise='clean', acc=0.8)])]).to_csv(kept/'runs.csv', index=False)
    text = said(capsys, kept, '--noise', 'clean')
    assert '| baseline pair, linear head | 8 | 10 | 0.8000 | +0.0 (+0.0 to +0.0), includes 0, images alone |' in text and 'The noise costs' not in text and 'on clean labels' not in text
