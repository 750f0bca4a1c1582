import { serves } from "./api.js";
import { ask, field, h } from "./dom.js";
import { edit } from "./edit.js";
import { best, catalogue, forYou, myRatings } from "./lists.js";
import { movie } from "./movie.js";

const PERSONAL = new Set(["movie", "for-you", "my-ratings"]); // drawn for one user number
const VIEWS = { __proto__: null, best, movie, add: edit, edit, "for-you": forYou, "my-ratings": myRatings };
const main = document.getElementById("main");
const userButton = document.getElementById("user");
let shown = new AbortController();
let number = null; // the user number of this tab, which localStorage shares with the others
const viewOf = (address) => new URL(address).searchParams.get("view");

/** Show the view that the address names, and abort the requests of the one before. */
async function show({ scroll = 0, focus = true } = {}) {
  shown.abort();
  const { signal } = (shown = new AbortController());
  document.querySelector("dialog")?.close();
  const view = viewOf(location.href);
  const { id } = document.activeElement; // the new view may have the same field
  for (const link of document.querySelectorAll("nav[aria-label=Views] a"))
    link.setAttribute("aria-current", viewOf(link.href) === view ? "page" : "false");
  main.setAttribute("aria-busy", "true");
  try {
    const state = new URLSearchParams(location.search);
    await (VIEWS[view] ?? catalogue)({ main, state, signal, go, user });
  } catch (error) {
    if (!signal.aborted)
      main.replaceChildren(h("h1", {}, "That did not work"), h("p", { role: "alert" }, error.message));
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  const heading = main.querySelector("h1");
  document.title = `${heading.textContent} · Movies`;
  heading.tabIndex = -1;
  if (focus) (main.querySelector(`[id="${id}"]`) ?? heading).focus({ preventScroll: true });
  scrollTo(0, scroll);
}

/** Open another view, as a link does. */
function go(address, { replace = false } = {}) {
  history.replaceState({ scroll: scrollY }, "");
  history[replace ? "replaceState" : "pushState"](null, "", address);
  return show();
}

/** Take over the stored user number. A view drawn for another one is drawn again. */
function adoptNumber({ redraw = true } = {}) {
  const stored = localStorage.getItem("user");
  if (stored === number) return;
  number = stored;
  userButton.textContent = number ? `User ${number}` : "Choose user";
  if (redraw && PERSONAL.has(viewOf(location.href))) show({ scroll: scrollY });
}

/** This tab's user number. Asks for one if it is `needed` and unknown; null if none is chosen. */
async function user({ needed = false, change = false } = {}) {
  if (!change && (number || !needed)) return number;
  const input = h("input", { type: "number", min: 1, max: 2 ** 53 - 1, required: "", value: number });
  field("User number", "number", input, "remembered by this browser");
  const chosen = await ask("Which user are you?", "Use number", null, input);
  if (!chosen) return null;
  localStorage.setItem("user", Number(chosen));
  adoptNumber({ redraw: change });
  return number;
}

userButton.addEventListener("click", () => user({ change: true }));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const isPlain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !isPlain || link.pathname !== location.pathname) return;
  event.preventDefault();
  return link.hash ? main.focus() : go(link.href);
});
addEventListener("popstate", (event) => show({ scroll: event.state?.scroll }));
addEventListener("storage", adoptNumber);
addEventListener("pageshow", adoptNumber); // a page restored by Back has missed storage events
history.scrollRestoration = "manual";
adoptNumber({ redraw: false });
await show({ focus: false });
// Request the document last: it is large, and the first view does not need it.
for (const link of document.querySelectorAll("[data-path]"))
  link.hidden = !(await serves(link.dataset.path));
