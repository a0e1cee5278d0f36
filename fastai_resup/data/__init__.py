"From image folders, tables and published data sets to fastai `DataLoaders`"
from .images import *
from .noise import *
from .tables import *
from .loaders import *
from .rafdb import *
from .ferplus import *
from .fer2013 import *
from .affectnet import *
from .manifest import *
from .decisions import *
