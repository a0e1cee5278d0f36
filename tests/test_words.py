"""One word per thing, and numbers with a leading zero, in all that people read.

    pytest -q tests/test_words.py -k rafdb               the files whose path holds 'rafdb'
    python tests/test_words.py nbs/data/04_rafdb.ipynb   every hit, a line each; without a path: all files"""
import csv, json, re, sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What is looked for, and what to write instead; words may stand on two lines.
KIND = r'(\s+(given|training|validation|test))?'
WHO = r'(loss(es)?|networks?|pairs?|methods?|mixtures?|weights?)'
PLAIN = 'a plain sentence: result, figure, condition'
SUBJECT = 'a subject that can do this: a person asks'
BANNED = {
    r'\btwo(\s+networks)?\s+averaged\b': 'ensemble',
    r'\baveraged\s+networks\b': 'ensemble',
    r'\bboth(\s+networks)?\s+together\b': 'ensemble',
    r'\bplain[\s-]+pairs?\b': 'baseline pair',
    r'\bmean\s+over\s+(the\s+|all\s+)?classes\b': 'class-mean accuracy',
    r'\bmean-class\s+accuracy\b': 'class-mean accuracy',
    rf'\bright{KIND}\s+labels?\b': 'clean label',
    r'\brightly\s+labell?ed\b': 'clean label',
    rf'\bwrong{KIND}\s+labels?\b': 'noisy label',
    r'\bwrongly\s+labell?ed\b|\bfalse\s+labels?\b': 'noisy label',
    r'\bright\s+(labels?\s+)?from\s+wrong\b': 'clean labels from noisy ones',
    r'\bright\s+against\s+wrong\b': 'clean labels from noisy ones',
    r'\bflip\s+rate\b|\bshare\s+of\s+flipped\b': 'noise rate',
    r'\b(half|third|quarter|fifth)\s+wrong\b': 'a noise rate of 30 %, or: 30 % noisy labels',
    r'\d\s*%\s+(of\s+(the\s+|all\s+)?labels\s+)?wrong\b': 'a noise rate of 30 %, or: 30 % noisy labels',
    r'\bby\s+heart\b': 'memorise, memorised',
    r'\bsuspicious\b': 'suspect',
    r'\b(label\s+proposals?|proposed\s+labels?)\b': 'suggested label',
    r'\bopinions?\b': 'prediction, or view where a person has it',
    r'\bof\s+whose\b': 'two sentences: "... 30 % of the labels were replaced"',
    r'\bdealt\s+out\b': 'plain words: sorted, given',
    r'\b(no\s+more\s+than|beyond)\s+chance\b': 'not significant, significant',
    r'\b(has|have|had)\s+-?0?\.\d{2,}': 'reaches 0.748, or a table',
    r'\bahead\s+of\s+nothing\b|\bnothing\s+to\s+win\b|\bnever\s+ahead\b': PLAIN,
    r"\bloss's\b|\bany\s+difference\s+is\b": PLAIN,
    r'\bis\s+worth\s+what\b|\bwhat\s+a\s+pair\b': PLAIN,
    rf'\b{WHO}\s+asks?\b': SUBJECT,
    r'\b(networks?|pairs?)\s+(is|are)\s+(told|asked)\b': SUBJECT,
    r'\b(asked|asks?|asking)\s+for\s+a\s+prediction\b': SUBJECT}
BANNED = [(re.compile(pattern, re.I), instead) for pattern,instead in BANNED.items()]

# a decimal without its zero: not in 1.5, v1.5.2, x.5, .7z, nor in the format {x:.3f}
BARE = re.compile(r'(?<![\w.}])\.\d+(?![\w%.]*[\w%])(?!\s*})')
ZERO = '0.5, with its leading zero'

# names that are gone, and what took their place
GONE = {
    'count_frozen': 'warmup',
    'fold_dls': 'subset_dls',
    'from_opinions': 'from_predictions',
    'in_notebook': 'nothing',
    'label_scores': 'another name',
    'learn.history': 'learn.record.table()',
    'lite0_weights': 'lite_weights(0)',
    'max_noise': 'warmup',
    'min_known': 'warmup',
    'opinion_table': 'prediction_table',
    'rafdb_labels': 'join_rafdb(...).df',
    'rank_scores': 'another name',
    'relabel_dls': 'subset_dls',
    'traffic_per_epoch': 'the formula on the page of distributed',
    'weigher': 'PairedModel.weight_function',
    'with_base': 'with_loss'}
GONE = [(re.compile(rf'(?<![\w.]){re.escape(name)}\b'), instead) for name,instead in GONE.items()]
PAST = ('CHANGELOG.md', 'LOG.md') # may name what is gone

def method_names():
    "A pattern of the names of runs in the benchmarks' csv files, which are data; what follows the colon counts in quotes alone"
    names = set()
    for f in (ROOT/'benchmarks').glob('*runs.csv'):
        with open(f, encoding='utf-8', newline='') as rows: names |= {row['method'] for row in csv.DictReader(rows)}
    names = sorted((name for name in names if '=.' in name), key=len, reverse=True)
    whole = '|'.join(map(re.escape, names))
    ends = '|'.join(re.escape(name.partition(':')[2]) for name in names)
    return re.compile(rf"(?:{whole})(?![\w.])|(?<=['\"`])(?:{ends})(?=['\"`])" if names else r'(?!)')

METHODS = method_names()

def blank(match):
    "As many blanks as characters, lines kept"
    return re.sub(r'[^\n]', ' ', match[0])

