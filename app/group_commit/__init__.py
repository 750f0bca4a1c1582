"""Stores ratings that arrive while a commit runs together, in the next one."""

from functools import partial

from fastapi import FastAPI

from app.group_commit.routes import router
from app.group_commit.waiting import GroupCommit
from app.routes.route_class import PerEventLoop


def install(app: FastAPI) -> None:
    """Take over ``POST /ratings`` from the core, whose route answers it otherwise."""
    app.state.group_commit = PerEventLoop(partial(GroupCommit, app))
    app.include_router(router)
