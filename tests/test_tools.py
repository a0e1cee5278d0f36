"What other programs get: Label Studio's tasks, a folder that Hugging Face's datasets really loads, vectors for cleanlab's Datalab"
import json
import os
import xml.etree.ElementTree as ET

os.environ.setdefault('HF_HUB_OFFLINE', '1') # before datasets is imported: all that it reads is on this disk
import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from cleanlab import Datalab
from fastai.vision.all import ConvLayer,Flatten,ImageDataLoaders,Resize,nn,resnet18,vision_learner
from PIL import Image

from fastai_resup.audit.table import LabelAudit
from fastai_resup.audit.vectors import embeddings
from fastai_resup.callbacks import ReSup
from fastai_resup.data.loaders import FERDataLoaders
from fastai_resup.deploy import ReSupLearner
from fastai_resup.passes import ordered_pass
from fastai_resup.synth import make_faces

datasets.disable_progress_bars()

# Names that mean parts of a data set elsewhere (RAF-DB's do), are there twice, or are odd; classes that a spreadsheet would run
NAMES = ['train_1.png','test_1.png','a/train/train_1.png','b/test/Test_1.png','b/val-1.png','c/Ä #%?&=+.png','c/=x.png','c/"q",;.png']
CLASSES = ['-1','+x','b"c,d','<e>&\nf']

@pytest.fixture
def audit(tmp_path):
    "Eight images, each of a grey of its own, the least suspect first"
    for i,name in enumerate(NAMES):
        f = tmp_path/'my test'/'faces'/name
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8,8,3), 30*i, np.uint8)).save(f)
    files = [str(tmp_path/'my test'/'faces'/o) for o in NAMES]
    p = np.linspace(0.9, 0.2, 8)
    return LabelAudit(pd.DataFrame(dict(file=files, label=CLASSES*2, p_clean=p, similarity_0=p, similarity_1=p, suggested=CLASSES[::-1]*2, suggested_prob=0.75, agree=True)))

# Hugging Face datasets

def loaded(folder): return datasets.load_dataset('imagefolder', data_dir=str(folder), split='train', cache_dir=str(folder.parent/'cache'))

def greys(ds): return [int(np.asarray(o)[0,0,0]) for o in ds['image']]

def test_datasets_loads_every_image_with_its_row(audit, tmp_path):
    ds = loaded(audit.to_imagefolder(tmp_path/'valid'/'out'))
    assert set(audit.df)-{'file'} == set(ds.column_names)-{'image','file'}
    assert list(ds['file'])==NAMES and greys(ds)==[30*i for i in range(8)]
    assert list(ds['label'])==CLASSES*2 and list(ds['suggested'])==CLASSES[::-1]*2
    assert ds['p_clean']==pytest.approx(audit.df.p_clean) and ds['agree'][0] is True
    assert sorted(o.name for o in (tmp_path/'valid'/'out').rglob('[Tt]*_1*.png'))==['Test_1-3.png','test_1.png','train_1-2.png','train_1.png']

def test_datasets_finds_it_without_being_told_what_it_is(audit, tmp_path):
    ds = datasets.load_dataset(str(audit.to_imagefolder(tmp_path/'out')), cache_dir=str(tmp_path/'cache'))
    assert list(ds)==['train'] and len(ds['train'])==8 and 'p_clean' in ds['train'].column_names

def test_decisions_give_the_corrected_labels(audit, tmp_path):
    made = audit.df.iloc[[7,0]].assign(decision=['relabel','drop'], new_label=['+x',None])
    ds = loaded(audit.to_imagefolder(tmp_path/'out', made))
    assert list(ds['label'])==[*CLASSES[1:], *CLASSES[:3], '+x'] and list(ds['given'])==[*CLASSES[1:], *CLASSES]
    assert greys(ds)==[30*i for i in range(1, 8)] and list(ds['decision'])[-1]=='relabel'
    assert not (tmp_path/'out'/'train'/'train_1-2.png').exists() # its namesake was dropped

