"resup-noise as people call it: what it writes, prints and refuses"
import os, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fastai_resup.cli.noise as cli
from fastai_resup.cli.commands import resup_noise,resup_train
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.manifest import NoiseManifest
from fastai_resup.data.noise import symmetric_noise
from fastai_resup.data.rafdb import read_label_list
from fastai_resup.synth import make_faces

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('cli')/'faces', 70, 21, 32, progress=False)

def run(monkeypatch, capsys, *args):
    "The command in this process, parsed from sys.argv as in a script: exit code, stdout, stderr"
    monkeypatch.setattr(sys, 'argv', ['resup-noise', *map(str, args)])
    capsys.readouterr()
    try: code = resup_noise.main() or 0
    except SystemExit as e: code = e.code
    return (code, *capsys.readouterr())

def test_it_is_a_console_script():
    settings = ConfigParser(delimiters=['='])
    settings.read(Path(__file__).parents[1]/'settings.ini')
    scripts = dict(o.strip().split('=') for o in settings['DEFAULT']['console_scripts'].split('\n'))
    assert scripts['resup-noise']=='fastai_resup.cli.commands:resup_noise.main'

def test_in_a_process_of_its_own(faces, tmp_path):
    script = tmp_path/'resup-noise'    # as pip writes it
    script.write_text("import sys\nfrom fastai_resup.cli.commands import resup_noise\nif __name__=='__main__': sys.exit(resup_noise.main())\n")
    p = subprocess.run([sys.executable, '-W', 'ignore', str(script), str(faces), str(tmp_path/'n.csv'), '--rate', '0.3', '--seed', '2'], text=True, capture_output=True, env=os.environ)
    assert p.returncode==0, p.stderr
    assert '70 images, 21 noisy labels (30.00%)' in p.stdout and 'symmetric noise (rate=0.3, seed=2), 21 validation images' in p.stdout
    m = NoiseManifest.read(tmp_path/'n.csv')
    dls = FERDataLoaders.from_folder(faces, noise=0.3, seed=2, num_workers=0)   # the same noise as while training
    assert [str(faces/f) for f in m.df.file[~m.df.is_valid]]==[str(f) for f in dls.train_files]
    assert m.ids('label').tolist()==dls.train_targs.tolist() and m.ids('true').tolist()==dls.true_targs.tolist()

MODELS = [(('--rate',0.2), 14),
          (('--rate',0.7,'--inclusive'), 42),
          (('--model','pair','--rate',0.5), 35),
          (('--model','pair','--rate',0.5,'--to','b,a,a,a,a,a,a'), 35),
          (('--model','class','--rates','0.1,0.5,0.3,0,0.4,0.2,0'), 15),
          (('--model','class','--rates','{2}=0.5,{0}=1'), 15)]

@pytest.mark.parametrize('args,flips', MODELS)
def test_models(args, flips, faces, tmp_path, monkeypatch, capsys):
    names = sorted(o.name for o in (faces/'train').iterdir())
    args = [str(o).format(*names).replace('b,a,a,a,a,a,a', ','.join([names[1]]+names[:1]*6)) for o in args]
    code,out,err = run(monkeypatch, capsys, faces, tmp_path/'n.csv', *args)
    assert code==0, err
    m = NoiseManifest.read(tmp_path/'n.csv')
    assert m.report().n_flips==flips and f'70 images, {flips} noisy labels' in out
    if '--to' in args: assert set(m.df.label[m.df.label!=m.df.true]) <= set(names[:2])

def test_matrix(faces, tmp_path, monkeypatch, capsys):
    names = sorted(o.name for o in (faces/'train').iterdir())
    t = pd.DataFrame(np.eye(7), index=names, columns=names)
    t.loc[names[0]] = [0.5,0,0,0.5,0,0,0]
    t.iloc[::-1].to_csv(tmp_path/'t.csv', index_label='true')
    assert run(monkeypatch, capsys, faces, tmp_path/'n.csv', '--model', 'matrix', '--matrix', tmp_path/'t.csv')[0]==0
    assert np.allclose(NoiseManifest.read(tmp_path/'n.csv').report().transition, t)
    t.iloc[0,0] = 0.6
    t.to_csv(tmp_path/'t.csv', index_label='true')
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'m.csv', '--model', 'matrix', '--matrix', tmp_path/'t.csv')
    assert code==1 and 'row 0 of matrix sums to 1.1' in err and not (tmp_path/'m.csv').exists()

