"Files: csv comes back as it was written, whatever text is in it, and nothing is left of a file that wasn't finished."
import os

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastai_resup.files import csv_rows, new_folder, read_csv, save_csv, text_column, whole_file

# any text but NUL, which Python 3.10 can't read, and surrogates other than those that stand for single bytes
character = st.characters(blacklist_characters='\0', blacklist_categories=('Cs',)) | st.sampled_from('=+-@\'"\t\r\n, ;\ufeff\udcff\udce9')
text = st.text(character, max_size=6)

@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(text, text), max_size=4))
@example([('NA','None'), ('','007'), ('nan','=x'), ("'a","'=a")])
@example([('a\rb','"'), ('','')])
def test_csv_comes_back_as_it_was(tmp_path_factory, rows):
    f = tmp_path_factory.mktemp('csv')/'a.csv'
    cols = {c:text_column(o) for c,o in zip(('file','label'), zip(*rows))} if rows else {'file':[], 'label':[]}
    save_csv(pd.DataFrame(cols), f)
    back = read_csv(f, ['file','label'], guarded=True)
    assert list(back.itertuples(index=False, name=None))==rows
    first = [fields[i][:1] for _,fields in csv_rows(f) for i in (0,1)]
    assert not set(first)&set('=+-@\t\r\n')

def test_rows_of_any_length_and_nested_readers(tmp_path):
    f = tmp_path/'a.csv'
    f.write_text('a,b\n'+'x'*200_000+',1\n')
    for outer in csv_rows(f): # two readers of long fields at once
        assert [len(o[0]) for _,o in csv_rows(f)]==[1,200_000]
    assert outer[0]==2

@pytest.mark.parametrize('sync', [False, True])
def test_what_fails_leaves_the_old_file(tmp_path, sync):
    f = tmp_path/'a.txt'
    f.write_text('old')
    with pytest.raises(KeyboardInterrupt), whole_file(f, overwrite=True, sync=sync) as tmp:
        tmp.write_text('new')
        raise KeyboardInterrupt
    assert f.read_text()=='old' and os.listdir(tmp_path)==['a.txt']
    with pytest.raises(FileNotFoundError), whole_file(f, overwrite=True, sync=sync): pass # the block wrote nothing
    with whole_file(f, overwrite=True, sync=sync) as tmp: tmp.write_text('new')
    assert f.read_text()=='new' and os.listdir(tmp_path)==['a.txt']

def test_a_folder_that_changed_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path/'out'
    with pytest.raises(FileExistsError, match='mine.txt'), new_folder(out, overwrite=True) as tmp:
        (tmp/'settings.json').write_text('{}')
        out.mkdir() # somebody else does
        (out/'settings.json').write_text('{}')
        (out/'mine.txt').write_text('')
    assert sorted(os.listdir(out))==['mine.txt','settings.json'] and os.listdir(tmp_path)==['out']
