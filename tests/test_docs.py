"""The documentation: README.md is what nbs/index.ipynb says, versions agree, and the built site works in a real browser.

The site is built by `python docs/build.py`. Where docs/_build/html isn't there, or no Chromium, its tests skip and say so; with the environment variable RESUP_DOCS=1 they fail."""
import json, os, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT/'docs'/'_build'/'html'
CAPTIONS = ['Start here','Tutorials','Explanations','Results','Training','Data','Audit','Other methods','Drawn faces','Command line','Project']
FLAGS = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

def test_readme_is_written_from_the_notebook(build):
    assert (ROOT/'README.md').read_text(encoding='utf-8')==build.readme_text(), 'README.md is old: python docs/build.py --readme'

def test_readme_links_lead_somewhere(build):
    found = []
    build.relink((ROOT/'README.md').read_text(encoding='utf-8'), lambda to: found.append(to) or to)
    assert len(found)>=2
    for to in found: assert (ROOT/to.partition('#')[0]).exists(), to

def test_long_description_needs_no_repository():
    "A package index shows README.md alone, so its relative links must be absolute there"
    out = subprocess.run([sys.executable, 'setup.py', '--long-description'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = [o for o in re.findall(r'\]\(([^()\s]+)\)', out) if not o.startswith('#')]
    assert targets and all(o.startswith('https://') for o in targets), targets
    assert '/raw/main/nbs/images/suspects.png)' in out

def test_citation_has_the_version_of_the_package(build):
    assert f'\nversion: {build.config()["version"]}\n' in (ROOT/'CITATION.cff').read_text(encoding='utf-8')

def test_committed_notebooks_have_no_outputs(build):
    for p in build.notebooks():
        assert not any(c.get('outputs') or c.get('execution_count') for c in json.loads(p.read_text(encoding='utf-8'))['cells']), p

def test_failing_cell_is_named(build, tmp_path):
    from fastcore.nbio import dict2nb, mk_cell, write_nb
    src = tmp_path/'03_bad.ipynb'
    write_nb(dict2nb(dict(cells=[mk_cell('1+1'), mk_cell('{}["gone"]')], metadata={}, nbformat=4, nbformat_minor=5)), src)
    secs,error = build.run_apart(src, tmp_path/'out.ipynb')
    assert '03_bad.ipynb, cell 2' in error and 'KeyError' in error and secs>0
    assert not (tmp_path/'out.ipynb').exists()

def test_notebook_whose_process_dies_is_named(build, tmp_path):
    from fastcore.nbio import dict2nb, mk_cell, write_nb
    src = tmp_path/'04_dead.ipynb'
    write_nb(dict2nb(dict(cells=[mk_cell('import os; os._exit(7)')], metadata={}, nbformat=4, nbformat_minor=5)), src)
    assert build.run_apart(src, tmp_path/'out.ipynb')[1].startswith('04_dead.ipynb: its process ended with 7')

def test_only_some_notebooks_are_executed(build, monkeypatch, tmp_path):
    monkeypatch.setattr(build, 'BUILD', tmp_path)
    ran = []
    def run(src, dest):
        ran.append(src.stem)
        shutil.copy(src, dest)
        return 0.,''
    monkeypatch.setattr(build, 'run_apart', run)
    a,b = next(o for o in build.notebooks() if o.stem=='index'),next(o for o in build.notebooks() if o.stem=='01_first_folder')
    res = build.execute([a,b], 1, ['tutorials/0*'])
    assert ran==['01_first_folder'] and res[a]==a and res[b].parent==tmp_path/'executed'
    old = tmp_path/'executed'/'index-0.ipynb'
    shutil.copy(a, old)
    assert build.execute([a,b], 1, ['tutorials/0*'])[a]==old and len(ran)==1 # what it gave last
    assert build.execute([a,b], 1)[a]!=old and ran[1:]==['index'] and not old.exists()
    with pytest.raises(SystemExit, match='nonsense'): build.execute([a,b], 1, ['nonsense*'])

def test_links_of_names_and_targets(build):
    import stage
    links = lambda m: f'<{m[1]}>'
    assert stage.linkify('# `A`\nsee `A.b()`, [`A`](x) and `two words`\n```\n`A`\n```\n`B`', links)=='# `A`\nsee <A.b>, [`A`](x) and `two words`\n```\n`A`\n```\n<B>'
    assert build.relink('![a](b.png) [c](https://d) [e](#f) `x`\n```\n[g](h)\n```', str.upper)=='![a](B.PNG) [c](https://d) [e](#f) `x`\n```\n[g](h)\n```'

UNDOCUMENTED = {} # `module.name: what is missing` to the reason why it may be

def test_every_public_symbol_is_documented(build):
    import api
    missing = [o for f in api.notebooks() for o in api.gaps(f)]
    assert not (new := [o for o in missing if o not in UNDOCUMENTED]), '\n'.join(new)
    assert set(UNDOCUMENTED)<=set(missing), 'these are mended: take them off the list'

def test_what_is_not_documented_is_found(build, tmp_path, monkeypatch):
    import api
    from fastai_resup import files
    from fastcore.nbio import dict2nb, mk_cell, write_nb
    code = ['#| default_exp files', '#| export\ndef check_free(path, overwrite=False, known=()):\n    if known: raise KeyError(known)\n    raise FileExistsError(path)',
            '#| export\ndef save_text(): pass', '#| hide\ncheck_free()', 'save_text()']
    write_nb(dict2nb(dict(cells=[mk_cell(o) for o in code], metadata={}, nbformat=4, nbformat_minor=5)), tmp_path/'00_x.ipynb')
    assert api.gaps(tmp_path/'00_x.ipynb')==['files.check_free: no example', 'files.check_free: raises KeyError, and the docstring does not say so']
    def bare(path, n=1): pass
    bare.__module__ = 'fastai_resup.files'
    monkeypatch.setattr(files, 'save_text', bare)
    assert api.gaps(tmp_path/'00_x.ipynb')[2:]==['files.save_text: no docstring', 'files.save_text: no comment for path', 'files.save_text: no comment for n']

def test_overrides_are_described_by_what_they_override(build):
    import stage
    from fastai_resup.peers import fer, losses
    text = stage.entry(losses, 'GCE.net_loss', lambda m, cls='': m[0])
    assert 'the loss of one network on a batch' in text and 'Which network, 0 or 1' in text
    text = stage.entry(fer, 'HeadedPeer', lambda m, cls='': m[0])
    assert 'after_batch,' not in text and '| ``**kwargs`` | as in `Callback` |' in text and 'HeadedPeer(**kwargs)' in text # fastai's parameters are one row, and two dozen aren't listed
    from fastai_resup import learner
    text = stage.entry(learner, 'resup_learner', lambda m, cls='': m[0])
    assert "| ``**kwargs`` | as in `create_vision_model`: cut, " in text and "heads" not in text.partition('*returns*')[2] and text.count('moms: tuple')==1
    assert stage.own_methods('class A:\n  @property\n  def b(self): pass\n  @b.setter\n  def b(self, v): pass', 'A')==['b'] # twice is a warning of Sphinx

def test_printed_epochs_become_tables_and_bars_vanish(build):
    import stage
    show = lambda text: [''.join(o.get('text', [])) or ' '.join(o['data']['text/html'][0].split()) for o in stage.training_table(dict(output_type='stream', name='stdout', text=[text]))]
    assert show('a | b\n')==['a | b\n']                                             # no bar: as it was
    assert show('█\r\r |██----| 33.3% [1/3 00:00<00:00]\r |██████| 100% [3/3]\r   ')==[]
    assert show('█\r |██████| 100% [3/3]\r  \rall is written\n')==['all is written\n']
    run = '█\repoch     train_loss  accuracy  time    \n█\r\rEpoch 1/1 : |██---| 0.00% [0/5 00:00<?]\rEpoch 1/1 :    \r0         1.5  0.5  00:01     \n'
    got = show(f'first\n{run}second\n{run}done\n')
    assert [got[i] for i in (0,2,4)]==['first\n','second\n','done\n']
    assert all('<th>accuracy</th>' in got[i] and '<td>1.5</td>' in got[i] and 'time' not in got[i] for i in (1,3))

def test_navigation_has_a_place_for_every_page(build):
    staged = {p:'' for p in [*build.notebooks(), *build.PAGES.glob('*.md'), build.PAGES/'matrix.md', *build.PROJECT]}
    rooms = [build.NBS, *(build.NBS/o for o in ('data','audit','peers','synth','cli'))]
    mods = {p:'' for p in staged if p.parent in rooms and p.stem not in ('index','results')}
    groups = build.navigation(staged, mods)
    assert list(groups)==CAPTIONS and all(groups.values())
    assert [p.stem for p in groups['Start here']+groups['Results']+groups['Project']]==['01_first_folder','results','CONTRIBUTING','CHANGELOG']
    with pytest.raises(SystemExit, match='stray'): build.navigation({**staged, build.ROOT/'stray.md':''}, mods)

def test_broken_links_are_found(build, tmp_path):
    (tmp_path/'a.html').write_text('<a href="b.html#here">1</a><a href="b.html#gone">2</a><img src="c.png"><a href="https://example.org">3</a><a href="#">4</a>')
    (tmp_path/'b.html').write_text('<p id="here">')
    assert build.broken_links(tmp_path)==['a.html: b.html#gone leads to no place on its page', 'a.html: c.png leads to no file']

# The site

def _lacking(what):
    if os.environ.get('RESUP_DOCS')=='1': pytest.fail(f'RESUP_DOCS=1, and {what}')
    pytest.skip(what)

@pytest.fixture(scope='module')
def site():
    "Address of the built site, served from here"
    if not (HTML/'index.html').is_file(): _lacking(f'{HTML} is not built: python docs/build.py')
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture(scope='module')
def browser(tmp_path_factory, site):
    "Chromium with an empty profile"
    try: from selenium import webdriver
    except ImportError: _lacking('selenium is not installed')
    chromium,driver = shutil.which('chromium'),shutil.which('chromedriver')
    if not chromium or not driver: _lacking('there is no Chromium with its driver: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for o in [*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}']: options.add_argument(o)
    options.set_capability('goog:loggingPrefs', {'browser':'ALL', 'performance':'ALL'})
    d = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield d
    d.quit()

def _wait(d, js, *args):
    "What `js` gives, as soon as it is true; 30 s at most"
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(d, 30).until(lambda d: d.execute_script(js, *args))

def _size(d, width): d.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=800, deviceScaleFactor=1, mobile=width<500))