def test_probabilities_from_a_file(faces, tmp_path, monkeypatch, capsys):
    "Every image is taken for the second class, so that is what the noisy labels are"
    clean = FERDataLoaders.from_folder(faces, num_workers=0)
    names = list(clean.vocab)
    p = pd.DataFrame([[0.01,0.94]+[0.01]*5]*70, columns=names).assign(file=[str(f) for f in clean.train_files]).sample(frac=1, random_state=0)
    p.to_csv(tmp_path/'p.csv', index=False)
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'n.csv', '--model', 'instance', '--rate', 0.3, '--probs', tmp_path/'p.csv')
    m = NoiseManifest.read(tmp_path/'n.csv')
    wrong = m.df[m.df.label!=m.df.true]
    assert code==0 and len(wrong)==21 and (wrong.label==names[1]).sum()>=18 and m.args['probs']['shape']==[70,7]
    p[1:].to_csv(tmp_path/'p.csv', index=False)
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'m.csv', '--model', 'instance', '--rate', 0.3, '--probs', tmp_path/'p.csv')
    assert code==1 and '1 of 70 training images are not in' in err

def test_probabilities_from_a_trained_model(faces, tmp_path, monkeypatch, capsys):
    resup_train(str(faces), out=str(tmp_path/'model'), arch='test_resnet', weights='none', img_size=32, bs=16, epochs=1)
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'n.csv', '--model', 'instance', '--rate', 0.2, '--probs', tmp_path/'model')
    assert code==0, err
    m = NoiseManifest.read(tmp_path/'n.csv')
    assert m.report().n_flips==14 and m.args['rate']==0.2
    probs = cli.model_probs(tmp_path/'model', m.df.file[~m.df.is_valid].tolist(), m.vocab[::-1], faces)
    other = cli.model_probs(tmp_path/'model', m.df.file[~m.df.is_valid].tolist(), m.vocab, faces)
    assert probs.shape==(70,7) and np.allclose(probs.sum(1), 1) and np.allclose(probs[:,::-1], other)
    with pytest.raises(ValueError, match='knows the classes'): cli.model_probs(tmp_path/'model', ['x'], ['a'], faces)

def test_rafdb_lists(shared, tmp_path, monkeypatch, capsys):
    "The real clean list: exact counts, training rows alone, and test rows as they were"
    clean = shared/'data'/'rafdb'/'0.0noise_train1.txt'
    code,out,err = run(monkeypatch, capsys, clean, tmp_path/'n.txt', '--rate', 0.3, '--form', 'list')
    assert code==0 and '12271 images, 3681 noisy labels (30.00%)' in out, err
    lst,true = read_label_list(tmp_path/'n.txt'),read_label_list(clean)
    assert len(lst)==12271 and lst.base==1 and (lst.labels()!=true.labels()).sum()==3681
    assert (lst.labels().to_numpy()==symmetric_noise(true.labels(), 0.3, 7, seed=0)).all()
    assert run(monkeypatch, capsys, clean, tmp_path/'w.txt', '--rate', 0.3, '--form', 'list', '--with-valid')[0]==0
    both = read_label_list(tmp_path/'w.txt')
    assert len(both)==15339 and (both.labels('test')==true.labels('test')).all() and (both.labels()==lst.labels()).all()
    code,out,_ = run(monkeypatch, capsys, clean, tmp_path/'us.csv', '--model', 'class', '--rates', '0.1,0.5,0.3,0,0.4,0.2,0')
    m = NoiseManifest.read(tmp_path/'us.csv')
    assert m.report().per_class.round(2).tolist()==[0.1,0.5,0.3,0,0.4,0.2,0] and m.df.file[0]=='Image/aligned/train_00001_aligned.jpg'

def test_rafdb_folder_and_its_list_train(faces, tmp_path, monkeypatch, capsys):
    "A RAF-DB made of drawn faces in its mirrors' layout; the list that comes out goes into `from_rafdb`"
    files = sorted((faces/'train').glob('*/*.png'))
    for split,fs in (('train',files[:49]), ('test',files[49:70])):
        for i,f in enumerate(fs, 1):
            d = tmp_path/'raf'/split/str(i%7+1)
            d.mkdir(parents=True, exist_ok=True)
            (d/f"{split}_{i:0{5 if split=='train' else 4}d}_aligned.png").write_bytes(f.read_bytes())
    code,out,err = run(monkeypatch, capsys, tmp_path/'raf', tmp_path/'n.txt', '--rate', 0.2, '--form', 'list')
    assert code==0 and 'classes from 1: surprise, fear' in out, err
    dls = FERDataLoaders.from_rafdb(tmp_path/'raf', noise_list=tmp_path/'n.txt', img_size=32, bs=8, num_workers=0)
    assert (dls.true_targs!=dls.train_targs).sum()==10 and len(dls.train_targs)==49

