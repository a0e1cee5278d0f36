"""Build the site from the notebooks, offline and without Quarto: execute copies of them, stage them as pages, run Sphinx with warnings as errors, check links.

    python docs/build.py                        the site, in docs/_build/html
    python docs/build.py --only 'tutorials/02*' the same, but only these notebooks are executed; others show what they gave last, or no outputs
    python docs/build.py --readme               README.md from nbs/index.ipynb, and nothing else"""
import argparse, hashlib, importlib.metadata, multiprocessing, os, shutil, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from configparser import ConfigParser
from fnmatch import fnmatch
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastcore.nbio import mk_cell, read_nb, write_nb
from stage import NBS, ROOT, Links, default_exp, linkify, matrix_page, notebooks, own_methods, page_cells, page_name, public_names, relink, write_page

BUILD = ROOT/'docs'/'_build'
PAGES = ROOT/'docs'/'pages'
MATRIX = ROOT/'tests'/'test_matrix.py'
PROJECT = [ROOT/'CONTRIBUTING.md', ROOT/'CHANGELOG.md']
NOTE = '<!-- Written by `python docs/build.py --readme` from nbs/index.ipynb: edit that. -->'

def config():
    "settings.ini"
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def chosen(
    path:Path, # A notebook
    only, # Patterns such as 'tutorials/02*', of paths below nbs/; None for all
)->bool: # Is it to be executed?
    "Does any of the patterns fit?"
    return only is None or any(fnmatch(path.relative_to(NBS).as_posix(), o) for o in only)

# README

def readme_text():
    "README.md as nbs/index.ipynb has it: links and pictures are relative to the repository's top"
    cells = [c for c in read_nb(NBS/'index.ipynb').cells if c.cell_type!='raw' and not c.source.startswith('#|')]
    text = '\n\n'.join(c.source if c.cell_type=='markdown' else f'```python\n{c.source}\n```' for c in cells)
    return f'{NOTE}\n\n' + relink(text, lambda to: os.path.relpath(NBS/to, ROOT)) + '\n'

# Execution

def run_notebook(
    src:Path, # A notebook, in a folder of copies
    dest:Path, # File for the executed one
)->str: # What went wrong, '' for nothing
    "Execute a notebook; an exception in a cell stops it and is told with the cell's number and id"
    from execnb.shell import CaptureShell
    os.chdir(src.parent)
    nb = read_nb(src)
    shell = CaptureShell(src, mpl_format='png')
    for i,c in enumerate(nb.cells):
        if c.cell_type!='code' or 'nbdev_export()' in c.source: continue
        c.outputs = shell.run(c.source, timeout=600)
        if shell.exc: return f'{src.name}, cell {i+1} (id {c.get("id")}):\n{c.source}\n\n{shell.prettytb()}'
    write_nb(nb, dest)
    return ''

FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['fastai.vision.all', 'matplotlib.pyplot', 'execnb.shell']) # imported once for all notebooks

def run_logged(
    src:Path, # A notebook, in a folder of copies
    dest:Path, # File for the executed one
    log:Path, # File for all that the process prints
):
    "`run_notebook`, then the end of the process, with 1 where a cell failed"
    fd = os.open(log, os.O_CREAT|os.O_WRONLY)
    for stream in (1,2): os.dup2(fd, stream)
    sys.exit(run_notebook(src, dest) or 0)

def run_apart(
    src:Path, # A notebook, in a folder of copies
    dest:Path, # File for the executed one
)->tuple: # Seconds, and what went wrong ('' for nothing)
    "`run_notebook` in a process of its own; one that dies is told with its exit code"
    start,log = time.time(),dest.with_suffix('.log')
    process = FORKS.Process(target=run_logged, args=(src,dest,log))
    process.start()
    process.join()
    printed = log.read_text(encoding='utf-8', errors='replace') if log.exists() else ''
    log.unlink(missing_ok=True)
    died = f'{src.name}: its process ended with {process.exitcode}\n{printed[-2000:]}'
    return time.time()-start, {0:'', 1:printed}.get(process.exitcode, died)

def copies(
    paths, # Notebooks
)->dict: # Notebook to the place of its executed copy, whose name changes with the notebook, the package and the committed measurements; the copy is there if these have been run without an error
    "Where executed notebooks are kept"
    code = b''.join(o.read_bytes() for d in ('fastai_resup','benchmarks') for o in sorted((ROOT/d).rglob('*')) if o.is_file() and o.suffix!='.pyc')
    key = lambda p: hashlib.sha256(code + p.read_bytes()).hexdigest()[:16]
    return {p: BUILD/'executed'/f'{_flat(p)}-{key(p)}.ipynb' for p in paths}

def _flat(path):
    "Name of a notebook in one folder, such as 'data-09_manifest'"
    return '-'.join(path.relative_to(NBS).with_suffix('').parts)

