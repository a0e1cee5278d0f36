"Models that leave the notebook: one network alone, weights that can't run code, ONNX"
import json
import os
import resource
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from PIL import Image
from fastai.learner import load_learner
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastai.vision.all import resnet18
from fastcore.foundation import L

from fastai_resup.callbacks import ReSup
from fastai_resup.data import FERDataLoaders
from fastai_resup.deploy import to_onnx
from fastai_resup.learner import ReSupLearner, resup_learner
from fastai_resup.networks import create_net, read_weights, speed_up_cpu
from fastai_resup.synth import make_faces

ort = pytest.importorskip('onnxruntime', reason="needs the extra onnx: pip install 'fastai_resup[onnx]'")

class Tiny(nn.Sequential):
    "A network of two parameter groups"
    def __init__(self, n=7): super().__init__(nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, n))

def body_head(net): return L(net[0], net[1]).map(params)

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=42, n_valid=14, size=32, progress=False)

@pytest.fixture
def dls(faces): return FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, seed=0, num_workers=0, cache=True)

@pytest.fixture
def learn(dls, tmp_path):
    set_seed(0)
    res = ReSupLearner(dls, [Tiny(), Tiny()], splitter=body_head, metrics=accuracy, path=tmp_path)
    with res.no_bar(), res.no_logging():
        res.fit(1, 1e-2, cbs=ReSup())
        yield res

class Bomb:
    "Unpickling it leaves a mark"
    def __init__(self, f): self.f = str(f)
    def __reduce__(self): return os.mkdir, (self.f,)

# single ----------------------------------------------------------------------

def test_single_is_a_plain_learner_with_what_was_set(learn, tmp_path):
    learn.create_opt(); learn.freeze()
    one = learn.single(1)
    assert type(one).__name__=='Learner' and one.opt.frozen_idx==1 and len(one.opt.param_groups)==2
    assert [p.requires_grad for p in one.model[0][0].parameters()]==[False, False] and one.model[1].weight.requires_grad
    with one.no_bar(), one.no_logging():
        item = learn.dls.valid_ds.items[0]
        preds,targs = one.get_preds()
        assert one.predict(item)[2].numpy()==pytest.approx(preds[0].numpy(), abs=1e-5)
        assert one.validate()[1]==pytest.approx((preds.argmax(1)==targs).float().mean().item())
        one.export('one.pkl')
    again = load_learner(tmp_path/'one.pkl')
    with again.no_bar(), again.no_logging(): torch.testing.assert_close(again.predict(item)[2], preds[0])

def test_single_shares_nothing(learn):
    before,other = deepcopy(learn.model.state_dict()),learn.single(0)
    with other.no_bar(), other.no_logging(): other.fit(1, 1e-1)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a,b in zip(before.values(), learn.model.state_dict().values()))
    assert not torch.equal(other.model[1].weight, learn.model.nets[0][1].weight) and accuracy is other.metrics[0].func

# weights ---------------------------------------------------------------------

def test_weights_files_run_no_code(learn, tmp_path):
    mark,f = tmp_path/'mark',tmp_path/'models'/'bad.pth'
    f.parent.mkdir()
    torch.save(dict(model=Bomb(mark), opt=None), f)
    for read in (lambda: read_weights(f), lambda: create_net(resnet18, 7, weights=f)):
        with pytest.raises(ValueError, match='bad.pth'): read()
    with pytest.raises(Exception, match='[Ww]eights.only'): learn.load('bad')
    with pytest.raises(ValueError, match='bad.pth is no safetensors file'): learn.load_weights(f)
    assert not mark.exists()
    torch.load(f, weights_only=False)                      # the bomb is a real one
    assert mark.exists()

def test_other_weights_are_refused_by_name(learn, dls, tmp_path):
    f = learn.save_weights(tmp_path/'w.safetensors')
    wide = nn.Sequential(Tiny()[0], nn.Linear(32, 7), nn.Identity())
    wide[0][0] = nn.Conv2d(3, 8, 3, stride=4)
    fresh = ReSupLearner(dls, [wide, Tiny()])
    before = deepcopy(fresh.model.state_dict())
    with pytest.raises(ValueError, match=r'w.safetensors.*nets.0.0.0.weight is \(8, 3, 5, 5\) and not \(8, 3, 3, 3\)'): fresh.load_weights(f)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a,b in zip(before.values(), fresh.model.state_dict().values()))
    with pytest.raises(ValueError, match='without 0.0.weight'): learn.single(0).load_weights(f)
    with pytest.raises(FileNotFoundError, match='none.safetensors'): learn.load_weights(tmp_path/'none.safetensors')
    f.write_bytes(f.read_bytes()[:-8])
    with pytest.raises(ValueError, match='w.safetensors is no safetensors file, or an incomplete one'): learn.load_weights(f)

def test_texts_of_other_programs_do_no_harm(learn, dls, tmp_path):
    f = learn.save_weights(tmp_path/'w.safetensors')
    tensors = safetensors.torch.load_file(f)
    other = tmp_path/'other.safetensors' # tensors may be maps of the first file
    safetensors.torch.save_file(tensors, other, dict(format='pt', author='{someone'))
    got = ReSupLearner(dls, [Tiny(), Tiny()]).load_weights(other).model.state_dict()
    assert all(torch.equal(v.nan_to_num(), got[k].nan_to_num()) for k,v in tensors.items())

