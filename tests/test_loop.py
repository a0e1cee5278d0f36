"From noisy labels to better ones in the shell: real processes, and each next command as the last one printed it."
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fastai_resup.data.decisions import save_decisions
from fastai_resup.synth import make_faces

ENV = {**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONWARNINGS':'ignore'}
TINY = shlex.split('--weights none --arch test_resnet --img-size 32 --bs 16 --epochs 1')

def script(name):
    "A command's script as pip installed it beside this Python"
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    return found or pytest.fail(f'{name} is not installed beside {sys.executable}')

def shell(folder, *words):
    "Run a command in a folder, through a pipe; returns its lines"
    name,*args = map(str, words)
    p = subprocess.run([script(name), *args], cwd=folder, env=ENV, text=True, capture_output=True)
    assert p.returncode==0, p.stderr
    assert '\r' not in p.stdout+p.stderr and '█' not in p.stdout+p.stderr # a log has no bars
    return p.stdout.splitlines()

def printed_command(lines, name):
    "The command that the last one printed to go on with, split as a shell does"
    found = [o for o in lines if o.startswith(f'  {name} ')]
    assert len(found)==1, lines
    return shlex.split(found[0])

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "In a folder whose name a shell would split"
    return make_faces(tmp_path_factory.mktemp('loop')/'my faces', 70, 21, 32, nuisance=0., progress=False)

@pytest.fixture(scope='module')
def trained(faces):
    "A trained model, and what the command printed"
    lines = shell(faces.parent, 'resup-train', faces.name, '--out', 'model', '--noise', 0.3, *TINY)
    return faces.parent/'model',lines

def decide(page):
    "What a person does on the page: the ten worst labels that are noisy get the true one, and the next one is dropped"
    data = json.loads((page/'data.js').read_text().removeprefix('window.RESUP_AUDIT = ').removesuffix(';\n'))
    files = [data['root']+o for o in data['files']]
    rows = pd.DataFrame(dict(file=files, label=[data['classes'][i] for i in data['label']]))
    true = rows.file.map(lambda f: Path(f).parent.name)
    noisy = rows[rows.label!=true].head(11).assign(decision='relabel', new_label=true)
    noisy.loc[noisy.index[-1],['decision','new_label']] = ['drop','']
    return noisy

def test_the_loop_closes(trained, faces, tmp_path):
    "Train, audit, decide, apply, train again: the list has fewer noisy labels, and the second training the same validation images"
    model,lines = trained
    lines = shell(tmp_path, *printed_command(lines, 'resup-audit'))
    assert f'Open {tmp_path}/review/index.html in a browser' in '\n'.join(lines)
    save_decisions(decide(tmp_path/'review'), tmp_path/'decisions.csv')
    lines = shell(tmp_path, *printed_command(lines, 'resup-audit'))
    assert '69 labels written to labels.csv: 10 changed, 0 kept, 1 images dropped, 59 undecided' in lines
    table = pd.read_csv(tmp_path/'labels.csv')
    assert len(table)==69+21 and table.is_valid.sum()==21 and (table.label!=table.true).sum()==10
    lines = shell(tmp_path, *printed_command(lines, 'resup-train'))
    assert any(o.startswith('69 training and 21 validation images of 7 classes: anger, ') for o in lines)
    again = json.loads((Path(f'{model}-corrected')/'settings.json').read_text())
    first = json.loads((model/'settings.json').read_text())
    for o in ('arch','epochs','img_size','bs','vocab'): assert again[o]==first[o], o
    labels = pd.read_csv(Path(f'{model}-corrected')/'p_clean.csv').set_index('file').label
    assert labels.to_dict()==table[~table.is_valid].set_index('file').label.to_dict()

def test_training_ends_in_words(trained, faces):
    "The rate, whether to trust the audit, and what to type: one epoch from random weights teaches nothing"
    model,lines = trained
    text = '\n'.join(lines)
    assert 'Estimated noise rate: ' in text and 'of the 70 training labels are probably noisy' in text
    assert "Don't trust the audit yet:" in text and '- The networks are near chance: their accuracy is ' in text
    longer = printed_command(lines, 'resup-train')
    assert longer[1]==str(faces) and longer[longer.index('--epochs')+1]=='2' and '--overwrite' in longer
    assert any(o.startswith('epoch 1 of 1: train_loss ') for o in lines)

def test_a_csv_of_labels_from_anywhere(faces, tmp_path):
    "As a labelling tool writes it: other names of columns, another separator, and names below a folder of images"
    files = sorted((faces/'train').rglob('*.png'))
    rows = [f'{o.relative_to(faces)};{o.parent.name};{i}' for i,o in enumerate(files)]
    (tmp_path/'export.csv').write_text('\n'.join(['Picture;Emotion;annotator', *rows])+'\n')
    columns = ['--images', faces, '--fn-col', 'Picture', '--label-col', 'Emotion']
    assert shell(tmp_path, 'resup-train', 'export.csv', '--quiet', *columns, *TINY)==[]
    lines = shell(tmp_path, 'resup-audit', 'resup-train', 'export.csv')                      # the columns are known from the training
    assert '56 labels with an estimated noise rate' in '\n'.join(lines)
    settings = json.loads((tmp_path/'resup-train'/'settings.json').read_text())
    assert settings['format']=='csv' and settings['label_col']=='Emotion' and settings['images']==str(faces)

def test_bars_on_a_terminal(faces, tmp_path):
    "The same command with a terminal for stdout shows bars and no lines"
    ours,theirs = pty.openpty()
    args = [script('resup-train'), str(faces), '--out', str(tmp_path/'out'), *TINY]
    with subprocess.Popen(args, env=ENV, stdout=theirs, stderr=subprocess.DEVNULL) as p:
        os.close(theirs)
        shown = b''
        while True:
            try: chunk = os.read(ours, 10000)
            except OSError: break # Linux says so at the end
            if not chunk: break
            shown += chunk
    os.close(ours)
    text = shown.decode()
    assert p.returncode==0 and '█' in text and '100.00% [4/4 ' in text and 'epoch 1 of 1:' not in text

@pytest.mark.parametrize('method,command', [('forkserver', 'resup_train'), ('spawn', 'resup_audit')])
def test_workers_that_are_not_forked(method, command, trained, faces, tmp_path):
    "A command is the main module of its own process; the workers import it. The preloaded module is for speed"
    args = {'resup_train':[faces, *TINY], 'resup_audit':[trained[0], faces]}[command]
    f = tmp_path/'command' # as a console script, but for the first two lines below `if`
    f.write_text('\n'.join([
        'import multiprocessing, sys',
        f'from fastai_resup.cli.commands import {command}',
        "if __name__=='__main__':",
        f"    multiprocessing.set_start_method('{method}')",
        "    multiprocessing.set_forkserver_preload(['fastai_resup.cli.train'])",
        f'    sys.exit({command}.main())']))
    words = [sys.executable, f, *args, '--out', tmp_path/'out', '--workers', 2]
    p = subprocess.run(list(map(str, words)), cwd=tmp_path, env=ENV, text=True, capture_output=True)
    assert p.returncode==0 and (tmp_path/'out'/'settings.json').is_file(), p.stderr
