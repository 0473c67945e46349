"""Recurrent nets: cells as pure functions, the scan that runs them, and layers made of them."""

from dlcore.nn.recurrent.cell import Carry as Carry
from dlcore.nn.recurrent.cell import Cell as Cell
from dlcore.nn.recurrent.gru import GRU as GRU
from dlcore.nn.recurrent.gru import GRUAfter as GRUAfter
from dlcore.nn.recurrent.highway import Highway as Highway
from dlcore.nn.recurrent.layers import Bidirectional as Bidirectional
from dlcore.nn.recurrent.layers import Recurrent as Recurrent
from dlcore.nn.recurrent.layers import RecurrentStack as RecurrentStack
from dlcore.nn.recurrent.layers import repeat_input as repeat_input
from dlcore.nn.recurrent.layers import reset_carry as reset_carry
from dlcore.nn.recurrent.lstm import LSTM as LSTM
from dlcore.nn.recurrent.lstm import AmidiLSTM as AmidiLSTM
from dlcore.nn.recurrent.lstm import PeepholeLSTM as PeepholeLSTM
from dlcore.nn.recurrent.lstm import ProjectionLSTM as ProjectionLSTM
from dlcore.nn.recurrent.normalised import BatchNormLSTM as BatchNormLSTM
from dlcore.nn.recurrent.normalised import LayerNormLSTM as LayerNormLSTM
from dlcore.nn.recurrent.normalised import reverse_by_length as reverse_by_length
from dlcore.nn.recurrent.registry import CELLS as CELLS
from dlcore.nn.recurrent.registry import cell as cell
from dlcore.nn.recurrent.scan import Noise as Noise
from dlcore.nn.recurrent.scan import scan as scan
from dlcore.nn.recurrent.vanilla import Vanilla as Vanilla
