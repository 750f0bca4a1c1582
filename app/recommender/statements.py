"""The recommender's statements, built once. Their cost is bounded for any size of catalogue."""

from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, column, delete, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from app.statements import MOVIE_COLUMNS, top_rated, unrated
from app.tables import MOVIE, NEIGHBOUR, RATING

# The lowest score that counts as a like.
LIKE = 4
# The weight of a 4, relative to a 5.
WEIGHT_OF_4 = 0.7
# Only a user's latest likes count. The latest has weight 1, a like with HALF_LIFE later ones 1/2.
LATEST_LIKES = 100
HALF_LIFE = 20
MAX_REASONS = 3
# Added to a movie's number of ratings: a movie with few ratings should not rank first by chance.
PRIOR_RATINGS = 20

_weight = NEIGHBOUR.c.weight
# Divide by the number of ratings: by weight alone, blockbusters would be similar to everything.
SIMILAR = (
    select(*MOVIE_COLUMNS)
    .join_from(NEIGHBOUR, MOVIE, MOVIE.c.id == NEIGHBOUR.c.neighbour_id)
    .where(NEIGHBOUR.c.movie_id == bindparam("this_movie"))
    .order_by((_weight * _weight / (MOVIE.c.rating_count + PRIOR_RATINGS)).desc(), MOVIE.c.id)
    .limit(bindparam("row_limit"))
)

_year = "(SELECT year FROM movie WHERE movie.id = candidate.id)"
# The conditions of candidates, by filter.
_CONDITIONS = {
    "of_genre": """
        AND EXISTS (SELECT 1 FROM movie_genre WHERE movie_id = candidate.id AND genre = :of_genre)
    """,
    "of_year_min": f"AND {_year} >= :of_year_min",
    "of_year_max": f"AND {_year} <= :of_year_max",
}


# Force a lookup by primary key for each like: by default, SQLite would use another index and
# PostgreSQL would scan the whole table.
_KEY_LOOKUP = {
    "sqlite": "CROSS JOIN neighbour ON {condition}",
    "postgresql": (
        "CROSS JOIN LATERAL (SELECT * FROM neighbour WHERE {condition} OFFSET 0) AS neighbour"
    ),
}


@cache
def recommended(dialect: str, *filters: str) -> Select[Any]:
    """Select the best recommendations for a user, with the likes that contributed most to each.

    A movie's score is the sum of weight * rating * recency over the user's LATEST_LIKES. The rating
    is 1 for a 5 and WEIGHT_OF_4 for a 4. The recency of a like with n later ones is
    HALF_LIFE / (HALF_LIFE + n).
    A movie has one row for each of up to MAX_REASONS likes, with the like's id and title first.
    """
    key_lookup = _KEY_LOOKUP[dialect].format
    of_like = "neighbour.movie_id = liked.movie_id"
    sql = f"""
        WITH liked AS (
            SELECT movie_id,
                   CASE score WHEN {LIKE} THEN {WEIGHT_OF_4} ELSE 1.0 END * {HALF_LIFE}
                   / ({HALF_LIFE - 1} + row_number() OVER (ORDER BY created_at DESC, id DESC))
                   AS weight
            FROM (
                SELECT id, movie_id, score, created_at FROM rating
                WHERE user_id = :by_user AND score >= {LIKE}
                ORDER BY created_at DESC, id DESC LIMIT {LATEST_LIKES}
            ) AS latest
        ),
        best AS (
            SELECT id, score FROM (
                SELECT neighbour_id AS id, sum(neighbour.weight * liked.weight) AS score
                FROM liked {key_lookup(condition=of_like)}
                GROUP BY neighbour_id
            ) AS candidate
            WHERE id NOT IN (SELECT movie_id FROM rating WHERE user_id = :by_user)
            {" ".join(_CONDITIONS[name] for name in filters)}
            ORDER BY score DESC, id LIMIT :row_limit
        )
        SELECT * FROM (
            SELECT best.id, best.score, liked.movie_id AS reason_id,
                   row_number() OVER (
                       PARTITION BY best.id
                       ORDER BY neighbour.weight * liked.weight DESC, liked.movie_id
                   ) AS place
            FROM best CROSS JOIN liked
            {key_lookup(condition=f"{of_like} AND neighbour.neighbour_id = best.id")}
        ) AS explained
        WHERE place <= {MAX_REASONS}
        -- Changes no result, but bounds the rows that PostgreSQL's planner expects.
        LIMIT {MAX_REASONS} * :row_limit
    """  # noqa: S608 - constants
    names = ("id", "score", "reason_id", "place")
    explained = text(sql).columns(*map(column, names)).subquery()
    reason = MOVIE.alias("reason")
    return (
        select(reason.c.id, reason.c.title, *MOVIE_COLUMNS)
        .join_from(explained, MOVIE, MOVIE.c.id == explained.c.id)
        .join(reason, reason.c.id == explained.c.reason_id)
        .order_by(explained.c.score.desc(), explained.c.id, explained.c.place)
    )


