"""App: serves the page over HTTP. It keeps no state: the URL holds what a visitor has chosen."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bert4rec_jax.errors import UserError
from bert4rec_jax.explore.models import Models, Why
from bert4rec_jax.explore.state import State

_HEADERS = {
    # Load nothing from other hosts, and run no script but ours. Titles are escaped as well.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STATIC = {"explore.css": "text/css", "explore.js": "text/javascript"}


def make_app(models: Models, hosts: list[str]) -> Starlette:
    """Make the web app for some models.

    Args:
      models: the models to compare.
      hosts: host names under which the page may be requested; `*` for any. Other names are refused,
        so that no other site can reach this page under a name of its own (DNS rebinding).
    """
    page = Environment(
        loader=PackageLoader("bert4rec_jax.explore", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def show(state: State, *, problem: str = "", status: int = 200) -> Response:
        absent = [movie.item_id for movie in state.seen if not models.has(movie.item_id)]
        if absent:
            problem = f"not among these items: {', '.join(map(repr, absent))}"
            state = State(tuple(m for m in state.seen if m.item_id not in absent), state.why)
        if not models.repeat:
            state = state.once
        explained: Why | None = None
        if state.why:
            try:
                explained = models.why(state)
            except UserError as error:
                problem = problem or str(error)
        text = page.get_template("page.html").render(
            state=state,
            models=models,
            lists=models.lists(state),
            explained=explained,
            drawn=Markup(explained.drawn) if explained else "",
            problem=problem,
        )
        return HTMLResponse(text, status, headers=_HEADERS)

    def home(request: Request) -> Response:
        return show(State.read(request.query_params.multi_items()))

    def act(request: Request) -> Response:
        """Handle a pressed button or a typed title: redirect to the URL of the new state."""
        query = request.query_params
        state = State.read(query.multi_items())
        try:
            if "do" in query:
                state = state.after(query["do"])
            else:
                state = state.after(f"add.{models.find(query.get('title', ''))}")
        except UserError as error:
            return show(state, problem=str(error), status=422)
        state = state if models.repeat else state.once
        return RedirectResponse(state.address, 303, headers=_HEADERS)

    def titles(request: Request) -> Response:
        found = models.suggest(request.query_params.get("q", ""))
        return JSONResponse(
            [{"value": value, "label": label} for value, label in found], headers=_HEADERS
        )

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return Response("not found", 404, headers=_HEADERS)
        text = files("bert4rec_jax.explore").joinpath("page", name).read_text(encoding="utf-8")
        return Response(text, media_type=_STATIC[name], headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/act", act),
            Route("/titles", titles),
            Route("/static/{name}", static),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )
