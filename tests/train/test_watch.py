"""A trouble that two reports in a row have is said once."""

from types import SimpleNamespace

import numpy as np

from dlcore.train import Logging


def test_a_trouble_is_said_where_two_reports_in_a_row_have_it():
    said = []
    log = SimpleNamespace(metrics=lambda *a, **k: None, say=said.append)
    account = SimpleNamespace(speed=dict)
    loop = SimpleNamespace(names=["loss"], account=account, recompilations=0)
    hook = Logging(log, every=1, watch=lambda m: "stuck" if m["loss"] == 7 else None)
    for number, loss in enumerate([7, 1, 7, 7, 7, 1, 7, 7], start=1):
        hook.read(loop, number, np.array([[loss, 1.0]]))
    assert said == ["step 4: stuck", "step 8: stuck"]
