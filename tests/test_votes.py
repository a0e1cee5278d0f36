"FERPlus's real votes beside scores whose rank correlation with them is known"
import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from fastai_resup.audit.votes import compare_votes, plot_votes, vote_bins
from fastai_resup.data.ferplus import ferplus_labels, ferplus_votes, read_ferplus_votes

@pytest.fixture(scope='module')
def votes(ferplus_root): return read_ferplus_votes(ferplus_root)

@pytest.fixture(scope='module')
def audit(votes):
    df = votes.assign(label=ferplus_labels(votes, 'plurality')).dropna(subset='label')
    df = df[df.split=='train'].sample(5000, random_state=0)
    share = 1-df[ferplus_votes].max(axis=1)/df[ferplus_votes].sum(axis=1)
    noise = np.random.default_rng(0).normal(0, 0.1, len(df))
    return df[['file','label']].assign(file='/elsewhere/'+df.file, share=share, p_clean=1-share+noise, similarity_0=1-share, similarity_1=1-share)

def test_real_votes_join_by_name(votes, audit):
    table,rho = compare_votes(audit.reset_index(drop=True), votes.sample(frac=1, random_state=1))
    assert np.allclose(table.disagreement, audit.share) and table.file.tolist()==audit.file.tolist()
    assert rho['similarity']==pytest.approx(-1)
    a,b = rankdata(table.p_clean),rankdata(table.disagreement)
    assert rho['p_clean']==pytest.approx(np.corrcoef(a, b)[0,1])
    assert -0.95<rho['p_clean']<-0.8

def test_both_sources_serve(ferplus_root, audit):
    table,rho = compare_votes(audit, read_ferplus_votes(ferplus_root, 'fer2013new.csv'))
    assert table.disagreement.notna().all() and rho['p_clean']<-0.8

def test_repeated_rows_count_once(votes, audit):
    want = compare_votes(audit, votes)[1]
    with pytest.warns(UserWarning, match='^3 rows are repeated, and count once: '): assert compare_votes(audit, pd.concat([votes, votes[:3]]))[1].equals(want)
    with pytest.raises(ValueError, match='is listed twice'): compare_votes(audit, pd.concat([votes, votes[:1].assign(fear=9)]))

def test_votes_of_an_audit_from_any_folder(votes, audit, tmp_path, monkeypatch):
    "Names may be complete, or relative to the folder in which the audit was made, by any way to it"
    want = compare_votes(audit, votes)[1]
    for start in ('/elsewhere/','','./','../here/'): assert compare_votes(audit.assign(file=start+audit.file.str.removeprefix('/elsewhere/')), votes)[1].equals(want)
    inside = audit[audit.file.str.contains('FER2013Train')]
    assert compare_votes(inside.assign(file=inside.file.str.rpartition('/')[2]), votes)[1].equals(compare_votes(inside, votes)[1])

def test_plot_shows_every_image(votes, audit):
    table,_ = compare_votes(audit, votes)
    ax = plot_votes(table, min_n=1)
    assert sum(int(t.get_text().replace(',', '')) for t in ax.texts)==5000==vote_bins(table).n.sum()
    few = vote_bins(table).n<20
    assert few.any() and len(plot_votes(table).texts)==(~few).sum()
    assert ax.get_ylabel()=='p(clean)' and (np.diff(ax.lines[0].get_ydata())<0).all()
