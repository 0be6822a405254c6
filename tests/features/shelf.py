"""Six movies, a store of five users who watch them, and tables that know the movies."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.store import write_store

TITLES = {
    "0113277": ("Heat (1995)", "Crime|Drama"),
    "0114709": ("Toy Story (1995)", "Animation|Comedy"),
    "0000417": ("A Trip to the Moon (1902)", "Sci-Fi"),
    "0133093": ("The Matrix (1999)", "Action|Sci-Fi"),
    "0110912": ("Pulp Fiction (1994)", ""),
    "2294629": ("2294629", ""),
}
IDS = tuple(TITLES)

# As a table in TMDB's schema has them. The Matrix has no overview; the last item has nothing.
ROWS = [
    {"tmdb_id": 949, "imdb_id": "tt0113277", "title": "Heat", "release_date": "1995-12-15",
     "original_language": "en", "runtime": 170.0, "budget": 60e6, "genres": "Crime|Drama",
     "keywords": "heist|los angeles", "cast": "Al Pacino|Robert De Niro",
     "director": "Michael Mann", "production_companies": "Regency", "tagline": "A crime saga.",
     "overview": "Thieves and a detective.", "popularity": 20.5, "vote_average": 7.9,
     "vote_count": 1886, "revenue": 187e6},
    {"tmdb_id": 862, "imdb_id": "tt0114709", "title": "Toy Story", "release_date": "1995-10-30",
     "original_language": "en", "runtime": 81.0, "budget": 30e6, "genres": "Animation|Comedy",
     "keywords": "toy|heist", "cast": "Tom Hanks", "director": "John Lasseter",
     "production_companies": "Pixar", "overview": "Toys come alive.", "popularity": 21.9},
    {"tmdb_id": 775, "imdb_id": "tt0000417", "title": "A Trip to the Moon",
     "release_date": "1902-04-17", "original_language": "fr", "runtime": 0.0, "budget": 0.0,
     "genres": "Science Fiction", "overview": "Astronomers go to the Moon."},
    {"tmdb_id": 603, "imdb_id": "tt0133093", "title": "The Matrix", "release_date": "1999-03-30",
     "original_language": "en", "runtime": 136.0, "budget": 63e6,
     "genres": "Action|Science Fiction", "cast": "Keanu Reeves"},
    {"tmdb_id": 680, "imdb_id": "tt0110912", "title": "Pulp Fiction"},
    {"tmdb_id": 1, "imdb_id": "tt9999999", "title": "Somewhere else", "runtime": -5.0},
]  # fmt: skip
FIELDS = tuple(ROWS[0])


def catalog(titles=TITLES):
    names, genres = zip(*titles.values())
    return Catalog(tuple(titles), names, genres)


def store(path, titles=TITLES, ids=IDS):
    """Each of five users watches all items in order, from another one on; the last item of the
    catalog is watched once, at the end of a history, so that training never sees it."""
    common = ids[:-1]
    rows = [
        (user, common[(user + step) % len(common)], step) for user in range(5) for step in range(5)
    ]
    rows.append((4, ids[-1], 5))
    users, items, times = zip(*rows)
    users = pa.array([f"user {user}" for user in users]).dictionary_encode()
    items = pa.array(items).dictionary_encode()
    log = Interactions(
        users=users.indices.to_numpy().astype(np.int32),
        items=items.indices.to_numpy().astype(np.int32),
        timestamps=np.array(times, np.int64),
        ratings=np.full(len(rows), np.nan, np.float32),
        user_ids=users.dictionary,
        item_ids=items.dictionary,
    )
    return write_store(log.in_time_order(), path, titles=titles, source={})


def write_parquet(path, rows=ROWS, fields=FIELDS):
    columns = {name: [row.get(name) for row in rows] for name in fields}
    pq.write_table(pa.table(columns), path)
    return path


def write_csv(path, rows=ROWS, fields=FIELDS):
    lines = [",".join(fields)]
    lines += [",".join("" if row.get(f) is None else str(row[f]) for f in fields) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_lines(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Fake:
    """A model whose vectors count letters; it remembers what it was asked."""

    def __init__(self, name="fake", revision="1", dim=8):
        self.name, self.revision, self.dim, self.asked = name, revision, dim, []

    def __call__(self, texts):
        self.asked.extend(texts)
        return np.array(
            [[1 + text.lower().count(chr(97 + i)) for i in range(self.dim)] for text in texts],
            np.float32,
        )
