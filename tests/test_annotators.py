"Annotations of several people: read in any form, made a consensus, and who is how good"
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from fastai_resup.audit.annotators import annotator_quality, consensus_labels, read_annotations
from fastai_resup.audit.table import LabelAudit
from fastai_resup.data.ferplus import ferplus_classes, ferplus_labels, ferplus_votes, read_ferplus_votes, vote_disagreement

def table(labels): return pd.DataFrame(labels).map(lambda o: None if np.isnan(o) else f'class {int(o)}').assign(file=[f'x/{i}.png' for i in range(len(labels))])

def audit_of(labels, probs):
    df = pd.DataFrame(dict(file=[f'/data/x/{i}.png' for i in range(len(labels))], label=[f'class {i}' for i in labels], p_clean=0.5, similarity_0=0.5, similarity_1=0.5))
    return LabelAudit(df, [f'class {k}' for k in range(probs.shape[1])], probs)

@pytest.fixture(scope='module')
def crowd():
    "True ids of 800 images of four classes, three labels each by ten annotators of known accuracy, and probabilities whose best class is true for 80 %"
    rng = np.random.default_rng(0)
    true,accuracy = rng.integers(0, 4, 800),np.array([0.95,0.9,0.85,0.8,0.75,0.7,0.6,0.5,0.4,0.25])
    right = rng.random((800,10))<accuracy
    said = np.where(right, true[:,None], (true[:,None]+rng.integers(1, 4, (800,10)))%4).astype(float)
    said[rng.random((800,10)).argsort(1).argsort(1)>=3] = np.nan
    seen = np.where(rng.random(800)<0.8, true, rng.integers(0, 4, 800))
    return true,said,accuracy,0.7*np.eye(4)[seen]+0.075

def slowly(said, probs):
    "The same estimate, image by image"
    n,m,k = *said.shape,4
    chosen = [(said==c).sum() for c in range(k)]
    accuracy = [0.7]*m
    for _ in range(30):
        res,right,number = [],[0.]*m,[0]*m
        for i in range(n):
            scores = [1e-3*np.log(chosen[c]+1) + (0.5*np.log(probs[i,c]) if probs is not None else 0) for c in range(k)]
            given = [(a,int(said[i,a])) for a in range(m) if said[i,a]==said[i,a]]
            for a,c in given: scores[c] += np.log(accuracy[a]*(k-1)/(1-accuracy[a]))
            p = np.exp(scores)/np.exp(scores).sum()
            for a,c in given: right[a] += p[c]; number[a] += 1
            res.append(p)
        mean = sum(right)/sum(number)
        accuracy = [min(max((r+4*mean)/(q+4), 1/k), 0.99) for r,q in zip(right, number)]
    return np.array(res),accuracy

@pytest.mark.parametrize('with_audit', [False,True])
def test_estimate_is_the_one_written_down(crowd, with_audit):
    true,said,_,probs = (o[:60] if len(o)==800 else o for o in crowd)
    want,accuracy = slowly(said, probs if with_audit else None)
    audit = audit_of(true, probs) if with_audit else None
    got = consensus_labels(table(said), audit)
    assert got.label.tolist()==[f'class {i}' for i in want.argmax(1)] and got.consensus_prob.to_numpy()==pytest.approx(want.max(1))
    quality = annotator_quality(table(said), audit)
    assert quality.set_index('annotator').quality[list('0123456789')].to_numpy()==pytest.approx(accuracy)
    assert quality.quality.is_monotonic_increasing and quality.n.sum()==180

def test_better_than_majority_and_cleanlab(crowd):
    pytest.importorskip('cleanlab')
    from cleanlab.multiannotator import get_label_quality_multiannotator, get_majority_vote_label
    true,said,accuracy,probs = crowd
    want = [f'class {i}' for i in true]
    audit = audit_of(true, probs)
    ours = (audit.add_annotations(table(said)).df.consensus==want).mean()
    alone = (consensus_labels(table(said)).label==want).mean()
    majority = (get_majority_vote_label(said, probs, verbose=False)==true).mean()
    theirs = get_label_quality_multiannotator(said, probs, verbose=False)
    assert ours>majority+0.01 and ours>(theirs['label_quality'].consensus_label==true).mean()+0.01 and alone>0.8
    quality = annotator_quality(table(said), audit).sort_values('annotator').quality
    assert spearmanr(quality, accuracy).statistic>0.95 and abs(quality-accuracy).max()<0.1

def test_a_confusion_is_named(crowd):
    true,said,_,_ = crowd
    mistaken = (said[:,1]==2) & (np.random.default_rng(1).random(800)<0.9)
    said = said.copy()
    said[mistaken,1] = 3
    found = annotator_quality(table(said)).set_index('annotator').confusion['1']
    assert found.startswith('class 2 as class 3, ')

