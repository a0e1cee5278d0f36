"Which labels are wrong, and what to do about them"
from .table import *
from .probs import *
from .ranking import *
from .crossval import *
from .plots import *
from .annotators import *
from .votes import *
from .saved import *
from .noise_rates import *
from .groups import *
from .decisions import *
from .page import *
from .ask import *
from .twins import *
from .tools import *
from .vectors import *
