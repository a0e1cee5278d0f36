"Figures by group of images: `LabelAudit.by`, its plot, and `resup-train --group`."
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fastai_resup.audit.groups import image_groups
from fastai_resup.audit.table import LabelAudit
from fastai_resup.cli import train
from fastai_resup.cli.commands import resup_audit,resup_train
from fastai_resup.data.decisions import save_decisions
from fastai_resup.files import text_column
from fastai_resup.synth import make_faces

TINY = dict(arch='test_resnet', weights='none', img_size=32, bs=16, epochs=1)

def made_up(n=4000, seed=0):
    "Labels of three cameras with noise rates of 10, 30 and 60 %, and a calibrated p(clean): each label is clean with that probability"
    rng = np.random.default_rng(seed)
    camera = rng.choice(['a','b','c'], n, p=[0.5,0.3,0.2])
    rate = pd.Series(camera).map(dict(a=0.1, b=0.3, c=0.6)).to_numpy()
    p = rng.beta(4*(1-rate), 4*rate)
    true = rng.choice(['x','y'], n)
    other = np.where(true=='x', 'y', 'x')
    label = np.where(rng.random(n)<p, true, other)
    suggested = np.where(rng.random(n)<0.8, true, other)
    return pd.DataFrame(dict(file=[f'{i}.png' for i in range(n)], label=label, suggested=suggested, true=true, p_clean=p, camera=camera))

def test_figures_are_those_of_pandas():
    df = made_up()
    table = LabelAudit(df).by('camera')
    for name,part in df.groupby('camera'):
        row = table.loc[name]
        assert row.n==len(part) and row.share==pytest.approx(len(part)/4000) and row.weight==pytest.approx(part.p_clean.sum()/df.p_clean.sum())
        assert row.noise_rate==pytest.approx(1-part.p_clean.mean()) and row.true_noise_rate==pytest.approx((part.label!=part.true).mean())
        assert row.accuracy==pytest.approx((part.suggested==part.label).mean()) and row.true_accuracy==pytest.approx((part.suggested==part.true).mean())
        for c in ('noise_rate','accuracy','true_noise_rate','true_accuracy'): assert 0<=row[f'{c}_low']<row[c]<row[f'{c}_high']<=1

def test_intervals_hold_what_they_promise():
    "Of 100 samples of 40 images, about 95 intervals hold the rate of the whole; a binomial count is rarely below 88"
    hits = dict.fromkeys(('noise_rate','true_noise_rate','true_accuracy'), 0)
    for seed in range(100):
        df = made_up(40, seed).assign(camera='one')
        row = LabelAudit(df).by('camera').iloc[0]
        whole = dict(noise_rate=0.26, true_noise_rate=0.26, true_accuracy=0.8) # 0.5*0.1+0.3*0.3+0.2*0.6
        for c in hits: hits[c] += row[f'{c}_low']<=whole[c]<=row[f'{c}_high']
    assert all(88<=o<100 for o in hits.values()), hits

def test_small_groups_are_named():
    df = made_up(100)
    df['who'] = ['Ann']*30+['Bob']*29+['Eve']*41
    with pytest.warns(UserWarning, match=r'^who: groups of fewer than 30 images say little: Bob \(29\)$'): LabelAudit(df).by('who')