def test_classes_in_another_order_are_refused(learn, faces, tmp_path):
    f = learn.save_weights(tmp_path/'w.safetensors')
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=14, seed=0, num_workers=0)
    dls.vocab.items = L(reversed(list(dls.vocab)))
    with pytest.raises(ValueError, match='w.safetensors was trained on the classes'): ReSupLearner(dls, [Tiny(), Tiny()]).load_weights(f)

def test_mixtures_of_another_grid_and_channels_last_travel(learn, dls, tmp_path):
    learn.fit(1, cbs=ReSup(preset='reference'))
    speed_up_cpu(learn.model)
    f = learn.save_weights(tmp_path/'w.safetensors')
    new = ReSupLearner(dls, [Tiny(), Tiny()]).load_weights(f).model
    assert new.lookup.shape==learn.model.lookup.shape==(2,100) and not new.interpolate and new.epochs.tolist()==[0,2]
    assert all(torch.equal(a, b) for a,b in zip(learn.model.state_dict().values(), new.state_dict().values()))

def test_a_full_disk_leaves_the_old_weights(learn, tmp_path):
    f = learn.save_weights(tmp_path/'w.safetensors')
    before,soft = f.read_bytes(),resource.getrlimit(resource.RLIMIT_FSIZE)
    with torch.no_grad(): learn.model.nets[0][1].weight += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before)//2, soft[1]))   # Python ignores SIGXFSZ, so the write fails
    try:
        with pytest.raises(OSError): learn.save_weights(f)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert f.read_bytes()==before and [o.name for o in tmp_path.iterdir()]==['w.safetensors']

# onnx ------------------------------------------------------------------------

def answers(f, x):
    "What onnxruntime makes of images in [0, 1]"
    return ort.InferenceSession(str(f), providers=['CPUExecutionProvider']).run(['probabilities'], dict(images=x.astype(np.float32)))[0]

def pixels(files): return np.stack([np.asarray(Image.open(o).convert('RGB')).transpose(2, 0, 1)/255 for o in files])

def agrees(learn, f, n_files=5):
    "Same probabilities as fastai's own predictions from the image files, for one image and for five"
    files = [o.file for o in learn.dls.valid_ds.items[:n_files]]
    with learn.no_bar(), learn.no_logging(): want = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0].numpy()
    x = pixels(files)
    assert want.std(0).max()>1e-4                          # the images differ, or the comparison would show nothing
    np.testing.assert_allclose(answers(f, x), want, atol=1e-4)
    np.testing.assert_allclose(answers(f, x[:1]), want[:1], atol=1e-4)

def test_onnx_of_resnet18_and_one_of_its_networks(dls, tmp_path):
    set_seed(0)
    learn = resup_learner(dls, resnet18, pretrained=False)
    agrees(learn, to_onnx(learn, tmp_path/'pair.onnx'))
    agrees(one := learn.single(1), to_onnx(one, tmp_path/'one.onnx'))
    assert (tmp_path/'one.onnx').stat().st_size<0.6*(tmp_path/'pair.onnx').stat().st_size

def test_onnx_of_lite0_normalises_inside(dls, tmp_path):
    set_seed(0)
    learn = resup_learner(dls, 'tf_efficientnet_lite0', weights='lite0')
    speed_up_cpu(learn.model)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)   # batch norm has seen the faces
    agrees(learn, to_onnx(learn, tmp_path/'lite0.onnx'))
    meta = ort.InferenceSession(str(tmp_path/'lite0.onnx')).get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes'])==list(dls.vocab)

def test_onnx_of_a_loaded_learner_needs_a_size(learn, tmp_path):
    learn.export('pair.pkl')
    loaded = load_learner(tmp_path/'pair.pkl')
    with pytest.raises(ValueError, match='pass `size=`'): to_onnx(loaded, tmp_path/'a.onnx')
    assert answers(to_onnx(loaded, tmp_path/'a.onnx', size=32), pixels([learn.dls.valid_ds.items[0].file])).sum()==pytest.approx(1, abs=1e-5)

def test_onnx_errors_leave_nothing(learn, tmp_path):
    with pytest.raises(OSError): to_onnx(learn, tmp_path/'no'/'a.onnx', check=False)
    learn.loss_func = nn.BCEWithLogitsLoss()
    with pytest.raises(TypeError, match='BCEWithLogitsLoss'): to_onnx(learn, tmp_path/'a.onnx')
    assert not list(tmp_path.glob('*onnx*'))

def test_depthwise_gradients_under_autocast():
    "In bfloat16, weights stay float32 and activations don't; gradients are those of `nn.Conv2d` up to bfloat16's rounding"
    grads = []
    for fast in (True, False):
        torch.manual_seed(0)
        conv,x = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),torch.randn(4, 8, 4, 4, requires_grad=True)
        if fast: speed_up_cpu(conv)
        with torch.autocast('cpu', torch.bfloat16): y = conv(x.bfloat16())
        y.float().square().sum().backward()
        grads.append((conv.weight.grad, x.grad))
    for a,b in zip(*grads):
        assert a.dtype==b.dtype==torch.float32 and (a-b).abs().max() < 0.05*b.abs().max()