@cache
def others(*filters: str, rated: bool, genre_first: bool) -> Select[Any]:
    """Select the movies that a user has not rated, without the chosen ones, by weighted ranking."""
    movies = (top_rated if rated else unrated)(
        *filters, ranking="weighted", genre_first=genre_first
    )
    by_user = select(RATING.c.movie_id).where(RATING.c.user_id == bindparam("by_user"))
    return movies.where(
        MOVIE.c.id.not_in(by_user), MOVIE.c.id.not_in(bindparam("chosen", expanding=True))
    )


LIKES = select(*RATING.c["movie_id", "user_id"]).where(
    RATING.c.user_id.is_not(None), RATING.c.score >= LIKE
)

# New neighbours are staged in a temporary table, which blocks no other connection. On SQLite its
# schema equals the stored table's: SQLite then copies rows unchanged into the empty table, many
# times faster than it inserts them. Source: "xfer optimization" in SQLite's insert.c.
STAGE_ON_SQLITE = str(CreateTable(NEIGHBOUR).compile(dialect=sqlite.dialect())).replace(
    "TABLE neighbour", "TEMP TABLE staged_neighbour", 1
)
INDEX_STAGED_ON_SQLITE = "CREATE INDEX temp.ix_staged_neighbour ON staged_neighbour (neighbour_id)"
STAGE_ON_POSTGRESQL = text("CREATE TEMP TABLE staged_neighbour (LIKE neighbour) ON COMMIT DROP")
COPY_TO_STAGED_ON_POSTGRESQL = "COPY staged_neighbour FROM STDIN"
# Blocks other trainings and movie deletions, but no readers. Both delete neighbours, in different
# orders, and could deadlock.
LOCK_ON_POSTGRESQL = text("LOCK TABLE neighbour IN SHARE ROW EXCLUSIVE MODE")
DELETE_NEIGHBOURS = delete(NEIGHBOUR)
# On PostgreSQL, these movies cannot be deleted until the transaction ends.
LOCK_STAGED_MOVIES = (
    select(MOVIE.c.id)
    .where(MOVIE.c.id.in_(text("SELECT movie_id FROM staged_neighbour")))
    .with_for_update(read=True, key_share=True)
)
UNSTAGE = text("DELETE FROM staged_neighbour WHERE :this_movie IN (movie_id, neighbour_id)")
INSERT_STAGED = text("INSERT INTO neighbour SELECT * FROM staged_neighbour")
# Without new statistics, PostgreSQL overestimates the neighbours per movie and JIT-compiles each
# recommendation, which takes many times as long as running it. Autovacuum would analyze the table
# a minute or more later.
ANALYZE_ON_POSTGRESQL = text("ANALYZE neighbour")


@cache
def stage_on_sqlite(count: int) -> str:
    """Return an INSERT of ``count`` staged neighbours.

    Its parameters are the columns, row by row.
    """
    return f"INSERT INTO staged_neighbour VALUES {', '.join(['(?, ?, ?)'] * count)}"  # noqa: S608 - constants
