"One registry of data formats: what is found, what is read, and which arguments are refused"
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastai_resup.data import FERDataLoaders
from fastai_resup.data.affectnet import affectnet_columns
from fastai_resup.data.formats import FormatError, find_format, format_args, formats, read_table
from fastai_resup.files import save_csv

def draw(f, i=0):
    f.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8,8,3), i, np.uint8)).save(f)

@pytest.fixture
def numbered(tmp_path):
    "Plain folders with the classes 1 to 7"
    for i in range(1, 8):
        for n in range(3): draw(tmp_path/'train'/str(i)/f'{n}.png', i)
        draw(tmp_path/'valid'/str(i)/'3.png', i)
    return tmp_path

@pytest.fixture
def mirror(tmp_path):
    "RAF-DB as mirrors have it"
    for i in range(1, 8):
        draw(tmp_path/'train'/str(i)/f'train_{i:05d}_aligned.jpg', i)
        draw(tmp_path/'test'/str(i)/f'test_{i:04d}_aligned.jpg', i)
    return tmp_path

@pytest.fixture
def affectnet(tmp_path):
    "AffectNet's lists of eight training images and eight validation images"
    for split in ('training','validation'):
        for i in range(8): draw(tmp_path/split/f'{i}.png', i)
        rows = [f'{split}/{i}.png,0,0,8,8,1;2,{i},0,0' for i in range(8)]
        (tmp_path/f'{split}.csv').write_text('\n'.join([','.join(affectnet_columns), *rows]))
    return tmp_path

def test_folders_named_1_to_7_are_folders(numbered):
    "resup-noise took them for RAF-DB and resup-train for folders"
    assert find_format(numbered)=='folder'
    table,vocab = read_table(numbered)
    assert vocab==list('1234567') and table.is_valid.sum()==7

def test_a_mirror_of_rafdb_is_known_by_its_file_names(mirror):
    "resup-noise took it for RAF-DB and resup-train for folders, with another order of classes"
    assert find_format(mirror)=='rafdb' and read_table(mirror)[1][0]=='surprise'
    assert find_format(mirror, 'folder')=='folder'

def test_a_mirror_with_a_strange_file_is_refused_by_name(mirror):
    draw(mirror/'train'/'3'/'a_cat.jpg')
    assert find_format(mirror)=='rafdb'
    with pytest.raises(ValueError, match='a_cat.jpg is no RAF-DB train image'): read_table(mirror)

def test_more_folders_than_seven_are_no_mirror(mirror):
    draw(mirror/'train'/'8'/'train_00099_aligned.jpg')
    assert find_format(mirror)=='folder'

def test_what_a_model_was_trained_on_is_read_again(affectnet):
    "resup-audit forgot the scheme of AffectNet"
    settings = dict(format='affectnet', scheme='alphabetical8', n_classes=None, epochs=5, valid_pct=None)
    table,vocab = read_table(affectnet, settings['format'], **format_args('affectnet', settings))
    assert vocab[0]=='anger' and table.label[0]=='anger' and len(table)==16
    assert find_format(affectnet)=='affectnet'
    with pytest.raises(FormatError, match='^scheme must be given for the format affectnet') as e: read_table(affectnet)
    assert e.value.arg=='scheme'

@pytest.mark.parametrize('format,args,named', [('folder',dict(scheme='official'),'scheme'), ('folder',dict(rule='majority'),'rule'), ('rafdb',dict(source='label.csv'),'source'),
                                               ('ferplus',dict(valid_pct=0.2),'valid_pct'), ('csv',dict(train='a'),'train'), ('fer2013',dict(colour=1),'colour')])
def test_unsuited_arguments_are_refused_by_name(tmp_path, format, args, named):
    with pytest.raises(FormatError, match=f'^{named} is no argument of the format {format}, which takes') as e: read_table(tmp_path, format, **args)
    assert e.value.arg==named

@pytest.mark.parametrize('format', formats)
def test_an_argument_that_is_none_is_not_given(tmp_path, format):
    "Commands hand on all of theirs"
    with pytest.raises((OSError,ValueError)) as e: read_table(tmp_path, format, colour=None, scheme=None)
    assert 'colour' not in str(e.value)

def test_ferplus_votes_are_found(tmp_path):
    for i in range(6): draw(tmp_path/('FER2013Train' if i<4 else 'FER2013Valid')/f'{i}.png', i)
    votes = ['neutral','happiness','surprise','sadness','anger','disgust','fear','contempt','unknown','NF']
    rows = [f"{'Training' if i<4 else 'PublicTest'},{i}.png,{9*(i%2)},{9*((i+1)%2)},0,0,0,0,0,0,1,0" for i in range(6)]
    (tmp_path/'fer2013new.csv').write_text('\n'.join(['Usage,Image name,'+','.join(votes), *rows]))
    table,vocab = read_table(tmp_path)
    assert table.label.tolist()==['happiness','neutral']*3 and len(vocab)==8
    table,vocab = read_table(tmp_path, rule='probability', n_classes=7)
    assert table.probs[0].shape==(7,) and table.probs[4] is None
    for split,names in (('FER2013Train',range(4)), ('FER2013Valid',(4,5))):
        (tmp_path/split/'label.csv').write_text('\n'.join(f'{i}.png,box,0,0,9,0,0,0,0,0,0,0' for i in names))
    assert set(read_table(tmp_path)[0].label)=={'surprise'} and set(read_table(tmp_path, source='fer2013new.csv')[0].label)=={'happiness','neutral'}

