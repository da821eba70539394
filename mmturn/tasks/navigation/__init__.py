"""Houses to walk through, and tasks that say where to go."""

from mmturn.tasks.navigation.house import CELL_M, House, Pose, make_house
from mmturn.tasks.navigation.walks import expert_actions, navigation_tasks, ndtw, walked

__all__ = [
    "CELL_M",
    "House",
    "Pose",
    "expert_actions",
    "make_house",
    "navigation_tasks",
    "ndtw",
    "walked",
]
