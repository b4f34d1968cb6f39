-- A database of schema 1 as a clean stop left it. Frozen: not to be changed.
PRAGMA journal_mode = WAL;
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE directory (
    ino        INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    parent     INTEGER NOT NULL,
    name       BLOB NOT NULL,
    own_bytes  INTEGER NOT NULL,
    own_files  INTEGER NOT NULL,
    own_dirs   INTEGER NOT NULL
) STRICT;
CREATE TABLE link (
    ino    INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    names  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (ino, parent)
) STRICT, WITHOUT ROWID;
CREATE TABLE storage_usage_log (
    date               TEXT NOT NULL,
    tenant             TEXT NOT NULL DEFAULT '',
    total_files        INTEGER NOT NULL DEFAULT 0,
    total_size_bytes   INTEGER NOT NULL DEFAULT 0,
    recordings_added   INTEGER NOT NULL DEFAULT 0,
    recordings_deleted INTEGER NOT NULL DEFAULT 0,
    bytes_added        INTEGER NOT NULL DEFAULT 0,
    bytes_deleted      INTEGER NOT NULL DEFAULT 0,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    PRIMARY KEY (date, tenant)
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('clean', 1), ('created_at', 1763700000), ('log_epoch', 12), ('root_ino', 2),
    ('store_id', x'000102030405060708090a0b0c0d0e0f'), ('boot_id', x'101112131415161718191a1b1c1d1e1f');
INSERT INTO directory VALUES (2, 7, 2, x'', 0, 0, 1), (9, 8, 2, x'61636d65', 132, 3, 0);
INSERT INTO link VALUES (40, 9, 2, 500);
INSERT INTO storage_usage_log VALUES ('2026-11-21', 'acme', 3, 132, 3, 0, 132, 0, 1763700000, 1763700001);
PRAGMA user_version = 1;
