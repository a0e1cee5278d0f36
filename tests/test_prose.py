"""What the pages promise: they run after `pip install`, their figures are those of the csv files, and they keep their length.

    python tests/test_prose.py nbs/tutorials/04_beyond_faces.ipynb     runs a page outside of the clone, with a copy of the package alone"""
import ast, io, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT/'benchmarks'))
from report import noise_words
PAGES = sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb')) + sorted((ROOT/'nbs'/'explanations').glob('*.ipynb'))
READ = [o for o in PAGES if o.stem in ('02_when_it_helps','03_how_it_compares')] # train nothing
NOISE = {'30 % at random':'sym30', '50 % at random':'sym50', '60 % at random':'sym60', 'clean':'clean', '30 % to the next class':'pair30', '40 % to the next class':'pair40', '105 images':'tiny'}

def cells(path, kind='code'):
    "Sources of a notebook's cells"
    return [''.join(o['source']) for o in json.loads(path.read_text(encoding='utf-8'))['cells'] if o['cell_type']==kind]

def run_outside(path, folder):
    "Run a page's code in `folder`, by a copy of the package, without the clone on the path; what it printed, and its return code"
    shutil.copytree(ROOT/'fastai_resup', folder/'site'/'fastai_resup', ignore=shutil.ignore_patterns('__pycache__'))
    code = [o for o in cells(path) if not o.startswith('%')]
    (folder/'code.json').write_text(json.dumps(code), encoding='utf-8')
    script = '''
import json
from execnb.shell import CaptureShell
import fastai_resup
assert 'site' in fastai_resup.__file__, fastai_resup.__file__
shell = CaptureShell(mpl_format='png')
for source in json.load(open('code.json', encoding='utf-8')):
    shell.run(source)
    if shell.exc: raise SystemExit(source+shell.prettytb())
'''
    env = dict(os.environ, PYTHONPATH=str(folder/'site'), MPLBACKEND='Agg', IN_TEST='1', PYTHONWARNINGS='ignore')
    run = subprocess.run([sys.executable, '-c', script], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.returncode, run.stdout

@pytest.mark.parametrize('path', PAGES, ids=lambda o: o.stem)
def test_pages_read_nothing_of_the_clone(path):
    for source in cells(path):
        code = re.sub(r'^\s*#.*$', '', source, flags=re.M)
        assert not re.search(r"__file__|parents\[|benchmarks|ferplus_mini|drawn_runs", code), source

@pytest.mark.parametrize('path', READ, ids=lambda o: o.stem)
def test_pages_run_outside_of_the_clone(path, tmp_path):
    code,said = run_outside(path, tmp_path)
    assert code==0, said

def test_results_say_that_they_need_a_clone(tmp_path):
    code,said = run_outside(ROOT/'nbs'/'results.ipynb', tmp_path)
    assert code!=0 and 'run this page in a clone' in said
    assert 'in a clone of the repository' in ' '.join(cells(ROOT/'nbs'/'results.ipynb', 'markdown'))

# Figures

def texts(path):
    "Strings that a page's cells begin with `# Measured` assign to names"
    found = {}
    for source in cells(path):
        if not source.startswith('# Measured'): continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant): found[node.targets[0].id] = node.value.value
    return found

def read_text(text): return pd.read_csv(io.StringIO(text.strip()), skipinitialspace=True)

def runs():
    "All rows of both csv files, one network's accuracy beside them"
    faces = pd.read_csv(ROOT/'benchmarks'/'ferplus_mini_runs.csv').assign(data='faces')
    drawn = pd.read_csv(ROOT/'benchmarks'/'drawn_runs.csv').rename(columns={'setting':'noise'}).assign(data='drawn', split='drawn', schedule='fit_one_cycle')
    both = pd.concat([faces, drawn])
    return both[both.schedule=='fit_one_cycle'].assign(one=lambda o: o[['acc_0','acc_1']].mean(axis=1)).set_index(['data','split','noise','method','seed']).sort_index()

columns = {'one':'one', 'ensemble':'acc_ensemble', 'class_mean':'acc_class_mean', 'memorised':'memorised', 'auroc':'auroc'}

def check(row, name, method, at, split):
    "Compare the figures of one method in one row of a page with the csv"
    run = at.loc[row.data, split, NOISE[row.noise], method, row.seed]
    for short,column in columns.items():
        key = f'{short}_{name}' if name else short
        if key not in row: continue
        assert pd.isna(row[key]) and pd.isna(run[column]) or abs(row[key]-run[column])<=0.00051, (row.to_dict(), key, run[column])

def test_figures_of_when_it_helps():
    page = ROOT/'nbs'/'explanations'/'02_when_it_helps.ipynb'
    at = runs()
    table = read_text(texts(page)['measured'])
    assert len(table)>20
    for _,row in table.iterrows():
        linear = ':head=linear' if row.data=='faces' else ''
        warm = f':warmup={row.warmup}' if row.warmup>1 else ''
        split = 'drawn' if row.data=='drawn' else 'dev' if row.seed>=10 else 'valid'
        check(row, 'base', 'plain'+linear, at, split)
        check(row, 'resup', 'resup'+linear+warm, at, split)

