"One registry of data formats: what is found, what is read, and which arguments are refused"
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastai_resup.data.formats import FormatError, find_format, format_args, formats, load_data, read_table

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

def test_folders_named_1_to_7_are_folders(numbered):
    "resup-noise took them for RAF-DB and resup-train for folders"
    assert find_format(numbered)=='folder'
    table,vocab = read_table(numbered)
    assert vocab==list('1234567') and table.is_valid.sum()==7 and list(load_data(numbered, num_workers=0).vocab)==vocab

def test_a_mirror_of_rafdb_is_known_by_its_file_names(mirror):
    "resup-noise took it for RAF-DB and resup-train for folders, with another order of classes"
    assert find_format(mirror)=='rafdb'
    assert read_table(mirror)[1][0]=='surprise' and load_data(mirror, num_workers=0).vocab[0]=='surprise'
    assert find_format(mirror, 'folder')=='folder'
