"An audit by one set of probabilities: of scikit-learn's digits out of fold, of a real `vision_learner`, from files; and a pair made of a learner."
import shlex,sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import (CrossEntropyLossFlat,ImageDataLoaders,Learner,Normalize,Resize,SGD,accuracy,aug_transforms,imagenet_stats,
    nn,resnet18,set_seed,vision_learner)
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score,roc_auc_score
from sklearn.model_selection import cross_val_predict

from fastai_resup.audit import LabelAudit,Review,label_table
from fastai_resup.callbacks import ReSup
from fastai_resup.cli.commands import resup_audit
from fastai_resup.data.decisions import save_decisions
from fastai_resup.data.noise import pair_noise,symmetric_noise
from fastai_resup.files import text_column
from fastai_resup.learner import ReSupLearner
from fastai_resup.mixture import BetaMixture

X,TRUE = load_digits(return_X_y=True)
NAMES = np.array('zero one two three four five six seven eight nine'.split(), dtype=object)

@pytest.fixture(scope='module')
def digits():
    "Given labels with a noise rate of 30 %, and a forest's out-of-fold probabilities, by noise"
    res = {}
    for noise,model in dict(symmetric=symmetric_noise, pair=pair_noise).items():
        given = np.asarray(model(TRUE, n_classes=10, rate=0.3, seed=0))
        res[noise] = given,cross_val_predict(RandomForestClassifier(50, random_state=0), X, given, cv=4, method='predict_proba')
    return res

@pytest.mark.parametrize('noise,methods,least', [
    ('symmetric', ['self_confidence','normalized_margin','confidence_weighted_entropy'], 0.98),
    ('pair', ['self_confidence','confidence_weighted_entropy'], 0.9)]) # the margin knows pairs better: AUROC 0.934, and 0.909 here
def test_order_is_no_worse_than_cleanlabs(digits, noise, methods, least):
    "AUROC and average precision of the noisy labels, beside cleanlab's scores of label quality, of which the first is its default"
    rank = pytest.importorskip('cleanlab.rank')
    given,probs = digits[noise]
    noisy = given!=TRUE
    ours = -LabelAudit.from_probs(probs, given).rank
    for method in methods:
        theirs = -rank.get_label_quality_scores(given, probs, method=method)
        assert roc_auc_score(noisy, ours)>roc_auc_score(noisy, theirs)-0.005
        assert average_precision_score(noisy, ours)>average_precision_score(noisy, theirs)-0.005
    assert roc_auc_score(noisy, ours)>least

def test_p_clean_is_that_of_a_mixture_of_cosines(digits):
    given,probs = digits['symmetric']
    audit = LabelAudit.from_probs(probs, given)
    cosine = probs[np.arange(len(given)),given]/np.sqrt((probs**2).sum(1))
    np.testing.assert_allclose(audit.df.similarity, cosine, rtol=1e-6)
    posterior = BetaMixture(max_iter=100).fit(cosine).predict_proba(cosine)[:,1]
    middle = (cosine>0.2) & (cosine<0.8)                            # at the ends the lookup is made to rise
    np.testing.assert_allclose(audit.df.p_clean[middle], posterior[middle], atol=0.01)
    assert audit.noise_rate==pytest.approx(1-audit.df.p_clean.mean()) and abs(audit.noise_rate-0.3)<0.1
    assert (np.diff(audit.df.p_clean.to_numpy()[np.argsort(cosine, kind='stable')])>=0).all()

@pytest.fixture(scope='module')
def pictures(digits, tmp_path_factory):
    "200 digits as image files, and their audit"
    folder = tmp_path_factory.mktemp('digits')
    given,probs = digits['symmetric']
    files = [folder/f'{i:03}.png' for i in range(200)]
    for f,x in zip(files, X): Image.fromarray((x.reshape(8, 8)*15.9).astype(np.uint8)).save(f)
    audit = LabelAudit.from_probs(probs[:200], NAMES[given[:200]], files, NAMES)
    audit.df['true'] = text_column(NAMES[TRUE[:200]])
    return audit

