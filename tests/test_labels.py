"Label counts on the real FERPlus files and RAF-DB lists, label lists of any form, and properties of the noise that need more data than a notebook shows."
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from fastai_resup.labels import (LabelListError,class_noise,ferplus_classes,ferplus_labels,ferplus_votes,instance_noise,join_rafdb,matrix_noise,noise_models,
                                 noise_report,pair_noise,rafdb_classes,rafdb_file,rafdb_labels,read_ferplus_votes,read_label_list,symmetric_noise,
                                 vote_disagreement)

counts = [('majority','label.csv',25045,3191), ('majority','fer2013new.csv',25060,3199),
          ('plurality','label.csv',28385,3555), ('plurality','fer2013new.csv',28389,3553),
          ('plurality_no_ties','label.csv',26940,3396), ('plurality_no_ties','fer2013new.csv',26940,3396)]

@pytest.fixture(scope='module')
def votes(ferplus_root): return {s: read_ferplus_votes(ferplus_root, s) for s in ('label.csv','fer2013new.csv')}

@pytest.mark.parametrize('rule,source,train,valid', counts)
def test_published_counts(votes, rule, source, train, valid):
    v = votes[source]
    kept = v['split'][ferplus_labels(v, rule).notna()].value_counts()
    assert (kept['train'],kept['valid'])==(train,valid)

def test_rows_and_first_row(votes):
    v,n = votes['label.csv'],votes['fer2013new.csv']
    assert v['split'].value_counts().to_dict()==dict(train=28558, valid=3579)
    assert n['split'].value_counts().to_dict()==dict(train=28561, valid=3579)
    assert v.loc[0].tolist()==['FER2013Train/fer0000000.png','train',4,0,0,1,3,2,0,0,0,0]
    assert v[v['split']=='valid'].iloc[0]['file']=='FER2013Valid/fer0028638.png'

def test_the_three_repeated_training_names_explain_the_difference(votes):
    n = votes['fer2013new.csv']
    again = n[n.duplicated('file')]
    assert sorted(again['file'])==[f'FER2013Train/fer{i}.png' for i in ('0006953','0008403','0011785')]
    assert not n.drop_duplicates().duplicated('file').any()   # the same votes both times
    assert ferplus_labels(n.drop_duplicates()).notna()[n['split']=='train'].sum()==25057

def test_votes_of_the_two_sources_differ(votes):
    a,b = (votes[s].drop_duplicates('file').set_index('file')[ferplus_votes] for s in ('label.csv','fer2013new.csv'))
    assert set(a.index)==set(b.index)
    assert (a!=b.loc[a.index]).any(axis=1).sum()==1319

def test_benchmark_labels_are_pluralities(votes, shared):
    "The benchmark's stricter rule (more than half of all ten votes) agrees with each rule wherever the rule gives a label."
    mini = pd.read_csv(shared/'data'/'ferplus_mini.csv').set_index('file')['true']
    for rule in ('majority','plurality','plurality_no_ties'):
        labels = ferplus_labels(votes['label.csv'], rule).set_axis(votes['label.csv']['file'])[mini.index]
        assert (labels==mini).all()

def test_test_split_is_asked_for_by_name(ferplus_root):
    test = read_ferplus_votes(ferplus_root, 'fer2013new.csv', splits='test')
    assert len(test)==3574 and test['file'].str.startswith('FER2013Test/').all()

@pytest.mark.parametrize('n,rate,flips', [(12271,.1,1227), (12271,.3,3681), (5000,.3,1500), (3,.5,2), (7,0.,0), (7,1.,7), (0,.5,0)])
def test_exact_number_of_flips(n, rate, flips):
    y = np.arange(n)%7
    assert (symmetric_noise(y, rate, 7, seed=3)!=y).sum()==flips

def test_rates_are_nested():
    y = np.random.default_rng(0).integers(0, 8, 1000)
    last = y
    for rate in np.linspace(0, 1, 21):
        noisy = symmetric_noise(y, rate, 8, seed=5)
        changed = last!=y
        assert (noisy[changed]==last[changed]).all()
        last = noisy

def test_every_other_class_is_equally_likely():
    y = np.random.default_rng(0).integers(0, 5, 50_000)
    noisy = symmetric_noise(y, .4, 5, seed=0)
    table = np.zeros((5,5)); np.add.at(table, (y,noisy), 1)
    expected = table.sum(1, keepdims=True)*.1
    off = ~np.eye(5, dtype=bool)
    assert (np.abs(table-expected)/np.sqrt(expected))[off].max()<4

def test_global_generators_are_left_alone():
    np.random.seed(0); before = np.random.get_state()[1].copy()
    symmetric_noise([0,1,2], .5, 3)
    assert (np.random.get_state()[1]==before).all()

