"Runs that die, and files that can't be written or read: nothing is lost, and a resumed run ends as one that never died"
import errno
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import fine_tune, fit_flat_cos, fit_one_cycle, lr_find
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from fastcore.foundation import L
from sklearn.mixture import GaussianMixture

from fastai_resup.callbacks import ReSup
from fastai_resup.checkpoint import Checkpoint, last_checkpoint, plain_values, read_checkpoint, write_checkpoint
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner
from fastai_resup.synth import make_faces
from kill_runs import bits

def net(): return nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()), nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 7)))
def halves(m): return L(m[0], m[1]).map(lambda o: list(o.parameters()))

class Die(Callback):
    "Dies in the n-th batch"
    def __init__(self, at): self.at,self.n = at,0
    def before_backward(self):
        self.n += 1
        if self.n==self.at: raise KeyboardInterrupt

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=42, n_valid=14, size=16, progress=False)

@pytest.fixture
def make(faces, tmp_path):
    "A function that makes the same learner again and again, as a script does that is started anew"
    def _make(num_workers=0, noise=0.3, path=tmp_path, **kwargs):
        set_seed(0, reproducible=True)
        dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=16, bs=14, noise=noise, seed=0, num_workers=num_workers)
        learn = ReSupLearner(dls, [net(), net()], splitter=halves, metrics=accuracy, path=path, **kwargs)
        learn.remove_cb(learn.progress); learn.logger = lambda *a: None
        return learn
    return _make

def state(learn): return [t.nan_to_num() for t in learn.model.state_dict().values()] + [v for p in learn.model.parameters() for v in learn.opt.state[p].values() if isinstance(v, torch.Tensor)]

def same(a, b):
    "Bit for bit the same end"
    assert all(torch.equal(x, y) for x,y in zip(state(a), state(b), strict=True))
    assert repr(a.recorder.values)==repr(b.recorder.values) and torch.equal(torch.stack(a.recorder.losses), torch.stack(b.recorder.losses)) and a.recorder.lrs==b.recorder.lrs
    assert repr(a.refits)==repr(b.refits)
    assert bits(plain_values(a.record.state_dict()['means']))==bits(plain_values(b.record.state_dict()['means']))

def die_and_resume(make, fit, at, cbs=lambda: [ReSup()], **kwargs):
    "The learner of a run that was left alone, and that of one that died in batch `at` and was resumed"
    fit(whole := make(**kwargs), [*cbs(), Checkpoint('whole')])
    with pytest.raises(KeyboardInterrupt): fit(make(**kwargs), [*cbs(), Checkpoint('parts'), Die(at)])
    fit(rest := make(**kwargs), [*cbs(), Checkpoint('parts', resume=True)])
    return whole,rest

# SIGKILL ---------------------------------------------------------------------

def test_killed_at_random_moments_in_each_phase(faces, tmp_path):
    "Two kills in each of four phases and two from outside, for both ways to fit and to refit, and four with two workers: 44 in all"
    script = Path(__file__).with_name('kill_runs.py')
    p = subprocess.run([sys.executable, '-W', 'ignore', script, faces, tmp_path, '2', '2', '0'], env={**os.environ, 'OMP_NUM_THREADS':'1'}, capture_output=True, text=True, timeout=1500)
    assert p.returncode==0, p.stderr[-3000:]
    kills = [json.loads(o) for o in p.stdout.splitlines()]
    assert len(kills)==44 and not [o for o in kills if not o['same']]
    died = Counter(o['phase'] for o in kills if o['killed'])                          # one from outside may come too late
    assert [died[o] for o in ('batch','refit','validation','checkpoint')]==[9,8,8,9] and died['outside']>=2
    assert [o for o in kills if any(f.endswith('.tmp') for f in o['left'])]           # some died while they wrote
    assert not [o for o in kills if any(f.endswith('.tmp') for f in o['after'])]      # and what they left is gone
    assert {len(o['after']) for o in kills}=={2}

# resumed exactly, whatever else is in the run -----------------------------------