def _clean(d, site):
    "No console errors since the last call, and not a request to another machine"
    assert not (bad := [o for o in d.get_log('browser') if o['level']=='SEVERE']), bad
    sent = [m['params']['request']['url'] for o in d.get_log('performance') if (m := json.loads(o['message'])['message'])['method']=='Network.requestWillBeSent']
    assert not [o for o in sent if not o.startswith((site, 'data:', 'blob:', 'chrome'))], sent

def _pages(): return sorted(o.relative_to(HTML).as_posix() for o in HTML.rglob('*.html') if o.stem!='search' and '_static' not in o.parts) # that has its own test

@pytest.mark.parametrize('width', [1280, 390])
def test_every_page_opens_without_errors(browser, site, width):
    _size(browser, width)
    for name in _pages() if (HTML/'index.html').is_file() else []:
        browser.get(site+name)
        _wait(browser, 'return document.readyState=="complete"')
        assert browser.execute_script('return document.querySelector("h1").textContent.length')>1, name
        assert browser.execute_script('return document.documentElement.scrollWidth')<=width, f'{name} scrolls sideways'
        assert browser.execute_script('return [...document.images].every(o => o.complete && o.naturalWidth>0)'), f'{name} has a broken picture'
    _clean(browser, site)

def test_home_leads_to_modules_and_to_the_source(browser, site):
    _size(browser, 1280)
    browser.get(site)
    link = browser.find_element('link text', 'mixture')
    browser.execute_script('arguments[0].scrollIntoView({block: "center", behavior: "instant"})', link) # the sidebar is longer than the window
    link.click()
    _wait(browser, 'return location.pathname.endsWith("/mixture.html")')
    entry = browser.find_element('id', 'fastai_resup.mixture.BetaMixture.fit')
    assert 'sample_weight' in entry.text
    source = entry.find_element('css selector', 'a.reference.external').get_attribute('href')
    file,line = re.search(r'/(fastai_resup/mixture\.py)#L(\d+)$', source).groups()
    assert 'def fit' in (ROOT/file).read_text(encoding='utf-8').splitlines()[int(line)-1]
    _clean(browser, site)

