"Other methods for noisy labels, each as one callback for the same pair of networks"
from .base import *
from .losses import *
from .selection import *
from .fer import *
from .registry import *