def test_copies_share_nothing_with_the_images(audit, tmp_path):
    audit.to_imagefolder(tmp_path/'out')
    Image.new('RGB', (8,8), 'red').save(tmp_path/'out'/'train'/'test_1.png')
    assert np.asarray(Image.open(audit.df.file[1]))[0,0].tolist()==[30,30,30]

def test_an_image_with_two_rows_is_copied_once(audit, tmp_path):
    twice = LabelAudit(pd.concat([audit.df, audit.df[:1].assign(label='+x')]), audit.vocab)
    ds = loaded(twice.to_imagefolder(tmp_path/'out'))
    assert list(ds['label'])==[*CLASSES*2,'+x'] and greys(ds)[-1]==0 and len(list((tmp_path/'out'/'train').glob('*.png')))==8

@pytest.mark.parametrize('name,said', [('None','missing'), ('NA','missing'), ('01',"'1'")])
def test_names_that_a_csv_cannot_give_back_are_refused(audit, tmp_path, name, said):
    df = audit.df.assign(label=name)
    with pytest.raises(ValueError, match=f"{name}' in the column label, which datasets reads as {said}"): LabelAudit(df).to_imagefolder(tmp_path/'out')
    assert sorted(o.name for o in tmp_path.iterdir())==['my test']

def test_only_a_former_result_is_replaced(audit, tmp_path):
    folder = audit.to_imagefolder(tmp_path/'out')
    with pytest.raises(FileExistsError): audit.to_imagefolder(folder)
    LabelAudit(audit.df[2:], audit.vocab).to_imagefolder(folder, overwrite=True)
    assert len(pd.read_csv(folder/'train'/'metadata.csv'))==6
    with pytest.raises(FileExistsError, match='not, or not only, a former result'): audit.to_imagefolder(tmp_path/'my test', overwrite=True)

# Label Studio

def test_a_task_by_hand(audit, tmp_path):
    f = audit.to_label_studio(tmp_path/'tasks.json', audit.df.iloc[[5]])
    choice = dict(from_name='label', to_name='image', type='choices', value=dict(choices=['b"c,d']))
    link = '/data/local-files/?d=my%20test/faces/c/%C3%84%20%23%25%3F%26%3D%2B.png'
    assert json.loads(f.read_text())==[dict(
        data=dict(image=link, file='my test/faces/c/Ä #%?&=+.png', given='+x', suggested='b"c,d', p_clean=0.4),
        predictions=[dict(model_version='fastai_resup', score=0.75, result=[choice])])]

def test_interface_and_tasks_speak_of_the_same(audit, tmp_path):
    tasks = json.loads(audit.to_label_studio(tmp_path/'tasks.json', 3).read_text())
    view = ET.parse(tmp_path/'tasks.xml').getroot()
    tags = {o.get('name'):o for o in view if o.get('name')}
    assert [o.get('value') for o in tags['label']]==audit.vocab
    assert [o['data']['p_clean'] for o in tasks]==[0.2,0.3,0.4]
    for task in tasks:
        result, = task['predictions'][0]['result']
        assert tags[result['from_name']].tag=='Choices' and tags[result['from_name']].get('toName')==result['to_name']
        assert set(result['value']['choices'])<=set(audit.vocab)
        assert {tags[o].get('value')[1:] for o in ('image','given')}<=set(task['data'])

def test_choices_come_back_as_decisions(audit, tmp_path):
    "The fields of an export JSON-MIN of Label Studio 1.23"
    tasks = json.loads(audit.to_label_studio(tmp_path/'tasks.json').read_text())
    done = pd.DataFrame([dict(**o['data'], id=i, label='-1', annotator=1) for i,o in enumerate(tasks)])
    table = audit.apply(pd.DataFrame(dict(file=done.file, label=done.given, decision='relabel', new_label=done.label)))
    assert table.label.tolist()==['-1']*8 and table.decision.tolist()==['keep',*['relabel']*3]*2