def test_ferplus(ferplus_root, tmp_path, monkeypatch, capsys):
    code,out,err = run(monkeypatch, capsys, ferplus_root, tmp_path/'n.csv', '--rate', 0.1)
    m = NoiseManifest.read(tmp_path/'n.csv')
    assert code==0 and (len(m), m.report().n, m.report().n_flips)==(25045+3191, 25045, 2504), err
    assert m.df.file[0].startswith('FER2013Train/') and m.vocab[7]=='contempt'

def test_csv(tmp_path, monkeypatch, capsys):
    pd.DataFrame(dict(file=[f'=x/{i}.png' for i in range(40)], label=['NA','1']*20, is_valid=[0]*30+[1]*10)).to_csv(tmp_path/'l.csv', index=False)
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.csv', tmp_path/'n.csv', '--rate', 0.1)
    m = NoiseManifest.read(tmp_path/'n.csv')
    assert code==0 and m.report().n_flips==3 and m.vocab==('1','NA') and m.df.file[3]=='=x/3.png', err
    pd.DataFrame(dict(file=['../a.png','b.png','c.png'], label=['x','y','x'], is_valid=[0,0,1])).to_csv(tmp_path/'l.csv', index=False)
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.csv', tmp_path/'m.csv', '--rate', 0.1)
    assert code==1 and "'../a.png' leaves the image folder" in err and not (tmp_path/'m.csv').exists()

@pytest.mark.parametrize('noisy', ['train.png', 'valid.png'])
def test_no_noise_upon_noise(noisy, tmp_path, monkeypatch, capsys):
    df = pd.DataFrame(dict(file=['train.png','b.png','valid.png'], label=['x','y','x'], true=['x','y','x'], is_valid=[0,0,1]))
    df.to_csv(tmp_path/'clean.csv', index=False)
    assert run(monkeypatch, capsys, tmp_path/'clean.csv', tmp_path/'n.csv', '--rate', 0)[0]==0
    df.loc[df.file==noisy, 'true'] = 'y'
    df.to_csv(tmp_path/'noisy.csv', index=False)
    code,_,err = run(monkeypatch, capsys, tmp_path/'noisy.csv', tmp_path/'m.csv', '--rate', 0)
    assert code==1 and 'noisy.csv has 1 labels that differ from the true ones' in err and noisy in err and not (tmp_path/'m.csv').exists()

@pytest.mark.parametrize('args,named', [(('--rate',1.5),'--rate'), ((),'--rate'), (('--rate','x'),'--rate'), (('--model','best','--rate',0.1),'--model'), (('--form','xml','--rate',0.1),'--form'),
                                        (('--rate',0.1,'--rates','1'),'--rates'), (('--model','class','--rates','0.1'),'7 numbers'), (('--rate',0.1,'--with-valid'),'--with-valid'),
                                        (('--rate',0.1,'--seed',-1),'--seed'), (('--rate',0.1,'--valid-pct',2),'--valid-pct'), (('--rate',0.1,'--format','zip'),'--format')])
def test_usage_errors(args, named, faces, tmp_path, monkeypatch, capsys):
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'n.csv', *args)
    assert code==2 and named in err and 'Traceback' not in err and list(tmp_path.iterdir())==[]

def test_never_overwrites_unless_told(faces, tmp_path, monkeypatch, capsys):
    (tmp_path/'n.csv').write_text('mine')
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'n.csv', '--rate', 0.1)
    assert code==1 and '--overwrite' in err and (tmp_path/'n.csv').read_text()=='mine' and len(err.strip().splitlines())==1
    assert run(monkeypatch, capsys, faces, tmp_path/'n.csv', '--rate', 0.1, '--overwrite')[0]==0
    assert NoiseManifest.read(tmp_path/'n.csv').report().n_flips==7

def test_missing_data(tmp_path, monkeypatch, capsys):
    code,_,err = run(monkeypatch, capsys, tmp_path/'nowhere', tmp_path/'n.csv', '--rate', 0.1)
    assert code==1 and 'nowhere' in err
