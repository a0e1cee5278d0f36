"RAF-DB: counts on the real lists, and label lists of any form"
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from fastai_resup.data.noise import noise_report, symmetric_noise
from fastai_resup.data.rafdb import LabelListError, join_rafdb, rafdb_classes, rafdb_file, read_label_list

RAFDB_TRUE = [1290, 281, 717, 4772, 1982, 705, 2524] # training images by class, RAF-DB's order

@pytest.fixture(scope='module')
def rafdb(shared): return shared/'data'/'rafdb'

@pytest.mark.parametrize('name,flips', [('0.0',0), ('0.1',1227), ('0.3',3613), ('us',None)])
def test_lists_of_the_resup_authors(rafdb, name, flips):
    lst = read_label_list(rafdb/f'{name}noise_train1.txt')
    assert (lst.base, len(lst.labels()), len(lst.labels('test'))) == (1, 12271, 3068)
    df = join_rafdb(rafdb/'0.0noise_train1.txt', rafdb/f'{name}noise_train1.txt').df
    train, test = df[df.split=='train'], df[df.split=='test']
    assert np.bincount(train.true).tolist() == RAFDB_TRUE
    assert np.bincount(test.true).tolist() == [329, 74, 160, 1185, 478, 162, 680]
    assert (test.label==test.true).all()
    report = noise_report(train.true, train.label, rafdb_classes)
    if flips is not None: assert report.n_flips == flips
    else:
        assert round(report.rate, 4) == 0.1155
        assert report.per_class.round(2).tolist() == [0.1, 0.5, 0.3, 0, 0.4, 0.2, 0]

def test_noisy_test_rows_are_there_and_never_used(rafdb):
    noisy = read_label_list(rafdb/'0.3noise_train1.txt').labels('test')
    clean = read_label_list(rafdb/'0.0noise_train1.txt').labels('test')
    assert (noisy!=clean).mean() > 0.2

@pytest.mark.parametrize('form', ['eac', 'scn'])
def test_other_forms_give_the_same_labels(rafdb, tmp_path, form):
    "The training rows of a real list, written as EAC and SCN write theirs, in another order and without a final newline"
    want = read_label_list(rafdb/'0.1noise_train1.txt').labels()
    line = dict(eac='train_{i:05d}.jpg {l}', scn='/home/someone/RAF/aligned/train_{i:05d}_aligned.jpg {l}')[form]
    lines = [line.format(i=i, l=l+(form=='eac')) for i,l in want.sample(frac=1, random_state=0).items()]
    (tmp_path/'list.txt').write_bytes(('\n' if form=='eac' else '\r\n').join(lines).encode())
    lst = read_label_list(tmp_path/'list.txt')
    assert lst.base == (form=='eac')
    pd.testing.assert_series_equal(lst.labels(), want)
    df = join_rafdb(rafdb/'0.0noise_train1.txt', tmp_path/'list.txt').df
    assert (df.label!=df.true).sum() == 1227

@pytest.mark.parametrize('group,name,flips', [('eac','noise01.txt',1241), ('eac','noise02.txt',2498), ('eac','noise03.txt',3722), ('scn','0.1noise_train.txt',1271), ('scn','0.2noise_train.txt',2487)])
def test_published_flips_of_eac_and_scn(rafdb, tmp_path, group, name, flips):
    "Their lists where they are among the test data; else lists in their form with as many flips, made of the real clean list"
    real,clean = rafdb/group/name,rafdb/'0.0noise_train1.txt'
    if not real.is_file():
        real,true = tmp_path/name,read_label_list(clean).labels()
        given = symmetric_noise(true, flips/len(true), 7, seed=1)
        line = dict(eac='train_{i:05d}.jpg {l}', scn='/home/someone/raf-basic/Image/aligned/train_{i:05d}_aligned.jpg {l}')[group]
        real.write_bytes(dict(eac='\n', scn='\r\n')[group].join(line.format(i=i, l=l+(group=='eac')) for i,l in zip(true.index, given)).encode())
    joined = join_rafdb(clean, real)
    assert (joined.noisy.base, joined.report.n, joined.report.n_flips) == (int(group=='eac'), 12271, flips)
    assert joined.unused.empty and 'not used' not in str(joined)

def test_join_reports_what_it_joined(rafdb):
    joined = join_rafdb(rafdb/'0.0noise_train1.txt', rafdb/'0.3noise_train1.txt')
    clean,noisy = (read_label_list(rafdb/f'{r}noise_train1.txt') for r in ('0.0','0.3'))
    wrong = int((clean.labels('test')!=noisy.labels('test')).sum())
    assert wrong>600 and len(joined.unused)==3068
    for o in ('12271 training and 3068 test images', f'its 3068 test rows, {wrong} of them noisy, are not used', '12271 images, 3613', '29.44%', '0.3noise_train1.txt'):
        assert o in str(joined)
    counts = pd.crosstab(clean.labels(), noisy.labels())
    assert np.allclose(joined.report.transition, counts.div(counts.sum(axis=1), axis=0))
    assert np.allclose(joined.report.transition.sum(axis=1), 1)

names = st.builds('{}_{:05d}{}.jpg'.format, st.sampled_from(['train','test']), st.integers(0, 12), st.sampled_from(['','_aligned']))

