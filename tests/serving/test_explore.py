"""The page: a pure function of its address, and safe whatever a title holds."""

import copy
import shutil
import socket
import sys
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("starlette", reason="the extra demo is not installed")
pytest.importorskip("jinja2", reason="the extra demo is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from rich.console import Console
from starlette.testclient import TestClient

from bert4rec_jax.errors import UserError
from bert4rec_jax.explore.app import make_app
from bert4rec_jax.explore.models import Models
from bert4rec_jax.explore.server import listen, serve
from bert4rec_jax.explore.state import Seen, State

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=alert(1)>\"'& "


@pytest.fixture(scope="session")
def models(scorer):
    """A model whose titles are markup, and the same one without titles."""
    titles = tuple(f"{HOSTILE}{i}" for i in range(len(scorer.catalog)))
    hostile = copy.copy(scorer)
    hostile.bundle = replace(scorer.bundle)
    catalog = replace(scorer.catalog, titles=titles, genres=(HOSTILE,) * len(titles))
    hostile.bundle.__dict__["catalog"] = catalog
    return Models([("hostile<b>", hostile), ("plain", scorer)], 5)


@pytest.fixture(scope="session")
def client(models):
    return TestClient(make_app(models, ["testserver"]), follow_redirects=False)


A, B, C = Seen("a"), Seen("b", "u"), Seen("c", "d")


@pytest.mark.parametrize(
    ("action", "after"),
    [
        ("up.1:b", (B, A, C)),
        ("up.1:a", (A, B, C)),
        ("down.1:b", (A, C, B)),
        ("down.1:c", (A, B, C)),
        ("remove.1:b", (A, C)),
        ("like.1:a", (Seen("a", "u"), B, C)),
        ("like.1:b", (A, Seen("b"), C)),
        ("dislike.1:b", (A, Seen("b", "d"), C)),
        ("add.d.e:f", (A, B, C, Seen("d.e:f"))),
        ("add.a", (A, B, C, A)),
        ("clear.", ()),
    ],
)
def test_what_a_button_does(action, after):
    assert State((A, B, C)).after(action).seen == after


def test_an_address_comes_back():
    state = State((Seen("d.e:f&g=h ü", "u"), A), (1, "x:y"))
    assert State.read(state.fields) == state
    assert State((A,)).after("why.1:x:y").why == (1, "x:y")
    assert (
        State.read([("seen", "z:a"), ("seen", "n:"), ("why", "x:1"), ("other", "n:a")]) == State()
    )
    for action in ("up.1:x", "up.a", "up.2:a", "up.0:a", "jump.1:a", ""):
        with pytest.raises(UserError):
            State((A,)).after(action)


def test_viewings_of_one_movie_are_told_apart():
    state = State((A, B, A, Seen("a", "u")))
    assert state.names == ["1:a", "1:b", "2:a", "3:a"]
    assert State.read(state.fields) == state
    assert state.after("dislike.2:a").seen == (A, B, Seen("a", "d"), Seen("a", "u"))
    assert state.after("remove.1:a").seen == (B, A, Seen("a", "u"))
    assert state.after("up.2:a").seen == (A, A, B, Seen("a", "u"))
    assert state.once == State((A, B))


def test_a_second_viewing_counts_only_where_movies_repeat(scorer, monkeypatch):
    models = Models([("plain", scorer)], 5)
    client = TestClient(make_app(models, ["testserver"]), follow_redirects=False)
    item = scorer.catalog.item_ids[0]
    once, twice = f"/?seen=n%3A{item}", f"/?seen=n%3A{item}&seen=n%3A{item}"
    again = f"/act?seen=n%3A{item}&title={item}"
    assert client.get(again).headers["location"] == once
    assert client.get(twice).text.count('class="name"') == 1
    monkeypatch.setitem(scorer.bundle.manifest, "repeats", True)
    assert client.get(again).headers["location"] == twice
    assert client.get(twice).text.count('class="name"') == 2
    listed = models.lists(State((Seen(item), Seen(item))))[0].answer
    assert listed == scorer.recommend([item, item], 5, keep_seen=True)


def test_the_page_lists_what_the_scorer_does(client, scorer, models):
    ids = scorer.catalog.item_ids
    up, two_up = scorer.bundle.thumbs
    text = client.get("/", params=[("seen", f"n:{ids[0]}"), ("seen", f"d:{ids[1]}")]).text
    expected = scorer.recommend(ids[:2], 5, ratings=[float("nan"), up - 1])
    places = [text.index(f'value="why.1:{item}"') for item in expected.item_ids]
    assert places == sorted(places)
    other = models.lists(State((Seen(ids[0]), Seen(ids[1], "u"))))[1].answer
    assert other == scorer.recommend(ids[:2], 5, ratings=[float("nan"), up])
    assert up <= two_up


def test_buttons_lead_to_the_next_address(client, models):
    ids = models.catalog.item_ids
    seen = [("seen", f"n:{item}") for item in ids[:2]]
    answer = client.get("/act", params=[*seen, ("do", f"down.1:{ids[0]}")])
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/?seen=n%3A{ids[1]}&seen=n%3A{ids[0]}"
    typed = client.get("/act", params=[*seen, ("title", ids[7])])
    assert typed.headers["location"].endswith(f"&seen=n%3A{ids[7]}")


def test_a_click_shows_why(client, models):
    ids = models.catalog.item_ids
    text = client.get("/", params=[("seen", f"n:{ids[0]}"), ("why", f"1:{ids[9]}")]).text
    assert "<svg" in text and 'id="why"' in text and 'role="alert"' not in text


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/act?title=Casablanca", 422, "no title is clearly &#39;Casablanca&#39;"),
        ("/act?title=+", 422, "type a title first"),
        ("/act?do=jump.1", 422, "is not in the history"),
        ("/?seen=n:nobody", 200, "not among these items: &#39;nobody&#39;"),
        ("/?why=0:1", 200, "add an item first"),
        ("/?seen=n:{0}&why=7:1", 200, "there is no such model"),
        ("/?seen=n:{0}&why=0:nobody", 200, "item &#39;nobody&#39; is not among the 40 items"),
        ("/static/../app.py", 404, "Not Found"),
        ("/static/page.html", 404, "not found"),
    ],
)
def test_what_cannot_be_meant_is_said(client, models, address, status, said):
    answer = client.get(address.replace("{0}", models.catalog.item_ids[0]))
    assert answer.status_code == status and said in answer.text