def test_ties_go_to_the_networks_and_else_to_the_commoner_class():
    two = pd.DataFrame(dict(file=list('abcdefgh'), x=['cat','dog',*['dog']*4,'cat','cat'], y=['dog','cat',*['dog']*4,'cat','cat']))
    assert consensus_labels(two).label.tolist()==['dog']*6+['cat']*2
    df = pd.DataFrame(dict(file=list('abcdefgh'), label='dog', p_clean=0.5, similarity_0=0.5, similarity_1=0.5))
    audit = LabelAudit(df, ['cat','dog'], np.array([[0.6,0.4],[0.4,0.6],[0.6,0.4],*[[0.5,0.5]]*5]))
    assert audit.add_annotations(two).df.consensus.tolist()==['cat',*['dog']*5,'cat','cat']

def test_forms_say_the_same(tmp_path, crowd):
    _,said,_,_ = crowd
    wide = table(said[:50])
    long = read_annotations(wide).drop(columns='n')
    wide.to_csv(tmp_path/'wide.csv', index=False, sep=';')
    long.sample(frac=1, random_state=0).to_csv(tmp_path/'long.csv', index=False)
    want = consensus_labels(wide)
    for f in ('wide.csv','long.csv'):
        got = consensus_labels(tmp_path/f).set_index('file').loc[want.file].reset_index()
        pd.testing.assert_frame_equal(got, want, check_dtype=False)
    with pytest.warns(UserWarning, match='^1 rows are repeated, and count once: x/3.png$'): assert consensus_labels(pd.concat([wide, wide[3:4]])).equals(want)

def test_counts_are_as_good_as_equal_annotators():
    "With two annotators of equal accuracy for each image, counts say what names say"
    said = np.array([[0,0],[0,1],[1,1],[1,1],[0,0],[1,0]], float)
    named = consensus_labels(table(said))
    counts = pd.DataFrame({'file':named.file, **{f'class {k}':(said==k).sum(1) for k in (0,1)}})
    counted = consensus_labels(read_annotations(counts, counts=True))
    assert counted.drop(columns='consensus_prob').equals(named.drop(columns='consensus_prob'))
    with pytest.raises(ValueError, match='counts by class do not say who annotated'): annotator_quality(read_annotations(counts, counts=True))
    with pytest.raises(ValueError, match='-1 is no count of annotators, in row 2 of the table'): read_annotations(counts.replace({'class 0':{0:-1}})[1:3], counts=True)
    with pytest.raises(ValueError, match='x/0.png is listed twice, for class 0 in row 9'):
        read_annotations(pd.concat([counts, pd.DataFrame({'file':['x/0.png'], 'class 0':5, 'class 1':0}, index=[9])]), counts=True)

def test_classes_that_are_numbers_and_who_is_unsure(tmp_path):
    (tmp_path/'a.csv').write_text('image,rater,label\n1.png,anna,3\n1.png,ben,\n2.png,anna,?\n2.png,ben,?\n3.png,anna,4\n')
    df = pd.DataFrame(dict(file=['d/1.png','d/2.png','d/3.png','d/4.png'], label=[3,4,4,3], p_clean=0.5, similarity_0=0.5, similarity_1=0.5))
    found = LabelAudit(df, [3,4]).add_annotations(read_annotations(tmp_path/'a.csv', unsure='?')).df
    assert found.consensus.tolist()==[3,None,4,None] and found.n_annotations.fillna(0).tolist()==[2,2,1,0]
    assert found.disagreement.fillna(-1).tolist()==[0.5,1,0,-1] and found.consensus_prob.isna().tolist()==[False,True,False,True]
    with pytest.raises(ValueError, match=r"^2.png has the label '\?' by anna, which is no class, in lines 4, 5 of .*a.csv: the classes are 3, 4"):
        LabelAudit(df, [3,4]).add_annotations(tmp_path/'a.csv')

def test_real_votes_are_one_case(ferplus_root):
    votes = read_ferplus_votes(ferplus_root).drop_duplicates('file')
    plural = ferplus_labels(votes, 'plurality_no_ties')
    some = votes[plural.notna()].sample(500, random_state=0)
    df = some[['file']].assign(label='neutral', p_clean=0.5, similarity_0=0.5, similarity_1=0.5)
    found = LabelAudit(df, ferplus_classes).add_votes(votes).df
    assert found.consensus.tolist()==plural[some.index].tolist()
    assert found.disagreement.to_numpy()==pytest.approx(vote_disagreement(some, df.label).to_numpy())
    assert found.n_annotations.tolist()==some[ferplus_votes].sum(axis=1).tolist()
    assert not set(ferplus_votes)&set(found.columns)