folders = st.sampled_from(['', '/home/x/', 'C:\\data\\', '../', 'a/../', './'])

lines = st.one_of(st.builds('{}{}{}{}'.format, folders, names, st.sampled_from([' ','\t','  ','']), st.integers(-1, 9)), st.text(max_size=20), st.just(''))

ends = st.sampled_from(['\n','\r\n','','\r',' ','\u2028','\x0b','\x85'])   # the latter six are lost newlines

files = st.one_of(st.lists(st.tuples(lines, st.one_of(st.just('\n'), ends)), max_size=8).map(lambda ls: ''.join(a+b for a,b in ls).encode('utf-8', 'surrogatepass')), st.binary(max_size=60))

@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=files, base=st.sampled_from([None,0,1]))
def test_any_file_is_read_right_or_refused(tmp_path, content, base):
    "No other error than ours, and no row lost: what is read says the same as a naive reading, line by line"
    f = tmp_path/'list.txt'
    f.write_bytes(content)
    try: lst = read_label_list(f, base)
    except LabelListError as e: return assert_names(e, f)
    lines = [o.strip(' \t\r') for o in content.decode('utf-8-sig').split('\n')]
    rows = [o.rsplit(None, 1) for o in lines if o]
    assert len(lst) == len(rows)
    for (name,num),row in zip(rows, lst.rows.itertuples()):
        assert '..' not in re.split(r'[/\\]', name)
        assert re.split(r'[/\\]', name)[-1].startswith(f'{row.split}_') and int(num)==row.label+lst.base and 0<=row.label<7
    assert not lst.rows.duplicated(['split','number']).any()
    assert len(lst) == len(re.findall('(?:train|test)_[0-9]+(?:_aligned)?[.]jpg', content.decode('utf-8-sig'))) # no row hides in another

def assert_names(e, f): assert str(f) in str(e)

rows = st.lists(st.tuples(st.sampled_from(['train','train','test']), st.integers(1, 6), st.integers(0, 7)), min_size=1, max_size=9)

@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clean=rows, noisy=rows, same=st.booleans(), base=st.sampled_from([None,0,1]))
def test_join_is_right_or_refused(tmp_path, clean, noisy, same, base):
    "Against a join by dictionaries"
    c,n = tmp_path/'clean.txt',tmp_path/'noisy.txt'
    if same: noisy = [(s, i, l) for (s,i,_),(_,_,l) in zip(clean, noisy*9)][::-1]
    for f,rs in ((c,clean),(n,noisy)): f.write_text('\n'.join(f'{s}_{i:05d}.jpg {l}' for s,i,l in rs))
    try: df = join_rafdb(c, n, base).df
    except LabelListError as e:
        assert str(c) in str(e) or str(n) in str(e)
        return
    true,given = {(s,i):l-1 for s,i,l in clean},{(s,i):l for s,i,l in noisy}
    base = base if base is not None else int(max(given.values())==7)
    assert len(df)==len(clean)==len(true) and {k for k in given if k[0]=='train'}=={k for k in true if k[0]=='train'}!=set()
    for s,i,t,l in df[['split','number','true','label']].itertuples(index=False):
        assert t==true[s,i] and l==(given[s,i]-base if s=='train' else t)

def test_unreadable_lists_are_answered(tmp_path):
    for f in (tmp_path, tmp_path/'no.txt', tmp_path/('x'*300)):
        with pytest.raises(LabelListError, match=re.escape(str(f))): read_label_list(f)

def test_names_of_the_layout():
    assert [rafdb_file('train', 12271), rafdb_file('test', 3068, 'aligned')]==['train_12271.jpg','Image/aligned/test_3068_aligned.jpg']

@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(true=st.lists(st.integers(1, 7), min_size=1, max_size=9), data=st.data())
def test_a_right_list_is_read_whole(tmp_path, true, data):
    "Any order, either base, either line end, with or without a final newline"
    base, nl = data.draw(st.sampled_from([0,1])), data.draw(st.sampled_from(['\n','\r\n']))
    order = data.draw(st.permutations(range(len(true))))
    text = nl.join(f'train_{i+1:05d}.jpg {true[i]-1+base}' for i in order) + data.draw(st.sampled_from(['', nl]))
    f = tmp_path/'list.txt'
    f.write_bytes(text.encode())
    assert read_label_list(f, base).labels().tolist() == [o-1 for o in true]
    nums = {o-1+base for o in true}
    if base==0 and 0 in nums or base==1 and 7 in nums: assert read_label_list(f).labels().tolist() == [o-1 for o in true]
    else:
        with pytest.raises(LabelListError, match='base=0 or base=1'): read_label_list(f)

@pytest.mark.parametrize('row', ['train_00001.jpg 5 1', '/a b/train_00001_aligned.jpg\t5\tfrontal', 'train_00001.jpg 5 1 0'])
def test_more_columns_are_named(tmp_path, row):
    f = tmp_path/'list.txt'
    f.write_text(f'train_00002.jpg 7\n{row}\n')
    with pytest.raises(LabelListError, match='line 2: [34] columns in .*expected an image name and a class number: remove the others'): read_label_list(f)
