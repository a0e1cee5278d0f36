"The console commands; each is an ordinary function, too"
import warnings
warnings.filterwarnings('ignore', message='.torch.jit.script. is', category=FutureWarning) # fastai's own; before fastai is imported
from .commands import *
