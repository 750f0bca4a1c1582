#!/usr/bin/env bash
# A newline at the end of a two-column CSV file makes Papa Parse split it at "|".
#
# Behaviour: without a delimiter in its options Papa Parse tries several and rejects those that give
#   fewer than 1.99 fields per line on average. The end of the last line counts as an empty line with
#   one field, so a comma in a file of two columns stays below 2 for up to eight movies and is
#   rejected. If each movie has some genres, as in MovieLens, "|" remains: the only column is called
#   "title,genres" and the other genres are extra fields. errors has TooManyFields for each movie, and
#   nothing about the delimiter. A ninth movie, no newline at the end, or skipEmptyLines: true makes
#   it a comma. In files without "|" a comma is the last resort, so most small files hide this.
# Expected: "," in every case. The header has a comma and no "|", every line has the same number of
#   commas, and RFC 4180 (2.2) leaves the last line break to the writer.
# Versions: papaparse 5.7.1, Node.js 20.20.
# Documentation: says that the delimiter is detected if none is given, and no more.
# Output:
#   8 movies, newline at the end: "|" Film 1,Action
#   8 movies, no newline:         "," Film 1
#   9 movies, newline at the end: "," Film 1
#   8 movies, skipEmptyLines:     "," Film 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" papaparse@5.7.1

cat > "$folder/movies.cjs" <<'JAVASCRIPT'
const Papa = require("papaparse");

function movies(count, end) {
  const lines = ["title,genres"];
  for (let number = 1; number <= count; number++) {
    lines.push(`Film ${number},Action|Crime|Drama|War`);
  }
  return lines.join("\n") + end;
}

function parse(label, text, options = {}) {
  const { data, meta } = Papa.parse(text, { header: true, ...options });
  console.log(label.padEnd(29), JSON.stringify(meta.delimiter), Object.values(data[0])[0]);
  return meta.delimiter;
}

const seen = [
  parse("8 movies, newline at the end:", movies(8, "\n")),
  parse("8 movies, no newline:", movies(8, "")),
  parse("9 movies, newline at the end:", movies(9, "\n")),
  parse("8 movies, skipEmptyLines:", movies(8, "\n"), { skipEmptyLines: true }),
];
if (seen.join(" ") !== "| , , ,") {
  console.error("the behaviour has changed");
  process.exit(1);
}
JAVASCRIPT
node "$folder/movies.cjs"
