"""Where the tests find real data: the folder named by RESUP_TESTDATA, or `../shared` beside the checkout.

Tests that need it skip, and say so, where neither is there; a folder that is named must be complete."""
import os, tarfile
from pathlib import Path

import numpy as np
import pytest

NAMED = os.environ.get('RESUP_TESTDATA')
SHARED = Path(NAMED or Path(__file__).resolve().parents[2]/'shared')

@pytest.fixture(scope='session')
def shared():
    "The folder of test data"
    if not NAMED and not SHARED.is_dir(): pytest.skip(f'no test data at {SHARED}: name the folder by RESUP_TESTDATA')
    assert SHARED.is_dir(), f'RESUP_TESTDATA names {SHARED}, which is no folder'
    return SHARED

@pytest.fixture(scope='session')
def golden(shared):
    "Numbers that the authors' own program gave"
    with np.load(shared/'golden'/'resup_reference.npz') as f: return dict(f)

@pytest.fixture(scope='session')
def ferplus_root(shared, tmp_path_factory):
    "Real FERPlus images and votes, unpacked"
    dest = tmp_path_factory.mktemp('ferplus')
    with tarfile.open(shared/'data'/'ferplus.tar.xz') as f: f.extractall(dest, filter='data')
    return dest
