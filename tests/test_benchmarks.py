"The benchmark of FERPlus-mini: its noise, its plan, its csv and a run of each kind, small"
import subprocess, sys, tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed, tensor
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.models import resnet18

bench = Path(__file__).resolve().parents[1]/'benchmarks'
sys.path.insert(0, str(bench))
import costs, ferplus_mini as fm, report
from methods import given_prob
from fastai_resup.audit.table import LabelAudit
from fastai_resup.callbacks import ReSup
from fastai_resup.data.ferplus import ferplus_classes
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.learner import resup_learner
from fastai_resup.losses import Pair, gce_loss, resup_loss, sce_loss, similarity
from fastai_resup.mixture import auroc
from fastai_resup.networks import lite_weights
from fastai_resup.peers.fer import is_linear_head
from fastai_resup.synth import make_faces

def call(*args): return subprocess.run([sys.executable, str(bench/'ferplus_mini.py'), *map(str, args)], capture_output=True, text=True, timeout=600)

@pytest.fixture(scope='module')
def train():
    df = pd.read_csv(bench/'ferplus_mini.csv')
    return df[df.split=='train']

@pytest.mark.parametrize('noise,n', [('clean',0), ('sym30',1500), ('sym10',500), ('sym50',2500)])
def test_exactly_the_share_named_is_noisy(train, noise, n): assert (np.asarray(fm.given_labels(train, noise, 0))!=train.true.to_numpy()).sum()==n

def test_pair_noise_takes_each_class_for_the_next(train):
    given,true = np.asarray(fm.given_labels(train, 'pair30', 0)),train.true.to_numpy()
    after = dict(zip(ferplus_classes, [*ferplus_classes[1:], ferplus_classes[0]]))
    wrong = given!=true
    assert (given[wrong]==[after[o] for o in true[wrong]]).all() and 0.27<wrong.mean()<0.33

def test_votes_become_natural_noise(ferplus_root):
    counts = np.array([[10,0,0],[0,9,1],[1,1,1],[0,0,2]]) # votes of four images
    true = [0,1,0,2]
    once = [fm.voted_labels(counts, true, 1, seed) for seed in range(300)]
    assert (np.array(once)[:,[0,3]]==[0,2]).all() # nobody disagrees
    assert 0.05 < np.mean([o[1]==2 for o in once]) < 0.16 # one of ten does
    thrice = np.array([fm.voted_labels(counts, true, 3, seed) for seed in range(300)])
    assert 0.22 < (thrice[:,1]==2).mean() < 0.38 and (thrice[:,2]!=0).all() # three of ten draws; all three voters, of whom two disagree
    df = pd.read_csv(bench/'ferplus_mini.csv').query("split=='train'")
    for noise,rate in (('votes1',0.155),('votes3',0.373)):
        labels = fm.given_labels(df, noise, 20, ferplus_root)
        assert (labels==fm.given_labels(df, noise, 20, ferplus_root)).all() and abs((labels!=df.true).mean()-rate) < 0.01

def test_another_crowd_confuses_classes(train):
    given,true = fm.given_labels(train, 'crowd', 10),train.true.to_numpy()
    def right(label): return (true[given==label]==label).mean()
    assert 0.29 < (given!=true).mean() < 0.32 and np.allclose(fm.crowd_matrix().sum(1), 1)
    assert right('fear')<0.12 and 0.35<right('sadness')<0.45 and right('happiness')>0.95
    assert (true[(given=='sadness')&(true!='sadness')]=='neutral').mean() > 0.8

def test_no_training_image_is_an_image_to_choose_or_report_on():
    df = pd.read_csv(bench/'ferplus_mini.csv')
    assert df.file.is_unique and df.split.value_counts().to_dict()==dict(train=5000, dev=3000, valid=2846)