def test_csv_keeps_every_text(tmp_path):
    "Classes called NA or None, names that a spreadsheet would run, and what resup writes"
    df = pd.DataFrame(dict(file=['=a.png','b.png','007','d.png'], label=['NA','None','NA','None'], is_valid=['0','false','1','True'], true=['NA','NA','NA','None']))
    for write in (lambda f: df.to_csv(f, index=False), lambda f: save_csv(df, f, overwrite=True)):
        write(tmp_path/'l.csv')
        table,vocab = read_table(tmp_path/'l.csv')
        assert vocab==['NA','None'] and table.file.tolist()==[str(tmp_path/o) for o in df.file]
        assert table[['label','is_valid','true']].to_dict('list')==dict(label=df.label.tolist(), is_valid=[False,False,True,True], true=df.true.tolist())

@pytest.mark.parametrize('text,message', [
    ('file,label\n', 'no rows'), ('name,what,x\na,b,c\n', 'none is known to hold files'), ('', 'is empty'), ('file,label\na,x\nb\n', 'line 3'),
    ('file,label\na,\nb,x', 'missing label.*2'), ('file,label,is_valid\na,x,0\nb,x,yes', 'is_valid.*yes'), ('file,label,is_valid\na,x,0\nb,x,', 'is_valid'),
    ('file,label,is_valid\na,x,0\n./a,y,0\nb,x,1', 'more than one label'), ('file,label,is_valid\na,x,0\nb,y,1', 'classes y')])
def test_broken_csv_is_named(tmp_path, text, message):
    (tmp_path/'l.csv').write_text(text)
    with pytest.raises(ValueError, match=message): read_table(tmp_path/'l.csv')

def test_true_labels_of_a_csv_may_be_missing_for_validation(tmp_path):
    (tmp_path/'l.csv').write_text('file,label,is_valid,true\na,x,0,y\nb,y,0,y\nc,x,1,\n')
    assert read_table(tmp_path/'l.csv')[0].true.tolist()==['y','y',None]

def test_csv_is_split(tmp_path):
    (tmp_path/'l.csv').write_text('file,label\n'+''.join(f'{i}.png,{"ab"[i%2]}\n' for i in range(20)))
    with pytest.warns(UserWarning, match='as noisy as'): assert read_table(tmp_path/'l.csv', valid_pct=0.3, seed=1)[0].is_valid.sum()==6
    (tmp_path/'l.csv').write_text('file,label,is_valid\na,x,0\nb,x,1\n')
    with pytest.raises(FormatError, match='^valid_pct is for data without a validation part'): read_table(tmp_path/'l.csv', valid_pct=0.3)

def test_label_list_needs_no_images(tmp_path):
    (tmp_path/'l.txt').write_text('train_00001.jpg 7\ntest_0001.jpg 7\n')
    table,vocab = read_table(tmp_path/'l.txt')
    assert table.file[0]==str(tmp_path/'Image'/'aligned'/'train_00001_aligned.jpg') and table.label.tolist()==['neutral']*2

def test_images_of_a_folder_must_be_there(affectnet):
    (affectnet/'training'/'3.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 16 image files not found: .*3.png'): read_table(affectnet, scheme='official')

def test_fer2013_is_known_by_its_header(tmp_path):
    px = ' '.join(['9']*48**2)
    f = tmp_path/'faces.csv'
    f.write_text('emotion,pixels,Usage\n'+''.join(f'{i%7},{px},{"Training" if i<7 else "PublicTest"}\n' for i in range(14)))
    assert find_format(f)=='fer2013'
    table,vocab = read_table(f)
    assert len(table)==14 and vocab[0]=='angry' and table.is_valid.sum()==7
    f.rename(tmp_path/'fer2013.csv')
    assert find_format(tmp_path)=='fer2013'

def test_the_constructors_read_the_same(mirror):
    dls = FERDataLoaders.from_rafdb(mirror, num_workers=0)
    table,vocab = read_table(mirror)
    assert list(dls.vocab)==vocab and [str(o) for o in dls.train_files]==table.file[~table.is_valid].tolist()

def rows_of(tmp_path, text, name='l.csv', **kwargs):
    "Labels, files and flags that are read from a csv file"
    (tmp_path/name).write_text(text)
    table,vocab = read_table(tmp_path/name, **kwargs)
    return table,vocab

