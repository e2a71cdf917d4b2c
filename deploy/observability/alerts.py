"""All rules in the order in which they are written: recording rules first, then alerts by subject."""

from deploy.observability.engine_alerts import ENGINE_ALERTS
from deploy.observability.machine_alerts import CAPACITY_ALERTS, GPU_ALERTS
from deploy.observability.records import RECORDS
from deploy.observability.rules import Group
from deploy.observability.viewer_alerts import VIEWER_ALERTS

ALERTS = (*ENGINE_ALERTS, *VIEWER_ALERTS, *CAPACITY_ALERTS, *GPU_ALERTS)

RECORD_GROUPS = (Group(name="hiar-records", rules=RECORDS),)
ALERT_GROUPS = (
    Group(name="hiar-engine", rules=ENGINE_ALERTS),
    Group(name="hiar-viewers", rules=VIEWER_ALERTS),
    Group(name="hiar-capacity", rules=CAPACITY_ALERTS),
    Group(name="hiar-gpu", rules=GPU_ALERTS),
)
