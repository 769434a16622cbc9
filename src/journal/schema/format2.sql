-- One row a delivery: what a provider sent for an application, until that has it; then
-- what it is known by, for as long as a repeat may come.
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,            -- runs with arrival
    route TEXT NOT NULL,
    id BLOB NOT NULL,                   -- what makes two deliveries one
    digest BLOB NOT NULL,               -- of the body
    state INTEGER NOT NULL,             -- 0 waiting, 1 delivered, 2 given up
    head BLOB,                          -- method, target and fields; null once it does not wait
    body BLOB,
    size INTEGER NOT NULL,              -- bytes of both
    attempts INTEGER NOT NULL,
    came_at INTEGER NOT NULL, came_boot INTEGER NOT NULL, came_up INTEGER NOT NULL,
    ended_at INTEGER, ended_boot INTEGER, ended_up INTEGER,
    keep INTEGER,                       -- how long after its end it is remembered
    gone_at INTEGER                     -- when, by the wall clock, it is worth a look
);
CREATE UNIQUE INDEX delivery_ids ON deliveries (id);
CREATE INDEX waiting_deliveries ON deliveries (route, seq) WHERE state = 0;
CREATE INDEX gone_deliveries ON deliveries (gone_at) WHERE gone_at IS NOT NULL;
