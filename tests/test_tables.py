"Tables from strangers: each form is read as its maker meant it, or refused by file, row or column."
import os
import shutil
import warnings
from pathlib import Path,PureWindowsPath

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastai_resup.data import FERDataLoaders
from fastai_resup.files import read_csv,save_csv

N = 12
names = [f'{i}.png' for i in range(N)]
classes = ['sad','happy','calm']
labels = [classes[i%3] for i in range(N)]

@pytest.fixture
def images(tmp_path):
    "0.png to 11.png, each of another grey"
    for i,o in enumerate(names): Image.new('L', (8,8), 20*i).save(tmp_path/o)
    return tmp_path

@pytest.fixture(autouse=True)
def no_warning():
    "What isn't expected by a test is an error"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', message='.*held out for validation')
        warnings.filterwarnings('ignore', category=DeprecationWarning, module='torch.*')
        yield

kw = dict(seed=0, bs=2, img_size=8, num_workers=0)
def from_df(df, path, **given): return FERDataLoaders.from_df(df, path, **kw, **given)
def from_csv(path, text=None, encoding='utf-8', name='labels.csv', **given):
    if text is not None: (path/name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return FERDataLoaders.from_csv(path, name, **kw, **given)

def read(dls):
    "Label by the name of the file"
    return {o.file.name:o.label for o in (*dls.train_ds.items, *dls.valid_ds.items)}

expected = dict(zip(names, labels))
frame = pd.DataFrame(dict(image=names, emotion=labels), dtype=object)
def rows(sep=',', end='\n', labels=labels): return ''.join(f'{n}{sep}{c}{end}' for n,c in zip(names, labels))
text = 'image,emotion\n'+rows()

# the forms of a csv file -----------------------------------------------------

forms = dict(
    comma=text, semicolon=text.replace(',', ';'), tab=text.replace(',', '\t'), bar=text.replace(',', '|'),
    bom='\ufeff'+text, crlf=text.replace('\n', '\r\n'), no_end=text.strip(), quoted='"image","emotion"\n'+''.join(f'"{n}","{c}"\n' for n,c in expected.items()),
    spaces=' image , emotion\n'+rows(' ,  ', ' \n'), quoted_after_space='image, emotion\n'+''.join(f'{n}, "{c}" \n' for n,c in expected.items()),
    tabbed_tails='image,emotion\n'+rows(end='\t\n'), quoted_tails='image,emotion\n'+''.join(f'"{n}","{c}"\t\r\n' for n,c in expected.items()),
    empty_tails='image,emotion,,\n'+rows(end=',,\n'), empty_quoted_tails='image,emotion\n'+rows(end=',"",\n'),
    empty_rows=text.replace('\n', '\n,\n')+'  \n\n', unnamed_index=',image,emotion\n'+''.join(f'{i},{n},{c}\n' for i,(n,c) in enumerate(expected.items())),
    twice_unnamed='Unnamed: 0.1,Unnamed: 0,image,emotion\n'+''.join(f'{i},{i+50},{n},{c}\n' for i,(n,c) in enumerate(expected.items())),
    named_index='index,image,emotion\n'+''.join(f'{i},{n},{c}\n' for i,(n,c) in enumerate(expected.items())),
    index_of_names=',emotion\n'+rows(), below_here='image,emotion\n'+rows().replace('\n1.png', '\n./1.png'),
    one_hot='image,'+','.join(classes)+'\n'+''.join(f'{n},'+','.join(str(int(c==o)) for o in classes)+'\n' for n,c in expected.items()))

@pytest.mark.parametrize('form,encoding', [*((o,'utf-8') for o in forms), ('comma','utf-16'), ('tab','utf-16')])
def test_forms_of_a_csv_file(images, form, encoding):
    expect = pytest.warns(UserWarning, match='sad, happy, calm of .*labels.csv hold a 1 in one') if form=='one_hot' else warnings.catch_warnings()
    with expect: dls = from_csv(images, forms[form], encoding)
    assert read(dls)==expected and list(dls.vocab)==sorted(classes)

@pytest.mark.parametrize('sep', ',;\t|')
def test_a_file_without_a_header(images, sep):
    assert read(from_csv(images, rows(sep), header=None))==expected
    with pytest.raises(ValueError, match='labels.csv has no header: its first row has the image 0.png. Read it with header=None'): from_csv(images, rows(sep))

@pytest.mark.parametrize('text,message', [
    ('image emotion\n'+rows(' '), r"no column 1 \(label column\); .*Name it with delimiter="),
    (b'PK\x03\x04'+bytes(30), 'labels.csv is an archive or a spreadsheet'),
    (text.encode('utf-16-le'), 'labels.csv is no text in UTF-8'),
    (text.replace('1.png,happy', '1.png,"happy'), 'labels.csv line 3: .*is a quote lacking'),
    (text.replace('1.png,happy', '1.png,'), 'missing label in line 3 of .*labels.csv'),
    (text.replace('1.png,happy', '1.png,  '), 'missing label in line 3 of .*labels.csv'),
    (text.replace('1.png,happy', ',happy'), 'missing file in line 3 of .*labels.csv'),
    (text.replace('1.png,happy', '1.png'), 'labels.csv line 3: 1 fields, expected 2'),
    ('image,emotion\n'+rows(labels=['sad']*N), "all labels are 'sad': there must be two classes or more"),
    ('row,image,emotion\n'+''.join(f'{i},{n},{c}\n' for i,(n,c) in enumerate(expected.items())), "first column of .*labels.csv, 'row', only counts rows.*fn_col="),
    ('image,emotion,image\n0.png,sad,0.png\n', "has the column 'image' twice"),
    ('image,sad,happy,calm\n0.png,1,0,0\n1.png,1,1,0\n2.png,0,0,0\n', 'sad, happy, calm of .*hold 0 and 1, with several ones or none in lines 3, 4 .*an image has one label here'),
    (text.replace('1.png', '../1.png'), r"'../1.png' leaves the image folder \(line 3 of .*labels.csv\)"),
    (text.replace('1.png', r'a\\..\\..\\1.png'), 'leaves the image folder'),
    (text.replace('1.png', 'file:///1.png', 1), r"'file:///1.png' is an address \(line 3 of .*labels.csv\)"),
    (text.replace('1.png', 'https://a.org/1.png', 1), 'is an address'),
    (text.replace('1.png', 'C:\\faces\\1.png', 1), 'is a path of Windows'),
    (text.replace('1.png', '\\\\server\\1.png', 1), 'is a path of Windows')])
def test_what_is_no_list_of_labels_is_refused(images, text, message):
    before = sorted(os.listdir(images))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=".*Windows's separators")
        with pytest.raises(ValueError, match=message): from_csv(images, text)
    assert sorted(os.listdir(images))==sorted({*before, 'labels.csv'})

