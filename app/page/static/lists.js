import { call, ifFound, serves, sleep } from "./api.js";
import { field, h, plural, showProblems } from "./dom.js";

const PAGE = 24;
const FIRST_SORT = "-rating_count";
// The first one is chosen by the API while searching.
const SORTS = { "": "Best match", [FIRST_SORT]: "Most rated", "-average_rating": "Best average", title: "Title",
  "-year": "Newest", year: "Oldest", "-id": "Latest added" };
const RANKINGS = { weighted: "Weighted by number of ratings", mean: "Plain average" };

/** A title as people say it: "The Matrix" for "Matrix, The (1999)". */
export const nameOf = ({ title }) =>
  title.replace(/ \(\d{4}\)$/, "").replace(/^(.+), (The|A|An)$/, "$2 $1");

/** A poster made of the movie's title, in a colour that depends on its first genre. */
export function poster(movie) {
  const hue = [...movie.genre].reduce((sum, letter) => (sum * 16 + letter.codePointAt()) % 397, 0);
  const element = h("span", { class: "poster" },
    h("strong", { dir: "auto" }, nameOf(movie)), h("span", {}, movie.year));
  element.style.setProperty("--hue", 310 + hue + (movie.id * 13) % 30);
  element.style.setProperty("--turn", `${movie.id * 47}deg`);
  return element;
}

export function averageOf({ average_rating, rating_count }) {
  if (rating_count === 0) return h("span", { class: "average" }, "Not rated yet");
  return h("span", { class: "average" }, h("span", { class: "lit", "aria-hidden": "true" }, "★ "),
    average_rating.toFixed(1), h("small", {}, ` ${plural(rating_count, "rating")}`));
}

export const cards = (movies, noteOf = () => null, kind = "") =>
  h("ul", { class: `cards ${kind}` }, movies.map((movie) => h("li", {},
    h("a", { class: "card", href: `?view=movie&id=${movie.id}` }, poster(movie),
      averageOf(movie), h("small", {}, movie.genres.join(" · "))), noteOf(movie))));

const choice = (options, chosen) => h("select", {}, Object.entries(options).map(([value, text]) =>
  h("option", { value, selected: value === chosen ? "" : null }, text)));

async function genreField(chosen, signal) {
  const { data } = await call("genres", { signal });
  const counted = data.map(({ genre, movie_count }) => [genre, `${genre} (${movie_count})`]);
  const options = { "": "All genres", [chosen]: chosen || "All genres" };
  return field("Genre", "genre", choice({ ...options, ...Object.fromEntries(counted) }, chosen));
}

/** The fields of a form as query parameters, without empty ones and defaults. */
const queryOf = (form, ...defaults) => [...new FormData(form)]
  .map(([name, value]) => [name, value.trim()])
  .filter(([, value]) => value && !defaults.includes(value));

export async function catalogue({ main, state, signal }) {
  const text = (label, name, options) =>
    field(label, name, h("input", { value: state.get(name), ...options }));
  const form = h("form", { class: "filters", role: "search", novalidate: "" },
    text("Search titles", "q", { type: "search", maxlength: 300, size: 30 }),
    await genreField(state.get("genre") ?? "", signal),
    field("Order", "sort", choice(SORTS, state.get("sort") ?? "")),
    text("From year", "year_min", { inputmode: "numeric", size: 5, maxlength: 4 }),
    text("To year", "year_max", { inputmode: "numeric", size: 5, maxlength: 4 }));
  const [status, results] = [h("p", { role: "status" }), h("div")];
  let latest = new AbortController();

  /** Name the default order: the best match of a search, else the most rated. */
  function nameOrder() {
    const [automatic, mostRated] = form.elements.sort.options;
    const searching = form.elements.q.value.trim();
    automatic.text = SORTS[searching ? "" : FIRST_SORT];
    mostRated.hidden = !searching && !mostRated.selected;
  }

  /** Load the page that the address names, and abort an earlier request. */
  async function load(delay = 0) {
    latest.abort();
    const both = AbortSignal.any([signal, (latest = new AbortController()).signal]);
    await sleep(delay, both);
    // Other parameters of a shared address are ignored.
    const query = Object.fromEntries(queryOf(form));
    const page = Math.max(1, parseInt(new URLSearchParams(location.search).get("page")) || 1);
    const order = query.q ? {} : { sort: FIRST_SORT };
    const wanted = { ...order, ...query, limit: PAGE, offset: PAGE * (page - 1) };
    try {
      const { data, total, searchedFor } =
        await call(`movies?${new URLSearchParams(wanted)}`, { signal: both });
      showProblems(form);
      const instead = searchedFor && `Showing results for “${searchedFor}”. `;
      status.textContent = instead + (total ? plural(total, "movie") : "");
      results.replaceChildren(total ? cards(data) : nothing(Object.keys(query).length),
        pager(query, page, total));
    } catch (error) {
      if (!error.problems) throw error;
      showProblems(form, error.problems);
    }
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    nameOrder();
    history.replaceState(null, "", `?${new URLSearchParams(queryOf(form))}`);
    load(target.name === "q" ? 150 : 0).catch(() => {}); // aborted
  }, { signal });
  nameOrder();
  await load();
  main.replaceChildren(h("h1", {}, "Catalogue"), form, status, results);
}

