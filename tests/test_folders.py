"Folders as people have them: from Kaggle, from archives, with parts of any name; nothing is ignored in silence"
import warnings

import pytest
from PIL import Image

from fastai_resup.data import FERDataLoaders
from fastai_resup.data.affectnet import affectnet_schemes
from fastai_resup.data.fer2013 import fer2013_classes
from fastai_resup.data.folders import folder_table
from fastai_resup.data.formats import find_format, read_table
from fastai_resup.data.rafdb import rafdb_classes

def draw(root, *names):
    "Real images, each of another grey"
    for i,name in enumerate(names):
        f = root/name
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8,8), i%256).save(f)

def faces(root, parts, classes, name='{part}{i}.jpg', n=2):
    "`n` images for training and one for each other part of each class"
    for part,c in ((p,c) for p in parts for c in classes):
        draw(root, *(f'{part}/{c}/'+name.format(part=part, i=i) for i in range(n if part==parts[0] else 1)))
    return root

def heard(f, *args, **kwargs):
    "What a call returns, and its warnings as one text"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return f(*args, **kwargs),' | '.join(str(o.message) for o in said if 'jit' not in str(o.message))

def counts(table): return int((~table.is_valid).sum()),int(table.is_valid.sum())

KAGGLE_AFFECTNET = 'Anger Contempt Disgust Fear Happy Neutral Sad Surprise'.split()
IMAGENETTE = 'n01440764 n02102040 n02979186'.split()

@pytest.mark.parametrize('parts,classes', [
    (('train','test'), sorted(fer2013_classes)), (('Train','Test'), KAGGLE_AFFECTNET), (('train','val'), IMAGENETTE), (('train','valid'), ['a','b']),
    (('Training','Testing'), ['a','b']), (('training_set','validation_set'), ['a','b']), (('train_class','val_class'), ['class001','class002']),
    (('Training','PublicTest'), ['a','b'])])
@pytest.mark.parametrize('wrapped', ['', 'DATASET', 'archive/images'])
def test_parts_of_any_name_are_found(tmp_path, parts, classes, wrapped):
    faces(tmp_path/wrapped, parts, classes)
    (table,vocab),said = heard(read_table, tmp_path)
    assert vocab==sorted(classes) and counts(table)==(2*len(classes), len(classes)) and not said
    assert all(f'/{parts[0]}/' in o for o in table.file[~table.is_valid]) and all(f'/{parts[1]}/' in o for o in table.file[table.is_valid])

@pytest.mark.parametrize('name', ['train_0000{i}_aligned.jpg', '{part}_{i}.jpg'])
@pytest.mark.parametrize('wrapped', ['', 'DATASET'])
def test_kaggles_rafdb(tmp_path, name, wrapped):
    "With and without RAF-DB's names of images; without, a line says what the folders are taken for"
    named = 'aligned' in name
    for c in range(1, 8):
        draw(tmp_path/wrapped, *(f'train/{c}/'+(f'train_{c:03d}{i:02d}_aligned.jpg' if named else f'{i}.jpg') for i in range(1, 3)))
        draw(tmp_path/wrapped, f'test/{c}/'+(f'test_{c:04d}_aligned.jpg' if named else '1.jpg'))
    (tmp_path/'train_labels.csv').write_text('image,label\n')
    (table,vocab),said = heard(read_table, tmp_path)
    assert vocab==rafdb_classes and counts(table)==(14,7) and ('taken for RAF-DB' in said and "format='folder'" in said)!=named
    dls,_ = heard(FERDataLoaders.from_rafdb, tmp_path, bs=2, img_size=16, num_workers=0)
    assert list(dls.vocab)==rafdb_classes and len(dls.train_ds)==14
    assert [o.parts[-2] for o in dls.train_files][::2]==[str(i) for i in range(1, 8)]

def test_affectnet_in_numbered_folders(tmp_path):
    "The numbers mean different things in different copies: they stay, a line says how they get names, and a scheme gives them"
    faces(tmp_path, ('train','val'), range(8))
    (table,vocab),said = heard(read_table, tmp_path)
    assert vocab==list('01234567') and "if they are AffectNet's, scheme='official' gives them names" in said
    (table,vocab),said = heard(read_table, tmp_path, scheme='official')
    assert vocab==affectnet_schemes['official'][:8] and counts(table)==(16,8) and not said

