"The console commands; each is an ordinary function, too"
import warnings
warnings.filterwarnings('ignore', message='.torch.jit.script. is', category=FutureWarning) # fastai's own; before fastai is imported
from .common import *
from .demo import *
from .train import *
from .predict import *
from .noise import *
from .audit import *
from .data import *