def test_text_stays_text(images):
    odd = ['NA','None','00','0','nan','true']
    for i in range(N): shutil.copy(images/f'{i}.png', images/f'{i:04}')
    dls = from_csv(images, 'file,label\n'+''.join(f'{i:04},{odd[i%6]}\n' for i in range(N)), valid_pct=0.5)
    assert read(dls)=={f'{i:04}':odd[i%6] for i in range(N)}
    assert list(dls.vocab)==sorted(odd)

def test_one_hot_columns_by_name(images):
    df = pd.concat([frame[['image']], pd.get_dummies(frame['emotion'])], axis=1)
    for dtype in (bool, int, float, str): assert read(from_df(df.astype({o:dtype for o in classes}), images, label_col=classes))==expected
    with pytest.warns(UserWarning, match='read as the classes'): assert read(from_df(df, images))==expected
    df.loc[3,'happy'] = True
    with pytest.raises(ValueError, match='the columns sad, happy, calm have several ones or none in row 3 of df'): from_df(df, images, label_col=classes)
    assert read(from_df(df, images, label_col='happy'))['3.png'] is True

# names of classes ------------------------------------------------------------

def test_near_same_classes_are_named_and_the_line_merges_them(images, shared):
    shutil.copy(shared/'cases'/'near_same_classes'/'labels.csv', images)
    with pytest.warns(UserWarning, match='differ only in capitals or spaces') as w: dls = from_csv(images, fn_col='image', label_col='emotion')
    assert list(dls.vocab)==['HAPPINESS','Neutral','happiness','neutral'] # blanks around are gone
    line = str(w[0].message).split('To merge them: ')[1].split('; then')[0]
    scope = dict(read_csv=read_csv)
    exec(line, scope)
    assert list(from_df(scope['df'], images, fn_col='image', label_col='emotion').vocab)==['happiness','neutral']
    df = pd.read_csv(images/'labels.csv')[['image','emotion']]
    with pytest.warns(UserWarning, match="To merge them: df") as w: from_df(df, images)
    exec(str(w[0].message).split('To merge them: ')[1], dict(df=df))
    assert list(from_df(df, images).vocab)==['happiness','neutral']

