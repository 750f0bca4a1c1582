"""Stores ratings that arrive while a commit runs together, in the next one."""

from fastapi import FastAPI

from app.group_commit.routes import router
from app.group_commit.waiting import GroupCommit


def install(app: FastAPI) -> None:
    """Take over ``POST /ratings`` from the core, whose route answers it otherwise."""
    app.state.group_commit = GroupCommit(app)
    app.include_router(router)