def test_everything_that_an_audit_does(pictures, tmp_path):
    "Table, plots, figures, decisions, page and file of an audit that has no second network"
    audit = pictures
    assert list(audit.df)==['file','label','p_clean','similarity','suggested','suggested_prob','true']
    assert len(audit.show(3, fig=Figure()))==3 and len(audit.plot_p_clean([Figure().subplots()]))==1
    assert audit.plot_by_class(Figure().subplots()) and audit.plot_transition(Figure().subplots()) and audit.plot_reliability(Figure().subplots())
    assert audit.score().auroc['all']==pytest.approx(roc_auc_score(*audit_truth(audit)))
    assert audit.noise_by_class().n.sum()==200 and audit.transition_matrix().shape==(10,10)
    decisions = audit.suggest(0.3, 0.4)
    changed = audit.df.set_index('file').loc[decisions.file]
    assert len(changed)>10 and (changed.p_clean<0.3).all() and (changed.suggested_prob>=0.4).all()
    assert decisions.new_label.tolist()==changed.suggested.tolist()
    assert (decisions.new_label.to_numpy()==changed.true.to_numpy()).mean()>0.8
    corrected = audit.apply(Review(audit).take(decisions))
    assert (corrected.label!=corrected.given).sum()==len(decisions)
    assert len(audit.ask(10))==10
    again = LabelAudit.load(audit.save(tmp_path/'a.csv'))
    pd.testing.assert_frame_equal(again.df, audit.df, check_exact=True)
    assert again.vocab==audit.vocab and np.array_equal(again.pred_probs, audit.pred_probs)

def audit_truth(audit):
    "Is each label clean, and its rank"
    at,clean = audit.known_clean()
    return clean,audit.rank[at]

def test_page_of_one_network_shows_no_second_one(pictures, tmp_path):
    from test_page import Browser
    audit = pictures
    browser = Browser(tmp_path)
    try:
        shown = browser.open(audit.to_html(tmp_path/'one', 20, progress=False))
        hidden = 'return document.getElementById("p-agree").parentElement.hidden'
        assert shown.js(hidden) and shown.text('p-clean')==f'{audit.suspects(1).p_clean.iloc[0]:.2f}'
        df = audit.df.assign(p_clean_0=audit.df.p_clean, p_clean_1=audit.df.p_clean, similarity_0=audit.df.similarity, similarity_1=audit.df.similarity, agree=True)
        shown = browser.open(LabelAudit(df, audit.vocab).to_html(tmp_path/'two', 20, progress=False))
        assert not shown.js(hidden) and 'they agree' in shown.text('p-agree')
        assert browser.complaints()==[]
    finally: browser.quit()

# a learner of one network ----------------------------------------------------

@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    "48 images of two colours with some noisy labels, in fastai's own `DataLoaders` with augmentation"
    path,rng = tmp_path_factory.mktemp('colours'),np.random.default_rng(0)
    rows = []
    for i in range(48):
        base = (200,60,60) if i%2 else (60,60,200)
        Image.fromarray(np.clip(rng.normal(base, 25, (32,32,3)), 0, 255).astype(np.uint8)).save(path/f'{i:02}.png')
        rows.append((f'{i:02}.png', ('blue','red')[(i%2)^(i%8==0)]))
    table = pd.DataFrame(rows, columns=['name','label'])
    tfms = [*aug_transforms(size=32), Normalize.from_stats(*imagenet_stats)]
    return ImageDataLoaders.from_df(table, path, valid_pct=0.2, seed=0, bs=7, num_workers=0, item_tfms=Resize(32), batch_tfms=tfms)

@pytest.fixture(scope='module')
def learner(colours):
    "A real `vision_learner`, trained for one epoch"
    set_seed(0)
    learn = vision_learner(colours, resnet18, pretrained=False, metrics=accuracy, lr=1e-3, wd=0.05, opt_func=SGD)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

def test_vision_learner_as_it_is(learner, colours):
    "The table is that of its predictions on un-augmented images; nothing changes, and nothing is random"
    files = colours.train_ds.items.name.map(lambda o: str(colours.path/o)).tolist()
    before = {k:v.clone() for k,v in learner.model.state_dict().items()}
    torch.manual_seed(3)
    random = torch.get_rng_state()
    audit = LabelAudit.from_learner(learner)
    assert torch.equal(torch.get_rng_state(), random) and all(torch.equal(v, before[k]) for k,v in learner.model.state_dict().items())
    with learner.no_bar(): probs,_ = learner.get_preds(dl=colours.test_dl(files))
    by_hand = LabelAudit.from_probs(probs, colours.train_ds.items.label, files, colours.vocab)
    pd.testing.assert_frame_equal(audit.df, by_hand.df, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(audit.pred_probs, probs.numpy(), atol=1e-5)
    pd.testing.assert_frame_equal(label_table(learner), audit.df.drop(columns='p_clean'))
    assert list(audit.df)==['file','label','p_clean','similarity','suggested','suggested_prob'] and len(audit.df)==len(files)
    of_valid = LabelAudit.from_learner(learner, colours.valid)
    assert of_valid.df.file.tolist()==[str(colours.path/o) for o in colours.valid_ds.items.name]

def test_labels_that_were_memorised_have_no_mixture(colours):
    "An error in words, in place of a noise rate that means nothing"
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([[50.,-50.]]))
        def forward(self, x): return self.logits.repeat(len(x), 1)
    with pytest.raises(ValueError, match='predict each image by a model that was trained without it'):
        LabelAudit.from_learner(Learner(colours, Sure(), CrossEntropyLossFlat()))

