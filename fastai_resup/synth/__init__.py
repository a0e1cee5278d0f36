"Drawn faces with the seven basic expressions, for demos, docs and tests without a download"
from .faces import *
from .expressions import *
from .people import *
from .photo import *
