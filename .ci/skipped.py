"""Prints the tests that pytest skipped for want of a library: `skipped.py REPORT LIBRARY...`.

REPORT is what `pytest --junitxml=REPORT` wrote; printed are arguments of pytest, one a line.
"""

import sys
from xml.etree import ElementTree

report, *libraries = sys.argv[1:]
for case in ElementTree.parse(report).iter("testcase"):
    reasons = [f"{each.get('message')} {each.text}" for each in case.iter("skipped")]
    if any(f"could not import '{library}" in reason for library in libraries for reason in reasons):
        # Of a file that is skipped as a whole the name is the module's.
        module, name = case.get("classname"), case.get("name")
        file = (module or name).replace(".", "/") + ".py"
        print(f"{file}::{name}" if module else file)
