"resup-noise as people call it: what it writes, prints and refuses"
import json, os, subprocess, sys, warnings
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fastai_resup.cli.noise as cli
from fastai_resup.cli.commands import resup_noise,resup_train
from fastai_resup.data.affectnet import affectnet_columns,affectnet_schemes
from fastai_resup.data.formats import read_table
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.manifest import NoiseManifest,list_table
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
    assert not list((tmp_path/'model').glob('*.pkl'))             # nothing pickled is needed
    files = m.table(faces).file[~m.df.is_valid].tolist()
    probs = cli.model_probs(tmp_path/'model', files, m.vocab[::-1])
    other = cli.model_probs(tmp_path/'model', files, m.vocab)
    assert probs.shape==(70,7) and np.allclose(probs.sum(1), 1) and np.allclose(probs[:,::-1], other)
    with pytest.raises(ValueError, match='knows the classes'): cli.model_probs(tmp_path/'model', ['x'], ['a'])

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
    assert code==1 and "'../a.png'" in err and 'leaves the image folder' in err and not (tmp_path/'m.csv').exists()

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

# where names start from

def plain(root, classes=('angry','happy')):
    "A folder of a few plain images"
    for split,n in (('train',4),('valid',2)):
        for c in classes:
            (root/split/c).mkdir(parents=True)
            for i in range(n): Image.new('RGB', (32,32), (i*9,0,0)).save(root/split/c/f'{split}{i}.png')
    return root

def spellings(root, link, home):
    "Ways to say `root` in the current folder"
    rel = os.path.relpath(root)
    return [rel, f'./{rel}/', str(root), f'~/{root.relative_to(home)}', str(link), os.path.relpath(link)]

def folders(tmp_path):
    res = [tmp_path/'a', tmp_path/'a'/'faces', tmp_path/'elsewhere']
    res[2].mkdir()
    return res

@pytest.mark.parametrize('form', ['manifest','list'])
def test_names_are_relative_to_the_root_from_any_folder(form, tmp_path, monkeypatch, capsys):
    "The same file from three folders, however the root is spelled, and it finds the images from each of them"
    monkeypatch.setenv('HOME', str(tmp_path))
    root,link = plain(tmp_path/'a'/'faces'),tmp_path/'link'
    link.symlink_to(root)
    texts = set()
    for here in folders(tmp_path):
        monkeypatch.chdir(here)
        for spelled in spellings(root, link, tmp_path):
            assert run(monkeypatch, capsys, spelled, tmp_path/'n', '--rate', 0.5, '--form', form, '--overwrite')[0]==0
            texts.add((tmp_path/'n').read_text())
            if form=='list': table,vocab = list_table(tmp_path/'n', images=spelled)
            else:
                m = NoiseManifest.read(tmp_path/'n')
                assert m.df.file.tolist()==[f'{s}/{c}/{s}{i}.png' for s,n in (('train',4),('valid',2)) for c in m.vocab for i in range(n)]
                table,vocab = m.table(spelled),m.vocab
                assert len(FERDataLoaders.from_table(table, spelled, vocab=list(vocab), img_size=32, num_workers=0).train_ds)==8
            assert all(os.path.samefile(a, b) for a,b in zip(table.file, sorted(root.rglob('train*.png')))) and list(vocab)==['angry','happy']
    assert len(texts)==1

def test_in_a_shell_that_stands_in_the_folder(tmp_path):
    "A real process, and `~` that the shell leaves alone"
    root = plain(tmp_path/'faces')
    code = 'from fastai_resup.cli.commands import resup_noise; resup_noise.main()'
    p = subprocess.run([sys.executable, '-c', code, '.', '~/n.csv', '--rate', '0.5'], text=True, capture_output=True, cwd=root, env={**os.environ, 'HOME':str(tmp_path)})
    assert p.returncode==0, p.stderr
    assert NoiseManifest.read(tmp_path/'n.csv').df.file[0]=='train/angry/train0.png' and sorted(o.name for o in root.iterdir())==['train','valid']