@pytest.mark.parametrize('make', [list, np.array, lambda y: np.array(y, dtype=np.uint8)])
def test_inputs_are_left_alone(make):
    y = make([0,1,2,3]*25)
    kept = list(y)
    noisy = symmetric_noise(y, .5, 4, seed=0)
    assert list(y)==kept and noisy.dtype==np.int64 and (noisy!=np.array(kept)).sum()==50

@pytest.mark.parametrize('targs,rate,k,message', [
    ([0,1], -.1, 2, 'rate'), ([0,1], 1.01, 2, 'rate'), ([0,1], float('nan'), 2, 'rate'), ([0,0], .1, 1, 'n_classes'),
    ([0,3], .1, 3, r'targs\[1\] is 3'), ([-1,0], .1, 3, r'targs\[0\] is -1'), ([[0,1]], .1, 2, 'one dimension'), (['a'], .1, 2, 'integer')])
def test_bad_noise_arguments(targs, rate, k, message):
    with pytest.raises(ValueError, match=message): symmetric_noise(targs, rate, k)

def votes_row(**kw): return pd.DataFrame([{**dict.fromkeys(ferplus_votes, 0), **kw}])

@pytest.mark.parametrize('row,majority,plurality,no_ties', [
    (dict(anger=5, fear=5),                                  None,    'anger',   None),
    (dict(anger=5, fear=4, sadness=1),                       'anger', 'anger',   'anger'),     # 5 of 9 once the single vote is gone
    (dict(anger=4, fear=2, disgust=2, sadness=1, NF=1),      None,    'anger',   'anger'),     # 4 of 8 is no majority
    (dict(unknown=6, anger=4),                               None,    None,      None),
    (dict(NF=10),                                            None,    None,      None),
    (dict(contempt=5, unknown=5),                            None,    'contempt',None),
    (dict.fromkeys(ferplus_votes, 1),                        None,    'neutral', None),
    ({},                                                     None,    None,      None)])
def test_rules_by_hand(row, majority, plurality, no_ties):
    got = [ferplus_labels(votes_row(**row), r)[0] for r in ('majority','plurality','plurality_no_ties')]
    assert [None if pd.isna(o) else o for o in got]==[majority,plurality,no_ties]

def test_class_order():
    assert ferplus_classes==['neutral','happiness','surprise','sadness','anger','disgust','fear','contempt']
    assert ferplus_votes==ferplus_classes+['unknown','NF']

# --- published label lists ---

RAFDB_TRUE = [1290, 281, 717, 4772, 1982, 705, 2524] # training images by class, RAF-DB's order

@pytest.fixture(scope='module')
def rafdb(shared): return shared/'data'/'rafdb'

@pytest.mark.parametrize('name,flips', [('0.0',0), ('0.1',1227), ('0.3',3613), ('us',None)])
def test_lists_of_the_resup_authors(rafdb, name, flips):
    lst = read_label_list(rafdb/f'{name}noise_train1.txt')
    assert (lst.base, len(lst.labels()), len(lst.labels('test'))) == (1, 12271, 3068)
    df = rafdb_labels(rafdb/'0.0noise_train1.txt', rafdb/f'{name}noise_train1.txt')
    train, test = df[df.split=='train'], df[df.split=='test']
    assert np.bincount(train.true).tolist() == RAFDB_TRUE
    assert np.bincount(test.true).tolist() == [329, 74, 160, 1185, 478, 162, 680]
    assert (test.label==test.true).all()
    report = noise_report(train.true, train.label, rafdb_classes)
    if flips is not None: assert report.n_flips == flips
    else:
        assert round(report.rate, 4) == .1155
        assert report.per_class.round(2).tolist() == [.1, .5, .3, 0, .4, .2, 0]

def test_noisy_test_rows_are_there_and_never_used(rafdb):
    noisy = read_label_list(rafdb/'0.3noise_train1.txt').labels('test')
    clean = read_label_list(rafdb/'0.0noise_train1.txt').labels('test')
    assert (noisy!=clean).mean() > .2

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
    df = rafdb_labels(rafdb/'0.0noise_train1.txt', tmp_path/'list.txt')
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
    for o in ('12271 training and 3068 test images', f'its 3068 test rows, {wrong} of them wrong, are not used', '12271 images, 3613 wrong labels (29.44%)', '0.3noise_train1.txt'): assert o in str(joined)
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
    rows = [o.rsplit(None, 1) for o in content.decode('utf-8-sig').split('\n') if o.strip(' \t\r')]
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
    try: df = rafdb_labels(c, n, base)
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

