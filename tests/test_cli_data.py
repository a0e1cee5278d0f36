"resup-data as people run it: a real kill in the middle, errors, exit codes."
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastai_resup.data import FERDataLoaders
from fastai_resup.data.fer2013 import write_fer2013
from fastai_resup.data.formats import find_format, read_table
from fastai_resup.data.ferplus import ferplus_votes, read_fer2013new

USAGE = ['Training']*8+['PublicTest']+['PrivateTest']

def fer2013(path, n, votes=False, change={}):
    "`n` rows, pixel (0, 0) and (0, 1) of row i are i%256 and i//256"
    path.mkdir(exist_ok=True)
    tail = ' '.join(['9']*(48**2-2))
    rows = {i: f'{i%7},{i%256} {i//256} {tail},{USAGE[i%10]}' for i in range(n)}
    (path/'fer2013.csv').write_text('\n'.join(['emotion,pixels,Usage', *{**rows, **change}.values()])+'\n')
    if votes: (path/'fer2013new.csv').write_text('\n'.join(['Usage,Image name,'+','.join(ferplus_votes), *[f"{USAGE[i%10]},{'' if i%50==7 else f'fer{i+i//50:07d}.png'},0,{i%9+1},0,1,0,0,0,0,0,0" for i in range(n)]]))
    return path

