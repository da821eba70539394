"""OSWorld's metrics by name: ``metric(result, expected, **options)`` -> a number, by what of a file or a value is
asked.

Source: the package desktop-env 1.0.2, evaluators/metrics. Differs: what the policy left that cannot be read scores 0.0,
where the package raises; nothing that comes from a guest is ever evaluated as code. Those that are not here are named
when a task needs them, and the task is not runnable.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmturn.envs.gui.osworld.metrics import applications, browser, data, documents, pictures, texts, values
from mmturn.envs.gui.osworld.metrics.reading import Metric

METRICS: Mapping[str, Metric] = {
    **values.METRICS,
    **texts.METRICS,
    **data.METRICS,
    **pictures.METRICS,
    **browser.METRICS,
    **applications.METRICS,
    **documents.METRICS,
}
"""Every metric by its name."""
