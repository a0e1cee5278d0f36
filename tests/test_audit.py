"LabelAudit on other people's DataLoaders, through pickling, with odd names, and its files."
import csv,signal,subprocess,sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import ImageDataLoaders,Resize
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from fastai_resup.audit import LabelAudit,label_table,reliability
from fastai_resup.audit.table import network_probs
from scipy.special import logit
from fastai_resup.callbacks import ReSup
from fastai_resup.data.ferplus import ferplus_votes,read_ferplus_votes
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.files import save_csv
from fastai_resup.learner import ReSupLearner
from fastai_resup.mixture import BetaMixture,clean_lookup
from fastai_resup.passes import item_names,ordered_pass

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
        for i in range(2): learn.model.set_mixture(i, lookup=clean_lookup(BetaMixture.from_params([1+i,3],[2,1],[0.4,0.6])))
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
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0)
    learn = pair(dls)
    df = LabelAudit.from_learner(learn).df
    same(df.drop(columns='true'), by_hand(learn, dls.train_files, [o.label for o in dls.train_ds.items], list(dls.vocab)))
    assert df.true.tolist()==[f.parent.name for f in dls.train_files]
    assert (df.true!=df.label).sum()==6

def test_labels_are_judged_by_all_epochs(faces):
    "The order within a class is that of the given label's probability in all epochs and this pass, if those had the same labels"
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0)
    learn = pair(dls)
    with learn.no_bar(), learn.no_logging(): learn.fit(6, 0.05, cbs=ReSup())
    def both(df, columns): return df[[f'{columns}_{i}' for i in range(2)]].to_numpy().T
    def now(df): return learn.model.p_clean(torch.tensor(both(df, 'similarity')), dls.train_targs, exact=True).numpy()
    df = LabelAudit.from_learner(learn).df
    means,given = learn.record.means,dls.train_targs.numpy()
    probs = (6*means.probs.numpy()+network_probs(learn)[:,np.arange(len(given)),given])/7
    moved = logit(both(df, 'p_clean')) - logit(probs)
    assert means.n==6 and np.abs(both(df, 'p_clean')-now(df)).max()>0.01
    predicted = (6*means.predicted.numpy()+np.bincount(network_probs(learn).argmax(-1).ravel(), minlength=3)/2/len(given))/7*len(given)
    for c in np.unique(given):
        of_class,n = given==c,(given==c).sum()
        clean = (6*means.clean[c].item()+now(df)[:,of_class].mean())/7
        share = min(max(min(clean, (predicted[c]+20)/(n+20)), 0.01), 0.99)
        np.testing.assert_allclose(both(df, 'p_clean')[:,of_class].mean(1), share, rtol=1e-3)
        assert np.ptp(moved[:,of_class], axis=1).max()<1e-3
    np.testing.assert_allclose(df.p_clean, both(df, 'p_clean').mean(0))
    learn.dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=1, num_workers=0) # the same images with other labels
    df = LabelAudit.from_learner(learn).df
    np.testing.assert_allclose(both(df, 'p_clean'), now(df), rtol=1e-4)

def test_fastai_folder(faces):
    dls = ImageDataLoaders.from_folder(faces, bs=8, num_workers=0, item_tfms=Resize(16))
    learn = pair(dls)
    df = LabelAudit.from_learner(learn).df
    same(df, by_hand(learn, dls.train_ds.items, [f.parent.name for f in dls.train_ds.items], list(dls.vocab)))