def test_pair_of_a_vision_learner(learner, colours):
    "It keeps what the learner has, trains with `ReSup`, and leaves the learner alone"
    before = {k:v.clone() for k,v in learner.model.state_dict().items()}
    pair = ReSupLearner.from_learner(learner)
    assert (pair.dls, pair.lr, pair.wd, pair.opt_func, pair.path)==(learner.dls, 1e-3, 0.05, SGD, learner.path)
    assert [o.name for o in pair.metrics]==['accuracy']
    with pair.no_bar(), pair.no_logging(): pair.fine_tune(1, 1e-3, cbs=ReSup())
    assert [len(o['params']) for o in pair.opt.param_groups]==[2*len(list(o)) for o in learner.splitter(learner.model)]
    assert all(torch.equal(v, before[k]) for k,v in learner.model.state_dict().items())
    assert list(LabelAudit.from_learner(pair).df)[2:7]==['p_clean','p_clean_0','p_clean_1','similarity_0','similarity_1']
    with pytest.raises(TypeError, match='two networks already'): ReSupLearner.from_learner(pair)

def test_a_new_head_makes_the_difference(learner):
    "Both networks begin with the learner's body; the first with its head, the second with one that is drawn anew"
    nets = ReSupLearner.from_learner(learner).model.nets
    def same(a, b): return [torch.equal(v, b[k]) for k,v in a.items()]
    old = learner.model.state_dict()
    assert all(same(old, nets[0].state_dict()))
    bodies = [{k:v for k,v in o.items() if k.startswith('0.')} for o in (old, nets[1].state_dict())]
    assert all(same(*bodies))
    weights = [k for k,v in old.items() if k.startswith('1.') and v.dim()==2]
    assert len(weights)==2 and not any(torch.equal(old[k], nets[1].state_dict()[k]) for k in weights)

# the command -----------------------------------------------------------------

def run(monkeypatch, *words):
    "The command in this process; its exit code"
    monkeypatch.setattr(sys, 'argv', ['resup-audit', *map(str, words)])
    try: resup_audit.main()
    except SystemExit as e: return e.code
    return 0

def test_the_command_reads_probabilities(pictures, tmp_path, monkeypatch, capsys):
    "A page, and the list after decisions, by the line that the page's command printed"
    audit = pictures
    rows = pd.DataFrame(audit.pred_probs, columns=audit.vocab).assign(file=audit.df.file, label=audit.df.label)
    rows.to_csv(tmp_path/'probs.csv', index=False)
    assert run(monkeypatch, '--probs', tmp_path/'probs.csv', '--out', tmp_path/'page')==0
    said = capsys.readouterr().out
    assert f'200 labels with an estimated noise rate of {audit.noise_rate:.0%}' in said
    name,*line = shlex.split(said.splitlines()[-1])
    assert (name, line)==('resup-audit', ['--probs',str(tmp_path/'probs.csv'),'--apply','decisions.csv'])
    monkeypatch.chdir(tmp_path)
    decisions = audit.suggest(0.3, 0.4)
    save_decisions(decisions, 'decisions.csv')
    assert run(monkeypatch, *line)==0
    table = pd.read_csv('labels.csv')
    assert dict(zip(table.file, table.label))==dict(zip(audit.df.file, audit.apply(decisions).label))

@pytest.mark.parametrize('words,code,said', [
    (['faces'], 2, 'name the model and the data'),
    (['model','faces','--probs','p.csv'], 2, '--probs takes the place of the model'),
    (['faces','--probs','p.csv'], 2, 'leave faces out'),
    (['--probs','p.npy'], 2, 'p.npy has no labels'),
    (['--probs','p.csv','--valid','test'], 2, '--valid is for images'),
    (['--probs','lost.csv'], 1, 'lost.csv does not exist'),
    (['--probs','p.csv'], 1, 'pred_probs does not sum to 1 in row 1 ('),
    (['--probs','text.csv'], 1, "the column b has 'x' in line 3 of"),
    (['faces','--probs','p.npy'], 1, 'pred_probs has 3 rows, and there are 2 labels')])
def test_what_the_command_refuses(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for c in 'ab':
        (tmp_path/'faces'/c).mkdir(parents=True)
        Image.new('RGB', (8,8)).save(tmp_path/'faces'/c/f'{c}.png')
    header = 'file,label,a,b\nfaces/a/a.png,a,0.9,0.1\n'
    (tmp_path/'p.csv').write_text(header+'faces/b/b.png,b,0.9,0.9\n')
    (tmp_path/'text.csv').write_text(header+'faces/b/b.png,b,0.1,x\n')
    np.save(tmp_path/'p.npy', np.full((3,2), 0.5))
    (tmp_path/'model').mkdir()
    assert run(monkeypatch, *words, '--out', 'out')==code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('resup-audit: error: ') and said in error and not (tmp_path/'out').exists()
