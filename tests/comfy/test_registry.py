"""The metadata for the registry of nodes, as the host's own reader reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess

from .hosts import NAME, PACK

READ = """
import json, sys
from comfy_config.config_parser import extract_node_configuration
print(json.dumps(extract_node_configuration(sys.argv[1]).model_dump()))
"""


def test_the_host_reads_a_name_a_publisher_and_versions_that_the_registry_takes(host):
    command = [str(host.python), "-c", READ, str(PACK)]
    said = json.loads(subprocess.check_output(command, cwd=host.root, env={**os.environ, "PYTHONPATH": ""}))
    project, comfy = said["project"], said["tool_comfy"]
    assert project["name"] == NAME
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9])*", project["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["description"]
    assert (PACK / project["license"]["file"]).is_file()
    assert project["supported_os"] == ["OS Independent"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project["supported_comfyui_version"])
    assert re.fullmatch(r"[a-z](?:-?[a-z0-9])*", comfy["publisher_id"])
    assert comfy["display_name"] == "T2V Nodes"
