"Sphinx's settings; `docs/build.py` calls Sphinx with them"
import importlib, inspect
from configparser import ConfigParser
from pathlib import Path

cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read(Path(__file__).resolve().parents[1]/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
project,author,release,copyright = cfg['lib_name'],cfg['author'],cfg['version'],cfg['copyright']
extensions = ['myst_nb','sphinx.ext.mathjax','sphinx.ext.linkcode']
nb_execution_mode = 'off'
nb_render_markdown_format = 'myst' # tables that a cell shows as Markdown are tables
myst_enable_extensions = ['dollarmath','amsmath','colon_fence','attrs_inline','attrs_block']
myst_heading_anchors = 3
suppress_warnings = ['myst.header'] # symbols stand below headings of any level
html_theme = 'furo'
html_title = f'{project} {release}'
html_static_path = ['_static','_build/src/_static'] # our style, and MathJax, which build.py puts there
html_css_files = ['resup.css']
html_theme_options = dict(source_repository=cfg['git_url'], source_branch=cfg['branch'], source_directory='nbs/', top_of_page_buttons=[])
html_favicon = '_static/icon.svg'
html_copy_source = False
add_module_names = False
toc_object_entries_show_parents = 'hide'
smartquotes = False # options are written --out
nb_number_source_lines = False
pygments_style,pygments_dark_style = 'friendly','monokai'
mathjax_path = 'mathjax/tex-chtml.js'

def linkcode_resolve(domain, info):
    "The line of the repository where a symbol is defined"
    o = importlib.import_module(info['module'])
    for part in info['fullname'].split('.'): o = inspect.getattr_static(o, part)
    o = getattr(o, 'fget', None) or getattr(o, '__func__', None) or getattr(o, 'f', o) # of a property, a class method, fastcore's class method
    try: line = inspect.getsourcelines(inspect.unwrap(o))[1]
    except (TypeError, OSError): return None
    return f"{cfg['git_url']}/blob/{cfg['branch']}/{info['module'].replace('.', '/')}.py#L{line}"
