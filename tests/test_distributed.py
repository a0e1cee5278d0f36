"Two real processes over gloo, started by torchrun: they train as one process with the same total batch would, and a rank that dies ends the job"
import os, re, subprocess, sys, time
from pathlib import Path

import pytest
import torch
from fastai_resup.distributed import DistributedPair
from fastai_resup.synth import make_faces

pytest.importorskip('accelerate')
ROOT,N,V,K = Path(__file__).resolve().parents[1],91,21,7 # odd, so that parts have to be filled up

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    res = tmp_path_factory.mktemp('d')
    make_faces(res/'faces', n_train=N, n_valid=V, size=32, progress=False)
    return res

def start(folder, scenario, world):
    "Run the script in `world` processes; a hang fails after five minutes"
    launch = ['-m','torch.distributed.run','--standalone','--nproc_per_node',str(world)] if world>1 else []
    env = {**{k:v for k,v in os.environ.items() if k not in ('RANK','WORLD_SIZE')}, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore', 'PYTHONPATH':os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return subprocess.run([sys.executable, *launch, ROOT/'tests'/'distributed_script.py', folder/'faces', folder, scenario], env=env, capture_output=True, text=True, timeout=300)

def run(folder, scenario, world):
    "What each rank saved"
    out = start(folder, scenario, world)
    assert out.returncode==0, out.stderr[-4000:]
    return [torch.load(folder/f'{scenario}_{world}_{r}.pt', weights_only=False) for r in range(world)]

@pytest.fixture(scope='module')
def exact(folder): return run(folder, 'exact', 1)[0],run(folder, 'exact', 2)

@pytest.fixture(scope='module')
def default(folder): return run(folder, 'default', 2)

def distance(a, b): return max((a[k].double().nan_to_num(-1)-b[k].double().nan_to_num(-1)).abs().max().item() for k in a)

def test_two_processes_end_where_one_does(exact):
    "To 1e-5: sums are in another order"
    one,(two,_) = exact
    nets = lambda o: {k:v for k,v in o['weights'].items() if k.startswith('nets')}
    assert distance(nets(one), nets(two))<1e-5
    assert distance({'s':one['similarities']}, {'s':two['similarities']})<1e-5
    for a,b in zip(one['refits'], two['refits'], strict=True):
        assert a['epoch']==b['epoch'] and a['noise_rate']==pytest.approx(b['noise_rate'], abs=1e-4) and a['auroc']==pytest.approx(b['auroc'], abs=1e-3)
    assert len(one['refits'])==5 and (one['weights']['nets.0.1.weight']!=0).all()

def test_metrics_count_each_image_once(exact):
    "Loss, accuracy and F1 of ensemble and networks over 21 images, 11 in each process, as one process has them"
    one,ranks = exact
    for rank in ranks:
        for a,b in zip(one['values'], rank['values'], strict=True): assert a[1:]==pytest.approx(b[1:], abs=1e-5, nan_ok=True)
        assert all(round(v[i]*V, 3)==int(round(v[i]*V, 3)) for v in rank['values'] for i in (2, 4, 6)) # accuracies are 21sts

@pytest.mark.parametrize('which', ['exact','default'])
def test_every_rank_gets_the_same(exact, default, which):
    a,b = exact[1] if which=='exact' else default
    assert all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x,y in zip(a['weights'].values(), b['weights'].values())), 'weights, statistics of batch norm, mixture'
    assert torch.equal(a['similarities'].nan_to_num(-1), b['similarities'].nan_to_num(-1)) and a['refits']==b['refits'] and a['audit']==b['audit']

def test_similarities_are_gathered(exact, default):
    assert exact[1][0]['similarities'].isfinite().all()                # the last refit was by a pass over all
    history = [torch.tensor(o) for o in exact[1][0]['history']]
    assert [int(o.isnan().sum()) for o in history]==[0, 11, 11, 11]    # 91 = 5*16 + 11, which the training DataLoader drops
    assert [int(torch.tensor(o).isnan().sum()) for o in exact[0]['history']]==[0, 11, 11, 11]

def test_audit_has_each_image_once(exact):
    one,(two,_) = exact
    assert len(set(two['audit']['file']))==len(two['audit']['file'])==N and one['audit']['file']==two['audit']['file'] and one['audit']['label']==two['audit']['label']
    for k in ('p_clean','p_clean_0','p_clean_1'): assert one['audit'][k]==pytest.approx(two['audit'][k], abs=1e-4)