def test_runs_that_start_together_share_the_unpacked_images(tmp_path, monkeypatch):
    (tmp_path/'FER2013Train').mkdir()
    (tmp_path/'FER2013Train'/'a.png').write_bytes(b'an image')
    with tarfile.open(tmp_path/'a.tar', 'w') as f: f.add(tmp_path/'FER2013Train', 'FER2013Train')
    monkeypatch.setattr(fm.tempfile, 'tempdir', str(tmp_path/'tmp'))
    (tmp_path/'tmp').mkdir()
    both,unpack = Barrier(2, timeout=60),tarfile.open
    def wait(*args): both.wait(); return unpack(*args)
    monkeypatch.setattr(fm.tarfile, 'open', wait)                                        # neither unpacks before both have seen that nothing is there
    with ThreadPoolExecutor(2) as pool: first,second = pool.map(fm.read_data, [tmp_path/'a.tar']*2)
    assert first==second and (first/'FER2013Train'/'a.png').read_bytes()==b'an image'
    assert list((tmp_path/'tmp').iterdir())==[first]                                     # nothing is left over

def test_grid_is_what_the_protocol_asks_for():
    df = pd.DataFrame(report.grid(pd.DataFrame(columns=report.keys)))
    assert not df.duplicated().any() and set(df.split)=={'valid'}
    seeds = df[df.noise=='sym30'].groupby('method').seed.apply(sorted)
    assert seeds.map(tuple).to_dict()=={**dict.fromkeys([*report.linear, *report.methods, *report.tuned], (0,1,2)), **dict.fromkeys(report.ablations, (0,))}
    assert df.method[len(df)-len(report.ablations):].tolist()==list(report.ablations)     # last of all
    for noise in ('clean','sym10','sym20','sym50','pair30'): assert {'plain','resup','reference','plain:head=linear','resup:head=linear'} <= set(df[(df.noise==noise)&(df.seed==0)].method)

def test_the_best_peer_is_found_in_the_rows_and_joins_the_grid():
    rows = [row(m, acc=0.8 if m=='resup' else 0.6 if m=='gce' else 0.5) for m in report.methods]
    assert report.best_peer(pd.DataFrame(rows))=='gce' and report.best_peer(pd.DataFrame(rows[:-1])) is None
    assert dict(method='gce', schedule='fit_one_cycle', epochs=8, noise='pair30', seed=0, split='valid') in report.grid(pd.DataFrame(rows))

@pytest.mark.parametrize('method', [*report.linear, *report.methods, *report.ablations])
def test_every_method_of_the_grid_can_be_made(method):
    cb = fm.make_cbs(method)
    assert (cb is None)==(fm.parse(method)[0]=='plain')

def test_a_pair_can_have_two_different_bodies(tmp_path):
    dls = FERDataLoaders.from_folder(make_faces(tmp_path/'faces', 70, 35, 32, progress=False), bs=16, img_size=32, num_workers=0)
    for arch,sizes in (('lite0+lite1',(0,1)), ('lite1',(1,1))):
        nets = fm.make_pair(dls, f'resup:agreement=1,arch={arch}').model.nets
        for net,i in zip(nets, sizes): assert torch.equal(net[0].model.conv_head.weight, lite_weights(i)['conv_head.weight'])
    assert fm.make_cbs('resup:agreement=5,arch=lite1').agreement==5
    for arch in ('resnet18','lite0+lite1+lite0'):
        with pytest.raises(ValueError, match=f'plain:arch={arch.replace("+", ".")}: arch is one or two of lite0, lite1, lite2'): fm.make_pair(dls, f'plain:arch={arch}')

def test_the_linear_head_is_for_every_method(tmp_path):
    dls = FERDataLoaders.from_folder(make_faces(tmp_path/'faces', 70, 35, 32, progress=False), bs=16, img_size=32, num_workers=0)
    linear = lambda method: is_linear_head(fm.make_pair(dls, method).model.nets[1][1])
    assert linear('eac') and linear('resup:head=linear,agreement=1') and not linear('resup') and not linear('eac:head=fastai')
    assert fm.make_cbs('plain:head=linear') is None
    with pytest.raises(ValueError, match="head must be one of linear, fastai, not 'x'"): fm.make_pair(dls, 'plain:head=x')

