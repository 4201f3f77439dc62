"""Run the job that a config.json describes, in a new directory: again.py CONFIG OUT."""

import json
import sys
from pathlib import Path

from hpcddrl.runtime.job import run_job
from hpcddrl.settings import load

config, out = map(Path, sys.argv[1:])
sys.exit(run_job(load(json.loads(config.read_text())), out, resume=False))
