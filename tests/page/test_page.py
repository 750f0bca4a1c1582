"""The page in a real browser."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped] # it has none
from fastapi import FastAPI
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    Route,
    expect,
    sync_playwright,
)
from pydantic import SecretStr
from sqlalchemy import Engine, event, insert
from sqlmodel import Session

from app.config import Settings
from app.main import create_app
from app.repository import MovieRepository
from app.tables import NEIGHBOUR
from tests.browser import CHROMIUM, NO_NETWORK, needs_chromium
from tests.helpers import HEAT, RONIN, SAMPLES, Sample, everything, movie_rows, rating_rows, store
from tests.server import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.ci, needs_chromium]

USER = 7
# Two users of one browser.
FIRST, SECOND = 1, 2
MANY = [Sample(f"Alien {number}", 1980 + number, "Horror") for number in range(30)]
# Each view with a text that it shows when it is complete.
VIEWS = {
    "": "25 movies",
    "?q=nothing+has+this+title": "No movies match.",
    "?view=best": "Best movies",
    "?view=movie&id=2": "Similar movies",
    "?view=movie&id=99": "Movie not found",
    "?view=for-you": "For you",
    "?view=my-ratings": "You have rated nothing yet.",
    "?view=add": "Add a movie",
    "?view=edit&id=1": "Edit movie",
    "nowhere/at/all": "Page not found",
}
FIRST_VIEW_MAX_BYTES = 40_000
# Without this check Chromium sends requests to local addresses: the service must reject them.
NO_LOCAL_NETWORK_CHECKS = "--disable-features=LocalNetworkAccessChecks"
# Attacks by another page: requests with and without a preflight, and frames.
ATTACKS = """async (service) => {
    const rating = JSON.stringify({ movie_id: 1, score: 1 });
    const json = { "Content-Type": "application/json" };
    const simple = { method: "POST", mode: "no-cors" };
    const sent = [
        ["/movies/1", { method: "DELETE" }],
        ["/movies/1", { method: "PATCH", headers: json, body: '{"year": 2000}' }],
        ["/ratings", { method: "POST", headers: json, body: rating }],
        ["/ratings", { ...simple, body: rating }],
        ["/ratings", { ...simple, body: new Blob([rating]) }],
        ["/ratings", { ...simple, body: new URLSearchParams({ movie_id: 1, score: 1 }) }],
    ].map(([path, request]) => fetch(service + path, request).then((r) => r.type, (e) => e.name));
    await Promise.all(["/", "/docs"].map((path) => new Promise((resolve) => {
        const frame = document.createElement("iframe");
        Object.assign(frame, { src: service + path, onload: resolve });
        document.body.append(frame);
    })));
    return Promise.all(sent);
}"""


@dataclass
class Screen:
    """A tab of the browser, with the errors that occur in it.

    Attributes:
        page: Playwright's page.
        refused: status codes of error responses, in order.
        complaints: other errors in the console, and uncaught exceptions.
    """

    page: Page
    refused: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def expect_titles(self, *titles: str) -> None:
        """Wait until exactly these movies are shown."""
        expect_titles(self.page, *titles)

    def choose_user(self) -> None:
        """Enter a user number in the open dialog."""
        enter_user(self.page, USER)

    def note_response(self, response: Response) -> None:
        """Record the status code of an error response."""
        if response.status >= httpx.codes.BAD_REQUEST:
            self.refused.append(response.status)

    def note_message(self, message: ConsoleMessage) -> None:
        """Record an error in the console that `refused` does not cover."""
        refusal = "the server responded with a status of"
        if message.type == "error" and refusal not in message.text:
            self.complaints.append(message.text)

    def note_exception(self, error: Error) -> None:
        """Record an uncaught exception."""
        self.complaints.append(str(error))


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return SQLite, because the read cache needs it; the page does not depend on the engine."""
    return sqlite_url


@pytest.fixture
def removed() -> list[str]:
    """Return capabilities that the application does without."""
    return []


