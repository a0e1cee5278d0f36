"Decisions applied to other people's DataLoaders, the loop that closes, `resup-audit` as people call it, and the page's files in a wheel."
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastai.vision.all import ImageDataLoaders,Resize
from PIL import Image

from fastai_resup.audit.decisions import Review
from fastai_resup.audit.page import make_thumb
from fastai_resup.audit.table import LabelAudit,item_names
from fastai_resup.callbacks import ReSup
from fastai_resup.cli.audit import read_p_clean
from fastai_resup.cli.commands import resup_audit
from fastai_resup.cli.common import train_pair
from fastai_resup.cli.train import load_images
from fastai_resup.data.decisions import Labelled,check_decisions,read_decisions,save_decisions
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.synth import make_faces

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('review')/'faces', 70, 21, 32, nuisance=0., progress=False)

def audit_of(dls):
    "An audit of any dls, in which every label looks the more wrong the earlier its image comes, and the next class is suggested"
    names,n = list(dls.vocab),len(dls.train_ds)
    y = [int(dls.train_ds.tls[-1][i]) for i in range(n)]
    return LabelAudit(pd.DataFrame(dict(file=item_names(dls.train_ds), label=[names[i] for i in y], p_clean=np.arange(n)/n, similarity_0=np.arange(n)/n, similarity_1=0.,
                                        suggested=[names[(i+1)%7] for i in y], suggested_prob=0.9, agree=True)))

def from_table(path):
    files = sorted((path/'train').rglob('*.png'))
    df = pd.DataFrame(dict(name=[str(o.relative_to(path)) for o in files], label=[o.parent.name for o in files]))
    return ImageDataLoaders.from_df(df, path, valid_pct=0.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(16))

MAKERS = dict(
    ours=lambda p: FERDataLoaders.from_folder(p, bs=8, img_size=16, num_workers=0),
    cached=lambda p: FERDataLoaders.from_folder(p, bs=8, img_size=16, num_workers=0, cache=True),
    folder=lambda p: ImageDataLoaders.from_folder(p, bs=8, num_workers=0, item_tfms=Resize(16)),
    table=from_table)

@pytest.mark.parametrize('make', MAKERS)
def test_apply_to_any_dls(make, faces):
    "Labels, images and order of the training set are those decided; transforms, batch size and validation set stay"
    dls = MAKERS[make](faces)
    audit = audit_of(dls)
    d = audit.suggest(0.3)
    d.loc[:4,['decision','new_label']] = ['drop',None]
    new = audit.apply(d, dls=dls)
    want = audit.apply(d)
    names,n = list(dls.vocab),len(want)
    assert len(new.train_ds)==n==len(dls.train_ds)-5 and item_names(new.train_ds)==want.file.tolist()
    assert [names[int(new.train_ds[i][1])] for i in range(n)]==want.label.tolist()
    assert (want.label!=want.given).sum()==len(d)-5>=10
    assert type(new) is type(dls) and new.valid is dls.valid and new.train.bs==8 and list(new.vocab)==names and new.c==7
    x,y = new.one_batch()
    assert x.shape==(8,3,16,16)
    old = {f:i for i,f in enumerate(audit.df.file)}
    assert all(np.array_equal(new.train_ds[i][0], dls.train_ds[old[f]][0]) for i,f in list(enumerate(want.file))[:3])
    assert audit.df.label.tolist()==[names[int(dls.train_ds[i][1])] for i in range(len(dls.train_ds))]
    again = audit_of(new)                                         # the next round works on the new ones
    assert len(again.apply(again.suggest(0.1), dls=new).train_ds)==n

def test_a_class_that_vanishes_is_named(faces):
    dls = MAKERS['ours'](faces)
    audit = audit_of(dls)
    rows = audit.df[audit.df.label=='fear'][['file','label']].assign(decision='drop', new_label='')
    with pytest.warns(UserWarning, match='no training image is left of fear'): audit.apply(rows, dls=dls)

