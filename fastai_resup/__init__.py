"Train image classifiers on labels you can't trust, and find the labels that are wrong"

def __getattr__(name):
    "`__version__`: what the installed package says, from settings.ini"
    if name!='__version__': raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib.metadata import version # here, so that the commands' `--help` doesn't wait for it
    return version(__name__)
