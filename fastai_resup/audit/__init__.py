"Which labels are wrong, and what to do about them"
from .table import *
from .ranking import *
from .crossval import *
from .plots import *
from .votes import *
from .saved import *
from .noise_rates import *
from .decisions import *
from .page import *
from .ask import *