@pytest.mark.parametrize('col', ['name','file'])
def test_fastai_table(faces, col):
    files = sorted((faces/'train').rglob('*.png'))
    table = pd.DataFrame(dict(name=[str(f.relative_to(faces)) for f in files], label=[f.parent.name for f in files]))
    table = table.rename(columns=dict(name=col))
    dls = ImageDataLoaders.from_df(table, faces, valid_pct=0.3, seed=1, bs=8, num_workers=0, item_tfms=Resize(16))
    learn = pair(dls)
    items = dls.train_ds.items
    same(LabelAudit.from_learner(learn).df, by_hand(learn, [f'{faces}/{o}' for o in items[col]], items.label.tolist(), list(dls.vocab)))

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
    df = pd.DataFrame(dict(p_clean=[0.5,0.1,0.1,0.9,0.1], similarity_0=[0,0.3,0.2,0,0.3], similarity_1=[0,0.3,0.2,0,0.3]))
    audit = LabelAudit(df)
    assert audit.suspects().index.tolist()==[2,1,4,0,3]
    assert audit.suspects(2).index.tolist()==[2,1]
    assert audit.noise_rate==pytest.approx(1-0.34)

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
    monkeypatch.setattr('fastai_resup.files.os.replace', lambda *a: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'): save_csv(df.assign(a=2), f, overwrite=True)
    assert [o.name for o in tmp_path.iterdir()]==['a.csv'] and f.read_text()=='a\n1\n'

def test_names_that_are_not_utf8(tmp_path):
    name = b'caf\xe9.png'.decode('utf-8', 'surrogateescape')
    save_csv(pd.DataFrame(dict(file=pd.Series([name], dtype=object))), tmp_path/'a.csv')
    assert (tmp_path/'a.csv').read_bytes()==b'file\ncaf\xe9.png\n'

def test_sheet_names_a_broken_image(tmp_path):
    (tmp_path/'bad.png').write_bytes(b'no')
    df = pd.DataFrame(dict(file=[str(tmp_path/'bad.png')], label='a', suggested='b', p_clean=0.1, similarity_0=0.1, similarity_1=0.1))
    with pytest.raises(OSError, match='bad.png'): LabelAudit(df).show(fig=Figure())

def simulated(n=4000, seed=0, rate=0.3, with_probs=True):
    "An audit whose p(clean) is Bayes' own: two networks that see the true class through Gaussian noise, and labels by a known transition matrix"
    rng,k = np.random.default_rng(seed),4
    T = np.array([[0.6,0.4,0,0],[0,0.9,0.1,0],[0.1,0.1,0.7,0.1],[0,0,0,1.]])
    true = rng.choice(k, n, p=[0.4,0.3,0.2,0.1])
    given = np.array([rng.choice(k, p=T[t]) for t in true])
    z = rng.normal(0, 1, (n,k)); z[np.arange(n),true] += 2.5
    post = np.exp(2.5*z)*[0.4,0.3,0.2,0.1]
    post /= post.sum(1, keepdims=True)                         # p(true class | image), exactly
    joint = post*T[:,given].T
    joint /= joint.sum(1, keepdims=True)                       # p(true class | image, given label)
    p = joint[np.arange(n),given]
    names = np.array(list('abcd'), dtype=object)
    df = pd.DataFrame(dict(file=[f'{i}.png' for i in range(n)], label=names[given], p_clean=p, similarity_0=p, similarity_1=p, suggested=names[post.argmax(1)], true=names[true]))
    return LabelAudit(df, list('abcd'), joint.astype(np.float32) if with_probs else None),T

def test_transition_matrix_and_noise_rates_against_the_truth():
    audit,T = simulated()
    t = audit.transition_matrix()
    assert list(t.index)==list(t.columns)==list('abcd')
    assert abs(t.to_numpy()-T).max()<0.03
    assert abs(audit.transition_matrix(known=True).to_numpy()-T).max()<0.03
    by = audit.noise_by_class()
    assert (by.noise_rate-by.true_noise_rate).abs().max()<0.03 and by.true_noise_rate.max()>0.35
    assert abs(audit.noise_rate-(audit.df.true!=audit.df.label).mean())<0.02
    coarse = simulated(with_probs=False)[0].transition_matrix().to_numpy()    # the suggested class takes all doubt, unless it is the given one
    assert 0.03<abs(coarse-T).max()<0.2
    rel = reliability((audit.df.true==audit.df.label).to_numpy(), audit.df.p_clean.to_numpy())
    assert ((rel.low-0.02<=rel.p)&(rel.p<=rel.high+0.02)).all()                 # Bayes' own p is calibrated

def test_scores_against_a_plain_computation():
    audit,_ = simulated(600)
    audit.df['p_clean'] = audit.df.p_clean.round(1)            # many ties, which the similarity breaks
    s,right,p = audit.score(k=(5,)),(audit.df.true==audit.df.label).to_numpy(),audit.df.similarity_0.to_numpy()
    def plain(m): return np.mean([(a>b)+0.5*(a==b) for a in p[m&right] for b in p[m&~right]])
    assert s.auroc['all']==pytest.approx(plain(np.ones(600, bool)))
    per = {c:plain((audit.df.label==c).to_numpy()) for c in 'abc'}
    n = audit.df.label.value_counts()
    assert s.auroc[['a','b','c']].tolist()==pytest.approx(list(per.values()))
    mixed = [c for c in 'abcd' if not np.isnan(s.auroc[c])]
    assert s.auroc['within']==pytest.approx(np.average([s.auroc[c] for c in mixed], weights=[n[c] for c in mixed]))
    share = audit.df.label.map({c:right[audit.df.label==c].mean() for c in 'abcd'}).to_numpy()
    assert s.auroc['class alone']==pytest.approx(np.mean([(a>b)+0.5*(a==b) for a in share[right] for b in share[~right]]))
    order = np.argsort(p)
    hits = ~right[order]
    assert s.average_precision['all']==pytest.approx((np.cumsum(hits)/np.arange(1, 601))[hits].mean())
    assert s.precision_at_5['all']==hits[:5].mean()

BYTES = [b'caf\xe9.png',b'\xff\xfe/x.png']
ODD = [*EVIL,"'=quoted.png","''@.png",'NA','None','','1','1.0','  x ','\u202etxt.png','😀.png','line1\r\nline2.png','"','a'*300,*(o.decode('utf-8', 'surrogateescape') for o in BYTES)]

def odd_audit(vocab):
    "An audit with the oddest names, and numbers that need every digit"
    rng,n,k = np.random.default_rng(0),len(ODD),len(vocab)
    probs = rng.dirichlet(np.ones(k), n).astype(np.float32)
    pick = lambda: pd.Series([vocab[i] for i in rng.integers(0, k, n)], dtype=object)
    df = pd.DataFrame(dict(file=pd.Series(ODD, dtype=object), label=pick(), p_clean=rng.random(n), p_clean_0=rng.random(n)*1e-9, p_clean_1=rng.random(n), similarity_0=rng.random(n),
                           similarity_1=rng.random(n), suggested=pick(), suggested_prob=rng.random(n), agree=rng.random(n)>0.5, true=pick(), neutral=rng.integers(0, 10, n), disagreement=np.where(rng.random(n)>0.5, 0.1, np.nan)))
    return LabelAudit(df, vocab, probs, rng.random((n,3)).astype(np.float16))

def same_audit(a, b):
    pd.testing.assert_frame_equal(a.df, b.df, check_exact=True)
    assert a.df.file.tolist()==b.df.file.tolist() and a.vocab==b.vocab and [type(o) for o in a.vocab]==[type(o) for o in b.vocab]
    for k in ('pred_probs','history'):
        x,y = getattr(a, k),getattr(b, k)
        assert (x is None and y is None) or (x.dtype==y.dtype and np.array_equal(x, y))

VOCABS = [['calm','glad','never seen'],['=1','NA','a,b"'],['','None','nan'],[3,7,11],[3,'x',True]]

@pytest.mark.parametrize('suffix', ['.csv','.parquet'])
@pytest.mark.parametrize('vocab', VOCABS, ids=str)
def test_save_and_load_are_exact(tmp_path, suffix, vocab):
    if suffix=='.parquet':
        pytest.importorskip('pyarrow')
        if len({type(o) for o in vocab})>1: pytest.skip('a parquet column has one type')
    audit = odd_audit(vocab)
    f = audit.save(tmp_path/f'a{suffix}')
    same_audit(LabelAudit.load(f), audit)
    audit.pred_probs = audit.history = None
    audit.save(f, overwrite=True)
    same_audit(LabelAudit.load(f), audit)
    assert [o.name for o in tmp_path.iterdir()]==[f.name]

def test_a_saved_csv_cannot_be_run(tmp_path):
    odd_audit(['=1','@x','y']).save(tmp_path/'a.csv')
    with open(tmp_path/'a.csv', newline='', encoding='utf-8', errors='surrogateescape') as f: rows = list(csv.reader(f))
    assert not any(o[:1] in tuple('=+@\t\r\n') or o[:1]=='-' and len(o)>1 and not o[1:2].isdigit() for r in rows for o in r)

def test_what_load_and_save_refuse(tmp_path, monkeypatch):
    audit = odd_audit(['a','b'])
    with pytest.raises(FileNotFoundError, match='b.csv'): LabelAudit.load(tmp_path/'b.csv')
    (tmp_path/'b.csv').write_text('x,y\n1,2\n')
    with pytest.raises(ValueError, match=r"b.csv is no audit: it lacks the columns \['file'"): LabelAudit.load(tmp_path/'b.csv')
    (tmp_path/'c.csv').write_bytes(b'')
    with pytest.raises(ValueError, match="c.csv can't be read"): LabelAudit.load(tmp_path/'c.csv')
    with pytest.raises(ValueError, match='read alike as text'): odd_audit(['3',3]).save(tmp_path/'d.csv')
    audit.df['prob_a'] = 1
    with pytest.raises(ValueError, match="column 'prob_a'"): audit.save(tmp_path/'d.csv')
    audit.df = audit.df.drop(columns='prob_a')[:3]
    with pytest.raises(ValueError, match='cut them alike'): audit.save(tmp_path/'d.csv')
    assert not (tmp_path/'d.csv').exists()

def test_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match=r'fastai_resup\[parquet\]'): odd_audit(['a','b']).save(tmp_path/'a.parquet')
    assert list(tmp_path.iterdir())==[]