def test_a_mixture_can_watch_any_method(tmp_path):
    path = make_faces(tmp_path/'faces', 70, 35, 32, progress=False)
    def trained(method):
        set_seed(0, reproducible=True)
        learn = fm.make_pair(FERDataLoaders.from_folder(path, bs=16, img_size=32, noise=0.3, seed=0, num_workers=0), method)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3, cbs=fm.make_cbs(method))
        return learn
    for method in ('plain:head=linear','elr:head=linear,lam=2'):
        alone,watched = trained(method),trained(method+',audit=1')
        assert all(map(torch.equal, alone.model.nets.state_dict().values(), watched.model.nets.state_dict().values()))
        a,b = (fm.judgement(o, fm.logits(o)) for o in (alone, watched))
        assert np.isnan(a['auroc_audit']) and b['auroc_audit']==auroc(watched.dls.train_targs==watched.dls.true_targs, LabelAudit.from_learner(watched).df.p_clean)
        assert a['auroc_similarity']==b['auroc_similarity']
        assert method.startswith('plain') or a['auroc']==b['auroc']             # ELR's own score stays what it is scored by

def test_the_oracle_learns_from_clean_labels_alone():
    cb = fm.make_cbs('truth')
    cb.clean,z,y = tensor([1.,0,1,0]),tensor([[2.,0],[2,0],[0,2],[2,0]]),tensor([0,1,1,1])
    assert torch.allclose(cb.net_loss(0, z, y), tensor([0.2538560,0,0.2538560,0]))   # 2 log(1+exp(-2))
    cb = fm.make_cbs('truth:base_loss=sce')
    cb.clean = tensor([1.,0,1,0])
    assert torch.allclose(cb.net_loss(0, z, y), tensor([1.2074792,0,1.2074792,0]))  # 2 (log(1+exp(-2)) + 4/(1+exp(2)))

class Spy(Callback):
    "Notes what each network sees, and how far the loss is from the one by hand, by whose opinion and of which similarity"
    order = ReSup.order+1
    def before_fit(self):
        self.seen,self.off,self.cb = [[],[]],[],next(o for o in self.learn.cbs if isinstance(o, ReSup))
        self.hooks = [net.register_forward_pre_hook(lambda m,inp,o=o: o.append(inp[0])) for net,o in zip(self.model.nets, self.seen)]
    def after_loss(self):
        if not self.training: return
        pair,y = Pair(*self.pred),self.y.as_subclass(Tensor)
        def by_hand(f, own):
            w = self.model.weight_function()(f(torch.stack(tuple(pair)), y))*self.cb.pair_loss.balance[:,y]
            return resup_loss(pair, y, w.flip(0) if own else w, 1., True, base_loss=sce_loss)
        self.off.append([[(by_hand(f, own)-self.loss_grad).abs().item() for own in (False,True)] for f in (similarity, given_prob)])
    def after_fit(self):
        for h in self.hooks: h.remove()

@pytest.mark.parametrize('args', ['swap=1', 'swap=0', 'judge=loss', 'mirror=1', 'swap=0,refit=pass'])
def test_an_ablation_exchanges_one_part(args, tmp_path):
    set_seed(0)
    dls = FERDataLoaders.from_folder(make_faces(tmp_path/'faces', 70, 35, 32, progress=False), bs=16, img_size=32, noise=0.3, seed=0, num_workers=0)
    learn = resup_learner(dls, resnet18, pretrained=False)
    for i in range(2): learn.model.set_mixture(i, lookup=torch.linspace(0.05, 0.95, 1001)**(i+1), density=torch.ones(2, 1001), hist=torch.ones(50))
    learn.model.noise_rate.fill_(0.3)
    learn.model.clean_by_class = torch.linspace(0.2, 0.9, 14).view(2, 7)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[fm.make_cbs('resup:warmup=0,'+args), spy := Spy()])
    off,right = np.array(spy.off).max(0),(int(args=='judge=loss'), int('swap=0' in args))
    assert off[right]<5e-6 and sorted(off.ravel())[1]>1e-4, off
    a,b = (o[0] for o in spy.seen)
    assert torch.equal(a.flip(-1), b) if args=='mirror=1' else torch.equal(a, b)
    assert not any(net._forward_pre_hooks for net in learn.model.nets)

def test_the_audit_is_scored_by_its_own_order(tmp_path):
    dls = FERDataLoaders.from_folder(make_faces(tmp_path/'faces', 140, 35, 32, progress=False), valid='valid', bs=16, img_size=32, noise=0.3, seed=0, num_workers=0)
    learn = resup_learner(dls, resnet18, pretrained=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=ReSup(warmup=1))
    audit = LabelAudit.from_learner(learn).df
    assert fm.judgement(learn, fm.logits(learn))['auroc_audit']==pytest.approx(roc_auc_score(audit.true==audit.label, audit.p_clean))

