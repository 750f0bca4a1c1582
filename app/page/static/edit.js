import { call } from "./api.js";
import { ask, field, h, showProblems } from "./dom.js";

const FIELDS = { title: ["Title"], year: ["Year"], genres: ["Genres", "separated by commas"],
  imdb_id: ["IMDb id", "such as tt0133093"], tmdb_id: ["TMDB id", "a number"] };
const asText = (value) => (Array.isArray(value) ? value.join(", ") : `${value ?? ""}`);
const differs = (one, other) => (name) => asText(one[name]) !== asText(other[name]);

/** Two versions of a movie side by side; what differs is marked. */
function versions(mine, stored) {
  const cell = (movie, name) => h("td", { dir: "auto" }, asText(movie[name]));
  const row = ([name, [label]]) => h("tr", { class: differs(mine, stored)(name) && "differs" },
    h("th", { scope: "row" }, label), cell(mine, name), cell(stored, name));
  const headings = ["Yours", "Stored now"].map((name) => h("th", { scope: "col" }, name));
  return h("table", {}, h("thead", {}, h("tr", {}, h("td"), headings)),
    h("tbody", {}, Object.entries(FIELDS).map(row)));
}

/**
 * Change a movie that the viewer has seen. If someone else has changed it since, both versions are
 * shown and the viewer decides; null leaves it as it is stored. A new rating is no reason to ask.
 */
export async function change(path, request, { data: seen, etag }, action) {
  for (;;) {
    try {
      return await call(path, { ...request, etag });
    } catch (error) {
      if (error.status !== 412) throw error;
    }
    const stored = await call(path);
    const content = versions(request.body ?? seen, stored.data);
    const isChanged = Object.keys(FIELDS).some(differs(seen, stored.data));
    if (isChanged && !(await ask("Someone else has changed it", action, content))) return null;
    ({ data: seen, etag } = stored);
  }
}

/** The movie in a form. What is no number stays text, so that the API says what is wrong with it. */
function movieIn(form) {
  const entries = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  const { title, year, genres, imdb_id, tmdb_id } = Object.fromEntries(entries);
  const number = (text) => (/^[0-9]+$/.test(text) ? Number(text) : text);
  const named = genres.split(",").map((genre) => genre.trim()).filter(Boolean);
  return { title, year: number(year), ...(named.length && { genres: named }),
    imdb_id: imdb_id || null, tmdb_id: tmdb_id ? number(tmdb_id) : null };
}

/** The form of the movie whose id the address has, or of a new one. */
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
    const body = movieIn(form);
    try {
      const saved = path ? await change(path, { method: "PUT", body }, seen, "Save mine")
        : await call("movies", { method: "POST", body });
      if (saved) await go(`?view=movie&id=${saved.data.id}`, { replace: true });
    } catch (error) {
      showProblems(form, error.problems);
    }
  });
  main.replaceChildren(h("h1", {}, path ? "Edit movie" : "Add a movie"), form);
}