def test_ferplus_votes_by_file(ferplus_root):
    votes = read_ferplus_votes(ferplus_root, splits='train')
    some = votes.iloc[[5,17,300]]
    df = pd.DataFrame(dict(file=[str(ferplus_root/o) for o in some.file], label=['fear','neutral','contempt'], p_clean=0.5, similarity_0=0.5, similarity_1=0.5))
    got = LabelAudit(df).add_votes(votes).df
    total = some[list(ferplus_votes)].sum(axis=1).to_numpy()
    assert got.n_annotations.tolist()==total.tolist()
    assert got.disagreement.tolist()==pytest.approx([1-some.fear.iloc[0]/total[0], 1-some.neutral.iloc[1]/total[1], 1-some.contempt.iloc[2]/total[2]])

def test_cleanlab_takes_it_unchanged(faces):
    pytest.importorskip('cleanlab')
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    audit,_ = simulated(800)
    found = find_label_issues(labels=audit.labels, pred_probs=audit.pred_probs, n_jobs=1)
    wrong = (audit.df.true!=audit.df.label).to_numpy()
    assert found.dtype==bool and wrong[found].mean()>2*wrong.mean()
    quality = get_label_quality_scores(labels=audit.labels, pred_probs=audit.pred_probs)
    assert quality==pytest.approx(audit.pred_probs[np.arange(800),audit.labels])
    learn = pair(FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0))
    real = LabelAudit.from_learner(learn)
    assert real.pred_probs.dtype==np.float32 and real.pred_probs.shape==(30,3) and real.labels.dtype==np.int64
    assert real.pred_probs.sum(1)==pytest.approx(np.ones(30), abs=1e-6)
    assert len(find_label_issues(labels=real.labels, pred_probs=real.pred_probs, n_jobs=1))==30
    assert get_label_quality_scores(real.labels, real.pred_probs).shape==(30,)