METHODS = {'baseline pair':'plain:head=linear', 'EAC, `lam=1`':'eac:lam=1', 'ELR':'elr:head=linear', 'Co-teaching, given the noise rate':'co_teaching:head=linear', 'symmetric cross entropy':'sce:head=linear',
    "`ReSup(preset='reference')`":'reference:head=linear', 'generalised cross entropy':'gce:head=linear', '`ReSup()`':'resup:head=linear'}

def grid():
    "Rows of the table of methods, as it stands on README and on the page of results"
    at = runs().reset_index()
    at = at[(at.data=='faces') & (at.split=='valid') & (at.noise=='sym30') & (at.seed<3)].groupby('method')
    mean,sd = at[list(columns.values())].mean(),at[list(columns.values())].std()
    spread = lambda m,c: f'{mean.loc[m,c]:.3f} ± {sd.loc[m,c]:.3f}'
    return {name: ' | '.join([*(spread(m, c) for c in ('one','acc_ensemble','acc_class_mean')), f'{mean.memorised[m]:.0%}'.replace('%', ' %')]) for name,m in METHODS.items()}

KINDS = {'natural: one of three annotators disagrees (37 %)':('votes3', None), "modelled: neutral faces called sad, angry or afraid (31 %)":('crowd', None), '30 % at random':('sym30', range(3)), 'none':('clean', None)}

def by_noise():
    "Rows of the table on README: both pairs on the runs that they share, and the share of the noise's cost that is won back"
    at = runs().loc['faces'].query('epochs==8')[['one','acc_ensemble']]
    def of(noise, method): return at.xs((noise, method+':head=linear'), level=('noise','method'))
    clean = of('clean', 'plain').groupby('split').mean()
    rows = {}
    for name,(noise,seeds) in KINDS.items():
        base,ours = of(noise, 'plain'),of(noise, 'resup')
        shared = [o for o in base.index.intersection(ours.index) if seeds is None or o[0]=='valid' and o[1] in seeds]
        base,ours,top = (o.mean() for o in (base.loc[shared], ours.loc[shared], clean.loc[[split for split,_ in shared]]))
        share = ((ours-base)/(top-base)).map('{:.0%}'.format).str.replace('%', ' %')
        back = '' if noise=='clean' else ', '.join(share)
        rows[name] = ' | '.join([str(len(shared)), *(f'{o.one:.3f}, {o.acc_ensemble:.3f}' for o in (base, ours)), back])
    return rows

@pytest.mark.parametrize('file', ['README.md','nbs/index.ipynb'])
def test_figures_of_the_first_page(file):
    text = (ROOT/file).read_text(encoding='utf-8')
    for name,row in by_noise().items(): assert f'| {name} | {row} |' in text, (name, row)

AUDITED = {'votes3':'three annotators', 'crowd':'another crowd', 'sym30':'30 % at random', 'pair30':'each class to the next'}

def test_figures_of_how_it_compares():
    found = texts(ROOT/'nbs'/'explanations'/'03_how_it_compares.ipynb')
    table = read_text(found['methods']).set_index('method')
    for name,row in grid().items():
        name = name.replace('`', '')
        shown = table.loc[name]
        values = [f'{shown[c]:.3f}' for c in ('one','ensemble','class_mean')] + [f'{shown.memorised:.0%}'.replace('%', ' %')]
        assert values==[o.split(' ± ')[0] for o in row.split(' | ')], name
    measured = pd.read_csv(ROOT/'benchmarks'/'audit_orders.csv').replace({'noise':AUDITED}).groupby(['noise','order']).mean(numeric_only=True)
    for name,digits in dict(orders=3, hour=0).items():
        shown = read_text(found[name]).set_index(['noise','order'])
        columns = [f'found_{o}' for o in shown] if name=='hour' else list(shown)
        assert abs(measured.loc[shown.index, columns].to_numpy()-shown.to_numpy()).max()<=0.51*10**-digits, name
    at = runs().loc['drawn','drawn','sym30']
    for name,method in {'baseline pair, one of the two':'plain', 'ReSup, one of the two':'resup:warmup=4', 'one network':'single', 'one network, label smoothing':'single+smoothing', 'one network, MixUp':'single+mixup'}.items():
        shown = read_text(found['tools']).set_index('method').loc[name]
        one = at.loc[method][['acc_0','acc_1']].mean(axis=1)
        assert (round(one.mean(), 3),round(one.std(), 3))==(shown.accuracy,shown.sd), name

def means(frame, methods):
    "Mean figures of methods, each rounded as a page shows it"
    for row,(noise,method,split) in methods.items():
        at = runs().loc['drawn' if split=='drawn' else 'faces', split, noise, method]
        at = at[at.index<3].mean(numeric_only=True)
        for short in frame.columns.intersection(columns):
            shown = frame.loc[row, short]
            assert pd.isna(shown) and pd.isna(at[columns[short]]) or shown==round(at[columns[short]], 3), (row, short, at[columns[short]])

