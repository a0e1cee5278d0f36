"Reviewed labels in training: what a batch learns, what all others are believed to be, and what is refused"
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import lr_find
from fastai.torch_core import set_seed

from fastai_resup.audit import LabelAudit, Review
from fastai_resup.audit.ask import * # audit.ask()
from fastai_resup.callbacks import ReSup
from fastai_resup.data import FERDataLoaders, save_decisions, subset_dls
from fastai_resup.learner import ReSupLearner
from fastai_resup.mixture import mean_by_class
from fastai_resup.passes import item_names
from fastai_resup.trusted import prior_factors, reviewed_labels
from test_learner import Tiny, body_head, faces, learn # the last two are fixtures

def review(dls, which, drop=()):
    "Decisions by the true labels"
    def row(i):
        given,true = (dls.vocab[o[i]] for o in (dls.train_targs, dls.true_targs))
        if i in drop: return given,'drop',''
        return (given,'keep','') if given==true else (given,'relabel',true)
    files = item_names(dls.train_ds)
    return pd.DataFrame([(files[i], *row(i)) for i in which], columns=['file','label','decision','new_label'])

class Spy(Callback):
    "What each training batch learned: ids of the images, labels and weights"
    order = ReSup.order+1
    def before_fit(self): self.seen = []
    def after_loss(self):
        if not self.training: return
        resup = next(o for o in self.learn.cbs if isinstance(o, ReSup))
        ids = resup.seen.ids(self.iter, len(self.y))
        self.seen.append((self.epoch, ids, self.y, self.pred.loss_func.weights(self.pred, self.y)))

def test_reviewed_labels_are_learned_with_a_weight_of_1_from_the_first_batch_on(learn):
    dls,spy = learn.dls,Spy()
    table = review(dls, range(20), drop=(3,4))
    learn.fit(3, cbs=[ReSup(trusted=table), spy])
    true,given = dls.true_targs,dls.train_targs
    for epoch,ids,y,w in spy.seen:
        fixed = ids<20
        dropped = (ids==3)|(ids==4)
        assert (y==torch.where(fixed&~dropped, true[ids], given[ids])).all()
        assert (w[:,fixed&~dropped]==1).all() and (w[:,dropped]==0).all()
        assert epoch==0 or (w[:,~fixed]!=1).any()
    assert {e for e,*_ in spy.seen}=={0,1,2}

def test_dropped_images_teach_nothing(faces):
    "Whatever label they have"
    ends = []
    for label in (0, 1):
        set_seed(0, reproducible=True)
        dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, seed=0, num_workers=0, cache=True)
        name = dls.vocab[label]
        labels = [name if i<10 else o.label for i,o in enumerate(dls.train_ds.items)]
        dls = subset_dls(dls, range(84), labels)
        learn = ReSupLearner(dls, [Tiny(), Tiny()], splitter=body_head)
        table = pd.DataFrame(dict(file=item_names(dls.train_ds)[:10], label=name, decision='drop', new_label=''))
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2, cbs=ReSup(trusted=table, agreement=0.))
        ends.append([p.clone() for p in learn.model.parameters()])
    assert all(map(torch.equal, *ends))

def test_each_class_gets_its_share(learn):
    dls = learn.dls
    learn.fit(3, cbs=ReSup(trusted=review(dls, range(0, 84, 2)), balance=0.))
    shares,given = learn.record.shares,dls.train_targs
    p = learn.model.p_clean(learn.similarities.nan_to_num(), given)
    seen = learn.similarities.isfinite().all(0)
    torch.testing.assert_close(mean_by_class(p, given.where(seen, -1), 7), shares.expand(2, -1), atol=2e-3, rtol=0)
    reviewed = (dls.true_targs==given)[::2].float()
    by_hand = torch.stack([reviewed[given[::2]==c].mean() for c in range(7)])
    assert (shares-by_hand).abs().mean()<0.15
    audit = LabelAudit.from_learner(learn)
    assert audit.noise_rate==pytest.approx(1-reviewed.mean().item(), abs=0.1)

def test_classes_weigh_what_the_reviewed_labels_say(learn):
    "Not what the given labels say, unless no factors are wanted"
    class Losses(Callback):
        def before_fit(self): self.seen = []
        def before_batch(self):
            if self.training: self.seen.append(next(o for o in self.learn.cbs if isinstance(o, ReSup)).pair_loss.balance)
    spy = Losses()
    learn.fit(2, cbs=[ReSup(trusted=review(learn.dls, range(0, 84, 2))), spy])
    record = learn.record
    assert spy.seen[0] is None and torch.isclose(record.prior.sum(), torch.tensor(1.).double())
    true = torch.bincount(learn.dls.true_targs, minlength=7)/len(learn.dls.true_targs)
    assert (record.prior-true).abs().sum() < 0.25
    factors = prior_factors(learn.model.clean_by_class, learn.dls.train_targs, record.prior)
    learn.fit(1, cbs=[ReSup(trusted=review(learn.dls, range(0, 84, 2))), spy])
    torch.testing.assert_close(spy.seen[0], factors)
    learn.fit(1, cbs=[ReSup(trusted=review(learn.dls, range(0, 84, 2)), balance=0), spy])
    assert spy.seen[0] is None

