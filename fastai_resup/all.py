"What users call, for `from fastai_resup.all import *` after fastai's own star import"
from .mixture import *
from .losses import *
from .models import *
from .networks import *
from .passes import *
from .callbacks import *
from .learner import *
from .files import *
from .synth import *
from .checkpoint import *
from .distributed import *
from .deploy import *
from .data import *
from .audit import *
from .peers import *
