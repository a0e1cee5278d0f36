"Noise manifests: any name comes back, a damaged file is refused, and what they name trains without its true labels"
import csv
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
import fastai.callback.schedule # gives learners fit_one_cycle
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastcore.foundation import L

from fastai_resup.audit import LabelAudit
from fastai_resup.callbacks import ReSup
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.manifest import ManifestError, NoiseManifest, label_list_text, manifest_text
from fastai_resup.data.noise import noise_models
from fastai_resup.data.rafdb import join_rafdb, rafdb_classes
from fastai_resup.data.tables import items_table
from fastai_resup.files import guard_formula, leaves_folder, unguard_formula
from fastai_resup.learner import ReSupLearner
from fastai_resup.passes import keep_order
from fastai_resup.synth import make_faces

fuzz = partial(settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.one_of(st.sampled_from('\'"=+-@,#\t\r\n /.a'), st.characters(codec='utf-8', exclude_characters='\0')), min_size=1, max_size=12)

def manifest(n=20, n_valid=5, model='symmetric', vocab=('fear','joy','neutral'), **args):
    table = pd.DataFrame(dict(file=[f'{i}.png' for i in range(n+n_valid)], label=[vocab[i%len(vocab)] for i in range(n+n_valid)], is_valid=[False]*n+[True]*n_valid))
    return NoiseManifest.from_table(table, vocab, model, **(args or dict(rate=0.3)))

def same(a, b): return a.df.equals(b.df) and (a.vocab,a.model,a.args,a.seed)==(b.vocab,b.model,b.args,b.seed)

@given(text)
def test_guard_is_undone_for_any_text(s):
    assert unguard_formula(guard_formula(s))==s and guard_formula(s)[0] not in '=+-@\t\r\n'

@fuzz(max_examples=200)
@given(files=st.lists(text.filter(lambda s: not leaves_folder(s)), min_size=1, max_size=6, unique=True), vocab=st.lists(text, min_size=2, max_size=4, unique=True), seed=st.integers(0, 9))
def test_any_name_comes_back(tmp_path, files, vocab, seed):
    df = pd.DataFrame(dict(file=files, label=[vocab[i%len(vocab)] for i in range(len(files))]))
    m = NoiseManifest.from_table(df, vocab, rate=0.5, seed=seed)
    m.save(tmp_path/'m.csv', overwrite=True)
    assert same(NoiseManifest.read(tmp_path/'m.csv'), m)
    with open(tmp_path/'m.csv', newline='', encoding='utf-8') as f: rows = list(csv.reader(f))
    assert not any(o[:1] in tuple('=+-@\t\r\n') for row in rows for o in row)

WHOLE = manifest()

@fuzz(max_examples=300)
@given(data=st.data())
def test_damaged_files_are_refused_or_the_same(tmp_path, data):
    "Bytes taken out, put in or replaced anywhere: our error naming the file, or no noisy label that wasn't there"
    b = manifest_text(WHOLE).encode()
    i,j = sorted(data.draw(st.tuples(*[st.integers(0, len(b))]*2)))
    new = data.draw(st.one_of(st.just(b''), st.binary(max_size=4), st.sampled_from([b'"', b',', b'\n', b'\r', b'../', b'joy', b'True', b'#', b'\0', b'[', b'9'*5000])))
    (tmp_path/'m.csv').write_bytes(b[:i]+new+b[min(j, i+data.draw(st.integers(0, 40))):])
    try: m = NoiseManifest.read(tmp_path/'m.csv')
    except ManifestError as e: return assert_in(str(tmp_path/'m.csv'), str(e))
    assert len(m)==len(WHOLE) and m.report().n_flips==WHOLE.report().n_flips

def assert_in(a, b): assert a in b

@fuzz(max_examples=100)
@given(st.binary(max_size=80))
def test_other_files_are_refused(tmp_path, content):
    (tmp_path/'m.csv').write_bytes(content)
    with pytest.raises(ManifestError, match='m.csv line 1'): NoiseManifest.read(tmp_path/'m.csv')

@pytest.mark.parametrize('n', range(3))
def test_cut_anywhere_between_rows(tmp_path, n):
    lines = manifest_text(WHOLE).splitlines(True)
    for i in range(len(lines)):
        (tmp_path/'m.csv').write_text(''.join(lines[:i]+lines[i+n:]))
        if n==0: assert same(NoiseManifest.read(tmp_path/'m.csv'), WHOLE)
        else:
            with pytest.raises(ManifestError): NoiseManifest.read(tmp_path/'m.csv')

@pytest.mark.parametrize('model,args', [('symmetric',dict(rate=0.3)), ('symmetric',dict(rate=0.3, inclusive=True)), ('pair',dict(rate=0.2, to=[1,2,0])), ('class',dict(rates=[0.5,0,0.1])),
                                        ('matrix',dict(matrix=np.array([[0.5,0.5,0],[0,1,0],[0.2,0.2,0.6]])))])
def test_the_file_says_enough_to_make_the_noise_again(tmp_path, model, args):
    m = manifest(60, 6, model, seed=4, **args)
    back = NoiseManifest.read(m.save(tmp_path/'m.csv'))
    again = noise_models[back.model](back.ids('true'), n_classes=len(back.vocab), seed=back.seed, **back.args)
    assert (again==back.ids('label')).all() and 0<back.report().n_flips==m.report().n_flips