def test_jpegs_are_drawn_small_and_whole(tmp_path):
    "A wide picture keeps both its ends, with grey above and below"
    im = np.zeros((600,1200,3), np.uint8)
    im[:,:600,0] = im[:,600:,2] = 255
    Image.fromarray(im).save(tmp_path/'wide.jpg')
    a = np.array(make_thumb(tmp_path/'wide.jpg', 100)).astype(int)
    assert a.shape==(100,100,3)
    for at,want in (((50,5),(255,0,0)), ((50,95),(0,0,255)), ((5,50),(128,128,128)), ((95,50),(128,128,128))): assert abs(a[at]-want).max()<12, at

def wrong(dls): return (dls.train_targs!=dls.true_targs).float().mean().item()

def test_the_loop_closes(tmp_path):
    """30 % wrong labels, audit, suggestions applied: fewer are wrong, and most changes were right.

    That accuracy rises too takes a second training and several seeds: see benchmarks/relabel.py. What p(clean) the worst labels get depends on the mixture's left tail, which on so few
    faces varies (lowest 0.005 with one thread, 0.20 with two), their rank doesn't: hence a threshold above the default."""
    path = make_faces(tmp_path/'faces', 700, 14, 64, 0, 0., progress=False)
    dls = FERDataLoaders.from_folder(path, img_size=64, bs=16, noise=0.3, seed=0, cache=True, num_workers=0)
    learn,_ = train_pair(dls, 'tf_efficientnet_lite0', weights='lite0', epochs=6, lr=4e-3, seed=0, cbs=ReSup())
    audit = LabelAudit.from_learner(learn)
    decisions = audit.suggest(0.4)
    better = audit.apply(decisions, dls=dls)
    df = audit.df.set_index('file').loc[decisions.file]
    assert wrong(dls)==pytest.approx(0.3) and len(decisions)>=15
    assert (df.suggested==df.true).sum() > 1.5*(df.label==df.true).sum()
    assert wrong(better)<0.29 and (better.true_targs==dls.true_targs).all()

# resup-audit -----------------------------------------------------------------