def test_hostile_titles_are_escaped_everywhere(client, models):
    ids = models.catalog.item_ids
    query = [("seen", f"n:{ids[0]}"), ("seen", f"u:{ids[1]}"), ("why", f"0:{ids[9]}")]
    for answer in (
        client.get("/", params=query),
        client.get("/", params=[("seen", f"n:{HOSTILE}"), ("why", f"0:{HOSTILE}")]),
        client.get("/act", params=[("title", HOSTILE)]),
    ):
        assert answer.text.count("<script") == 1 and "<img" not in answer.text
        assert "&lt;img src=x" in answer.text
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    found = client.get("/titles", params={"q": "IMG SRC"})
    assert found.headers["content-type"] == "application/json" and len(found.json()) == 12
    assert found.json()[0] == {"value": f"{HOSTILE}0", "label": f"{HOSTILE}0"}
    assert client.get("/titles").json() == []


def test_other_host_names_are_refused(client):
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400


def test_a_bundle_without_titles_says_so(bundle):
    models = Models.open([bundle], 3)
    assert models.names == ["bundle"]
    assert Models.open([bundle, bundle], 3).names == [str(bundle)] * 2
    assert not models.has_titles
    text = TestClient(make_app(models, ["*"])).get("/").text
    assert "This bundle has no titles" in text and "This model does not read" not in text


def test_without_thumbs_a_disliked_movie_is_not_read(scorer, monkeypatch):
    models = Models([("one", scorer)], 5)
    monkeypatch.setitem(scorer.bundle.manifest["model"], "thumbs", False)
    assert "This model does not read" in TestClient(make_app(models, ["*"])).get("/").text
    ids = models.catalog.item_ids
    found = models.lists(State((Seen(ids[0]), Seen(ids[1], "d"), Seen(ids[2], "u"))))[0].answer
    up = scorer.bundle.thumbs[0]
    assert found == scorer.recommend(
        [ids[0], ids[2]], 5, exclude=[ids[1]], ratings=[float("nan"), up]
    )