@pytest.mark.parametrize('form', ['manifest','list'])
def test_csv_names_from_any_folder(form, tmp_path, monkeypatch, capsys):
    "Relative to the csv file or to --images, or complete, with the columns of a labelling tool"
    monkeypatch.setenv('HOME', str(tmp_path))
    root = plain(tmp_path/'a'/'faces')
    files = sorted(root.rglob('*.png'))
    labels = [o.parent.name for o in files]
    valid = [o.parts[-3]=='valid' for o in files]
    def write(f, names): pd.DataFrame({'Image name':names, 'who':'me', 'Expression':labels, 'is_valid':valid}).to_csv(f, index=False)
    below = [str(o.relative_to(root)) for o in files]
    write(root/'labels.csv', below)
    (tmp_path/'lists').mkdir()
    write(tmp_path/'lists'/'below.csv', below)
    write(tmp_path/'lists'/'complete.csv', files)
    texts = set()
    for here in folders(tmp_path):
        monkeypatch.chdir(here)
        for f,args in ((root/'labels.csv',()), (tmp_path/'lists'/'below.csv',('--images',os.path.relpath(root))), (tmp_path/'lists'/'below.csv',('--images','~/a/faces/')),
                       (tmp_path/'lists'/'complete.csv',('--images',f'./{os.path.relpath(root)}', '--fn-col','Image name','--label-col','Expression'))):
            code,_,err = run(monkeypatch, capsys, os.path.relpath(f), tmp_path/'n', '--rate', 0.5, '--form', form, '--overwrite', *args)
            assert code==0, err
            texts.add((tmp_path/'n').read_text())
    assert len(texts)==1 and 'train/angry/train0.png' in texts.pop()
    code,_,err = run(monkeypatch, capsys, tmp_path/'lists'/'complete.csv', tmp_path/'away', '--rate', 0.5, '--form', form)
    assert code==0 and '12 of 12 images lie outside' in err and str(files[0]) in (tmp_path/'away').read_text()
    back = list_table(tmp_path/'away')[0] if form=='list' else NoiseManifest.read(tmp_path/'away').table(tmp_path)
    assert set(back.file)<=set(map(str, files)) and len(back)>=8

@pytest.mark.parametrize('name', ['../a.png','x/../../a.png'])
def test_names_that_climb_out_are_refused(name, tmp_path, monkeypatch, capsys):
    pd.DataFrame(dict(file=[name,'b.png','c.png'], label=['x','y','x'], is_valid=[0,0,1])).to_csv(tmp_path/'l.csv', index=False)
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.csv', tmp_path/'m.csv', '--rate', 0.1)
    assert code==1 and name in err and not (tmp_path/'m.csv').exists()
    (tmp_path/'l.txt').write_text(f'# {{"format": "fastai_resup label list", "version": 1, "vocab": ["x", "y"], "training": 2, "wrong": 0}}\nb.png 1\n{name} 2\n')
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.txt', tmp_path/'m.csv', '--rate', 0.1)
    assert code==1 and f'l.txt line 3: {name!r} leaves the image folder' in err and not (tmp_path/'m.csv').exists()

# what it writes is read again

@pytest.mark.parametrize('with_valid', [(),('--with-valid',)])
def test_a_list_is_read_back(with_valid, tmp_path, monkeypatch, capsys):
    "By resup-noise, resup-train, read_table and FERDataLoaders, with the classes' names"
    root = plain(tmp_path/'faces', ('angry','happy','so so'))
    assert run(monkeypatch, capsys, root, tmp_path/'n.csv', '--rate', 0.5)[0]==0
    assert run(monkeypatch, capsys, root, root/'n.txt', '--rate', 0.5, '--form', 'list', *with_valid)[0]==0
    m = NoiseManifest.read(tmp_path/'n.csv')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                           # without validation images some are held out
        table,vocab = read_table(root/'n.txt')
    want = m.df[[True]*len(m) if with_valid else ~m.df.is_valid]
    assert sorted(zip(table.file, table.label))==sorted((str(root/o.file),o.label) for o in want.itertuples()) and vocab==list(m.vocab)
    if with_valid: assert table.is_valid.tolist()==want.is_valid.tolist()
    assert len(FERDataLoaders.from_table(table, root, vocab=vocab, img_size=32, num_workers=0).train_ds)==(~table.is_valid).sum()
    code,_,err = run(monkeypatch, capsys, root/'n.txt', tmp_path/'again.csv', '--rate', 0)
    again = NoiseManifest.read(tmp_path/'again.csv')
    assert code==0 and 'n.txt has 6 noisy labels already' in err and sorted(zip(again.df.file, again.df.true))==sorted(zip(want.file, want.label))
    (root/'n.txt').rename(tmp_path/'n.txt')
    args = dict(images=str(root), arch='test_resnet', weights='none', img_size=32, bs=4, epochs=1)
    resup_train(str(tmp_path/'n.txt'), out=str(tmp_path/'model'), **args)
    resup_train(str(tmp_path/'n.csv'), out=str(tmp_path/'again'), **args)
    assert json.loads((tmp_path/'model'/'settings.json').read_text())['vocab']==['angry','happy','so so']
    code,_,err = run(monkeypatch, capsys, tmp_path/'n.csv', tmp_path/'m.csv', '--rate', 0, '--images', root)
    assert code==1 and 'n.csv has 6 labels that differ from the true ones' in err

