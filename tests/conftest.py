"""Where the tests find real data: the folder named by the environment variable RESUP_TESTDATA, as `.ci/run` sets it.

Tests that need it skip, and say so, where it isn't set; a folder that is named must be there and complete, so a missing file is a failure.
All tests, and the processes they start, calculate with one thread: bit-identical runs are the same only with the same number of threads, and two jobs on two cores don't wait for each other."""
import os, signal, sys, tarfile
os.environ['OMP_NUM_THREADS'] = '1' # before torch is imported
if signal.getsignal(signal.SIGINT)==signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler) # so shells start background jobs, and a test that interrupts itself would wait for ever
from pathlib import Path

import numpy as np
import pytest

LONG = ['test_workers','test_loop','test_checkpoint','test_cli','test_decisions','test_benchmarks','test_distributed'] # files of minutes

def pytest_collection_modifyitems(items):
    "Long files first, so that no process waits for another at the end of `pytest -n 2 --dist loadfile --no-loadscope-reorder`"
    items.sort(key=lambda o: o.path.stem not in LONG)

@pytest.fixture(scope='session')
def build():
    "docs/build.py as a module"
    docs = str(Path(__file__).resolve().parents[1]/'docs')
    sys.path.insert(0, docs)
    try:
        import build
        yield build
    finally: sys.path.remove(docs)

@pytest.fixture(scope='session')
def shared():
    "The folder of test data"
    named = os.environ.get('RESUP_TESTDATA')
    if not named: pytest.skip('needs real data: RESUP_TESTDATA names no folder')
    assert Path(named).is_dir(), f'RESUP_TESTDATA names {named}, which is no folder'
    return Path(named)

@pytest.fixture(scope='session')
def golden(shared):
    "Numbers that the authors' own program gave"
    with np.load(shared/'golden'/'resup_reference.npz') as f: return dict(f)

@pytest.fixture(scope='session')
def ferplus_root(shared, tmp_path_factory):
    "Real FERPlus images and votes, unpacked"
    dest = tmp_path_factory.mktemp('ferplus')
    with tarfile.open(shared/'data'/'ferplus.tar.xz') as f:
        f.extraction_filter = getattr(tarfile, 'data_filter', None) # Python 3.11.3 and older have none
        f.extractall(dest)
    return dest