def test_a_port_in_use_and_other_mistakes(bundle):
    console = Console(quiet=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use, .*--port"):
            serve([bundle], host="127.0.0.1", port=port, k=5, console=console)
    for host, port, message in (
        ("127.0.0.1", 70_000, "port is 70000; expected 0 to 65535"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1"),
        ("é" * 64, 0, "'é+', which is no name of a host; choose another with --host"),
    ):
        with pytest.raises(UserError, match=message):
            listen(host, port)
    with pytest.raises(UserError, match="name at least one bundle"):
        serve([], host="127.0.0.1", port=0, k=5, console=console)
    with pytest.raises(UserError, match="k is 0"):
        Models([], 0)


def test_without_the_extra_it_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        UserError, match=r"uvicorn, which is not installed; pip install '.*\[demo\]'"
    ):
        serve([bundle], host="127.0.0.1", port=0, k=5, console=Console(quiet=True))


@pytest.fixture
def address(models):
    """The page, served on a free port."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(make_app(models, ["*"]), log_level="error"))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser(tmp_path):
    """Debian's chromium, without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "window-size=500,900",
        f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.implicitly_wait(60)
    yield driver
    driver.quit()


def test_in_a_browser_by_keyboard_on_a_small_window(browser, address, models):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    ids = models.catalog.item_ids
    # What was found may be replaced before it is looked at: look again.
    wait = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])

    def names():
        return browser.execute_script(
            "return [...document.querySelectorAll('.seen .name')].map(e => e.innerText.trim())"
        )

    def listed():
        return browser.execute_script(
            "return [...document.querySelectorAll('.recommended .title')].map(e => e.id)"
        )

    def expected(*seen):
        lists = models.lists(State(tuple(map(Seen, seen))))
        return [f"why.{n}:{item}" for n, one in enumerate(lists) for item in one.answer.item_ids]

    browser.get(address)
    assert listed() == expected()
    field = browser.find_element(By.ID, "title")
    field.send_keys("0")
    wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "#titles option"))
    for item in ids[:2]:
        field = browser.switch_to.active_element
        assert field.get_attribute("id") == "title"
        field.clear()
        field.send_keys(item, Keys.ENTER)
        wait.until(lambda _, item=item: f"n%3A{item}" in browser.current_url)
        wait.until(lambda _: not browser.switch_to.active_element.get_attribute("value"))
    assert names() == [models.title(item).strip() for item in ids[:2]]
    move = browser.find_element(By.ID, f"down.1:{ids[0]}")
    move.send_keys(Keys.ENTER)
    wait.until(lambda _: names() == [models.title(item).strip() for item in ids[1::-1]])
    assert listed() == expected(*ids[1::-1])
    # The button is at its end now, so focus went where the visitor can go on.
    assert browser.switch_to.active_element.get_attribute("id") == "history"
    like = browser.find_element(By.ID, f"like.1:{ids[0]}")
    like.send_keys(Keys.SPACE)
    wait.until(lambda _: f"u%3A{ids[0]}" in browser.current_url)
    wait.until(lambda _: browser.switch_to.active_element.get_attribute("aria-pressed") == "true")
    assert "First now: " in browser.find_element(By.ID, "status").get_attribute("textContent")
    browser.find_element(By.CSS_SELECTOR, ".recommended .title").send_keys(Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "#why + .drawn svg")
    wait.until(lambda _: browser.switch_to.active_element.get_attribute("id") == "why")
    width = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(width) == 0, "no sideways scrolling of the page"
    assert browser.title.startswith("Explore: hostile<b>")
    assert browser.execute_script("return document.images.length") == 0
    browser.back()
    wait.until(lambda _: "why" not in browser.current_url)
    wait.until(lambda _: not browser.execute_script("return !!document.getElementById('why')"))
    unlabelled = """return [...document.querySelectorAll('button,input:not([type=hidden])')].filter(
        e => !(e.getAttribute('aria-label') || e.labels.length || e.textContent.trim())).length"""
    assert browser.execute_script(unlabelled) == 0


