"""Print setup.cfg's requirements, one a line: requirements.py [--without NAME] [EXTRA ...].

pip can install all of them or none, but with a cluster's own MPI all but one are wanted.
"""

import argparse
import configparser
import re
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--without", metavar="NAME")
parser.add_argument("extras", nargs="*", metavar="EXTRA")
args = parser.parse_args()

config = configparser.ConfigParser()
config.read_string((Path(__file__).parents[1] / "setup.cfg").read_text())
lists = [config["options"]["install_requires"]]
lists += [config["options.extras_require"][extra] for extra in args.extras]
for requirement in "\n".join(lists).split("\n"):
    name = re.match(r"[\w.-]*", requirement)[0]
    if name and name != args.without:
        print(requirement)