def execute(
    paths:list, # Notebooks
    workers:int, # How many at a time
    only=None, # Patterns of those to execute, see `chosen`; the others keep their last outputs, or have none
)->dict: # Notebook to its executed copy
    "Execute copies of notebooks that have changed, or whose package or committed measurements have, since they were executed last; exits where a cell fails, or a pattern fits nothing"
    if lost := [o for o in only or [] if not any(chosen(p, [o]) for p in paths)]: sys.exit(f'no notebook below {NBS} is called {", ".join(lost)}')
    work,done = BUILD/'nbs',BUILD/'executed'
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(NBS, work)
    done.mkdir(parents=True, exist_ok=True)
    res = copies(paths)
    todo = sorted((p for p,o in res.items() if chosen(p, only) and not o.exists()), key=lambda p: (p.parent==NBS, -p.stat().st_size))
    last = lambda p: max((o for o in done.glob(f'{_flat(p)}-*.ipynb')), key=lambda o: o.stat().st_mtime, default=p)
    if only: res = {p: o if chosen(p, only) or o.exists() else last(p) for p,o in res.items()}
    for o in done.glob('*.ipynb'):
        if o not in res.values(): o.unlink()
    with ThreadPoolExecutor(workers) as pool:
        runs = {pool.submit(run_apart, work/p.relative_to(NBS), res[p]):p for p in todo}
        failed = []
        for run in as_completed(runs):
            p,(secs,error) = runs[run],run.result()
            print(f'  {p.relative_to(NBS)}: {secs:.0f} s' + (', FAILED' if error else ''), flush=True)
            if error: failed.append(error)
    if failed: sys.exit('\n\n'.join(failed))
    return res

# Staging

def find_links(
    nbs:dict, # Notebook to its executed copy, read
)->tuple: # `Links`, and full names of functions to their console commands
    "Every public symbol of the package, every module and every command"
    symbols,pages = {},{}
    for path,nb in nbs.items():
        if not (mod := default_exp(nb)): continue
        pages[mod] = page_name(path)
        for c in nb.cells:
            if c.cell_type!='code' or not c.source.startswith('#| export\n'): continue
            for name in public_names(c.source):
                full = [name] if '.' in name else [name, *(f'{name}.{m}' for m in own_methods(c.source, name) )] if f'class {name}' in c.source else [name]
                for n in full: symbols[n] = symbols[f'{mod}.{n}'] = symbols[f'{mod.partition(".")[0]}.{n}'] = f'fastai_resup.{mod}.{n}'
    commands = dict(o.split('=') for o in config()['console_scripts'].split())
    commands = {k:v.replace(':', '.') for k,v in commands.items()}
    return Links(symbols, pages, commands),{v:k for k,v in commands.items()}

def site_target(
    to:str, # Target of a link, relative to `base`
    base:Path, # Folder that the link is relative to
    staged:dict, # Source file to the name of its page
    dest:Path, # Folder of the staged pages
)->str: # Target on the site, from its top
    "Pages become pages, pictures are copied along, other files lead to the repository"
    path,_,frag = to.partition('#')
    f,frag = (base/path).resolve(),'#'+frag if frag else ''
    if not f.exists(): sys.exit(f'a page links to {to}, and {f} is not there')
    if f in staged: return f'/{staged[f]}{frag}'
    if f.suffix in ('.png','.svg'):
        (dest/'images').mkdir(exist_ok=True)
        shutil.copy2(f, dest/'images')
        return f'/images/{f.name}'
    return f"{config()['git_url']}/{'tree' if f.is_dir() else 'blob'}/{config()['branch']}/{f.relative_to(ROOT)}{frag}"

def toctree(caption, pages): return f'```{{toctree}}\n:hidden:\n:caption: {caption}\n\n' + '\n'.join(pages) + '\n```'

def navigation(
    staged:dict, # Source file to the name of its page, in the order of the site
    modules:dict, # Notebook to the module that it exports
)->dict: # Caption to source files
    "What stands at the left of each page, in the order in which a reader wants it; exits where a page would stand nowhere"
    start = NBS/'tutorials'/'01_first_folder.ipynb'
    within = lambda d: [p for p in staged if p.parent==d and p!=start]
    room = lambda d: [p for p in modules if p.parent==d]
    res = {'Start here':[start], 'Tutorials':within(NBS/'tutorials'), 'Explanations':within(NBS/'explanations')+within(PAGES), 'Results':[p for p in within(NBS) if p not in modules and p.stem!='index'],
        'Training':room(NBS), 'Data':room(NBS/'data'), 'Audit':room(NBS/'audit'), 'Other methods':room(NBS/'peers'), 'Drawn faces':room(NBS/'synth'), 'Command line':room(NBS/'cli'), 'Project':[p for p in PROJECT if p in staged]}
    if lost := set(staged)-{NBS/'index.ipynb'}-{p for v in res.values() for p in v}: sys.exit(f'no place in the navigation for {", ".join(map(str, lost))}')
    return res