const nothing = (filtered) => h("div", { class: "empty" },
  h("p", {}, filtered ? "No movies match." : "The catalogue is empty."),
  filtered ? h("a", { class: "button", href: "./" }, "Show all movies")
    : h("a", { class: "button", href: "?view=add" }, "Add the first movie"));

function pager(query, page, total) {
  const pages = Math.ceil(total / PAGE);
  if (pages < 2) return "";
  const link = (text, target) => (target < 1 || target > pages || target === page
    ? h("span", {}, text)
    : h("a", { href: `?${new URLSearchParams({ ...query, page: target })}` }, text));
  const place = `Page ${page.toLocaleString("en")} of ${pages.toLocaleString("en")}`;
  return h("nav", { class: "pager", "aria-label": "Pages" }, link("First", 1),
    link("Previous", Math.min(page - 1, pages)), place, link("Next", page + 1), link("Last", pages));
}

export async function best({ main, state, signal, go }) {
  const [ranking, genre] = [state.get("ranking") ?? "weighted", state.get("genre") ?? ""];
  const path = `movies/top?${new URLSearchParams({ ranking, genre, limit: 50 })}`;
  const [{ data }, genres] = await Promise.all([call(path, { signal }), genreField(genre, signal)]);
  const form = h("form", { class: "filters" },
    field("Ranking", "ranking", choice(RANKINGS, ranking)), genres);
  form.addEventListener("change", () =>
    go(`?${new URLSearchParams([["view", "best"], ...queryOf(form, "weighted")])}`));
  main.replaceChildren(h("h1", {}, "Best movies"), form,
    data.length ? cards(data, () => null, "ranked") : nothing(genre));
}

/** Show a view for one user number, or a button to choose one. */
async function person({ main, signal, user }, heading, contentOf) {
  const number = await user({ needed: true });
  const content = number ? await contentOf(number)
    : [h("button", { onclick: () => user({ change: true }) }, "Choose a user number")];
  signal.throwIfAborted(); // the number may have changed
  main.replaceChildren(h("h1", {}, heading), ...content);
}

export const forYou = (context) => person(context, "For you", async (number) => {
  const path = `recommendations/${number}?limit=${PAGE}`;
  const found = (await serves("/recommendations/{user_id}"))
    && (await ifFound(call(path, { signal: context.signal })));
  if (!found) return ["See ", h("a", { href: "?view=best" }, "the best movies"), " instead."];
  return [found.data.length ? cards(found.data, because) : "You have rated every movie."];
});

function because({ because: liked }) {
  const links = liked.flatMap((movie, place) =>
    [place ? ", " : "", h("a", { dir: "auto", href: `?view=movie&id=${movie.id}` }, nameOf(movie))]);
  return links.length ? h("p", { class: "because" }, "because you liked ", links) : null;
}

export const myRatings = (context) => person(context, "My ratings", async (user_id) => {
  const { signal, state } = context;
  const read = (part) => call(`ratings?${new URLSearchParams({ user_id, ...part })}`, { signal });
  // The API lists the oldest first, so the newest are on the last page.
  const { total } = await read({ limit: 1 });
  const page = Number(state.get("page") ?? 1);
  const end = total - (page - 1) * PAGE;
  const offset = Math.max(0, end - PAGE);
  const { data } = end > 0 ? await read({ limit: end - offset, offset }) : { data: [] };
  const rated = await Promise.all(data.reverse().map(async ({ movie_id, score }) => (
    { ...(await call(`movies/${movie_id}`, { signal })).data, score })));
  const given = ({ score }) => h("p", { class: "because" }, `You gave it ${plural(score, "star")}`);
  const count = total ? plural(total, "rating") : "You have rated nothing yet.";
  return [h("p", {}, count), cards(rated, given), pager({ view: "my-ratings" }, page, total)];
});