def test_near_same_class_folders(images):
    for c in ('Sad','sad','calm'):
        (images/'set'/c).mkdir(parents=True)
        for o in names[:4]: shutil.copy(images/o, images/'set'/c)
    with pytest.warns(UserWarning, match="'sad' and 'Sad'.*rename the class folders"): FERDataLoaders.from_folder(images/'set', **kw)
    with pytest.raises(ValueError, match=r"not in the vocab .*Are these the same: {'Sad': 'sad'}"): FERDataLoaders.from_folder(images/'set', vocab=['sad','calm'], **kw)

def test_ids_map_to_names(images):
    ids = [str(classes.index(c)) for c in labels]
    dls = from_csv(images, 'f,l\n'+rows(labels=ids), vocab=classes)
    assert read(dls)==expected and list(dls.vocab)==classes
    for dtype in (int, float, str, 'category', 'int64[pyarrow]'): assert read(from_df(frame.assign(emotion=pd.Series(ids).astype(int).astype(dtype)), images, vocab=classes))==expected
    with pytest.raises(ValueError, match='has 3, not in the vocab .*Ids count from 0, so the last one is 2'): from_csv(images, 'f,l\n'+rows(labels=[str(int(o)+1) for o in ids]).replace(',1\n', ',sad\n').replace(',2\n', ',calm\n'), vocab=classes)
    with pytest.raises(ValueError, match='has 1, 2, 3, not in the vocab'): from_csv(images, 'f,l\n'+rows(labels=[str(int(o)+1) for o in ids]), vocab=classes)

def test_whole_number_classes_survive_csv(images):
    numbers = [3,1,2]
    df = frame.assign(emotion=[numbers[i%3] for i in range(N)])
    dls = from_df(df, images, vocab=numbers)
    assert list(dls.vocab)==numbers and {type(o.label) for o in dls.train_ds.items}=={int}
    save_csv(df, images/'labels.csv')
    back = from_csv(images, vocab=numbers)
    assert list(back.vocab)==numbers and read(back)==read(dls)
    assert list(from_csv(images).vocab)==['1','2','3'] # text where nothing says what they are

# DataFrames --------------------------------------------------------------------

@pytest.mark.parametrize('dtype', [int, float, object, 'category', 'Int64', 'int32[pyarrow]'])
def test_numbers_name_files_and_classes(images, dtype):
    df = pd.DataFrame(dict(image=pd.Series(range(N)).astype(dtype), emotion=pd.Series([i%3 for i in range(N)]).astype(dtype)))
    dls = from_df(df, images, suff='.png')
    assert read(dls)=={n:i%3 for i,n in enumerate(names)} and list(dls.vocab)==[0,1,2]

@pytest.mark.parametrize('dtype', ['category','string','string[pyarrow]','str'])
def test_text_of_any_kind(images, dtype):
    dls = from_df(frame.astype(dtype), images)
    assert read(dls)==expected and {type(o.label) for o in dls.train_ds.items}=={str}

def test_true_and_false_are_classes(images):
    for dtype in (bool, object, 'boolean', 'bool[pyarrow]'):
        dls = from_df(frame.assign(emotion=pd.Series([i%2==0 for i in range(N)]).astype(dtype)), images)
        assert list(dls.vocab)==[False,True] and read(dls)['0.png'] is True

@pytest.mark.parametrize('make', [Path, str, lambda o: PureWindowsPath('a')/o, np.str_])
def test_files_of_any_kind(images, make):
    (images/'a').symlink_to(images)
    windows = make('x')==PureWindowsPath('a/x')
    with pytest.warns(UserWarning, match=r"12 file names of df have Windows's separators, such as a\\0.png") if windows else warnings.catch_warnings():
        assert read(from_df(frame.assign(image=[make(o) for o in names]), images))==expected

