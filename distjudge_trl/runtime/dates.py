"""Today's date, on which the processes of a run and the runs of a sweep agree."""

from __future__ import annotations

import os
from datetime import date


# Set by `distjudge-trl sweep`: the day (ISO) on which the study began, which is today for all of its runs.
TODAY = "DISTJUDGE_TODAY"


def today(*, shared: bool = False) -> str:
    """Today's date (ISO); in the run of a sweep the day on which its study began.

    Args:
        shared (`bool`, defaults to `False`): all processes of the run ask together, and get the date of the first one:
            midnight may come between them, and they may be in other time zones.
    """
    if (day := os.environ.get(TODAY)) is not None:
        return day
    day = date.today().isoformat()
    if not shared:
        return day
    from torch import distributed

    # The arguments of a training run have joined the processes.
    if not (distributed.is_available() and distributed.is_initialized()):
        return day
    days = [day]
    distributed.broadcast_object_list(days, src=0)
    return days[0]
