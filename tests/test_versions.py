"""What is imported is declared, the bounds in settings.ini are those of CI's oldest and newest set, and a wheel holds what a stranger's tools look for."""
import ast, shutil, subprocess, sys, zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
import fastai_resup

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT/'fastai_resup'

@pytest.fixture(scope='module')
def cfg():
    "settings.ini"
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def declared(cfg, *extras):
    "Name to `Requirement`, of the package and of extras"
    keys = ['requirements', *(f'{o}_requirements' for o in extras)]
    reqs = [Requirement(o) for k in keys for o in cfg[k].split()]
    return {canonicalize_name(o.name):o for o in reqs}

def pins(file):
    "Name to version, from a file of constraints"
    lines = [o.partition('#')[0].strip() for o in (ROOT/'.ci'/file).read_text(encoding='utf-8').splitlines()]
    return {canonicalize_name(n):Version(v) for n,v in (o.split('==') for o in lines if o)}

def imports(source, inner):
    "Top-level modules that a source imports from elsewhere: at its top, or inside of functions and `if`"
    tree = ast.parse(source)
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): names = [a.name for a in o.names]
        elif isinstance(o, ast.ImportFrom) and not o.level: names = [o.module]
        else: continue
        if (o not in tree.body)==inner: yield from (n.partition('.')[0] for n in names)

def needed(files, inner):
    "Distributions that files import; the standard library, the package itself and the files' neighbours aside"
    files = list(files)
    own = {'fastai_resup', *sys.stdlib_module_names, *(o.stem for o in files)}
    mods = {m for o in files for m in imports(o.read_text(encoding='utf-8'), inner)}-own
    if sys.version_info<(3,11): pytest.skip("Python 3.10's packages_distributions misses most packages")
    dists = packages_distributions()
    return {canonicalize_name(dists[o][0]) for o in mods}

def optional(cfg): return [k.removesuffix('_requirements') for k in cfg if k.endswith('_requirements')]

# --- what is imported

def test_imports_of_a_source_are_found():
    source = 'import a.b\nfrom c import d\nfrom . import e\ndef f():\n    import g, h.i'
    assert (list(imports(source, False)),list(imports(source, True)))==(['a','c'], ['g','h'])

def test_what_the_package_imports_is_declared_and_no_more(cfg):
    files = [o for o in PACKAGE.rglob('*.py') if o.name!='_modidx.py']
    top,inner = needed(files, False),needed(files, True)
    assert top<=set(declared(cfg)), 'imported by every user, and not in requirements'
    assert set(declared(cfg))<=top|inner, 'in requirements, and not imported'
    assert inner<=set(declared(cfg, *(o for o in optional(cfg) if o not in ('dev','docs')))), 'imported on use, and in no extra that users install'

def test_what_tests_and_docs_import_is_declared(cfg):
    files = [f for o in ('tests','benchmarks','docs') for f in (ROOT/o).glob('*.py')]
    assert needed(files, False)<=set(declared(cfg, 'dev', 'docs'))

def test_extras_bound_alike(cfg):
    "A package that several extras name has the same bounds in each"
    bounds = {}
    for extra in optional(cfg):
        for o in cfg[f'{extra}_requirements'].split():
            r = Requirement(o)
            assert bounds.setdefault(canonicalize_name(r.name), r.specifier)==r.specifier, (extra, o)

# --- bounds

def lowest(req): return next(Version(o.version) for o in req.specifier if o.operator=='>=')

def test_oldest_set_is_the_lower_bounds(cfg):
    assert pins('oldest.txt')=={n:lowest(o) for n,o in declared(cfg).items()}

def test_newest_set_is_within_the_bounds(cfg):
    newest,reqs = pins('constraints.txt'),declared(cfg)
    assert set(newest)==set(reqs) and all(reqs[n].specifier.contains(v) for n,v in newest.items())

# --- what a stranger's tools look for

def test_version_has_one_source(cfg):
    assert fastai_resup.__version__==cfg['version'], 'not installed since the version changed: pip install -e .'
    with pytest.raises(AttributeError, match='has no attribute'): fastai_resup.nonsense

def test_import_of_the_package_alone_is_light():
    code = 'import sys, fastai_resup; fastai_resup.__version__; print(*{"torch","fastai","numpy"} & set(sys.modules))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip()==''

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "A wheel of the committed and uncommitted sources, built in a copy"
    src,out = (tmp_path_factory.mktemp(o) for o in ('src','dist'))
    for o in 'setup.py pyproject.toml settings.ini MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff'.split(): shutil.copy(ROOT/o, src)
    shutil.copytree(PACKAGE, src/'fastai_resup', ignore=shutil.ignore_patterns('__pycache__'))
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', out, src], check=True)
    return zipfile.ZipFile(next(out.glob('*.whl')))

def test_wheel_holds_every_file_of_the_package(wheel):
    ours = {o.relative_to(ROOT).as_posix() for o in PACKAGE.rglob('*') if o.is_file() and '__pycache__' not in o.parts}
    assert ours<=set(wheel.namelist()) and 'fastai_resup/py.typed' in ours

def test_wheel_says_licence_pythons_topics_and_types(wheel, cfg):
    name = next(o for o in wheel.namelist() if o.endswith('.dist-info/METADATA'))
    meta = Parser().parsestr(wheel.read(name).decode())
    said = meta.get_all('Classifier')
    pythons = {o.rpartition(' ')[2] for o in said if o.startswith('Programming Language :: Python :: 3.')}
    assert pythons==set(cfg['pythons'].split()) and min(pythons, key=Version)==cfg['min_python']
    assert meta['Requires-Python']==f'>={cfg["min_python"]}' and meta['Version']==cfg['version']
    for o in ('License :: OSI Approved :: Apache Software License', 'Typing :: Typed', 'Topic :: '): assert any(s.startswith(o) for s in said), o
    assert {canonicalize_name(Requirement(o).name) for o in meta.get_all('Requires-Dist') if 'extra' not in o}==set(declared(cfg))
