import { call } from "./api.js";
import { ask, field, h, showProblems } from "./dom.js";

// What is not a number is sent as text, and the API's error message explains it.
const number = (text) => (/^[0-9]+$/.test(text) ? Number(text) : text || null);
function list(text) {
  const names = text.split(",").map((name) => name.trim()).filter(Boolean);
  return names.length ? names : ["Unknown"]; // as the API stores a movie without genres
}
// Label, hint and conversion to JSON of each field.
const FIELDS = { title: ["Title", "", String], year: ["Year", "", number],
  genres: ["Genres", "separated by commas", list],
  imdb_id: ["IMDb id", "such as tt0133093", (text) => text || null],
  tmdb_id: ["TMDB id", "a number", number] };
const asText = (value) => (Array.isArray(value) ? value.join(", ") : `${value ?? ""}`);
const differs = (one, other) => (name) => asText(one[name]) !== asText(other[name]);

/** The fields of a form that differ from the movie, as the API expects them. */
const changesIn = (form, movie) => Object.fromEntries(Object.keys(FIELDS)
  .filter(differs(form, movie)).map((name) => [name, FIELDS[name][2](form[name])]));

/** Two versions of a movie side by side, with their differences marked. */
function versions(mine, stored) {
  const cell = (movie, name) => h("td", { dir: "auto" }, asText(movie[name]));
  const row = ([name, [label]]) => h("tr", { class: differs(mine, stored)(name) && "differs" },
    h("th", { scope: "row" }, label), cell(mine, name), cell(stored, name));
  const headings = ["Yours", "Stored now"].map((name) => h("th", { scope: "col" }, name));
  return h("table", {}, h("thead", {}, h("tr", {}, h("td"), headings)),
    h("tbody", {}, Object.entries(FIELDS).map(row)));
}

/**
 * Change the movie that the viewer has seen, or delete it if there is no form. Only fields that
 * differ are sent, so fields unknown to this page keep their values. If someone else has changed
 * the movie, the viewer compares both versions and decides; null means that nothing was stored.
 */
export async function change(path, { data: seen, etag }, action, form) {
  for (;;) {
    const body = form && changesIn(form, seen);
    if (body && !Object.keys(body).length) return { data: seen };
    try {
      return await call(path, { method: form ? "PATCH" : "DELETE", body, etag });
    } catch (error) {
      if (error.status !== 412) throw error;
    }
    const stored = await call(path);
    const content = versions(form ?? seen, stored.data);
    // The ETag changes with each rating too, which is no reason to ask.
    const isChanged = Object.keys(FIELDS).some(differs(seen, stored.data));
    if (isChanged && !(await ask("Someone else has changed it", action, content))) return null;
    ({ data: seen, etag } = stored);
  }
}

/** The form of the movie whose id is in the address, or of a new one. */
export async function edit({ main, state, signal, go }) {
  const path = state.has("id") && `movies/${encodeURIComponent(state.get("id"))}`;
  const seen = path ? await call(path, { signal }) : { data: {} };
  const fields = Object.entries(FIELDS).map(([name, [label, hint]]) => field(label, name,
    h("input", { value: asText(seen.data[name]), autocomplete: "off", dir: "auto" }), hint));
  const form = h("form", { class: "edit", novalidate: "" },
    h("p", { class: "problem", role: "alert" }), fields,
    h("p", { class: "actions" }, h("button", { class: "primary" }, "Save")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    showProblems(form);
    const entries = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
    const filled = Object.fromEntries(entries);
    try {
      const saved = path ? await change(path, seen, "Save mine", filled)
        : await call("movies", { method: "POST", body: changesIn(filled, {}) });
      if (saved) await go(`?view=movie&id=${saved.data.id}`, { replace: true });
    } catch (error) {
      showProblems(form, error.problems);
    }
  });
  main.replaceChildren(h("h1", {}, path ? "Edit movie" : "Add a movie"), form);
}