def test_disagreement_on_real_votes(votes):
    "FERPlus's own majority labels have about a fifth of the votes against them"
    for v in votes.values():
        d = vote_disagreement(v, ferplus_labels(v))
        assert d.notna().sum() == ferplus_labels(v).notna().sum() and d.between(0, 1).sum() == d.notna().sum()
        assert .1 < d.mean() < .35 and (d==0).any()

# --- noise models, all of them ---

K = 4
CONFUSED = np.array([[0,.5,.3,.2],[.1,0,.6,.3],[.2,.2,0,.6],[.7,.1,.2,0]])
def probs_of(y): return np.random.default_rng(9).dirichlet(np.ones(K), len(y))
def at_rate(model, y, rate, seed):
    "Any noise model at one rate"
    args = dict(symmetric=dict(rate=rate), pair=dict(rate=rate), matrix=dict(matrix=np.eye(K)*(1-rate)+rate*CONFUSED), instance=dict(rate=rate, probs=probs_of(y)))
    args['class'] = dict(rates=[rate, rate/2, rate, 0])
    return noise_models[model](y, n_classes=K, seed=seed, **args[model])

@pytest.mark.parametrize('model', noise_models)
@settings(max_examples=40, deadline=None)
@given(y=st.lists(st.integers(0, K-1), max_size=60), r=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), seed=st.integers(0, 5))
def test_models_are_exact_seeded_and_nested(model, y, r, seed):
    y = np.array(y, dtype=int)
    low,high = (at_rate(model, y, o, seed) for o in r)
    for rate,noisy in zip(r, (low,high)):
        assert (noisy==at_rate(model, y, rate, seed)).all() and noisy.dtype==np.int64 and set(noisy)<=set(range(K))
        n = np.bincount(y, minlength=K)
        per_class = dict(pair=[rate]*K, matrix=[rate]*K, **{'class':[rate, rate/2, rate, 0]}).get(model)
        if per_class is None: assert (noisy!=y).sum()==round(rate*len(y))
        else: assert (np.abs(np.bincount(y[noisy!=y], minlength=K)-n*per_class)<=.5+1e-9).all()
    assert (low[low!=y]==high[low!=y]).all()

@pytest.mark.parametrize('model', noise_models)
def test_seeds_differ(model):
    y = np.arange(400)%K
    a,b = (at_rate(model, y, .3, s) for s in (0,1))
    assert (a!=b).mean()>.2

def test_inclusive_rates_nest_and_count():
    y = np.arange(700)%7
    a,b = (symmetric_noise(y, r, 7, seed=2, inclusive=True) for r in (.35,.7))
    assert ((a!=y).sum(), (b!=y).sum())==(210, 420) and (a[a!=y]==b[a!=y]).all()

@pytest.mark.parametrize('call,message', [
    (lambda: matrix_noise([0,1], [[.5,.5],[.5,.6]]), 'row 1 of matrix sums to 1.1'), (lambda: matrix_noise([0,1], [[1,0]]), 'shape'), (lambda: matrix_noise([], []), 'shape'),
    (lambda: matrix_noise([2], np.eye(2)), r'targs\[0\] is 2'), (lambda: matrix_noise([0], [[np.nan,1],[0,1]]), 'between 0 and 1'), (lambda: matrix_noise([0], np.eye(3), 4), 'for 3 classes'),
    (lambda: class_noise([0], [1.2,0]), 'rate'), (lambda: class_noise([0], []), 'K at least 2|at least 2'), (lambda: class_noise([0], [.1,.2], 3), '3 numbers'), (lambda: class_noise([3], [.1,.2]), r'targs\[0\] is 3'),
    (lambda: pair_noise([0], -.1, 3), 'rate'), (lambda: pair_noise([0], .1, 3, to=[]), 'another class'), (lambda: pair_noise([0], .1, 3, to=[1,2,5]), 'is 5'), (lambda: pair_noise([4], .1, 3), 'is 4'),
    (lambda: instance_noise([0], [[.5,.5]], 1.5), 'rate'), (lambda: instance_noise([0,1], [[.5,.5]], .5), '1 rows for 2'), (lambda: instance_noise([0], [], .5), 'shape'),
    (lambda: instance_noise([2], [[.5,.5]], .5), 'is 2'), (lambda: instance_noise([0], [[.5,.6]], .5), 'sums to 1.1'), (lambda: instance_noise([0], [[np.inf,0]], .5), 'finite'),
    (lambda: noise_report([0], [0], []), 'at least 2'), (lambda: noise_report([0,2], [0,1], 'ab'), 'is 2')])
def test_bad_arguments_of_other_models(call, message):
    with pytest.raises(ValueError, match=message): call()

@pytest.mark.parametrize('model', noise_models)
def test_no_labels_no_noise(model): assert at_rate(model, np.array([], dtype=int), .5, 0).shape==(0,)
