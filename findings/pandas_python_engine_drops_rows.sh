#!/usr/bin/env bash
# pandas' Python engine drops the rows for which pandas' own writer takes care that they survive.
#
# Behaviour: to_csv() of a single column writes a missing value as "" instead of an empty line, so
#   that the row is not lost with the blank lines. The C engine and PyArrow read it back. With
#   engine="python", which pandas also picks by itself for sep=None or a separator of several
#   characters, the row is gone: the quotes are removed before blank lines are skipped. A quoted
#   space is taken for a blank line too. Values move up against the rows of another file.
# Expected: as many rows as were written. By RFC 4180 a line with "" is a record with one field.
# Versions: pandas 3.1.1, pyarrow 26.0.1, numpy 2.4.6.
# Documentation: skip_blank_lines is about blank lines; quoted ones are not mentioned.
# Output:
#   written: 'tag\nnoir\n""\nheist\n'
#   c        ['noir', '', 'heist']
#   pyarrow  ['noir', '', 'heist']
#   python   ['noir', 'heist']
#   python, skip_blank_lines=False ['noir', '', 'heist']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import pandas

text = pandas.DataFrame({"tag": ["noir", None, "heist"]}).to_csv(index=False, lineterminator="\n")
print("written:", repr(text))


def read(**options) -> list[str]:
    frame = pandas.read_csv(io.BytesIO(text.encode()), keep_default_na=False, **options)
    return frame["tag"].tolist()


seen = []
for engine in ("c", "pyarrow", "python"):
    seen.append(read(engine=engine))
    print(f"{engine:8}", seen[-1])
seen.append(read(engine="python", skip_blank_lines=False))
print("python, skip_blank_lines=False", seen[-1])
whole, short = ["noir", "", "heist"], ["noir", "heist"]
if text != 'tag\nnoir\n""\nheist\n' or seen != [whole, whole, short, whole]:
    sys.exit("the behaviour has changed")
PYTHON