FITS = dict(
    one_cycle=(lambda l,cbs: l.fit_one_cycle(3, 1e-2, cbs=cbs), 8),
    fine_tune_frozen_part=(lambda l,cbs: l.fine_tune(2, 1e-2, freeze_epochs=2, cbs=cbs), 5),
    fine_tune_second_part=(lambda l,cbs: l.fine_tune(2, 1e-2, freeze_epochs=1, cbs=cbs), 8),
    fine_tune_before_its_second_part_has_a_checkpoint=(lambda l,cbs: l.fine_tune(2, 1e-2, freeze_epochs=1, cbs=cbs), 4),
    flat_cos=(lambda l,cbs: l.fit_flat_cos(3, 1e-2, cbs=cbs), 5),
    before_any_checkpoint=(lambda l,cbs: l.fit(2, 1e-2, cbs=cbs), 2),
)

@pytest.mark.filterwarnings('ignore:there is no checkpoint')
@pytest.mark.parametrize('name', FITS)
def test_every_fit_is_resumed(name, make): same(*die_and_resume(make, *FITS[name]))

CBS = dict(
    accumulated_gradients=lambda: [ReSup(), GradientAccumulation(32)],                # 42 images: gradients are left over between epochs
    mixup=lambda: [ReSup(), MixUp()],
    trackers=lambda: [ReSup(), EarlyStoppingCallback(patience=2), ReduceLROnPlateau(patience=1), SaveModelCallback(fname='best')],
    other_mixture=lambda: [ReSup(estimator=GaussianMixture(2, random_state=0))],
    reference=lambda: [ReSup(preset='reference', history=True)],
    baseline_pair=lambda: [],
)

@pytest.mark.parametrize('name', CBS)
def test_other_callbacks_go_on_too(name, make):
    whole,rest = die_and_resume(make, lambda l,cbs: l.fit(4, 3e-2, cbs=cbs), 8, CBS[name])
    same(whole, rest)
    if name=='reference': assert np.array_equal(np.stack(whole.p_clean_history), np.stack(rest.p_clean_history), equal_nan=True) and len(rest.p_clean_history)==4
    if name=='other_mixture': assert np.array_equal(whole.mixtures[1].covariances_, rest.mixtures[1].covariances_) and isinstance(rest.mixtures[1], GaussianMixture)

def test_with_workers(make): same(*die_and_resume(make, lambda l,cbs: l.fit_one_cycle(3, 1e-2, cbs=cbs), 8, num_workers=2))

def test_with_an_optimizer_of_pytorch(make):
    def sgd(params, **kwargs): return OptimWrapper(params, torch.optim.SGD, momentum=0.9, **kwargs)
    whole,rest = die_and_resume(make, lambda l,cbs: l.fit(3, 1e-2, cbs=cbs), 8, opt_func=sgd)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a,b in zip(whole.model.state_dict().values(), rest.model.state_dict().values()))

def test_a_plain_learner(make, tmp_path):
    def fit(at=0, **kwargs):
        learn = make()
        learn = Learner(learn.dls, learn.model.nets[0], CrossEntropyLossFlat(), metrics=accuracy, path=tmp_path)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-2, cbs=[Checkpoint('a' if kwargs else 'b' if at else 'c', **kwargs), *([Die(at)] if at else [])])
        return learn
    whole = fit()
    with pytest.raises(KeyboardInterrupt): fit(5)
    (tmp_path/'b').rename(tmp_path/'a')
    rest = fit(resume=True)
    assert all(torch.equal(a, b) for a,b in zip(whole.model.state_dict().values(), rest.model.state_dict().values()))

def test_several_fits_in_a_script(make):
    def script(learn, ckpt, *more):
        learn.fit(1, 1e-2, cbs=[ReSup(), ckpt, *more])
        learn.get_preds(); learn.validate()
        learn.fit_one_cycle(2, 1e-2, cbs=[ReSup(), ckpt, *more])
        return learn
    whole = script(make(), Checkpoint('whole'))
    with pytest.raises(KeyboardInterrupt): script(make(), Checkpoint('parts'), Die(8))
    rest = script(make(), Checkpoint('parts', resume=True))
    same(whole, rest)
    assert len(rest.refits)==3

def test_no_event_for_an_epoch_that_is_not_trained(make):
    rows = []
    with pytest.raises(KeyboardInterrupt): make().fine_tune(3, 1e-2, freeze_epochs=1, cbs=[ReSup(), Checkpoint('a'), Die(8)])
    learn = make()
    learn.logger = rows.append
    learn.fine_tune(3, 1e-2, freeze_epochs=1, cbs=[ReSup(), Checkpoint('a', resume=True)])
    assert [r[0] for r in rows]==[1,2] and len(learn.recorder.values)==3