def test_outside_a_fit_each_process_works_alone(exact):
    "`validate` by the first rank, `get_preds` by the last, while the other does something else"
    one,(first,last) = exact
    assert first['alone'][:3]==pytest.approx(one['alone'][:3], abs=1e-5) and first['preds'] is None
    assert last['preds'].shape==(V,K) and distance({'p':one['preds']}, {'p':last['preds']})<1e-5

def test_a_learner_exported_inside_works_alone(exact):
    one,ranks = exact
    for rank in ranks: assert distance({'p':one['preds']}, {'p':rank['loaded']})<1e-5

def test_nothing_is_added_to_a_batch(exact, default):
    "All that goes out while batches are worked on is the training loss of fastai's Recorder; gradients are DDP's own, and buffers stay"
    for ranks in (exact[1], default):
        for rank in ranks: assert set(rank['in_batch'])=={('all_gather',4)} and rank['buffers']=={False}

def traffic(n_train, n_valid, n_classes, bs, world, by_pass):
    "The formulas on the page of distributed, in bytes per epoch and rank"
    part = lambda n: -(-n//world)
    return dict(train_loss=4*(n_train//(bs*world)), order=8*(n_train + n_valid + by_pass*n_train),
                looks=56*part(n_train) if by_pass else 28*n_train, validation=(8*n_classes + 8)*part(n_valid))

def test_traffic_is_what_the_page_says(exact):
    sent,epochs = exact[1][0]['sent'],4
    total = lambda *sizes: sum(size*n for (name,size),n in sent.items() if size in sizes)
    want = [traffic(N, V, K, 8, 2, by_pass=i==0) for i in range(epochs)] # only the first mixture is by a pass
    assert total(8*N, 8*V)==sum(o['order'] for o in want)==8*(5*N + 4*V)
    assert total(56*46, 28*N)==sum(o['looks'] for o in want)
    assert total(8*K*11, 8*11)==sum(o['validation'] for o in want)
    assert total(4)-4*2==sum(o['train_loss'] for o in want)            # noise_rate, a buffer of four bytes, is sent once in both fits

def test_the_learner_is_plain_again(exact, default):
    for ranks in (exact[1], default):
        for rank in ranks: assert rank['left']==['PairedModel','TfmdDL', *rank['fresh']] and rank['logger']

def test_without_accelerate_or_torchrun(monkeypatch):
    with pytest.raises(RuntimeError, match='start the script by `torchrun'): DistributedPair()
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastai_resup\[distributed\]'"): DistributedPair()

def test_mistakes_are_named(folder):
    (folder/'errors_2.txt').touch()
    for rank in run(folder, 'errors', 2):
        assert 'different training images or labels (91, 91 images): give a `seed`' in rank['seeds']
        assert rank['lr_find'].startswith('RuntimeError') and 'Run it in one process' in rank['lr_find']
        assert '91 training images are fewer than one batch of 64 for each of 2 processes' in rank['small']
        assert rank['there'].startswith('FileExistsError') and 'there has the checkpoint fit0-epoch0000.pt of an earlier run: go on with resume=True' in rank['there']
        assert 'checkpoints can not be written to' in rank['folder'] and 'errors_2.txt' in rank['folder'] # what the first one finds, all raise

def test_ranks_that_are_killed_are_resumed(folder):
    "The second in a batch, then the first while it writes: started again, all ranks end as if none had died"
    whole = run(folder, 'whole', 2)
    for died in ('batch','writing'):
        out = start(folder, 'restarted', 2)
        assert out.returncode!=0 and (folder/f'died-restarted-{died}').exists(), out.stderr[-4000:]
    assert list((folder/'restarted').glob('.*.tmp'))   # what the first rank was about to write
    ends = run(folder, 'restarted', 2)
    assert sorted(o.name for o in (folder/'restarted').iterdir())==['fit1-epoch0001.pt','fit1-epoch0002.pt']
    assert not torch.equal(whole[0]['random'], whole[1]['random'])
    for a,b in zip(whole, ends):
        assert all(torch.equal(v.nan_to_num(-1), b['weights'][k].nan_to_num(-1)) for k,v in a['weights'].items())
        for k in ('refits','values','audit'): assert repr(a[k])==repr(b[k])
        assert torch.equal(a['random'], b['random']) and torch.equal(a['similarities'].nan_to_num(-1), b['similarities'].nan_to_num(-1))

@pytest.mark.parametrize('scenario,why', [('dies', 'Signal 9'), ('raises', 'division by zero')])
def test_a_rank_that_dies_ends_the_job(folder, scenario, why):
    began = time.time()
    out = start(folder, scenario, 2)
    assert out.returncode!=0 and why in out.stderr and time.time()-began<280
    assert not (folder/f'{scenario}_2_0.pt').exists()