def test_a_queue_says_what_comes_first(tmp_path):
    f = tmp_path/'queue.txt'
    f.write_text('# remarks\nresup:head=linear votes3,sym30 10,12 # first\n\nplain clean 20-22 valid fine_tune 3\n')
    runs = [tuple(o.values()) for o in fm.read_queue(f)]
    first = [('resup:head=linear', 'fit_one_cycle', 8, noise, seed, 'dev') for seed in (10, 12) for noise in ('votes3','sym30')]
    assert runs==first+[('plain', 'fine_tune', 3, 'clean', seed, 'valid') for seed in (20, 21, 22)]

def test_lanes_share_a_queue_and_each_run_is_done_once(tmp_path, monkeypatch):
    f,done = tmp_path/'queue.txt',[]
    f.write_text('plain clean 1-5')
    def run_row(path, plan, keep, n):
        done.append(plan['seed'])
        return dict(**plan, train_s=1., commit='abc')
    monkeypatch.setattr(fm, 'run_row', run_row)
    a = SimpleNamespace(queue=f, out=tmp_path/'runs.csv', lanes=2, again=False, keep=None, short=None)
    fm.work(a, None)
    assert sorted(done)==[1,2,3,4,5] and len(report.read_runs(a.out))==5
    fm.work(a, None)
    assert len(done)==5

def test_a_schedule_can_have_arguments(ferplus_root):
    kwargs = dict(noise='sym30', seed=10, split='dev', epochs=1, n=128)
    plain,slow,same = (fm.run(ferplus_root, 'plain:head=linear', schedule=o, **kwargs) for o in ('fine_tune','fine_tune:lr_mult=2','fine_tune:lr_mult=1'))
    assert same['auroc']==plain['auroc']!=slow['auroc']
    o = call('--data', ferplus_root, '--dry-run', '--methods', 'plain', '--seeds', 99, '--schedule', 'fine_tune:freeze_epochs=1,lr_mult=2')
    assert o.returncode==0 and 'plain fine_tune:freeze_epochs=1,lr_mult=2 7 sym30 99 dev' in o.stdout
    o = call('--data', ferplus_root, '--methods', 'plain', '--schedule', 'cosine')
    assert o.returncode==2 and 'cosine: a schedule is fit_one_cycle, fine_tune or fit' in o.stderr

def test_the_base_loss_goes_by_its_name():
    assert [fm.make_cbs(f'resup:base_loss={o}').base_loss for o in ('ce','gce','sce')]==[None, gce_loss, sce_loss]
    z,y = torch.tensor([[0.,0.]]),tensor([0])
    assert [fm.make_cbs(f'resup:base_loss={o}').base_loss(z, y).item() for o in ('sce,alpha=0.1','gce,q=1')]==pytest.approx([2.0693147, 0.5])   # 0.1 ln 2 + 4/2, and 1-1/2
    assert fm.make_cbs('resup').base_loss is sce_loss and fm.make_cbs('reference').base_loss is None

def row(method='plain', seed=0, acc=0.5, **kwargs):
    return {**dict(method=method, schedule='fit_one_cycle', epochs=8, noise='sym30', seed=seed, split='valid', train_s=80., acc_0=acc, acc_1=acc+0.02, acc_ensemble=acc+0.04, acc_class_mean=0.3,
                   memorised=0.1, auroc=0.9, auroc_within=0.8, auroc_similarity=0.9, auroc_similarity_within=0.8, auroc_class_alone=0.8, noise_rate=float('nan')), **kwargs}

def test_table_gives_mean_and_deviation_and_says_what_was_not_run():
    text = report.tables(pd.DataFrame([row(seed=s, acc=a) for s,a in ((0,0.5),(1,0.52),(2,0.54))]))
    assert '| baseline pair | 0, 1, 2 | 0.530 ± 0.020 | 0.560 ± 0.020 |' in text
    assert '| ReSup() |  | not run | not run |' in text