def hits(text, past=False):
    "(line number, what was found, what to write) of each fault in `text`"
    text = METHODS.sub(blank, text)
    rules = BANNED + [(BARE, ZERO)] + ([] if past else GONE)
    found = [(match.start(), ' '.join(match[0].split()), instead) for pattern,instead in rules for match in pattern.finditer(text)]
    return [(text.count('\n', 0, start)+1, what, instead) for start,what,instead in sorted(found)]

class Text(HTMLParser):
    "What a built page shows, every line of it where it stands in the file"
    def __init__(self, source):
        super().__init__()
        self.lines = ['']*(source.count('\n')+2)
        self.hidden = 0
        self.feed(source)
    def handle_starttag(self, tag, attrs): self.hidden += tag in ('script','style')
    def handle_endtag(self, tag): self.hidden -= tag in ('script','style')
    def handle_data(self, data):
        if self.hidden: return
        for i,line in enumerate(data.split('\n'), self.getpos()[0]): self.lines[i-1] += line

def faults(path):
    "A line per fault of a file: place, what was found, what to write"
    source = path.read_text(encoding='utf-8')
    place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    parts = {'':source}
    if path.suffix=='.ipynb':
        cells = enumerate(json.loads(source)['cells'], 1)
        parts = {f' cell {i} ({cell.get("id", "?")})': ''.join(cell['source']) for i,cell in cells}
    if path.suffix=='.html' and '_build' in path.parts: parts = {'':'\n'.join(Text(source).lines)}
    found = [(part, *hit) for part,text in parts.items() for hit in hits(text, past=path.name in PAST)]
    return [f'{place}{part}:{line}: {what!r}: write {instead}' for part,line,what,instead in found]

def sources():
    "Every file that is checked; of CHANGELOG.md nothing, since it tells of former versions"
    single = [ROOT/name for name in ('README.md','CONTRIBUTING.md','benchmarks/LOG.md')]
    folders = {'nbs':'*.ipynb', 'fastai_resup':'*.py', 'benchmarks':'*.py', 'docs/pages':'*.md'}
    files = [f for folder,pattern in folders.items() for f in sorted((ROOT/folder).rglob(pattern))]
    pages = sorted((ROOT/'fastai_resup').rglob('*.html')) + sorted((ROOT/'fastai_resup').rglob('*.js'))
    skipped = ('.ipynb_checkpoints', '_modidx.py')
    return [f for f in [*single, *files, *pages] if f.exists() and not any(o in f.parts for o in skipped)]

def built():
    "The pages of the site, where it is built and not older than the notebooks"
    html = ROOT/'docs'/'_build'/'html'
    pages = [f for f in sorted(html.glob('*.html')) if f.stem not in ('changelog','genindex','search','py-modindex')]
    newest = max(f.stat().st_mtime for f in (ROOT/'nbs').rglob('*.ipynb'))
    return [f for f in pages if f.stat().st_mtime>=newest]

@pytest.mark.parametrize('path', sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path):
    found = faults(path)
    assert not found, '\n'.join(['', *found])

def test_words_of_the_site():
    if not built(): pytest.skip('the site is not built, or older than the notebooks: python docs/build.py')
    found = [fault for path in built() for fault in faults(path)]
    assert not found, '\n'.join(['', *found])

planted = {
    'two averaged': 'ensemble', 'two\naveraged': 'ensemble', 'both networks together': 'ensemble', 'the plain pair': 'baseline pair', 'Mean over classes': 'class-mean accuracy',
    'wrong labels': 'noisy label', 'right\nlabels': 'clean label', 'right training labels': 'clean label', 'learned by heart': 'memorise', 'their opinions': 'prediction',
    'it has .748': '0.748', '**.956**': 'zero', 'f(.5)': 'zero', 'x = -.5': 'zero', '.7 points': 'zero', 'q=.5 and': 'zero', '30 % wrong': 'noise rate',
    'no more than chance': 'significant', 'of whose labels': 'two sentences', 'what a pair asks for': 'plain sentence', 'the loss asks for': 'a person asks',
    'learn.history': 'learn.record.table', 'a weigher(': 'weight_function'}
fine = [
    '0.748', 'version 2.8.12', 'f"{x:.3f} {y:+.1%} {z:.0%}"', 'a file.7z', 'which labels are wrong', 'both networks', 'x[..., 0]', 'plain cross entropy', 'arXiv 2305.17895',
    '10.0.0.1', 'all right']

@pytest.mark.parametrize('fault', planted, ids=repr)
@pytest.mark.parametrize('suffix', ['.py','.md','.ipynb','.html'])
def test_planted_faults_are_found(fault, suffix, tmp_path):
    text = f'first line\nthen {fault} here'
    path = tmp_path/'_build'/f'planted{suffix}'
    path.parent.mkdir()
    if suffix=='.ipynb': text = json.dumps(dict(cells=[dict(id='a1', source=text.splitlines(True))]))
    if suffix=='.html': text = f'<html><script>let a = .5;</script>\n<p>{fault}</p></html>'
    path.write_text(text, encoding='utf-8')
    found = faults(path)
    assert found and ':2:' in found[0] and planted[fault] in '\n'.join(found), found

def test_fine_words_are_left_alone():
    assert not [hit for text in fine for hit in hits(text)]

def test_names_of_runs_are_data():
    assert not hits('`resup:power=.5`, and `gce:q=.9`')
    assert hits('`resup:power=.51`') and hits('ReSup(power=.5)')

if __name__=='__main__':
    paths = [Path(o).resolve() for o in sys.argv[1:]] or [*sources(), *built()]
    found = [fault for path in paths for fault in faults(path)]
    print('\n'.join([*found, f'{len(found)} faults in {len(paths)} files']))
    sys.exit(bool(found))
