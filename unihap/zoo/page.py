"""The text of MODEL_ZOO.md as a function of the files in model_zoo/.  See tools/update_model_zoo.py."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

SECTIONS = {
    "rendered_a": "Rendered people, domain a",
    "rendered_b": "Rendered people, domain b",
    "real": "Real pieces",
    "encoders": "Encoders: HAP's ladder",
    "few_shot": "Few-shot",
    "speed": "Speed",
}
PROSE = ("introduction", "published", "measured", "benchmarks")  # besides these, what a section begins with
NOBODY = "not measured"
ABSENT = "–"

Number = (int, float, Decimal)
# Key to the types of its value; what a record must have and what it may have.
RUN_KEYS = {
    **dict.fromkeys(("name", "section", "config", "command", "commit", "time", "hardware", "date"), str),
    "checkpoint": (str, list),
}
RUN_OPTIONS = {"note": str, "layout": str}
RESULT_KEYS = {"dataset": str, "task": str, "metric": str, "value": Number}
RESULT_OPTIONS = {
    "chance": Number, "records": int, "method": str, "seeds": list, "std": Number, "digits": int, "note": str,
    "trained": Number, "seconds": Number, "memory_mb": Number,  # percent of the weights; of one run
    "benchmark": str,  # the name of the whole benchmark that this is; pieces of one have its dataset name too
}  # fmt: skip
TABLE_KEYS = {"id": str, "paper": str, "number": str, "title": str, "lines": str}
ROW_KEYS = {"paper": str, "table": str, "method": str, "dataset": str, "metric": str, "value": Number, "source": list}
ROW_OPTIONS = {"std": Number, "setting": str, "note": str}
BENCHMARK_KEYS = {"benchmark": str, "task": str, "metric": str}

PATTERNS = {
    "commit": (r"[0-9a-f]{40}|not recorded", "a commit's 40 hexadecimal digits or 'not recorded'"),
    "checkpoint": (r"[0-9a-f]{64}|not recorded|none", "a SHA-256 in 64 hexadecimal digits, 'none' or 'not recorded'"),
    "date": (r"\d{4}-\d\d-\d\d", "a date like 2026-11-22"),
    "layout": (r"long|wide", "'long' or 'wide'"),
    "lines": (r"methods|datasets", "'methods' or 'datasets'"),
    "section": ("|".join(SECTIONS), f"one of {', '.join(SECTIONS)}"),
}


class ZooError(ValueError):
    """A file of model_zoo/ that says something impossible; the message names file and key."""


@dataclass(frozen=True)
class Zoo:
    """Everything in model_zoo/.

    Attributes:
        published: content of published.json.
        runs: content of measured/*.json, by file name.
        benchmarks: content of benchmarks.json.
        prose: text of the parts that people write, by file name without suffix.
    """

    published: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    benchmarks: Sequence[Mapping[str, str]]
    prose: Mapping[str, str]


def slug(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^\w.-]+", "_", name)


def read_json(path: Path, **how: Any) -> Any:
    """A JSON file.

    Raises:
        ZooError: it is absent or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), **how)
    except FileNotFoundError:
        raise ZooError(f"no file {path}") from None
    except ValueError as error:
        raise ZooError(f"{path}: not JSON: {error}") from error


def check(values: Any, where: str, keys: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuses an entry with a missing, unknown or malformed key; ``where`` names the file and the place in it."""
    if not isinstance(values, dict):
        raise ZooError(f"{where} is not an object")
    for key in keys:
        if key not in values or values[key] in ("", []):
            raise ZooError(f"{where}{key} is missing")
    for key, value in values.items():
        kind = {**keys, **options}.get(key)
        if kind is None:
            raise ZooError(f"{where}{key} is not a known key (known: {', '.join([*keys, *options])})")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ZooError(f"{where}{key} is {value!r}, of the wrong type")
        if key in PATTERNS:
            pattern, meaning = PATTERNS[key]
            for word in value if isinstance(value, list) else [value]:
                if not re.fullmatch(pattern, str(word)):
                    raise ZooError(f"{where}{key} is {word!r}, not {meaning}")
        if key not in ("command", "note") and isinstance(value, str) and re.search(r"[|\n]", value):
            raise ZooError(f"{where}{key} is {value!r}; a bar or a new line does not fit in a table")


def load_zoo(root: Path) -> Zoo:
    """Reads and checks the files of ``root/model_zoo``.

    Raises:
        ZooError: one of them is broken.
    """
    folder = root / "model_zoo"
    published = read_json(folder / "published.json", parse_float=Decimal)  # 65.90 stays 65.90
    _check_published(published, f"{folder / 'published.json'}: ")
    benchmarks = read_json(folder / "benchmarks.json")
    for i, entry in enumerate(benchmarks):
        check(entry, f"{folder / 'benchmarks.json'}: [{i}].", BENCHMARK_KEYS, {})
    known = {(entry["benchmark"], entry["metric"]) for entry in benchmarks}
    runs = []
    for path in sorted((folder / "measured").glob("*.json")):
        run = read_json(path)
        _check_run(run, f"{path}: ", root, known)
        runs.append(run)
    names = [run["name"] for run in runs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise ZooError(f"{folder / 'measured'}: name: two records are called {name!r}")
    prose = {path.stem: path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob("*.md"))}
    for name in PROSE:
        if name not in prose:
            raise ZooError(f"no file {folder / f'{name}.md'}")
    return Zoo(published, runs, benchmarks, prose)


def _check_published(published: Any, where: str) -> None:
    check(published, where, {"papers": dict, "sources": dict, "tables": list, "rows": list}, {})
    for i, table in enumerate(published["tables"]):
        check(table, f"{where}tables[{i}].", TABLE_KEYS, {"missing": str})
        if table["paper"] not in published["papers"]:
            raise ZooError(f"{where}tables[{i}].paper {table['paper']!r} is not among the papers")
    tables = {table["id"]: table for table in published["tables"]}
    seen = set()
    for i, row in enumerate(published["rows"]):
        check(row, f"{where}rows[{i}].", ROW_KEYS, ROW_OPTIONS)
        if row["table"] not in tables or tables[row["table"]]["paper"] != row["paper"]:
            raise ZooError(f"{where}rows[{i}].table {row['table']!r} is not a table of {row['paper']!r}")
        for source in row["source"]:
            if source not in published["sources"]:
                raise ZooError(f"{where}rows[{i}].source {source!r} is not among the sources")
        cell = (row["table"], row["method"], _column(row))
        if cell in seen:
            raise ZooError(f"{where}rows[{i}].value: the table {cell[0]} has two values of {cell[1:]}")
        seen.add(cell)


def _check_run(run: Any, where: str, root: Path, benchmarks: Collection[tuple[str, str]]) -> None:
    check(run, where, {**RUN_KEYS, "results": list}, RUN_OPTIONS)
    if not (root / run["config"]).is_file():
        raise ZooError(f"{where}config: no file {run['config']} in the repository")
    for i, result in enumerate(run["results"]):
        at = f"{where}results[{i}]."
        check(result, at, RESULT_KEYS, RESULT_OPTIONS)
        if "std" in result and len(result.get("seeds", ())) < 2:
            raise ZooError(f"{at}std needs at least two seeds in {at.rsplit(': ')[-1]}seeds")
        if run.get("layout") == "wide" and "method" not in result:
            raise ZooError(f"{at}method is missing, which names the line of a wide table")
        if "benchmark" in result and (result["benchmark"], result["metric"]) not in benchmarks:
            raise ZooError(f"{at}benchmark {result['benchmark']!r} has no {result['metric']!r} in benchmarks.json")


def page(zoo: Zoo) -> str:
    """The whole text, the same for the same files."""
    parts = [
        "<!-- Written by tools/update_model_zoo.py from model_zoo/: change those files. -->",
        "# Model zoo",
        zoo.prose["introduction"],
        "## Published",
        zoo.prose["published"],
    ]
    for key, paper in zoo.published["papers"].items():
        parts.append(f"### {paper['title']}")
        parts.append(f"{paper['venue']}, [arXiv:{paper['arxiv']}](https://arxiv.org/abs/{paper['arxiv']})")
        for table in zoo.published["tables"]:
            if table["paper"] == key:
                parts += _published_table(zoo.published, table)
    parts += ["## Measured by us", zoo.prose["measured"], "### The papers' benchmarks", zoo.prose["benchmarks"]]
    parts.append(_benchmark_table(zoo))
    for section, title in SECTIONS.items():
        parts.append(f"### {title}")
        if section in zoo.prose:
            parts.append(zoo.prose[section])
        runs = [run for run in zoo.runs if run["section"] == section]
        parts += _measured_tables(runs) if runs else ["Nobody has measured this yet."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first ``words`` columns are text and whose others are numbers."""
    rule = "|" + "---|" * words + "---:|" * (len(head) - words)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def _column(row: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (f"{row['dataset']} {row['metric']}", row.get("setting"))))


def _published_table(published: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    """Heading, grid, and what it was read from."""
    number = table["number"]
    word = "Tables" if " to " in number else "Table"
    parts = [f"#### {f'{word} {number}' if number[0].isdigit() else 'No table'}: {table['title']}"]
    rows = [row for row in published["rows"] if row["table"] == table["id"]]
    if rows:
        cells = {}
        for row in rows:
            std = f" ± {row['std']}" if "std" in row else ""
            at = (row["method"], _column(row))
            cells[at if table["lines"] == "methods" else at[::-1]] = f"{row['value']}{std}"
        lines, columns = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
        corner = "method" if table["lines"] == "methods" else "dataset and metric"
        parts.append(_grid([corner, *columns], ([x, *(cells.get((x, y), ABSENT) for y in columns)] for x in lines)))
    said = [f"Read from: {_sources(published, rows)}." if rows else ""]
    said += [f"{what}: {note}." for what, note in _notes(rows).items()]
    said.append(f"Not in our sources: {table['missing']}." if table.get("missing") else "")
    parts.append("  \n".join(filter(None, said)))
    return parts


def _sources(published: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The sources of a table, and which rows each gave where they are not the same for all."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        for source in row["source"]:
            groups.setdefault(source, []).append(row["method"])
    methods = {row["method"] for row in rows}
    said = []
    for source, given in groups.items():
        names = list(dict.fromkeys(given))
        which = f" for {' and '.join(names)}" if set(names) < methods else ""
        if not which and len(given) < len(rows):
            which = f" ({len(given)} of the {len(rows)} numbers)"
        said.append(published["sources"][source] + which)
    return "; ".join(said)


def _notes(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {f"{row['dataset']} {row['metric']}": row["note"] for row in rows if "note" in row}


def _value(result: Mapping[str, Any]) -> str:
    digits = result.get("digits", 1)
    std = f" ± {result['std']:.{digits}f}" if "std" in result else ""
    return f"{result['value']:.{digits}f}{std}"


def _chance(result: Mapping[str, Any]) -> str:
    return f"{result['chance']:.{result.get('digits', 1)}f}" if "chance" in result else ABSENT


def _benchmark_table(zoo: Zoo) -> str:
    """Every benchmark of the papers, with what was measured on it."""
    rows = []
    for entry in zoo.benchmarks:
        found = [
            f"{_value(result)} ({run['name']})"
            for run in zoo.runs
            for result in run["results"]
            if result.get("benchmark") == entry["benchmark"] and result["metric"] == entry["metric"]
        ]
        rows.append([entry["benchmark"], f"`{entry['task']}`", entry["metric"], ", ".join(found) or NOBODY])
    return _grid(["benchmark", "task", "metric", "ours"], rows, words=4)


def _measured_tables(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table of all runs with long layout, one for each other run, then how each run is repeated."""
    long = [run for run in runs if run.get("layout", "long") == "long"]
    parts = [_long_table(long)] if long else []
    for run in runs:
        if run.get("layout") == "wide":
            parts += [f"#### `{run['name']}`", _wide_table(run)]
    return [*parts, "Runs:", *map(_run_line, runs)]


def _long_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """A line for every result; columns that no result needs are left out."""
    columns = {
        "dataset": lambda r: f"`{r['dataset']}`",
        "method": lambda r: r.get("method", ""),
        "records": lambda r: str(r.get("records", "")),
        "task": lambda r: f"`{r['task']}`",
        "metric": lambda r: r["metric"],
        "ours": _value,
        "seeds": lambda r: str(len(r["seeds"])) if "seeds" in r else "",
        "chance": _chance,
        "trained": lambda r: f"{r['trained']:.2f} %" if "trained" in r else "",
        "seconds": lambda r: f"{r['seconds']:.0f}" if "seconds" in r else "",
        "memory_mb": lambda r: f"{r['memory_mb']:.0f}" if "memory_mb" in r else "",
        "note": lambda r: r.get("note", ""),
    }
    results = [(run, result) for run in runs for result in run["results"]]
    always = ("dataset", "task", "metric", "ours")
    used = [name for name in columns if name in always or any(name in result for _, result in results)]
    rows = [[*(columns[name](result) for name in used), f"`{run['name']}`"] for run, result in results]
    return _grid([*used, "run"], rows, words=len(used) + 1)


def _wide_table(run: Mapping[str, Any]) -> str:
    """A line for every method, a column for every dataset and metric, and a first line with the blind guesses."""

    def at(result: Mapping[str, Any]) -> str:
        return f"`{result['dataset']}` {result['metric']}"

    results = run["results"]
    columns = list(dict.fromkeys(map(at, results)))
    cells = {(result["method"], at(result)): _value(result) for result in results}
    methods = dict.fromkeys(result["method"] for result in results)
    rows = [[method, *(cells.get((method, column), NOBODY) for column in columns)] for method in methods]
    guesses = {at(result): _chance(result) for result in results if "chance" in result}
    if guesses:
        rows.insert(0, ["blind guess", *(guesses.get(column, ABSENT) for column in columns)])
    seeds = sorted({len(result["seeds"]) for result in results if "seeds" in result})
    spread = f"\n\nMean ± standard deviation over {' or '.join(map(str, seeds))} seeds." if seeds else ""
    return _grid(["", *columns], rows) + spread


def _run_line(run: Mapping[str, Any]) -> str:
    """What one needs to repeat a run and to know it again."""
    commit = run["commit"] if run["commit"] == "not recorded" else f"`{run['commit'][:12]}`"
    files = [run["checkpoint"]] if isinstance(run["checkpoint"], str) else run["checkpoint"]
    weights = ", ".join(f"`{file[:16]}`" if len(file) == 64 else file for file in files[:3])
    weights += f" and {len(files) - 3} more" if len(files) > 3 else ""
    facts = [
        f"config [{run['config']}]({run['config']})", f"commit {commit}", f"SHA-256 of the weights {weights}",
        f"time {run['time']}", f"hardware {run['hardware']}", f"date {run['date']}",
    ]  # fmt: skip
    note = f" {run['note']}" if "note" in run else ""
    command = "\n".join(f"      {line}" for line in run["command"].splitlines())
    return f"- `{run['name']}`: {'; '.join(facts)}.{note}\n\n{command}"