@pytest.mark.parametrize('text,kwargs', [
    ('file,label,is_valid\na.png,happy,0\nb.png,sad,0\nc.png,sad,True\n', {}),
    ('Image name;Emotion;IsValid\na.png;happy;0\nb.png;sad;0\nc.png;sad;1\n', {}),
    (',pth,label,relFCs,is_valid\n0,a.png,happy,0.9,0\n1,b.png,sad,0.8,0\n2,c.png,sad,0.7,1\n', {}),
    ('file,label,given,decision,is_valid\na.png,happy,sad,relabel,False\nb.png,sad,sad,,False\nc.png,sad,sad,,True\n', {}),
    ('emotion,split,filename\nhappy,train,a.png\nsad,Train,b.png\nsad,val,c.png\n', {}),
    ('x\ty\tz\nhappy\ta.png\t0\nsad\tb.png\t0\nsad\tc.png\t1\n', dict(fn_col='y', label_col='x', valid_col='z')),
    ('a.png,happy,0\nb.png,sad,0\nc.png,sad,1\n', dict(fn_col='0', label_col='1', valid_col='2')),
    ('filename,happy,sad,is_valid\na.png,1,0,0\nb.png,0,1,0\nc.png,0,1,1\n', {})])
def test_csv_of_many_tools(tmp_path, text, kwargs):
    "Columns are found by their names, or named; files with and without a header, an index, one-hot columns, a split column"
    table,vocab = rows_of(tmp_path, text, **kwargs)
    assert vocab==['happy','sad'] and table.label.tolist()==['happy','sad','sad'] and table.is_valid.tolist()==[False,False,True]
    assert table.file.tolist()==[str(tmp_path/o) for o in ('a.png','b.png','c.png')]

def test_csv_with_two_columns(tmp_path):
    for text in ('a.png,happy\nb.png,sad\n', 'picture,what\na.png,happy\nb.png,sad\n', 'what,picture\nhappy,a.png\nsad,b.png\n', 'Image name,label\na.png,happy\nb.png,sad\n'):
        text += ''.join(o.replace('a.', f'{i}.').replace('b.', f'{i}b.')+'\n' for i in range(5) for o in text.split('\n')[-3:-1])
        with pytest.warns(UserWarning, match='held out'): table,vocab = rows_of(tmp_path, text)
        assert vocab==['happy','sad'] and len(table)==12

@pytest.mark.parametrize('text,message', [
    ('id,name,colour\n1,a.png,red\n2,b.png,blue\n', "columns id, name, colour, and none is known to hold files: name it by fn_col="),
    ('file,what,why\na.png,b,c\n', 'none is known to hold labels: name it by label_col='),
    ('image,path,label\na.png,/x/a.png,b\n', "any of them may be meant: name one by fn_col='image'"),
    ('file,label\n../a.png,x\nb.png,y\n', 'leaves the image folder')])
def test_uncertain_columns_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=message): rows_of(tmp_path, text)

def test_a_third_part_of_a_csv_is_said(tmp_path):
    with pytest.warns(UserWarning, match='not read: 1 rows of .*l.csv that are for test'):
        table,_ = rows_of(tmp_path, 'file,label,split\na,x,train\nb,y,train\nc,x,val\nd,y,test\n')
    assert len(table)==3

def test_csv_in_a_folder_and_images_elsewhere(tmp_path):
    draw(tmp_path/'faces'/'a.png'); draw(tmp_path/'faces'/'b.png')
    (tmp_path/'labels.csv').write_text('file,label,is_valid\na.png,x,0\nb.png,y,0\nc.png,x,1\n')
    draw(tmp_path/'faces'/'c.png')
    table,_ = read_table(tmp_path/'labels.csv', images=tmp_path/'faces')
    assert table.file.iloc[0]==str(tmp_path/'faces'/'a.png')
    (tmp_path/'labels.csv').rename(tmp_path/'faces'/'mine.csv')
    assert len(read_table(tmp_path/'faces', 'csv')[0])==3
    (tmp_path/'faces'/'other.csv').write_text('')
    with pytest.raises(ValueError, match='has the csv files mine.csv, other.csv: give the path of one'): read_table(tmp_path/'faces', 'csv')
    with pytest.raises(FileNotFoundError, match='has no csv file'): read_table(tmp_path, 'csv')

@pytest.mark.parametrize('name', ['l.csv','data.zip','labels.txt'])
def test_an_archive_is_no_csv(tmp_path, name):
    import zipfile
    with zipfile.ZipFile(tmp_path/name, 'w') as z: z.writestr('labels.csv', 'file,label\n')
    with pytest.raises(ValueError, match=f'{name} is an archive'): read_table(tmp_path/name)

def test_affectnet_lists_in_another_order_and_spelling(affectnet):
    for split in ('training','validation'):
        rows = ['Expression, subdirectory_filePath', *(f'{i}, {split}/{i}.png' for i in range(8))]
        (affectnet/f'{split}.csv').write_text('\n'.join(rows))
    assert read_table(affectnet, scheme='official')[0].label.tolist()[:2]==['neutral','happy']
    (affectnet/'training.csv').write_text('Expression,subdirectory_filePath\n0,../x.png\n')
    with pytest.raises(ValueError, match='training.csv line 2: the image name .* leaves the image folder'): read_table(affectnet, scheme='official')
