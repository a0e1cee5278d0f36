"LabelAudit on other people's DataLoaders, through pickling, with odd names, and its files."
import csv

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import ImageDataLoaders,Resize
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from fastai_resup.audit import LabelAudit,label_table,save_csv
from fastai_resup.data import FERDataLoaders
from fastai_resup.learner import ReSupLearner
from fastai_resup.mixture import BetaMixture,clean_lookup

CLASSES = ('calm','glad','sad')

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "30 training and 6 validation images, each of one colour, in the folders of `CLASSES`"
    path,rng = tmp_path_factory.mktemp('audit')/'faces',np.random.default_rng(0)
    for split,n in dict(train=10, valid=2).items():
        for c in CLASSES:
            (path/split/c).mkdir(parents=True)
            for i in range(n): Image.fromarray(np.full((16,16,3), rng.integers(0, 256, 3), np.uint8)).save(path/split/c/f'{c}{i}.png')
    return path

def pair(dls, n_out=3, mixture=True):
    "Two linear networks with a known mixture; no training"
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_out)) for _ in range(2)]
    learn = ReSupLearner(dls, nets)
    learn.model.to(dls.device)
    if mixture:
        for i in range(2): learn.model.set_mixture(i, lookup=clean_lookup(BetaMixture.from_params([1+i,3],[2,1],[.4,.6])))
    return learn

def by_hand(learn, files, labels, vocab):
    "Every column, image by image, without DataLoaders"
    rows = []
    for f,l in zip(files, labels):
        x = torch.from_numpy(np.array(Image.open(f).convert('RGB'))).permute(2,0,1)[None].float()/255
        p = [net(x.to(learn.dls.device)).softmax(-1)[0].detach().cpu().double().numpy() for net in learn.model.nets]
        s = [o[vocab.index(l)]/np.sqrt((o**2).sum()) for o in p]
        w = [np.interp(o, np.linspace(0, 1, 1001), t.cpu()).clip(1e-4, 1-1e-4) for o,t in zip(s, learn.model.lookup)]
        m = (p[0]+p[1])/2
        rows.append((str(f), l, np.mean(w), *w, *s, vocab[m.argmax()], m.max(), p[0].argmax()==p[1].argmax()))
    return pd.DataFrame(rows, columns=['file','label','p_clean','p_clean_0','p_clean_1','similarity_0','similarity_1','suggested','suggested_prob','agree'])

def same(a, b): pd.testing.assert_frame_equal(a, b, check_dtype=False, rtol=1e-4, atol=1e-4)

def test_every_column_by_hand(faces):
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=.2, seed=0, num_workers=0)
    learn = pair(dls)
    df = LabelAudit.from_learner(learn).df
    same(df.drop(columns='true'), by_hand(learn, dls.train_files, [o.label for o in dls.train_ds.items], list(dls.vocab)))
    assert df.true.tolist()==[f.parent.name for f in dls.train_files]
    assert (df.true!=df.label).sum()==6

def test_fastai_folder(faces):
    dls = ImageDataLoaders.from_folder(faces, bs=8, num_workers=0, item_tfms=Resize(16))
    learn = pair(dls)
    df = LabelAudit.from_learner(learn).df
    same(df, by_hand(learn, dls.train_ds.items, [f.parent.name for f in dls.train_ds.items], list(dls.vocab)))

def test_fastai_table(faces):
    files = sorted((faces/'train').rglob('*.png'))
    table = pd.DataFrame(dict(name=[str(f.relative_to(faces)) for f in files], label=[f.parent.name for f in files]))
    dls = ImageDataLoaders.from_df(table, faces, valid_pct=.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(16))
    learn = pair(dls)
    items = dls.train_ds.items
    same(LabelAudit.from_learner(learn).df, by_hand(learn, [f'{faces}/{o}' for o in items.name], items.label.tolist(), list(dls.vocab)))

def test_each_network_runs_once_and_nothing_changes(faces):
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, num_workers=0)
    learn = pair(dls)
    seen,before = [0,0],{k:v.clone() for k,v in learn.model.state_dict().items()}
    for i,net in enumerate(learn.model.nets): net.register_forward_hook(lambda m,x,y,i=i: seen.__setitem__(i, seen[i]+len(y)))
    learn.model.train()
    a,b = LabelAudit.from_learner(learn),LabelAudit.from_learner(learn)
    assert seen==[60,60] and learn.model.training and learn.refits==[]
    assert a.df.equals(b.df)
    assert all(torch.equal(v, before[k]) or v.isnan().all() for k,v in learn.model.state_dict().items() if k!='density' and k!='hist')

def test_what_is_refused(faces):
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, num_workers=0)
    with pytest.raises(ValueError, match=r'cbs=ReSup\(\)'): LabelAudit.from_learner(pair(dls, mixture=False))
    assert 'p_clean' not in label_table(pair(dls, mixture=False))
    learn = pair(dls)
    learn.dls = dls.new_empty()
    with pytest.raises(ValueError, match='no training images'): LabelAudit.from_learner(learn)

def test_suspects_and_noise_rate():
    df = pd.DataFrame(dict(p_clean=[.5,.1,.1,.9,.1], similarity_0=[0,.3,.2,0,.3], similarity_1=[0,.3,.2,0,.3]))
    audit = LabelAudit(df)
    assert audit.suspects().index.tolist()==[2,1,4,0,3]
    assert audit.suspects(2).index.tolist()==[2,1]
    assert audit.noise_rate==pytest.approx(1-.34)

EVIL = ['=HYPERLINK("http://x","y").png','+1.png','-2.png','@SUM(1).png','\tx.png','\r=1+1.png','\n=1.png','a\r=1+1.png','a,"b".png',"it's.png",'fine=1.png']

def test_csv_cannot_be_run(tmp_path):
    df = pd.DataFrame(dict(file=EVIL, label='=1', p_clean=-1.5, similarity_0=0., similarity_1=0.))
    LabelAudit(df).to_csv(tmp_path/'a.csv')
    with open(tmp_path/'a.csv', newline='', encoding='utf-8') as f: head,*rows = csv.reader(f)
    assert head==list(df.columns)
    assert [r[0].removeprefix("'") for r in rows]==EVIL
    assert not any(o[:1] in tuple('=+-@\t\r\n') for r in rows for o in r[:2])
    assert {r[2] for r in rows}=={'-1.5'}

def test_csv_is_whole_or_not_there(tmp_path, monkeypatch):
    df,f = pd.DataFrame(dict(a=[1])),tmp_path/'a.csv'
    save_csv(df, f)
    with pytest.raises(FileExistsError, match='a.csv'): save_csv(df.assign(a=2), f)
    monkeypatch.setattr('fastai_resup.audit.os.replace', lambda *a: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'): save_csv(df.assign(a=2), f, overwrite=True)
    assert [o.name for o in tmp_path.iterdir()]==['a.csv'] and f.read_text()=='a\n1\n'

def test_names_that_are_not_utf8(tmp_path):
    name = b'caf\xe9.png'.decode('utf-8', 'surrogateescape')
    save_csv(pd.DataFrame(dict(file=[name])), tmp_path/'a.csv')
    assert (tmp_path/'a.csv').read_bytes()==b'file\ncaf\xe9.png\n'

def test_sheet_names_a_broken_image(tmp_path):
    (tmp_path/'bad.png').write_bytes(b'no')
    df = pd.DataFrame(dict(file=[str(tmp_path/'bad.png')], label='a', suggested='b', p_clean=.1, similarity_0=.1, similarity_1=.1))
    with pytest.raises(OSError, match='bad.png'): LabelAudit(df).show(fig=Figure())