def test_the_progress_bar_shows_what_is_trained(make, capsys):
    with pytest.raises(KeyboardInterrupt): make().fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a'), Die(8)])
    learn = make()
    learn.logger = print
    learn.fit(4, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True), ProgressCallback()])
    first = [o.split()[0] for o in capsys.readouterr().out.replace('\r', '\n').splitlines() if o.split()]
    assert [o for o in first if o in '0123']==['2','3']

# what isn't training writes nothing --------------------------------------------

def test_only_training_writes(make, tmp_path):
    learn = make()
    learn.add_cb(Checkpoint('a'))
    learn.validate(); learn.get_preds()
    with pytest.MonkeyPatch.context() as m:
        m.setattr('matplotlib.pyplot.show', lambda *a, **k: None)
        learn.lr_find(num_it=6, show_plot=False)
    assert not (tmp_path/'a').exists()
    learn.fit(1)
    assert [o.name for o in (tmp_path/'a').iterdir()]==['fit0-epoch0000.pt']

def test_every_and_keep(make, tmp_path):
    make().fit(5, cbs=Checkpoint('a', every=2, keep=3))
    assert sorted(o.name for o in (tmp_path/'a').iterdir())==[f'fit0-epoch000{i}.pt' for i in (1, 3, 4)]
    for bad in (dict(every=0), dict(keep=0)):
        with pytest.raises(ValueError, match='at least 1'): Checkpoint(**bad)

# disks and files ----------------------------------------------------------------

class Full(Callback):
    "From the second epoch on, no file can grow beyond 10,000 bytes"
    def before_train(self):
        if self.epoch==1: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def test_a_full_disk_keeps_the_last_good_checkpoint(make, tmp_path):
    make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('whole')])
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match='fit0-epoch0001.pt could not be written .* intact. Make room'): make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('a'), Full()])
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert [o.name for o in (tmp_path/'a').iterdir()]==['fit0-epoch0000.pt']
    make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True)])
    whole,rest = (read_checkpoint(tmp_path/o/'fit0-epoch0002.pt')['learner']['model'] for o in ('whole','a'))
    assert all(torch.equal(a.nan_to_num(), rest[k].nan_to_num()) for k,a in whole.items())

def test_a_file_system_without_room(tmp_path):
    "A real one, of 64 kB"
    (tmp_path/'disk').mkdir()
    if os.geteuid() or subprocess.run(['mount','-t','tmpfs','-o','size=64k','none',tmp_path/'disk'], capture_output=True).returncode: pytest.skip('needs the right to mount a file system')
    try:
        f = write_checkpoint(tmp_path/'disk'/'a.pt', dict(x=torch.ones(2000)))
        with pytest.raises(OSError, match='a.pt could not be written .*No space left') as e: write_checkpoint(f, dict(x=torch.ones(50000)))
        assert e.value.errno==errno.ENOSPC and os.listdir(f.parent)==['a.pt'] and read_checkpoint(f)['x'].sum()==2000
    finally: subprocess.run(['umount', tmp_path/'disk'], check=True)

def test_a_folder_that_may_not_be_written_is_found_before_training(make):
    "Root may write everywhere, so it becomes nobody in a fork"
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o555)
        learn = make(path=Path(d))
        r,w = os.pipe()
        pid = os.fork()
        if pid==0:
            try:
                if os.geteuid()==0: os.setuid(65534)
                learn.fit(1, cbs=[Checkpoint('a'), Die(1)])
            except BaseException as e: os.write(w, f'{type(e).__name__} {e}'.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(w)
        with open(r) as o: text = o.read()
        assert text.startswith('PermissionError') and f'{d}/a (' in text and 'choose another folder' in text

def test_a_damaged_checkpoint_gives_way_to_the_one_before(make, tmp_path):
    make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('whole')])
    with pytest.raises(KeyboardInterrupt): make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('a'), Die(8)])
    old,new = sorted((tmp_path/'a').iterdir())
    data = new.read_bytes()
    for bad in (data[:-1], data[:100], b'', data[:-500]+b'x'+data[-499:]):
        new.write_bytes(bad)
        with pytest.warns(UserWarning, match=f'{new.name}.*goes on from .*{old.name}'): last_checkpoint(tmp_path/'a')
    with pytest.warns(UserWarning, match=new.name): make().fit(3, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True)])
    whole,rest = (read_checkpoint(tmp_path/o/'fit0-epoch0002.pt')['learner']['model'] for o in ('whole','a'))
    assert all(torch.equal(a.nan_to_num(), rest[k].nan_to_num()) for k,a in whole.items())
    for o in (tmp_path/'a').iterdir(): o.write_bytes(b'no')
    with pytest.raises(ValueError, match='fit0-epoch0002.pt is no checkpoint.*fit0-epoch0001.pt is no checkpoint.*Remove them'): make().fit(3, cbs=Checkpoint('a', resume=True))

