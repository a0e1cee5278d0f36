"""Trains with two workers, by the start method that is named, and without any: both have to end the same. Prints a JSON line per task; see test_workers.py.

    workers_script.py spawn|forkserver FOLDER

A spawned worker takes seconds, as it imports all anew, so there only training has workers, but for the first task. The server of `forkserver` imports once."""
import hashlib, json, multiprocessing, os, sys, warnings
from pathlib import Path

from fastai_resup.data import FERDataLoaders, FERImage # each worker reads this file: what it doesn't need is imported below

class WatchedImage(FERImage):
    "Leaves a mark of each image that a process reads"
    @classmethod
    def create(cls, fn, **kwargs):
        mark = f'{multiprocessing.get_start_method()} {os.getpid()} {fn.parent.name}_{fn.name}'
        (Path(os.environ['RESUP_MARKS'])/mark).touch()
        return super().create(fn, **kwargs)

def main(method, folder):
    from torch import nn
    from fastai.callback.core import Callback
    from fastai.metrics import accuracy
    from fastai.torch_core import set_seed
    from fastcore.foundation import L
    from fastai_resup.audit import LabelAudit
    from fastai_resup.callbacks import ReSup
    from fastai_resup.checkpoint import Checkpoint, plain_values
    from fastai_resup.learner import ReSupLearner
    from fastai_resup.peers import peers
    from fastai_resup.synth import make_faces
    from kill_runs import bits

    class Die(Callback):
        def before_backward(self):
            if self.epoch==1 and self.iter==1: raise KeyboardInterrupt

    class FewWorkers(Callback):
        "None once the first epoch is trained, where they are slow"
        def after_train(self):
            if method!='spawn': return
            for dl in self.dls.loaders: dl.fake_l.num_workers = 0

    def net():
        body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7)))
    def learner(dls):
        learn = ReSupLearner(dls, [net(), net()], splitter=lambda m: L(m[0], m[1]).map(lambda o: list(o.parameters())), metrics=accuracy, path=folder)
        learn.remove_cb(learn.progress)
        learn.logger = lambda *_: None
        return learn
    def loaders(workers, **kwargs):
        set_seed(0, reproducible=True)
        return FERDataLoaders.from_folder(faces, valid='valid', img_size=16, bs=8, noise=0.3, seed=0, num_workers=workers, img_cls=WatchedImage, **kwargs)

    def table(audit): return [list(map(str, row)) for row in audit.df.itertuples()]
    def resumed(workers):
        "ReSup with a cache, ended and resumed, and the audit of what it trained"
        for resume,cbs in ((False, [Die()]), (True, [])):
            learn = learner(loaders(workers, cache=True))
            try: learn.fit(2, 1e-2, cbs=[ReSup(history=True), Checkpoint(f'{workers}', resume=resume), *cbs])
            except KeyboardInterrupt: pass
        return learn.model.state_dict(),learn.record.state_dict(),learn.recorder.values,table(LabelAudit.from_learner(learn))
    def folds(workers):
        def trained(dls):
            learn = learner(dls)
            learn.fit(1, 1e-2, cbs=FewWorkers())
            return learn
        return table(LabelAudit.cross_validate(trained, loaders(workers), folder/f'folds-{workers}', k=2, progress=False))
    def peer(name, workers):
        learn = learner(loaders(workers))
        learn.fit(1 if method=='spawn' else 2, 1e-2, cbs=[peers[name](), FewWorkers()])
        return learn.model.state_dict(),getattr(learn, 'clean_score', None)

    marks = folder/'marks'
    marks.mkdir()
    os.environ['RESUP_MARKS'] = str(marks) # before a server is started, whose workers have its environment
    faces = make_faces(folder/'faces', n_train=28, n_valid=14, size=16, progress=False)
    tasks = dict(resumed=resumed, folds=folds, **{o:(lambda workers, o=o: peer(o, workers)) for o in peers})
    for name,f in tasks.items():
        ends = []
        for workers in (0, 2):
            end = f(workers)
            ends.append(hashlib.sha256(bits(plain_values(end))).hexdigest())
        seen = [o.name.split() for o in marks.iterdir()]
        for o in marks.iterdir(): o.unlink()
        by = [(how,pid) for how,pid,_ in seen if pid!=str(os.getpid())]
        print(json.dumps(dict(task=name, same=ends[0]==ends[1], workers=len(set(by)), read=len(by), methods=sorted({how for how,_ in by}))), flush=True)

if __name__=='__main__':
    warnings.simplefilter('ignore')
    multiprocessing.set_start_method(sys.argv[1])
    multiprocessing.set_forkserver_preload(['fastai_resup.data'])
    main(sys.argv[1], Path(sys.argv[2]))
