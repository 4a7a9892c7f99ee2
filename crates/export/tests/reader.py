"""Reads an export by its Data Package description alone, with Python's standard library, and prints every table as JSON.

Each value is parsed as the type that the description gives its field, and printed as a PostgreSQL literal (a string) or null, so
that the test can put it back into a table of the same shape. Usage: python3 reader.py EXPORT.zip
"""

import base64
import csv
import datetime
import decimal
import io
import json
import re
import sys
import uuid
import zipfile

csv.field_size_limit(1 << 30)

# XML Schema's duration, which the Data Package standard refers to; weeks and signs inside are not part of it.
DURATION = re.compile(r"^-?P(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$")


def array_literal(value):
    if isinstance(value, list):
        return "{" + ",".join(array_literal(one) for one in value) + "}"
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def literal(field, text):
    kind, form = field["type"], field.get("format")
    if kind == "integer":
        return str(int(text))
    if kind == "number":
        if not re.fullmatch(r"NaN|-?INF|-?\d+(\.\d+)?([eE][+-]?\d+)?", text):
            raise ValueError(f"{text!r} is not a number of the standard")
        number = str(decimal.Decimal(text))
        return text if re.search(r"\d", number) else number
    if kind == "boolean":
        return {"true": "true", "false": "false"}[text]
    if kind == "date":
        return datetime.date.fromisoformat(text).isoformat()
    if kind == "datetime":
        return datetime.datetime.fromisoformat(text).isoformat()
    if kind == "time":
        return datetime.time.fromisoformat(text).isoformat()
    if kind == "duration":
        if not DURATION.match(text):
            raise ValueError(f"{text!r} is not a duration")
        return text
    if kind == "string" and form == "binary":
        return "\\x" + base64.b64decode(text, validate=True).hex()
    if kind == "string" and form == "uuid":
        return str(uuid.UUID(text))
    if kind == "array":
        parsed = json.loads(text)
        if not isinstance(parsed, list):
            raise ValueError(f"{text!r} is not an array")
        return array_literal(parsed)
    if kind == "any":
        json.loads(text)
        return text
    if kind == "string":
        return text
    raise ValueError(f"unexpected type {kind}")


def table(archive, resource):
    dialect = resource["dialect"]
    schema = resource["schema"]
    missing = schema["missingValues"]
    with archive.open(resource["path"]) as file:
        reader = csv.reader(
            io.TextIOWrapper(file, resource["encoding"], newline=""),
            delimiter=dialect["delimiter"],
            quotechar=dialect["quoteChar"],
            doublequote=dialect["doubleQuote"],
            strict=True,
        )
        header = next(reader)
        assert header == [field["name"] for field in schema["fields"]], header
        rows = []
        for record in reader:
            assert len(record) == len(header), record
            rows.append(
                {
                    field["name"]: None if text in missing else literal(field, text)
                    for field, text in zip(schema["fields"], record)
                }
            )
        return rows


with zipfile.ZipFile(sys.argv[1]) as archive:
    package = json.loads(archive.read("datapackage.json"))
    json.dump({resource["name"]: table(archive, resource) for resource in package["resources"]}, sys.stdout)
