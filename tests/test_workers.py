"Workers of a DataLoader that are started by `spawn` (macOS, Windows) or `forkserver` (Linux from Python 3.14) get it as a pickle; see workers_script.py"
import json, os, pickle, subprocess, sys
from pathlib import Path

import pytest
from torch import nn
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from fastcore.foundation import L

from fastai_resup.callbacks import ReSup
from fastai_resup.data import FERDataLoaders, subset_dls
from fastai_resup.learner import ReSupLearner
from fastai_resup.peers import peers
from fastai_resup.synth import make_faces

ROOT = Path(__file__).resolve().parents[1]

def net(): return nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU()), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7)))
def halves(m): return L(m[0], m[1]).map(lambda o: list(o.parameters()))

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=28, n_valid=7, size=16, progress=False)

def loaders(faces, **kwargs):
    set_seed(0)
    return FERDataLoaders.from_folder(faces, valid='valid', img_size=16, bs=8, noise=0.3, seed=0, num_workers=0, **kwargs)

def again(o): return pickle.loads(pickle.dumps(o))

class PickleAll(Callback):
    "Pickles the learner, its DataLoaders, data sets, callbacks, model and loss before and after batches"
    order = 1000
    n = 0
    def check(self):
        learn,PickleAll.n = self.learn,PickleAll.n+1
        for o in (*learn.dls.loaders, learn.dls, learn.dls.train_ds, learn.dls.valid_ds, learn.loss_func, learn.model, *learn.cbs, learn): again(o)
    def before_train(self): self.check()
    def after_train(self): self.check()
    def before_validate(self): self.check()
    def after_fit(self): self.check()

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['resup','reference','pair',*peers])
def test_all_that_hangs_on_a_learner_pickles(faces, name):
    learn,PickleAll.n = ReSupLearner(loaders(faces), [net(), net()], splitter=halves),0
    own = dict(resup=lambda: [ReSup(history=True)], reference=lambda: [ReSup(preset='reference')], pair=lambda: [])
    cbs = own.get(name) or (lambda: [peers[name]()])
    learn.add_cbs(cbs())
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-2, cbs=PickleAll())
    assert PickleAll.n==3*3+1
    again(learn).validate()

@pytest.mark.parametrize('kind', ['cache','subset','relabelled','test'])
def test_each_kind_of_loader_pickles(faces, kind):
    dls = loaders(faces, cache=kind=='cache')
    some = dict(cache=lambda: dls, subset=lambda: subset_dls(dls, [3,1,2,8]), relabelled=lambda: subset_dls(dls, [3,1], ['fear','anger']),
                test=lambda: [dls.test_dl(dls.train_files[:3])])
    for dl in some[kind](): assert [o.shape for o in again(dl).one_batch()]==[o.shape for o in dl.one_batch()]

TASKS = ['resumed','folds',*peers]

@pytest.mark.parametrize('method', ['forkserver','spawn'])
def test_two_workers_end_where_none_does(method, tmp_path):
    "ReSup with a cache, interrupted and resumed, its audit, a cross-validation and each peer, bit for bit"
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore', 'PYTHONPATH':os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    p = subprocess.run([sys.executable, ROOT/'tests'/'workers_script.py', method, tmp_path], env=env, capture_output=True, text=True, timeout=1200)
    assert p.returncode==0, p.stderr[-4000:]
    rows = [json.loads(o[o.index('{'):]) for o in p.stdout.splitlines() if '{' in o]
    assert [o['task'] for o in rows]==TASKS
    for o in rows: assert o['same'] and o['workers']>=2 and o['methods']==[method], o
    assert 70<=rows[0]['read']<=84 # the cache is shared: each of 42 images is decoded once before the interruption and once after it