def stage(
    executed:dict, # Notebook to its executed copy
)->Path: # Folder for Sphinx
    "Write all pages, and the navigation into the first"
    dest = BUILD/'src'
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir(parents=True)
    nbs = {p:read_nb(o) for p,o in executed.items()}
    links,commands = find_links(nbs)
    texts = {PAGES/'matrix.md':matrix_page(MATRIX), **{p:p.read_text(encoding='utf-8') for p in [*sorted(PAGES.glob('*.md')), *PROJECT]}}
    staged = {**{p:f'{page_name(p)}.ipynb' for p in nbs}, **{p:f'{page_name(p).lower()}.md' for p in texts}}
    if len(set(staged.values()))<len(staged): sys.exit(f'two pages have the same name: {sorted(staged.values())}')
    modules = {p:mod for p,nb in nbs.items() if (mod := default_exp(nb))}
    ran = {p: ', '.join(v for k,v in commands.items() if k.rpartition('.')[0]==f'fastai_resup.{mod}') for p,mod in modules.items()}
    groups = navigation(staged, modules)
    doc = lambda p: staged[p].rpartition('.')[0]
    nav = '\n\n'.join(toctree(k, [f'{ran[p]} <{doc(p)}>' if ran.get(p) else doc(p) for p in v]) for k,v in groups.items() if v)
    def target(p): return lambda to: to if to.startswith('/') and to[1:] in staged.values() else site_target(to, p.parent, staged, dest)
    for p,nb in nbs.items():
        cells = page_cells(nb, links, commands)
        for c in cells:
            if c.cell_type=='markdown': c.source = relink(c.source, target(p))
        if p.stem=='index': cells.append(mk_cell(nav, 'markdown'))
        (dest/staged[p]).parent.mkdir(exist_ok=True)
        write_page(cells, dest/staged[p])
    for p,text in texts.items():
        text = linkify(text, partial(links, modules=True))
        (dest/staged[p]).write_text(relink(text, target(p)), encoding='utf-8')
    add_mathjax(dest)
    return dest

def add_mathjax(dest):
    "MathJax and its fonts from the package `sphinx-mathjax-offline`, so that formulas need no network"
    files = importlib.metadata.files('sphinx-mathjax-offline')
    root = next(Path(o.locate()) for o in files if o.name=='tex-chtml.js').parent
    out = dest/'_static'/'mathjax'
    out.mkdir(parents=True)
    shutil.copy2(root/'tex-chtml.js', out)
    shutil.copytree(root/'output'/'chtml'/'fonts', out/'output'/'chtml'/'fonts')

# Checks

class Page(HTMLParser):
    "Ids and targets of an html file"
    def __init__(self, f):
        super().__init__()
        self.ids,self.targets = set(),[]
        self.feed(f.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        for k,v in attrs:
            if k=='id' or (k=='name' and tag=='a'): self.ids.add(v)
            if k in ('href','src') and v: self.targets.append(v)

def broken_links(
    html:Path, # A built site
)->list: # A line per link that leads nowhere
    "Links of a site to files or headings that aren't there; links to other sites are left alone"
    pages = {f.resolve():Page(f) for f in html.rglob('*.html') if '_static' not in f.parts}
    bad = []
    for f,page in pages.items():
        name = f.relative_to(html.resolve())
        for to in page.targets:
            u = urlsplit(to)
            if u.scheme or u.netloc: continue
            other = (f.parent/unquote(u.path)).resolve() if u.path else f
            if other.is_dir(): other = other/'index.html'
            if not other.exists(): bad.append(f'{name}: {to} leads to no file')
            elif u.fragment and other in pages and unquote(u.fragment) not in pages[other].ids: bad.append(f'{name}: {to} leads to no place on its page')
    return bad

def sphinx(
    src:Path, # Staged pages
)->Path: # The site
    "Run Sphinx; exits where it warns"
    from sphinx.cmd.build import main
    html = BUILD/'html'
    shutil.rmtree(html, ignore_errors=True)
    if code := main(['-q','-W','--keep-going','-b','html','-d',str(BUILD/'doctrees'),'-c',str(ROOT/'docs'),str(src),str(html)]): sys.exit(code)
    return html

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--readme', action='store_true', help='write README.md')
    ap.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1), help='notebooks to execute at a time')
    ap.add_argument('--only', nargs='+', metavar='PATTERN', help="execute only notebooks below nbs/ that are called so, such as 'tutorials/02*'")
    args = ap.parse_args()
    if args.readme: return (ROOT/'README.md').write_text(readme_text(), encoding='utf-8')
    os.environ.update(MPLBACKEND='module://matplotlib_inline.backend_inline', IN_TEST='1', COLUMNS='88', PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])))
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    sys.path.insert(0, str(ROOT))
    start = time.time()
    src = stage(execute(notebooks(), args.workers, args.only))
    html = sphinx(src)
    if bad := broken_links(html): sys.exit('\n'.join(bad))
    print(f'{len(list(html.rglob("*.html")))} pages in {html}, {time.time()-start:.0f} s', flush=True)

if __name__=='__main__': main()