def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    f = WHOLE.save(tmp_path/'m.csv')
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('os.replace', full)
    with pytest.raises(OSError, match='No space'): manifest(8).save(f, overwrite=True)
    assert [o.name for o in tmp_path.iterdir()]==['m.csv'] and same(NoiseManifest.read(f), WHOLE)

def test_reads_many_rows_quickly(tmp_path):
    import time
    n = 100_000
    df = pd.DataFrame(dict(file=[f'{i//1000}/{i}.png' for i in range(n)], label='fear'))
    m = NoiseManifest.from_table(df, ['fear','joy'], rate=0.1)
    start = time.perf_counter()
    back = NoiseManifest.read(m.save(tmp_path/'m.csv'))
    back.table(tmp_path)
    assert same(back, m) and time.perf_counter()-start<20

def test_rafdb_lists_of_the_resup_authors(shared, tmp_path):
    "A published list as a manifest, and back in its own form: the training rows of the authors' file, and test rows that are clean"
    d = shared/'data'/'rafdb'
    df,names = join_rafdb(d/'0.0noise_train1.txt', d/'0.3noise_train1.txt').df,np.array(rafdb_classes, dtype=object)
    files = [f"Image/aligned/{s}_{n:0{5 if s=='train' else 4}d}_aligned.jpg" for s,n in zip(df.split, df.number)]
    m = NoiseManifest(pd.DataFrame(dict(file=files, true=names[df.true], label=names[df.label], is_valid=df.split=='test')), rafdb_classes, "ReSup authors' list", dict(list='0.3noise_train1.txt'))
    back = NoiseManifest.read(m.save(tmp_path/'m.csv'))
    assert (back.report().n_flips, len(back), back.df.is_valid.sum())==(3613, 15339, 3068)
    lines = label_list_text(back, with_valid=True).splitlines()
    noisy,clean = ((d/f'{r}noise_train1.txt').read_text().split('\n') for r in ('0.3','0.0'))
    rows = lambda ls, s: {o.strip() for o in ls if o.startswith(s)}
    assert rows(lines, 'train')==rows(noisy, 'train') and rows(lines, 'test')==rows(clean, 'test') and len(lines)==15339

# training with a manifest

class Tiny(nn.Sequential):
    def __init__(self, n=7): super().__init__(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, n))

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=84, n_valid=21, size=32, progress=False)

@pytest.fixture(scope='module')
def saved(faces, tmp_path_factory):
    clean = FERDataLoaders.from_folder(faces, num_workers=0)
    items = [*clean.train_ds.items, *clean.valid_ds.items]
    m = NoiseManifest.from_table(items_table(items)[['file','label','is_valid']], list(clean.vocab), 'pair', rate=0.5, root=faces)
    return m.save(tmp_path_factory.mktemp('m')/'noise.csv')

def make_dls(m, faces, **kw):
    return FERDataLoaders.from_df(m.table(faces), valid_col='is_valid', true_col='true', vocab=m.vocab, img_size=32, bs=16, num_workers=0, cache=True, **kw)

def train(dls, epochs=2):
    set_seed(0, reproducible=True)
    dls.one_batch()
    learn = ReSupLearner(dls, [Tiny(), Tiny()], splitter=lambda n: L(n[0], n[1]).map(params), metrics=accuracy)
    set_seed(0, reproducible=True)
    dls.train.rng.seed(0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2, cbs=ReSup())
    return learn

def test_manifest_trains_and_scores_itself(saved, faces):
    m = NoiseManifest.read(saved)
    learn = train(make_dls(m, faces))
    assert learn.dls.true_targs.tolist()==m.ids('true').tolist() and learn.dls.train_targs.tolist()==m.ids('label').tolist()
    assert (learn.dls.true_targs!=learn.dls.train_targs).sum()==m.report().n_flips==42
    cols = list(learn.recorder.metric_names)
    assert 'auroc' in cols and all(0<=row[cols.index('auroc')-1]<=1 for row in learn.recorder.values[1:]) # values have no epoch number
    df = LabelAudit.from_learner(learn).df
    names = np.array(m.vocab, dtype=object)
    assert (df.true==names[m.ids('true')]).all() and (df.label==names[m.ids('label')]).all()

def test_no_training_batch_has_the_true_labels(saved, faces):
    dls = make_dls(NoiseManifest.read(saved), faces)
    for epoch in range(2):
        n,ids = 0,keep_order(dls.train)
        for i,b in enumerate(dls.train):
            assert len(b)==2 and type(b[1]).__name__=='TensorCategory'
            rows = ids(i, len(b[1]))
            assert (b[1]==dls.train_targs[rows]).all()
            n += int((b[1]!=dls.true_targs[rows]).sum())
        assert n>=30

def test_training_is_the_same_whatever_the_true_labels(saved, faces):
    "Weights, mixtures and p(clean) don't depend on them; only the scores do"
    m = NoiseManifest.read(saved)
    df = m.df.copy()
    df.loc[~df.is_valid,'true'] = df.label
    a,b = train(make_dls(m, faces)),train(make_dls(NoiseManifest(df, m.vocab, 'none', {}), faces))
    for (k,v),w in zip(a.model.state_dict().items(), b.model.state_dict().values()): assert torch.equal(v.nan_to_num(), w.nan_to_num()), k
    assert (a.dls.true_targs!=b.dls.true_targs).sum()==42 and (b.dls.true_targs==b.dls.train_targs).all()