def test_navigation_leads_from_the_start_to_contributing(browser, site):
    _size(browser, 1280)
    browser.get(site)
    assert browser.execute_script('return [...document.querySelectorAll(".sidebar-tree p.caption")].map(o => o.textContent.trim())')==[
        *CAPTIONS]
    for page in ('results','matrix','model_card','peers/selection','contributing'):
        browser.get(browser.find_element('css selector', f'.sidebar-tree a[href$="{page}.html"]').get_attribute('href'))
        _wait(browser, f'return location.pathname.endsWith("/{page}.html")')
    _clean(browser, site)

def test_backticked_names_lead_to_their_entry(browser, site):
    browser.get(site+'mixture.html')
    browser.find_element('css selector', 'section p a[href$="fastai_resup.mixture.clean_lookup"]').click()
    _wait(browser, 'return location.hash=="#fastai_resup.mixture.clean_lookup" && document.getElementById(location.hash.slice(1))')
    browser.get(site+'audit/table.html#labelaudit.from_learner') # the address that docstrings of the modules and nbdev's `doc` give
    assert browser.execute_script('return document.getElementById(location.hash.slice(1)) != null')
    _clean(browser, site)

def test_formulas_are_set_without_a_network(browser, site):
    browser.get(site+'mixture.html')
    assert _wait(browser, 'return document.querySelectorAll("mjx-container").length')>=3
    assert not browser.execute_script('return document.querySelectorAll("mjx-merror").length')
    _clean(browser, site)

def test_search_finds_a_symbol_and_its_page_opens(browser, site):
    browser.get(site)
    for name in ('mixture.BetaMixture','peers.selection.CoTeaching','checkpoint.Checkpoint'):
        box = browser.find_element('css selector', 'input[name=q]')
        box.send_keys(name.rpartition('.')[2])
        box.submit()
        assert _wait(browser, f'return document.querySelectorAll("#search-results li a[href*=\'fastai_resup.{name}\']").length')>=1
        browser.find_element('css selector', f'#search-results li a[href*="fastai_resup.{name}"]').click()
        _wait(browser, f'return location.pathname.endsWith("/{name.rpartition(".")[0].replace(".", "/")}.html")')
    _clean(browser, site)

def test_dark_mode_is_dark(browser, site):
    def ground(scheme):
        browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=scheme)]))
        browser.get(site)
        return sum(map(int, re.findall(r'\d+', browser.execute_script('return getComputedStyle(document.body).backgroundColor'))[:3]))
    light,dark = ground('light'),ground('dark')
    assert light>600 and dark<200
    _clean(browser, site)