def test_estimate_uses_the_times_of_the_csv():
    plan = [row(), row('elr')]
    assert report.estimate(plan, pd.DataFrame([row(train_s=2400.)])).startswith(', about 1 h 20 min')
    assert '(1 of them of methods never timed' in report.estimate(plan, pd.DataFrame([row(train_s=2400.)]))
    assert report.estimate(plan, pd.DataFrame([row(train_s=2400.), row('elr', train_s=60.)])).startswith(', about 0 h 41 min')

def test_a_new_row_takes_the_place_of_its_own_only(tmp_path):
    f = tmp_path/'runs.csv'
    for o in (row(), row(seed=1), row(acc=0.6)): fm.add_row(f, o)
    df = report.read_runs(f).sort_values('seed')
    assert df.seed.tolist()==[0,1] and df.acc_0.tolist()==[0.6,0.5]

def test_committed_rows_are_one_per_run():
    df = report.read_runs(bench/'ferplus_mini_runs.csv')
    assert len(df)>=20 and not df.duplicated(report.keys).any() and df.acc_ensemble.between(0.125, 1).all()

def test_second_runs_are_of_committed_rows_by_other_code():
    both = report.read_runs(bench/'ferplus_mini_again.csv').merge(report.read_runs(bench/'ferplus_mini_runs.csv'), on=report.keys, how='left', suffixes=('','_first'))
    assert len(both)>=3 and not both.duplicated(report.keys).any() and (both.commit!=both.commit_first).all() and both.acc_ensemble_first.notna().all()

def test_pictures_are_written(tmp_path):
    files = report.plots(pd.DataFrame([row(), row('resup', acc=0.6), row(noise='clean'), row('resup', noise='clean')]), tmp_path)
    assert all(Path(f).stat().st_size>5000 for f in files) and len(files)==2

def test_run_is_one_row_and_not_repeated(shared, ferplus_root, tmp_path):
    args = ['--data', ferplus_root, '--short', 128, '--epochs', 1, '--methods', 'plain', 'resup:warmup=0']
    o = call(*args)
    assert o.returncode==0, o.stderr
    assert 'baseline pair | 10 |' in o.stdout and '`resup:warmup=0` | 10 |' in o.stdout
    f = tmp_path/'runs.csv'
    kwargs = dict(schedule='fit_one_cycle', epochs=1, noise='sym30', seed=10, split='dev')
    res = fm.run(ferplus_root, 'plain', **kwargs, n=128)
    assert 0<=res['acc_ensemble']<1 and 0<res['auroc']<1 and res['peak_mb']>100 and res['weight_by_class']=='' and np.isnan(res['auroc_audit']) # no mixture, no audit
    assert set(pd.read_csv(bench/'ferplus_mini_runs.csv').columns) <= {'method', *kwargs, *res, 'commit', 'threads', 'acc_ensemble_last5'} # the last was measured formerly
    fm.add_row(f, dict(method='plain', **kwargs, **res))
    before = f.read_bytes()
    o = call('--data', ferplus_root, '--methods', 'plain', '--seeds', 10, '--epochs', 1, '--out', f)
    assert o.returncode==0 and o.stdout.startswith('0 runs to do') and f.read_bytes()==before

def test_costs_are_medians_beside_a_single_network():
    single,plain,elr = costs.rows([dict(single=2., plain=4., elr=5.), dict(single=4., plain=8., elr=12.), dict(single=2.5, plain=5., elr=5.)], dict(single=1000., plain=1500., elr=1250.))
    assert (single['seconds'], single['against_single'], single['peak_against_single'])==(2.5, 1, 1)
    assert (plain['against_single'], plain['against_pair'], plain['peak_against_single'])==(2, 1, 1.5)
    assert (elr['against_single'], elr['lowest'], elr['highest'], elr['against_pair'])==(2, 2, 3, 1)

def test_a_run_that_dies_is_named(tmp_path, ferplus_root):
    o = call('--data', ferplus_root, '--short', 64, '--epochs', 1, '--methods', 'resup:warmp=0')
    assert o.returncode!=0 and 'warmp' in o.stderr