def test_fer2013_by_its_name(tmp_path):
    faces(tmp_path, ('train','test'), fer2013_classes)
    for kwargs in ({}, dict(valid='test')):
        (table,vocab),said = heard(read_table, tmp_path, 'fer2013', **kwargs)
        assert vocab==fer2013_classes and counts(table)==(14,7) and not said
    with pytest.raises(FileNotFoundError, match="no folder for valid='valid': it has test, train"): read_table(tmp_path, 'fer2013', valid='valid')

def test_the_class_folders_alone_and_deeper(tmp_path):
    "As fastai and torchvision do, images count at any depth below the class folder"
    draw(tmp_path, 'happy/2019/a.png', 'happy/b.png', 'sad/mac/deep/c.png', 'sad/.hidden/d.png', '__MACOSX/happy/e.png')
    table = folder_table(tmp_path)
    assert table.label.tolist()==['happy','happy','sad'] and len(table)==3

def test_what_is_not_read_is_said_in_one_line(tmp_path):
    faces(tmp_path, ('train','valid','test','dev'), ['a','b'])
    draw(tmp_path, 'stray.png', 'train/stray.png')
    (tmp_path/'train'/'a'/'notes.txt').write_text('x')
    table,said = heard(folder_table, tmp_path)
    assert counts(table)==(4,2) and said.count('not read')==1
    for o in ('dev, test', f'the images directly in {tmp_path} (1)', f"the images directly in {tmp_path/'train'} (1)", '.txt (1)', "valid='dev'"): assert o in said
    for name in ('test','dev'): assert f'/{name}/' in folder_table(tmp_path, valid=name).file.iloc[-1]
    assert 'valid' in heard(folder_table, tmp_path, valid_pct=0.5)[1]

def test_a_test_folder_without_classes_is_no_validation(tmp_path):
    "As in Kaggle's competitions"
    faces(tmp_path, ('train',), ['a','b'], n=5)
    draw(tmp_path, 'test/1.png')
    (table,_),said = heard(read_table, tmp_path)
    assert counts(table)==(8,2) and 'not read: test' in said and 'no separate' not in said

def test_class_names_that_differ_in_capitals_between_the_parts(tmp_path):
    faces(tmp_path, ('Train',), ['Anger','Happy'])
    faces(tmp_path, ('Test',), ['anger','happy '])
    assert set(folder_table(tmp_path).label)=={'Anger','Happy'}

def test_a_class_called_train(tmp_path):
    draw(tmp_path, 'train/1.png', 'plane/2.png', 'test/3.png')
    assert folder_table(tmp_path).label.tolist()==['plane','test','train']

@pytest.mark.parametrize('names,kwargs,message', [
    ('train/a/1.png', dict(valid='val'), "has no folder for valid='val': it has train"),
    ('mine/a/1.png other/a/1.png', dict(train='my'), "has no folder for train='my': it has mine, other"),
    ('valid/a/1.png test/a/1.png', {}, 'has test, valid and no folder for training'),
    ('x/train/a/1.png y/train/a/1.png', {}, 'only in x, y: give the folder of one data set'),
    ('Train/a/1.png training/a/1.png', {}, "several folders for training, Train, training: name one by train='Train'"),
    ('train/1.png train/2.png', {}, r'which has the images directly in .*train \(2\)'),
    ('train/images/1.png train/labels/x', {}, 'as for detection'),
    ('train/a/1.png val/a/2.png', dict(valid='val', valid_pct=0.3), 'give one of them')])
def test_what_cannot_be_read_is_named(tmp_path, names, kwargs, message):
    draw(tmp_path, *(o for o in names.split() if o.endswith('png')))
    for o in names.split(): (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises((FileNotFoundError,ValueError), match=message): folder_table(tmp_path, **kwargs)

def test_named_parts(tmp_path):
    faces(tmp_path, ('mine','checks'), ['a','b'])
    dls = FERDataLoaders.from_folder(tmp_path, train='mine', valid='checks', bs=2, img_size=16, num_workers=0)
    assert (len(dls.train_ds),len(dls.valid_ds))==(4,2)
    assert find_format(tmp_path)=='folder'