def test_numbers_stay_the_names_of_classes(tmp_path, monkeypatch, capsys):
    "Whole numbers in a csv, in Python and in a list"
    root = plain(tmp_path/'faces', ('3','10'))
    for form in ('manifest','list'): assert run(monkeypatch, capsys, root, tmp_path/form, '--rate', 0.5, '--form', form)[0]==0
    m = NoiseManifest.read(tmp_path/'manifest')
    assert set(m.vocab)=={'3','10'} and set(list_table(tmp_path/'list')[0].label)=={'3','10'}
    table = m.table(root).assign(label=m.df.true.astype(int))
    ints = NoiseManifest.from_table(table, np.array([3,10]), rate=0.5, root=root)
    back = NoiseManifest.read(ints.save(tmp_path/'ints.csv'))
    assert back.vocab==(3,10) and back.df.equals(ints.df) and set(back.df.label)=={3,10} and back.report().n_flips==4
    dls = FERDataLoaders.from_table(back.table(root), root, vocab=back.vocab, img_size=32, num_workers=0)
    assert list(dls.vocab)==[3,10] and (dls.true_targs!=dls.train_targs).sum()==4

def test_repeated_rows(tmp_path, monkeypatch, capsys):
    "Merged with a note, or refused with both lines"
    pd.DataFrame(dict(file=['a.png','b.png','c.png','a.png'], label=['x','y','x','x'], is_valid=[0,0,1,0])).to_csv(tmp_path/'l.csv', index=False)
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.csv', tmp_path/'n.csv', '--rate', 0)
    assert code==0 and 'warning: 1 ' in err and len(NoiseManifest.read(tmp_path/'n.csv'))==3, err
    (tmp_path/'l.csv').write_text('file,label,is_valid\na.png,x,0\nb.png,y,0\nc.png,x,1\na.png,y,0\n')
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.csv', tmp_path/'m.csv', '--rate', 0)
    assert code==1 and 'a.png' in err and '2' in err and '5' in err and not (tmp_path/'m.csv').exists()
    (tmp_path/'l.txt').write_text('# {"format": "fastai_resup label list", "version": 1, "vocab": ["x", "y"], "training": 4, "wrong": 0}\na.png 1\nb.png 2\nb.png 2\na.png 2\n')
    code,_,err = run(monkeypatch, capsys, tmp_path/'l.txt', tmp_path/'m.csv', '--rate', 0)
    assert code==1 and 'a.png' in err and not (tmp_path/'m.csv').exists()
    with pytest.warns(UserWarning, match='^1 rows are repeated, and count once: a'):
        assert len(NoiseManifest.from_table(pd.DataFrame(dict(file=list('aba'), label=list('xyx'))), ['x','y'], rate=0))==2
    with pytest.raises(ValueError, match="row 2: 'a' is listed twice, in row 0 with the label 'x', and here 'y'"):
        NoiseManifest.from_table(pd.DataFrame(dict(file=list('aba'), label=list('xyy'))), ['x','y'], rate=0)

# published data, and failures

def test_affectnet_and_its_scheme(tmp_path, monkeypatch, capsys):
    "Class numbers mean what --scheme says; without it, and with another form, it says so"
    for split in ('training','validation'):
        rows = [f'{split}/{i}.png,0,0,8,8,1;2,{i%8},0,0' for i in range(16)]
        (tmp_path/split).mkdir()
        for i in range(16): Image.new('RGB', (8,8), (i,0,0)).save(tmp_path/split/f'{i}.png')
        (tmp_path/f'{split}.csv').write_text('\n'.join([','.join(affectnet_columns), *rows]))
    for scheme,names in affectnet_schemes.items():
        code,_,err = run(monkeypatch, capsys, tmp_path, tmp_path/f'{scheme}.csv', '--rate', 0.5, '--scheme', scheme)
        m,names = NoiseManifest.read(tmp_path/f'{scheme}.csv'),list(names[:8])
        want = [names[i%8] for i in range(32) if i%8<len(names)]
        assert code==0 and m.vocab==tuple(names) and m.df.true.tolist()==want and m.df.file[9].startswith('training/') and m.report().n_flips==len(want)//4, err
    for args,said in (((), '--scheme'), (('--scheme','best'), '--scheme'), (('--scheme','official','--format','folder'), '--scheme')):
        code,_,err = run(monkeypatch, capsys, tmp_path, tmp_path/'n.csv', '--rate', 0.5, *args)
        assert code==2 and said in err and not (tmp_path/'n.csv').exists(), err

def test_a_stopped_run_leaves_nothing(faces, tmp_path, monkeypatch, capsys):
    "The disk is full, or somebody presses Ctrl-C while it writes"
    for error,code in ((OSError(28, 'No space left on device'),1), (KeyboardInterrupt(),130)):
        def fail(*args): raise error
        with monkeypatch.context() as m:
            m.setattr('os.replace', fail)
            assert run(m, capsys, faces, tmp_path/'n.csv', '--rate', 0.5)[0]==code and list(tmp_path.iterdir())==[]
    code,_,err = run(monkeypatch, capsys, faces, tmp_path/'no'/'such'/'n.csv', '--rate', 0.5)
    assert code==1 and f'{tmp_path}/no/such' in err and '.tmp' not in err and list(tmp_path.iterdir())==[]