CROSS = '''
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from fastai_resup.audit import LabelAudit
from fastai_resup.callbacks import ReSup
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.learner import ReSupLearner

path,out,kill_after = Path(sys.argv[1]),Path(sys.argv[2]),int(sys.argv[3])

def train(dls, lr):
    done = len(list((out/'folds').glob('fold_*.npy')))
    if done>=kill_after: os.kill(os.getpid(), signal.SIGKILL)
    with open(out/'log', 'a') as f: f.write(f'{done}\\n')
    nets = [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)) for _ in range(2)]
    learn = ReSupLearner(dls, nets)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, lr, cbs=ReSup())
    return learn

dls = FERDataLoaders.from_folder(path, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0)
LabelAudit.cross_validate(train, dls, out/'folds', k=4, progress=False, lr=1e-2).save(out/'audit.csv')
'''

def test_cross_validation_goes_on_after_sigkill(faces, tmp_path):
    (tmp_path/'cross.py').write_text(CROSS)
    def run(name, kill_after):
        (tmp_path/name).mkdir(exist_ok=True)
        return subprocess.run([sys.executable, tmp_path/'cross.py', faces, tmp_path/name, str(kill_after)], capture_output=True, text=True)
    out = run('a', 2)
    assert out.returncode==-signal.SIGKILL, out.stderr
    assert sorted(o.name for o in (tmp_path/'a'/'folds').iterdir())==['fold_0.npy','fold_1.npy','settings.json']
    before = {o.name:(o.stat().st_mtime_ns, o.read_bytes()) for o in (tmp_path/'a'/'folds').iterdir()}
    assert (out := run('a', 9)).returncode==0, out.stderr
    assert (tmp_path/'a'/'log').read_text().split()==['0','1','2','3']                       # no fold was trained twice
    assert all((o.stat().st_mtime_ns, o.read_bytes())==before[o.name] for o in (tmp_path/'a'/'folds').iterdir() if o.name in before)
    assert run('b', 9).returncode==0                                                         # never killed: the same to the last digit
    same_audit(LabelAudit.load(tmp_path/'a'/'audit.csv'), LabelAudit.load(tmp_path/'b'/'audit.csv'))

def trainer(log):
    def train(dls):
        log.append(dls)
        return pair(dls, mixture=False)
    return train

