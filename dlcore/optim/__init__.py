"""Named Optax optimizers and schedules, clipping and penalties, all selected by path rules.

Everything is a `GradientTransformation` or a pure function; what an optimizer knows about its last
step (the learning rate, the clipped share) is read off its state by `reported`.
"""

from dlcore.optim.averaging import average_weights as average_weights
from dlcore.optim.averaging import averaged as averaged
from dlcore.optim.averaging import start_average as start_average
from dlcore.optim.clipping import clip_by_global_norm as clip_by_global_norm
from dlcore.optim.clipping import clip_by_leaf_norm as clip_by_leaf_norm
from dlcore.optim.clipping import clip_by_value as clip_by_value
from dlcore.optim.optimizers import OPTIMIZERS as OPTIMIZERS
from dlcore.optim.optimizers import optimizer as optimizer
from dlcore.optim.penalties import elastic_net as elastic_net
from dlcore.optim.penalties import lasso as lasso
from dlcore.optim.penalties import proximal as proximal
from dlcore.optim.penalties import ridge as ridge
from dlcore.optim.penalties import to_scikit_learn as to_scikit_learn
from dlcore.optim.penalties import with_penalty as with_penalty
from dlcore.optim.reports import Reported as Reported
from dlcore.optim.reports import reported as reported
from dlcore.optim.schedules import SCHEDULES as SCHEDULES
from dlcore.optim.schedules import schedule as schedule