def test_any_column_by_name_or_by_file():
    "Groups don't depend on where a column comes from, on the order of rows or on the index"
    df = made_up(300)
    audit = LabelAudit(df)
    want = audit.by('camera')
    mine = df.sample(frac=1, random_state=0).set_index('file').camera
    for values in (mine, mine.set_axis('photos/'+mine.index), mine.to_dict()):
        pd.testing.assert_frame_equal(audit.by(values), want, check_names=False)
    shuffled = LabelAudit(df.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(shuffled.by('camera'), want)
    pd.testing.assert_frame_equal(LabelAudit(df.set_axis([0]*300)).by('camera'), want)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert audit.by(mine[:150]).n.to_dict()=={**mine[:150].value_counts().sort_index().to_dict(), '(missing)':150}

def test_groups_survive_saving(tmp_path):
    "Text, numbers and missing values are the same groups after csv and parquet"
    df = made_up(120).assign(similarity_0=0.5, similarity_1=0.5)
    df['camera'] = df.camera.mask(df.index<40, None)
    df['age'] = np.arange(120.)
    df.loc[:4,'age'] = np.nan
    df['seat'] = np.arange(120)%3
    audit = LabelAudit(df)
    for name in ('a.csv','a.parquet'):
        read = LabelAudit.load(audit.save(tmp_path/name))
        for c in ('camera','age','seat'): assert list(image_groups(read, c))==list(image_groups(audit, c)), (name, c)
    assert image_groups(audit, 'age').cat.categories.tolist()==['5 to 27','28 to 50','51 to 73','74 to 96','97 to 119','(missing)']
    assert image_groups(audit, 'seat').cat.categories.tolist()==['0','1','2','(missing)']

def test_classes_keep_the_order_of_the_vocab():
    df = made_up(100)
    assert LabelAudit(df, ['y','x']).by('label').index.tolist()==['y','x']

def test_names_that_are_no_utf8():
    odd = b'caf\xe9'.decode('utf-8', 'surrogateescape')
    df = made_up(80).assign(camera=text_column([odd,'b']*40))
    assert LabelAudit(df).by('camera').n.to_dict()=={'b':40, odd:40}

# resup-train --group ---------------------------------------------------------

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "Drawn faces of two cameras with a csv in which the porch's labels are wrong, and validation images of both"
    folder = make_faces(tmp_path_factory.mktemp('groups')/'faces', 70, 28, 32, nuisance=0., progress=False)
    files = sorted(folder.rglob('*.png'))
    df = pd.DataFrame(dict(image=[os.path.relpath(o, folder) for o in files], emotion=[o.parent.name for o in files], split=[o.parts[-3] for o in files]))
    df['camera'] = ['hall','porch']*49
    df['age'] = range(98)
    df.to_csv(folder/'labels.csv', index=False)
    return folder,df

@pytest.fixture(scope='module')
def trained(faces, tmp_path_factory):
    return resup_train(str(faces[0]/'labels.csv'), out=str(tmp_path_factory.mktemp('trained')/'out'), group='age', **TINY)

def test_the_column_travels(trained, faces, tmp_path, capsys):
    "From the csv to p_clean.csv, groups.csv, the page and the corrected list"
    folder,df = faces
    age_of = {str(folder/f):age for f,age in zip(df.image, df.age)}
    p = pd.read_csv(trained/'p_clean.csv')
    assert p.age.tolist()==[age_of[f] for f in p.file] and json.loads((trained/'settings.json').read_text())['group']=='age'
    groups = pd.read_csv(trained/'groups.csv').set_index('group')
    assert len(groups)==5 and groups.n.sum()==70 and groups.valid_n.sum()==28
    for name,row in groups.iterrows():
        low,high = map(int, name.split(' to '))
        here = p[p.age.between(low, high)]
        assert len(here)==row.n and (not len(here) or 1-here.p_clean.mean()==pytest.approx(row.noise_rate))
    decisions = p.head(2)[['file','label']].assign(decision='drop', new_label=None)
    save_decisions(decisions, tmp_path/'decisions.csv')
    for data in (folder/'labels.csv', trained/'p_clean.csv'):
        page = resup_audit(str(trained), str(data), out=str(tmp_path/'page'), overwrite=True)
        data_js = (page.parent/'data.js').read_text()
        shown = json.loads(data_js[data_js.index('{'):data_js.rindex(';')])
        assert shown['group']['name']=='age' and len(shown['group']['ids'])==70
        capsys.readouterr()
        fixed = pd.read_csv(resup_audit(str(trained), str(data), apply=str(tmp_path/'decisions.csv'), out=str(tmp_path/'fixed.csv'), overwrite=True))
        assert fixed.age.tolist()==[age_of[f] for f in fixed.file] and '--group age' in capsys.readouterr().out
    save_decisions(decisions[:0], tmp_path/'none.csv')
    plain = df[['image','emotion','split']]
    plain.to_csv(folder/'plain.csv', index=False) # another list, which has no such column
    resup_audit(str(trained), str(folder/'plain.csv'), apply=str(tmp_path/'none.csv'), out=str(tmp_path/'plain.csv'))
    assert '--group' not in capsys.readouterr().out

def test_any_data_by_class(faces, tmp_path, monkeypatch, capsys):
    "Folders have no column but the class"
    shutil.copytree(faces[0], tmp_path/'faces', ignore=shutil.ignore_patterns('*.csv'))
    out = resup_train(str(tmp_path/'faces'), out=str(tmp_path/'out'), group='label', **TINY)
    table = pd.read_csv(out/'groups.csv')
    assert len(table)==7 and (table.n==10).all() and (table.valid_n==4).all() and 'By label' in capsys.readouterr().out
    monkeypatch.setattr(train, 'load_images', lambda *a,**k: pytest.fail('it read the images'))
    for path,group,said in ((tmp_path/'faces','camera','give a csv'), (faces[0]/'labels.csv','shoe','--group shoe is no column of'), (faces[0]/'labels.csv','p_clean','rename the column')):
        monkeypatch.setattr(sys, 'argv', ['resup-train', str(path), '--group', group, '--out', str(tmp_path/'none'), '--arch', 'test_resnet', '--weights', 'none'])
        with pytest.raises(SystemExit) as e: resup_train.main()
        assert e.value.code==2 and said in capsys.readouterr().err and not (tmp_path/'none').exists()
