-- One row an exchange. A row that `holds` closes its key; there is one a key at most.
CREATE TABLE exchanges (
    seq INTEGER PRIMARY KEY,            -- first part of its name; runs with time
    instance INTEGER NOT NULL,          -- second part of its name
    id BLOB,                            -- what its key is found by; null: nobody can ask for it
    key TEXT,
    key_hash INTEGER,
    holds INTEGER NOT NULL,
    epoch INTEGER NOT NULL,             -- which life of the key it is
    shared_epoch INTEGER,               -- the same in the store that replicas share
    state INTEGER NOT NULL,             -- 0 in flight, 1 completed, 2 unknown, 3 released, 4 failed
    route TEXT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    fingerprint BLOB,
    scope BLOB,                         -- where an equal request may take the key over
    attempts TEXT,                      -- [[outcome, status, wait ms, at]]
    status INTEGER,
    captured TEXT,                      -- {name: id}
    landed INTEGER,                     -- the status of a good answer whose head has come
    -- By the wall clock, and by that of a boot, in microseconds.
    began_at INTEGER NOT NULL, began_boot INTEGER NOT NULL, began_up INTEGER NOT NULL,
    ended_at INTEGER, ended_boot INTEGER, ended_up INTEGER,
    ttl INTEGER,                        -- how long after its end the answer is kept
    keep INTEGER,                       -- how long after its end the key is
    gone_at INTEGER                     -- when, by the wall clock, it is worth a look
);
CREATE INDEX by_key ON exchanges (key_hash, holds, id) WHERE key_hash IS NOT NULL;
CREATE INDEX open_ones ON exchanges (state, seq) WHERE state IN (0, 2);
CREATE INDEX gone_ones ON exchanges (gone_at) WHERE gone_at IS NOT NULL;
CREATE INDEX orphans ON exchanges (seq) WHERE scope IS NOT NULL AND holds = 1;
CREATE INDEX loose_ones ON exchanges (seq) WHERE holds = 0;

-- The answers that are kept, apart from the rows, so that those stay small.
CREATE TABLE answers (
    seq INTEGER PRIMARY KEY,
    head BLOB NOT NULL,                 -- status and fields
    body BLOB,                          -- where it is small
    file BLOB,                          -- the digest that names the file, where it is large
    size INTEGER NOT NULL,
    kept_until INTEGER NOT NULL
);
CREATE INDEX kept_ones ON answers (kept_until);
CREATE INDEX filed_ones ON answers (file) WHERE file IS NOT NULL;

-- One row: how much there is, and which boot of the machine wrote it.
CREATE TABLE books (
    keys INTEGER NOT NULL,
    loose INTEGER NOT NULL,
    answers INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    boot_id TEXT NOT NULL
);
INSERT INTO books VALUES (0, 0, 0, 0, '');