def test_differences_are_taken_seed_by_seed():
    "By hand: 0.60 and 0.70 against 0.55 and 0.60 (one network 0.61-0.56 and 0.71-0.61), the third seed has no partner"
    runs = pd.DataFrame([row('resup', 0, 0.6), row('resup', 1, 0.7), row('gce', 0, 0.55), row('gce', 1, 0.6), row('gce', 2, 0.9), row('elr', 2)])
    lines = report.against(runs).splitlines()
    assert lines[0]=='| ReSup() minus | seeds | one network | ensemble | class-mean accuracy | AUROC |'
    assert lines[2:]==['| GCE | 0, 1 | +7.5 ± 3.5 | +7.5 ± 3.5 | +0.0 ± 0.0 | +0.0 ± 0.0 |']

def test_gains_have_an_interval_over_seeds():
    "By hand: differences of 1, 2 and 3 points have a mean of 2 and a deviation of 1, so that the interval is 2 -+ 4.3027/sqrt(3)"
    runs = pd.DataFrame([row('resup', s, a, split=p) for s,a,p in ((0,0.61,'valid'),(1,0.62,'valid'),(10,0.63,'dev'))] + [row('plain', s, 0.6, split=p) for s,p in ((0,'valid'),(1,'valid'),(10,'dev'),(2,'valid'))])
    lines = report.gains(runs).splitlines()
    assert [o.split(' | ')[0] for o in lines[2:5]]==['| dev, seed 10', '| valid, seed 0', '| valid, seed 1']
    assert lines[-1]=='| **mean of 3** | +2.0 (-0.5 to +4.5) | +2.0 (-0.5 to +4.5) | +0.0 (+0.0 to +0.0) |'
    assert report.gains(runs[runs.split=='dev']).splitlines()[-1].startswith('| **mean of 1** | +3.0 |') and report.gains(runs[:0])=='not run'

def test_costs_are_shown_the_cheapest_first():
    text = report.cost_table(pd.DataFrame(costs.rows([dict(single=2., plain=4., elr=3.)], dict(single=1000., plain=1500., elr=1250.)))).splitlines()
    assert text[2:]==['| one network, cross entropy | 2.0 | 1.00 | 1.00 to 1.00 | 0.50 | 1000 | 1.00 |', '| ELR | 3.0 | 1.50 | 1.50 to 1.50 | 0.75 | 1250 | 1.25 |',
                      '| baseline pair | 4.0 | 2.00 | 2.00 to 2.00 | 1.00 | 1500 | 1.50 |']

def test_what_is_won_back_is_a_share_of_what_noise_costs():
    "By hand: 0.50 with noise, 0.56 by ReSup, 0.60 without: 60 %; seed 1 has no clean row and doesn't count"
    runs = pd.DataFrame([row(acc=0.5), row('resup', acc=0.56), row(noise='clean', acc=0.6), row(seed=1, acc=0.1), row('resup', 1, 0.9)])
    lines = report.won_back(runs).splitlines()
    assert lines[0].startswith('| seeds 0 |') and lines[2:]==['| one network | 0.510 | 0.570 | 0.610 | 60% |', '| ensemble | 0.540 | 0.600 | 0.640 | 60% |']
    assert report.won_back(runs[:2])=='not run'
    tune = runs.assign(split='dev', schedule='fine_tune', epochs=7)
    assert report.won_back(tune)=='not run' and report.won_back(pd.concat([tune, runs]), split='dev', schedule='fine_tune', epochs=7).splitlines()==lines

def test_audits_of_kept_logits(tmp_path):
    "Noise that the first epochs tell and the last pass has memorised: all epochs find it, the last pass doesn't"
    import audit
    rng = np.random.default_rng(0)
    true = rng.integers(0, 8, 1600)
    given = np.where(rng.random(1600)<0.3, (true+1+rng.integers(0, 7, 1600))%8, true)
    def logits(labels, sure): return sure*np.eye(8)[labels] + rng.normal(0, 1, (2,1600,8))
    f = tmp_path/'resup-fit_one_cycle-8-sym30-10-dev.npz'
    np.savez(f, trace=np.stack([logits(true, 4) for _ in range(4)]), train=logits(given, 1.5), given=given, true=true)
    rows = audit.measure([f]).set_index('order')
    assert rows.noise.unique()==['sym30'] and rows.auroc['audit']>0.95>rows.auroc['audit_last_pass']+0.2
    assert rows.found_50['random']==pytest.approx(50*(given!=true).mean()) and rows.found_50['audit']>=48
    assert abs(rows.rate_error['audit'])<0.15 and rows.precision_50['audit']==rows.found_50['audit']/50
