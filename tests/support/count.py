"""Counts the results of all test programs (JUnit files in a folder) and prints failures and one closing line.

    count.py FOLDER NAME...

Exits with 1 when something failed, or when NAME.xml of an expected program is missing or empty.
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    skipped: collections.Counter[str] = collections.Counter()
    for path in sorted(folder.glob("*.xml")):
        cases = ElementTree.parse(path).getroot().findall(".//testcase")
        if not cases:
            print(f"FAILED: {path.name} holds no test")
            failed += 1
        for case in cases:
            name = f"{path.stem}: {case.get('classname', '')} {case.get('name')}"
            bad = case.find("failure") if case.find("failure") is not None else case.find("error")
            skip = case.find("skipped")
            if bad is not None or case.get("status") == "fail":
                failed += 1
                print(f"FAILED: {name}")
            elif skip is not None or case.get("status") in ("notrun", "disabled"):
                reason = (skip.get("message") if skip is not None else None) or "no reason given"
                if reason == "SKIP_REGULAR_EXPRESSION_MATCHED" or reason.startswith("Skipped"):
                    reason = skip_reason(case) or reason
                skipped[reason] += 1
            else:
                passed += 1
    for name in sys.argv[2:]:
        if not (folder / f"{name}.xml").exists():
            print(f"FAILED: {name} ended without writing its results")
            failed += 1
    for reason, count in skipped.most_common():
        print(f"skipped {count}: {reason}")
    print(f"{passed} passed, {failed} failed, {sum(skipped.values())} skipped")
    return 1 if failed else 0


def skip_reason(case: ElementTree.Element) -> str | None:
    """The line GoogleTest prints under `Skipped`, out of the program's output."""
    lines = (case.findtext("system-out") or "").splitlines()
    for number, line in enumerate(lines):
        if "Skipped" in line and "[" not in line:
            return next((text.strip() for text in lines[number + 1 :] if text.strip()), None)
    return None


if __name__ == "__main__":
    sys.exit(main())
