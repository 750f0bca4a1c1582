"""``reading()`` and ``writing()`` under the name that notebooks import; see app/db."""

from app.db import reading, writing
