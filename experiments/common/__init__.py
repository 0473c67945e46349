"""The flags, the folder and the wiring that all experiments share."""

from experiments.common.checks import check as check
from experiments.common.flags import define_flags as define_flags
from experiments.common.flags import record_flags as record_flags
from experiments.common.flags import say as say
from experiments.common.runs import conclude as conclude
from experiments.common.runs import few as few
from experiments.common.runs import finish as finish
from experiments.common.runs import launch as launch
from experiments.common.runs import new_workdir as new_workdir
from experiments.common.runs import settle_steps as settle_steps
from experiments.common.runs import start as start
from experiments.common.runs import summarise as summarise
from experiments.common.runs import train as train
from experiments.common.training import Feed as Feed
from experiments.common.training import Job as Job
from experiments.common.training import make_feed as make_feed
from experiments.common.training import make_optimizer as make_optimizer
from experiments.common.training import make_schedule as make_schedule
from experiments.common.training import make_state as make_state
from experiments.common.training import of_process as of_process
from experiments.common.training import passes as passes
from experiments.common.training import refuse_parts as refuse_parts
