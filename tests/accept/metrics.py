"""Names and queries of rules and dashboard against what there is: see metrics.sh.

    metrics.py names SCRAPE RULES DASHBOARD    every name that is used is scraped
    metrics.py up URL                          Prometheus at URL scrapes, and has the rules
    metrics.py queries URL DASHBOARD           Prometheus at URL answers every query with something
"""

import json
import re
import sys
import urllib.parse
import urllib.request


def queries(dashboard):
    """Every query of a panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def names(scrape, rules, dashboard):
    scraped = {re.split(r"[{ ]", line)[0] for line in open(scrape) if not line.startswith("#")}
    pattern = re.compile(r"\b(?:tallyfs|process)_[a-z0-9_]+\b")
    used = {}
    for path in (rules, dashboard):
        for name in pattern.findall(open(path).read()):
            used.setdefault(name, path)
    missing = sorted(name for name in used if name not in scraped)
    unused = sorted(
        name for name in scraped if name not in used and not name.startswith("tallyfs_request_duration_seconds")
    )
    for name in missing:
        print(f"{name}, which {used[name]} uses, is not scraped")
    print(f"{len(used)} names are used, {len(scraped)} scraped; for queries of your own: {', '.join(unused) or 'none'}")
    return not missing


def ask(url, path, **parameters):
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
        return json.load(answer)["data"]


def up(url):
    target = ask(url, "targets")["activeTargets"][0]
    rules = [rule for group in ask(url, "rules")["groups"] for rule in group["rules"]]
    bad = [rule["name"] for rule in rules if rule["health"] not in ("ok", "unknown")]
    well = ask(url, "query", query='up{job="tallyfs"}')["result"]
    print(f"{target['scrapeUrl']} is {target['health']} {target['lastError']}; {len(rules)} rules, {len(bad)} bad")
    return target["health"] == "up" and bool(well) and not bad


def answered(url, dashboard):
    count, failed = 0, 0
    for title, query in queries(json.load(open(dashboard))):
        count += 1
        for variable, value in (("$instance", ".*"), ("$path", ".*"), ("$__rate_interval", "30s"), ("$__interval", "30s")):
            query = query.replace(variable, value)
        try:
            found = ask(url, "query", query=query)["result"]
        except OSError as error:
            found = None
            print(f"{title}: {error}: {query}")
        if not found:
            failed += 1
            print(f"{title}: nothing: {query}")
    print(f"{count - failed} of {count} answered")
    return not failed


WHAT = {"names": names, "up": up, "queries": answered}
sys.exit(not WHAT[sys.argv[1]](*sys.argv[2:]))
