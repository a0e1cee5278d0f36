"Every public name, for `from fastai_resup.all import *` after fastai's own star import"
from .mixture import *
from .files import *
from .labels import *
from .manifest import *
from .data import *
from .synth import *
from .models import *
from .losses import *
from .callbacks import *
from .learner import *
from .audit import *
from .votes import *
from .review import *
from .deploy import *
from .checkpoint import *
from .peers import *
from .distributed import *