@pytest.mark.parametrize('change,message', [
    (dict(emotion=['sad',1]*6), r"labels are text \('sad' in row 0 of df\) and whole numbers \(1 in row 1 of df\).*df\['emotion'\].astype\(str\)"),
    (dict(emotion=[*labels[:3], float('nan'), *labels[4:]]), 'missing label in row 3 of df'),
    (dict(emotion=[*labels[:3], pd.NA, *labels[4:]]), 'missing label in row 3 of df'),
    (dict(emotion=[*labels[:3], ' ', *labels[4:]]), 'missing label in row 3 of df'),
    (dict(image=[*names[:3], None, *names[4:]]), 'missing file in row 3 of df'),
    (dict(image=[*names[:3], '', *names[4:]]), 'in row 3 of df'),
    (dict(image=[*names[:3], b'3.png', *names[4:]]), 'file names must be text or paths, got .*in row 3 of df'),
    (dict(emotion=[i/7 for i in range(N)]), r'\(float\)'),
    (dict(emotion=[['sad','happy']]*N), 'list'),
    (dict(emotion='sad'), 'there must be two classes')])
def test_cells_that_are_no_labels(images, change, message):
    with pytest.raises((ValueError,TypeError), match=message): from_df(frame.assign(**change), images)

def test_column_names(images):
    twice = pd.DataFrame(list(zip(names, labels, labels)), columns=['image','emotion','emotion'])
    with pytest.raises(ValueError, match="df has the column 'emotion' 2 times: rename one"): from_df(twice, images, label_col='emotion')
    assert read(from_df(twice, images))==expected
    levels = frame.set_axis(pd.MultiIndex.from_tuples([('photo','name'),('given','label')]), axis=1)
    assert read(from_df(levels, images, fn_col=('photo','name'), label_col=('given','label')))==expected==read(from_df(levels, images))
    with pytest.raises(ValueError, match=r"no column 'label' .*\('given', 'label'\)"): from_df(levels, images, label_col='label')
    assert read(from_df(frame.reset_index(), images))==expected
    counted = frame.rename_axis('number').reset_index()
    with pytest.raises(ValueError, match="'number', only counts rows"): from_df(counted, images)
    assert read(from_df(counted, images, label_col=2, suff='.png'))==expected
    assert read(from_df(counted, images, fn_col='image', label_col='emotion'))==expected
    assert read(from_df(frame.set_axis([5]*N), images))==expected # an index that names all rows alike
    assert read(from_df(frame.set_index([pd.Index(range(N)), pd.Index(range(N))]), images))==expected
    with pytest.raises(TypeError, match='df must be a DataFrame, not str'): from_df('labels.csv', images)

# repeated rows -----------------------------------------------------------------

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('how', ['same','spelled','dots','symlink','hardlink','folder link'])
def test_a_repeated_row_is_merged_whatever_the_seed(images, how, seed):
    other = dict(same='8.png', spelled='./8.png', dots='sub/../8.png').get(how, 'again/8.png' if how=='folder link' else 'other.png')
    (images/'sub').mkdir()
    if how=='symlink': (images/'other.png').symlink_to('8.png')
    if how=='hardlink': os.link(images/'8.png', images/'other.png')
    if how=='folder link': (images/'again').symlink_to(images)
    df = pd.concat([frame, pd.DataFrame(dict(image=[other], emotion=[labels[8]]))], ignore_index=True)
    with pytest.warns(UserWarning, match='1 rows repeat an image .*: each image is used once'): dls = FERDataLoaders.from_df(df, images, **{**kw, 'seed':seed})
    assert read(dls)==expected and len(dls.train_ds)+len(dls.valid_ds)==N
    df.loc[N,'emotion'] = 'sad'
    message = rf"more than one label: .*8.png.*\('calm' in row 8, 'sad' in row 12 of .*\). List each image once"
    with pytest.raises(ValueError, match=message): FERDataLoaders.from_df(df, images, **{**kw, 'seed':seed})

def test_two_labels_are_named_by_line(images):
    with pytest.raises(ValueError, match=r"8.png \('calm' in line 10, 'sad' in line 14 of .*labels.csv\)"): from_csv(images, text+'8.png,sad\n')
    with pytest.warns(UserWarning, match='1 rows repeat'): assert read(from_csv(images, text+'8.png, calm\n'))==expected
    with pytest.raises(ValueError, match=r"8.png = .*./8.png \('calm' in line 10, 'sad' in line 14"): from_csv(images, text+'./8.png,sad\n', check_files=False)

def test_files_that_nobody_looked_at(images):
    (images/'3.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 12 image files not found: .*3.png'): from_df(frame, images)
    assert read(from_df(frame, images, check_files=False))==expected