class Bomb:
    def __init__(self, f): self.f = str(f)
    def __reduce__(self): return os.mkdir, (self.f,)

def test_reading_runs_no_code(tmp_path):
    "Even with a right checksum"
    buf = io.BytesIO()
    torch.save(dict(fit=0, epoch=Bomb(tmp_path/'mark')), buf)
    data = buf.getvalue()
    (f := tmp_path/'fit0-epoch0000.pt').write_bytes(b'fastai_resup checkpoint 1 ' + hashlib.sha256(data).hexdigest().encode() + b'\n' + data)
    with pytest.raises(ValueError, match='fit0-epoch0000.pt is no checkpoint that can be read safely'): last_checkpoint(tmp_path)
    assert not (tmp_path/'mark').exists()
    torch.load(io.BytesIO(data), weights_only=False)
    assert (tmp_path/'mark').exists()

def test_what_can_not_be_stored_is_named():
    with pytest.raises(TypeError, match=r'the state.a\[1\].b is a set'): plain_values(dict(a=[1, dict(b=set())]))

# another run -------------------------------------------------------------------

def test_another_run_is_refused(make, tmp_path):
    make().fit_one_cycle(2, 1e-2, cbs=[ReSup(), Checkpoint('a', about=dict(seed=1))])
    def again(n=2, lr=1e-2, cbs=(), about=dict(seed=1), **kwargs): make(**kwargs).fit_one_cycle(n, lr, cbs=[*(cbs or [ReSup()]), Checkpoint('a', resume=True, about=about)])
    again()
    for kw,what in ((dict(n=3), 'n_epoch was 2 and is 3'), (dict(lr=2e-2), 'schedule was'), (dict(noise=0.), 'labels was'), (dict(cbs=[ReSup(warmup=2)]), 'resup was'), (dict(about=None), 'seed was 1 and is None')):
        with pytest.raises(ValueError, match=f'fit0-epoch0001.pt belongs to another run: .*{what}'): again(**kw)
    with pytest.raises(FileExistsError, match='resume=True'): make().fit(1, cbs=Checkpoint('a'))
    learn = make()
    learn.model.nets[0][0][0] = nn.Conv2d(3, 6, 5, stride=2)
    with pytest.raises(ValueError, match='belongs to another run: .*nets.0.0.0.weight'): learn.fit_one_cycle(2, 1e-2, cbs=[ReSup(), Checkpoint('a', resume=True, about=dict(seed=1))])

def test_other_threads_are_only_a_warning(make, tmp_path):
    make().fit(1, cbs=Checkpoint('a'))
    f = tmp_path/'a'/'fit0-epoch0000.pt'
    saved = read_checkpoint(f)
    saved['made_by']['threads'] = 99
    write_checkpoint(f, saved)
    with pytest.warns(UserWarning, match='threads was 99'): make().fit(1, cbs=Checkpoint('a', resume=True))

def test_processes_that_train_a_learner_each_are_refused(make, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(RuntimeError, match='into one folder: .* `with learn.distrib_ctx'): make().fit(1, cbs=Checkpoint('a'))

def test_another_number_of_processes_is_refused(make, tmp_path):
    make().fit(1, cbs=Checkpoint('a'))
    f = tmp_path/'a'/'fit0-epoch0000.pt'
    saved = read_checkpoint(f)
    saved['facts']['processes'] = 2
    write_checkpoint(f, saved)
    with pytest.raises(ValueError, match='belongs to another run: processes was 2 and is 1'): make().fit(1, cbs=Checkpoint('a', resume=True))