@pytest.fixture
def app(settings: Settings, removed: list[str], monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Return the application, without the removed capabilities."""
    for capability in removed:
        monkeypatch.setattr(f"app.{capability}.install", lambda _: None)
    return create_app(settings)


@pytest.fixture
def engine(app: FastAPI) -> Engine:
    """Return the application's engine."""
    engine: Engine = app.state.service.database.engine
    return engine


@pytest.fixture
def server(app: FastAPI) -> Iterator[Server]:
    """Yield the application on a socket."""
    with serving(app) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one browser per module: its event loop would break asyncio.run() in others."""
    assert CHROMIUM is not None, "install Chromium for CI"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[NO_NETWORK, NO_LOCAL_NETWORK_CHECKS]
        )
        yield browser
        browser.close()


@pytest.fixture
def screen(browser: Browser, server: Server) -> Iterator[Screen]:
    """Yield a tab of a new visitor. The test fails if complaints are left at its end."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1000, "height": 700})
    screen = Screen(context.new_page())
    screen.page.on("console", screen.note_message)
    screen.page.on("pageerror", screen.note_exception)
    screen.page.on("response", screen.note_response)
    yield screen
    context.close()
    assert screen.complaints == []


@pytest.fixture
def other(screen: Screen) -> Page:
    """Return another tab of the same browser."""
    return screen.page.context.new_page()


def expect_titles(page: Page, *titles: str) -> None:
    """Wait until a page shows exactly these movies."""
    expect(page.locator(".cards .poster strong")).to_have_text([*titles])


def enter_user(page: Page, user: int) -> None:
    """Enter a user number in the open dialog."""
    page.get_by_label("User number").fill(str(user))
    page.get_by_role("button", name="Use number").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def switch_user(page: Page, user: int) -> None:
    """Choose another user number."""
    page.locator("#user").click()
    enter_user(page, user)


def remove_prefix(page: Page) -> None:
    """Forward /api/ to the service without the prefix, as nginx does, and nothing else."""
    page.route(
        "**/*",
        lambda route: (
            route.continue_(url=route.request.url.replace("/api/", "/", 1))
            if "/api/" in route.request.url
            else route.abort()
        ),
    )


def test_catalogue_filters_and_page_are_kept_in_the_address(screen: Screen, engine: Engine) -> None:
    store(engine, *SAMPLES, *MANY)
    page = screen.page

    page.goto("/")
    expect(page.get_by_role("status").first).to_have_text("43 movies")
    page.get_by_label("Search titles").press_sequentially("wol")
    screen.expect_titles("100% Wolf", "1001 Wolves")
    page.get_by_label("Search titles").fill("")
    page.get_by_label("Genre").select_option("Animation")
    page.get_by_label("From year").fill("2002")
    page.get_by_label("To year").fill("2020")
    page.get_by_label("Order").select_option("Title")
    screen.expect_titles("100% Wolf", "1001 Wolves")
    page.reload()
    screen.expect_titles("100% Wolf", "1001 Wolves")
    expect(page.get_by_label("From year")).to_have_value("2002")
    page.get_by_label("From year").fill("1")
    expect(page.locator("#problem-year_min")).to_contain_text("greater than or equal to 1900")
    page.get_by_label("From year").fill("2021")
    expect(page.get_by_text("No movies match.")).to_be_visible()
    page.get_by_role("link", name="Show all movies").click()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("Page 2 of 2")).to_be_visible()
    expect(page.locator(".cards li")).to_have_count(43 - 24)
    page.go_back()
    expect(page.get_by_text("Page 1 of 2")).to_be_visible()

    assert screen.refused == [422]


def test_search_is_ordered_by_match_until_the_reader_chooses_an_order(
    screen: Screen, engine: Engine
) -> None:
    store(engine, HEAT, Sample("Heathers", 1988, "Comedy", (5, 5)), RONIN)
    page = screen.page
    order = page.get_by_label("Order")

    page.goto("/")
    screen.expect_titles("Heathers", "Ronin", "Heat")
    expect(order.locator("option:checked")).to_have_text("Most rated")
    with page.expect_request("**/movies?*q=heat*") as searched:
        page.get_by_label("Search titles").fill("heat")
    screen.expect_titles("Heat", "Heathers")
    expect(order.locator("option:checked")).to_have_text("Best match")
    assert "sort=" not in searched.value.url
    order.select_option("Most rated")
    screen.expect_titles("Heathers", "Heat")
    assert "sort=-rating_count" in page.url


def test_page_shows_the_text_that_was_searched_instead(screen: Screen, engine: Engine) -> None:
    store(engine, RONIN, HEAT)

    screen.page.goto("/?q=ronni")

    screen.expect_titles("Ronin")
    expect(screen.page.get_by_text("Showing results for “ronin”. 1 movie")).to_be_visible()