def test_both_files_or_none(audit, tmp_path):
    (tmp_path/'tasks.xml').write_text('mine')
    with pytest.raises(FileExistsError, match='tasks.xml'): audit.to_label_studio(tmp_path/'tasks.json')
    assert sorted(o.name for o in tmp_path.iterdir())==['my test','tasks.xml'] and (tmp_path/'tasks.xml').read_text()=='mine'
    audit.to_label_studio(tmp_path/'tasks.json', overwrite=True)
    assert (tmp_path/'tasks.json').exists() and (tmp_path/'tasks.xml').read_text().startswith('<View>')

def test_label_studio_must_reach_the_images(audit, tmp_path):
    for root,said in ((tmp_path/'my test'/'faces','give the folder above'), (tmp_path/'my test'/'faces'/'b','is not below')):
        with pytest.raises(ValueError, match=said): audit.to_label_studio(tmp_path/'tasks.json', root=root)
    numbers = LabelAudit(audit.df.assign(file=list(map(str, range(8)))))
    with pytest.raises(FileNotFoundError, match="no image at '7', '6'"): numbers.to_label_studio(tmp_path/'tasks.json')
    assert not list(tmp_path.glob('tasks*'))

# Vectors

@pytest.fixture(scope='module')
def faces(tmp_path_factory): return make_faces(tmp_path_factory.mktemp('d')/'faces', n_train=56, n_valid=14, size=32, progress=False)

def net(): return nn.Sequential(ConvLayer(3, 16, stride=2), ConvLayer(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), Flatten(), nn.Dropout(0.5), nn.Linear(32, 7))

@pytest.fixture(scope='module')
def learn(faces):
    dls = FERDataLoaders.from_folder(faces, valid='valid', img_size=32, bs=16, noise=0.3, seed=0, num_workers=0)
    learn = ReSupLearner(dls, [net(), net()])
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2, cbs=ReSup())
    return learn

def test_the_last_layer_makes_the_predictions_of_them(learn):
    "In the order of the images and without dropout"
    learn.model.train()
    vectors = torch.from_numpy(embeddings(learn))
    assert vectors.shape==(56,64) and learn.model.training
    want = ordered_pass(learn, lambda pair,y: torch.stack(tuple(pair)).mT) # (2, K, N)
    for i,half in enumerate(vectors.split(32, 1)): torch.testing.assert_close(learn.model.nets[i][-1].cpu()(half).T, want[i])

def test_a_vision_learner_and_other_images(faces):
    dls = ImageDataLoaders.from_folder(faces, valid='valid', bs=16, item_tfms=Resize(32), num_workers=0)
    learn = vision_learner(dls, resnet18, pretrained=False)
    vectors = torch.from_numpy(embeddings(learn, dls.valid))
    assert vectors.shape==(14,512) and embeddings(learn).shape==(56,512)
    want = ordered_pass(learn, lambda z,y: z.T, dls.valid).T
    torch.testing.assert_close(learn.model[-1][-1].cpu()(vectors), want.as_subclass(torch.Tensor), rtol=1e-4, atol=1e-4)
    with learn.no_bar(): torch.testing.assert_close(want.softmax(-1).as_subclass(torch.Tensor), learn.get_preds()[0].as_subclass(torch.Tensor), rtol=1e-4, atol=1e-5)

def test_datalab_takes_it_unchanged(learn):
    audit,vectors = LabelAudit.from_learner(learn),embeddings(learn)
    vectors[9] = vectors[4] # a twin
    lab = Datalab(dict(label=audit.labels), label_name='label', verbosity=0)
    lab.find_issues(pred_probs=audit.pred_probs, features=vectors, issue_types=dict(label={}, near_duplicate={}))
    score = lab.get_issues('label').label_score.to_numpy()
    assert score==pytest.approx(audit.pred_probs[range(56), audit.labels], abs=1e-6) # cleanlab's self confidence: the rows are not mixed up
    assert 9 in lab.get_issues('near_duplicate').near_duplicate_sets[4]
