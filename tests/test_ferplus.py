"FERPlus: label counts on the real files, and its rules by hand"
import pandas as pd
import pytest

from fastai_resup.data.ferplus import ferplus_classes, ferplus_labels, ferplus_votes, read_ferplus_votes, vote_disagreement

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

def test_disagreement_on_real_votes(votes):
    "FERPlus's own majority labels have about a fifth of the votes against them"
    for v in votes.values():
        d = vote_disagreement(v, ferplus_labels(v))
        assert d.notna().sum() == ferplus_labels(v).notna().sum() and d.between(0, 1).sum() == d.notna().sum()
        assert 0.1 < d.mean() < 0.35 and (d==0).any()