def test_figures_of_the_tutorials():
    frame = read_text(texts(ROOT/'nbs'/'tutorials'/'03_paper_protocol.ipynb')['floor_and_ceiling']).set_index(['noise','method'])
    base,ours,reference = (f'{o}:head=linear' for o in ('plain','resup','reference'))
    noisy = '30 % at random'
    means(frame, {(noisy,'baseline pair'):('sym30',base,'valid'), (noisy,"ReSup(preset='reference')"):('sym30',reference,'valid'), (noisy,'ReSup()'):('sym30',ours,'valid'), ('clean','baseline pair'):('clean',base,'valid')})
    frame = read_text(texts(ROOT/'nbs'/'tutorials'/'05_choices.ipynb')['heads']).set_index(['data','head','method'])
    faces,drawn = 'FERPlus-mini','drawn faces'
    means(frame, {(faces,'linear','baseline pair'):('sym30',base,'valid'), (faces,'linear','ReSup()'):('sym30',ours,'valid'), (faces,'fastai','baseline pair'):('sym30','plain','valid'), (faces,'fastai','ReSup()'):('sym30','resup','valid'),
        (drawn,'linear','baseline pair'):('sym30','plain','drawn'), (drawn,'linear','ReSup(warmup=4)'):('sym30','resup:warmup=4','drawn'), (drawn,'linear','ReSup()'):('sym30','resup','drawn')})

def test_all_rows_of_the_log():
    "Every setting and method of the csv, with the figures that it has there"
    text = (ROOT/'benchmarks'/'LOG.md').read_text(encoding='utf-8').split('## All rows')[1]
    frame = pd.read_csv(ROOT/'benchmarks'/'ferplus_mini_runs.csv').assign(one=lambda o: (o.acc_0+o.acc_1)/2)
    shown = {}
    for part in text.split('\n### ')[1:]:
        setting = tuple(re.findall(r'`([^`]+)`', part.splitlines()[0])) + (part.splitlines()[0].split(', ', 2)[2],)
        for line in part.splitlines():
            if line.startswith('| `'): shown[(*setting, line.split('`')[1])] = [o.strip() for o in line.split('|')[2:-1]]
    words = {v:k for k,v in noise_words.items()}
    shown = {(split, schedule, words[noise], method):row for (split,schedule,noise,method),row in shown.items()}
    groups = dict(list(frame.groupby(['split','schedule','noise','method'])))
    assert set(shown)==set(groups)
    for key,rows in groups.items():
        seeds,one,both = shown[key][:3]
        assert seeds==', '.join(map(str, sorted(rows.seed))) and one.startswith(f'{rows.one.mean():.3f}') and both.startswith(f'{rows.acc_ensemble.mean():.3f}'), key

# Links

def test_links_to_the_log_lead_to_its_headings():
    "GitHub makes an anchor of a heading: small letters, hyphens for blanks, no punctuation"
    log = (ROOT/'benchmarks'/'LOG.md').read_text(encoding='utf-8')
    slugs = {re.sub(r'[^\w -]', '', o.lower()).replace(' ', '-') for o in re.findall(r'^#+ (.+)$', log, re.M)}
    files = [*(ROOT/'nbs').rglob('*.ipynb'), *(ROOT/'docs'/'pages').glob('*.md'), ROOT/'README.md', ROOT/'CHANGELOG.md', ROOT/'benchmarks'/'LOG.md']
    found = {(f.name, o) for f in files for o in re.findall(r'\]\((?:[^)\s]*LOG\.md)?#([\w-]+)\)', f.read_text(encoding='utf-8')) if 'LOG.md#'+o in f.read_text(encoding='utf-8') or f.name=='LOG.md'}
    assert len(found)>5
    assert not [o for o in found if o[1] not in slugs]

# Length

def test_readme_is_short():
    lines = (ROOT/'README.md').read_text(encoding='utf-8').splitlines()
    tables = [i for i,line in enumerate(lines) if re.fullmatch(r'[| :-]+', line) and '---' in line]
    assert len(lines)<=120 and len(tables)==1 and max(map(len, lines))<=200
    body = [line for line in lines[tables[0]+1:] if line.startswith('|')]
    assert len(body)<=8

def test_results_are_short():
    path = ROOT/'nbs'/'results.ipynb'
    text = '\n'.join(cells(path, 'markdown'))
    shown = [o for o in cells(path) if 'return Markdown' not in o and 'table(' in o]
    conclusions = text.split('## Five conclusions')[1].split('\n## ')[0]
    assert len(shown)==3 and len(re.findall(r'^\d\. ', conclusions, re.M))==5
    assert len(text.split())<=1250, 'the tables have another 250 words'
    assert "'resup'" not in ''.join(cells(path)), 'rows of the former head'

if __name__=='__main__':
    for page in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as tmp: code,said = run_outside(Path(page).resolve(), Path(tmp))
        print(page, 'ok' if code==0 else said)