def test_in_a_browser_the_page_is_that_of_its_address(browser, address, models, monkeypatch):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait, ids, lists = WebDriverWait(browser, 60), models.catalog.item_ids, models.lists
    answered = []

    def late(state):
        if len(state.seen) == 2:
            time.sleep(2)
        answered.append(len(state.seen))
        return lists(state)

    def seen():
        return len(browser.find_elements(By.CSS_SELECTOR, ".seen .name"))

    browser.get(address)
    browser.implicitly_wait(0)
    for count, item in enumerate(ids[:3], start=1):
        browser.execute_script("document.getElementById('title').value = arguments[0]", item)
        browser.execute_script("document.querySelector('.add button').click()")
        wait.until(lambda _, count=count: seen() == count)
    browser.execute_script("document.querySelector('.skip').click()")
    time.sleep(0.5)  # a link within the page loads nothing, and so keeps the focus
    assert browser.switch_to.active_element.get_attribute("id") == "recommended"
    browser.back()
    monkeypatch.setattr(models, "lists", late)
    for count in (2, 1):  # back twice, and the first answer comes last
        browser.back()
        wait.until(lambda _, count=count: browser.current_url.count("seen=") == count)
    wait.until(lambda _: sorted(answered) == [1, 2])
    time.sleep(0.5)
    assert seen() == 1

    def broken(state):
        raise RuntimeError("broken")

    monkeypatch.setattr(models, "lists", broken)
    browser.execute_script("document.getElementById(arguments[0]).click()", f"remove.1:{ids[0]}")
    wait.until(lambda _: "Internal Server Error" in browser.page_source)


def test_a_disliked_movie_takes_no_place_in_an_explanation(scorer, monkeypatch):
    models = Models([("plain", scorer)], 5)
    monkeypatch.setitem(scorer.bundle.manifest["model"], "thumbs", False)
    seen = (Seen(scorer.catalog.item_ids[0]),)
    first, second = models.lists(State(seen))[0].answer.item_ids[:2]
    state = State((*seen, Seen(first, "d")), (0, second))
    assert models.lists(state)[0].answer.item_ids[0] == second
    assert "place 1" in models.why(state).drawn
    with pytest.raises(UserError, match="does not read items with a thumb down"):
        models.why(State((Seen(first, "d"),), (0, second)))
    with pytest.raises(UserError, match="add an item first"):
        models.why(State((), (0, second)))
    with pytest.raises(UserError, match="this model knows none of these items"):
        models.why(State((Seen("not in the catalog"),), (0, second)))


def test_a_title_that_is_the_id_of_another_movie_is_not_suggested(scorer):
    twisted = copy.copy(scorer)
    twisted.bundle = replace(scorer.bundle)
    ids = scorer.catalog.item_ids
    titles = (ids[1], *(f"Movie {i}" for i in range(1, len(ids))))
    twisted.bundle.__dict__["catalog"] = replace(scorer.catalog, titles=titles)
    models = Models([("twisted", twisted)], 5)
    for text in (ids[1], "Movie 3"):
        for typed, label in models.suggest(text):
            assert models.title(models.find(typed)) == label


def test_genres_are_those_of_the_first_model_that_knows_any(scorer):
    with_genres = copy.copy(scorer)
    with_genres.bundle = replace(scorer.bundle)
    genres = ("Drama|Comedy",) * len(scorer.catalog)
    with_genres.bundle.__dict__["catalog"] = replace(scorer.catalog, genres=genres)
    without = copy.copy(scorer)
    without.bundle = replace(scorer.bundle)
    catalog = replace(scorer.catalog, genres=("",) * len(scorer.catalog))
    without.bundle.__dict__["catalog"] = catalog
    both = Models([("without", without), ("with", with_genres)], 5)
    assert both.genres(scorer.catalog.item_ids[0]) == "Drama, Comedy"
    assert Models([("without", without)], 5).genres(scorer.catalog.item_ids[0]) == ""
