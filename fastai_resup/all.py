from .mixture import *
from .labels import *
from .data import *
from .models import *
from .losses import *
from .callbacks import *
from .learner import *