def test_slow_response_never_replaces_a_newer_one(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    held: list[Route] = []
    page = screen.page
    page.route("**/movies?*q=heat*", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    page.goto("/")
    with page.expect_request("**/movies?*q=heat*"):
        page.get_by_label("Search titles").fill("heat")
    page.get_by_label("Search titles").fill("ronin")
    screen.expect_titles("Ronin")
    held[0].continue_()
    page.wait_for_load_state("networkidle")

    screen.expect_titles("Ronin")


def test_last_click_on_the_stars_wins_if_the_first_is_slow(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    held: list[Route] = []
    page = screen.page
    page.add_init_script(f"localStorage.setItem('user', '{USER}')")
    page.route("**/ratings", lambda route: held.append(route), times=1)  # noqa: PLW0108 - Playwright marks it

    page.goto("/?view=movie&id=1")
    with page.expect_request("**/ratings"):
        page.get_by_role("button", name="2 stars").click()
    page.get_by_role("button", name="4 stars").click()
    page.wait_for_timeout(100)
    held[0].continue_()
    expect(page.locator(".summary .average")).to_have_text("★ 4.0 1 rating")

    expect(page.get_by_role("button", name="4 stars")).to_have_attribute("aria-pressed", "true")
    assert [row["score"] for row in rating_rows(engine)] == [4]


def test_abandoned_view_leaves_the_address_alone(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    held: list[Route] = []
    page = screen.page
    page.route("**/movies/top?*", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    page.goto("/")
    screen.expect_titles("Heat")
    with page.expect_request("**/movies/top?*"):
        page.get_by_role("link", name="Best").click()
    page.get_by_label("Search titles").fill("heat")
    held[0].continue_()
    expect(page.get_by_role("heading", level=1)).to_have_text("Best movies")

    assert page.url.endswith("/?view=best")


def test_unknown_parameters_of_a_shared_address_are_ignored(screen: Screen, engine: Engine) -> None:
    store(engine, *MANY)

    screen.page.goto("/?page=9&utm_source=chat&q=alien")
    screen.page.get_by_role("link", name="Previous").click()

    expect(screen.page.get_by_text("Page 2 of 2")).to_be_visible()
    expect(screen.page.locator(".cards li")).to_have_count(30 - 24)
    assert screen.refused == []


@pytest.mark.parametrize("view", ["constructor", "__proto__", "nothing"])
def test_unknown_view_shows_the_catalogue(screen: Screen, engine: Engine, view: str) -> None:
    store(engine, HEAT)

    screen.page.goto(f"/?view={view}")

    screen.expect_titles("Heat")


def test_best_movies_are_ranked_by_either_formula(screen: Screen, engine: Engine) -> None:
    store(engine, Sample("One", 2001, "Drama", (5,)), Sample("Many", 2002, "Drama", (4,) * 30))

    screen.page.goto("/?view=best")
    screen.expect_titles("Many", "One")
    screen.page.get_by_label("Ranking").select_option("Plain average")
    screen.expect_titles("One", "Many")

    assert screen.page.url.endswith("/?view=best&ranking=mean")


def test_movie_shows_its_data_and_takes_a_rating(screen: Screen, engine: Engine) -> None:
    with Session(engine) as session:
        MovieRepository(session).create(
            title="Heat (1995)",
            year=1995,
            genres=["Crime", "Thriller"],
            imdb_id="tt0113277",
            tmdb_id=949,
        )
    store(engine, RONIN)
    with Session(engine) as session:
        MovieRepository(session).add_rating(1, 5)
    page = screen.page

    page.goto("/?view=movie&id=1")
    expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
    expect(page.locator(".facts")).to_have_text("1995CrimeThriller")
    expect(page.locator(".summary .average")).to_have_text("★ 5.0 1 rating")
    for name, address in (
        ("IMDb", "https://www.imdb.com/title/tt0113277/"),
        ("TMDB", "https://www.themoviedb.org/movie/949"),
    ):
        expect(page.get_by_role("link", name=name)).to_have_attribute("href", address)
    expect(page.get_by_role("heading", name="Similar movies")).to_be_visible()
    screen.expect_titles("Ronin")
    page.get_by_role("button", name="2 stars").focus()
    page.keyboard.press("Enter")
    screen.choose_user()
    expect(page.locator(".summary .average")).to_have_text("★ 3.5 2 ratings")
    expect(page.locator(".chart li")).to_have_text(
        ["5 stars1", "4 stars0", "3 stars0", "2 stars1", "1 star0"]
    )
    assert rating_rows(engine)[1:] == [{"id": 2, "movie_id": 1, "user_id": USER, "score": 2}]
    page.reload()
    expect(page.get_by_role("button", name="2 stars")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="2 stars").click()
    expect(page.locator(".summary .average")).to_have_text("★ 5.0 1 rating")

    assert len(rating_rows(engine)) == 1
    assert screen.refused == []


def test_user_number_is_remembered_for_ratings_and_recommendations(
    screen: Screen, engine: Engine
) -> None:
    heat, ronin, alien, *_ = store(engine, HEAT, RONIN, *MANY)
    with Session(engine) as session:
        for movie_id, score in ((heat, 5), (ronin, 3)):
            MovieRepository(session).add_rating(movie_id, score, USER)
    with engine.begin() as connection:
        neighbour = {"movie_id": heat, "neighbour_id": alien, "weight": 1.0}
        connection.execute(insert(NEIGHBOUR), neighbour)
    page = screen.page

    page.goto("/")
    page.get_by_role("link", name="My ratings").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("main").get_by_role("button", name="Choose a user number").click()
    screen.choose_user()
    screen.expect_titles("Ronin", "Heat")
    expect(page.locator(".because")).to_have_text(["You gave it 3 stars", "You gave it 5 stars"])
    page.reload()
    expect(page.get_by_role("button", name=f"User {USER}")).to_be_visible()
    page.get_by_role("button", name=f"User {USER}").click()
    page.get_by_label("User number").fill("7e0")  # also 7, but the API takes digits only
    page.get_by_role("button", name="Use number").click()
    page.get_by_role("link", name="For you").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("For you")

    expect(page.locator(".cards li")).to_have_count(24)
    expect(page.locator(".cards li").first).to_contain_text("Alien 0")
    expect(page.locator(".because")).to_have_text("because you liked Heat")
    expect(page.locator(".because a")).to_have_css("unicode-bidi", "isolate")


def test_movie_is_added_edited_and_deleted_with_errors_beside_their_fields(
    screen: Screen, engine: Engine
) -> None:
    store(engine, HEAT)
    page = screen.page

    page.goto("/?view=add")
    page.get_by_label("Title").fill("Heat")
    page.get_by_role("button", name="Choose user").click()
    screen.choose_user()  # keeps the form
    page.get_by_label("Year").fill("MCMXCV")
    page.get_by_label("IMDb id").fill("113277")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#problem-year")).to_contain_text("valid integer")
    expect(page.locator("#problem-imdb_id")).not_to_be_empty()
    page.get_by_label("Year").fill("1998")
    page.get_by_label("IMDb id").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#problem-title")).to_have_text("A movie with this title already exists. ")
    page.get_by_label("Title").fill("Ronin")
    page.get_by_label("Genres").fill("action, thriller")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_have_text("1998ActionThriller")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Genres").fill("Crime")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_have_text("1998Crime")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    assert len(movie_rows(engine)) == 2
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Catalogue")

    assert [row["title"] for row in movie_rows(engine)] == ["Heat"]
    assert screen.refused == [422, 409]


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ({"Year": "1996"}, {"year": 1996}),
        ({"Title": " Heat! "}, {"title": "Heat!"}),
        (
            {"Genres": "Crime,Drama", "TMDB id": "949"},
            {"genres": ["Crime", "Drama"], "tmdb_id": 949},
        ),
        ({"IMDb id": "", "Genres": ""}, {"imdb_id": None, "genres": ["Unknown"]}),
    ],
)
def test_edit_sends_only_the_changed_fields(
    screen: Screen, engine: Engine, typed: dict[str, str], sent: dict[str, object]
) -> None:
    with Session(engine) as session:
        MovieRepository(session).create(title="Heat", year=1995, genre="Crime", imdb_id="tt0113277")
    page = screen.page

    with page.expect_response("**/movies/1") as read:
        page.goto("/?view=edit&id=1")
    for label, text in typed.items():
        page.get_by_label(label).fill(text)
    with page.expect_response(lambda response: response.request.method != "GET") as written:
        page.get_by_role("button", name="Save").click()

    request = written.value.request
    assert (request.method, request.post_data_json) == ("PATCH", sent)
    assert request.headers["if-match"] == read.value.headers["etag"]
    assert written.value.ok


def test_unchanged_form_is_not_sent(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    page = screen.page
    methods: list[str] = []
    page.on("request", lambda request: methods.append(request.method))

    page.goto("/?view=edit&id=1")
    page.get_by_label("Year").fill("1996")
    page.get_by_label("Year").fill("1995")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_have_text("1995Crime")

    assert {*methods} == {"GET"}


def test_conflicting_change_shows_both_versions(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    page = screen.page
    dialog = page.get_by_role("dialog", name="Someone else has changed it")

    page.goto("/?view=edit&id=1")
    page.get_by_label("Year").fill("1996")
    with Session(engine) as session:  # changes the ETag, but no field of the form
        MovieRepository(session).add_rating(1, 5)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_have_text("1996Crime")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Year").fill("1997")
    with Session(engine) as session:
        MovieRepository(session).update(1, title="Heat!")
    page.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("row", name="Title")).to_have_text("TitleHeatHeat!")
    expect(dialog.get_by_role("row", name="Year")).to_have_text("Year19971996")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert movie_rows(engine)[0]["year"] == 1996
    page.get_by_role("button", name="Save").click()
    dialog.get_by_role("button", name="Save mine").click()
    expect(page.locator(".facts")).to_have_text("1997Crime")
    expect(page.get_by_role("heading", level=1)).to_have_text("Heat")  # as in the dialog
    with Session(engine) as session:
        MovieRepository(session).update(1, title="Heat?")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("row", name="Title")).to_have_text("TitleHeatHeat?")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The catalogue is empty.")).to_be_visible()

    assert movie_rows(engine) == []
    assert screen.refused == [412] * 4


def test_api_key_is_asked_for_and_kept_for_the_session_only(
    browser: Browser, sqlite_url: str
) -> None:
    settings = Settings(database_url=sqlite_url, auto_setup=False, api_key=SecretStr("secret"))
    app = create_app(settings)
    with serving(app) as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        page.goto("/?view=add")
        page.get_by_label("Title").fill("Heat")
        page.get_by_label("Year").fill("1995")
        page.get_by_role("button", name="Save").click()
        for key in ("wrong", "secret"):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use key").click()
            page.wait_for_timeout(100)
        expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
        assert page.evaluate("[localStorage.length, sessionStorage.getItem('key')]") == [
            0,
            "secret",
        ]
        context.close()

    assert [row["title"] for row in movie_rows(app.state.service.database.engine)] == ["Heat"]


@pytest.fixture
def two_users(other: Page, engine: Engine) -> None:
    """Store two users who rated Heat the same, the second also Ronin. The first is chosen."""
    heat, ronin, _ = store(engine, HEAT, RONIN, MANY[0])
    with Session(engine) as session:
        repository = MovieRepository(session)
        for movie_id, score, user in ((heat, 4, FIRST), (heat, 4, SECOND), (ronin, 3, SECOND)):
            repository.add_rating(movie_id, score, user)
    other.goto("/?view=best")
    switch_user(other, FIRST)


def ratings_of_heat(engine: Engine) -> dict[int | None, int]:
    """Return the scores of the first movie by user."""
    return {row["user_id"]: row["score"] for row in rating_rows(engine) if row["movie_id"] == 1}


@pytest.mark.usefixtures("two_users")
def test_click_on_stars_counts_for_the_user_they_were_drawn_for(
    screen: Screen, other: Page, engine: Engine
) -> None:
    held: list[Route] = []
    page = screen.page
    page.route(f"**/ratings?*user_id={SECOND}", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    page.goto("/?view=movie&id=1")
    expect(page.get_by_role("button", name="4 stars")).to_have_attribute("aria-pressed", "true")
    switch_user(other, SECOND)  # the held request keeps the first user's stars on the screen
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.get_by_role("button", name="4 stars").click()

    assert ratings_of_heat(engine) == {SECOND: 4}


@pytest.mark.usefixtures("two_users")
def test_waiting_click_counts_for_the_user_who_clicked(
    screen: Screen, other: Page, engine: Engine
) -> None:
    held: list[Route] = []
    page = screen.page
    page.route("**/ratings", lambda route: held.append(route), times=1)  # noqa: PLW0108 - Playwright marks it

    page.goto("/?view=movie&id=1")
    with page.expect_request("**/ratings"):
        page.get_by_role("button", name="2 stars").click()
    page.get_by_role("button", name="5 stars").click()
    switch_user(other, SECOND)
    with page.expect_response(
        lambda response: (response.request.post_data_json or {}).get("score") == 5
    ):
        held[0].continue_()

    assert ratings_of_heat(engine) == {FIRST: 5, SECOND: 4}
    expect(page.get_by_role("button", name="4 stars")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("signal", ["storage", "pageshow"])
@pytest.mark.usefixtures("two_users")
def test_tab_shows_the_user_chosen_in_another_tab(
    screen: Screen, other: Page, engine: Engine, signal: str
) -> None:
    with Session(engine) as session:
        MovieRepository(session).add_rating(1, 2, SECOND)
    page = screen.page

    page.goto("/?view=movie&id=1")
    expect(page.get_by_role("button", name="4 stars")).to_have_attribute("aria-pressed", "true")
    if signal == "storage":
        switch_user(other, SECOND)
    else:  # Playwright disables the cache from which Back restores a page
        page.evaluate(
            f"localStorage.setItem('user', '{SECOND}');"
            "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
        )

    expect(page.get_by_role("button", name="2 stars")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name=f"User {SECOND}")).to_be_visible()


@pytest.mark.parametrize(
    ("view", "path", "titles"),
    [
        ("my-ratings", f"ratings?user_id={FIRST}&limit=1", ["Ronin", "Heat"]),
        ("for-you", f"recommendations/{FIRST}?limit=24", ["Alien 0"]),
    ],
)
@pytest.mark.usefixtures("two_users")
def test_late_response_for_another_user_is_not_shown(
    screen: Screen, other: Page, view: str, path: str, titles: list[str]
) -> None:
    held: list[Route] = []
    page = screen.page
    page.route(f"**/{path}", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    with page.expect_request(f"**/{path}"):
        page.goto(f"/?view={view}")
    switch_user(other, SECOND)
    held[0].continue_()
    page.wait_for_load_state("networkidle")

    screen.expect_titles(*titles)
    expect(page.get_by_role("button", name=f"User {SECOND}")).to_be_visible()


def test_click_stores_nothing_if_the_user_was_chosen_in_another_tab(
    screen: Screen, other: Page, engine: Engine
) -> None:
    store(engine, HEAT)
    with Session(engine) as session:
        MovieRepository(session).add_rating(1, 4, SECOND)
    held: list[Route] = []
    page = screen.page
    page.route(f"**/ratings?*user_id={SECOND}", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    page.goto("/?view=movie&id=1")
    page.get_by_role("button", name="1 star", exact=True).click()
    expect(page.get_by_label("User number")).to_be_visible()
    other.goto("/")
    with page.expect_request(f"**/ratings?*user_id={SECOND}"):
        switch_user(other, SECOND)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="1 star", exact=True).click()  # the view is not redrawn yet
    held[0].continue_()
    expect(page.get_by_role("button", name="4 stars")).to_have_attribute("aria-pressed", "true")

    assert ratings_of_heat(engine) == {SECOND: 4}


@pytest.mark.usefixtures("two_users")
def test_form_is_kept_when_another_tab_changes_the_user(screen: Screen, other: Page) -> None:
    screen.page.goto("/?view=edit&id=1")
    screen.page.get_by_label("Title").fill("Heat!")
    switch_user(other, SECOND)
    expect(screen.page.get_by_role("button", name=f"User {SECOND}")).to_be_visible()

    expect(screen.page.get_by_label("Title")).to_have_value("Heat!")


def test_api_key_is_shared_with_other_tabs(browser: Browser, sqlite_url: str) -> None:
    settings = Settings(database_url=sqlite_url, auto_setup=False, api_key=SecretStr("secret"))
    with serving(create_app(settings)) as server:
        context = browser.new_context(base_url=server.url)
        first, waiting, quiet = (context.new_page() for _ in range(3))
        for page in (first, waiting, quiet):
            page.goto("/?view=add")
            page.get_by_label("Year").fill("1995")
        for page, title in ((first, "First"), (waiting, "Waiting")):
            page.get_by_label("Title").fill(title)
            page.get_by_role("button", name="Save").click()
            expect(page.get_by_label("API key")).to_be_visible()
        first.get_by_label("API key").fill("secret")
        first.get_by_role("button", name="Use key").click()
        expect(first.get_by_role("heading", level=1)).to_have_text("First")
        expect(waiting.get_by_role("heading", level=1)).to_have_text("Waiting")
        late = context.new_page()
        late.goto("/?view=add")
        late.get_by_label("Year").fill("1995")
        for page, title in ((quiet, "Quiet"), (late, "Late")):
            page.get_by_label("Title").fill(title)
            page.get_by_role("button", name="Save").click()
            expect(page.get_by_role("heading", level=1)).to_have_text(title)
        assert late.evaluate("localStorage.length") == 0
        context.close()


def test_unreachable_server_is_reported_and_retried(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    page = screen.page

    page.set_viewport_size({"width": 360, "height": 300})
    page.goto("/")
    page.locator(".card").scroll_into_view_if_needed()
    page.context.set_offline(True)
    page.get_by_role("link", name="Best").evaluate("link => link.click()")
    expect(page.locator("#connection")).to_have_text(
        "The service cannot be reached. Trying again …"
    )
    expect(page.locator("#connection")).to_be_in_viewport()
    page.context.set_offline(False)
    expect(page.get_by_role("heading", level=1)).to_have_text("Best movies")

    expect(page.locator("#connection")).to_be_empty()
    assert {*screen.complaints} == {"Failed to load resource: net::ERR_INTERNET_DISCONNECTED"}
    screen.complaints.clear()


def test_empty_catalogue_offers_to_add_a_movie(screen: Screen) -> None:
    screen.page.goto("/")
    expect(screen.page.get_by_text("The catalogue is empty.")).to_be_visible()
    screen.page.get_by_role("link", name="Add the first movie").click()

    expect(screen.page.get_by_role("heading", level=1)).to_have_text("Add a movie")


def test_title_is_never_parsed_as_html(screen: Screen, engine: Engine) -> None:
    title = "<script>document.title='owned'</script><img src=x onerror=alert(1)> \u05d0\u202e\u05d1"
    store(engine, Sample(title, 2001, "Drama"))

    screen.page.goto("/")
    screen.expect_titles(title)
    screen.page.locator(".card").click()

    expect(screen.page.get_by_role("heading", level=1)).to_have_text(title)
    expect(screen.page).to_have_title(f"{title} · Movies")


def test_every_view_fits_a_phone_and_is_accessible_in_both_color_schemes(
    screen: Screen, engine: Engine
) -> None:
    store(engine, Sample("W" * 300, 2001, "Drama"), *SAMPLES[1:], *MANY[:12])
    page = screen.page
    page.set_viewport_size({"width": 360, "height": 640})
    page.add_init_script(f"localStorage.setItem('user', '{USER}')")

    for view, complete in VIEWS.items():
        page.emulate_media(color_scheme="light")
        page.goto(f"/{view}")
        expect(page.get_by_text(complete).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        violations = [Axe().run(page, options={"resultTypes": ["violations"]})]
        page.emulate_media(color_scheme="dark")
        violations.append(
            Axe().run(page, options={"runOnly": ["color-contrast"], "resultTypes": ["violations"]})
        )
        for found in violations:
            assert found.violations_count == 0, f"{view}: {found.generate_report()}"

    assert screen.refused == [404, 404]  # the unknown movie and the unknown path


def test_keyboard_reaches_a_movie(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT)
    page = screen.page

    page.goto("/")
    screen.expect_titles("Heat")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(6):  # five fields, then the first movie
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_filter_keeps_the_focus_when_the_keyboard_changes_it(
    screen: Screen, engine: Engine
) -> None:
    store(engine, Sample("One", 2001, "Drama", (5,)), Sample("Many", 2002, "Drama", (4,) * 30))

    screen.page.goto("/?view=best")
    screen.page.get_by_label("Ranking").focus()
    screen.page.keyboard.press("ArrowDown")
    screen.expect_titles("One", "Many")

    expect(screen.page.get_by_label("Ranking")).to_be_focused()


def test_first_view_is_small_and_needs_no_query(
    screen: Screen, engine: Engine, browser: Browser, server: Server
) -> None:
    store(engine, *SAMPLES, *MANY)
    screen.page.goto("/")
    expect(screen.page.locator(".card").first).to_be_visible()
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))

    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    requests: list[Request] = []
    page.on("requestfinished", lambda request: requests.append(request))  # noqa: PLW0108 - Playwright marks it
    page.goto("/")
    page.wait_for_load_state("networkidle")
    called = [request.url.removeprefix(server.url) for request in requests]
    sizes = dict(zip(called, [request.sizes() for request in requests], strict=True))
    context.close()

    cards = "/movies?sort=-rating_count&limit=24&offset=0"
    assert {"/", "/genres", cards} <= {*called}
    # The document is large, and requested when the cards have arrived.
    assert called.index("/openapi.json") > called.index(cards)
    del sizes["/openapi.json"]
    transferred = sum(
        size["responseBodySize"] + size["responseHeadersSize"] for size in sizes.values()
    )
    assert transferred < FIRST_VIEW_MAX_BYTES
    assert statements == []


def test_openapi_document_is_requested_once_and_delays_no_card(
    screen: Screen, engine: Engine
) -> None:
    store(engine, HEAT, RONIN)
    held: list[Route] = []
    page = screen.page
    page.route("**/openapi.json", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    with page.expect_request("**/openapi.json"):
        page.goto("/")
    screen.expect_titles("Ronin", "Heat")
    page.locator(".card").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ronin")
    page.wait_for_timeout(100)
    assert len(held) == 1
    held[0].continue_()

    expect(page.get_by_role("heading", name="Similar movies")).to_be_visible()


@pytest.mark.parametrize(
    ("removed", "hidden"),
    [
        ([], set()),
        (["recommender"], {"For you"}),
        (["movielens"], {"movies.csv", "ratings.csv"}),
    ],
)
def test_links_of_removed_capabilities_are_hidden(
    screen: Screen, engine: Engine, hidden: set[str]
) -> None:
    store(engine, HEAT)
    navigation = ["Catalogue", "Best", "For you", "My ratings", "Add a movie"]
    files = ["API documentation", "movies.csv", "ratings.csv"]

    screen.page.goto("/")

    links = screen.page.locator(":is(nav[aria-label=Views], footer) a:visible")
    expect(links).to_have_text([link for link in navigation + files if link not in hidden])


@pytest.mark.parametrize("removed", [["recommender"]])
def test_views_work_without_the_recommender(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    page = screen.page
    page.add_init_script(f"localStorage.setItem('user', '{USER}')")

    page.goto("/?view=movie&id=1")
    expect(page.get_by_role("link", name="For you")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
    expect(page.get_by_role("heading", name="Similar movies")).to_have_count(0)
    page.goto("/?view=for-you")  # a bookmark
    page.get_by_role("main").get_by_role("link", name="the best movies").click()
    screen.expect_titles("Heat", "Ronin")

    assert screen.refused == []


@pytest.mark.parametrize("removed", [["recommender"]])
def test_late_openapi_document_does_not_bring_back_an_abandoned_view(
    screen: Screen, engine: Engine
) -> None:
    store(engine, HEAT)
    held: list[Route] = []
    page = screen.page
    page.add_init_script(f"localStorage.setItem('user', '{USER}')")
    page.route("**/openapi.json", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it

    with page.expect_request("**/openapi.json"):
        page.goto("/?view=for-you")
    page.get_by_role("link", name="Best").click()
    screen.expect_titles("Heat")
    held[0].continue_()
    expect(page.get_by_role("link", name="For you")).to_be_hidden()

    expect(page.get_by_role("heading", level=1)).to_have_text("Best movies")


@pytest.mark.parametrize("removed", [["recommender"]])
def test_page_works_without_the_openapi_document(screen: Screen, engine: Engine) -> None:
    store(engine, HEAT, RONIN)
    page = screen.page
    page.route("**/openapi.json", lambda route: route.fulfill(status=404, body="<p>No."))

    page.goto("/?view=movie&id=1")
    expect(page.locator("main[aria-busy]")).to_have_count(0)

    expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
    expect(page.get_by_role("heading", name="Similar movies")).to_have_count(0)
    expect(page.get_by_role("link", name="For you")).to_be_visible()
    assert screen.refused == [404, 404]  # the document and the similar movies


@pytest.mark.parametrize("removed", [["recommender", "movielens"]])
def test_links_of_removed_capabilities_are_hidden_behind_a_proxy(
    browser: Browser, app: FastAPI
) -> None:
    with serving(app, root_path="/api") as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        remove_prefix(page)
        page.goto("/api/")
        expect(page.get_by_role("link", name="For you")).to_be_hidden()
        expect(page.locator("footer a:visible")).to_have_text("API documentation")
        context.close()


def test_page_works_behind_a_proxy_that_removes_a_prefix(
    browser: Browser, app: FastAPI, engine: Engine
) -> None:
    store(engine, HEAT)
    with serving(app, root_path="/api") as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        remove_prefix(page)
        page.goto("/api/")
        page.locator(".card").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Heat")
        assert page.url == f"{server.url}/api/?view=movie&id=1"
        page.goto("/api/no/such/path")
        page.get_by_role("link", name="Go to the movies").click()
        expect(page.locator(".card")).to_have_count(1)
        for name in ("API documentation", "movies.csv", "ratings.csv"):
            target = page.get_by_role("link", name=name).evaluate("link => link.href")
            assert target.startswith(f"{server.url}/api/")
        context.close()


def test_page_of_another_origin_can_neither_write_nor_frame_this_one(
    screen: Screen, engine: Engine, server: Server
) -> None:
    store(engine, HEAT)
    before = everything(engine)
    page = screen.page

    with serving(FastAPI()) as other:  # a real server, because Playwright allows routed requests
        page.goto(other.url.replace("127.0.0.1", "evil.localhost") + "/nowhere")
        sent = page.evaluate(ATTACKS, server.url)

    assert sent == ["TypeError"] * 3 + ["opaque"] * 3
    assert len(page.frames) == 3
    for frame in page.frames[1:]:
        frame.wait_for_url("chrome-error://chromewebdata/")
    assert everything(engine) == before
    screen.complaints.clear()