def test_without_reviewed_labels_nothing_moves(learn):
    learn.fit(2, cbs=ReSup())
    assert learn.model.shifts is None and learn.record.shares is None

@pytest.mark.parametrize('kind', ['table','csv','Review','mask'])
def test_forms_of_trusted(learn, kind, tmp_path):
    dls = learn.dls
    table = review(dls, range(9))
    learn.fit(1, cbs=ReSup())
    audit = LabelAudit.from_learner(learn)
    forms = dict(table=lambda: table, csv=lambda: save_decisions(table, tmp_path/'decisions.csv'), Review=lambda: Review(audit, table), mask=lambda: np.arange(84)<9)
    trusted = forms[kind]()
    reviewed = reviewed_labels(trusted, dls.train_ds)
    want = (dls.train_targs if kind=='mask' else dls.true_targs)[:9]
    assert reviewed[:9].tolist()==want.tolist() and (reviewed[9:]==-1).all()
    learn.fit(1, cbs=ReSup(trusted=trusted))

def test_the_loop_of_ask_and_train(learn):
    learn.fit(2, cbs=ReSup())
    audit = LabelAudit.from_learner(learn)
    asked = audit.ask(21)
    table = review(learn.dls, asked.index)
    assert len(asked)==21 and table.file.tolist()==asked.file.tolist()
    learn.fit(1, cbs=ReSup(trusted=Review(audit).take(table)))
    assert not set(audit.ask(21, table).file) & set(table.file)

def test_what_does_not_fit_is_refused(learn):
    table = review(learn.dls, range(3))
    for bad,says in ((table.assign(file='x.png'), 'is not in the training set'), (table.assign(label='fear'), 'belongs to other data'),
                     (np.ones(5, bool), '84 values'), (table[:0], 'nothing was reviewed')):
        with pytest.raises(ValueError, match=says): learn.fit(1, cbs=ReSup(trusted=bad))
    with pytest.raises(ValueError, match='a callback mixes images'): learn.fit(1, cbs=[ReSup(trusted=table), MixUp()])
    learn.fit(1, cbs=ReSup())                                     # and the learner is as it was

def test_lr_find_learns_the_given_labels(learn):
    learn.add_cb(ReSup(trusted=review(learn.dls, range(9))))
    learn.lr_find(num_it=5, show_plot=False)
    assert learn.record.shares is None and not learn.refits

def test_soft_labels_and_the_authors_preset(faces):
    "The reviewed label becomes certain; a preset whose warm-up has no weights leaves dropped images out, too"
    from fastai_resup.losses import onehot
    from fastai_resup.trusted import with_reviewed
    y = onehot(torch.tensor([1,2]), 7)*0.8 + 0.2/7
    assert with_reviewed(y, torch.tensor([4,-1])).argmax(1).tolist()==[4,2]
    set_seed(0)
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, noise=0.3, seed=0, num_workers=0, cache=True)
    learn,spy = ReSupLearner(dls, [Tiny(), Tiny()], splitter=body_head),Spy()
    with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=[ReSup(preset='reference', trusted=review(dls, range(9), drop=(0,))), spy])
    assert all((w[:,ids==0]==0).all() for _,ids,_,w in spy.seen)

def test_shares_travel_with_checkpoint_and_weights(learn, tmp_path):
    learn.path = tmp_path
    learn.fit(2, cbs=ReSup(trusted=review(learn.dls, range(40))))
    shifts = learn.model.class_shifts.clone()
    assert shifts.abs().sum()>0
    learn.save('w')
    other = ReSupLearner(learn.dls, [Tiny(), Tiny()], splitter=body_head, path=tmp_path)
    other.load('w')
    assert torch.equal(other.model.class_shifts, shifts)
    again = type(learn.record)()
    again.load_state_dict(learn.record.state_dict(), ReSup().estimator)
    assert torch.equal(again.shares, learn.record.shares)

def test_a_second_review_is_heard(learn):
    "Other decisions give other shares, the same ones don't move them"
    few,more = review(learn.dls, range(10)),review(learn.dls, range(60))
    shares = []
    for table in (few, few, more):
        learn.fit(1, cbs=ReSup(trusted=table))
        shares.append(learn.record.shares)
    assert torch.equal(*shares[:2]) and not torch.equal(*shares[1:])
