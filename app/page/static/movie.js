import { call, ifFound, serves } from "./api.js";
import { ask, h, plural } from "./dom.js";
import { change } from "./edit.js";
import { averageOf, cards, nameOf, poster } from "./lists.js";

export async function movie({ main, state, signal, go, user }) {
  const id = encodeURIComponent(state.get("id"));
  const path = `movies/${id}`;
  const summary = h("div", { class: "summary" });
  const problem = h("p", { role: "alert", class: "problem" });
  let seen;

  async function summarize() {
    seen = await call(path, { signal });
    const scores = await call(`${path}/scores`, { signal });
    summary.replaceChildren(averageOf(seen.data), seen.data.rating_count ? chart(scores.data) : "");
  }

  async function remove() {
    const warning = h("p", {}, "Its ratings go with it. This cannot be undone.");
    if (!(await ask(`Delete “\u2068${nameOf(seen.data)}\u2069”?`, "Delete", warning))) return;
    try {
      if (await change(path, seen, "Delete")) await go("./", { replace: true });
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  await summarize();
  const genres = seen.data.genres.map((genre) =>
    h("a", { class: "chip", href: `?${new URLSearchParams({ genre })}` }, genre));
  const { year, imdb_id, tmdb_id } = seen.data;
  const link = (text, href) => h("a", { class: "button", href }, text);
  const actions = h("p", { class: "actions" },
    imdb_id && link("IMDb", `https://www.imdb.com/title/${imdb_id}/`),
    tmdb_id && link("TMDB", `https://www.themoviedb.org/movie/${tmdb_id}`),
    link("Edit", `?view=edit&id=${id}`),
    h("button", { class: "danger", onclick: remove }, "Delete"));
  const own = await stars({ id, user, problem, signal, rated: summarize });
  main.replaceChildren(h("article", { class: "movie" }, poster(seen.data),
    h("div", {}, h("h1", { dir: "auto" }, nameOf(seen.data)),
      h("p", { class: "facts" }, year, genres), summary, own, problem, actions)));

  if (!(await serves("/movies/{movie_id}/similar"))) return;
  const similar = await ifFound(call(`${path}/similar?limit=12`, { signal }));
  if (similar?.data.length) main.append(h("h2", {}, "Similar movies"), cards(similar.data));
}

function chart(scores) {
  const most = Math.max(...scores.map(({ count }) => count));
  return h("ul", { class: "chart", "aria-label": "Ratings by stars" },
    scores.reverse().map(({ score, count }) => {
      const bar = h("span", { class: "bar" });
      bar.style.setProperty("--share", count / most);
      return h("li", {}, h("span", {}, plural(score, "star")), bar, count.toLocaleString("en"));
    }));
}

/**
 * The viewer's rating; a click on the current number of stars withdraws it. A click counts for the
 * user number that the stars were drawn for, even if the viewer has changed it since.
 */
async function stars({ id, user, problem, signal, rated }) {
  let number = await user();
  // Read the list, because a 404 for each unrated movie would fill the browser's console.
  const path = `ratings?movie_id=${id}&user_id=${number}`;
  let score = number && (await call(path, { signal })).data[0]?.score;
  let queue = Promise.resolve(); // stores clicks in their order
  const text = h("span", { role: "status" });
  const click = (value) => (queue = queue.then(() => rate(value)));
  const buttons = [1, 2, 3, 4, 5].map((value) =>
    h("button", { "aria-label": plural(value, "star"), onclick: () => click(value) }, "★"));

  function paint(given) {
    score = given;
    buttons.forEach((button, place) => {
      button.classList.toggle("lit", place < score);
      button.setAttribute("aria-pressed", place + 1 === score);
    });
    text.textContent = score ? "Click again to withdraw." : "";
  }

  async function rate(value) {
    if (!number && !signal.aborted) number = await user({ needed: true });
    const [movie_id, user_id] = [Number(id), Number(number)];
    if (!user_id) return;
    let before = score;
    paint(value === before ? null : value);
    try {
      if (score) await call("ratings", { method: "POST", body: { movie_id, user_id, score } });
      else await call(`movies/${id}/ratings/${user_id}`, { method: "DELETE" });
      [before, problem.textContent] = [score, ""];
      await rated();
    } catch (error) {
      if (signal.aborted) return;
      paint(before);
      problem.textContent = error.message;
    }
  }

  paint(score);
  return h("p", { class: "stars", role: "group", "aria-labelledby": "own" },
    h("span", { id: "own" }, "Your rating"), h("span", {}, buttons), text);
}
