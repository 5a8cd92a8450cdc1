"""The files to deploy with name what there is: metrics, settings, files."""

import json
import re
from pathlib import Path

import yaml
from tests.serve.conftest import Running

from proactivellm.serve.settings import PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_dashboard_shows_metrics_that_the_server_has(server: Running) -> None:
    told = server.app.state.metrics.text().decode()
    known = set(re.findall(r"^# TYPE (\S+) ", told, re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
    asked = {
        name.removesuffix("_bucket")
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:proactivellm|process)_\w+", target["expr"])
    }
    assert len(asked) > 10 and asked <= known


def test_variables_are_settings_and_files_exist() -> None:
    texts = [path.read_text() for path in DEPLOY.rglob("*") if path.is_file()]
    variables = {name for text in texts for name in re.findall(rf"{PREFIX}(\w+)", text)}
    assert variables and {name.lower() for name in variables} <= set(Settings.model_fields)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = [m for service in compose["services"].values() for m in service.get("volumes", ())]
    assert mounts and all((DEPLOY / mount.split(":")[0]).is_file() for mount in mounts)
    for path in DEPLOY.rglob("*.yaml"):
        assert list(yaml.safe_load_all(path.read_text()))
