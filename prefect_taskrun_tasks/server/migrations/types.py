"""The two types of column that databases do not have alike."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

# ordered by the numbers of letters, as in SQLite
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