def command(*args):
    exe = shutil.which('resup-audit', path=str(Path(sys.executable).parent)) or shutil.which('resup-audit')
    if not exe: pytest.fail(f'resup-audit is not installed beside {sys.executable}')
    return subprocess.run([exe, *map(str, args)], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'})

@pytest.fixture(scope='module')
def found(faces, tmp_path_factory):
    "A folder with the p_clean.csv and settings that resup-train writes; no model"
    out = tmp_path_factory.mktemp('found')/'out'
    out.mkdir()
    audit = audit_of(MAKERS['ours'](faces))
    audit.to_csv(out/'p_clean.csv')
    return out,audit

def test_command_from_csv(found, tmp_path):
    out,audit = found
    p = command(out, out/'p_clean.csv', '--out', tmp_path/'page', '--n', 30)
    assert p.returncode==0 and 'index.html' in p.stdout, p.stderr
    assert sorted(o.name for o in (tmp_path/'page').iterdir())==['data.js','index.html','page.css','page.js','settings.json','thumbs']
    save_decisions(audit.suggest(0.2), tmp_path/'decisions.csv')
    p = command(out, out/'p_clean.csv', '--apply', tmp_path/'decisions.csv', '--out', tmp_path/'labels.csv')
    assert p.returncode==0 and '14 changed' in p.stdout, p.stderr
    labels = pd.read_csv(tmp_path/'labels.csv').set_index('file')
    assert labels.label[audit.df.file].tolist()==audit.apply(audit.suggest(0.2)).label.tolist()

def test_command_errors(found, tmp_path, monkeypatch, capsys):
    out,audit = found
    (tmp_path/'d.csv').write_text(f'file,label,decision,new_label\n{audit.df.file[0]},{audit.df.label[0]},relabel,awe\n')
    (tmp_path/'moved.csv').write_text((out/'p_clean.csv').read_text().replace('/train/', '/gone/'))
    (tmp_path/'other.csv').write_text('a,b,p_clean\n1,2,0.5\n')
    (tmp_path/'full').mkdir(); (tmp_path/'full'/'thesis.txt').write_text('years')
    for args,named,code in (((out,out/'p_clean.csv','--apply',tmp_path/'d.csv','--out',tmp_path/'l.csv'),"line 2: unknown class 'awe'",1), ((out,tmp_path/'moved.csv','--out',tmp_path/'p'),'/gone/',1),
                            ((out,tmp_path/'other.csv','--out',tmp_path/'p'),'lacks the columns',1), ((out,tmp_path/'nowhere','--out',tmp_path/'p'),'nowhere',1),
                            ((out,out/'p_clean.csv','--out',tmp_path/'full','--overwrite'),'thesis.txt',1), ((out,out/'p_clean.csv','--n',0,'--out',tmp_path/'p'),'--n must be',2)):
        monkeypatch.setattr(sys, 'argv', ['resup-audit', *map(str, args)])
        with pytest.raises(SystemExit) as e: resup_audit.main()
        err = capsys.readouterr().err
        assert e.value.code==code and named in err and 'Traceback' not in err, (args, err)
    assert not (tmp_path/'p').exists() and not (tmp_path/'l.csv').exists()

def test_p_clean_csv_with_odd_names(tmp_path, monkeypatch):
    "Names that were neutralised for a spreadsheet come back"
    monkeypatch.chdir(tmp_path)
    names = ['=1.png',"it's.png",'NA','-2.png']
    for o in names: Path(o).write_bytes(b'x')
    df = pd.DataFrame(dict(file=names, label=['NA','=a','b','b'], p_clean=0.5, p_clean_0=0.5, p_clean_1=0.5, similarity_0=[0.1,0.2,0.3,0.4], similarity_1=0., suggested='=a', suggested_prob=0.5, agree=True))
    LabelAudit(df).to_csv('p.csv')
    got = read_p_clean('p.csv').df
    assert [Path(o).name for o in got.file]==names and got.label.tolist()==['NA','=a','b','b'] and got.suggested.tolist()==['=a']*4 and got.p_clean.tolist()==[0.5]*4

def test_corrected_labels_are_read_back_exactly(tmp_path):
    "What `resup-audit --apply` writes, `FERDataLoaders.from_csv` reads: guarded text, and classes called NA or None"
    classes,n = ['NA','None','=a','007','nan'],25
    face = next((make_faces(tmp_path/'faces', 7, 7, 32, progress=False)/'train').rglob('*.png'))
    files = [str(tmp_path/f'{i}.png') for i in range(n)]
    for f in files: shutil.copy(face, f)
    given = [classes[i%5] for i in range(n)]
    suggested = [classes[(i+1)%5] for i in range(n)]
    LabelAudit(pd.DataFrame(dict(file=files, label=given, p_clean=np.arange(n)/n, p_clean_0=0.5, p_clean_1=0.5, similarity_0=np.arange(n)/n, similarity_1=0.,
                                 suggested=suggested, suggested_prob=0.9, agree=True, true=suggested))).to_csv(tmp_path/'p_clean.csv')
    audit = read_p_clean(tmp_path/'p_clean.csv')
    decisions = audit.suggest(0.5)
    decisions.loc[0,['decision','new_label']] = ['drop',None]
    save_decisions(decisions, tmp_path/'decisions.csv')
    f = resup_audit(str(tmp_path), str(tmp_path/'p_clean.csv'), apply=str(tmp_path/'decisions.csv'), out=str(tmp_path/'labels.csv'))
    want = {o.file:(o.label,o.true) for o in audit.apply(decisions).itertuples()}
    dls = FERDataLoaders.from_csv(tmp_path, f.name, fn_col='file', label_col='label', true_col='true', valid_pct=0.2, seed=0, bs=4, img_size=16, num_workers=0)
    assert {o.name:(o.label,o.true) for o in [*dls.train_ds.items, *dls.valid_ds.items]}==want and len(want)==n-1 and list(dls.vocab)==sorted(classes)
    assert sorted(load_images(f, bs=4, img_size=16, valid_pct=0.2).vocab)==sorted(classes)             # and so does resup-train

def test_wheel_has_the_page(tmp_path):
    "What pip installs can write the page"
    root = Path(__file__).resolve().parents[1]
    src = shutil.copytree(root, tmp_path/'src', ignore=shutil.ignore_patterns('.git','build','*.egg-info','nbs','tests'))
    p = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', str(src), '-w', str(tmp_path/'wheel')], capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    names = zipfile.ZipFile(next((tmp_path/'wheel').glob('*.whl'))).namelist()
    assert {f'fastai_resup/audit/page.{o}' for o in ('html','css','js','py')}<=set(names)

# from any folder, in any spelling ---------------------------------------------

def little(root):
    "Two classes of four plain images, and two to validate"
    for split,n in (('train',4),('valid',1)):
        for c in 'ab':
            (root/split/c).mkdir(parents=True)
            for i in range(n): Image.new('RGB', (16,16), (i*9,0,0)).save(root/split/c/f'{i}.png')
    return root

def little_audit(files):
    n = len(files)
    return LabelAudit(pd.DataFrame(dict(file=files, label=[Path(o).parent.name for o in files], suggested='b', p_clean=np.arange(n)/n, similarity_0=np.arange(n)/n, similarity_1=0., suggested_prob=0.9, agree=True)))

def test_decisions_hold_in_any_folder(tmp_path, monkeypatch):
    "Audit, csv and decisions made in one folder, however it names the images; applied in two others, to dls that name them otherwise"
    root,link = little(tmp_path/'a'/'faces'),tmp_path/'link'
    link.symlink_to(root)
    places = [tmp_path/'a', root/'train', tmp_path/'elsewhere']
    places[2].mkdir()
    def spelled():
        rel = os.path.relpath(root)
        return [Path(rel), root, link, Path(os.path.relpath(link))]
    below = sorted(str(o.relative_to(root)) for o in (root/'train').rglob('*.png'))
    monkeypatch.chdir(places[0])
    for i,start in enumerate(spelled()):
        audit = little_audit([str(start/o) for o in below])
        audit.to_csv(tmp_path/f'{i}.csv')
        save_decisions(audit.suggest(0.9), tmp_path/f'd{i}.csv')
    want = audit.apply(audit.suggest(0.9)).label.tolist()
    assert want==['b']*8
    for here in places:
        monkeypatch.chdir(here)
        for start in spelled():
            dls = FERDataLoaders.from_folder(start, img_size=16, bs=4, num_workers=0)
            audit = little_audit(item_names(dls.train_ds))
            for i in range(4):
                loaded = LabelAudit.load(tmp_path/f'{i}.csv')
                assert loaded.apply(tmp_path/f'd{i}.csv').label.tolist()==want
                if here!=places[0] and i in (0,3): continue       # a relative link says nothing in another folder
                assert audit.apply(tmp_path/f'd{i}.csv').label.tolist()==want
                assert [dls.vocab[j] for j in loaded.apply(tmp_path/f'd{i}.csv', dls=dls).train_targs]==want
            assert audit.apply(tmp_path/'d0.csv').label.tolist()==want # faces/train/… is the end of the complete name, too
    with pytest.raises(ValueError, match='is not in the audit'): little_audit([f'/other/{o}' for o in below]).apply(tmp_path/'d1.csv')

def test_repeated_decisions_and_images(tmp_path):
    "The same again is merged with a note; another one is refused with both lines"
    root = little(tmp_path/'faces')
    files = sorted(str(o) for o in (root/'train').rglob('*.png'))
    audit = little_audit([*files, files[0]])                      # fastai's own dls may have an image twice
    f = tmp_path/'d.csv'
    f.write_text(f'file,label,decision,new_label\n{files[0]},a,relabel,b\n{files[1]},a,drop,\n{files[0]},a,Relabel,b\n')
    with pytest.warns(UserWarning, match='^1 decisions are repeated, and count once: .*d.csv line 4$'): table = audit.apply(f)
    assert table.label.tolist()==['b','a','a','b','b','b','b','b'] and len(read_decisions(f.with_name('d.csv')))==2
    f.write_text(f'file,label,decision,new_label\n{files[0]},a,relabel,b\n{files[0]},a,drop,\n')
    with pytest.raises(ValueError, match='line 3: .* was decided in .*d.csv line 2 already: relabel b'): audit.apply(f)
    page = audit.to_html(tmp_path/'page', progress=False)
    assert len(json.loads((page.parent/'data.js').read_text().removeprefix('window.RESUP_AUDIT = ').rstrip(';\n'))['files'])==8

def test_decisions_about_training_images_without_an_audit(tmp_path):
    "`Labelled` finds the same files, in any spelling, and the same faults as an audit"
    dls = FERDataLoaders.from_folder(little(tmp_path/'faces'), img_size=16, bs=4, num_workers=0)
    files = item_names(dls.train_ds)
    labelled,audit = Labelled.from_dataset(dls.train_ds, files),little_audit(files)
    assert labelled.df.equals(audit.df[['file','label']].astype(object)) and labelled.vocab==list(dls.vocab)==['a','b']
    rows = [(os.path.relpath(files[0]),'a','relabel','b'), ('train/a/1.png','a','drop',None), (files[2],'a','keep',None), (files[3],'a','',None)]
    table = pd.DataFrame(rows, columns=['file','label','decision','new_label'])
    save_decisions(table, tmp_path/'d.csv')
    for about in (labelled, audit): assert read_decisions(tmp_path/'d.csv', about).equals(check_decisions(table, about))
    assert check_decisions(table, labelled).equals(check_decisions(table, audit)) and check_decisions(table, labelled).file.tolist()==files[:3]
    for column,value,said in (('file','x.png',"is not in the training set"), ('label','b','it belongs to other data'), ('new_label','c',"unknown class 'c': the classes are a, b")):
        with pytest.raises(ValueError, match=f'row 0: .*{said}'): check_decisions(table.assign(**{column:[value,*table[column][1:]]}), labelled)
    assert check_decisions(table.assign(new_label=['c',None,None,None]), labelled, ['a','b','c']).new_label[0]=='c'
    with pytest.raises(ValueError, match="the chosen part has '.*0.png' with the labels"): check_decisions(table, Labelled(files[:1]*2, 'ab', name='the chosen part'))

@pytest.mark.parametrize('spoil,said', [(lambda df: df[:0], 'has no rows'), (lambda df: df[['p_clean']], 'no column file'), (lambda df: df.assign(file=['x.png',*df.file[1:]]), "'x.png' is not in the audit"),
                                        (lambda df: df.assign(label='b'), "has the label 'a' in the audit, not 'b'")])
def test_a_table_of_other_images_is_refused(tmp_path, spoil, said):
    audit = little_audit(sorted(str(o) for o in (little(tmp_path/'faces')/'train').rglob('*.png')))
    wrong = spoil(audit.suspects(3))
    for show in (lambda: audit.to_html(tmp_path/'page', wrong, progress=False), lambda: Review(audit).table(wrong), lambda: Review(audit).show(wrong)):
        with pytest.raises(ValueError, match=said): show()
    assert not (tmp_path/'page').exists()

def test_a_page_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    audit = little_audit(sorted(str(o) for o in (little(tmp_path/'faces')/'train').rglob('*.png')))
    for error in (OSError(28, 'No space left on device'), KeyboardInterrupt()):
        def fail(*args, **kwargs): raise error
        with monkeypatch.context() as m:
            m.setattr('os.replace', fail)
            with pytest.raises(type(error)): audit.to_html(tmp_path/'new'/'page', progress=False)
        assert [o.name for o in tmp_path.iterdir()]==['faces']