def test_each_file_is_looked_at_once_and_by_threads(images, monkeypatch):
    import threading
    seen,stat = [],os.stat
    def counted(f, *args, **kwargs):
        if str(f).endswith('.png'): seen.append((str(f),threading.current_thread().name))
        return stat(f, *args, **kwargs)
    monkeypatch.setattr(os, 'stat', counted)
    from_df(frame, images)
    assert sorted(f for f,_ in seen)==sorted(str(images/o) for o in names)
    assert all(o!='MainThread' for _,o in seen)

# where names start from --------------------------------------------------------

@pytest.mark.parametrize('place', ['beside','above','elsewhere'])
@pytest.mark.parametrize('how', ['relative','absolute','slash','home','link','dots'])
def test_names_start_from_the_root_wherever_one_is(images, tmp_path_factory, monkeypatch, place, how):
    faces,elsewhere = images/'faces',tmp_path_factory.mktemp('elsewhere')
    faces.mkdir()
    for o in names: shutil.move(images/o, faces/o)
    (images/'link').symlink_to(faces)
    (faces/'labels.csv').write_text(text)
    here = dict(beside=faces, above=images, elsewhere=elsewhere)[place]
    monkeypatch.chdir(here)
    monkeypatch.setenv('HOME', str(images))
    root = dict(relative=os.path.relpath(faces), absolute=str(faces), slash=f'{faces}/', home='~/faces', link=str(images/'link'), dots=f'{faces}/../faces')[how]
    for dls in (FERDataLoaders.from_csv(root, **kw), from_df(frame, root), from_df(frame, Path(root).parent if how in ('absolute','home') else root, folder='faces' if how in ('absolute','home') else None)):
        assert read(dls)==expected
        monkeypatch.chdir('/')
        assert all(os.path.samefile(o, faces/o.name) for o in dls.train_files) # wherever one goes then
        dls.one_batch()
        monkeypatch.chdir(here)

def test_absolute_names_pass(images, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    assert read(from_df(frame.assign(image=[str(images/o) for o in names]), other))==expected
    with pytest.raises(ValueError, match="leaves the image folder"): from_df(frame.assign(image=[f'../{images.name}/{o}' for o in names]), images)

# nothing reaches the user from a normal call -----------------------------------

def test_normal_calls_warn_of_nothing(images):
    "The fixture makes any warning an error"
    from fastai_resup.data.manifest import NoiseManifest
    df = frame.assign(held_out=[i>8 for i in range(N)], truth=labels)
    save_csv(df, images/'labels.csv')
    for dls in (FERDataLoaders.from_csv(images, valid_col='held_out', true_col='truth', delimiter=None, bs=2, img_size=8, num_workers=0),
                from_df(df.astype('category'), images, valid_col='held_out', noise=0.2), from_df(frame, images, valid_pct=0.3)):
        dls.one_batch()
        assert len(dls.train_files) and dls.train_targs.shape==(len(dls.train_ds),)
    table = pd.DataFrame(dict(file=names, label=labels, is_valid=df['held_out']))
    NoiseManifest.from_table(table, classes, rate=0.3).save(images/'noise.csv')
    NoiseManifest.read(images/'noise.csv').table(images)

def test_names_that_are_not_utf8(tmp_path):
    "Each file is one of its own, which pandas before version 3 doesn't see; a class name like that is refused"
    odd = os.fsdecode(b'caf\xe9')
    if odd.isprintable(): pytest.skip('names are text here')
    files = [tmp_path/f'{odd}{i}.png' for i in range(8)]
    for i,f in enumerate(files): Image.new('RGB', (8,8), (i,0,0)).save(f)
    df = pd.DataFrame(dict(file=files, label=['a','b']*4, is_valid=[False]*4+[True]*4))
    dls = FERDataLoaders.from_df(df, tmp_path, valid_col='is_valid', img_size=8, bs=2, num_workers=0)
    assert list(dls.train_files)==files[:4] and len(dls.valid_ds)==4
    with pytest.raises(ValueError, match=r"the class name 'caf\\udce9' of .* is not UTF-8: save the file as UTF-8"):
        FERDataLoaders.from_df(df.assign(label=pd.Series([odd,'b']*4, dtype=object)), tmp_path, valid_col='is_valid', img_size=8, bs=2, num_workers=0)

def test_latin_1_labels_and_folders_are_refused(tmp_path):
    (tmp_path/'labels.csv').write_bytes(b'file,label\n0.png,caf\xe9\n1.png,th\xe9\n')
    with pytest.raises(ValueError, match=r"of .*labels.csv is not UTF-8: save the file as UTF-8"): FERDataLoaders.from_csv(tmp_path)