def test_no_network_sees_what_it_judges(faces, tmp_path):
    dls,log = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0),[]
    audit = LabelAudit.cross_validate(trainer(log), dls, tmp_path/'f', k=3, progress=False)
    held = [set(item_names(o.valid_ds)) for o in log]
    assert all(h.isdisjoint(item_names(o.train_ds)) for h,o in zip(held, log)) and set.union(*held)==set(audit.df.file) and sum(map(len, held))==30
    learn = pair(dls, mixture=False)                                                         # all folds had these weights, so this is what they said
    torch.testing.assert_close(torch.tensor(audit.df[['similarity_0','similarity_1']].to_numpy().T).float(), ordered_pass(learn, lambda p,y: p.similarity(y)))
    for i in range(2):
        est = BetaMixture(max_iter=100).fit(audit.df[f'similarity_{i}'].to_numpy())
        np.testing.assert_allclose(audit.df[f'p_clean_{i}'], np.interp(audit.df[f'similarity_{i}'], np.linspace(0, 1, 1001), clean_lookup(est)).clip(1e-4, 1-1e-4), atol=1e-4)

def test_cross_validation_of_fastai_dataloaders(faces, tmp_path):
    files = sorted((faces/'train').rglob('*.png'))
    table = pd.DataFrame(dict(name=[str(f.relative_to(faces)) for f in files], label=[f.parent.name for f in files]))
    tables = ImageDataLoaders.from_df(table, faces, valid_pct=0.2, seed=1, bs=8, num_workers=0, item_tfms=Resize(16))
    folder = ImageDataLoaders.from_folder(faces, bs=8, num_workers=0, item_tfms=Resize(16))
    for name,dls in dict(tables=tables, folder=folder).items():
        audit = LabelAudit.cross_validate(trainer([]), dls, tmp_path/name, k=2, progress=False)
        assert audit.df.file.tolist()==item_names(dls.train_ds)
        same(audit.df[['label','similarity_0']], label_table(pair(dls, mixture=False))[['label','similarity_0']])

def test_a_folder_of_folds_belongs_to_its_data(faces, tmp_path):
    make = lambda **kw: FERDataLoaders.from_folder(faces, bs=7, img_size=16, num_workers=0, **kw)
    train = trainer([])
    LabelAudit.cross_validate(train, make(noise=0.2, seed=0), tmp_path/'f', k=2, progress=False)
    cross = lambda dls,train=train,**kw: LabelAudit.cross_validate(train, dls, tmp_path/'f', **{**dict(k=2, progress=False), **kw})
    with pytest.raises(ValueError, match='different: images_and_labels'): cross(make(noise=0.2, seed=1))
    with pytest.raises(ValueError, match='different: k'): cross(make(noise=0.2, seed=0), k=3)
    with pytest.raises(ValueError, match='different: make_learner'): cross(make(noise=0.2, seed=0), lambda dls: pair(dls))
    (tmp_path/'f'/'fold_1.npy').write_bytes(b'half')
    with pytest.raises(ValueError, match='fold_1.npy'): cross(make(noise=0.2, seed=0))

def test_sure_labels_have_an_order_too(faces):
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0)
    learn = pair(dls, mixture=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, cbs=ReSup())
    sims = torch.linspace(0.99, 0.9999, 2000).repeat(2, 1)
    for i in range(2): learn.model.lookup[i] = clean_lookup(BetaMixture().fit(np.r_[np.random.default_rng(i).beta(2, 8, 300), np.random.default_rng(i).beta(80, 2, 700)][:,None]))
    exact,single = learn.model.weight_function(exact=True)(sims),learn.model.weight_function()(sims)
    assert (exact.diff(dim=1)>0).all() and (single.diff(dim=1)==0).any()
    learn.record.means = None                                     # so that this pass judges alone
    torch.testing.assert_close(exact.float(), single, atol=1e-6, rtol=0)
    df = LabelAudit.from_learner(learn).df
    want = learn.model.weight_function(exact=True)(torch.tensor(df[['similarity_0','similarity_1']].to_numpy().T, dtype=torch.float32))
    np.testing.assert_array_equal(df[['p_clean_0','p_clean_1']].to_numpy().T, want.numpy())

def test_history_by_image(faces):
    dls = FERDataLoaders.from_folder(faces, bs=7, img_size=16, noise=0.2, seed=0, num_workers=0)
    learn = pair(dls, mixture=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, 1e-2, cbs=ReSup(history=2))
    audit = LabelAudit.from_learner(learn)
    assert audit.history.shape==(30,2) and audit.history.dtype==np.float16
    seen = learn.similarities.isfinite().all(0).numpy()
    assert seen.sum()==28 and np.isnan(audit.history[~seen,-1]).all()                        # the last, incomplete batch isn't trained on
    np.testing.assert_allclose(audit.history[seen,-1], learn.model.weight_function()(learn.similarities).mean(0)[seen], atol=1e-3)
    plain = pair(dls)
    assert LabelAudit.from_learner(plain).history is None