def start(tmp_path, *args):
    "The command in a process of its own, from the script that pip would install"
    script = tmp_path/'resup-data'
    script.write_text('import sys\nfrom fastai_resup.cli.commands import resup_data\nif __name__=="__main__": sys.exit(resup_data.main())\n')
    return subprocess.Popen([sys.executable, script, *map(str, args)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, 'PYTHONWARNINGS':'ignore'},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # a shell's background jobs ignore it

def wait_for(done, seconds=240):
    end = time.time()+seconds
    while not done():
        if time.time()>end: pytest.fail('it took too long')
        time.sleep(0.01)

def images(folder): return {p.name:p.stat() for p in folder.rglob('*.png') if p.name[0]!='.'}

def test_goes_on_after_sigkill(tmp_path):
    src,out,work = fer2013(tmp_path/'src', 6000, votes=True),tmp_path/'out',tmp_path/'out.unfinished'
    p = start(tmp_path, 'fer2013', src, out)
    wait_for(lambda: p.poll() is not None or work.exists() and len(images(work))>200)
    p.send_signal(signal.SIGKILL)
    p.communicate()
    assert p.returncode==-signal.SIGKILL and not out.exists()
    before = images(work)
    assert 200<len(before)<5880
    for f in work.rglob('*.png'):
        if f.name[0]!='.': Image.open(f).load()                         # none is half written
    (work/'FER2013Train'/'.fer9999999.png.1.tmp').write_bytes(b'half')   # what a kill during a write leaves
    empty = next(f for f in work.rglob('fer*.png'))
    empty.write_bytes(b'')                                              # what a power cut may leave
    p = start(tmp_path, 'fer2013', src, out)
    stdout,stderr = p.communicate()
    assert p.returncode==0, stderr
    assert 'is complete: 4680 train, 600 valid, 600 test images, in the layout of FERPlus' in stdout
    after = images(out)
    assert len(after)==5880 and not work.exists() and not list(out.rglob('.*.tmp'))
    kept = [n for n in before if n!=empty.name]
    assert all((after[n].st_ino,after[n].st_mtime_ns)==(before[n].st_ino,before[n].st_mtime_ns) for n in kept)   # not written again
    rows = pd.read_csv(out/'rows.csv')
    for line,file in zip(rows.line, rows.file):
        i = line-2
        assert int(file[-11:-4])==i+i//50 and np.array(Image.open(out/file))[0,:3].tolist()==[i%256,i//256,9]
    votes = pd.read_csv(out/'FER2013Train'/'label.csv', header=None).set_index(0)
    assert votes.loc['fer0000051.png'].tolist()==['(0, 0, 48, 48)',0,50%9+1,0,1,0,0,0,0,0,0]
    assert len(FERDataLoaders.from_ferplus(out, rule='plurality', num_workers=0).train_ds)==4680

def test_interrupt_says_how_to_go_on(tmp_path):
    src,work = fer2013(tmp_path/'src', 6000),tmp_path/'out.unfinished'
    p = start(tmp_path, 'fer2013', src, tmp_path/'out')
    wait_for(lambda: p.poll() is not None or work.exists() and len(images(work))>50)
    p.send_signal(signal.SIGINT)
    _,stderr = p.communicate()
    assert p.returncode==130 and 'same command again to go on' in stderr and 'Traceback' not in stderr
    assert work.exists() and not (tmp_path/'out').exists()

def test_errors_are_one_line(tmp_path):
    src = fer2013(tmp_path/'src', 30, votes=True)
    (src/'fer2013new.csv').write_text('\n'.join((src/'fer2013new.csv').read_text().split('\n')[:-1]))
    p = start(tmp_path, 'fer2013', src, tmp_path/'out')
    _,stderr = p.communicate()
    assert p.returncode==1 and '30 rows and' in stderr and 'has 29' in stderr and 'Traceback' not in stderr
    p = start(tmp_path, 'mnist', src, tmp_path/'out')
    _,stderr = p.communicate()
    assert p.returncode==2 and "'mnist'" in stderr and 'fer2013' in stderr
    assert sorted(o.name for o in tmp_path.iterdir())==['resup-data','src']

px = ' '.join(['9']*48**2)
@pytest.mark.parametrize('row,message', [(f'1,{px} 9,Training', '2305 pixels, expected 2304'), (f'1,{px[:-1]}256,Training', '256 is outside 0..255'), (f'7,{px},Training', "emotion is '7'"),
                                         (f'1,{px},Test', "Usage is 'Test'"), ('1,9', 'three fields'), (f'1,{px[:-1]}x,Training', 'must be integers'), (f'x,{px},Training', "emotion is 'x'")])
def test_broken_rows_are_named(tmp_path, row, message):
    src = fer2013(tmp_path/'src', 30, change={11:row})
    with pytest.raises(ValueError, match=f'fer2013.csv has 1 broken rows: line 13: .*{message}'): write_fer2013(src/'fer2013.csv', tmp_path/'out', progress=False)
    assert not (tmp_path/'out').exists()
    fer2013(tmp_path/'src', 30)
    assert len(images(write_fer2013(src/'fer2013.csv', tmp_path/'out', progress=False)))==30

def test_ten_broken_rows_then_a_count(tmp_path):
    src = fer2013(tmp_path/'src', 30, change={i:'9,9,9' for i in range(13)})
    with pytest.raises(ValueError, match='13 broken rows: line 2: .*line 11: .* and 3 more'): write_fer2013(src/'fer2013.csv', tmp_path/'out', progress=False)

def test_nothing_of_others_is_touched(tmp_path):
    src = fer2013(tmp_path/'src', 30)
    for name in ('out','new.unfinished'):
        (tmp_path/name).mkdir()
        (tmp_path/name/'mine.txt').write_text('x')
    with pytest.raises(FileExistsError, match='choose another folder'): write_fer2013(src/'fer2013.csv', tmp_path/'out', progress=False)
    with pytest.raises(FileExistsError, match='new.unfinished is in the way'): write_fer2013(src/'fer2013.csv', tmp_path/'new', progress=False)
    assert (tmp_path/'out'/'mine.txt').exists() and (tmp_path/'new.unfinished'/'mine.txt').exists()

def test_one_name_twice_keeps_the_first_row(tmp_path):
    "As in the real fer2013new.csv, where four names occur twice"
    src = fer2013(tmp_path/'src', 30, votes=True)
    f = src/'fer2013new.csv'
    f.write_text(f.read_text().replace('fer0000005.png,0,6', 'fer0000003.png,0,9'))
    out = write_fer2013(src/'fer2013.csv', tmp_path/'out', f, progress=False)
    assert np.array(Image.open(out/'FER2013Train'/'fer0000003.png'))[0,0]==3
    lines = [l for l in (out/'FER2013Train'/'label.csv').read_text().split('\n') if 'fer0000003' in l]
    assert len(lines)==1 and '0,4,0,1' in lines[0]

def test_real_votes_fit(shared, ferplus_root):
    "The real fer2013new.csv with made-up pixels: as many images as FERPlus has"
    df = read_fer2013new(ferplus_root/'fer2013new.csv')
    assert len(df)==35887 and df.name.isna().sum()==173
    assert df.groupby('split').name.nunique().to_dict()==dict(train=28558, valid=3579, test=3573)

@pytest.mark.parametrize('header,row', [('emotion, Usage, pixels','{e}, {u}, {p}'), (',emotion,pixels,Usage','{i},{e},{p},{u}'), ('pixels,USAGE,Emotion','{p},{u},{e}'),
                                        (' pixels ,emotion, usage','" {p} ",{e},{u}')])
def test_other_headers_of_fer2013(tmp_path, header, row):
    rows = [row.format(i=i, e=i%7, u='Training' if i<14 else 'PublicTest', p=' '.join([str(i)]*48**2)) for i in range(21)]
    (tmp_path/'icml_face_data.csv').write_text('\n'.join([header, *rows])+'\n')
    table,vocab = read_table(tmp_path)
    assert find_format(tmp_path)=='fer2013' and table.is_valid.sum()==7 and len(table)==21
    assert table.label.tolist()==[vocab[int(o[-11:-4])%7] for o in table.file]
    assert all(np.array(Image.open(o))[5,5]==int(o[-11:-4]) for o in table.file)

def test_fer2013_without_usage_is_split(tmp_path):
    "As train.csv of the competition"
    (tmp_path/'train.csv').write_text('emotion,pixels\n'+''.join(f'{i%7},{px}\n' for i in range(21)))
    with pytest.warns(UserWarning, match='held out'): table,vocab = read_table(tmp_path/'train.csv')
    assert len(vocab)==7 and table.is_valid.sum()==7
    (tmp_path/'test.csv').write_text(f'pixels\n{px}\n')
    with pytest.raises(ValueError, match="has the columns 'pixels', expected emotion"): write_fer2013(tmp_path/'test.csv', tmp_path/'out')
    assert not list(tmp_path.glob('out*'))

def archive(path):
    with tarfile.open(path, 'w:gz') as t: t.add(fer2013(path.parent/'inner', 30)/'fer2013.csv', 'fer2013/fer2013.csv')
    shutil.rmtree(path.parent/'inner')

def test_failures_leave_nothing_behind(tmp_path):
    "An archive under the csv's name, a broken row, votes of another file: no target, no .unfinished, no parents"
    archive(tmp_path/'fer2013.csv')
    with pytest.raises(ValueError, match='fer2013.csv is an archive'): write_fer2013(tmp_path/'fer2013.csv', tmp_path/'a'/'b'/'out')
    with pytest.raises(ValueError, match='fer2013.csv is an archive'): read_table(tmp_path)
    with tarfile.open(tmp_path/'plain.csv', 'w') as t: t.add(tmp_path/'fer2013.csv')
    with pytest.raises(ValueError, match='zero bytes'): write_fer2013(tmp_path/'plain.csv', tmp_path/'a'/'out')
    src = fer2013(tmp_path/'src', 30, change={11:'9,9,9'})
    with pytest.raises(ValueError, match='1 broken rows'): write_fer2013(src/'fer2013.csv', tmp_path/'a'/'b'/'out', progress=False)
    assert sorted(o.name for o in tmp_path.iterdir())==['fer2013.csv','plain.csv','src']

def test_a_folder_under_the_csvs_name(tmp_path):
    "What unpacking leaves on some systems"
    fer2013(tmp_path/'fer2013.csv', 30)
    assert len(read_table(tmp_path)[0])==27
